"""A worker's life: start, work, drain, stop.

    intake       reserves jobs into a small buffer, starts them as slots come free
    preparing    finds the task, decodes the payload: from a delivery to a `run`, or to why not
    plan         what is called for one task
    execution    runs handlers: on the loop, in threads (`threads`), in children (`processes`)
    settling     writes outcomes down in batches
    leases       keeps leases from a thread of its own, and watches the loop
    upkeep       reclaims from dead workers, ends retention

Stopping (rule 19). `drain` lets nothing new start, hands back what has not started, and waits for running handlers;
after `grace`, or on `halt`, they are cancelled and their jobs handed back. Both may be asked again and both always
end. A handler that will not end keeps its job leased, so that no other worker runs it beside: it is named in the log,
and settled by the keeper if it ends after all.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

import msgspec

from taskharbor.call import Dispatcher
from taskharbor.codec import Codec, CodecBook
from taskharbor.driver import CancelRequest, Driver, Store, WorkerAnnounce, WorkerForget
from taskharbor.errors import StoreUnavailable, UsageError, nearest
from taskharbor.job import DEFAULT_QUEUE, Delivery, JobState, new_token
from taskharbor.outcome import Outcome, Released
from taskharbor.settlement import (
    STATE_AFTER,
    Settled,
    SettleKind,
    Settlement,
    SettleStatus,
    settlement,
)
from taskharbor.task import Registry
from taskharbor.upkeep import Upkeep
from taskharbor.worker.execution import Execution
from taskharbor.worker.intake import Intake
from taskharbor.worker.leases import Keeper, Leases
from taskharbor.worker.lifespan import Lifespan, opened
from taskharbor.worker.own_loop import in_own_thread
from taskharbor.worker.patience import Patience
from taskharbor.worker.preparing import Plans
from taskharbor.worker.run import Run, Stop
from taskharbor.worker.settings import WorkerSettings
from taskharbor.worker.settling import Settling
from taskharbor.worker.sight import Sight

logger = logging.getLogger("taskharbor.worker")

_INTERRUPT_AGAIN_SECONDS = 0.25
# Held by name: hashing or looking up an enum member costs as much as the rest of the line.
_SUCCEED = SettleKind.SUCCEED
_TROUBLE = frozenset({SettleKind.RETRY, SettleKind.BURY, SettleKind.STRAY})


class Application(msgspec.Struct, frozen=True):
    """What a harbor gives its workers."""

    dispatcher: Dispatcher
    """The harbor itself: current inside handlers."""
    driver: Driver
    registry: Registry
    codecs: CodecBook
    codec: Codec
    lifespan: Lifespan | None
    on_loop_end: Callable[[], Awaitable[None]]
    """Closes what the harbor has opened on a worker's own loop."""


class WorkerCounts(msgspec.Struct):
    """What a worker has done since it started."""

    settled: dict[str, int] = {}
    """Deliveries written down, by the state the job went to."""
    stale: int = 0
    """Deliveries whose lease was lost before they were written down."""

    def add(self, state: str, jobs: int) -> None:
        """Count jobs that went to a state."""
        self.settled[state] = self.settled.get(state, 0) + jobs


