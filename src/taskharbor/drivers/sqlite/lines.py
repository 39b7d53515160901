"""Lines: jobs that take turns, or whose task has limits. Read by an index of their own, whose order is that of turns.

What is taken is decided by `taskharbor.driver.limiting`; here are the looks at the index, and the walk over it, which
writes nothing, so that who is idle can take it without the file's lock.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import takewhile

import msgspec

from taskharbor.driver import Candidate, Gates, Line, Quota, Waiting, allot
from taskharbor.drivers.sqlite.routine import Query, Routine
from taskharbor.drivers.sqlite.rows import FRONT, LINES, NORMAL, SOLO, WAITING, json_text, read_json
from taskharbor.drivers.sqlite.rules import arrivals_of
from taskharbor.limit import Scope, ScopeKind

Turn = tuple[str, str, int]
"""(task, partition, kind of stray): a line's place among those of its queue and priority."""

_FIRST: Turn = ("", "", -1)
_INDEX = "taskharbor_job INDEXED BY taskharbor_job_line"
_IS_LINE = f"+lane > {WAITING} AND token IS NULL"
# (Of the index's own condition, in its very words. The sign keeps SQLite from seeking by it, where a lane is named.)
# Loose index scans: from each line's, or priority's, first job they jump to the next one. (Row values would be sought
# by their first part alone.)
_PRIORITIES = f"""WITH RECURSIVE there(queue, priority) AS (
    SELECT value, (SELECT min(priority) FROM {_INDEX} WHERE queue = value AND {_IS_LINE}) FROM json_each(?)
    UNION ALL
    SELECT queue, (SELECT min(priority) FROM {_INDEX} WHERE queue = t.queue AND priority > t.priority AND {_IS_LINE})
    FROM there t WHERE priority IS NOT NULL)
SELECT json_group_array(json_array(t.queue, t.priority, n.task, n.part, n.stray)) FROM there t
    LEFT JOIN taskharbor_turn n ON n.queue = t.queue AND n.priority = t.priority WHERE t.priority IS NOT NULL"""  # noqa: S608 - our own constants
_NEXT = f"SELECT id FROM {_INDEX} WHERE queue = ?1 AND priority = ?2 AND {_IS_LINE}"  # noqa: S608 - our own constants
_WALK = f"""WITH RECURSIVE line(number, task, part, stray, id, guarded, due, lane) AS (
    SELECT 0, ?3, ?4, ?5, NULL, NULL, NULL, NULL
    UNION ALL
    SELECT l.number + 1, j.task, j.part, j.stray, j.id, j.guarded, j.due, j.lane
    FROM line l CROSS JOIN taskharbor_job j ON j.id = coalesce(
        CASE WHEN l.task NOT IN (SELECT value FROM json_each(?7)) THEN coalesce(
            ({_NEXT} AND task = l.task AND part = l.part AND stray > l.stray ORDER BY stray, lane, due, id LIMIT 1),
            ({_NEXT} AND task = l.task AND part > l.part ORDER BY part, stray, lane, due, id LIMIT 1)) END,
        ({_NEXT} AND task > l.task ORDER BY task, part, stray, lane, due, id LIMIT 1))
    LIMIT ?6)
SELECT json_group_array(json_array(task, part, stray, id, guarded, due, lane)) FROM line WHERE number > 0"""  # noqa: S608 - our own constants
_OF_LINE = f"""FROM {_INDEX} WHERE queue = e.queue AND priority = e.priority AND task = e.task AND part = e.part
    AND stray = e.stray AND {_IS_LINE} AND lane = {{lane}}"""
_LINE_LANES = (LINES + SOLO, LINES + FRONT, LINES + NORMAL)


def _due(lane: int) -> str:
    return f"""(SELECT json_group_array(json_array(id, guarded, due)) FROM (
        SELECT id, guarded, due {_OF_LINE.format(lane=lane)} AND due <= ?2 ORDER BY due, id LIMIT ?3))"""  # noqa: S608 - our own constants


def _later(lane: int) -> str:
    return f"(SELECT due {_OF_LINE.format(lane=lane)} AND due > ?2 ORDER BY due LIMIT 1)"


