"""job_reserve: find which lanes hold jobs, walk them in order over the queues, and lease what is taken."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from taskharbor.clock import duration_micros, from_micros
from taskharbor.driver import (
    AgedTake,
    Gates,
    JobReserve,
    Quota,
    Reservation,
    Rules,
    lines_first,
    queues_in_turn,
)
from taskharbor.drivers.sqlite.deliver import deliveries
from taskharbor.drivers.sqlite.lines import DIVERT, LineWalk
from taskharbor.drivers.sqlite.routine import Query, Routine
from taskharbor.drivers.sqlite.rows import SOLO, TEXTS, WAITING, Step, as_duration, json_text
from taskharbor.drivers.sqlite.rules import arrivals_of, keep_arrivals, rules_now, running_now
from taskharbor.job import Delivery
from taskharbor.limit import Scope

T = TypeVar("T")


class Stray(msgspec.Struct, array_like=True, frozen=True):
    """Which workers may take a job that some could not: those that know the task and are of none of the builds."""

    number: int
    task: str
    refused_by: tuple[str, ...]

    def open_to(self, tasks: frozenset[str] | set[str], build: str) -> bool:
        """Return whether a worker of that build, knowing those tasks, may take it."""
        return self.task in tasks and build not in self.refused_by


class _Head(msgspec.Struct, array_like=True, frozen=True):
    """A lane that holds jobs, and when its first one is due."""

    queue: str
    stray: int
    priority: int
    lane: int
    due: int


class _Due(NamedTuple):
    """One job that is due, as it stands in its lane: by due time, then id."""

    due: int
    id: str
    guarded: int
    task: str = ""
    """Told only where some tasks are governed."""


STRAYS = msgspec.json.Decoder(list[Stray])
_heads = msgspec.json.Decoder(list[_Head])
_all_due = msgspec.json.Decoder(list[_Due])

_CONTEXT = """SELECT (SELECT expires_at FROM taskharbor_lease WHERE token = ?),
    (SELECT json_group_array(queue) FROM taskharbor_pause),
    (SELECT json_group_array(json_array(id, task, json(refused_by))) FROM taskharbor_stray),
    (SELECT revision FROM taskharbor_rules)"""
# A loose index scan: from each lane's first job it jumps to the next lane that holds any. (Asked for lanes greater than
# (priority, lane) as one value, SQLite would seek by the priority alone, and read through all jobs of that.)
_HEADS = """WITH RECURSIVE source(queue, stray) AS (SELECT value ->> 0, value ->> 1 FROM json_each(?)),
head(queue, stray, priority, lane, due) AS (
    SELECT j.queue, j.stray, j.priority, j.lane, j.due FROM source s CROSS JOIN taskharbor_job j ON j.id = (
        SELECT id FROM taskharbor_job INDEXED BY taskharbor_job_ready
        WHERE queue = s.queue AND stray = s.stray AND token IS NULL
        ORDER BY priority, lane, due, id LIMIT 1)
    UNION ALL
    SELECT j.queue, j.stray, j.priority, j.lane, j.due FROM head h CROSS JOIN taskharbor_job j ON j.id = coalesce(
        (SELECT id FROM taskharbor_job INDEXED BY taskharbor_job_ready
            WHERE queue = h.queue AND stray = h.stray AND token IS NULL AND priority = h.priority AND lane > h.lane
            ORDER BY lane, due, id LIMIT 1),
        (SELECT id FROM taskharbor_job INDEXED BY taskharbor_job_ready
            WHERE queue = h.queue AND stray = h.stray AND token IS NULL AND priority > h.priority
            ORDER BY priority, lane, due, id LIMIT 1)))
