"""job_reserve: find which lanes hold jobs, walk them in order over the queues, and lease what is taken."""

from __future__ import annotations

import msgspec

from taskharbor.clock import duration_micros, from_micros
from taskharbor.driver import (
    JobReserve,
    Reservation,
)
from taskharbor.drivers.sqlite.deliver import deliveries
from taskharbor.drivers.sqlite.routine import Query, Routine
from taskharbor.drivers.sqlite.rows import SOLO, TEXTS, WAITING, Step, as_duration, json_text
from taskharbor.drivers.sqlite.rules import rules_now
from taskharbor.drivers.sqlite.serving import GovernedWalk
from taskharbor.drivers.sqlite.walk import Context, Head, Walk
from taskharbor.job import Delivery


class Stray(msgspec.Struct, array_like=True, frozen=True):
    """Which workers may take a job that some could not: those that know the task and are of none of the builds."""

    number: int
    task: str
    refused_by: tuple[str, ...]

    def open_to(self, tasks: frozenset[str] | set[str], build: str) -> bool:
        """Return whether a worker of that build, knowing those tasks, may take it."""
        return self.task in tasks and build not in self.refused_by


STRAYS = msgspec.json.Decoder(list[Stray])
_heads = msgspec.json.Decoder(list[Head])

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
        if governed.walk.taken or governed.diverted or governed.puts_right:
            return None
        return _reservation(request, [], step.now, governed.walk)
    if any(head.due <= step.now and (head.lane != SOLO or request.solo) for head in heads):
        return None
    walk = Walk(request, step.now)
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
        walk = Walk(request, step.now)
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


def _reservation(request: JobReserve, taken: list[Delivery], now: int, walk: Walk) -> Reservation:
    return Reservation(
        deliveries=taken,
        expires_at=from_micros(now + duration_micros(request.lease)),
        held_back=walk.held_back,
        next_due_in=None if walk.next_due is None else as_duration(walk.next_due - now),
    )


def _context(step: Step, request: JobReserve) -> Routine[Context]:
    ((held_until, paused, strays, revision),) = yield Query(_CONTEXT, (request.token,))
    known, rules = step.book.rules
    if known != revision:
        rules = yield from rules_now(step)
    return Context(
        held_until,
        set(TEXTS.decode(paused)),
        [stray.number for stray in STRAYS.decode(strays) if stray.open_to(request.tasks, request.build)],
        rules,
        bool(rules.governed) or any(take.name in rules.queues for take in request.queues),
    )


def _lanes(request: JobReserve, context: Context) -> Routine[tuple[list[Head], bool]]:
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