_CANDIDATES = f"""WITH e AS MATERIALIZED (SELECT value ->> 0 AS queue, value ->> 1 AS priority, value ->> 2 AS task,
    value ->> 3 AS part, value ->> 4 AS stray FROM json_each(?1))
SELECT json_group_array(json_array({", ".join(_due(lane) for lane in _LINE_LANES)},
    {", ".join(_later(lane) for lane in _LINE_LANES)})) FROM e"""  # noqa: S608 - our own constants
DIVERT = f"""UPDATE taskharbor_job SET part = '', lane = lane + {LINES}
    WHERE id IN (SELECT value FROM json_each(?)) AND lane < {WAITING}"""  # noqa: S608 - our own constants
"""Moves plain jobs of tasks that have come to be governed into the line of those without a key."""
_KEEP_TURNS = """INSERT OR REPLACE INTO taskharbor_turn (queue, priority, task, part, stray)
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(?)"""
QUEUES_WAITING = f"""WITH RECURSIVE there(queue) AS (
    SELECT min(queue) FROM {_INDEX} WHERE {_IS_LINE}
    UNION ALL
    SELECT (SELECT min(queue) FROM {_INDEX} WHERE {_IS_LINE} AND queue > t.queue) FROM there t WHERE queue IS NOT NULL)
SELECT queue FROM there WHERE queue IS NOT NULL"""  # noqa: S608 - our own constants
"""The queues in which jobs stand in lines."""


class _Ring(msgspec.Struct, array_like=True, frozen=True):
    """The lines of one queue and priority, and which of them was served last."""

    queue: str
    priority: int
    task: str | None
    part: str | None
    stray: int | None

    @property
    def after(self) -> Turn | None:
        return None if self.task is None else (self.task, self.part or "", self.stray or 0)


class _Job(msgspec.Struct, array_like=True, frozen=True):
    id: str
    guarded: int
    due: int


class _Met(msgspec.Struct, array_like=True, frozen=True):
    """A line as `_WALK` gives it, with its first job, due or not."""

    task: str
    part: str
    stray: int
    id: str
    guarded: int
    due: int
    lane: int

    @property
    def turn(self) -> Turn:
        return (self.task, self.part, self.stray)


class _Found(msgspec.Struct, array_like=True, frozen=True):
    """The jobs of one line that are due, lane by lane; and when the next of each lane is."""

    solo: list[_Job]
    front: list[_Job]
    normal: list[_Job]
    later_solo: int | None
    later_front: int | None
    later_normal: int | None

    @property
    def later(self) -> int | None:
        return min(
            (at for at in (self.later_solo, self.later_front, self.later_normal) if at is not None),
            default=None,
        )


_all_rings = msgspec.json.Decoder(list[_Ring])
_all_met = msgspec.json.Decoder(list[_Met])
_all_found = msgspec.json.Decoder(list[_Found])
_FEW, _CHUNK = 8, 500
"""Lines that are looked at in one go: at least, and at most, where many of them give nothing."""
_UNNAMED = "\0"
"""A partition that no job can have."""


