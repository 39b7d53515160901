"""job_enqueue: idempotency keys first, for the whole batch, then the rows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from taskharbor.clock import duration_micros, from_micros, micros
from taskharbor.driver import Enqueued, EnqueueStatus, JobEnqueue
from taskharbor.drivers.memory.tables import NORMAL, Key, Row, Tables
from taskharbor.job import NewJob, OnConflict


def job_enqueue(tables: Tables, request: JobEnqueue, now: int) -> Sequence[Enqueued]:
    """Store jobs and return one answer each, in order."""
    answers: list[Enqueued] = []
    new: dict[str, NewJob] = {}
    new_keys: dict[tuple[str, str], Key] = {}
    refused = False
    for job in request.jobs:
        answer = _answer(tables, job, now, new, new_keys)
        if answer.status is EnqueueStatus.CREATED:
            new[job.id] = job
            if job.key is not None:
                new_keys[job.task, job.key] = Key(job.id, job.digest)
        refused = refused or _refuses(job, answer)
        answers.append(answer)
    if refused and request.all_or_none:
        return [
            answer
            if _refuses(job, answer) or answer.job_id not in new
            else Enqueued(EnqueueStatus.LEFT_OUT, job.id)
            for job, answer in zip(request.jobs, answers, strict=True)
        ]
    tables.keys.update(new_keys)
    enqueued_at = from_micros(now)
    for job in new.values():
        _insert(tables, job, now, enqueued_at)
    return answers


def _refuses(job: NewJob, answer: Enqueued) -> bool:
    """Return whether this answer is a reason to store nothing, where all or none was asked."""
    return answer.status is EnqueueStatus.CONFLICT or (
        answer.status is EnqueueStatus.EXISTING
        and job.on_conflict is OnConflict.RAISE
        and answer.job_id != job.id
    )


def _answer(
    tables: Tables, job: NewJob, now: int, new: dict[str, NewJob], new_keys: dict[tuple[str, str], Key]
) -> Enqueued:
    if job.id in tables.rows or job.id in new:
        return Enqueued(EnqueueStatus.EXISTING, job.id)
    if job.key is not None:
        holder = tables.held_key(job.task, job.key, now) or new_keys.get((job.task, job.key))
        if holder is not None:
            same = holder.digest == job.digest
            return Enqueued(EnqueueStatus.EXISTING if same else EnqueueStatus.CONFLICT, holder.job_id)
    return Enqueued(EnqueueStatus.CREATED, job.id)


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
