"""`InlineHarbor`: a harbor in memory, whose jobs run when a test says so, by a clock that the test turns."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Self, TypeVar

from typing_extensions import override

from taskharbor.call import Call, FlowCall, JobHandle, Sent, Signature, refuse_on_loop
from taskharbor.call.dispatcher import install, installed
from taskharbor.call.options import check_duration
from taskharbor.clock import ManualClock
from taskharbor.codec import Codec
from taskharbor.errors import OptionError
from taskharbor.harbor import Harbor
from taskharbor.job import DEFAULT_QUEUE, JobRecord, JobState, NewJob
from taskharbor.task import Middleware, Registry, Task, TaskDefinition
from taskharbor.testing.faults import Failures, Faults, Outage, raise_dead, raise_first
from taskharbor.testing.joining import InlineDriver, InlineSender
from taskharbor.testing.passes import jobs_in, queues_of, turned
from taskharbor.working import run_until_idle, until_idle

if TYPE_CHECKING:
    from taskharbor.worker import Lifespan, Worker, WorkerCounts

R = TypeVar("R")

_NOTHING = timedelta(0)


class InlineHarbor(Harbor):
    """A harbor for a test: a store in memory of its own, with nothing working on it until `drain` is called.

    Jobs take the way that they take in production: encoded, checked, stored, reserved, decoded, run within their
    layers, retried. One runs at a time, or one batch, in the order in which they are due; no batch waits for more than
    is due, and limits that tasks declare (`rate`, `max_running`) keep nothing back. Tasks with `run="process"` run in
    children, as everywhere. `drain` heeds no settings of the environment or of a file. Nobody waits for listeners with
    `when_full="wait"`, since it is the test itself that would read them: they hold all that comes.
    """

    def __init__(
        self,
        *,
        registry: Registry | None = None,
        codec: Codec | None = None,
        codecs: Iterable[Codec] = (),
        middleware: Iterable[Middleware] = (),
        deps: Lifespan | None = None,
        clock: ManualClock | None = None,
        raise_errors: bool = False,
    ) -> None:
        """Make it, with an empty store.

        Args:
            registry: the tasks it knows, by default `default_registry`.
            codec: the wire format of payloads and results, by default JSON.
            codecs: further formats that it reads.
            middleware: layers around every enqueue and every attempt.
            deps: builds what handlers get as `ctx.deps`, or gives a fake: `deps=lambda: nullcontext(fake)`.
            clock: the clock to turn, by default one that stands at 2026-01-01.
            raise_errors: `drain` raises what an attempt raised, with the handler's own traceback, instead of leaving it
                to the job's `Retry` alone.
        """
        self._clock = ManualClock() if clock is None else clock
        self._memory = InlineDriver(self._clock)
        self._faults, self._failures, self._outage = Faults(), Failures(), Outage()
        self._raise_errors = raise_errors
        super().__init__(
            self._memory,
            registry=registry,
            codec=codec,
            codecs=codecs,
            middleware=[self._failures, *middleware, self._faults],
            deps=deps,
        )
        self._declarations = self._declarations.in_tests()
        # Whoever enqueues and drains is who reads, as a rule.
        self._hub.waits = False
        self._sender = InlineSender(
            self._memory,
            self._connections,
            self._codec,
            check=self._check,
            hub=self._hub,
            middleware=self._middleware,
        )
        self._stands_for: Harbor | None = None
        self._places, self._entries = ExitStack(), 0

    @classmethod
    def like(
        cls,
        harbor: Harbor,
        *,
        deps: Lifespan | None = None,
        clock: ManualClock | None = None,
        raise_errors: bool = False,
    ) -> InlineHarbor:
        """Return one with the tasks, codecs, middleware and dependencies of an application's harbor.

        From when it is entered or installed until it is left or closed, it also takes what is asked of that harbor
        itself (`enqueue_many`, `using`, `jobs`...): nothing reaches the application's store.

        Args:
            harbor: the application's; nothing is asked of its store.
            deps: instead of its own: builds fakes.
            clock: the clock to turn.
            raise_errors: as for the class.
        """
        inline = cls(
            registry=harbor._registry,
            codec=harbor._codec,
            codecs=harbor._more_codecs,
            middleware=harbor._middleware,
            deps=harbor._lifespan if deps is None else deps,
            clock=clock,
            raise_errors=raise_errors,
        )
        inline._declarations = harbor._declarations.in_tests()
        inline._stands_for = harbor
        return inline

    @override
    def __repr__(self) -> str:
        return f"<InlineHarbor at {self._clock.now():%Y-%m-%d %H:%M:%S}>"

    @property
    def clock(self) -> ManualClock:
        """Return the store's clock: `harbor.clock.advance(timedelta(hours=1))`."""
        return self._clock

    @property
    def codec(self) -> Codec:
        """Return what it writes payloads with, unless a task has a codec of its own."""
        return self._codec

    def records(self) -> Sequence[JobRecord]:
        """Return every job in the store, in the order in which they were enqueued; on event loops, too."""
        return list(jobs_in(self._memory))

    def as_enqueued(self, job_id: str) -> NewJob | None:
        """Return a job as its producer handed it in; None if it is not kept any more."""
        return self._memory.enqueued(job_id)

    @contextmanager
    def everywhere(self) -> Generator[Self]:
        """Make it current in the block, in every thread and event loop, and close it at the end.

        `with harbor:` makes it current in the block's own context, which threads and servers begun earlier do not see.
        What was installed before is installed again afterwards.
        """
        before = installed()
        install(self)
        try:
            with self:
                yield self
        finally:
            install(before)

    # --- standing in for the application's harbor

    @override
    def install(self) -> Self:
        """Make this the process-wide default."""
        self._stand_in()
        return super().install()

    @override
    def __enter__(self) -> Self:
        """Make this the current harbor until the end of the block."""
        self._stand_in()
        self._entries += 1
        return super().__enter__()

    @override
    async def __aenter__(self) -> Self:
        """Make this the current harbor until the end of the block."""
        self._stand_in()
        self._entries += 1
        return await super().__aenter__()

    @override
    def _leave(self) -> None:
        self._entries -= 1
        super()._leave()

    @override
    def close(self) -> None:
        """Close it. Idempotent."""
        self._stand_back()
        super().close()

    @override
    async def aclose(self) -> None:
        """Close it. Idempotent."""
        self._stand_back()
        await super().aclose()

    def _stand_in(self) -> None:
        if self._stands_for is not None:
            self._places.enter_context(self._stands_for._replaced_by(self))

    def _stand_back(self) -> None:
        if self._entries <= 0:
            self._places.close()

    # --- running

    def drain(self, *, within: timedelta = _NOTHING, raise_errors: bool | None = None) -> WorkerCounts:
        """Run all that is due, and what that enqueues; return how many deliveries ended in which state.

        Args:
            within: turn the clock as well, to each next job that is due within so long from now, and run that: what is
                scheduled, what is retried, and what schedules fire. The clock stays at the last one. With the default
                it is not turned.
            raise_errors: as for the class, for this call.

        Raises:
            Exception: with `raise_errors`, the first that came out of an attempt; the clock is turned no further then.
                (Not `Snooze` and `RetryLater`, which ask for another attempt.)
            JobFailed: with `raise_errors`, a job became a dead letter with nothing raised: its payload did not fit.
            LifespanError: the dependencies could not be built, or are not what a task declares.
            BlockingCallError: on a running event loop; use `adrain`.
        """
        refuse_on_loop("InlineHarbor.drain()", "harbor.adrain()")
        total = self._no_counts()
        for worker in self._workers(within, raise_errors=raise_errors):
            _add(total, run_until_idle(self._application(), worker, _NOTHING))
        return total

    async def adrain(self, *, within: timedelta = _NOTHING, raise_errors: bool | None = None) -> WorkerCounts:
        """Run all that is due on the running event loop; the async form of `drain`."""
        total = self._no_counts()
        for worker in self._workers(within, raise_errors=raise_errors):
            _add(total, await until_idle(worker, _NOTHING))
        return total

    def _workers(self, within: timedelta, *, raise_errors: bool | None) -> Iterator[Worker]:
        """Yield a worker for each pass, to be run before the next is asked for; turn the clock between them."""
        check_duration(within, "within")
        raises = self._raise_errors if raise_errors is None else raise_errors
        until = self._clock.now() + within
        self._failures.take()
        dead = {job.id for job in jobs_in(self._memory, JobState.DEAD)}
        while True:
            served = {DEFAULT_QUEUE, *queues_of(self._memory)}
            served.update(definition.options.queue for definition in self._registry)
            yield self._worker(sorted(served))
            if raises:
                raise_first(self._failures.take())
                raise_dead(job for job in jobs_in(self._memory, JobState.DEAD) if job.id not in dead)
            if any(ready for name, ready in queues_of(self._memory).items() if name not in served):
                continue
            by = turned(self._memory, self._clock.now(), until)
            if by is None:
                return
            self._clock.advance(by)

    def _worker(self, queues: Sequence[str]) -> Worker:
        from taskharbor.worker import Worker, WorkerSettings

        worker = Worker(self._application(), WorkerSettings(queues=queues, concurrency=1))
        worker.leave_limits()
        return worker

    @staticmethod
    def _no_counts() -> WorkerCounts:
        from taskharbor.worker import WorkerCounts

        return WorkerCounts()

    # --- failures on purpose

    def fail_next(self, task: Task[..., R], error: Exception, *, times: int = 1, after: bool = False) -> None:
        """Have the next attempts at a task fail with an error, as if its handler had raised it.

        Args:
            task: whose attempts.
            error: what is raised; the task's `Retry` decides what becomes of the job.
            times: how many attempts, whichever jobs they are of.
            after: let the handler run to its end first, and have the attempt fail all the same: what has been done once
                is done again, as after a crash just before the success was written down. So it shows whether a handler
                may run twice.

        Raises:
            OptionError: what is no task, no exception, or no number of times.
        """
        _check_error(error)
        _check_times(times)
        self._faults.plan(definition_of(task, "fail_next"), error, times, after=after)

    def fail_next_enqueue(self, *, times: int = 1, stored: bool = False) -> None:
        """Have the next enqueues raise `StoreUnavailable`, by whatever task, alone or in a batch.

        Args:
            times: how many.
            stored: the jobs are stored, and the answer is lost: whoever asks again without a key enqueues twice.

        Raises:
            OptionError: no number of times.
        """
        _check_times(times)
        self._outage.plan(times, stored=stored)

    @override
    def send(self, calls: Sequence[Call | FlowCall]) -> Sequence[Sent]:
        """Store calls as jobs, and flows; see `Dispatcher`."""
        lost = self._outage.next()
        sent = super().send(calls)
        if lost:
            self._outage.lose()
        return sent

    @override
    async def asend(self, calls: Sequence[Call | FlowCall]) -> Sequence[Sent]:
        """Store calls as jobs, and flows; see `Dispatcher`."""
        lost = self._outage.next()
        sent = await super().asend(calls)
        if lost:
            self._outage.lose()
        return sent

    @override
    def enqueue_many(
        self, signatures: Iterable[Signature[R]], *, check: bool | None = None
    ) -> list[JobHandle[R]]:
        """Store many calls in one transaction; see `Harbor.enqueue_many`."""
        lost = self._outage.next()
        handles = super().enqueue_many(signatures, check=check)
        if lost:
            self._outage.lose()
        return handles

    @override
    async def aenqueue_many(
        self, signatures: Iterable[Signature[R]], *, check: bool | None = None
    ) -> list[JobHandle[R]]:
        """Store many calls in one transaction; the async form of `enqueue_many`."""
        lost = self._outage.next()
        handles = await super().aenqueue_many(signatures, check=check)
        if lost:
            self._outage.lose()
        return handles


def _add(total: WorkerCounts, counts: WorkerCounts) -> None:
    for state, jobs in counts.settled.items():
        total.add(state, jobs)
    total.stale += counts.stale


def definition_of(task: object, where: str) -> TaskDefinition:
    """Return a task's definition.

    Raises:
        OptionError: it is no task.
    """
    if not isinstance(task, Task):
        raise OptionError(f"{where}({task!r}): expected a task")
    return task.definition


def _check_error(error: object) -> None:
    if not isinstance(error, Exception):
        raise OptionError(f"fail_next(..., {error!r}): expected an exception object, such as OSError('gone')")


def _check_times(times: object) -> None:
    if isinstance(times, bool) or not isinstance(times, int) or times < 1:
        raise OptionError(f"times={times!r}: expected a whole number of at least 1")
