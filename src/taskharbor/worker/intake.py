"""Keeping a small buffer of reserved jobs full, and starting them as slots become free."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from functools import partial

from taskharbor.driver import Driver, Reservation, Store
from taskharbor.job import Delivery
from taskharbor.outcome import Cancelled, Outcome, Released
from taskharbor.worker.asking import Ask, asking_for
from taskharbor.worker.batch_plan import BatchPlan
from taskharbor.worker.batching import Batching
from taskharbor.worker.execution import Execution
from taskharbor.worker.guard import Guard
from taskharbor.worker.leases import Leases
from taskharbor.worker.patience import Patience
from taskharbor.worker.preparing import Plans
from taskharbor.worker.reserving import Reserving
from taskharbor.worker.run import Run
from taskharbor.worker.settings import WorkerSettings
from taskharbor.worker.settling import Settling

logger = logging.getLogger("taskharbor.worker")

_LONGEST_WAIT_SECONDS = 1.0
"""Unstarted jobs are handed back when not one slot was left for so long."""
_LONGEST_GATHER_SECONDS = 0.01
"""A reserve for slots only is put off for no longer, so that it is for several of them."""
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
        self._plans = plans
        self._leases = leases
        self._execution = execution
        self._worker = worker
        self._deps = deps
        self._finish = finish
        self._settling = settling
        self._suspended = suspended
        self._full = full
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        """The store may have more for us."""
        self._room = asyncio.Event()
        """A slot became free, or an outcome was written."""
        self._wakes_sent = set[str]()
        self._stopping = False
        self._buffer: deque[Delivery] = deque()
        self._asking = asking_for(settings, queues, execution, self._buffer)
        self._slots = execution.slots
        self._reserving = Reserving(
            store,
            settings,
            plans,
            execution,
            patience,
            worker=worker,
            on_refresh=on_refresh,
            stopping=lambda: self._stopping,
        )
        self._guard = Guard(
            store,
            leases,
            execution,
            patience,
            worker=worker,
            lease=settings.lease,
            finish=finish,
            stopping=lambda: self._stopping,
            slot_left=lambda solo: self.slots_left((), solo=solo),
        )
        self._batching = Batching(
            execution,
            self._guard,
            finish=finish,
            slot_left=lambda solo: self.slots_left((), solo=solo),
        )
        self._batched = 0
        """Jobs that came into a batch."""
        self._concurrency = settings.concurrency
        self._asked_for = 0.0
        """How many seconds the last reserve took."""
        self._reconsidering = False
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

    def wake(self, queue: str) -> None:
        """Look soon at what the store has, in this queue or any of those watched with it. Callable from any thread."""
        if queue not in self._wakes_sent:
            self._wakes_sent.add(queue)
            with contextlib.suppress(RuntimeError):  # the loop has closed
                self._loop.call_soon_threadsafe(self._on_wake, queue)

    def _on_wake(self, queue: str) -> None:
        self._wakes_sent.discard(queue)
        if self._asking.woken(queue):
            self._woken.set()
            if (
                self._slots is not None
            ):  # there may be room for this queue, where there was none for the others
                self._room.set()

    def stop(self) -> None:
        """Reserve no more; `run` returns once a reserve under way has been answered."""
        self._stopping = True
        self._batching.release()
        self._woken.set()
        self._room.set()

    def slots_left(self, runs: Sequence[Run], *, solo: bool) -> None:
        """Start what is waiting for the slots that runs have left."""
        self._asking.ended(runs)
        if solo or self._asking.partial:
            self._woken.set()  # the next solo job may come now, or one of a queue that had no room
        self.start_some()
        self._wake_for_batches()
        self._room.set()

    def settled(self) -> None:
        """Go on if the store had fallen behind, or everything has been written."""
        if self._buffer:
            self.start_some()
            self._wake_for_batches()
        self._room.set()
        if self._quiet and self.idle:
            self._woken.set()

    def release_buffer(self) -> None:
        """Hand back what has not started."""
        self._hand_back(list(self._buffer))

    def _hand_back(self, deliveries: Collection[Delivery]) -> None:
        for delivery in deliveries:
            self._buffer.remove(delivery)
            self._asking.gave_back(delivery)
            self._finish(delivery, Released())

    def cancel_buffered(self, job_id: str, reason: str) -> None:
        """Settle a buffered job as cancelled, if it is here."""
        for delivery in self._buffer:
            if delivery.id == job_id:
                self._buffer.remove(delivery)
                self._finish(delivery, Cancelled(reason))
                return
        self._batching.cancel(job_id, reason)

    def forget_lease(self, token: int) -> None:
        """Drop the buffered jobs of a lease that is lost."""
        kept = [delivery for delivery in self._buffer if delivery.token != token]
        self._buffer.clear()
        self._buffer.extend(kept)
        self._batching.forget_lease(token)

    @property
    def idle(self) -> bool:
        """Return whether this worker has nothing in hand."""
        in_hand = self._buffer or self._leases.runs() or self._settling.pending
        return self._guard.idle and self._batching.idle and not in_hand

    async def run(self) -> None:
        """Reserve until stopped."""
        with contextlib.ExitStack() as watches:
            for queues in self._asking.watched:
                watch = self._driver.watch_queues(queues, partial(self.wake, queues[0]))
                watches.callback(watch.close)
            while not self._stopping:
                if not self._wants_more():
                    self._start_batches_if_quiet()
                    await self._wait_for_room()
                    continue
                if self._asking.held_back:
                    await self._gather_slots()
                self._woken.clear()
                quiet_before = self.idle
                ask = self._asking.next()
                began = self._loop.time()
                answer = await self._reserving.ask(ask)
                if answer is None:
                    return
                self._asked_for = self._loop.time() - began
                go_on = self._asking.answered(ask, answer)
                self._note(ask, answer, quiet=quiet_before and not go_on)
                if not go_on:
                    self._start_batches_if_quiet()
                if not (self._stopping or go_on):
                    await self._sleep(answer.next_due_in)
                    self._asking.slept()

    def _start_batches_if_quiet(self) -> None:
        """Who waits until nothing is due waits for no batch to fill, once nothing more comes."""
        if self._quiet:
            self._batching.start_all()

    def _wake_for_batches(self) -> None:
        """Have `run`, which may sleep, see that the last of the buffer have begun to gather."""
        if self._quiet and not self._batching.idle:
            self._woken.set()

    def _wants_more(self) -> bool:
        if self._suspended() or self._full() or self._settling.pending > _UNSETTLED_LIMIT:
            return False
        return self._asking.wants_more

    async def _gather_slots(self) -> None:
        """Wait for a few more slots, where jobs are taken into slots only: not a reserve for each that comes free.

        For no longer than the last reserve took, and not once half of them are free.
        """
        until = self._loop.time() + min(self._asked_for, _LONGEST_GATHER_SECONDS)
        while not self._stopping and (self._execution.free - len(self._buffer)) * 2 < self._concurrency:
            left = until - self._loop.time()
            if left <= 0 or not self._wants_more():
                return
            self._room.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._room.wait(), left)

    async def _wait_for_room(self) -> None:
        self._room.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._room.wait(), self._asking.pause)

    def _note(self, ask: Ask, answer: Reservation, *, quiet: bool) -> None:
        """Take up an answer; `quiet` if nothing was in hand before it, and no other queue is to be asked at once."""
        if answer.deliveries:
            self._leases.add(answer.deliveries[0].token, len(answer.deliveries))
            self._buffer.extend(self._asking.in_order(answer.deliveries))
            batched = self._batched
            self.start_some()
            self._hand_back_guarded()
            if ask.joining:
                self._hand_back_lined()
            if ask.joining and len(self._buffer) > self._asking.ahead:
                self._hand_back_crowd(joined=self._batched - batched)
            if self._buffer:
                self._reconsider_later()
        elif quiet and self.idle and not answer.held_back:
            for horizon, event in self._quiet:
                if answer.next_due_in is None or answer.next_due_in > horizon:
                    event.set()
        if self._others_wait:
            self._reconsider_later()

    @property
    def _others_wait(self) -> bool:
        """Return whether jobs that are still in the store wait for the slot of a batch that gathers."""
        return (self._asking.held_back or self._asking.crowded) and not self._batching.idle

    def _hand_back_crowd(self, *, joined: int) -> None:
        """Keep no more than usual of what was taken to join a batch and did not: others may have slots for it."""
        crowd = len(self._buffer) - self._asking.ahead
        for _ in range(crowd):
            delivery = self._buffer.pop()
            self._asking.gave_back(delivery)
            self._finish(delivery, Released())
        if joined < crowd:
            self._asking.crowded = True
        self._woken.set()  # they are due, and come back here with the next slot: no time to sleep

    def _hand_back_guarded(self) -> None:
        """Keep no guarded job waiting in the buffer: the plain ones of its reserve have taken the slots (rule 4)."""
        guarded = [delivery for delivery in self._buffer if delivery.guarded]
        if guarded:
            self._hand_back(guarded)
            self._asking.held_back = True
            self._batching.start_all(guarded_alone=True)  # no more can come to them past those

    def _hand_back_lined(self) -> None:
        """Keep no job of a line waiting in the buffer: it was taken to join a batch, and did not (rule 25)."""
        lined = [delivery for delivery in self._buffer if self._plans.lined(delivery.task)]
        if lined:
            self._hand_back(lined)
            self._asking.held_back = self._asking.crowded = True

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
        if self._stopping or not (self._buffer or self._others_wait):
            return
        standing = self._asking.standing()
        self._hand_back(
            [delivery for delivery in self._buffer if standing is None or delivery.queue in standing]
        )
        if standing is None or standing:
            self._batching.start_all()  # others wait for slots
        if self._buffer or self._others_wait:
            self._reconsider_later()

    def _reconsider_later(self) -> None:
        if not self._reconsidering:
            self._reconsidering = True
            self._asking.look()
            self._loop.call_later(_LONGEST_WAIT_SECONDS, self._reconsider)

    def start_some(self) -> None:
        """Start buffered jobs while there are free slots."""
        execution = self._execution
        if not self._buffer or self._full():  # asked once a turn: what starts in it is told of later
            return
        while self._buffer and execution.free > 0 and not self._stopping:
            if self._settling.pending > _UNSETTLED_LIMIT:
                return
            delivery = self._buffer.popleft() if self._slots is None else self._slots.startable(self._buffer)
            if delivery is None:
                break
            self._start(delivery)
        behind = self._settling.pending > _UNSETTLED_LIMIT
        if self._buffer and execution.joining and not (self._stopping or behind):
            self._join_some()

    def _join_some(self) -> None:
        """Put buffered jobs into the batches that gather, past those that wait for a slot."""
        waiting = list(self._buffer)
        self._buffer.clear()
        for delivery in waiting:
            if self._batching.joins(delivery):
                self._start(delivery)
            else:
                self._buffer.append(delivery)

    def _start(self, delivery: Delivery) -> None:
        if delivery.cancel_requested:
            self._finish(delivery, Cancelled())
            return
        prepared = self._plans.prepare(delivery, self._deps, self._worker)
        if not isinstance(prepared, Run):
            self._finish(delivery, prepared)
            return
        plan = prepared.plan
        if plan.batch is not None and isinstance(plan, BatchPlan):
            self._batched += 1
            self._batching.take(prepared, plan, plan.batch)
            return
        self._execution.take_slot(solo=delivery.solo, queue=delivery.queue)
        if delivery.guarded:
            self._guard.start(prepared)
        else:
            self._execution.start(prepared)

    async def guarded_done(self) -> None:
        """Wait until no guarded start is under way."""
        await self._guard.done()
