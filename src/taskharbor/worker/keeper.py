"""Keeping leases: from a thread, an event loop and a connection of its own, so that a blocked loop does not lose them.

Starts are reported with the extend that keeps a lease, at a third of it. A handler that has run for half a second is
not left unreported for so long: the next extend comes at once. So short jobs cost no round trip of their own, and
whoever looks at a long one sees that it has started.

The same thread makes the watchdog's rounds. While the worker's loop is stalled, nothing is extended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from datetime import timedelta
from typing import Any, Final, TypeVar

from taskharbor.driver import (
    CancelRequest,
    Driver,
    JobReport,
    JobSettle,
    LeaseExtend,
    Order,
    Store,
    WorkerList,
)
from taskharbor.errors import StoreUnavailable
from taskharbor.settlement import settlement
from taskharbor.worker.leases import Leases, Unreported
from taskharbor.worker.run import Run
from taskharbor.worker.watchdog import Watchdog
from taskharbor.worker.work import Stop

logger = logging.getLogger("taskharbor.worker")

T = TypeVar("T")

_LOOK_SECONDS: Final = 0.5
"""Between two looks for handlers whose start is not reported. Found twice, one has run for so long at least."""


class Keeper:
    """The thread that extends leases, and lends itself to the watchdog."""

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
        on_watched: Callable[[bool], None],
        on_order: Callable[[Order, str], None],
        beside: Callable[[Store], Coroutine[Any, Any, None]],
    ) -> None:
        """Prepare it; the callbacks are called in the worker's loop.

        `beside` runs on this thread's loop until the worker stops, and may ask the store what is answered at once.
        """
        self._driver = driver
        self._leases = leases
        self._worker = worker
        self._lease = lease
        self._interval = lease.total_seconds() / 3
        self._on_cancels = on_cancels
        self._on_lost = on_lost
        self._on_unknown = on_unknown
        self._on_resume = on_resume
        self._on_trouble = on_trouble
        self._on_watched = on_watched
        self._on_order = on_order
        self._order: Order | None = None
        """What a person has told this worker, and the worker knows."""
        self._beside = beside
        self._feed_watched = False
        self._failing = False
        self._watched = asyncio.get_running_loop()
        self._watchdog = Watchdog(
            leases, worker=worker, stall=stall, owns_process=owns_process, on_turn=self._on_turn
        )
        self._unreported = Unreported()
        self._lingering: set[Run] = set()
        self._ended: deque[Run] = deque()
        self._settled_late: set[Run] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.Event | None = None
        self._stopping = False
        self._thread: threading.Thread | None = None

    async def start(self) -> None:
        """Start the thread, and return once it can keep leases.

        Raises:
            StoreUnavailable: the store cannot be reached. It may be started again.
        """
        connected = Future[None]()
        self._thread = threading.Thread(
            target=self._main, args=(connected,), name="taskharbor-leases", daemon=True
        )
        self._thread.start()
        try:
            await asyncio.wrap_future(connected)
        except asyncio.CancelledError:  # nobody waits for the worker any more
            self.stop()
            raise

    def stop(self, unfinished: Sequence[Run] = ()) -> None:
        """End the thread; if handlers would not end, only once they have, keeping their leases meanwhile."""
        self._lingering = {run for run in unfinished if run not in self._settled_late}
        self._stopping = True
        self.nudge()

    def join(self, timeout: float) -> None:
        """Wait for the thread's end."""
        if self._thread is not None:
            self._thread.join(timeout)

    def ended(self, run: Run) -> None:
        """Settle a handler that ended after its worker had stopped. Called from any thread."""
        self._ended.append(run)
        self.nudge()

    async def lend(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Run something on this thread's loop, and return what it returns; None if the thread has ended."""
        if self._loop is None or self._stopping:
            work.close()
            return None
        try:
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))
        except RuntimeError:  # its loop has closed
            work.close()
            return None

    def nudge(self) -> None:
        """Have the thread look now."""
        loop, wake = self._loop, self._wake
        if loop is not None and wake is not None:
            with contextlib.suppress(RuntimeError):  # its loop has closed
                loop.call_soon_threadsafe(wake.set)

    def _main(self, connected: Future[None]) -> None:
        connected.set_running_or_notify_cancel()
        try:
            asyncio.run(self._keep(connected))
        except Exception:
            if connected.exception() is not None:  # told to whoever starts the worker
                return
            self._failing = True
            logger.exception("the thread that keeps the leases of worker %s ended", self._worker)

    async def _keep(self, connected: Future[None]) -> None:
        self._loop, self._wake = asyncio.get_running_loop(), asyncio.Event()
        retry_in: float | None = None
        next_extend = time.monotonic() + self._interval
        next_watch = next_look = time.monotonic()
        async with contextlib.AsyncExitStack() as stack:
            store = await self._connect(stack, connected)
            beside = asyncio.get_running_loop().create_task(self._beside(store), name="taskharbor-beside")
            stack.push_async_callback(_end, beside)
            while not self._stopping or self._lingering:
                wait = min(next_extend, next_watch, next_look) - time.monotonic()
                nudged = await self._sleep(max(wait, 0.0))
                now = time.monotonic()
                if self._stopping:
                    await _end(beside)
                if now >= next_watch:
                    next_watch = now + self._watchdog.every
                    self._watch()
                early = False
                if now >= next_look:
                    next_look = now + _LOOK_SECONDS
                    # A store that is away is asked at its own pace.
                    early = self._unreported.look(self._leases.unreported()) and retry_in is None
                if not (nudged or early or now >= next_extend or self._ended):
                    continue
                try:
                    if not self._watchdog.stalled:
                        await self._extend(store)
                    await self._settle_late(store)  # after it: an outcome that is refused must cost no lease
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

    async def _connect(self, stack: contextlib.AsyncExitStack, connected: Future[None]) -> Store:
        try:
            store = await stack.enter_async_context(self._driver.connect())
        except BaseException as error:
            connected.set_exception(error)
            raise
        connected.set_result(None)
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
        if answer.watched or self._feed_watched:
            self._feed_watched = answer.watched
            self._tell(self._on_watched, answer.watched)
        if answer.order is not None and answer.order is not self._order:  # it is told anew each time
            self._tell(self._on_order, answer.order, await self._ordered_by(store))
            self._order = answer.order

    async def _ordered_by(self, store: Store) -> str:
        """Return who gave the order, for the log; "" if the store does not tell."""
        with contextlib.suppress(Exception):  # the order holds, whoever gave it
            workers = await store.worker_list(WorkerList())
            return next((one.ordered_by for one in workers if one.worker == self._worker), "")
        return ""

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
            report = None if run.told is None else run.told.take()
            if report is not None:
                with contextlib.suppress(StoreUnavailable):
                    await store.job_report(JobReport(reports=[report]))
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
        return self._watchdog.stalled or self._failing

    def _on_turn(self) -> None:
        self.nudge()
        self._on_resume()

    def _watch(self) -> None:
        if not self._stopping:
            self._watchdog.look()


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
