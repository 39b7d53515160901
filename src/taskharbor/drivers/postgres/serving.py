"""A reserve from lines: what is taken of which line and lane, priority by priority (`taskharbor.driver.limiting`).

It runs in a transaction that has the rules' lock, and ends with one statement that leases all it has taken: so what it
has seen of leases, arrival times and turns is as it stands until that is committed.
"""

from __future__ import annotations

from collections.abc import Sequence

from taskharbor.clock import duration_micros
from taskharbor.driver import JobReserve
from taskharbor.driver.limiting import (
    Gates,
    Line,
    Quota,
    Waiting,
    allot,
    lines_first,
    queues_in_turn,
)
from taskharbor.drivers.postgres.knowledge import Knowledge
from taskharbor.drivers.postgres.lines import (
    LAST_PART,
    Context,
    Found,
    Place,
    Ring,
    Turn,
    begin,
    is_rated,
    more_of,
    read_context,
    take_jobs,
    walk_lines,
)
from taskharbor.drivers.postgres.plain import PlainLanes
from taskharbor.drivers.postgres.routine import Routine, Row
from taskharbor.drivers.postgres.rows import TAKEN
from taskharbor.drivers.postgres.scan import LOCKED_MICROS, PRIORITIES
from taskharbor.drivers.postgres.step import Step
from taskharbor.limit import Scope, ScopeKind

_ROUNDS = 5
"""Where jobs are met that are put into lines, it begins again, so often at most."""
_A_WHILE = 100_000
"""Microseconds."""
_CHUNK = 1000
"""Lines that are looked at in one statement, at most; and for those long due, in one reserve."""


