"""One job on its way through a worker, and how its end is read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

import msgspec

from taskharbor.errors import JobCancelled, JobInterrupt, JobTimeout
from taskharbor.job import Delivery
from taskharbor.outcome import (
    REASON_LIMIT,
    Cancelled,
    Failed,
    Outcome,
    Reject,
    Rejected,
    Released,
    RetryLater,
    Snooze,
    Snoozed,
    Succeeded,
    Verdict,
    bounded,
    checked_wait,
    describe,
)
from taskharbor.task import Attempt, Context
from taskharbor.task.told import Told
from taskharbor.worker.plan import TaskPlan, UnfitResult
from taskharbor.worker.work import Stop, Work


class Run(Work):
    """One delivery, from its decoding to its outcome."""

    __slots__ = (
        "_context",
        "_deps",
        "arguments",
        "attempt",
        "began",
        "delivery",
        "on_news",
        "outcome",
        "reported",
        "stop",
        "stop_reason",
        "told",
    )

    def __init__(self, delivery: Delivery, plan: TaskPlan, arguments: msgspec.Struct, deps: object) -> None:
        self.plan = plan
        self.started = False
        self.interrupt = None
        self.task = None
        self.timer = None
        self.delivery = delivery
        self.arguments = arguments
        self.attempt: Attempt | None = None
        """What layers around its handler see; None without."""
        self._deps = deps
        self._context: Context[object] | None = None
        self.reported = False
        """The store knows that it has begun."""
        self.stop: Stop | None = None
        self.stop_reason: str | None = None
        self.outcome: Outcome | None = None
        self.began = 0.0
        """When its handler began, on the monotonic clock; 0 if it has not."""
        self.ended = 0.0
        self.told: Told | None = None
        """What its handler tells of itself, once it has told anything."""
        self.on_news: Callable[[Run], None] | None = None
        """Called, in any thread, when there is something to take from `told`."""

    @property
    def parts(self) -> Sequence[Run]:
        """Return itself."""
        return (self,)

    @property
    def queue(self) -> str:
        """Return the queue that its job came from."""
        return self.delivery.queue

    @property
    def solo(self) -> bool:
        """Return whether it is a job that runs beside no other of its kind."""
        return self.delivery.solo

    @property
    def job_id(self) -> str:
        """Return the job's id."""
        return self.delivery.id

    @property
    def context(self) -> Context[object]:
        """Return what its handler sees of it; made when first asked for, since most handlers never ask."""
        if self._context is None:
            self._context = Context(self._deps, self.delivery, self, self._hear)
        return self._context

    def _hear(self, told: Told) -> None:
        self.told = told
        if self.on_news is not None:
            self.on_news(self)

    @property
    def seconds(self) -> float | None:
        """Return for how long its handler ran; None if it never began."""
        return self.ended - self.began if self.began else None

    def succeeded(self, value: object) -> Succeeded:
        """Return the outcome of its handler, which returned `value`.

        Raises:
            UnfitResult: it is not of the declared type, or larger than a job's result may be.
        """
        outcome = self.plan.succeeded(value, keep=self.delivery.keep_result)
        sequel = None if self._context is None else self._context.sequel
        return outcome if sequel is None else msgspec.structs.replace(outcome, sequel=sequel)

    def ask_to_stop(self, stop: Stop, reason: str = "") -> None:
        """Note why it should stop, the first reason winning, and interrupt it.

        Once only, since it may be cleaning up; a shutdown alone insists.
        """
        if self.stop is None:
            self.stop = stop
            self.stop_reason = reason or stop.value
        elif stop is not Stop.SHUTDOWN:
            return
        interrupt = (
            self.interrupt
        )  # a batch that ends takes it away, on the loop, and the keeper asks in its own thread
        if interrupt is not None:
            interrupt.interrupt(self)

    def let_go(self) -> None:
        """Give up what leads back to it, in circles that would be left to the garbage collector."""
        self.interrupt = None
        self.attempt = None
        self._context = None

    def failed(self, error: BaseException, worker: str) -> Outcome:
        """Return what an exception that ended the handler means. Whatever is odd about it, there is an outcome."""
        try:
            return self._read(error, worker)
        except BaseException:  # noqa: BLE001 - a verdict's subclass without its fields, a __hash__ that raises, ...
            return Failed(describe(error, attempt=self.delivery.attempt, worker=worker))

    def _read(self, error: BaseException, worker: str) -> Outcome:
        error = _verdict_in(error)
        if isinstance(error, _STOPPED) and self.stop is not None:
            return self.stopped(worker)
        if isinstance(error, Snooze):
            return Snoozed(checked_wait(error.for_, "Snooze(for_=...)"))
        told = describe(error, attempt=self.delivery.attempt, worker=worker)
        if isinstance(error, Reject):
            return Rejected(told, bounded(error.reason, REASON_LIMIT))
        if isinstance(error, UnfitResult):  # another attempt would repeat its work, and fail likewise
            kind = error.public
            told = msgspec.structs.replace(told, type=f"{kind.__module__}.{kind.__qualname__}")
            return Rejected(told, error.reason_of_death)
        policy = self.plan.definition.options.retry.policy_for(error)
        after = checked_wait(error.after, "RetryLater(after=...)") if isinstance(error, RetryLater) else None
        return Failed(told, policy, after)

    def ending(self, worker: str) -> Outcome:
        """Return its outcome; one whose handler was cut short before it had any was stopped."""
        return self.outcome if self.outcome is not None else self.stopped(worker)

    def stopped(self, worker: str) -> Outcome:
        """Return what it means that the handler ended because it was asked to."""
        match self.stop:
            case Stop.TIMEOUT:
                limit = self.delivery.timeout
                error = JobTimeout(
                    f"the attempt ran longer than its timeout of {limit}", job_id=self.delivery.id
                )
                return self.failed(error, worker)
            case Stop.SHUTDOWN:
                return Released(started=self.started)
            case _:
                return Cancelled(self.stop_reason or "")


def _verdict_in(error: BaseException) -> BaseException:
    """Return the verdict that a task group wraps, if it is all there is in the group; else the error itself."""
    inner = error
    while (
        isinstance(inner, BaseExceptionGroup)
        and len(cast("tuple[BaseException, ...]", inner.exceptions)) == 1
    ):
        inner = cast("tuple[BaseException, ...]", inner.exceptions)[0]
    return inner if isinstance(inner, Verdict) else error


_STOPPED = (asyncio.CancelledError, JobInterrupt, JobCancelled)
