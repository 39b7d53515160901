"""job_cancel, job_requeue, job_delete: acts by hand. Each locks its jobs in order of id, then looks, then acts."""

from __future__ import annotations

from collections.abc import Sequence

from taskharbor.driver import (
    CancelStatus,
    DeleteStatus,
    JobCancel,
    JobDelete,
    JobRequeue,
    RequeueStatus,
)
from taskharbor.drivers.postgres.leaving import ENDED, KEYS
from taskharbor.drivers.postgres.routine import Query, Routine, plain_array
from taskharbor.drivers.postgres.rows import CLOCK, NORMAL, SOLO, json_instant, micros_text, real_ids
from taskharbor.drivers.postgres.step import Step
from taskharbor.job import JobState
from taskharbor.settlement import SOLO_CRASHES

_LOCK = """SELECT id::text, token IS NOT NULL FROM taskharbor.job WHERE id = ANY ($1::text::uuid[])
    ORDER BY id FOR UPDATE"""
_ENDED = """SELECT id::text, slot, state, task, key, digest, options, queue FROM taskharbor.history
    WHERE id = ANY ($1::text::uuid[]) ORDER BY id FOR UPDATE"""
# An act is told in JSON, which is written around what stands there; $2 verb, $3 by, $4 reason.
_NOTED = """CASE WHEN {0}operations IS NULL THEN ('[' || n.note || ']')::json
    ELSE (left({0}operations::text, -1) || ',' || n.note || ']')::json END"""
_NOTE = f"""note AS MATERIALIZED (SELECT json_build_object(
    'at', {json_instant("now")}, 'verb', $2::text, 'by', $3::text, 'reason', $4::text)::text AS note FROM clock)"""
_CANCEL = f"""WITH {CLOCK}, {_NOTE},
asked AS (UPDATE taskharbor.job j SET cancel = coalesce(j.cancel, $4::text), operations = {_NOTED.format("j.")}
    FROM note n WHERE j.id = ANY ($5::text::uuid[])),
gone AS (DELETE FROM taskharbor.job j USING note n WHERE j.id = ANY ($6::text::uuid[])
    RETURNING j.id, j.task, j.queue, j.options, j.priority, j.run_at, j.enqueued_at, j.timeout, j.retain, j.deliveries,
        j.crashes, j.guarded, j.stray, j.stray_reason, j.key, j.digest, j.meta, j.payload, j.errors, j.awaited,
        {_NOTED.format("j.")} AS operations, 'cancelled' AS state, j.attempt AS attempts, $4::text AS said_reason,
        NULL::json AS error, j.settled AS settler, NULL AS codec, NULL::bytea AS result),
{ENDED}, {KEYS}
SELECT id::text FROM gone WHERE awaited"""
_TAKE_KEY = """INSERT INTO taskharbor.key AS k (task, name, job_id, digest, ttl)
    VALUES ($2::text, $3::text, $4::text::uuid, $5::text, $6::text::bigint)
    ON CONFLICT (task, name) DO UPDATE SET job_id = excluded.job_id, digest = excluded.digest, ttl = excluded.ttl,
        expires_at = NULL WHERE k.job_id = excluded.job_id
        OR k.expires_at <= coalesce($1::text::timestamptz, clock_timestamp())
    RETURNING job_id"""
_REQUEUE = f"""WITH {CLOCK}, {_NOTE},
gone AS (DELETE FROM taskharbor.history h USING note n WHERE h.id = ANY ($5::text::uuid[])
    RETURNING h.*, {_NOTED.format("h.")} AS noted)
INSERT INTO taskharbor.job (id, task, queue, options, priority, retain, guarded, stray, stray_reason, deliveries,
    crashes, run_at, enqueued_at, timeout, payload, key, digest, meta, errors, settled, operations, lane, due)
SELECT id, task, queue, options, priority, retain, guarded, stray, stray_reason, deliveries, crashes,
    run_at, enqueued_at, timeout, payload, key, digest, meta, errors, settled, noted,
    CASE WHEN crashes >= {SOLO_CRASHES} THEN {SOLO} ELSE {NORMAL} END, greatest(run_at, now) FROM gone, clock"""
_DELETE = """WITH
live AS (DELETE FROM taskharbor.job WHERE id = ANY ($1::text::uuid[]) RETURNING id, task, key, awaited),
ended AS (DELETE FROM taskharbor.history WHERE id = ANY ($2::text::uuid[]) RETURNING id, task, key),
freed AS MATERIALIZED (SELECT id, task, key FROM live WHERE key IS NOT NULL
    UNION ALL SELECT id, task, key FROM ended WHERE key IS NOT NULL ORDER BY task, key),
keys AS (DELETE FROM taskharbor.key k USING freed g
    WHERE k.task = g.task AND k.name = g.key AND k.job_id = g.id)
SELECT id::text FROM live WHERE awaited"""


