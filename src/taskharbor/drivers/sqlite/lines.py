"""Lines: jobs that take turns, or whose task has limits. Read by an index of their own, whose order is that of turns.

What is taken is decided by `taskharbor.driver.limiting`; here are the looks at the index, and the walk over it, which
writes nothing, so that who is idle can take it without the file's lock.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from taskharbor.driver import Candidate, Gates, Line, Quota, Waiting, allot
from taskharbor.drivers.sqlite.routine import Query, Routine
from taskharbor.drivers.sqlite.rows import FRONT, LINES, NORMAL, SOLO, WAITING, json_text, read_json
from taskharbor.drivers.sqlite.rules import arrivals_of
from taskharbor.limit import Scope

Turn = tuple[str, str, int]
"""(task, partition, kind of stray): a line's place among those of its queue and priority."""

_FIRST: Turn = ("", "", -1)
_INDEX = "taskharbor_job INDEXED BY taskharbor_job_line"
_IS_LINE = f"lane > {WAITING} AND token IS NULL"
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
_WALK = f"""WITH RECURSIVE line(number, task, part, stray) AS (
    SELECT 0, ?3, ?4, ?5
    UNION ALL
    SELECT l.number + 1, j.task, j.part, j.stray FROM line l CROSS JOIN taskharbor_job j ON j.id = coalesce(
        ({_NEXT} AND task = l.task AND part = l.part AND stray > l.stray ORDER BY stray LIMIT 1),
        ({_NEXT} AND task = l.task AND part > l.part ORDER BY part, stray LIMIT 1),
        ({_NEXT} AND task > l.task ORDER BY task, part, stray LIMIT 1))
    LIMIT ?6)
SELECT json_group_array(json_array(task, part, stray)) FROM line WHERE number > 0"""  # noqa: S608 - our own constants
_OF_LINE = f"""FROM {_INDEX} WHERE queue = e.value ->> 0 AND priority = e.value ->> 1 AND task = e.value ->> 2
    AND part = e.value ->> 3 AND stray = e.value ->> 4 AND {_IS_LINE} AND lane = {{lane}}"""
_LINE_LANES = (LINES + SOLO, LINES + FRONT, LINES + NORMAL)


def _due(lane: int) -> str:
    return f"""(SELECT json_group_array(json_array(id, guarded, due)) FROM (
        SELECT id, guarded, due {_OF_LINE.format(lane=lane)} AND due <= ?2 ORDER BY due, id LIMIT ?3))"""  # noqa: S608 - our own constants


def _later(lane: int) -> str:
    return f"(SELECT due {_OF_LINE.format(lane=lane)} AND due > ?2 ORDER BY due LIMIT 1)"


