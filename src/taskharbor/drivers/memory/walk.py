"""The plain lanes as a reserve walks them: in order of lane, due time and id, over the queues."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from operator import itemgetter

import msgspec

from taskharbor.clock import duration_micros
from taskharbor.driver import AgedTake, JobReserve
from taskharbor.drivers.memory.rows import LANES, SOLO, Row
from taskharbor.drivers.memory.tables import PRIORITIES, Entry, Heaps


class Source(msgspec.Struct):
    """One queue's heaps within a reserve, and how many jobs may still be taken from that queue."""

    queue: str
    heaps: Heaps
    left: dict[str, int]


class Walk:
    """One walk over the lanes, in order, and what it met on its way."""

    def __init__(self, request: JobReserve, now: int) -> None:
        """Begin at this instant."""
        self.limit = request.limit
        self.guarded_left = request.guarded_limit
        self.solo_left = 1 if request.solo else 0
        self.now = now
        self.held_back = False
        self.next_due: int | None = None
        self.rows: list[Row] = []
        self.limited: frozenset[str] = frozenset()
        """Queues that have limits of their own."""
        self.limited_left = 0
        """How many jobs of all of these together may be taken."""
        self.left_due: set[str] = set()
        """Those of them in which something was left that is due."""

    def take_aged(self, sources: Sequence[Source], aged: AgedTake) -> None:
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
                if self._room(source) > 0 and (head := source.heaps.head(slot)) is not None
            ]
            if not heads:
                return
            (due, _, _, row), source, slot = min(heads, key=itemgetter(0))
            if due >= before or (row.guarded and self.guarded_left <= 0):
                return  # what this leaves is met again, and told of, in order of priority
            self.guarded_left -= row.guarded
            heapq.heappop(source.heaps.heaps[slot])
            self._take(row, source)

    def take(self, sources: Sequence[Source]) -> list[Row]:
        """Return the rows taken, in order, out of their lanes."""
        for priority in range(PRIORITIES):
            if not self.take_lanes(sources, priority):
                break
        return self.rows

    def take_lanes(self, sources: Sequence[Source], priority: int) -> bool:
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

    def _take_plain(self, source: Source, slot: int) -> None:
        """Take what needs no choosing: the plain jobs at the head of the only source. The rest is `_take_lane`'s."""
        heap, rows, now, take = source.heaps.heaps[slot], self.rows, self.now, heapq.heappop
        room = min(self.limit - len(rows), self._room(source))
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
        if source.queue in self.limited:
            self.limited_left -= len(rows) - before

    def _take_lane(self, sources: list[Source], slot: int) -> bool:
        # One priority and lane over all queues: the earliest due of the heads, again and again.
        while True:
            best: Entry | None = None
            from_source: Source | None = None
            for source in sources:
                head = source.heaps.head(slot)
                if head is None:
                    continue
                if self._room(source) <= 0:
                    if source.queue in self.limited and head[0] <= self.now:
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
            self._take(best[3], from_source)
            if slot % LANES == SOLO and not self.solo_left:
                return True

    def _room(self, source: Source) -> int:
        left = source.left[source.queue]
        return min(left, self.limited_left) if source.queue in self.limited else left

    def _take(self, row: Row, source: Source) -> None:
        row.entry = 0
        source.left[source.queue] -= 1
        if source.queue in self.limited:
            self.limited_left -= 1
        self.rows.append(row)

    def note_due(self, due: int) -> None:
        """Keep the earliest instant at which something is due."""
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