def job_cancel(step: Step, request: JobCancel) -> Routine[Sequence[CancelStatus]]:
    """Cancel jobs and return one answer each, in order."""
    ids = plain_array(real_ids(request.ids))
    live: dict[str, bool] = dict((yield Query(_LOCK, (ids,))))
    ended = {row[0] for row in (yield Query(_ENDED, (ids,)))}
    running = [job_id for job_id, leased in live.items() if leased]
    idle = [job_id for job_id, leased in live.items() if not leased]
    if live:
        awaited = yield Query(
            _CANCEL,
            (step.now, "cancel", request.by, request.reason, plain_array(running), plain_array(idle)),
        )
        step.wakes.jobs.extend([row[0] for row in awaited])
    answers: list[CancelStatus] = []
    for job_id in request.ids:
        if job_id in ended:
            answers.append(CancelStatus.FINISHED)
        elif job_id not in live:
            answers.append(CancelStatus.MISSING)
        elif live[job_id]:
            answers.append(CancelStatus.REQUESTED)
        else:
            answers.append(CancelStatus.CANCELLED)
            ended.add(job_id)  # should it be named twice
    return answers


def job_requeue(step: Step, request: JobRequeue) -> Routine[Sequence[RequeueStatus]]:
    """Requeue jobs and return one answer each, in order."""
    ids = plain_array(real_ids(request.ids))
    live = {row[0] for row in (yield Query(_LOCK, (ids,)))}
    rows = yield Query(_ENDED, (ids,))
    ended = {row[0]: row for row in rows}
    answers: dict[str, RequeueStatus] = {}
    chosen: list[str] = []
    for job_id in dict.fromkeys(request.ids):
        if job_id in live or (job_id in ended and ended[job_id][2] == JobState.SUCCEEDED):
            answers[job_id] = RequeueStatus.NOT_DEAD
        elif job_id not in ended:
            answers[job_id] = RequeueStatus.MISSING
        elif (yield from _takes_key(step, ended[job_id])):
            answers[job_id] = RequeueStatus.REQUEUED
            chosen.append(job_id)
            step.wakes.queues.add(ended[job_id][7])
        else:
            answers[job_id] = RequeueStatus.KEY_TAKEN
    if chosen:
        note = (step.now, "requeue", request.by, request.reason)
        yield Query(_REQUEUE, (*note, plain_array(chosen)))
    return _told_once(request.ids, answers, RequeueStatus.REQUEUED, RequeueStatus.NOT_DEAD)


def _takes_key(step: Step, row: tuple[object, ...]) -> Routine[bool]:
    """Have a job that ended hold its key again, and return whether it may."""
    job_id, _, _, task, key, digest, options, _ = row
    if key is None:
        return True
    ttl = step.book.read(str(options)).key_ttl
    cells = (step.now, str(task), str(key), str(job_id), str(digest), micros_text(ttl))
    return bool((yield Query(_TAKE_KEY, cells)))


def _told_once(
    ids: Sequence[str], answers: dict[str, RequeueStatus], done: RequeueStatus, again: RequeueStatus
) -> list[RequeueStatus]:
    """Return the answers in order; who names a job twice is told the second time how it stands then."""
    told: list[RequeueStatus] = []
    seen: set[str] = set()
    for job_id in ids:
        told.append(again if job_id in seen and answers[job_id] is done else answers[job_id])
        seen.add(job_id)
    return told


def job_delete(step: Step, request: JobDelete) -> Routine[Sequence[DeleteStatus]]:
    """Delete jobs and return one answer each, in order."""
    ids = plain_array(real_ids(request.ids))
    live: dict[str, bool] = dict((yield Query(_LOCK, (ids,))))
    ended = {row[0] for row in (yield Query(_ENDED, (ids,)))}
    idle = [job_id for job_id, leased in live.items() if not leased]
    awaited = yield Query(_DELETE, (plain_array(idle), plain_array(sorted(ended))))
    step.wakes.jobs.extend([row[0] for row in awaited])
    deleted = {*idle, *ended}
    answers: list[DeleteStatus] = []
    for job_id in request.ids:
        if job_id in deleted:
            answers.append(DeleteStatus.DELETED)
            deleted.discard(job_id)
        else:
            answers.append(DeleteStatus.RUNNING if live.get(job_id) else DeleteStatus.MISSING)
    return answers