_CANDIDATES = f"""SELECT json_group_array(json_array({", ".join(_due(lane) for lane in _LINE_LANES)},
    {", ".join(_later(lane) for lane in _LINE_LANES)})) FROM json_each(?1) e"""  # noqa: S608 - our own constants
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
_all_turns = msgspec.json.Decoder(list[Turn])
_all_found = msgspec.json.Decoder(list[_Found])
_CHUNK = 500
"""Lines that are looked at in one go, where many of them may give nothing."""


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
        self._given: dict[Line, int] = {}
        """How many jobs of each line are taken: they are at its head still."""
        self.taken: list[str] = []
        self.wait: int | None = None
        """When something that was left may be taken, in microseconds from now."""

    def find(self, queues: Sequence[str]) -> Routine[None]:
        """Look which queues have lines, and of which priorities."""
        rings = read_json((yield Query(_PRIORITIES, (json_text(queues),))), _all_rings)
        self._rings.clear()
        for ring in sorted(rings, key=lambda ring: queues.index(ring.queue)):
            self._rings.setdefault(ring.priority, []).append(ring)

    @property
    def priorities(self) -> Collection[int]:
        """Return the priorities of lines, once they were looked for."""
        return self._rings.keys()

    def serve(self, priority: int) -> Routine[None]:
        """Take what may be taken of one priority."""
        again: list[Line] = []
        for ring in self._rings.get(priority, ()):
            after = ring.after or _FIRST
            # From the one that was served last to the end, and from the beginning to that one.
            for begin, end in ((after, None), (_FIRST, after)) if after != _FIRST else ((_FIRST, None),):
                while turns := (yield from _walk(ring, begin, max(self._quota.limit, 1))):
                    begin = turns[-1]  # noqa: PLW2901 - the next look goes on from there
                    if end is not None:
                        turns = [turn for turn in turns if turn <= end]
                    lines = [Line(ring.queue, priority, *turn) for turn in turns if turn[2] in self._strays]
                    # One of each line, before any has two.
                    again += yield from self._give(lines, 1)
                    if self._quota.limit <= 0:
                        self._note(0)
                        return
                    if end is not None and begin > end:
                        break
        while again:
            again = yield from self._give(again, max(2 * self._quota.limit // len(again), 1))

    def serve_aged(self, before: int, limit: int) -> Routine[None]:
        """Take those of a lower priority that have been due since before then."""
        room = min(limit, self._quota.limit)
        elders = Quota(
            room,
            self._quota.queues,
            self._quota.guarded,
            self._quota.solo,
            min(room, self._quota.partitioned),
        )
        found: list[tuple[int, str, Waiting]] = []
        for priority, rings in sorted(self._rings.items()):
            for ring in rings if priority else ():
                begin = _FIRST
                while turns := (yield from _walk(ring, begin, _CHUNK)):
                    begin = turns[-1]
                    lines = [Line(ring.queue, priority, *turn) for turn in turns if turn[2] in self._strays]
                    for line, jobs in zip(lines, (yield from self._jobs(lines, 1)), strict=True):
                        first = next(iter(jobs.front or jobs.normal), None)
                        if (
                            jobs.solo
                            or first is None
                            or first.due >= before
                            or first.guarded > elders.guarded
                        ):
                            continue
                        found.append(
                            (first.due, first.id, Waiting(line, [Candidate(first.id, bool(first.guarded))]))
                        )
        found.sort(key=lambda one: one[:2])
        given = allot([waiting for _, _, waiting in found], self._gates, elders)
        self._note_taken([waiting for _, _, waiting in found], given.jobs)
        count = sum(map(len, given.jobs))
        self._quota.limit -= count
        self._quota.partitioned -= count
        self._quota.guarded = elders.guarded

    def keep_turns(self) -> Routine[None]:
        """Write down which lines were served last."""
        if self._turns:
            rows = [(*name, *turn) for name, turn in self._turns.items()]
            yield Query(_KEEP_TURNS, (json_text(rows),))

    def _give(self, lines: Sequence[Line], count: int) -> Routine[list[Line]]:
        """Give lines their turns, with so many jobs of each; return those that gave all of them, and have more."""
        yield from self._fetch_arrivals(lines)
        shut = [line for line in lines if self._gates.room(line) <= 0]
        for line in shut:
            self._note(self._gates.wait(line))
        lines = [line for line in lines if self._gates.room(line) > 0] if shut else lines
        if not lines:
            return []
        found = yield from self._jobs(lines, count + 1)
        waiting: list[Waiting] = []
        for line, jobs in zip(lines, found, strict=True):
            candidates = [
                Candidate(job.id, bool(job.guarded), solo)
                for solo, lane in ((True, jobs.solo), (False, jobs.front), (False, jobs.normal))
                for job in lane
            ][self._given.get(line, 0) :]
            waiting.append(Waiting(line, candidates[:count], len(candidates) > count))
            if jobs.later is not None:
                self._note(jobs.later - self._now)
        given = allot(waiting, self._gates, self._quota)
        self._note_taken(waiting, given.jobs)
        self._turns.update(given.last)
        self._note(given.wait)
        return [
            one.line
            for one, job_ids in zip(waiting, given.jobs, strict=True)
            if job_ids and one.more and len(job_ids) == len(one.jobs)
        ]

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
                self._given[one.line] = self._given.get(one.line, 0) + len(job_ids)

    def _note(self, wait: int | None) -> None:
        if wait is not None and (self.wait is None or wait < self.wait):
            self.wait = wait


def _walk(ring: _Ring, begin: Turn, count: int) -> Routine[list[Turn]]:
    """Return so many lines of a queue and priority, from that turn on."""
    cells = (ring.queue, ring.priority, *begin, count + 1)
    return read_json((yield Query(_WALK, cells)), _all_turns)