class Serving:
    """One reserve from lines."""

    def __init__(
        self, step: Step, request: JobReserve, known: Knowledge, context: Context, plain: PlainLanes
    ) -> None:
        """Begin.

        Args:
            step: what a verb works with.
            request: what is asked.
            known: the rules among it, which are locked.
            context: read after they were.
            plain: the lanes of those that are not in lines.
        """
        self._step = step
        self._request = request
        self._rules = known.rules
        self._kinds = known.open_to(request)
        self._rated = is_rated(known.rules)
        self._now = context.now
        self._plain = plain
        takes = {take.name: take.limit for take in request.queues}
        self._queues = queues_in_turn([name for name in takes if name in context.queues], request.token)
        room = request.limit if request.partitioned_limit is None else request.partitioned_limit
        queues = {name: takes[name] for name in self._queues}
        self.quota = Quota(request.limit, queues, request.guarded_limit, int(request.solo), room)
        self._arrivals = {Scope(ScopeKind(kind), name): at for kind, name, at in context.arrivals}
        running = {(queue, task, part): count for queue, task, part, count in context.running}
        self._gates = Gates(known.rules, running, self._arrivals, context.now)
        self._rings: dict[int, list[Ring]] = {}
        self._read(context)
        self._turns: dict[tuple[str, int], Turn] = {}
        self._jobs: dict[Line, list[str]] = {}
        """What is taken of each line, in order: it stands at its head still."""
        self._order: list[str] = []
        self._waits: list[int] = []

    def serve(self) -> Routine[list[Row]]:
        """Take what may be taken, and lease it; return it in order."""
        for turn in range(_ROUNDS):
            self._waits.clear()
            moved = self._plain.moved
            self._plain.waits.clear()
            yield from self._serve(aged=turn == 0)
            if self._plain.moved == moved:
                break
            # What was met in plain lanes and stands in lines now.
            self._waits.append(0)
            if self.quota.limit <= 0 or self.quota.held_back:
                break
            self._read((yield from read_context(self._step, self._request, self._rules)))
        return (yield from self._lease())

    @property
    def wait(self) -> int | None:
        """Return when something of what was left may be taken, in microseconds from now."""
        return min([*self._waits, *self._plain.waits], default=None)

    @property
    def lines_gave_nothing(self) -> bool:
        """Return whether all lines were looked at, and none can give anything for a while."""
        return not self._jobs and min(self._waits, default=_A_WHILE) >= _A_WHILE

    def _read(self, context: Context) -> None:
        self._rings.clear()
        for ring in sorted(context.rings, key=lambda ring: self._queues.index(ring.queue)):
            self._rings.setdefault(ring.priority, []).append(ring)
        self._plain.there = context.plain

    def _serve(self, *, aged: bool) -> Routine[None]:
        if aged and self._request.aged is not None:
            before = len(self._order)
            yield from self._take_plain(range(1, len(PRIORITIES)), aged=True)
            yield from self._serve_aged(self._request.aged.limit - (len(self._order) - before))
        first = lines_first(self._request.token)
        start = 0
        for priority in sorted(self._rings):
            end = priority if first else priority + 1
            if end > start and not (yield from self._take_plain(range(start, end))):
                return
            start = end
            yield from self._serve_lines(priority)
        yield from self._take_plain(range(start, len(PRIORITIES)))

    def _take_plain(self, priorities: range, *, aged: bool = False) -> Routine[bool]:
        """Take of plain lanes; return whether to go on."""
        going, ids = yield from self._plain.take(priorities, self.quota, self._gates, aged=aged)
        self._order += ids
        return going

    # --- lines of one priority

    @property
    def _over(self) -> bool:
        return self.quota.limit <= 0 or (self.quota.partitioned <= 0 and self.quota.held_back)

    def _serve_lines(self, priority: int) -> Routine[None]:
        places = [(ring, self._begin(ring)) for ring in self._rings.get(priority, ())]
        again: list[Line] = []
        while places and not self._over:
            waiting: list[Waiting] = []
            # One more tells whether there is something for slots that are not free.
            need = count = min(self.quota.limit, self.quota.partitioned + 1)
            while places and len(waiting) < need:
                ring, begins = places.pop(0)
                if not self._is_open(ring.queue):
                    continue
                found, ends = yield from self._walk(ring, begins, min(count, _CHUNK))
                waiting += [one for one in map(self._waiting, found) if one is not None]
                if ends is not None:
                    places.insert(0, (ring, ends))
                    count = max(need - len(waiting), 2 * count)
                else:
                    count = max(need - len(waiting), 1)
            if places:  # each line gives one before any gives two
                waiting = [Waiting(line, jobs[:1], more or len(jobs) > 1) for line, jobs, more in waiting]
            again += self._allot(waiting)
        while again and not self._over:
            again = self._allot((yield from self._refill(again)))
        if places or again:
            self._waits.append(0)

    def _begin(self, ring: Ring) -> Place:
        turn = self._turns.get((ring.queue, ring.priority))
        return begin(ring) if turn is None else Place(0, turn, turn)

    def _is_open(self, queue: str) -> bool:
        if self.quota.queues.get(queue, 0) <= 0:
            self._waits.append(0)
            return False
        if self._gates.queue_room(queue) <= 0:
            self._note(self._gates.queue_wait(queue))
            return False
        return True

    def _walk(
        self, ring: Ring, place: Place, count: int, room: int | None = None
    ) -> Routine[tuple[list[Found], Place | None]]:
        found, end = yield from walk_lines(
            ring,
            place,
            count,
            now=self._now,
            shut=[task for task in self._rules.governed if self._gates.closed(ring.queue, task)],
            kinds=self._kinds,
            rated=self._rated,
            room=room,
        )
        for one in found:
            if one.arrival is not None:
                self._arrivals[Scope(ScopeKind.KEY, one.line.task, one.line.partition)] = one.arrival
        return found, end

    def _waiting(self, found: Found) -> Waiting | None:
        """Return a line as it is served; None if it may give nothing now, and note when it may."""
        line = found.line
        if line.partition == LAST_PART:
            self._note(self._gates.closed_wait(line.queue, line.task))
            return None
        if found.later is not None:
            self._waits.append(found.later - self._now)
        if not found.jobs:
            return None
        if self._gates.room(line) <= 0:
            self._note(self._gates.wait(line))
            return None
        given = len(self._jobs.get(line, ()))
        return Waiting(line, found.jobs[given:], found.more)

    def _allot(self, waiting: Sequence[Waiting]) -> list[Line]:
        """Give lines their turns; return those that gave all of these jobs, and have more."""
        given = allot(waiting, self._gates, self.quota)
        self._note(given.wait)
        self._turns.update(given.last)
        again: list[Line] = []
        for one, ids in zip(waiting, given.jobs, strict=True):
            if ids:
                self._jobs.setdefault(one.line, []).extend(ids)
            if one.more and len(ids) == len(one.jobs):
                again.append(one.line)
        # In the order of turns, as far as that is known here.
        for number in range(max(map(len, given.jobs), default=0)):
            self._order += [ids[number] for ids in given.jobs if number < len(ids)]
        return again

    def _refill(self, lines: Sequence[Line]) -> Routine[list[Waiting]]:
        """Return the next jobs of lines."""
        lines = [line for line in lines if self._may_give(line)]
        if not lines:
            return []
        want = max(2 * self.quota.limit // len(lines), 1)
        room = want + max(len(self._jobs.get(line, ())) for line in lines)
        found = yield from more_of(lines, room, self._now)
        return [
            Waiting(line, jobs[len(self._jobs.get(line, ())) :], more)
            for line, (jobs, more) in zip(lines, found, strict=True)
            if len(jobs) > len(self._jobs.get(line, ()))
        ]

    def _may_give(self, line: Line) -> bool:
        if self._gates.room(line) > 0:
            return True
        self._note(self._gates.wait(line))
        return False

    def _note(self, wait: int | None) -> None:
        if wait is not None:
            self._waits.append(wait)

    # --- those that have been due for too long

    def _serve_aged(self, limit: int) -> Routine[None]:
        """Take heads of lines that have been due for too long, the longest first, of all priorities but the first."""
        aged = self._request.aged
        room = min(limit, self.quota.limit)
        if aged is None or room <= 0:
            return
        before = self._now - duration_micros(aged.after)
        found: list[tuple[int, Waiting]] = []
        for priority in sorted(self._rings):
            for ring in self._rings[priority] if priority else ():
                lines, _ = yield from self._walk(ring, self._begin(ring), _CHUNK, room)
                for one in lines:
                    jobs = [job for job, due in zip(one.jobs, one.dues, strict=True) if due < before]
                    # What stands before others of its line is none of them, nor is what waits behind it.
                    if jobs and not one.jobs[0].solo and one.dues[0] < before:
                        found.append((one.dues[0], Waiting(one.line, jobs)))
        found.sort(key=lambda one: (one[0], one[1].jobs[0].id))
        elders = Quota(room, self.quota.queues, self.quota.guarded, 0, min(room, self.quota.partitioned))
        turns = dict(self._turns)
        mine, self.quota = self.quota, elders
        self._allot([one for _, one in found])
        self.quota, self._turns = mine, turns
        taken = room - elders.limit
        mine.limit -= taken
        mine.partitioned -= taken
        mine.guarded = elders.guarded
        self._waits.clear()  # what this leaves is met again

    # --- the end

    def _lease(self) -> Routine[list[Row]]:
        plain = self._plain.rows
        jobs = {line: ids for line, ids in self._jobs.items() if ids}
        if not (jobs or plain or self._gates.changed):
            return []
        found = yield from take_jobs(
            self._request,
            self._now,
            jobs,
            list(plain),
            counted=self._rules.counts,
            turns=self._turns,
            arrivals=self._gates.changed,
        )
        rows = {**plain, **{row[TAKEN.id]: row for row in found}}
        if len(rows) < len(self._order):  # somebody is just about to change those
            self._waits.append(LOCKED_MICROS)
        return [rows[job_id] for job_id in self._order if job_id in rows]
