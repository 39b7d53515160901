"""job_enqueue: idempotency keys first, for the whole batch, then the rows, of flows too."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from taskharbor.clock import duration_micros, from_micros, micros
from taskharbor.driver import (
    Enqueued,
    Holder,
    JobEnqueue,
    admit,
    looks_at_holder,
    replacement_times,
)
from taskharbor.drivers.memory.rows import NORMAL, SOLO, Flow, Key, Row
from taskharbor.drivers.memory.tables import Tables
from taskharbor.flow import NewFlow
from taskharbor.job import NewJob


def job_enqueue(tables: Tables, request: JobEnqueue, now: int) -> Sequence[Enqueued]:
    """Store jobs and flows and return one answer each: for the jobs in order, then for the flows."""
    wanted = request.jobs
    if request.flows:
        wanted = [*wanted, *(job for flow in request.flows for job in flow.keyed)]
    enqueued_at = from_micros(now)
    answers, new, flows, replaced, _ = admit(
        request.jobs,
        known=tables.rows,
        holders=_key_holders(tables, wanted, now),
        all_or_none=request.all_or_none,
        flows=request.flows,
        now=enqueued_at,
    )
    tables.order = None
    for job_id, job in replaced.items():
        _replace(tables, tables.rows[job_id], job, enqueued_at)
    for job in new:
        insert(tables, job, now, enqueued_at)
        if job.key is not None:
            tables.keys[job.task, job.key] = Key(job.id, job.digest)
    for flow in flows:
        _insert_flow(tables, flow, now, enqueued_at)
    return answers


def _replace(tables: Tables, row: Row, job: NewJob, now: datetime) -> None:
    """Put a job, which has the row's id, in the place of the one it holds; the row keeps its history."""
    row.run_at, due_at = replacement_times(job, enqueued_at=row.enqueued_at, now=now)
    due = micros(due_at)
    if due_at < now:
        due = row.due if _stays(row, job, micros(now)) else micros(now)
    row.job = job
    row.guarded = row.guarded or job.retry.max_attempts == 1
    row.stray = None
    row.stray_reason = row.reason = ""
    if job.key is not None:
        tables.keys[job.task, job.key] = Key(job.id, job.digest)
    tables.make_due(row, due, NORMAL)


def _stays(row: Row, job: NewJob, now: int) -> bool:
    """Return whether a row that is due already stays in its lane, or its line, when a job takes its place."""
    there = (row.job.queue, row.job.priority, row.job.partition, row.lane, row.stray)
    here = (job.queue, job.priority, job.partition, SOLO if row.solo else NORMAL, None)
    return row.due <= now and there == here


def _insert_flow(tables: Tables, flow: NewFlow, now: int, enqueued_at: datetime) -> None:
    for job in flow.steps:
        insert(tables, job, now, enqueued_at)
        if job.key is not None:
            tables.keys[job.task, job.key] = Key(job.id, job.digest)
    last = tables.rows[flow.id].job
    tables.flows[flow.id] = Flow(
        id=flow.id,
        name=flow.name,
        meta=flow.meta,
        on_failure=flow.on_failure,
        absorbing=flow.absorbing,
        enqueued=now,
        retain=tables.micros_of(last.retain),
    )


def _key_holders(tables: Tables, jobs: Sequence[NewJob], now: int) -> dict[tuple[str, str], Holder]:
    """Return who holds the keys that these jobs want, by task and key."""
    holders: dict[tuple[str, str], Holder] = {}
    for job in jobs:
        if job.key is not None:
            held = tables.held_key(job.task, job.key, now)
            if held is not None:
                name = (job.task, job.key)
                holders[name] = _holder(tables, held, now, look=looks_at_holder(job) or name in holders)
    return holders


def _holder(tables: Tables, held: Key, now: int, *, look: bool) -> Holder:
    row = tables.rows.get(held.job_id)
    if row is None or not look:
        return Holder(held.job_id, held.digest)
    return Holder(
        held.job_id,
        held.digest,
        tables.state_of(row, now),
        row.enqueued_at,
        step=row.job.step is not None,
        tried=row.attempt > 0,
    )


def insert(tables: Tables, job: NewJob, now: int, enqueued_at: datetime) -> None:
    """Store one job, without its key; a step that waits for others is not due before these have come."""
    step = job.step
    waits = 0 if step is None else step.waits
    if job.run_in is not None and not waits:
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
    if step is not None:
        row.waits = waits
        row.inputs = {(one.slot, one.index): one for one in step.inputs}
        if step.flow:
            tables.steps.setdefault(step.flow, set()).add(job.id)
        if waits:
            return
    tables.make_due(row, max(run_at, now), NORMAL)
