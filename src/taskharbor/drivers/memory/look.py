"""job_get: records of jobs."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from taskharbor.clock import from_micros
from taskharbor.driver import Gates, JobGet
from taskharbor.drivers.memory.rows import Row
from taskharbor.drivers.memory.tables import Tables
from taskharbor.job import JobRecord


def job_get(tables: Tables, request: JobGet, now: int) -> Sequence[JobRecord | None]:
    """Return one record an id, in order."""
    gates = tables.gates_at(now)
    rows = (tables.rows.get(job_id) for job_id in request.ids)
    return [None if row is None else _told_whole(tables, row, now, gates) for row in rows]


def _told_whole(tables: Tables, row: Row, now: int, gates: Gates | None) -> JobRecord:
    """Return the record, with what only a look-up by id tells."""
    record = record_of(tables, row, now, gates)
    step, told = row.job.step, tables.reports.get(row.job.id)
    if step is not None and step.holes:
        record = msgspec.structs.replace(record, step=row.delivered)
    if told is not None:
        record = msgspec.structs.replace(record, progress=told.progress, log=told.lines)
    return record


def record_of(tables: Tables, row: Row, now: int, gates: Gates | None) -> JobRecord:
    """Return what is known of a job, without what it told of itself and what came in for it."""
    job, step = row.job, row.job.step
    state, reason = tables.shown_state(row, now, gates)
    lease = None if row.token is None else tables.leases[row.token]
    return JobRecord(
        id=job.id,
        task=job.task,
        queue=job.queue,
        state=state,
        priority=job.priority,
        run_at=row.run_at,
        enqueued_at=row.enqueued_at,
        due_at=from_micros(row.due) if row.entry else None,
        finished_at=None if row.final is None else from_micros(row.finished),
        attempt=row.attempt,
        max_attempts=job.retry.max_attempts,
        deliveries=row.deliveries,
        guarded=row.guarded,
        crashes=row.crashes,
        worker="" if lease is None else lease.worker,
        lease_expires_at=None if lease is None else from_micros(lease.expires),
        started=lease is not None and job.id in lease.started,
        cancel_requested=row.cancel is not None,
        reason=reason,
        refused_by=() if row.stray is None else tuple(sorted(row.stray.refused_by)),
        key=job.key,
        meta=job.meta,
        payload=job.payload,
        codec=job.codec,
        fingerprint=job.fingerprint,
        result=row.result,
        result_codec=row.result_codec,
        keep_result=job.keep_result,
        errors=row.errors,
        operations=row.operations,
        partition=job.partition,
        flow=None if step is None else step.flow or None,
        waits=row.waits if row.final is None else 0,
        edges=() if step is None else step.edges,
    )
