"""A worker's life: start, work, stop.

intake       reserves jobs into a small buffer, starts them as slots come free
asking       decides how many to ask for, of which queues: `shares` by weight, `slots` reserved, `pace` of what ends
preparing    finds the task, decodes the payload: from a delivery to a `run`, or to why not
plan         what is called for one task; `layered`, `surrounding`: within layers of middleware
batching     gathers jobs of batch tasks: `batch_run` is one call for them, by `batch_plan`, within `batch_passes`
execution    runs handlers: on the loop, in threads (`threads`, `interrupts`), in children (`processes`, `child`)
settling     writes outcomes down in batches; what the store refuses goes to `sifting`
leases       keeps leases from a thread of its own, and watches the loop
register     tells others which tasks are served here
upkeep       reclaims from dead workers; on the thread of leases, where it leads: fires schedules, ends retention
voice        all that is told: `reporting` writes what handlers tell of themselves, `telling` makes events and counts,
             which `journal` and `recording` write
stopping     drains, halts, hands back
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from types import TracebackType
from typing import Self, TypeVar

from taskharbor.driver import CancelRequest, Capability, JobEnqueue, Order, Store
from taskharbor.errors import UsageError
from taskharbor.job import new_token
from taskharbor.settlement import Settled, Settlement
from taskharbor.task.layer import inherited
from taskharbor.telemetry.announcing import tell_enqueued
from taskharbor.upkeep import DeclaredLimits, Leading, Upkeep, declare
from taskharbor.worker.application import Application
from taskharbor.worker.background import Background
from taskharbor.worker.counts import WorkerCounts
from taskharbor.worker.execution import Execution
from taskharbor.worker.intake import Intake
from taskharbor.worker.keeper import Keeper
from taskharbor.worker.leases import Leases
from taskharbor.worker.lifespan import closed_in_time, closed_unstarted, opened
from taskharbor.worker.patience import Patience, reached
from taskharbor.worker.preparing import Plans
from taskharbor.worker.register import Register
from taskharbor.worker.run import Run
from taskharbor.worker.settings import WorkerSettings
from taskharbor.worker.settling import Settling
from taskharbor.worker.sight import Sight
from taskharbor.worker.stopping import Stopping
from taskharbor.worker.voice import Voice
from taskharbor.worker.work import Stop

logger = logging.getLogger("taskharbor.worker")

T = TypeVar("T")


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
        self._background = Background(self.name, self.drain)
        self._entered = False
        self._started = False
        self._start_ended = asyncio.Event()
        self._drain_asked = asyncio.Event()
        self._waits = False
        self._declares = True
        self._declares_limits = True
        self._halt = asyncio.Event()
        self._order: Order | None = None

    # --- start

    def wait_for_store(self) -> None:
        """Have the start wait for a store that cannot be reached, as work does later, instead of raising.

        For a process that exists for this worker. `drain` ends the wait; then the start raises after all.
        """
        self._waits = True

    def leave_schedules(self) -> None:
        """Do not declare the application's schedules at the start, where others share the store.

        For one that works until idle: a script may have imported half of the tasks, and would remove the schedules of
        the others.
        """
        self._declares = Capability.SHARED not in self._application.driver.capabilities

    def leave_limits(self) -> None:
        """Do not declare the limits of its tasks, so that they keep nothing back that the store does not hold yet."""
        self._declares_limits = False

    async def __aenter__(self) -> Self:
        """Start: open the store, build the dependencies, go on the register, begin to reserve.

        Raises:
            LifespanError: the dependencies could not be built, or are not what a task declares.
            StoreUnavailable: the store cannot be reached, and `wait_for_store` was not asked for.
        """
        if self._entered:
            raise UsageError("a worker is entered once; ask the harbor for another")
        self._entered = True
        try:
            await self._start()
            self._started = True
        except BaseException:
            await closed_unstarted(self._stack)
            raise
        finally:
            self._start_ended.set()
        if self._drain_asked.is_set():
            self.drain()
        return self

    async def _start(self) -> None:
        application, settings = self._application, self._settings
        declared = None if application.declares is None else application.declares()
        deps = await self._stack.enter_async_context(opened(application.lifespan, application.registry))
        store = await self._reached(lambda: self._stack.enter_async_context(application.driver.connect()))
        schedules = () if declared is None else declared.schedules
        queues = settings.queues_served(
            [
                *(definition.options.queue for definition in application.registry),
                *(schedule.job.queue for schedule in schedules),
            ]
        )
        self._furnish(store, queues, deps)
        await self._reached(self._register.announce)
        if declared is not None and self._declares:
            await self._reached(lambda: declare(store, declared))
        limits_declared = not self._declares_limits or await self._reached(self._limits.declare_at_start)
        self._sight.seen()
        # Nothing is reserved before it is known that its lease can be kept.
        await self._reached(self._keeper.start)
        self._stack.enter_context(self._voice.heard(self._intake.settled))
        self._reserving = self._background.spawn(self._intake.run(), "intake")
        self._writing = self._background.spawn(self._settling.run(), "settling")
        _ = self._background.spawn(self._settling.sift(), "sifting")
        _ = self._background.spawn(self._upkeep.run(), "upkeep")
        self._voice.start(self._background)
        if not limits_declared:
            _ = self._background.spawn(self._limits.declare_by_and_by(), "limits")
        logger.info("worker %s serves %s with %d slots", self.name, ", ".join(queues), settings.concurrency)

    async def _reached(self, ask: Callable[[], Awaitable[T]]) -> T:
        return await (reached(ask, self._drain_asked) if self._waits else ask())

    def _furnish(self, store: Store, queues: tuple[str, ...], deps: object) -> None:
        """Make the rooms of this worker, each with what it needs of the others."""
        application, settings = self._application, self._settings
        plans = Plans(
            application.registry, application.codecs, application.codec, application.middleware, self.name
        )
        self._leases = Leases()
        self._sight = Sight(settings.lease)
        patience = Patience(self._sight)
        self._voice = voice = Voice(application.hub, store, worker=self.name)
        self._settling = Settling(
            store, patience, self._sight, self.name, self._on_settled, voice.telling, voice.reporting
        )
        self._register = Register(store, plans, worker=self.name, queues=queues, lease=settings.lease)
        execution = Execution(
            settings,
            self._leases,
            application.dispatcher,
            self.name,
            self._on_ends,
            self._on_bug,
            voice.telling,
            voice.reporting,
            inherited(
                [
                    *application.middleware,
                    *(layer for one in application.registry for layer in one.middleware),
                ]
            ),
        )
        self._intake = Intake(
            application.driver,
            store,
            settings,
            queues,
            plans,
            self._leases,
            execution,
            patience,
            worker=self.name,
            deps=deps,
            finish=self._settling.finish,
            settling=self._settling,
            suspended=lambda: self._keeper.suspended,
            full=lambda: voice.telling.full,
            on_refresh=self._on_refresh,
        )
        self._limits = DeclaredLimits(store, application.registry, self.name)
        self._leading = Leading(
            application.driver,
            worker=self.name,
            told=lambda jobs, answers: tell_enqueued(application.hub, JobEnqueue(jobs=jobs), answers),
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
            on_resume=self._intake.settled,
            on_trouble=self._sight.lost,
            on_watched=voice.journal.watch,
            on_order=self._on_order,
            beside=self._leading.run,
        )
        self._upkeep = Upkeep(
            store,
            lease=settings.lease,
            observed=self._sight.observed,
            seen=self._sight.seen,
            lost=self._sight.lost,
            worker=self.name,
            on_own=self._on_own_reclaimed,
            on_reclaimed=lambda reclaimed: voice.telling.reclaimed(store, reclaimed),
        )
        self._stopping = Stopping(
            self.name,
            settings,
            intake=self._intake,
            execution=execution,
            settling=self._settling,
            leases=self._leases,
            keeper=self._keeper,
            register=self._register,
            background=self._background,
            halt=self._halt,
            on_begin=voice.telling.hurry,
            last_words=voice.last_words,
        )

    # --- work

    async def run(self) -> None:
        """Work until `drain`, `halt` or `stop` is called, and return when the worker has stopped."""
        self._refuse_unentered()
        await asyncio.wait({self._reserving})
        if not self._stopping.begun:  # the intake failed: say why, after handing back what is in hand
            await self.stop()
            self._reserving.result()
        await self.stop()
        self._raise_failure()

    async def idle(self, within: timedelta = timedelta(0)) -> None:
        """Wait until nothing is running and nothing in this worker's queues is due within so long from now.

        Schedules that are due are fired, unless another worker leads, and their jobs are waited for. No future tick is.
        """
        self._refuse_unentered()
        waiting = asyncio.ensure_future(self._quiet(within))
        try:
            # A worker that stops meanwhile, or whose intake failed, will never be idle.
            await asyncio.wait({waiting, self._reserving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if self._reserving.done() and not self._reserving.cancelled():
            self._reserving.result()
        self._raise_failure()

    async def _quiet(self, within: timedelta) -> None:
        made = -1
        # Who leads looks by itself too: what it made since the intake was asked counts, not the round's own jobs.
        while made != self._leading.jobs:
            made = self._leading.jobs
            await self._intake.quiet(within)
            _ = await self._keeper.lend(self._leading.round())

    def _refuse_unentered(self) -> None:
        if not self._started:
            raise UsageError("a worker works inside its `async with` block; it has not been entered")

    def _raise_failure(self) -> None:
        if self._background.failure is not None:
            raise self._background.failure

    def _on_ends(self, runs: list[Run]) -> None:
        self._settling.finish_runs(runs)
        self._stopping.handlers_ended()
        solo = any([run.delivery.solo for run in runs])  # noqa: C419 - a generator costs a call for each of them
        self._intake.slots_left(runs, solo=solo)

    def _on_bug(self, error: Exception) -> None:
        # What is known to be in hand is handed back; what is not is left to the expiry of its lease.
        self._background.fail(error, "taking up the ends of handlers")

    def _on_settled(self, settlements: Sequence[Settlement], answers: Sequence[Settled]) -> None:
        for token, jobs in Counter([written.token for written in settlements]).items():
            self._leases.drop(token, jobs)
        self.counts.note(settlements, answers)
        self._stopping.outcomes_written()
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

    def _announce_soon(self) -> None:
        if not self._stopping.begun:
            _ = self._background.spawn(self._register.announce_again(), "announce")

    def _on_refresh(self) -> None:
        """Tell the store of tasks that were declared while this worker runs."""
        self._announce_soon()
        if self._declares_limits and not self._stopping.begun:
            _ = self._background.spawn(self._limits.declare_by_and_by(), "limits")

    def _on_order(self, order: Order, by: str) -> None:
        """Do as a person has told from afar (rule 26)."""
        told = "it was told to from afar" + (f", by {by}" if by else "")
        self._order = order
        if order is Order.STOP:
            logger.warning("worker %s cancels what runs, and stops: %s", self.name, told)
            self.halt()
        else:
            logger.info("worker %s drains: %s", self.name, told)
            self.drain()

    # --- stop

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drain and stop, as `stop` does; then close the dependencies, in the task that opened them.

        Raises:
            LifespanError: the dependencies could not be closed. All else has ended as it should.
        """
        try:
            await self.stop()
        finally:
            await closed_in_time(self._stack, self.name, max(self._settings.halt.total_seconds(), 1.0))

    async def stop(self) -> list[str]:
        """Drain, then stop: wait `grace` for running handlers, cancel those left, hand back what did not finish.

        Returns the jobs whose handlers would not end, by id; empty as a rule. Idempotent. If the caller is cancelled
        meanwhile, running handlers are cancelled at once, and the stop still completes.
        """
        if not self._entered:
            return []
        if not self._started:
            self._drain_asked.set()
            await self._start_ended.wait()
            if not self._started:  # it could not start
                return []
        self.drain()
        return await self._stopping.wait()

    def drain(self) -> None:
        """Begin to stop: start nothing new, hand back what has not started, let running handlers finish."""
        self._drain_asked.set()
        if self._started:
            self._stopping.begin(self._reserving, self._writing)

    def halt(self) -> None:
        """Stop without grace: cancel running handlers now. Implies `drain`."""
        self._halt.set()
        self.drain()

    @property
    def draining(self) -> bool:
        """Return whether it has been told to stop."""
        return self._drain_asked.is_set()

    @property
    def ordered(self) -> bool:
        """Return whether a person has told it to end, from afar."""
        return self._order is not None

    def loop_closed(self) -> None:
        """Give back the jobs of async handlers that would not end: with their loop closed, they cannot go on."""
        if self._started:
            self._stopping.loop_closed()
