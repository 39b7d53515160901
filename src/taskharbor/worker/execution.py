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
from taskharbor.worker.batch_run import AnyRun, BatchRun
from taskharbor.worker.leases import Leases
from taskharbor.worker.plan import UnfitResult
from taskharbor.worker.processes import Children
from taskharbor.worker.reporting import Reporting
from taskharbor.worker.run import Run
from taskharbor.worker.settings import WorkerSettings
from taskharbor.worker.slots import Slots
from taskharbor.worker.telling import Telling
from taskharbor.worker.threads import Threads
from taskharbor.worker.work import CANCEL, Work


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
        self._ended: deque[AnyRun] = deque()
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
        self.joining_lined = 0
        """Those among them whose tasks have limits, or take turns."""

    def start(self, run: Run) -> None:
        """Start a handler in a slot that was taken for it."""
        self._leases.begin(run)
        run.on_news = self._hear
        if run.plan.is_async:
            run.interrupt = CANCEL
            run.task = self._loop.create_task(
                self._drive(run), name=run.delivery.task, context=self._base.copy()
            )
        else:
            self._threads.submit(run)

    def start_batch(self, batch: BatchRun) -> None:
        """Start the handler of a batch in a slot that was taken for it."""
        for run in batch.parts:
            self._leases.begin(run)
            run.on_news = self._hear
        if batch.plan.is_async:
            batch.interrupt = CANCEL
            batch.task = self._loop.create_task(
                self._drive_batch(batch), name=batch.parts[0].delivery.task, context=self._base.copy()
            )
        else:
            self._threads.submit(batch)

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
            run.started = True
            run.began = time.monotonic()
            running_job.set(run)
            if self._telling.heeded:
                self._telling.began_on_loop(run)
            if run.delivery.timeout is not None:
                self._arm(run)
            try:
                outcome = run.succeeded(await run.plan.call(run))  # type: ignore[misc] # pyright: ignore[reportGeneralTypeIssues, reportUnknownArgumentType] - is_async says it can be awaited
            except BaseException as error:  # noqa: BLE001 - nothing a handler raises may end the worker
                outcome = run.failed(error, self._worker)
        run.outcome = outcome
        self._ended_on_loop(run)

    async def _drive_batch(self, batch: BatchRun) -> None:
        await batch.acall(self._begin_batch_on_loop)
        self._ended_on_loop(batch)

    def _begin_batch_on_loop(self, batch: BatchRun) -> None:
        running_job.set(batch)
        batch.begin(time.monotonic())
        if self._telling.heeded:
            for run in batch.called:
                self._telling.began_on_loop(run)
        if batch.timeout is not None:
            self._arm(batch)

    def _execute(self, run: AnyRun) -> None:
        """Run a sync handler; in one of the pool's threads, where `JobInterrupt` may land anywhere."""
        if not isinstance(run, Run):
            run.call(self._begin_batch)
            return
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

    def _begin(self, run: Run) -> None:
        """Note that a sync handler begins now; its timeout counts from here."""
        run.started = True
        run.began = time.monotonic()
        if self._telling.heeded:
            self._telling.began(run)
        if run.delivery.timeout is not None:
            self._arm_from_thread(run)

    def _begin_batch(self, batch: BatchRun) -> None:
        batch.begin(time.monotonic())
        if self._telling.heeded:
            for run in batch.called:
                self._telling.began(run)
        if batch.timeout is not None:
            self._arm_from_thread(batch)

    def _arm_from_thread(self, work: Work) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has closed: the worker is gone
            self._loop.call_soon_threadsafe(self._arm, work)

    def _ended_in_thread(self, work: AnyRun) -> None:
        work.ended = time.monotonic()
        if self._late is not None:
            self._tell_late(work)
            return
        self._ended.append(work)
        if not self._collecting:
            self._collecting = True
            try:
                self._loop.call_soon_threadsafe(self._collect)
            except RuntimeError:  # the loop has closed: the worker is gone
                self._collecting = False

    def _ended_on_loop(self, work: AnyRun) -> None:
        work.ended = time.monotonic()
        if self._late is not None:
            self._tell_late(work)
            return
        self._ended.append(work)
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
                self._tell_late(work)
                continue
            if work.timer is not None:
                work.timer.cancel()
            work.task = None  # it leads back, by its context variables: in a circle that would be left to the collector
            if isinstance(work, Run):
                self._leases.end(work)
                self.leave_slot(solo=work.delivery.solo, queue=work.delivery.queue)
                runs.append(work)
            else:
                work.end()
                for run in work.parts:
                    self._leases.end(run)
                self.leave_slot(solo=work.solo, queue=work.queue)
                runs.extend(work.parts)
        if runs:
            try:
                self._on_ends(runs)
            except Exception as error:  # noqa: BLE001 - a bug of ours, which the loop would only log
                self._on_bug(error)

    def _tell_late(self, work: AnyRun) -> None:
        if self._late is not None:
            if isinstance(work, BatchRun):
                work.end()
            for run in work.parts:
                self._late(run)

    def _arm(self, work: Work) -> None:
        timeout = work.timeout
        if timeout is not None and any(self._leases.running.get(run.job_id) is run for run in work.parts):
            work.timer = self._loop.call_later(timeout.total_seconds(), work.time_out)