SELECT json_group_array(json_array(queue, stray, priority, lane, due)) FROM head"""
_LANE = """FROM taskharbor_job INDEXED BY taskharbor_job_ready
    WHERE queue = ? AND stray = ? AND token IS NULL AND priority = ? AND lane = ?"""
_DUE = f"""SELECT json_group_array(json_array(due, id, guarded))
    FROM (SELECT due, id, guarded {_LANE} AND due <= ? ORDER BY due, id LIMIT ?)"""  # noqa: S608 - our own constants
_DUE_AND_TASK = f"""SELECT json_group_array(json_array(due, id, guarded, task))
    FROM (SELECT due, id, guarded, task {_LANE} AND due <= ? ORDER BY due, id LIMIT ?)"""  # noqa: S608 - our own constants
_LATER = f"SELECT due {_LANE} AND due > ? ORDER BY due LIMIT 1"
_TAKE = """UPDATE taskharbor_job SET token = ?, settled = NULL, started = 0, deliveries = deliveries + 1
    WHERE id IN (SELECT value FROM json_each(?))"""
_LEASE = """INSERT INTO taskharbor_lease (token, worker, expires_at, duration, jobs, remaining)
    VALUES (?, ?, ?, ?, ?, ?)"""


def nothing_due(step: Step, request: JobReserve) -> Routine[Reservation | None]:
    """Return the answer if nothing can be taken, without writing; None if something may be.

    So that idle workers, which ask often, never wait for the one who may write.
    """
    context = yield from _context(step, request)
    if context.held_until is not None:
        return None
    heads, lined = yield from _lanes(request, context)
    if lined or context.governed:
        governed = GovernedWalk(step, request, context, heads, writes=False)
        yield from governed.run()
        if governed.walk.taken or governed.diverted:
            return None
        return _reservation(request, [], step.now, governed.walk)
    if any(head.due <= step.now and (head.lane != SOLO or request.solo) for head in heads):
        return None
    walk = _Walk(request, step.now)
    walk.pass_over(heads)
    return _reservation(request, [], step.now, walk)


def job_reserve(step: Step, request: JobReserve) -> Routine[Reservation]:
    """Lease the next jobs that may run."""
    context = yield from _context(step, request)
    if context.held_until is not None:  # the answer to the first asking was lost
        held = yield from deliveries(
            step.book,
            request.token,
            "json_each((SELECT jobs FROM taskharbor_lease WHERE token = ?1)) e "
            "CROSS JOIN taskharbor_job j ON j.id = e.value AND j.token = ?1",
            (request.token,),
        )
        return Reservation(
            deliveries=held, expires_at=from_micros(context.held_until), next_due_in=as_duration(0)
        )
    heads, lined = yield from _lanes(request, context)
    if lined or context.governed:
        governed = GovernedWalk(step, request, context, heads, writes=True)
        yield from governed.run()
        yield from governed.keep()
        walk = governed.walk
    else:
        walk = _Walk(request, step.now)
        if request.aged is not None:
            yield from walk.take_aged(heads, request.aged)
        yield from walk.run(heads)
    if not walk.taken:
        return _reservation(request, [], step.now, walk)
    ids = json_text(walk.taken)
    duration = duration_micros(request.lease)
    yield Query(_TAKE, (request.token, ids))
    yield Query(_LEASE, (request.token, request.worker, step.now + duration, duration, ids, len(walk.taken)))
    taken = yield from deliveries(
        step.book, request.token, "json_each(?) e CROSS JOIN taskharbor_job j ON j.id = e.value", (ids,)
    )
    return _reservation(request, taken, step.now, walk)


def _reservation(request: JobReserve, taken: list[Delivery], now: int, walk: _Walk) -> Reservation:
    return Reservation(
        deliveries=taken,
        expires_at=from_micros(now + duration_micros(request.lease)),
        held_back=walk.held_back,
        next_due_in=None if walk.next_due is None else as_duration(walk.next_due - now),
    )


class _Context(NamedTuple):
    """What is to be known before lanes are looked at."""

    held_until: int | None
    """Until when the token is held already."""
    paused: set[str]
    open_strays: list[int]
    """The kinds of strays that this worker may look at."""
    rules: Rules
    governed: bool
    """Whether limits or holds have a part in this."""


def _context(step: Step, request: JobReserve) -> Routine[_Context]:
    ((held_until, paused, strays, revision),) = yield Query(_CONTEXT, (request.token,))
    known, rules = step.book.rules
    if known != revision:
        rules = yield from rules_now(step)
    return _Context(
        held_until,
        set(TEXTS.decode(paused)),
        [stray.number for stray in STRAYS.decode(strays) if stray.open_to(request.tasks, request.build)],
        rules,
        bool(rules.governed) or any(take.name in rules.queues for take in request.queues),
    )


def _lanes(request: JobReserve, context: _Context) -> Routine[tuple[list[_Head], bool]]:
    """Return the lanes with jobs that this worker may look at, in order, and whether jobs stand in lines there."""
    sources = [
        (take.name, number)
        for take in request.queues
        if take.name not in context.paused
        for number in (0, *context.open_strays)
    ]
    if not sources:
        return [], False
    ((found,),) = yield Query(_HEADS, (json_text(sources),))
    heads = _heads.decode(found)
    plain = [head for head in heads if head.lane < WAITING]
    lined = any(head.lane > WAITING for head in heads)
    return sorted(plain, key=lambda head: (head.priority, head.lane)), lined


class _Walk:
    """One walk over the lanes, in order, and what it met on its way."""

    def __init__(self, request: JobReserve, now: int) -> None:
        self.limit = request.limit
        self.left = {take.name: take.limit for take in request.queues}
        self.guarded_left = request.guarded_limit
        self.solo_left = 1 if request.solo else 0
        self._now = now
        self.held_back = False
        self.next_due: int | None = None
        self.taken: list[str] = []
        self._aged: frozenset[str] = frozenset()
        self.left_due: set[str] = set()
        """Queues with limits in which something was left that is due."""
        self.divert: Callable[[list[_Due]], Routine[bool]] | None = None
        """Where some tasks are governed: has their jobs moved into lines; False where they are to be left."""
        self.governed: Collection[str] = frozenset()
        self.limited: Collection[str] = frozenset()
        """Queues with limits, which draw together on `limited_left`."""
        self.limited_left = 0

    def pass_over(self, heads: Sequence[_Head]) -> None:
        """Note when the first job of each lane is due, where none is due now."""
        for head in heads:
            if head.lane != SOLO or self.solo_left:
                self.note_due(head.due)

    def take_aged(self, heads: Sequence[_Head], aged: AgedTake) -> Routine[None]:
        """Take those that have been due for too long, the longest first, whatever their priority but the first."""
        last = self._now - duration_micros(aged.after) - 1
        limit = min(aged.limit, self.limit)
        lines: list[list[tuple[int, str, int, str]]] = []
        for head in heads:
            room = min(limit, self._room(head.queue))
            if head.due <= last and head.priority > 0 and head.lane != SOLO and room > 0:
                ((found,),) = yield Query(
                    _DUE_AND_TASK if self.governed else _DUE, (*_lane_of(head), last, room)
                )
                jobs = [job for job in _all_due.decode(found) if job.task not in self.governed]
                lines.append([(job.due, job.id, job.guarded, head.queue) for job in jobs])
        for _, job_id, guarded, queue in heapq.merge(*lines):
            if len(self.taken) >= limit or (guarded and self.guarded_left <= 0):
                break  # what this leaves is met again, and told of, in order of priority
            if self._room(queue) > 0:
                self.guarded_left -= guarded
                self._note_taken(queue, 1)
                self.taken.append(job_id)
        self._aged = frozenset(self.taken)

    def run(self, heads: Sequence[_Head]) -> Routine[bool]:
        """Take what may be taken, lane by lane; return whether to go on with what comes after these."""
        lanes: dict[tuple[int, int], list[_Head]] = {}
        for head in heads:
            lanes.setdefault((head.priority, head.lane), []).append(head)
        for (_, lane), sources in lanes.items():
            if lane == SOLO and not self.solo_left:
                continue
            if not (yield from self._take_lane(sources, solo=lane == SOLO)):
                return False
        return True

    def _take_lane(self, sources: Sequence[_Head], *, solo: bool) -> Routine[bool]:
        """Take from one priority and lane of all queues; return whether to go on with the next."""
        found: list[tuple[str, list[_Due]]] = []
        for source in sources:
            if source.due > self._now:
                self.note_due(source.due)
            else:
                found.append((source.queue, (yield from self._all_due(source, solo=solo))))
        if len(found) == 1 and not solo and not any(job.guarded for job in found[0][1]):
            return self._take_plain(*found[0])
        # Ids differ, so queues are never compared.
        lines = ([(job.due, job.id, job.guarded, queue) for job in jobs] for queue, jobs in found)
        for due, job_id, guarded, queue in heapq.merge(*lines):
            if self._room(queue) <= 0:
                if queue in self.limited:
                    self.left_due.add(queue)
                else:
                    self.note_due(due)
            elif len(self.taken) >= self.limit:
                self.note_due(due)
                return False
            elif guarded and self.guarded_left <= 0:
                self.held_back = True
                self.note_due(due)
                return False
            else:
                self.guarded_left -= guarded
                self._note_taken(queue, 1)
                self.taken.append(job_id)
                if solo:
                    self.solo_left -= 1
                    return True
        return True

    def _take_plain(self, queue: str, jobs: Sequence[_Due]) -> bool:
        """Take jobs that need no choosing, all of one queue: what the loop of `_take_lane` comes to for them."""
        room = max(min(self.limit - len(self.taken), self._room(queue)), 0)
        taken = [job.id for job in jobs[:room]]
        self.taken += taken
        self._note_taken(queue, len(taken))
        if len(jobs) == len(taken):
            return True
        if self._room(queue) <= 0 and queue in self.limited:
            self.left_due.add(queue)
        else:
            self.note_due(jobs[room].due)
        return self._room(queue) <= 0

    def _room(self, queue: str) -> int:
        left = self.left[queue]
        return min(left, self.limited_left) if queue in self.limited else left

    def _note_taken(self, queue: str, count: int) -> None:
        self.left[queue] -= count
        if queue in self.limited:
            self.limited_left -= count

    def _all_due(self, source: _Head, *, solo: bool) -> Routine[list[_Due]]:
        # One more than can be taken tells whether any is left; those of a queue that gives no more are not read.
        room = 1 + max(min(self.limit - len(self.taken), self._room(source.queue)), 0)
        lane = _lane_of(source)
        jobs = yield from self._look(lane, room + len(self._aged))
        if self._aged:  # those are in their lanes still
            jobs = [job for job in jobs if job.id not in self._aged][:room]
        if len(jobs) < room and not solo:  # the next solo job comes once this one has ended
            later = yield Query(_LATER, (*lane, self._now))
            if later:
                self.note_due(later[0][0])
        return jobs

    def _look(self, lane: tuple[str, int, int, int], room: int) -> Routine[list[_Due]]:
        """Return the first jobs of a lane that are due; those of governed tasks go into their lines."""
        while True:
            sql = _DUE if self.divert is None else _DUE_AND_TASK
            ((found,),) = yield Query(sql, (*lane, self._now, room))
            jobs = _all_due.decode(found)
            strangers = [job for job in jobs if job.task in self.governed] if self.divert is not None else []
            if not strangers:
                return jobs
            if self.divert is None or not (yield from self.divert(strangers)):
                return [job for job in jobs if job.task not in self.governed]

    def note_due(self, due: int) -> None:
        if self.next_due is None or due < self.next_due:
            self.next_due = due


def _lane_of(head: _Head) -> tuple[str, int, int, int]:
    return head.queue, head.stray, head.priority, head.lane


_DIVERTED = 2000
"""Jobs that one reserve moves into lines, at most: the file's lock is everybody's."""
_PRIORITIES = range(10)


class GovernedWalk:
    """One walk over lines and plain lanes, priority by priority (`taskharbor.driver.limiting`)."""

    def __init__(
        self, step: Step, request: JobReserve, context: _Context, heads: Sequence[_Head], *, writes: bool
    ) -> None:
        """Begin; without `writes` it only finds out what could be taken."""
        self.walk = _Walk(request, step.now)
        self.diverted = 0
        """How many plain jobs were moved into lines, or would have to be."""
        self._step = step
        self._request = request
        self._context = context
        self._heads = heads
        self._writes = writes
        self._queues = queues_in_turn(
            [take.name for take in request.queues if take.name not in context.paused], request.token
        )
        room = request.limit if request.partitioned_limit is None else request.partitioned_limit
        self._quota = Quota(request.limit, self.walk.left, request.guarded_limit, int(request.solo), room)
        self._limited = sorted(context.rules.queues.intersection(self._queues))
        self._arrivals: dict[Scope, int] = {}
        self._gates = Gates(context.rules, {}, self._arrivals, step.now)
        self._lines = LineWalk(self._gates, self._arrivals, self._quota, step.now, (0, *context.open_strays))

    def run(self) -> Routine[None]:
        """Take what may be taken."""
        rules, request = self._context.rules, self._request
        self._gates.count((yield from running_now(rules)))
        limited = [scope for queue in self._limited for scope, _ in rules.queue_gate(queue)]
        self._arrivals.update((yield from arrivals_of(limited)))
        if rules.governed:
            self.walk.governed, self.walk.divert = rules.governed, self._divert
        yield from self._lines.find(self._queues)
        if request.aged is not None:
            aged, before = request.aged, len(self.walk.taken)
            yield from self._within(self.walk.take_aged(self._heads, aged))
            last = self._step.now - duration_micros(aged.after)
            yield from self._lines.serve_aged(last, aged.limit - len(self.walk.taken) + before)
            self._take_over()
        first = lines_first(request.token)
        for priority in _PRIORITIES:
            if first:
                yield from self._serve(priority)
            heads = [head for head in self._heads if head.priority == priority]
            diverted = self.diverted
            if heads and not (yield from self._within(self.walk.run(heads))):
                break
            if self.diverted > diverted and self._writes:
                yield from self._lines.find(self._queues)
            if not first or self.diverted > diverted:
                yield from self._serve(priority)
        self.walk.held_back = self.walk.held_back or self._quota.held_back
        if self._lines.wait is not None:
            self.walk.note_due(self._step.now + self._lines.wait)
        if self.diverted >= _DIVERTED:
            self.walk.note_due(self._step.now)

    def keep(self) -> Routine[None]:
        """Write down whose turn it was, and what was taken of rates."""
        yield from self._lines.keep_turns()
        yield from keep_arrivals(list(self._gates.changed.items()))

    def _serve(self, priority: int) -> Routine[None]:
        yield from self._lines.serve(priority)
        self._take_over()

    def _take_over(self) -> None:
        self.walk.taken += self._lines.taken
        self._lines.taken = []

    def _divert(self, jobs: list[_Due]) -> Routine[bool]:
        """Move plain jobs of governed tasks into their lines; return whether to look again at what is there now."""
        if not self._writes or self.diverted >= _DIVERTED:
            self.diverted += len(jobs)
            return False
        self.diverted += len(jobs)
        yield Query(DIVERT, (json_text([job.id for job in jobs]),))
        return True

    def _within(self, routine: Routine[T]) -> Routine[T]:
        """Take plain jobs within the rooms that queues with limits have, and note what was taken."""
        walk, quota, gates = self.walk, self._quota, self._gates
        kept: dict[str, int] = {}
        for queue in self._limited:
            room = gates.queue_room(queue)
            if room < quota.queues[queue]:
                kept[queue] = quota.queues[queue] - room
                quota.queues[queue] = room
        before = len(walk.taken)
        walk.limit, walk.guarded_left, walk.solo_left = before + quota.limit, quota.guarded, quota.solo
        walk.limited, walk.limited_left = frozenset(self._limited), quota.partitioned
        left = dict(quota.queues)
        answer = yield from routine
        for queue in self._limited:
            count = left[queue] - quota.queues[queue]
            gates.take_plain(queue, count)
            quota.partitioned -= count
            quota.queues[queue] += kept.get(queue, 0)
        quota.limit -= len(walk.taken) - before
        quota.guarded, quota.solo = walk.guarded_left, walk.solo_left
        for queue in walk.left_due:
            wait = gates.queue_wait(queue)
            if gates.queue_room(queue) > 0 and quota.queues[queue] > 0 and quota.partitioned <= 0:
                quota.held_back = True
            if wait is not None:
                walk.note_due(self._step.now + wait)
        walk.left_due.clear()
        return answer
