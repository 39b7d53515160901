"""Keeping leases: from a thread, an event loop and a connection of its own, so that a blocked loop does not lose them.

The same thread is the watchdog. It asks the worker's loop to turn now and then; when that does not happen for `stall`,
it dumps every thread's stack and, in a process started for the worker, ends the process: its leases expire and others
take its jobs over. In a process of the user's own it stops extending instead, until the loop turns again.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import timedelta

from taskharbor.driver import CancelRequest, Driver, JobSettle, LeaseExtend, Store
from taskharbor.errors import StoreUnavailable
from taskharbor.settlement import settlement
from taskharbor.worker.leases import Leases
from taskharbor.worker.run import Run, Stop

logger = logging.getLogger("taskharbor.worker")

STALLED_EXIT_CODE = 75
"""Of a process ended by the watchdog: EX_TEMPFAIL of sysexits.h, 'try again'."""


class Keeper:
    """The thread that extends leases, and watches the worker's loop."""

    def __init__(
        self,
        driver: Driver,
        leases: Leases,
        *,
        worker: str,
        lease: timedelta,
        stall: timedelta,
        owns_process: bool,
        on_cancels: Callable[[Sequence[CancelRequest]], None],
        on_lost: Callable[[Sequence[int]], None],
        on_unknown: Callable[[], None],
        on_resume: Callable[[], None],
        on_trouble: Callable[[], None],
    ) -> None:
        """Prepare it; the callbacks are called in the worker's loop."""
        self._driver = driver
        self._leases = leases
        self._worker = worker
        self._lease = lease
        self._interval = lease.total_seconds() / 3
        self._stall = stall.total_seconds()
        self._owns_process = owns_process
        self._on_cancels = on_cancels
        self._on_lost = on_lost
        self._on_unknown = on_unknown
        self._on_resume = on_resume
        self._on_trouble = on_trouble
        self.connected: Future[None] = Future()
        """Done once leases can be kept, or have been found not to be."""
        self._failing = False
        self._watched = asyncio.get_running_loop()
        self._last_turn = time.monotonic()
        self._turn_asked = False
        self.stalled = False
        """The worker's loop is blocked; nothing is extended and nothing should be reserved."""
        self._lingering: set[Run] = set()
        self._ended: deque[Run] = deque()
        self._settled_late: set[Run] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.Event | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._main, name="taskharbor-leases", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, unfinished: Sequence[Run] = ()) -> None:
        """End the thread; if handlers would not end, only once they have, keeping their leases meanwhile."""
        self._lingering = {run for run in unfinished if run not in self._settled_late}
        self._stopping = True
        self.nudge()

    def join(self, timeout: float) -> None:
        """Wait for the thread's end."""
        self._thread.join(timeout)

    def ended(self, run: Run) -> None:
        """Settle a handler that ended after its worker had stopped. Called from any thread."""
        self._ended.append(run)
        self.nudge()

    def nudge(self) -> None:
        """Have the thread look now."""
        loop, wake = self._loop, self._wake
        if loop is not None and wake is not None:
            with contextlib.suppress(RuntimeError):  # its loop has closed
                loop.call_soon_threadsafe(wake.set)

    def _main(self) -> None:
        try:
            asyncio.run(self._keep())
        except Exception:
            self._failing = True
            if self.connected.exception() is not None:  # told to whoever starts the worker
                return
            logger.exception("the thread that keeps the leases of worker %s ended", self._worker)

    async def _keep(self) -> None:
        self._loop, self._wake = asyncio.get_running_loop(), asyncio.Event()
        retry_in: float | None = None
        next_extend = time.monotonic() + self._interval
        async with contextlib.AsyncExitStack() as stack:
            store = await self._connect(stack)
            while not self._stopping or self._lingering:
                now = time.monotonic()
                wait = min(next_extend - now, max(self._stall / 4, 0.02))
                if await self._sleep(max(wait, 0.0)):
                    next_extend = time.monotonic()
                self._watch()
                if time.monotonic() < next_extend and not self._ended:
                    continue
                try:
                    await self._settle_late(store)
                    if not self.stalled:
                        await self._extend(store)
                    retry_in = None
                    self._works()
                except Exception as error:  # whatever it was, the leases still have to be kept
                    if retry_in is None:
                        known = isinstance(error, StoreUnavailable)
                        logger.warning(
                            "leases cannot be extended now: %s", error, exc_info=None if known else error
                        )
                    retry_in = min((retry_in or 0.05) * 2, self._interval)
                    self._failing = True
                    self._on_trouble()
                next_extend = time.monotonic() + (retry_in or self._interval)

    async def _connect(self, stack: contextlib.AsyncExitStack) -> Store:
        try:
            store = await stack.enter_async_context(self._driver.connect())
        except BaseException as error:
            self.connected.set_exception(error)
            raise
        self.connected.set_result(None)
        return store

    async def _sleep(self, seconds: float) -> bool:
        """Sleep; return whether somebody nudged."""
        wake = self._wake
        if wake is None:
            return False
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(wake.wait(), seconds)
        nudged = wake.is_set()
        wake.clear()
        return nudged

    async def _extend(self, store: Store) -> None:
        holds, reported = self._leases.holds()
        answer = await store.lease_extend(LeaseExtend(worker=self._worker, leases=holds, lease=self._lease))
        lost = set(answer.lost)
        for run in reported:
            run.reported = run.delivery.token not in lost
        if answer.cancels:
            self._interrupt_threads(answer.cancels)
            self._tell(self._on_cancels, answer.cancels)
        if lost:
            self._tell(self._on_lost, answer.lost)
        if not answer.known_worker and not self._stopping:
            self._tell(self._on_unknown)

    def _interrupt_threads(self, cancels: Sequence[CancelRequest]) -> None:
        # Handlers in threads and processes can be stopped even while the worker's loop is blocked.
        for cancel in cancels:
            run = self._leases.running.get(cancel.job_id)
            if run is not None and not run.plan.is_async:
                run.ask_to_stop(Stop.CANCEL, cancel.reason)

    def _tell(self, callback: Callable[..., None], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the worker's loop has closed
            self._watched.call_soon_threadsafe(callback, *args)

    async def _settle_late(self, store: Store) -> None:
        while self._ended:
            run = self._ended[0]
            await store.job_settle(
                JobSettle(settlements=[settlement(run.ending(self._worker), run.delivery)])
            )
            self._ended.popleft()
            self._settled_late.add(run)
            self._lingering.discard(run)
            self._leases.drop(run.delivery.token)

    def _works(self) -> None:
        if self._failing:
            self._failing = False
            self._tell(self._on_resume)

    @property
    def suspended(self) -> bool:
        """Return whether leases are not kept at present, so that nothing should be reserved."""
        return self.stalled or self._failing

    def _turned(self) -> None:
        self._turn_asked = False
        self._last_turn = time.monotonic()
        if self.stalled:
            self.stalled = False
            logger.warning("the event loop of worker %s turns again; it goes on", self._worker)
            self.nudge()
            self._on_resume()

    def _watch(self) -> None:
        if self._stopping:
            return
        if not self._turn_asked:
            self._turn_asked = True
            self._last_turn = time.monotonic()
            self._tell(self._turned)
            return
        blocked = time.monotonic() - self._last_turn
        if blocked < self._stall or self.stalled:
            return
        self.stalled = True
        logger.critical(
            "the event loop of worker %s has been blocked for %.1f s; the stacks of all threads go to standard error. "
            "%s A handler that blocks belongs in a `def` task, which runs in a thread",
            self._worker,
            blocked,
            "The process ends now, and its jobs run again elsewhere."
            if self._owns_process
            else "Until it turns, its leases are not extended, and others may run its jobs.",
        )
        _dump_stacks()
        if self._owns_process:
            os._exit(STALLED_EXIT_CODE)


def _dump_stacks() -> None:
    # faulthandler writes to a file descriptor, even while other threads hold locks; replaced streams may have none.
    with contextlib.suppress(Exception):
        stream = sys.__stderr__
        if stream is not None:
            faulthandler.dump_traceback(stream, all_threads=True)
