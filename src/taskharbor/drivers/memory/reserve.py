"""job_reserve: walk priorities, lanes and due times in order over the queues, and lease what is found."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from operator import itemgetter

import msgspec

from taskharbor.clock import duration_micros, from_micros
from taskharbor.driver import AgedTake, JobReserve, Reservation
from taskharbor.drivers.memory.rows import LANES, SOLO, Lease, Row
from taskharbor.drivers.memory.tables import PRIORITIES, Entry, Heaps, Tables, as_duration
from taskharbor.job import Delivery


class _Source(msgspec.Struct):
    """One queue's heaps within a reserve, and how many jobs may still be taken from that queue."""

    queue: str
    heaps: Heaps
    left: dict[str, int]


def job_reserve(tables: Tables, request: JobReserve, now: int) -> Reservation:
    """Lease the next jobs that may run."""
    held = tables.leases.get(request.token)
    if held is not None:  # the answer to the first asking was lost
        return Reservation(
            deliveries=[_delivery(row, held.token) for row in held.rows.values()],
            expires_at=from_micros(held.expires),
            next_due_in=as_duration(0),
        )
    walk = _Walk(request, now)
    sources = _sources(tables, request)
    if request.aged is not None:
        walk.take_aged(sources, request.aged)
    rows = walk.take(sources)
    expires = now + duration_micros(request.lease)
    if rows:
        lease = Lease(request.token, request.worker, expires, duration_micros(request.lease), {}, set())
        tables.leases[request.token] = lease
        for row in rows:
            row.token = request.token
            row.settled_token = None
            row.deliveries += 1
            lease.rows[row.job.id] = row
    return Reservation(
        deliveries=[_delivery(row, request.token) for row in rows],
        expires_at=from_micros(expires),
        held_back=walk.held_back,
        next_due_in=None if walk.next_due is None else as_duration(walk.next_due - now),
    )


def _sources(tables: Tables, request: JobReserve) -> list[_Source]:
    left = {take.name: take.limit for take in request.queues}
    return [
        _Source(queue, heaps, left)
        for queue in left
        if queue not in tables.paused
        for stray, heaps in tables.lanes.get(queue, {}).items()
        if stray is None or stray.open_to(request.tasks, request.build)
    ]


class _Walk:
    """One walk over the lanes, in order, and what it met on its way."""

    def __init__(self, request: JobReserve, now: int) -> None:
        self._limit = request.limit
        self._guarded_left = request.guarded_limit
        self._solo_left = 1 if request.solo else 0
        self._now = now
        self.held_back = False
        self.next_due: int | None = None
        self._rows: list[Row] = []

    def take_aged(self, sources: Sequence[_Source], aged: AgedTake) -> None:
        """Take those that have been due for too long, the longest first, whatever their priority but the first."""
        before = self._now - duration_micros(aged.after)
        lines = [
            (source, slot)
            for source in sources
            for slot in range(LANES, PRIORITIES * LANES)
            if slot % LANES != SOLO and source.heaps.heaps[slot]
        ]
        for _ in range(min(aged.limit, self._limit)):
            heads = [
                (head, source, slot)
                for source, slot in lines
                if source.left[source.queue] > 0 and (head := source.heaps.head(slot)) is not None
            ]
            if not heads:
                return
            (due, _, _, row), source, slot = min(heads, key=itemgetter(0))
            if due >= before or (row.guarded and self._guarded_left <= 0):
                return  # what this leaves is met again, and told of, in order of priority
            self._guarded_left -= row.guarded
            heapq.heappop(source.heaps.heaps[slot])
            row.entry = 0
            source.left[source.queue] -= 1
            self._rows.append(row)

    def take(self, sources: Sequence[_Source]) -> list[Row]:
        """Return the rows taken, in order, out of their lanes."""
        for slot in range(PRIORITIES * LANES):
            if slot % LANES == SOLO and not self._solo_left:
                continue
            here = [source for source in sources if source.heaps.heaps[slot]]
            if not here:
                continue
            if len(here) == 1 and slot % LANES != SOLO:
                self._take_plain(here[0], slot)
            if not self._take_lane(here, slot):
                break
        return self._rows

    def _take_plain(self, source: _Source, slot: int) -> None:
        """Take what needs no choosing: the plain jobs at the head of the only source. The rest is `_take_lane`'s."""
        heap, rows, now, take = source.heaps.heaps[slot], self._rows, self._now, heapq.heappop
        room = min(self._limit - len(rows), source.left[source.queue])
        before = len(rows)
        while room > 0 and heap:
            due, _, entry, row = heap[0]
            if row.entry == entry:
                if due > now or row.guarded:
                    break
                row.entry = 0
                rows.append(row)
                room -= 1
            take(heap)
        source.left[source.queue] -= len(rows) - before

    def _take_lane(self, sources: list[_Source], slot: int) -> bool:
        # One priority and lane over all queues: the earliest due of the heads, again and again.
        while True:
            best: Entry | None = None
            from_source: _Source | None = None
            for source in sources:
                head = source.heaps.head(slot)
                if head is None:
                    continue
                if source.left[source.queue] <= 0:
                    self._note_due(head[0])
                elif best is None or head < best:
                    best, from_source = head, source
            if best is None or from_source is None:
                return True
            if best[0] > self._now or len(self._rows) >= self._limit:
                self._note_due(best[0])
                return best[0] > self._now
            if not self._may_take(best[3]):
                return False
            if slot % LANES == SOLO:
                self._solo_left -= 1
            heapq.heappop(from_source.heaps.heaps[slot])
            best[3].entry = 0
            from_source.left[from_source.queue] -= 1
            self._rows.append(best[3])
            if slot % LANES == SOLO and not self._solo_left:
                return True

    def _note_due(self, due: int) -> None:
        if self.next_due is None or due < self.next_due:
            self.next_due = due

    def _may_take(self, row: Row) -> bool:
        if not row.guarded:
            return True
        if self._guarded_left <= 0:
            self.held_back = True
            self._note_due(row.due)
            return False
        self._guarded_left -= 1
        return True


def _delivery(row: Row, token: int) -> Delivery:
    job = row.job
    return Delivery(
        job.id,
        token,
        job.task,
        job.queue,
        job.payload,
        job.codec,
        job.fingerprint,
        row.attempt + 1,
        row.deliveries,  # the fence
        job.retry,
        job.timeout,
        job.priority,
        row.run_at,
        row.enqueued_at,
        job.key,
        job.meta,
        job.keep_result,
        row.guarded,
        row.solo,
        row.cancel is not None,
        None if job.step is None else row.delivered,
    )
