"""How a worker stops (rule 19). It may be begun again and again, and it always ends.

    drain        nothing new is started, what has not started is handed back, running handlers have `grace` to finish
    halt         then, or when asked: handlers are cancelled, again and again for `halt`, and their jobs handed back
    write out    what has ended is written down, unless the store does not answer for as long as `halt`
    forget       the worker leaves the register, and its threads and children end

A handler that will not end keeps its job leased, so that no other worker runs it beside: it is named in the log, and
settled by the keeper if it ends after all.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

from taskharbor.outcome import Released
from taskharbor.settlement import SettleKind, settlement
from taskharbor.worker.background import Background
from taskharbor.worker.execution import Execution
from taskharbor.worker.intake import Intake
from taskharbor.worker.keeper import Keeper
from taskharbor.worker.leases import Leases
from taskharbor.worker.naming import named
from taskharbor.worker.own_loop import in_own_thread
from taskharbor.worker.register import Register
from taskharbor.worker.run import Run
from taskharbor.worker.settings import WorkerSettings
from taskharbor.worker.settling import Settling
from taskharbor.worker.work import Stop

logger = logging.getLogger("taskharbor.worker")

_INTERRUPT_AGAIN_SECONDS = 0.25
_TELL_AGAIN_SECONDS = 10.0
"""How often a drain says for which handlers it still waits."""
_LEAST_SECONDS = 1.0
"""What a store is given to answer, and dependencies to close, however short `halt` is."""


class Stopping:
    """The end of one worker, prepared when it starts."""

    def __init__(
        self,
        worker: str,
        settings: WorkerSettings,
        *,
        intake: Intake,
        execution: Execution,
        settling: Settling,
        leases: Leases,
        keeper: Keeper,
        register: Register,
        background: Background,
        halt: asyncio.Event,
        on_begin: Callable[[], None],
        last_words: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        """Prepare it; nothing happens before `begin`. Once `halt` is set, running handlers have no grace.

        `on_begin` is called first; `last_words` writes what else the worker has to write, when all outcomes are.
        """
        self._worker = worker
        self._settings = settings
        self._patience = max(settings.halt.total_seconds(), _LEAST_SECONDS)
        self._intake = intake
        self._execution = execution
        self._settling = settling
        self._leases = leases
        self._keeper = keeper
        self._register = register
        self._background = background
        self._halt = halt
        self._on_begin = on_begin
        self._last_words = last_words
        self._task: asyncio.Task[list[str]] | None = None
        self._ended = asyncio.Event()
        """A handler ended since this was cleared."""
        self._written = asyncio.Event()
        """Outcomes were written since this was cleared."""
        self._unfinished: list[Run] = []

    @property
    def begun(self) -> bool:
        """Return whether the worker has begun to stop."""
        return self._task is not None

    def begin(self, reserving: asyncio.Task[None], writing: asyncio.Task[None]) -> None:
        """Stop the worker, whose intake and settling run in these tasks. Idempotent."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(
                self._stop(reserving, writing), name="taskharbor-stop"
            )

    async def wait(self) -> list[str]:
        """Wait for the end of a stop that has begun; return the jobs whose handlers would not end, by id.

        If the caller is cancelled meanwhile, running handlers have no grace left, and the stop still completes.
        """
        stopping = self._task
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
                self._halt.set()
        if cancelled:
            raise asyncio.CancelledError
        return unfinished

    def handlers_ended(self) -> None:
        """Note that handlers have ended."""
        self._ended.set()

    def outcomes_written(self) -> None:
        """Note that outcomes have been written."""
        self._written.set()

    def loop_closed(self) -> None:
        """Give back the jobs of async handlers that would not end: with their loop closed, they cannot go on."""
        stuck = [run for run in self._unfinished if run.plan.is_async and run.outcome is None]
        for run in stuck:
            run.outcome = Released(started=True)
            self._keeper.ended(run)
        if stuck:
            self._keeper.join(self._settings.halt.total_seconds())

    async def _stop(self, reserving: asyncio.Task[None], writing: asyncio.Task[None]) -> list[str]:
        self._on_begin()
        await self._drain(reserving)
        await self._halt_runs()
        unfinished = self._abandon()
        await self._write_out(writing)
        await self._within_reason(self._last_words(), "last-words")
        await self._background.cancel()
        self._keeper.stop(unfinished)
        if not unfinished:
            await in_own_thread(lambda: self._keeper.join(5.0))
        await self._within_reason(self._register.forget(), "forget")
        await in_own_thread(self._execution.close)
        logger.info("worker %s has stopped", self._worker)
        return [run.delivery.id for run in unfinished]

    async def _drain(self, reserving: asyncio.Task[None]) -> None:
        self._intake.stop()
        self._execution.drain()
        # A store that never answers must not keep the worker from ending.
        await self._give_up_on(reserving)
        await self._within_reason(self._intake.guarded_done(), "guard-end")
        self._intake.release_buffer()
        telling = asyncio.ensure_future(self._tell_what_runs())
        try:
            await self._wait_for_runs(self._settings.grace, until_halt=True)
        finally:
            telling.cancel()

    async def _tell_what_runs(self) -> None:
        """Say which handlers the drain waits for, again and again until cancelled."""
        while running := self._leases.runs():
            logger.info(
                "worker %s waits for %d running handlers, within its grace of %g s: %s",
                self._worker,
                len(running),
                self._settings.grace.total_seconds(),
                named(running),
            )
            await asyncio.sleep(_TELL_AGAIN_SECONDS)

    async def _halt_runs(self) -> None:
        stopped = self._leases.runs()
        if not stopped:
            return
        logger.warning(
            "%s: worker %s cancels %d handlers: %s",
            "it was told to halt"
            if self._halt.is_set()
            else f"the grace of {self._settings.grace.total_seconds():g} s is over",
            self._worker,
            len(stopped),
            named(stopped),
        )
        await self._cancel_runs()
        ended = [run for run in stopped if run not in self._leases.runs()]
        back = [run for run in ended if self._is_handed_back(run)]
        if back:
            logger.warning("worker %s hands back %d cancelled jobs: %s", self._worker, len(back), named(back))

    def _is_handed_back(self, run: Run) -> bool:
        return settlement(run.ending(self._worker), run.delivery).kind is SettleKind.RELEASE

    async def _cancel_runs(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.halt.total_seconds()
        while self._leases.running or self._leases.orphans:
            # Again and again: a handler may have swallowed the last one.
            for run in self._leases.runs():
                run.ask_to_stop(Stop.SHUTDOWN)
            left = deadline - loop.time()
            again = timedelta(seconds=max(min(left, _INTERRUPT_AGAIN_SECONDS), 0))
            await self._wait_for_runs(again, until_halt=False)
            if left <= 0:
                return

    def _abandon(self) -> list[Run]:
        unfinished = self._unfinished = self._execution.abandon(self._keeper.ended)
        for run in unfinished:
            logger.error(
                "the handler of job %s (task %r) would not end; its job stays leased while it runs",
                run.delivery.id,
                run.delivery.task,
            )
        return unfinished

    async def _write_out(self, writing: asyncio.Task[None]) -> None:
        """Wait until every outcome is written, or the store has not answered for `halt`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience
        while self._settling.pending and not writing.done():
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

    async def _within_reason(self, work: Coroutine[Any, Any, None], what: str) -> None:
        await self._give_up_on(self._background.spawn(work, what))

    async def _give_up_on(self, task: asyncio.Task[None]) -> None:
        """Wait for a task for as long as a halt may take, then cancel it. Its errors are logged elsewhere."""
        _, pending = await asyncio.wait({task}, timeout=self._patience)
        if pending:
            logger.error(
                "the store does not answer; %s of worker %s is given up", task.get_name(), self._worker
            )
            task.cancel()
            await asyncio.wait({task}, timeout=1.0)
