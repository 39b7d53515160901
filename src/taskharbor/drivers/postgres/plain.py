"""The plain lanes within a reserve from lines: they draw on the same quota."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence

import msgspec

from taskharbor.driver import JobReserve
from taskharbor.driver.limiting import Gates, Quota
from taskharbor.drivers.postgres.knowledge import Knowledge
from taskharbor.drivers.postgres.marks import Lane, Marks
from taskharbor.drivers.postgres.routine import Routine, Row
from taskharbor.drivers.postgres.rows import SOLO, TAKEN
from taskharbor.drivers.postgres.scan import LOCKED_MICROS, SCANS, Mode, Told, Walk, lanes_of, note, scan
from taskharbor.drivers.postgres.step import Step

_MOST_MOVED = 4000
"""Jobs put into lines, in one reserve; beyond them others are not kept waiting."""


class PlainLanes:
    """What one reserve takes of plain lanes."""

    def __init__(
        self,
        step: Step,
        request: JobReserve,
        known: Knowledge,
        began: int,
        marks: Callable[[range], Marks],
    ) -> None:
        """Begin.

        Args:
            step: what a verb works with.
            request: what is asked.
            known: of the store.
            began: an instant, in microseconds since 1970, at which the transaction had no number yet.
            marks: of scans of the lanes of these priorities.
        """
        self._step = step
        self._request = request
        self._known = known
        self._began = began
        self._marks = marks
        self.there: Collection[int] = ()
        """Priorities of which there may be jobs."""
        self.rows: dict[str, Row] = {}
        self.moved = 0
        """How many jobs were met that belong into lines, and stand there now."""
        self.waits: list[int] = []

    def take(
        self, priorities: range, quota: Quota, gates: Gates, *, aged: bool = False
    ) -> Routine[tuple[bool, list[str]]]:
        """Take jobs of some priorities; return whether to go on, and their ids, in order."""
        ids: list[str] = []
        if quota.limit <= 0:
            self.waits.append(0)
            return False, ids
        if not (self._known.strays or any(priority in self.there for priority in priorities)):
            return True, ids
        limited = [queue for queue in quota.queues if queue in self._known.rules.queues]
        rest = list(quota.queues)
        while True:
            # Queues with limits share one quota: those that come too short have another look.
            left = quota.partitioned
            rooms: dict[str, int] = {}
            clipped: list[str] = []
            for queue in rest:
                room = min(quota.queues[queue], quota.limit)
                if queue in limited:
                    room = min(room, gates.queue_room(queue))
                    if room > left:
                        clipped.append(queue)
                        room = left
                    left -= room
                rooms[queue] = max(room, 0)
            told, rows, lanes = yield from self._scan(priorities, rooms, quota, aged=aged)
            self._note_taken(rows, quota, gates, limited)
            ids += [row[TAKEN.id] for row in rows]
            if not aged:
                self._note_left(told, lanes, quota, gates, limited, again=clipped)
            if told.moved and not rows:
                return False, ids
            if told.held_back and not aged:
                quota.held_back = True
                return False, ids
            taken = Counter([row[TAKEN.queue] for row in rows])
            rest = [queue for queue in clipped if taken[queue] >= rooms[queue]]
            if quota.limit <= 0 or quota.partitioned <= 0 or not rest:
                return True, ids

    def _scan(
        self, priorities: range, rooms: dict[str, int], quota: Quota, *, aged: bool
    ) -> Routine[tuple[Told, list[Row], list[Lane]]]:
        request = self._request
        names = list(rooms)
        lanes = lanes_of(names, self._known.open_to(request), priorities, solo=quota.solo > 0 and not aged)
        # Elders are found at the marks of a walk, and there is none here.
        marks = Marks() if aged or request.now is not None else self._marks(priorities)
        limit = quota.limit if not aged or request.aged is None else min(quota.limit, request.aged.limit)
        taken: list[Row] = []
        deep = False
        scans = 0
        while True:
            marks.begin(lanes)
            walk = Walk(
                lanes,
                marks,
                limit,
                rooms,
                quota.guarded,
                self._known,
                Mode.LINES if self.moved < _MOST_MOVED else Mode.LAST,
                aged=request.aged if aged else None,
                elders_only=aged,
                deep=deep,
            )
            told, rows = yield from scan(self._step, request, walk)
            scans += 1
            self.moved += told.moved
            deep = told.moved > 0
            full = len(rows) >= limit or _is_full(rooms, rows)
            left = None if full or aged else told.left
            seen = msgspec.structs.replace(told.seen, now=min(self._began, told.seen.now))
            walked = dict(enumerate(lanes, 1))
            again = note(marks, seen, walked, left, rows, told.workers or 1)
            taken += rows
            if rows or scans == SCANS or not (again or told.moved) or aged:
                return told, taken, lanes

    def _note_taken(self, rows: Sequence[Row], quota: Quota, gates: Gates, limited: Collection[str]) -> None:
        for row in rows:
            self.rows[row[TAKEN.id]] = row
            is_solo = row[TAKEN.lane] == SOLO
            quota.guarded -= row[TAKEN.guarded]
            quota.solo -= is_solo
        quota.limit -= len(rows)
        for queue, count in Counter([row[TAKEN.queue] for row in rows]).items():
            quota.queues[queue] -= count
            if queue in limited:
                quota.partitioned -= count
                gates.take_plain(queue, count)

    def _note_left(
        self,
        told: Told,
        lanes: Sequence[Lane],
        quota: Quota,
        gates: Gates,
        limited: Collection[str],
        again: Collection[str],
    ) -> None:
        """Note when what was left may be taken."""
        if told.left is None or quota.limit <= 0:
            self.waits.append(0)
            return
        for number, due, _ in told.left:
            lane = lanes[number - 1]
            queue = lane.queue
            wait: int | None
            if due > told.seen.now:
                wait = due - told.seen.now
            elif lane.lane == SOLO and quota.solo <= 0:
                wait = None
            elif quota.queues[queue] <= 0:
                wait = 0
            elif queue not in limited:
                wait = LOCKED_MICROS  # others are about to take it, or to let it go
            elif gates.queue_room(queue) <= 0:
                wait = gates.queue_wait(queue)
            elif quota.partitioned <= 0:
                wait, quota.held_back = 0, True
            else:
                wait = 0 if queue in again else LOCKED_MICROS
            if wait is not None:
                self.waits.append(wait)


def _is_full(rooms: dict[str, int], rows: Sequence[Row]) -> bool:
    """Return whether the quota of a queue was reached: then a lane may hold more that is due."""
    taken = Counter([row[TAKEN.queue] for row in rows])
    return any(taken[queue] >= room for queue, room in rooms.items())