class LineWalk:
    """What one reserve takes of lines. It writes nothing: `keep_turns` does, with what came of it."""

    def __init__(
        self, gates: Gates, arrivals: dict[Scope, int], quota: Quota, now: int, strays: Collection[int]
    ) -> None:
        """Begin.

        Args:
            gates: at this instant.
            arrivals: of theirs; filled in as lines are met.
            quota: what may be taken.
            now: this instant.
            strays: the kinds of strays that this worker may look at, 0 among them.
        """
        self._gates = gates
        self._arrivals = arrivals
        self._quota = quota
        self._now = now
        self._strays = frozenset(strays)
        self._rings: dict[int, list[_Ring]] = {}
        self._turns: dict[tuple[str, int], Turn] = {}
        self._gone: set[str] = set()
        """Jobs that are taken: they stand in their lines still."""
        self._given: dict[Line, int] = {}
        """How many those are of each line."""
        self._heads: dict[Line, _Met] = {}
        """The first jobs of the lines that were met last."""
        self.taken: list[str] = []
        self.wait: int | None = None
        """When something that was left may be taken, in microseconds from now."""

    def find(self, queues: Sequence[str]) -> Routine[None]:
        """Look which queues have lines, and of which priorities."""
        rings = read_json((yield Query(_PRIORITIES, (json_text(queues),))), _all_rings)
        self._rings.clear()
        for ring in sorted(rings, key=lambda ring: queues.index(ring.queue)):
            self._rings.setdefault(ring.priority, []).append(ring)
        yield from self._fetch_arrivals([Line("", 0, task, _UNNAMED) for task in self._gates.rules.governed])

    @property
    def priorities(self) -> Collection[int]:
        """Return the priorities of lines, once they were looked for."""
        return self._rings.keys()

    def serve(self, priority: int) -> Routine[None]:
        """Take what may be taken of one priority."""
        again: list[Line] = []
        for ring in self._rings.get(priority, ()):
            size = max(min(self._quota.limit, self._quota.partitioned), _FEW)
            walk = _Round(ring, self._turns.get((ring.queue, priority), ring.after))
            while not walk.ended:
                # One of each line, before any has two.
                again += yield from self._give((yield from self._next_lines(walk, size)), 1)
                if self._quota.limit <= 0 or (self._quota.partitioned <= 0 and self._quota.held_back):
                    self._note(0)
                    return
                size = min(4 * size, _CHUNK)
        while again:
            again = yield from self._give(again, max(2 * self._quota.limit // len(again), 1))

    def serve_aged(self, before: int, limit: int) -> Routine[None]:
        """Take those of a lower priority that have been due since before then, the longest first."""
        quota = self._quota
        room = min(limit, quota.limit, quota.partitioned)
        elders = Quota(room, quota.queues, quota.guarded, 0, room)
        found: list[tuple[Line, list[_Job]]] = []
        for priority, rings in sorted(self._rings.items()):
            for ring in rings if priority and room > 0 else ():
                walk = _Round(ring, self._turns.get((ring.queue, priority), ring.after))
                lines = yield from self._open((yield from self._next_lines(walk, _CHUNK)))
                for line, jobs in zip(lines, (yield from self._jobs(lines, room)), strict=True):
                    # In their order, up to the first that is none.
                    ordered = [] if jobs.solo else [*jobs.front, *jobs.normal]
                    found.append((line, list(takewhile(lambda job: job.due < before, ordered))))
                if not walk.ended and lines:  # the next time from there on
                    self._turns[ring.queue, priority] = lines[-1].turn
        while elders.limit > 0:
            found = [(line, jobs) for line, jobs in found if jobs and jobs[0].guarded <= elders.guarded]
            found.sort(key=lambda one: (one[1][0].due, one[1][0].id))
            waiting = [Waiting(line, [Candidate(jobs[0].id, bool(jobs[0].guarded))]) for line, jobs in found]
            given = allot(waiting, self._gates, elders).jobs
            if not any(given):
                break
            self._note_taken(waiting, given)
            found = [(line, jobs[1:]) for (line, jobs), ids in zip(found, given, strict=True) if ids]
        count = room - elders.limit
        quota.limit -= count
        quota.partitioned -= count
        quota.guarded = elders.guarded

    def _next_lines(self, walk: _Round, size: int) -> Routine[list[Line]]:
        """Return the next lines that may give something; of a task that may give nothing only one is met."""
        shut = [task for task in sorted(self._gates.rules.governed) if self._is_shut(task)]
        found = yield from walk.next(size, shut)
        met = [(line, head) for line, head in found if line.stray in self._strays]
        self._heads = dict(met)
        for line in self._heads:
            if line.task in shut:
                self._note(self._gates.wait(line._replace(partition=_UNNAMED)))
        return [line for line in self._heads if line.task not in shut]

    def _is_shut(self, task: str) -> bool:
        """Return whether no job of a task may be taken, whatever its partition."""
        each = self._gates.rules.terms.get(Scope(ScopeKind.KEYS, task))
        if each is not None and each.max_running == 0:  # one of the keys may have a limit of its own
            return self._gates.rules.hold(task, _UNNAMED) is not None
        return self._gates.shut(task, _UNNAMED) is not None

    def _open(self, lines: Sequence[Line]) -> Routine[list[Line]]:
        """Return those of these lines whose gates let something through, and note when others do."""
        yield from self._fetch_arrivals(lines)
        opened: list[Line] = []
        for line in lines:
            if self._gates.room(line) > 0:
                opened.append(line)
            else:
                self._note(self._gates.wait(line))
        return opened

    def keep_turns(self) -> Routine[None]:
        """Write down which lines were served last."""
        if self._turns:
            rows = [(*name, *turn) for name, turn in self._turns.items()]
            yield Query(_KEEP_TURNS, (json_text(rows),))

    def _give(self, lines: Sequence[Line], count: int) -> Routine[list[Line]]:
        """Give lines their turns, with so many jobs of each; return those that gave all of them, and have more."""
        lines = yield from self._open(lines)
        # The first job of a line is known, and as a rule it is due: then nothing else has to be read.
        heads = {
            line: head
            for line in lines
            if (head := self._heads.pop(line, None)) is not None and self._is_due(head)
        }
        rest = [line for line in lines if line not in heads]
        found = dict(zip(rest, (yield from self._jobs(rest, count + 1)), strict=True))
        waiting = [
            self._first(line, heads[line]) if line in heads else self._waiting(line, found[line], count)
            for line in lines
        ]
        given = allot(waiting, self._gates, self._quota)
        self._note_taken(waiting, given.jobs)
        self._turns.update(given.last)
        self._note(given.wait)
        return [
            one.line
            for one, job_ids in zip(waiting, given.jobs, strict=True)
            if job_ids and one.more and len(job_ids) == len(one.jobs)
        ]

    def _is_due(self, head: _Met) -> bool:
        return head.due <= self._now and head.id not in self._gone

    def _first(self, line: Line, head: _Met) -> Waiting:
        """Return a line with its first job; whether there are more is not known."""
        return Waiting(line, [Candidate(head.id, bool(head.guarded), head.lane == LINES + SOLO)], more=True)

    def _waiting(self, line: Line, jobs: _Found, count: int) -> Waiting:
        """Return a line with so many of its jobs, and note when the next one is due."""
        candidates = [
            Candidate(job.id, bool(job.guarded), solo)
            for solo, lane in ((True, jobs.solo), (False, jobs.front), (False, jobs.normal))
            for job in lane
            if job.id not in self._gone
        ]
        if jobs.later is not None:
            self._note(jobs.later - self._now)
        return Waiting(line, candidates[:count], len(candidates) > count)

    def _jobs(self, lines: Sequence[Line], count: int) -> Routine[list[_Found]]:
        """Return so many jobs of each line that are due, beyond those that are taken."""
        if not lines:
            return []
        room = count + max(self._given.get(line, 0) for line in lines)
        return read_json((yield Query(_CANDIDATES, (json_text(lines), self._now, room))), _all_found)

    def _fetch_arrivals(self, lines: Sequence[Line]) -> Routine[None]:
        """Read when the rates of these lines' gates let the next job through."""
        rated = {
            scope
            for line in lines
            for scope, terms in self._gates.rules.gates(line.queue, line.task, line.partition)
            if terms.rate is not None and scope not in self._arrivals
        }
        self._arrivals.update(dict.fromkeys(rated, 0))
        self._arrivals.update((yield from arrivals_of(rated)))

    def _note_taken(self, waiting: Sequence[Waiting], jobs: Sequence[Sequence[str]]) -> None:
        for one, job_ids in zip(waiting, jobs, strict=True):
            if job_ids:
                self.taken += job_ids
                self._gone.update(job_ids)
                self._given[one.line] = self._given.get(one.line, 0) + len(job_ids)

    def _note(self, wait: int | None) -> None:
        if wait is not None and (self.wait is None or wait < self.wait):
            self.wait = wait


class _Round:
    """A walk over the lines of one queue and priority: from the one that was served last on, to that one."""

    def __init__(self, ring: _Ring, after: Turn | None) -> None:
        self._ring = ring
        self._from = _FIRST if after is None else after
        self._to = after
        self._first_half = after is not None
        self.ended = False

    def next(self, count: int, shut: Sequence[str]) -> Routine[list[tuple[Line, _Met]]]:
        """Return the next lines, so many if there are, and of these tasks only the first."""
        cells = (self._ring.queue, self._ring.priority, *self._from, count + 1, json_text(shut))
        met = read_json((yield Query(_WALK, cells)), _all_met)
        if len(met) == count:
            self._from = met[-1].turn
        elif self._first_half:
            self._first_half, self._from = False, _FIRST
            return self._lines(met)
        else:
            self.ended = True
        if not self._first_half and self._to is not None:
            left = [one for one in met if one.turn <= self._to]
            self.ended = self.ended or len(left) < len(met) or (bool(left) and left[-1].turn == self._to)
            met = left
        return self._lines(met)

    def _lines(self, met: Sequence[_Met]) -> list[tuple[Line, _Met]]:
        return [(Line(self._ring.queue, self._ring.priority, *one.turn), one) for one in met]
