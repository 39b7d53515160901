"""What a handler may ask for as its first parameter: its job, its dependencies, whether it should stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Generic, Protocol

from typing_extensions import TypeVar

from taskharbor.call import Signature, current_dispatcher, sendables, sheltered
from taskharbor.errors import JobCancelled, UsageError
from taskharbor.flow import Sequel
from taskharbor.job import DEFAULT_PRIORITY, DEFAULT_QUEUE, Delivery, new_job_id, new_token
from taskharbor.report import LogLine, Progress
from taskharbor.retry import RetryNumbers
from taskharbor.schedule import TICK_META
from taskharbor.task.told import Told, checked_line, checked_progress

Deps = TypeVar("Deps", default=None)
D = TypeVar("D")

_making = threading.Lock()
"""Held while the first word of a handler makes a place for its words, which two of its threads may do at once."""


class StopSignal(Protocol):
    """Where a context reads whether its job should stop."""

    @property
    def stop_reason(self) -> str | None:
        """Return why the job should stop, None while it should not."""
        ...


class Context(Generic[Deps]):
    """The running job, as its handler sees it. Injected; never passed by a caller.

    `Deps` is the type of the harbor's dependencies; plain `Context` means none are used.
    """

    __slots__ = ("_delivery", "_hear", "_sequels", "_stop", "_told", "asked", "deps", "reports")

    deps: Deps
    """What the harbor's `deps` lifespan yielded; one object for all jobs of a worker."""
    asked: list[Signature[object]]
    """What `enqueue_on_success` was given; for unit tests, with a detached context."""
    reports: list[Progress | LogLine]
    """What `progress` and `log` made of what they were given; only for unit tests, with a detached context."""

    def __init__(
        self,
        deps: Deps,
        delivery: Delivery,
        stop: StopSignal,
        hear: Callable[[Told], None] | None = None,
    ) -> None:
        """Made by the worker; for calling `task.fn` by hand, see `Context.detached`."""
        self.deps = deps
        self._delivery = delivery
        self._stop = stop
        # Appended to, which threads can do at once.
        self._sequels: list[Sequel] = []
        self._hear = hear
        self._told: Told | None = None
        self.asked = []
        self.reports = []

    # With a type variable of its own: on the bare class `Deps` stands for its default, None.
    @staticmethod
    def detached(deps: D, *, task: str = "detached", attempt: int = 1) -> Context[D]:
        """Return a context that belongs to no job, for calling `task.fn(ctx, ...)` by hand, as in a unit test."""
        now = datetime.now(UTC)
        delivery = Delivery(
            id=new_job_id(),
            token=new_token(),
            task=task,
            queue=DEFAULT_QUEUE,
            payload=b"",
            codec="json",
            fingerprint=0,
            attempt=attempt,
            fence=1,
            retry=RetryNumbers(),
            timeout=None,
            priority=DEFAULT_PRIORITY,
            run_at=now,
            enqueued_at=now,
            key=None,
            meta={},
            keep_result=True,
            guarded=False,
            solo=False,
            cancel_requested=False,
        )
        return Context(deps, delivery, NEVER_STOP)

    def __repr__(self) -> str:
        return f"<Context of job {self.job_id} ({self.task}, attempt {self.attempt})>"

    @property
    def job_id(self) -> str:
        """Return the job's id."""
        return self._delivery.id

    @property
    def task(self) -> str:
        """Return the task name it was enqueued under; may be an alias."""
        return self._delivery.task

    @property
    def queue(self) -> str:
        """Return the queue it came from."""
        return self._delivery.queue

    @property
    def attempt(self) -> int:
        """Return the number of this attempt, from 1."""
        return self._delivery.attempt

    @property
    def max_attempts(self) -> int:
        """Return how many attempts there are in all."""
        return self._delivery.retry.max_attempts

    @property
    def fence(self) -> int:
        """Return a number that grows with every delivery of this job.

        Hand it to what the job writes to, and have that refuse numbers smaller than the greatest it saw: a stopped
        worker that wakes after another took its job over then does no harm.
        """
        return self._delivery.fence

    @property
    def key(self) -> str | None:
        """Return its idempotency key."""
        return self._delivery.key

    @property
    def meta(self) -> Mapping[str, str]:
        """Return the metadata that travels with it."""
        return MappingProxyType(self._delivery.meta)

    @property
    def run_at(self) -> datetime:
        """Return its earliest start."""
        return self._delivery.run_at

    @property
    def tick(self) -> datetime | None:
        """Return the instant of its schedule that it stands for, in UTC; None if no schedule made it, or one that was
        triggered by hand.
        """
        tick = self._delivery.meta.get(TICK_META)
        return None if tick is None else datetime.fromisoformat(tick)

    @property
    def enqueued_at(self) -> datetime:
        """Return when it was enqueued, by the store's clock."""
        return self._delivery.enqueued_at

    @property
    def flow_id(self) -> str | None:
        """Return the id of the flow that it is a step of; None if it is of none."""
        step = self._delivery.step
        return None if step is None else step.flow or None

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Tell how far the job is: for whoever looks at it, and for those who listen to `JobProgressed`.

        As often as you like: the worker keeps the latest, and writes it down about twice a second and when the attempt
        ends. It survives a retry. Never blocks, and callable from any thread.

        Args:
            done: how much is done, in whatever unit; 0 or more.
            total: of how much; None where that is not known.
            note: what it is at, in a few words; the first 200 characters are kept.

        Raises:
            OptionError: a number below zero, or that is none; a note that is no text.
        """
        progress = checked_progress(done, total, note)
        with sheltered():  # cut in half, nobody would hear that there is something to hear
            self.told.note(progress)
        if self._hear is None:
            self.reports.append(progress)

    def log(self, text: str) -> None:
        """Add a line to the job's own log, which is kept with the job: `handle.log()`, `taskharbor jobs show`.

        Written down as progress is. The last 200 lines of a job are kept, of all its attempts, and of each line the
        first 1000 characters. Never blocks, and callable from any thread. For what the operators of your service
        should read, use `logging`.

        Raises:
            OptionError: it is no text.
        """
        line = checked_line(text)
        with sheltered():
            written = self.told.write(line)
        if self._hear is None:
            self.reports.append(written)

    @property
    def told(self) -> Told:
        """Return what the handler has told and nobody has taken yet."""
        if self._told is None:
            with sheltered(), _making:
                if self._told is None:
                    self._told = Told(self._delivery, self._hear or _nobody)
        return self._told

    def enqueue_on_success(self, *signatures: Signature[object]) -> None:
        """Have calls, or flows, stored together with the success of this job, in one transaction, or never.

        Never, that is, if this attempt fails, is cancelled, or its lease is lost: then whoever runs the job again
        asks anew. A call whose idempotency key is taken when it comes to that is left out. Callable from any thread.

        Raises:
            PayloadError: arguments do not fit a signature.
            OptionError: something else than a signature.
            FlowError: steps that cannot be joined so.
            UsageError: this is a child process (`run="process"`), from which nothing but the result comes back.
        """
        if self._stop is IN_CHILD:
            raise UsageError(
                f"task {self.task!r} runs in a process of its own, from which only its result comes back; let a step "
                "that follows it enqueue more, or run it in a thread"
            )
        calls = sendables(signatures)
        self.asked.extend(signatures)
        if self._stop is NEVER_STOP:  # of no job: whoever made it looks at `asked`
            return
        dispatcher = current_dispatcher(self._delivery.task)
        self._sequels.append(dispatcher.sequel(calls))

    @property
    def sequel(self) -> Sequel | None:
        """Return what was asked to be stored with its success."""
        asked = self._sequels
        if not asked:
            return None
        return Sequel(
            jobs=tuple(job for one in asked for job in one.jobs),
            flows=tuple(flow for one in asked for flow in one.flows),
        )

    @property
    def cancelled(self) -> bool:
        """Return whether it should stop: cancelled, out of time, or its worker shuts down."""
        return self._stop.stop_reason is not None

    def raise_if_cancelled(self) -> None:
        """Raise if the job should stop: for sync handlers, at places where stopping is safe.

        Raises:
            JobCancelled: it should. Left uncaught it ends the attempt as what the stop was: a cancel, a timeout, or a
                hand-back at shutdown.
        """
        reason = self._stop.stop_reason
        if reason is not None:
            raise JobCancelled(f"job {self.job_id} should stop: {reason}", job_id=self.job_id)


def _nobody(_told: Told) -> None:
    """Hear nothing."""


class _NeverStop:
    stop_reason: str | None = None


NEVER_STOP: StopSignal = _NeverStop()
"""For contexts that nobody can stop, since no job is theirs."""
IN_CHILD: StopSignal = _NeverStop()
"""For those in a child process, which is stopped as a whole."""
