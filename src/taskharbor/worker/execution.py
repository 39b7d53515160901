"""Running handlers: async ones as tasks on the loop, sync ones in threads, `run="process"` ones in children.

Whatever a handler does, its end becomes an outcome here: exceptions of every kind, `sys.exit` and its like included.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
from collections import deque
from collections.abc import Callable
from contextvars import Context as ContextVars

from taskharbor.call import Dispatcher, enter, running_job
from taskharbor.errors import JobInterrupt
from taskharbor.outcome import Outcome
from taskharbor.worker.batch_run import BatchRun
from taskharbor.worker.leases import Leases
from taskharbor.worker.plan import UnfitResult
from taskharbor.worker.processes import Children
from taskharbor.worker.reporting import Reporting
from taskharbor.worker.run import Run
from taskharbor.worker.settings import WorkerSettings
from taskharbor.worker.slots import Slots
from taskharbor.worker.telling import Telling
from taskharbor.worker.threads import Threads
from taskharbor.worker.work import Work


class _Cancel:
    """Stops an async handler: `CancelledError` at its next await. Only used in the loop's own thread."""

    def interrupt(self, run: Work) -> None:
        # A task cancelled before its first step would never run at all, and nobody would hear of its end.
        if run.started and run.task is not None:
            run.task.cancel()

    def shelter(self) -> contextlib.AbstractContextManager[None]:
        # A cancel only lands at an await, and the store's own verbs are ready for it there.
        return contextlib.nullcontext()


_CANCEL = _Cancel()


