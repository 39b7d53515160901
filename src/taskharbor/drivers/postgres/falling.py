"""Steps that come to no result: what that means to those that wait, and to the flow.

By whatever verb a step ends dead, cancelled or deleted, `fall` is told of it in the same transaction. A flow's row is
locked before its state is looked at: of two members that die at once one makes the flow failed, and a requeue and
another death come one after the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from taskharbor.driver import JobEnqueue
from taskharbor.drivers.postgres.advance import give
from taskharbor.drivers.postgres.cancelling import DROP_INPUTS, LOCK_ORDER, cancel_jobs
from taskharbor.drivers.postgres.enqueue import job_enqueue
from taskharbor.drivers.postgres.routine import Query, Routine, plain_array
from taskharbor.drivers.postgres.rows import DEAD, interval_of, read_meta
from taskharbor.drivers.postgres.step import Step
from taskharbor.flow import Failure, FlowState, failed_input, failure_job, failure_of
from taskharbor.job import AttemptError, JobState, NewJob
from taskharbor.step import Edge

LEFT_OVER = "its flow has ended"
GOING = f"('{FlowState.RUNNING}', '{FlowState.FAILED}')"
"""The states of a flow that has not ended."""
_NOW = "coalesce($1::text::timestamptz, clock_timestamp())"
_LOCK_FLOWS = """SELECT id::text, state, name, meta::text, on_failure FROM taskharbor.flow
    WHERE id = ANY ($1::text::uuid[]) ORDER BY id FOR UPDATE"""
_GOING = f"""SELECT id::text FROM taskharbor.flow WHERE id = ANY ($1::text::uuid[]) AND state IN {GOING}"""
_STEPS = f"""SELECT id::text, token IS NOT NULL FROM taskharbor.job
    WHERE flow = ANY ($1::text::uuid[]) AND flow IS NOT NULL ORDER BY {LOCK_ORDER} FOR UPDATE"""
_FAIL = "UPDATE taskharbor.flow SET state = 'failed', reason = $2::text WHERE id = $1::text::uuid"
_END = f"""UPDATE taskharbor.flow SET state = 'cancelled', reason = $3::text, finished_at = {_NOW},
    expires_at = {_NOW} + {interval_of("retain")} WHERE id = $2::text::uuid"""
# Of those that are left dead one becomes the reason.
_RESUME = f"""UPDATE taskharbor.flow f SET state = CASE WHEN d.id IS NULL THEN 'running' ELSE f.state END,
    reason = 'step ' || d.task || ' (' || d.id || ') is a dead letter: ' || coalesce(d.reason, '')
    FROM unnest($1::text::uuid[]) w(id) LEFT JOIN LATERAL (SELECT h.id, h.task, h.reason FROM taskharbor.history h
        WHERE h.slot = {DEAD} AND h.flow = w.id AND h.flow IS NOT NULL AND h.absorbers IS NULL
        ORDER BY h.id LIMIT 1) d ON true
    WHERE f.id = ANY (ARRAY[w.id]) AND f.state = 'failed'"""

_decode_job = msgspec.msgpack.Decoder(NewJob).decode


class Fallen(msgspec.Struct, array_like=True, frozen=True):
    """A step that came to no result, as `leaving.FALLEN` tells it."""

    id: str
    state: JobState
    flow: str | None
    absorbers: tuple[Edge, ...] | None
    task: str
    attempts: int
    reason: str | None
    error: AttemptError | None


_decode = msgspec.json.Decoder(Fallen).decode


def read(told: Iterable[str | None]) -> list[Fallen]:
    """Return the steps that are told of."""
    return [_decode(words) for words in told if words is not None]


def fall(step: Step, fallen: Sequence[Fallen]) -> Routine[None]:
    """Tell those that they concern that steps, which are locked, came to no result."""
    if not fallen:
        return
    ended = [one.id for one in fallen if one.state is JobState.CANCELLED]
    if ended:
        yield Query(DROP_INPUTS, (plain_array(ended),))
    absorbed = [(edge, one) for one in fallen for edge in one.absorbers or ()]
    yield from give(step, [(edge, failed_input(edge, _failure(one))) for edge, one in absorbed])
    by_flow: dict[str, list[Fallen]] = {}
    for one in fallen:
        if one.flow is not None and not one.absorbers:
            by_flow.setdefault(one.flow, []).append(one)
    for flow in sorted(by_flow):
        cancelled = [one for one in by_flow[flow] if one.state is JobState.CANCELLED]
        if cancelled:
            yield from cancel_flow(step, flow, reason=cancelled[0].reason or "", verb=None, by="")
        else:
            yield from _fail(step, flow, by_flow[flow][0])


def _failure(one: Fallen) -> Failure:
    return failure_of(
        job_id=one.id, task=one.task, error=one.error, reason=one.reason or "", attempts=one.attempts
    )


def _fail(step: Step, flow: str, one: Fallen) -> Routine[None]:
    """Make a running flow failed."""
    rows = yield Query(_LOCK_FLOWS, (plain_array([flow]),))
    if not rows or rows[0][1] != FlowState.RUNNING:
        return
    _, _, name, meta, on_failure = rows[0]
    reason = f"step {one.task} ({one.id}) is a dead letter: {one.reason or ''}"
    yield Query(_FAIL, (flow, reason))
    step.wakes.jobs.append(flow)
    if on_failure is not None:
        told = failure_job(
            _decode_job(on_failure), _failure(one), flow_id=flow, name=name, meta=read_meta(meta)
        )
        yield from job_enqueue(step, JobEnqueue(jobs=[told]))


def cancel_flow(step: Step, flow: str, *, reason: str, verb: str | None, by: str) -> Routine[bool | None]:
    """End a flow and all its steps; return whether some of them still run, or None if it has ended before, or is not.

    Args:
        step: what a verb works with.
        flow: its id.
        reason: why.
        verb: what is noted on its steps; None to note nothing.
        by: whose act it is.
    """
    yield from lock_steps([flow])
    rows = yield Query(_LOCK_FLOWS, (plain_array([flow]),))
    if not rows or rows[0][1] not in {FlowState.RUNNING, FlowState.FAILED}:
        return None
    yield Query(_END, (step.now, flow, reason))
    step.wakes.jobs.append(flow)
    return (yield from cancel_steps(step, flow, reason=reason, verb=verb, by=by))


def cancel_steps(step: Step, flow: str, *, reason: str, verb: str | None, by: str) -> Routine[bool]:
    """Cancel what is left of a flow whose row is locked, and return whether some of it still runs."""
    # Asked once nobody can add any.
    live = yield Query(_STEPS, (plain_array([flow]),))
    running = [job_id for job_id, leased in live if leased]
    idle = [job_id for job_id, leased in live if not leased]
    if live:
        yield from cancel_jobs(step, running, idle, verb=verb, by=by, reason=reason)
    return bool(running)


def lock_steps(flows: Iterable[str]) -> Routine[None]:
    """Lock all the steps of flows that have not ended, before these themselves.

    Who is about to end flows does so before he locks some of their steps.
    """
    going = [row[0] for row in (yield Query(_GOING, (plain_array(flows),)))]
    if going:
        yield Query(f"SELECT count(*) FROM ({_STEPS}) j", (plain_array(going),))


def locked_flows(ids: Iterable[str]) -> Routine[dict[str, FlowState]]:
    """Lock flows, in order of id, and return how they stand."""
    rows = yield Query(_LOCK_FLOWS, (plain_array(sorted(ids)),))
    return {row[0]: FlowState(row[1]) for row in rows}


def resume(flows: Iterable[str]) -> Routine[None]:
    """Let failed flows that are locked go on where no dead letter is left that is their failure."""
    yield Query(_RESUME, (plain_array(sorted(flows)),))
