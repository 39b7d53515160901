"""job_cancel, job_requeue, job_delete, and the verbs for whole queues."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from taskharbor.clock import from_micros, micros
from taskharbor.driver import (
    CancelStatus,
    DeleteStatus,
    Gates,
    JobCancel,
    JobDelete,
    JobRequeue,
    QueueInfo,
    QueueList,
    QueuePause,
    QueueResume,
    RequeueStatus,
)
from taskharbor.drivers.memory.advance import flow_resumed, step_deleted, step_ended
from taskharbor.drivers.memory.rows import NORMAL, Key, Pause, Row
from taskharbor.drivers.memory.tables import Tables
from taskharbor.flow import FLOW_ENDED
from taskharbor.job import TERMINAL, JobState, Operation
from taskharbor.step import Step


def job_cancel(tables: Tables, request: JobCancel, now: int) -> Sequence[CancelStatus]:
    """Cancel jobs and return one answer each, in order."""
    return [_cancel(tables, tables.rows.get(job_id), request, now) for job_id in request.ids]


def _cancel(tables: Tables, row: Row | None, request: JobCancel, now: int) -> CancelStatus:
    if row is None:
        return CancelStatus.MISSING
    if row.final is not None:
        return CancelStatus.FINISHED
    row.operations = (
        *row.operations,
        Operation(at=from_micros(now), verb="cancel", by=request.by, reason=request.reason),
    )
    if row.token is not None:
        if row.cancel is None:  # the first reason stands
            row.cancel = request.reason
        return CancelStatus.REQUESTED
    tables.finish(row, JobState.CANCELLED, now, request.reason)
    step_ended(tables, row, now)
    return CancelStatus.CANCELLED


def job_requeue(tables: Tables, request: JobRequeue, now: int) -> Sequence[RequeueStatus]:
    """Requeue jobs and return one answer each, in order."""
    return [_requeue(tables, tables.rows.get(job_id), request, now) for job_id in request.ids]


def _requeue(tables: Tables, row: Row | None, request: JobRequeue, now: int) -> RequeueStatus:
    if row is None:
        return RequeueStatus.MISSING
    if row.final not in (JobState.DEAD, JobState.CANCELLED):
        return RequeueStatus.NOT_DEAD
    if request.states and row.final not in request.states:
        return RequeueStatus.NOT_DEAD
    job = row.job
    if job.step is not None and not _may_resume(tables, row, job.step):
        return RequeueStatus.NOT_DEAD
    if job.key is not None:
        holder = tables.held_key(job.task, job.key, now)
        if holder is not None and holder.job_id != job.id:
            return RequeueStatus.KEY_TAKEN
        tables.keys[job.task, job.key] = Key(job.id, job.digest)
    row.final = None
    row.expires = None
    row.reason = row.stray_reason
    row.attempt = 0
    row.lost = 0
    row.operations = (
        *row.operations,
        Operation(at=from_micros(now), verb="requeue", by=request.by, reason=request.reason),
    )
    tables.make_due(row, max(now, micros(row.run_at)), NORMAL)
    if job.step is not None:
        flow_resumed(tables, job.step.flow)
    return RequeueStatus.REQUEUED


def _may_resume(tables: Tables, row: Row, step: Step) -> bool:
    """Return whether a step may run once more: its inputs are there still, and its flow has not ended."""
    if row.final is not JobState.DEAD:
        return False
    flow = tables.flows.get(step.flow)
    return not step.flow or (flow is not None and flow.state not in FLOW_ENDED)


def job_delete(tables: Tables, request: JobDelete, now: int) -> Sequence[DeleteStatus]:
    """Delete jobs and return one answer each, in order."""
    gates = tables.gates_at(now)
    return [_delete(tables, tables.rows.get(job_id), request.states, gates, now) for job_id in request.ids]


def _delete(
    tables: Tables, row: Row | None, states: frozenset[JobState], gates: Gates | None, now: int
) -> DeleteStatus:
    if row is None:
        return DeleteStatus.MISSING
    if states and tables.shown_state(row, now, gates)[0] not in states:
        return DeleteStatus.OTHER_STATE
    if row.token is not None:
        return DeleteStatus.RUNNING
    remove(tables, row)
    if row.job.key is not None:
        key = tables.keys.get((row.job.task, row.job.key))
        if key is not None and key.job_id == row.job.id:
            del tables.keys[row.job.task, row.job.key]
    tables.woken_jobs.add(row.job.id)
    step_deleted(tables, row, now)
    return DeleteStatus.DELETED


def remove(tables: Tables, row: Row) -> None:
    """Take a row out of the store; its key keeps its own time."""
    row.entry = 0
    del tables.rows[row.job.id]
    tables.reports.pop(row.job.id, None)
    step = row.job.step
    if step is not None and step.flow:
        steps = tables.steps[step.flow]
        steps.discard(row.job.id)
        if not steps:
            del tables.steps[step.flow]


def queue_pause(tables: Tables, request: QueuePause, now: int) -> Sequence[bool]:
    """Pause queues; return of each whether it was not paused before."""
    pause = Pause(now, request.by, request.reason)
    return [tables.paused.setdefault(queue, pause) is pause for queue in request.queues]


def queue_resume(tables: Tables, request: QueueResume, now: int) -> Sequence[bool]:
    """Resume queues; return of each whether it was paused."""
    resumed = [tables.paused.pop(queue, None) is not None for queue in request.queues]
    tables.woken_queues.update(queue for queue, was in zip(request.queues, resumed, strict=True) if was)
    return resumed


def queue_list(tables: Tables, request: QueueList, now: int) -> Sequence[QueueInfo]:
    """Return the queues that hold live jobs or are paused, sorted by name."""
    gates = tables.gates_at(now)
    counts = Counter((row.job.queue, tables.shown_state(row, now, gates)[0]) for row in tables.rows.values())
    names = {queue for queue, state in counts if state not in TERMINAL} | set(tables.paused)
    return [_queue(name, counts, tables.paused.get(name)) for name in sorted(names)]


def _queue(name: str, counts: Counter[tuple[str, JobState]], pause: Pause | None) -> QueueInfo:
    return QueueInfo(
        name=name,
        paused=pause is not None,
        paused_at=None if pause is None else from_micros(pause.at),
        paused_by="" if pause is None else pause.by,
        reason="" if pause is None else pause.reason,
        ready=counts[name, JobState.READY],
        scheduled=counts[name, JobState.SCHEDULED] + counts[name, JobState.RETRYING],
        parked=counts[name, JobState.PARKED],
        waiting=counts[name, JobState.WAITING],
        running=counts[name, JobState.RUNNING],
    )