class Worker:
    """Reserves jobs and runs them, on the running event loop. Made by `harbor.worker(...)`; used with `async with`."""

    def __init__(self, application: Application, settings: WorkerSettings) -> None:
        """Prepare it; nothing happens before it is entered."""
        self._application = application
        self._settings = settings
        self.name = f"{socket.gethostname()}:{os.getpid()}:{new_token():016x}"
        """Unique for each start."""
        self.counts = WorkerCounts()
        self._stack = AsyncExitStack()
        self._entered = False
        self._started = False
        self._start_ended = asyncio.Event()
        self._drain_asked = False
        self._unfinished: list[Run] = []
        self._failure: BaseException | None = None
        self._stopping: asyncio.Task[list[str]] | None = None
        self._halt = asyncio.Event()
        self._ended = asyncio.Event()
        """A handler ended since this was cleared."""
        self._written = asyncio.Event()
        """Outcomes were written since this was cleared."""
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        """Start: open the store, build the dependencies, go on the register, begin to reserve.

        Raises:
            LifespanError: the dependencies could not be built, or are not what a task declares.
            StoreUnavailable: the store cannot be reached.
        """
        if self._entered:
            raise UsageError("a worker is entered once; ask the harbor for another")
        self._entered = True
        try:
            await self._start()
            self._started = True
        except BaseException:
            await self._stack.aclose()
            raise
        finally:
            self._start_ended.set()
        if self._drain_asked:
            self.drain()
        return self

    async def _start(self) -> None:
        application, settings = self._application, self._settings
        deps = await self._stack.enter_async_context(opened(application.lifespan, application.registry))
        self._store: Store = await self._stack.enter_async_context(application.driver.connect())
        self._plans = Plans(application.registry, application.codecs, application.codec)
        self._queues = self._serve()
        self._leases = Leases()
        self._sight = Sight(settings.lease)
        patience = Patience(self._sight)
        self._settling = Settling(self._store, patience, self._on_settled)
        self._execution = Execution(
            settings, self._leases, application.dispatcher, self.name, self._on_ends, self._on_bug
        )
        self._keeper = Keeper(
            application.driver,
            self._leases,
            worker=self.name,
            lease=settings.lease,
            stall=settings.stall,
            owns_process=settings.owns_process,
            on_cancels=self._on_cancels,
            on_lost=self._on_lost,
            on_unknown=self._announce_soon,
            on_resume=self._on_resume,
            on_trouble=self._sight.lost,
        )
        self._intake = Intake(
            application.driver,
            self._store,
            settings,
            self._queues,
            self._plans,
            self._leases,
            self._execution,
            patience,
            worker=self.name,
            deps=deps,
            finish=self._finish,
            settling=self._settling,
            suspended=lambda: self._keeper.suspended,
            on_refresh=self._announce_soon,
        )
        upkeep = Upkeep(
            self._store,
            lease=settings.lease,
            observed=self._sight.observed,
            seen=self._sight.seen,
            lost=self._sight.lost,
            worker=self.name,
            on_own=self._on_own_reclaimed,
        )
        await self._announce()
        self._sight.seen()
        self._keeper.start()
        # Nothing is reserved before it is known that its lease can be kept.
        await asyncio.wrap_future(self._keeper.connected)
        self._intake_task = self._spawn(self._intake.run(), "intake")
        self._background = [
            self._spawn(self._settling.run(), "settling"),
            self._spawn(upkeep.run(), "upkeep"),
        ]
        logger.info(
            "worker %s serves %s with %d slots", self.name, ", ".join(self._queues), settings.concurrency
        )

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drain and stop, as `stop` does; then close the dependencies, in the task that opened them."""
        try:
            await self.stop()
        finally:
            limit = max(self._settings.halt.total_seconds(), 1.0)
            try:
                async with asyncio.timeout(limit):
                    await self._stack.aclose()
            except TimeoutError:
                logger.error("the dependencies of worker %s were not closed within %g s", self.name, limit)

    async def stop(self) -> list[str]:
        """Drain, then stop: wait `grace` for running handlers, cancel those left, hand back what did not finish.

        Returns the jobs whose handlers would not end, by id; empty as a rule. Idempotent. If the caller is cancelled
        meanwhile, running handlers are cancelled at once, and the stop still completes.
        """
        if not self._entered:
            return []
        if not self._started:
            self._drain_asked = True
            await self._start_ended.wait()
            if not self._started:  # it could not start
                return []
        self.drain()
        stopping = self._stopping
        if stopping is None:
            return []
        cancelled = False
        while True:
            try:
                unfinished = await asyncio.shield(stopping)
                break
            except asyncio.CancelledError:
                if stopping.cancelled():
                    raise
                cancelled = True
                self.halt()
        if cancelled:
            raise asyncio.CancelledError
        return unfinished

    def drain(self) -> None:
        """Begin to stop: start nothing new, hand back what has not started, let running handlers finish."""
        self._drain_asked = True
        if self._started and self._stopping is None:
            self._stopping = asyncio.get_running_loop().create_task(self._stop(), name="taskharbor-stop")

    def halt(self) -> None:
        """Stop without grace: cancel running handlers now. Implies `drain`."""
        self._halt.set()
        self.drain()

    @property
    def draining(self) -> bool:
        """Return whether it has been told to stop."""
        return self._drain_asked

    def loop_closed(self) -> None:
        """Give back the jobs of async handlers that would not end: with their loop closed, they cannot go on."""
        stuck = [run for run in self._unfinished if run.plan.is_async and run.outcome is None]
        for run in stuck:
            run.outcome = Released(started=True)
            self._keeper.ended(run)
        if stuck:
            self._keeper.join(self._settings.halt.total_seconds())

    async def idle(self, within: timedelta = timedelta(0)) -> None:
        """Wait until nothing is running and nothing in this worker's queues is due within so long from now."""
        self._refuse_unentered()
        waiting = asyncio.ensure_future(self._intake.quiet(within))
        try:
            # A worker that stops meanwhile, or whose intake failed, will never be idle.
            await asyncio.wait({waiting, self._intake_task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if self._intake_task.done() and not self._intake_task.cancelled():
            self._intake_task.result()
        if self._failure is not None:
            raise self._failure

    async def run(self) -> None:
        """Work until `drain`, `halt` or `stop` is called, and return when the worker has stopped."""
        self._refuse_unentered()
        await asyncio.wait({self._intake_task})
        if self._stopping is None:  # the intake failed: say why, after handing back what is in hand
            await self.stop()
            self._intake_task.result()
        await self.stop()
        if self._failure is not None:
            raise self._failure

    def _refuse_unentered(self) -> None:
        if not self._started:
            raise UsageError("a worker works inside its `async with` block; it has not been entered")

    def _serve(self) -> tuple[str, ...]:
        declared = {definition.options.queue for definition in self._application.registry}
        if self._settings.queues is not None:
            for queue in self._settings.queues:
                if queue not in declared:
                    hint = nearest(queue, sorted(declared))
                    logger.warning("serving queue %r, which no task here declares%s", queue, hint)
            return tuple(self._settings.queues)
        return tuple(sorted({DEFAULT_QUEUE, *declared}))

    def _spawn(self, work: Coroutine[Any, Any, None], what: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=f"taskharbor-{what}")
        task.add_done_callback(self._on_background_end)
        self._tasks.append(task)
        return task

    def _on_background_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._failure = task.exception()
            logger.critical(
                "%s of worker %s failed; it stops", task.get_name(), self.name, exc_info=self._failure
            )
            self.drain()

    async def _announce(self) -> None:
        await self._store.worker_announce(
            WorkerAnnounce(
                worker=self.name,
                queues=self._queues,
                tasks=self._plans.tasks,
                build=self._plans.build,
                # Told by every extend, so it may miss a few before others take it for gone.
                ttl=self._settings.lease * 2,
                host=socket.gethostname(),
                pid=os.getpid(),
                started_at=datetime.now(UTC),
            )
        )

    def _announce_soon(self) -> None:
        if self._stopping is None:
            self._tasks = [task for task in self._tasks if not task.done()]
            self._tasks.append(asyncio.get_running_loop().create_task(self._announce_again()))

    async def _announce_again(self) -> None:
        with contextlib.suppress(StoreUnavailable):  # the next extend asks for it again
            await self._announce()

    def _finish(self, delivery: Delivery, outcome: Outcome) -> None:
        written = settlement(outcome, delivery)
        if written.kind in _TROUBLE:
            _log_trouble(written, delivery)
        self._settling.add([written])

    def _on_ends(self, runs: list[Run]) -> None:
        settlements = [settlement(run.ending(self.name), run.delivery) for run in runs]
        for written, run in zip(settlements, runs, strict=True):
            if written.kind is not _SUCCEED and written.kind in _TROUBLE:
                _log_trouble(written, run.delivery)
        self._settling.add(settlements)
        self._ended.set()
        self._intake.slots_left(len(runs), solo=any(run.delivery.solo for run in runs))

    def _on_bug(self, error: Exception) -> None:
        # What is known to be in hand is handed back; what is not is left to the expiry of its lease.
        logger.critical("worker %s has met a bug of its own and stops", self.name, exc_info=error)
        self._failure = error
        self.drain()

    def _on_settled(self, settlements: Sequence[Settlement], answers: Sequence[Settled]) -> None:
        for token, jobs in Counter([written.token for written in settlements]).items():
            self._leases.drop(token, jobs)
        counts = self.counts
        succeeded = 0
        for written, answer in zip(settlements, answers, strict=True):
            if answer.state is JobState.SUCCEEDED:
                succeeded += 1
            elif answer.status is SettleStatus.STALE:
                counts.stale += 1
            else:  # ALREADY tells no state: the answer to the first asking was lost
                counts.add((answer.state or STATE_AFTER[written.kind]).value, 1)
        if succeeded:
            counts.add(JobState.SUCCEEDED.value, succeeded)
        self._written.set()
        self._intake.settled()

    def _on_cancels(self, cancels: Sequence[CancelRequest]) -> None:
        for cancel in cancels:
            run = self._leases.running.get(cancel.job_id)
            if run is not None:
                run.ask_to_stop(Stop.CANCEL, cancel.reason)
            else:
                self._intake.cancel_buffered(cancel.job_id, cancel.reason)

    def _on_lost(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            self._leases.held.pop(token, None)
            self._intake.forget_lease(token)
        lost = set(tokens)
        for run in self._leases.runs():
            if run.delivery.token in lost:
                logger.warning(
                    "job %s of task %r lost its lease while it ran here", run.delivery.id, run.delivery.task
                )
                run.ask_to_stop(Stop.LOST)

    def _on_own_reclaimed(self, ids: Sequence[str]) -> None:
        # Its leases expired although it is alive; what it reclaimed then is not its own any more.
        tokens = {run.delivery.token for run in self._leases.runs() if run.delivery.id in set(ids)}
        self._on_lost(sorted(tokens))

    def _on_resume(self) -> None:
        self._intake.settled()

    async def _stop(self) -> list[str]:
        self._intake.stop()
        self._execution.drain()
        # A store that never answers must not keep the worker from ending.
        await self._within_reason(self._intake_task)
        await self._within_reason(self._spawn(self._intake.guarded_done(), "guard-end"))
        self._intake.release_buffer()
        await self._wait_for_runs(self._settings.grace, until_halt=True)
        await self._cancel_runs()
        unfinished = self._unfinished = self._execution.abandon(self._keeper.ended)
        for run in unfinished:
            logger.error(
                "the handler of job %s (task %r) would not end; its job stays leased while it runs",
                run.delivery.id,
                run.delivery.task,
            )
        await self._write_out()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._keeper.stop(unfinished)
        if not unfinished:
            await in_own_thread(lambda: self._keeper.join(5.0))
        await self._within_reason(self._spawn(self._forget(), "forget"))
        await in_own_thread(self._execution.close)
        logger.info("worker %s has stopped", self.name)
        return [run.delivery.id for run in unfinished]

    async def _forget(self) -> None:
        with contextlib.suppress(StoreUnavailable):
            await self._store.worker_forget(WorkerForget(workers=[self.name]))

    async def _within_reason(self, task: asyncio.Task[None]) -> None:
        """Wait for a task for as long as a halt may take, then cancel it. Its errors are logged elsewhere."""
        _, pending = await asyncio.wait({task}, timeout=max(self._settings.halt.total_seconds(), 1.0))
        if pending:
            logger.error("the store does not answer; %s of worker %s is given up", task.get_name(), self.name)
            task.cancel()
            await asyncio.wait({task}, timeout=1.0)

    async def _wait_for_runs(self, limit: timedelta, *, until_halt: bool) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limit.total_seconds()
        while self._leases.running or self._leases.orphans:
            left = deadline - loop.time()
            if left <= 0 or (until_halt and self._halt.is_set()):
                return
            self._ended.clear()
            waiting = [asyncio.ensure_future(self._ended.wait())]
            if until_halt:
                waiting.append(asyncio.ensure_future(self._halt.wait()))
            await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            for future in waiting:
                future.cancel()

    async def _cancel_runs(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.halt.total_seconds()
        while self._leases.running or self._leases.orphans:
            # Again and again: a handler may have swallowed the last one.
            for run in self._leases.runs():
                run.ask_to_stop(Stop.SHUTDOWN)
            left = deadline - loop.time()
            await self._wait_for_runs(
                timedelta(seconds=max(min(left, _INTERRUPT_AGAIN_SECONDS), 0)), until_halt=False
            )
            if left <= 0:
                return

    async def _write_out(self) -> None:
        """Wait until every outcome is written, or the store has not answered for `halt`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + max(self._settings.halt.total_seconds(), 1.0)
        while self._settling.pending and not self._background[0].done():
            if loop.time() > deadline:
                self._settling.give_up()
            if loop.time() > deadline + 1.0:  # it does not even fail
                logger.error(
                    "stopped with %d outcomes unwritten: the store does not answer", self._settling.pending
                )
                return
            self._written.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._written.wait(), 0.1)


def _log_trouble(written: Settlement, delivery: Delivery) -> None:
    """Say what went wrong, by the error's type alone: its text may quote the payload."""
    told = (delivery.id, delivery.task, delivery.attempt, delivery.retry.max_attempts)
    kind = "" if written.error is None else written.error.type
    if written.kind is SettleKind.BURY:
        logger.error("job %s (task %r) is a dead letter after attempt %d of %d (%s)", *told, kind)
    elif written.kind is SettleKind.RETRY:
        logger.warning(
            "job %s (task %r) failed in attempt %d of %d with %s; next try in %s", *told, kind, written.after
        )
    else:
        why = (
            "its task is not registered here" if written.refused_by is None else "this build cannot decode it"
        )
        logger.warning("job %s (task %r) is left to other workers: %s", delivery.id, delivery.task, why)
