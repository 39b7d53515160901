"""job_reserve: walk priorities, lanes and due times in order over the queues, and lease what is found."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from operator import itemgetter
from typing import TypeVar

import msgspec

from taskharbor.clock import duration_micros, from_micros
from taskharbor.driver import AgedTake, Gates, JobReserve, Quota, Reservation, lines_first, queues_in_turn
from taskharbor.drivers.memory.lines import LineWalk
from taskharbor.drivers.memory.rows import LANES, SOLO, Lease, Row
from taskharbor.drivers.memory.tables import PRIORITIES, Entry, Heaps, Tables, as_duration
from taskharbor.job import Delivery

T = TypeVar("T")


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
    if _has_lines(tables, request):
        rows = _take_with_lines(tables, request, now, walk, sources)
    else:
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
            if tables.rules.counts:
                tables.count(row.job, 1)
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


def _has_lines(tables: Tables, request: JobReserve) -> bool:
    """Return whether jobs stand in lines in these queues, or the queues themselves have limits."""
    rings, limited = tables.lines.rings, tables.rules.queues
    return any(take.name in rings or take.name in limited for take in request.queues)


def _take_with_lines(
    tables: Tables, request: JobReserve, now: int, walk: _Walk, sources: Sequence[_Source]
) -> list[Row]:
    """Take from lines and plain lanes, priority by priority (`taskharbor.driver.limiting`)."""
    queues = queues_in_turn(
        [take.name for take in request.queues if take.name not in tables.paused], request.token
    )
    left = sources[0].left if sources else {take.name: take.limit for take in request.queues}
    room = request.limit if request.partitioned_limit is None else request.partitioned_limit
    quota = Quota(request.limit, left, request.guarded_limit, int(request.solo), room)
    gates = Gates(tables.rules, tables.running, tables.arrivals, now)

    def take(row: Row) -> None:
        row.entry = 0
        walk.rows.append(row)

    lines = LineWalk(
        tables.lines,
        gates,
        quota,
        now,
        opens=lambda turn: tables.lines.open_to(turn, request.tasks, request.build),
        take=take,
    )
    plain = _PlainLanes(walk, sources, gates, quota)
    if request.aged is not None:
        taken = plain.take_aged(request.aged)
        lines.serve_aged(queues, now - duration_micros(request.aged.after), request.aged.limit - taken)
    first = lines_first(request.token)
    for priority in range(PRIORITIES):
        if first:
            lines.serve(queues, priority)
        if not plain.take(priority):
            break
        if not first:
            lines.serve(queues, priority)
    tables.arrivals.update(gates.changed)
    walk.held_back = walk.held_back or quota.held_back
    if lines.wait is not None:
        walk.note_due(now + lines.wait)
    return walk.rows


class _PlainLanes:
    """The plain lanes of queues among which some have limits, or lines: they draw on the same quota as lines do."""

    def __init__(self, walk: _Walk, sources: Sequence[_Source], gates: Gates, quota: Quota) -> None:
        self._walk = walk
        self._sources = sources
        self._gates = gates
        self._quota = quota
        self.limited = sorted({source.queue for source in sources} & gates.rules.queues)

    def take(self, priority: int) -> bool:
        """Take from one priority's lanes; return whether to go on."""
        return self._within(lambda: self._walk.take_lanes(self._sources, priority))

    def take_aged(self, aged: AgedTake) -> int:
        """Take what has been due for too long, and return how many."""
        before = len(self._walk.rows)
        self._within(lambda: self._walk.take_aged(self._sources, aged))
        return len(self._walk.rows) - before

    def _within(self, take: Callable[[], T]) -> T:
        """Take within the rooms that queues with limits have, and note what was taken."""
        walk, quota, gates = self._walk, self._quota, self._gates
        kept: dict[str, int] = {}
        for queue in self.limited:
            room = min(gates.queue_room(queue), quota.partitioned)
            if room < quota.queues[queue]:
                kept[queue] = quota.queues[queue] - room
                quota.queues[queue] = room
        walk.limit, walk.guarded_left, walk.solo_left = (
            len(walk.rows) + quota.limit,
            quota.guarded,
            quota.solo,
        )
        walk.shut = kept.keys()
        before = len(walk.rows)
        answer = take()
        taken = Counter([row.job.queue for row in walk.rows[before:]])
        for queue in self.limited:
            gates.take_plain(queue, taken[queue])
            quota.partitioned -= taken[queue]
            quota.queues[queue] += kept.get(queue, 0)
        quota.limit -= taken.total()
        quota.guarded, quota.solo = walk.guarded_left, walk.solo_left
        for queue in walk.left_due:
            wait = gates.queue_wait(queue)
            if gates.queue_room(queue) > 0 and quota.queues[queue] > 0 and quota.partitioned <= 0:
                quota.held_back = True
            if wait is not None:
                walk.note_due(walk.now + wait)
        walk.shut = frozenset()
        walk.left_due.clear()
        return answer


