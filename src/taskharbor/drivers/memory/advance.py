"""How flows advance: what the end of one step means to the others.

Each of these is carried out within the verb that ends the step, under the same lock. `step_ended` is told of every end,
whichever verb wrote it; the rest follows from there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from taskharbor.clock import duration_micros, from_micros, micros
from taskharbor.driver import JobEnqueue
from taskharbor.drivers.memory.enqueue import insert, job_enqueue
from taskharbor.drivers.memory.rows import NORMAL, Flow, Key, Row
from taskharbor.drivers.memory.tables import Tables
from taskharbor.flow import FLOW_ENDED, Failure, FlowState, Sequel, failed_input, failure_job, failure_of
from taskharbor.job import JobState, Operation
from taskharbor.step import ORDER, Edge, Input, Step

LEFT_OVER = "its flow has ended"


def step_ended(tables: Tables, row: Row, now: int) -> None:
    """Tell those that a step concerns that it has succeeded, died or was cancelled."""
    step = row.job.step
    if step is None:
        return
    if row.final is JobState.SUCCEEDED:
        row.inputs = None
        for edge in step.edges:
            _give(tables, edge, _result(row, edge), now)
        if step.flow == row.job.id:
            _succeed(tables, step.flow, now)
        return
    failure = _failure(row, row.reason)
    if row.final is JobState.CANCELLED:
        row.inputs = None
    if _absorb(tables, step, failure, now):
        return
    flow = tables.flows.get(step.flow)
    if flow is None:
        return
    if row.final is JobState.CANCELLED:
        cancel_flow(tables, flow, now, row.reason)
    elif flow.state is FlowState.RUNNING:
        _fail(tables, flow, failure, now)


def step_deleted(tables: Tables, row: Row, now: int) -> None:
    """Tell those that a step concerns that it was deleted; its row is gone already."""
    job, step = row.job, row.job.step
    if step is None:
        return
    flow = tables.flows.get(step.flow)
    if row.final is not JobState.SUCCEEDED:
        reason = f"step {job.task} ({job.id}) was deleted"
        if not _absorb(tables, step, _failure(row, reason), now) and flow is not None:
            cancel_flow(tables, flow, now, reason)
    if flow is not None and flow.id == job.id:
        del tables.flows[flow.id]


def _failure(row: Row, reason: str) -> Failure:
    return failure_of(
        job_id=row.job.id,
        task=row.job.task,
        error=row.errors[-1] if row.final is JobState.DEAD and row.errors else None,
        reason=reason,
        attempts=row.attempt,
    )


def _absorb(tables: Tables, step: Step, failure: Failure, now: int) -> bool:
    """Hand a failure to those that take it as a value; return whether there are any."""
    for edge in step.absorbers:
        _give(tables, edge, failed_input(edge, failure), now)
    return bool(step.absorbers)


def _fail(tables: Tables, flow: Flow, failure: Failure, now: int) -> None:
    flow.state = FlowState.FAILED
    flow.reason = _reason(failure.task, failure.job_id, failure.reason)
    tables.woken_jobs.add(flow.id)
    if flow.on_failure is not None:
        told = failure_job(flow.on_failure, failure, flow_id=flow.id, name=flow.name, meta=flow.meta)
        job_enqueue(tables, JobEnqueue(jobs=[told]), now)


def write_sequel(tables: Tables, row: Row, sequel: Sequel, now: int) -> None:
    """Store what a success brings with it. Before its own advance: a step may come to wait for more."""
    job_enqueue(tables, JobEnqueue(jobs=sequel.jobs, flows=sequel.flows), now)
    flow = None if row.job.step is None else tables.flows.get(row.job.step.flow)
    if flow is None or flow.state in FLOW_ENDED:
        return
    enqueued_at = from_micros(now)
    tables.order = None
    for job in sequel.steps:  # one whose key is taken, too: its flow could not end without it
        if job.id not in tables.rows:
            insert(tables, job, now, enqueued_at)
            if job.key is not None and tables.held_key(job.task, job.key, now) is None:
                tables.keys[job.task, job.key] = Key(job.id, job.digest)
    for job_id, count in sequel.waits.items():
        waiting = tables.rows.get(job_id)
        if waiting is not None and _is_waiting(waiting):
            _wait_for(tables, waiting, count, now)


def cancel_flow(
    tables: Tables, flow: Flow, now: int, reason: str, operation: Operation | None = None
) -> bool:
    """End a flow, unless it has ended; return whether some of its steps still run."""
    if flow.state in FLOW_ENDED:
        return False
    _end(tables, flow, FlowState.CANCELLED, now, reason)
    return _cancel_steps(tables, flow, now, reason, operation)


def flow_resumed(tables: Tables, flow_id: str) -> None:
    """Let a failed flow go on if none of its steps is a dead letter any more that is its failure."""
    flow = tables.flows.get(flow_id)
    if flow is None or flow.state is not FlowState.FAILED:
        return
    dead = sorted(
        (row for row in rows_of(tables, flow_id) if _fails_its_flow(row)), key=lambda row: row.job.id
    )
    if dead:  # of those that are left one becomes the reason
        flow.reason = _reason(dead[0].job.task, dead[0].job.id, dead[0].reason)
    else:
        flow.state = FlowState.RUNNING
        flow.reason = ""


def _fails_its_flow(row: Row) -> bool:
    return row.final is JobState.DEAD and row.job.step is not None and not row.job.step.absorbers


def _reason(task: str, job_id: str, reason: str) -> str:
    return f"step {task} ({job_id}) is a dead letter: {reason}"


def rows_of(tables: Tables, flow_id: str) -> Iterator[Row]:
    """Yield the steps of a flow that are still kept."""
    return (tables.rows[job_id] for job_id in tables.steps.get(flow_id, ()))


def _result(row: Row, edge: Edge) -> Input:
    if edge.slot <= ORDER:
        return Input(ORDER, edge.index, "", None)
    return Input(edge.slot, edge.index, row.result_codec, row.result)


def _give(tables: Tables, edge: Edge, given: Input, now: int) -> None:
    """Write an input of a step that waits, once, and take one from what it waits for."""
    row = tables.rows.get(edge.job_id)
    if row is None or not _is_waiting(row):
        return
    place = (edge.slot, edge.index)
    if row.inputs is None:
        row.inputs = {}
    if place not in row.inputs:
        row.inputs[place] = given
        _wait_for(tables, row, -1, now)


def _is_waiting(row: Row) -> bool:
    return row.final is None and row.waits > 0


def _wait_for(tables: Tables, row: Row, more: int, now: int) -> None:
    row.waits = max(row.waits + more, 0)
    if row.waits:
        return
    if row.job.run_in is not None:  # it counts from here
        row.run_at = from_micros(now + duration_micros(row.job.run_in))
    tables.make_due(row, max(now, micros(row.run_at)), NORMAL)


def _succeed(tables: Tables, flow_id: str, now: int) -> None:
    flow = tables.flows.get(flow_id)
    if flow is None or flow.state in FLOW_ENDED:
        return
    _end(tables, flow, FlowState.SUCCEEDED, now, "")
    if flow.absorbing:
        _cancel_steps(tables, flow, now, LEFT_OVER, None)


def _end(tables: Tables, flow: Flow, state: FlowState, now: int, reason: str) -> None:
    flow.state = state
    flow.reason = reason
    flow.finished = now
    flow.expires = now + flow.retain
    tables.expiring_flows.setdefault(flow.retain, deque()).append((flow.expires, flow.id))
    tables.woken_jobs.add(flow.id)


def _cancel_steps(tables: Tables, flow: Flow, now: int, reason: str, operation: Operation | None) -> bool:
    """Cancel what has not ended; return whether some of it runs, and was asked to stop."""
    running = False
    for row in rows_of(tables, flow.id):
        if row.final is not None:
            continue
        if operation is not None:
            row.operations = (*row.operations, operation)
        if row.token is None:
            tables.finish(row, JobState.CANCELLED, now, reason)
            row.inputs = None
            continue
        running = True
        if row.cancel is None:
            row.cancel = reason
    return running
