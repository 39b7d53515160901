"""job_enqueue: idempotency keys first, for the whole batch, then the rows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from taskharbor.clock import duration_micros, from_micros, micros
from taskharbor.driver import Enqueued, Holder, JobEnqueue, admit
from taskharbor.drivers.memory.tables import NORMAL, Key, Row, Tables
from taskharbor.job import NewJob


def job_enqueue(tables: Tables, request: JobEnqueue, now: int) -> Sequence[Enqueued]:
    """Store jobs and return one answer each, in order."""
    answers, new, _ = admit(
        request.jobs,
        known=tables.rows,
        holders=_key_holders(tables, request.jobs, now),
        all_or_none=request.all_or_none,
    )
    enqueued_at = from_micros(now)
    for job in new:
        if job.key is not None:
            tables.keys[job.task, job.key] = Key(job.id, job.digest)
        _insert(tables, job, now, enqueued_at)
    return answers


def _key_holders(tables: Tables, jobs: Sequence[NewJob], now: int) -> dict[tuple[str, str], Holder]:
    """Return who holds the keys that these jobs want, by task and key."""
    holders: dict[tuple[str, str], Holder] = {}
    for job in jobs:
        if job.key is not None:
            held = tables.held_key(job.task, job.key, now)
            if held is not None:
                holders[job.task, job.key] = Holder(held.job_id, held.digest)
    return holders


def _insert(tables: Tables, job: NewJob, now: int, enqueued_at: datetime) -> None:
    if job.run_in is not None:
        run_at = now + duration_micros(job.run_in)
    elif job.run_at is not None:
        run_at = micros(job.run_at)
    else:
        run_at = now
    row = Row(
        job,
        enqueued_at if run_at == now else from_micros(run_at),
        enqueued_at,
        now,
        # Its one attempt must not be spent unseen (rule 4).
        guarded=job.retry.max_attempts == 1,
    )
    tables.rows[job.id] = row
    tables.make_due(row, max(run_at, now), NORMAL)
