"""lease_extend and lease_reclaim: keeping leases, and taking them back from the dead."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from taskharbor.clock import duration_micros, from_micros
from taskharbor.driver import CancelRequest, LeaseExtend, LeaseExtended, LeaseReclaim, Order, Reclaimed
from taskharbor.drivers.sqlite.advance import Advance
from taskharbor.drivers.sqlite.event import IS_WATCHED
from taskharbor.drivers.sqlite.leaving import HELD, HELD_COLUMNS, Held, Leaving
from taskharbor.drivers.sqlite.routine import Query, Routine
from taskharbor.drivers.sqlite.rows import (
    FRONT,
    NORMAL,
    NUMBERS,
    Options,
    Step,
    json_text,
    read_json,
)
from taskharbor.job import JobState
from taskharbor.settlement import SettleKind, after_crash

_cancels = msgspec.json.Decoder(list[tuple[str, str]])

_THERE = """SELECT json_group_array(token) FROM taskharbor_lease
    WHERE token IN (SELECT value FROM json_each(?))"""
_EXTEND = """UPDATE taskharbor_lease SET expires_at = ?, duration = ?
    WHERE token IN (SELECT value FROM json_each(?))"""
_START = """UPDATE taskharbor_job SET started = 1
    FROM json_each(?) e WHERE taskharbor_job.id = e.value ->> 1 AND taskharbor_job.token = e.value ->> 0"""
_CANCELS = """SELECT json_group_array(json_array(id, cancel)) FROM taskharbor_job
    WHERE cancel IS NOT NULL AND token IN (SELECT value FROM json_each(?))"""
_EXPIRED = """SELECT token, worker, jobs, remaining FROM taskharbor_lease
    WHERE expires_at <= ? AND duration <= ? ORDER BY expires_at"""
_OF_LEASE = f"""SELECT json_group_array({HELD_COLUMNS})
    FROM json_each(?1) e CROSS JOIN taskharbor_job j ON j.id = e.value AND j.token = ?2"""  # noqa: S608 - our own constants


def lease_extend(step: Step, request: LeaseExtend) -> Routine[LeaseExtended]:
    """Keep a worker's leases, write its starts, tell it of cancels."""
    duration = duration_micros(request.lease)
    there: set[int] = set()
    cancels: list[CancelRequest] = []
    tokens = json_text([hold.token for hold in request.leases])
    if request.leases:
        found = read_json((yield Query(_THERE, (tokens,))), NUMBERS)
        there.update(found)
    if there:
        yield Query(_EXTEND, (step.now + duration, duration, tokens))
        starts = [(hold.token, job_id) for hold in request.leases for job_id in hold.started]
        if starts:
            yield Query(_START, (json_text(starts),))
        pending = read_json((yield Query(_CANCELS, (tokens,))), _cancels)
        cancels = [CancelRequest(job_id, reason) for job_id, reason in pending]
    yield Query("UPDATE taskharbor_worker SET seen_at = ? WHERE worker = ?", (step.now, request.worker))
    ((known, watched),) = yield Query(f"SELECT changes(), {IS_WATCHED}", (step.now,))
    ordered = yield Query("SELECT ordered FROM taskharbor_worker WHERE worker = ?", (request.worker,))
    return LeaseExtended(
        expires_at=from_micros(step.now + duration),
        lost=[hold.token for hold in request.leases if hold.token not in there],
        cancels=cancels,
        known_worker=bool(known),
        watched=bool(watched),
        order=Order(ordered[0][0]) if ordered and ordered[0][0] else None,
    )


def none_expired(step: Step, request: LeaseReclaim) -> Routine[Sequence[Reclaimed] | None]:
    """Return the answer if there is nothing to reclaim, without writing; None if there is."""
    expired = yield Query(f"{_EXPIRED} LIMIT 1", (step.now, duration_micros(request.observed)))
    return None if expired else []


def lease_reclaim(step: Step, request: LeaseReclaim) -> Routine[Sequence[Reclaimed]]:
    """Take back the jobs of workers that are gone."""
    expired = yield Query(_EXPIRED, (step.now, duration_micros(request.observed)))
    leaving = Leaving(step)
    reclaimed: list[Reclaimed] = []
    for token, worker, jobs, _ in expired:
        if len(reclaimed) >= request.limit:
            break
        held = read_json((yield Query(_OF_LEASE, (jobs, token))), HELD)
        options = yield from step.book.fetch({job.options for job in held})
        for job in held:
            fate = _reclaim(leaving, job, options[job.options], worker, step.now)
            reclaimed.append(
                Reclaimed(job_id=job.id, task=job.task, queue=job.queue, worker=worker, fate=fate)
            )
    advance = Advance(step)
    yield from advance.fall(leaving.falls)
    yield from leaving.write()
    yield from advance.write()
    return reclaimed


def _reclaim(leaving: Leaving, job: Held, options: Options, worker: str, now: int) -> SettleKind:
    crash = after_crash(
        started=bool(job.started),
        attempt=job.attempt,
        crashes=job.crashes,
        lost=job.lost,
        numbers=options.retry,
        worker=worker,
    )
    job.attempt += job.started
    job.crashes, job.lost, job.guarded = crash.crashes, crash.lost, 1
    if job.cancel is not None:
        leaving.finish(job, JobState.CANCELLED, job.cancel, error=crash.error)
        return SettleKind.CANCEL
    if crash.kind is SettleKind.BURY:
        leaving.finish(job, JobState.DEAD, crash.reason, error=crash.error)
    elif crash.after is not None:
        leaving.back(job, now + duration_micros(crash.after), NORMAL, error=crash.error)
    else:
        leaving.back(job, now, FRONT, error=crash.error)
    return crash.kind