class Execution:
    """The slots of a worker, and the handlers in them."""

    def __init__(
        self,
        settings: WorkerSettings,
        leases: Leases,
        dispatcher: Dispatcher,
        worker: str,
        on_ends: Callable[[list[Run]], None],
        on_bug: Callable[[Exception], None],
        telling: Telling,
        reporting: Reporting,
        base: ContextVars,
    ) -> None:
        """Make it for the running loop; `on_ends` is called there, with each run once.

        `dispatcher` is the current harbor inside handlers, which begin with the context variables of `base`.
        """
        self._loop = asyncio.get_running_loop()
        self._leases = leases
        self._worker = worker
        self._on_ends = on_ends
        self._on_bug = on_bug
        self._telling = telling
        self._hear = reporting.hear
        # What every handler's context starts from, so that no job sees what another has set.
        self._base = base
        self._base.run(enter, dispatcher)
        self._threads = Threads(settings.concurrency, self._execute, self._ended_in_thread, self._base)
        self._children = Children(settings.handler_processes)
        self._ended: deque[Work] = deque()
        self._collecting = False
        self._late: Callable[[Run], None] | None = None
        self.free = settings.concurrency
        """Slots without a run."""
        self.slots = Slots(settings.concurrency, settings.reserved) if settings.reserved else None
        """Who may start in them, where some are reserved."""
        self.solo = False
        """A solo job is in one of the slots."""
        self.joining = 0
        """Jobs that could join the batches that gather now, which have their slots."""
        self.joined_queues: frozenset[str] = frozenset()
        """The queues whose slots those batches have."""
        self.joining_guarded = 0
        """Guarded ones among them."""

    def start(self, work: Work) -> None:
        """Start a handler, for a run or a batch of them, in a slot that was taken for it."""
        for run in work.parts:
            self._leases.begin(run)
            run.on_news = self._hear
        if work.plan.is_async:
            work.interrupt = _CANCEL
            drive = self._drive(work) if isinstance(work, Run) else self._drive_batch(work)
            work.task = self._loop.create_task(
                drive, name=work.parts[0].delivery.task, context=self._base.copy()
            )
        else:
            self._threads.submit(work)

    def drain(self) -> None:
        """Start nothing that still waits for a child process."""
        self._children.drain()

    def take_slot(self, *, solo: bool, queue: str) -> None:
        """Take a slot for a run about to start."""
        self.free -= 1
        if self.slots is not None:
            self.slots.take(queue)
        if solo:
            self.solo = True

    def leave_slot(self, *, solo: bool, queue: str) -> None:
        """Give back the slot of a run that ended, or never started."""
        self.free += 1
        if self.slots is not None:
            self.slots.leave(queue)
        if solo:
            self.solo = False

    def abandon(self, late: Callable[[Run], None]) -> list[Run]:
        """Stop caring for runs that would not end; return them. `late` is told when one of them does."""
        self._late = late
        return self._leases.runs()

    def close(self) -> None:
        """Let idle threads and children end."""
        self._threads.close()
        self._children.close()

    async def _drive(self, run: Run) -> None:
        outcome: Outcome
        if run.stop is not None:
            outcome = run.stopped(self._worker)
        else:
            self._begin_on_loop(run)
            try:
                outcome = run.succeeded(await run.plan.call(run))  # type: ignore[misc] # pyright: ignore[reportGeneralTypeIssues, reportUnknownArgumentType] - is_async says it can be awaited
            except BaseException as error:  # noqa: BLE001 - nothing a handler raises may end the worker
                outcome = run.failed(error, self._worker)
        run.outcome = outcome
        self._ended_on_loop(run)

    async def _drive_batch(self, batch: Work) -> None:
        if isinstance(batch, BatchRun):
            await batch.acall(self._begin_on_loop)
        self._ended_on_loop(batch)

    def _begin_on_loop(self, work: Work) -> None:
        work.started = True
        running_job.set(work)
        for run in work.called:
            run.started = True
            run.began = time.monotonic()
            if self._telling.heeded:
                self._telling.began_on_loop(run)
        if work.timeout is not None:
            self._arm(work)

    def _execute(self, work: Work) -> None:
        if isinstance(work, Run):
            self._execute_run(work)
        elif isinstance(work, BatchRun):
            work.call(self._begin)

    def _execute_run(self, run: Run) -> None:
        """Run a sync handler; in one of the pool's threads, where `JobInterrupt` may land anywhere."""
        returned: list[object] = []
        try:
            if run.plan.in_process:
                run.outcome = self._children.call(run, self._worker, self._begin)
                return
            if run.stop is not None:
                return
            self._begin(run)
            value = run.plan.call(run)
            if inspect.iscoroutine(value):
                value.close()
                raise UnfitResult(
                    f"task {run.delivery.task!r} is a `def` that returned a coroutine, which nobody would await; "
                    "declare it as `async def`",
                    task=run.delivery.task,
                )
            returned.append(value)
            with run.shelter():
                run.outcome = run.succeeded(value)
        except BaseException as error:  # noqa: BLE001
            # An interrupt that came when its work was done came too late (rule 11).
            late = isinstance(error, JobInterrupt)
            if late and run.attempt is not None and run.attempt.has_result:
                returned.append(run.attempt.result)
            wrong = self._succeed(run, returned[0]) if returned and late else error
            if wrong is not None:
                run.outcome = run.failed(wrong, self._worker)

    def _succeed(self, run: Run, value: object) -> BaseException | None:
        """Note a handler's success; return what went wrong with its result."""
        try:
            run.outcome = run.succeeded(value)
        except BaseException as error:  # noqa: BLE001
            return error
        return None

    def _begin(self, work: Work) -> None:
        """Note that a sync handler begins now; its timeout counts from here."""
        for run in work.called:
            run.started = True
            run.began = time.monotonic()
            if self._telling.heeded:
                self._telling.began(run)
        if work.timeout is not None:
            with contextlib.suppress(RuntimeError):  # the loop has closed: the worker is gone
                self._loop.call_soon_threadsafe(self._arm, work)

    def _ended_in_thread(self, work: Work) -> None:
        if self._has_ended(work):
            return
        if not self._collecting:
            self._collecting = True
            try:
                self._loop.call_soon_threadsafe(self._collect)
            except RuntimeError:  # the loop has closed: the worker is gone
                self._collecting = False

    def _has_ended(self, work: Work) -> bool:
        """Note an end, to be taken up with others; return True if it came too late for that, and was told of."""
        now = time.monotonic()
        for run in work.parts:
            run.ended = now
        late = self._late
        if late is None:
            self._ended.append(work)
            return False
        for run in work.parts:
            late(run)
        return True

    def _ended_on_loop(self, work: Work) -> None:
        if self._has_ended(work):
            return
        if not self._collecting:
            self._collecting = True
            self._loop.call_soon(self._collect)

    def _collect(self) -> None:
        """Take up all runs that have ended by now, in one go."""
        # Cleared first: who appends after this line calls again.
        self._collecting = False
        runs: list[Run] = []
        while self._ended:
            work = self._ended.popleft()
            if self._late is not None:
                for run in work.parts:
                    self._late(run)
                continue
            for run in work.parts:
                self._leases.end(run)
            if work.timer is not None:
                work.timer.cancel()
            self.leave_slot(solo=work.solo, queue=work.queue)
            runs.extend(work.parts)
        if runs:
            try:
                self._on_ends(runs)
            except Exception as error:  # noqa: BLE001 - a bug of ours, which the loop would only log
                self._on_bug(error)

    def _arm(self, work: Work) -> None:
        timeout = work.timeout
        if timeout is not None and any(self._leases.running.get(run.job_id) is run for run in work.parts):
            work.timer = self._loop.call_later(timeout.total_seconds(), work.time_out)
