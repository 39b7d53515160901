"""job_reserve: find which lanes hold jobs, walk them in order over the queues, and lease what is taken."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from taskharbor.clock import duration_micros, from_micros
from taskharbor.driver import AgedTake, JobReserve, Reservation
from taskharbor.drivers.sqlite.deliver import deliveries
from taskharbor.drivers.sqlite.routine import Query, Routine
from taskharbor.drivers.sqlite.rows import SOLO, TEXTS, WAITING, Step, as_duration, json_text
from taskharbor.job import Delivery


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


STRAYS = msgspec.json.Decoder(list[Stray])
_heads = msgspec.json.Decoder(list[_Head])
_all_due = msgspec.json.Decoder(list[_Due])

_CONTEXT = """SELECT (SELECT expires_at FROM taskharbor_lease WHERE token = ?),
    (SELECT json_group_array(queue) FROM taskharbor_pause),
    (SELECT json_group_array(json_array(id, task, json(refused_by))) FROM taskharbor_stray)"""
# A loose index scan: from each lane's first job it jumps to the next lane that holds any. (Asked for lanes greater than
# (priority, lane) as one value, SQLite would seek by the priority alone, and read through all jobs of that.)
_HEADS = f"""WITH RECURSIVE source(queue, stray) AS (SELECT value ->> 0, value ->> 1 FROM json_each(?)),
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
SELECT json_group_array(json_array(queue, stray, priority, lane, due)) FROM head WHERE lane < {WAITING}"""  # noqa: S608 - our own constants
_LANE = """FROM taskharbor_job INDEXED BY taskharbor_job_ready
    WHERE queue = ? AND stray = ? AND token IS NULL AND priority = ? AND lane = ?"""
_DUE = f"""SELECT json_group_array(json_array(due, id, guarded))
    FROM (SELECT due, id, guarded {_LANE} AND due <= ? ORDER BY due, id LIMIT ?)"""  # noqa: S608 - our own constants
_LATER = f"SELECT due {_LANE} AND due > ? ORDER BY due LIMIT 1"
_TAKE = """UPDATE taskharbor_job SET token = ?, settled = NULL, started = 0, deliveries = deliveries + 1
    WHERE id IN (SELECT value FROM json_each(?))"""
_LEASE = """INSERT INTO taskharbor_lease (token, worker, expires_at, duration, jobs, remaining)
    VALUES (?, ?, ?, ?, ?, ?)"""


def nothing_due(step: Step, request: JobReserve) -> Routine[Reservation | None]:
    """Return the answer if nothing can be taken, without writing; None if something may be.

    So that idle workers, which ask often, never wait for the one who may write.
    """
    held_until, paused, strays = yield from _context(request.token)
    if held_until is not None:
        return None
    heads = yield from _lanes(request, paused, strays)
    if any(head.due <= step.now and (head.lane != SOLO or request.solo) for head in heads):
        return None
    walk = _Walk(request, step.now)
    walk.pass_over(heads)
    return _reservation(request, [], step.now, walk)


def job_reserve(step: Step, request: JobReserve) -> Routine[Reservation]:
    """Lease the next jobs that may run."""
    held_until, paused, strays = yield from _context(request.token)
    if held_until is not None:  # the answer to the first asking was lost
        held = yield from deliveries(
            step.book,
            request.token,
            "json_each((SELECT jobs FROM taskharbor_lease WHERE token = ?1)) e "
            "CROSS JOIN taskharbor_job j ON j.id = e.value AND j.token = ?1",
            (request.token,),
        )
        return Reservation(deliveries=held, expires_at=from_micros(held_until), next_due_in=as_duration(0))
    walk = _Walk(request, step.now)
    heads = yield from _lanes(request, paused, strays)
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


def _context(token: int) -> Routine[tuple[int | None, set[str], list[Stray]]]:
    """Return until when the token is held, the paused queues, and the kinds of strays."""
    ((held_until, paused, strays),) = yield Query(_CONTEXT, (token,))
    return held_until, set(TEXTS.decode(paused)), STRAYS.decode(strays)


def _lanes(request: JobReserve, paused: set[str], strays: Sequence[Stray]) -> Routine[list[_Head]]:
    """Return the lanes with jobs that this worker may look at, in order."""
    open_strays = [stray.number for stray in strays if stray.open_to(request.tasks, request.build)]
    sources = [
        (take.name, number)
        for take in request.queues
        if take.name not in paused
        for number in (0, *open_strays)
    ]
    if not sources:
        return []
    ((found,),) = yield Query(_HEADS, (json_text(sources),))
    return sorted(_heads.decode(found), key=lambda head: (head.priority, head.lane))


class _Walk:
    """One walk over the lanes, in order, and what it met on its way."""

    def __init__(self, request: JobReserve, now: int) -> None:
        self._limit = request.limit
        self._left = {take.name: take.limit for take in request.queues}
        self._guarded_left = request.guarded_limit
        self._solo_left = 1 if request.solo else 0
        self._now = now
        self.held_back = False
        self.next_due: int | None = None
        self.taken: list[str] = []
        self._aged: frozenset[str] = frozenset()

    def pass_over(self, heads: Sequence[_Head]) -> None:
        """Note when the first job of each lane is due, where none is due now."""
        for head in heads:
            if head.lane != SOLO or self._solo_left:
                self._note_due(head.due)

    def take_aged(self, heads: Sequence[_Head], aged: AgedTake) -> Routine[None]:
        """Take those that have been due for too long, the longest first, whatever their priority but the first."""
        last = self._now - duration_micros(aged.after) - 1
        limit = min(aged.limit, self._limit)
        lines: list[list[tuple[int, str, int, str]]] = []
        for head in heads:
            room = min(limit, self._left[head.queue])
            if head.due <= last and head.priority > 0 and head.lane != SOLO and room > 0:
                ((found,),) = yield Query(_DUE, (*_lane_of(head), last, room))
                jobs = _all_due.decode(found)
                lines.append([(job.due, job.id, job.guarded, head.queue) for job in jobs])
        for _, job_id, guarded, queue in heapq.merge(*lines):
            if len(self.taken) >= limit or (guarded and self._guarded_left <= 0):
                break  # what this leaves is met again, and told of, in order of priority
            if self._left[queue] > 0:
                self._guarded_left -= guarded
                self._left[queue] -= 1
                self.taken.append(job_id)
        self._aged = frozenset(self.taken)

    def run(self, heads: Sequence[_Head]) -> Routine[None]:
        """Take what may be taken, lane by lane."""
        lanes: dict[tuple[int, int], list[_Head]] = {}
        for head in heads:
            lanes.setdefault((head.priority, head.lane), []).append(head)
        for (_, lane), sources in lanes.items():
            if lane == SOLO and not self._solo_left:
                continue
            if not (yield from self._take_lane(sources, solo=lane == SOLO)):
                return

    def _take_lane(self, sources: Sequence[_Head], *, solo: bool) -> Routine[bool]:
        """Take from one priority and lane of all queues; return whether to go on with the next."""
        found: list[tuple[str, list[_Due]]] = []
        for source in sources:
            if source.due > self._now:
                self._note_due(source.due)
            else:
                found.append((source.queue, (yield from self._all_due(source, solo=solo))))
        if len(found) == 1 and not solo and not any(job.guarded for job in found[0][1]):
            return self._take_plain(*found[0])
        # Ids differ, so queues are never compared.
        lines = ([(job.due, job.id, job.guarded, queue) for job in jobs] for queue, jobs in found)
        for due, job_id, guarded, queue in heapq.merge(*lines):
            if self._left[queue] <= 0:
                self._note_due(due)
            elif len(self.taken) >= self._limit:
                self._note_due(due)
                return False
            elif guarded and self._guarded_left <= 0:
                self.held_back = True
                self._note_due(due)
                return False
            else:
                self._guarded_left -= guarded
                self._left[queue] -= 1
                self.taken.append(job_id)
                if solo:
                    self._solo_left -= 1
                    return True
        return True

    def _take_plain(self, queue: str, jobs: Sequence[_Due]) -> bool:
        """Take jobs that need no choosing, all of one queue: what the loop of `_take_lane` comes to for them."""
        room = max(min(self._limit - len(self.taken), self._left[queue]), 0)
        taken = [job.id for job in jobs[:room]]
        self.taken += taken
        self._left[queue] -= len(taken)
        if len(jobs) == len(taken):
            return True
        self._note_due(jobs[room].due)
        return self._left[queue] <= 0

    def _all_due(self, source: _Head, *, solo: bool) -> Routine[list[_Due]]:
        # One more than can be taken tells whether any is left; those of a queue that gives no more are not read.
        room = 1 + max(min(self._limit - len(self.taken), self._left[source.queue]), 0)
        lane = _lane_of(source)
        ((found,),) = yield Query(_DUE, (*lane, self._now, room + len(self._aged)))
        jobs = _all_due.decode(found)
        if self._aged:  # those are in their lanes still
            jobs = [job for job in jobs if job.id not in self._aged][:room]
        if len(jobs) < room and not solo:  # the next solo job comes once this one has ended
            later = yield Query(_LATER, (*lane, self._now))
            if later:
                self._note_due(later[0][0])
        return jobs

    def _note_due(self, due: int) -> None:
        if self.next_due is None or due < self.next_due:
            self.next_due = due


def _lane_of(head: _Head) -> tuple[str, int, int, int]:
    return head.queue, head.stray, head.priority, head.lane
