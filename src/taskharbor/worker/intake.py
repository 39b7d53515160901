"""Keeping a small buffer of reserved jobs full, and starting them as slots become free."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta

from taskharbor.driver import Driver, JobReserve, QueueTake, Reservation, Store
from taskharbor.errors import StoreUnavailable
from taskharbor.job import Delivery, new_token
from taskharbor.outcome import Cancelled, Outcome, Released
from taskharbor.worker.execution import Execution
from taskharbor.worker.guard import Guard
from taskharbor.worker.leases import Leases
from taskharbor.worker.patience import Patience
from taskharbor.worker.preparing import Plans
from taskharbor.worker.run import Run
from taskharbor.worker.settings import WorkerSettings
from taskharbor.worker.settling import Settling

logger = logging.getLogger("taskharbor.worker")

_MOST_PREFETCHED = 1000
_PREFETCH_SECONDS = 0.1
_LONGEST_WAIT_SECONDS = 1.0
"""Unstarted jobs are handed back when not one slot was left for so long."""
_UNSETTLED_LIMIT = 5000
"""Outcomes not written yet beyond which nothing new is started: the store has fallen behind."""


class Intake:
    """Reserves jobs, holds them briefly, and hands them to the execution."""

    def __init__(
        self,
        driver: Driver,
        store: Store,
        settings: WorkerSettings,
        queues: tuple[str, ...],
        plans: Plans,
        leases: Leases,
        execution: Execution,
        patience: Patience,
        *,
        worker: str,
        deps: object,
        finish: Callable[[Delivery, Outcome], None],
        settling: Settling,
        suspended: Callable[[], bool],
        full: Callable[[], bool],
        on_refresh: Callable[[], None],
    ) -> None:
        """Prepare it; `finish` takes the outcome of what never ran; while `full` says so nothing is started."""
        self._driver = driver
        self._store = store
        self._settings = settings
        self._queues = queues
        self._plans = plans
        self._leases = leases
        self._execution = execution
        self._patience = patience
        self._worker = worker
        self._deps = deps
        self._finish = finish
        self._settling = settling
        self._suspended = suspended
        self._full = full
        self._on_refresh = on_refresh
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        """The store may have more for us."""
        self._room = asyncio.Event()
        """A slot became free, or an outcome was written."""
        self._wake_sent = False
        self._stopping = False
        self._buffer: deque[Delivery] = deque()
        self._guard = Guard(
            store,
            leases,
            execution,
            patience,
            worker=worker,
            lease=settings.lease,
            finish=finish,
            stopping=lambda: self._stopping,
            slot_left=lambda solo: self.slots_left(0, solo=solo),
        )
        self._held_back = False
        self._asked = 0
        self._ended = 0
        """Runs that ended since the rate was last measured."""
        self._ended_in_all = 0
        self._ended_before = 0
        self._handed_back_at = -1
        self._reconsidering = False
        self._rate = 0.0
        self._rate_at = time.monotonic()
        self._quiet: list[tuple[timedelta, asyncio.Event]] = []
        """Who waits until nothing is due within so long."""

    async def quiet(self, horizon: timedelta) -> None:
        """Wait until nothing is running, unsettled, or due within `horizon`."""
        waiting = (horizon, asyncio.Event())
        self._quiet.append(waiting)
        self._woken.set()
        try:
            await waiting[1].wait()
        finally:
            self._quiet.remove(waiting)

    def wake(self) -> None:
        """Look at the store soon. Callable from any thread."""
        if not self._wake_sent:
            self._wake_sent = True
            with contextlib.suppress(RuntimeError):  # the loop has closed
                self._loop.call_soon_threadsafe(self._on_wake)

    def _on_wake(self) -> None:
        self._wake_sent = False
        self._woken.set()

    def stop(self) -> None:
        """Reserve no more; `run` returns once a reserve under way has been answered."""
        self._stopping = True
        self._woken.set()
        self._room.set()

    def slots_left(self, runs: int, *, solo: bool) -> None:
        """Start what is waiting for the slots that runs have left."""
        self._ended += runs
        self._ended_in_all += runs
        if solo:
            self._woken.set()  # the next solo job may come now
        self.start_some()
        self._room.set()

    def settled(self) -> None:
        """Go on if the store had fallen behind, or everything has been written."""
        if self._buffer:
            self.start_some()
        self._room.set()
        if self._quiet and self.idle:
            self._woken.set()

    def release_buffer(self) -> None:
        """Hand back what has not started."""
        while self._buffer:
            self._finish(self._buffer.popleft(), Released())

    def cancel_buffered(self, job_id: str, reason: str) -> None:
        """Settle a buffered job as cancelled, if it is here."""
        for delivery in self._buffer:
            if delivery.id == job_id:
                self._buffer.remove(delivery)
                self._finish(delivery, Cancelled(reason))
                return

    def forget_lease(self, token: int) -> None:
        """Drop the buffered jobs of a lease that is lost."""
        self._buffer = deque(delivery for delivery in self._buffer if delivery.token != token)

    @property
    def idle(self) -> bool:
        """Return whether this worker has nothing in hand."""
        return self._guard.idle and not (self._buffer or self._leases.runs() or self._settling.pending)

    async def run(self) -> None:
        """Reserve until stopped."""
        subscription = self._driver.watch_queues(self._queues, self.wake)
        try:
            while not self._stopping:
                if not self._wants_more():
                    self._room.clear()
                    await self._room.wait()
                    continue
                self._woken.clear()
                quiet_before = self.idle
                answer = await self._reserve()
                if answer is None:
                    return
                self._note(answer, quiet_before=quiet_before)
                if not (self._stopping or answer.held_back or len(answer.deliveries) >= self._asked):
                    await self._sleep(answer.next_due_in)
        finally:
            subscription.close()

    def _wants_more(self) -> bool:
        if self._suspended() or self._full() or self._settling.pending > _UNSETTLED_LIMIT:
            return False
        if self._held_back:
            return self._execution.free > len(self._buffer)
        return len(self._buffer) <= self._target() // 2 and (self._execution.free > 0 or self._target() > 0)

    def _target(self) -> int:
        """Return how many unstarted jobs to hold beyond the free slots."""
        if self._handed_back_at == self._ended_in_all:  # nothing has moved since some were handed back
            return 0
        if self._settings.prefetch is not None:
            return self._settings.prefetch
        return min(int(self._rate * _PREFETCH_SECONDS), _MOST_PREFETCHED)

    def _measure(self) -> None:
        now = time.monotonic()
        passed = now - self._rate_at
        if passed >= _PREFETCH_SECONDS / 4:
            rate = self._ended / passed
            self._rate = rate if rate > self._rate else self._rate * 0.7 + rate * 0.3
            self._ended, self._rate_at = 0, now

    async def _reserve(self) -> Reservation | None:
        self._measure()
        if self._plans.outdated:
            self._plans.refresh()
            self._on_refresh()
        free = self._execution.free
        self._asked = max(free + self._target() - len(self._buffer), 1)
        request = JobReserve(
            queues=[QueueTake(queue, self._asked) for queue in self._queues],
            limit=self._asked,
            lease=self._settings.lease,
            token=new_token(),
            worker=self._worker,
            tasks=self._plans.tasks,
            build=self._plans.build,
            guarded_limit=max(free - len(self._buffer), 0),
            solo=not self._execution.solo,
        )
        try:
            return await self._patience.ask(self._store.job_reserve, request, give_up=lambda: self._stopping)
        except StoreUnavailable:
            return None

    def _note(self, answer: Reservation, *, quiet_before: bool) -> None:
        self._held_back = answer.held_back
        if answer.deliveries:
            self._leases.add(answer.deliveries[0].token, len(answer.deliveries))
            self._buffer.extend(answer.deliveries)
            self.start_some()
            self._hand_back_guarded()
            if self._buffer:
                self._reconsider_later()
        elif quiet_before and self.idle and not answer.held_back:
            for horizon, event in self._quiet:
                if answer.next_due_in is None or answer.next_due_in > horizon:
                    event.set()

    def _hand_back_guarded(self) -> None:
        """Keep no guarded job waiting in the buffer: the plain ones of its reserve have taken the slots (rule 4)."""
        for delivery in [delivery for delivery in self._buffer if delivery.guarded]:
            self._buffer.remove(delivery)
            self._finish(delivery, Released())
            self._held_back = True

    async def _sleep(self, next_due_in: timedelta | None) -> None:
        """Wait for a wake-up, the next due time, or the next poll."""
        wait = self._driver.poll_interval
        if next_due_in is not None:
            wait = min(wait, next_due_in)
        with contextlib.suppress(TimeoutError):
            # A little late rather than early: timers count coarser than the store does.
            await asyncio.wait_for(self._woken.wait(), wait.total_seconds() + 0.001)

    def _reconsider(self) -> None:
        """Hand back what has been waiting behind long jobs: another worker may have slots for it."""
        self._reconsidering = False
        if not self._buffer or self._stopping:
            return
        if self._ended_in_all == self._ended_before:
            self._rate = 0.0
            self._handed_back_at = self._ended_in_all
            self.release_buffer()
        else:
            self._reconsider_later()

    def _reconsider_later(self) -> None:
        if not self._reconsidering:
            self._reconsidering = True
            self._ended_before = self._ended_in_all
            self._loop.call_later(_LONGEST_WAIT_SECONDS, self._reconsider)

    def start_some(self) -> None:
        """Start buffered jobs while there are free slots."""
        execution = self._execution
        while self._buffer and execution.free > 0 and not self._stopping:
            if self._settling.pending > _UNSETTLED_LIMIT or self._full():
                return
            delivery = self._buffer.popleft()
            if delivery.cancel_requested:
                self._finish(delivery, Cancelled())
                continue
            prepared = self._plans.prepare(delivery, self._deps, self._worker)
            if not isinstance(prepared, Run):
                self._finish(delivery, prepared)
                continue
            execution.take_slot(solo=delivery.solo)
            if delivery.guarded:
                self._guard.start(prepared)
            else:
                execution.start(prepared)

    async def guarded_done(self) -> None:
        """Wait until no guarded start is under way."""
        await self._guard.done()