class _Walk:
    """One walk over the lanes, in order, and what it met on its way."""

    def __init__(self, request: JobReserve, now: int) -> None:
        self.limit = request.limit
        self.guarded_left = request.guarded_limit
        self.solo_left = 1 if request.solo else 0
        self.now = now
        self.held_back = False
        self.next_due: int | None = None
        self.rows: list[Row] = []
        self.shut: Collection[str] = frozenset()
        """Queues whose quota is less than what was asked, for their own limits."""
        self.left_due: set[str] = set()
        """Those of them in which something was left that is due."""

    def take_aged(self, sources: Sequence[_Source], aged: AgedTake) -> None:
        """Take those that have been due for too long, the longest first, whatever their priority but the first."""
        before = self.now - duration_micros(aged.after)
        lines = [
            (source, slot)
            for source in sources
            for slot in range(LANES, PRIORITIES * LANES)
            if slot % LANES != SOLO and source.heaps.heaps[slot]
        ]
        for _ in range(min(aged.limit, self.limit)):
            heads = [
                (head, source, slot)
                for source, slot in lines
                if source.left[source.queue] > 0 and (head := source.heaps.head(slot)) is not None
            ]
            if not heads:
                return
            (due, _, _, row), source, slot = min(heads, key=itemgetter(0))
            if due >= before or (row.guarded and self.guarded_left <= 0):
                return  # what this leaves is met again, and told of, in order of priority
            self.guarded_left -= row.guarded
            heapq.heappop(source.heaps.heaps[slot])
            row.entry = 0
            source.left[source.queue] -= 1
            self.rows.append(row)

    def take(self, sources: Sequence[_Source]) -> list[Row]:
        """Return the rows taken, in order, out of their lanes."""
        for priority in range(PRIORITIES):
            if not self.take_lanes(sources, priority):
                break
        return self.rows

    def take_lanes(self, sources: Sequence[_Source], priority: int) -> bool:
        """Take from the lanes of one priority; return whether to go on with the next."""
        for slot in range(priority * LANES, (priority + 1) * LANES):
            if slot % LANES == SOLO and not self.solo_left:
                continue
            here = [source for source in sources if source.heaps.heaps[slot]]
            if not here:
                continue
            if len(here) == 1 and slot % LANES != SOLO:
                self._take_plain(here[0], slot)
            if not self._take_lane(here, slot):
                return False
        return True

    def _take_plain(self, source: _Source, slot: int) -> None:
        """Take what needs no choosing: the plain jobs at the head of the only source. The rest is `_take_lane`'s."""
        heap, rows, now, take = source.heaps.heaps[slot], self.rows, self.now, heapq.heappop
        room = min(self.limit - len(rows), source.left[source.queue])
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
                    if source.queue in self.shut and head[0] <= self.now:
                        self.left_due.add(source.queue)
                    else:
                        self.note_due(head[0])
                elif best is None or head < best:
                    best, from_source = head, source
            if best is None or from_source is None:
                return True
            if best[0] > self.now or len(self.rows) >= self.limit:
                self.note_due(best[0])
                return best[0] > self.now
            if not self._may_take(best[3]):
                return False
            if slot % LANES == SOLO:
                self.solo_left -= 1
            heapq.heappop(from_source.heaps.heaps[slot])
            best[3].entry = 0
            from_source.left[from_source.queue] -= 1
            self.rows.append(best[3])
            if slot % LANES == SOLO and not self.solo_left:
                return True

    def note_due(self, due: int) -> None:
        if self.next_due is None or due < self.next_due:
            self.next_due = due

    def _may_take(self, row: Row) -> bool:
        if not row.guarded:
            return True
        if self.guarded_left <= 0:
            self.held_back = True
            self.note_due(row.due)
            return False
        self.guarded_left -= 1
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
