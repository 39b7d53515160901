"""How flows end, fail and go on: each change of a flow's own row, and what it means for the steps that are left.

A flow that is ended takes its steps with it by a handful of statements, however many they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from taskharbor.driver import JobEnqueue
from taskharbor.drivers.sqlite.enqueue import job_enqueue
from taskharbor.drivers.sqlite.routine import Query, Routine
from taskharbor.drivers.sqlite.rows import Step, json_text, read_json, read_meta
from taskharbor.flow import Failure, failure_job
from taskharbor.job import NewJob

LEFT_OVER = "its flow has ended"

NOTE = "operations = json_insert(coalesce(operations, '[]'), '$[#]', json(?))"
_OPEN = "state IN ('running', 'failed')"
_STILL_OPEN = f"""SELECT json_group_array(json_array(id, absorbing)) FROM taskharbor_flow
    WHERE id IN (SELECT value FROM json_each(?)) AND {_OPEN}"""  # noqa: S608 - our own constants
_SUCCEED = """UPDATE taskharbor_flow SET state = 'succeeded', reason = '', finished_at = ?2, expires_at = ?2 + retain
    WHERE id IN (SELECT value FROM json_each(?1))"""
_RUNNING = """SELECT id, name, meta, on_failure FROM taskharbor_flow
    WHERE id IN (SELECT value FROM json_each(?)) AND state = 'running'"""
_FAIL = """UPDATE taskharbor_flow SET state = 'failed', reason = e.value ->> 1
    FROM json_each(?) e WHERE taskharbor_flow.id = e.value ->> 0"""
# Of those that are left dead one becomes the reason.
_RESUME = """UPDATE taskharbor_flow SET (state, reason) = (SELECT iif(d.id IS NULL, 'running', 'failed'),
        iif(d.id IS NULL, '', 'step ' || d.task || ' (' || d.id || ') is a dead letter: ' || coalesce(d.reason, ''))
    FROM (SELECT 1) LEFT JOIN (SELECT id, task, reason FROM taskharbor_dead
        WHERE flow = ?1 AND json_array_length(step, '$[1]') = 0 ORDER BY id LIMIT 1) d ON true)
    WHERE id = ?1 AND state = 'failed'"""
_CANCEL = f"""UPDATE taskharbor_flow SET state = 'cancelled', reason = ?3, finished_at = ?2, expires_at = ?2 + retain
    WHERE id = ?1 AND {_OPEN} RETURNING id"""  # noqa: S608 - our own constants
_NOTE_ALL = f"UPDATE taskharbor_job SET {NOTE} WHERE flow = ?"  # noqa: S608 - our own constants
_ASK_TO_STOP = """UPDATE taskharbor_job SET cancel = ?
    WHERE flow = ? AND token IS NOT NULL AND cancel IS NULL"""
_STEPS_LEFT = """SELECT count(token), json_group_array(CASE WHEN token IS NULL THEN id END)
    FROM taskharbor_job WHERE flow = ?"""
_LEFT = "flow = ? AND token IS NULL"
_END_KEYS = f"""UPDATE taskharbor_key SET expires_at = ? + ttl WHERE (task, name, job_id) IN (
    SELECT task, key, id FROM taskharbor_job WHERE {_LEFT} AND key IS NOT NULL)"""  # noqa: S608 - our own constants
_REMOVE_INPUTS = f"""DELETE FROM taskharbor_input
    WHERE job_id IN (SELECT id FROM taskharbor_job WHERE {_LEFT})"""  # noqa: S608 - our own constants
_REMOVE = f"DELETE FROM taskharbor_job WHERE {_LEFT}"  # noqa: S608 - our own constants

_still_open = msgspec.json.Decoder(list[tuple[str, int]])
_left = msgspec.json.Decoder(list[str | None])
_on_failure = msgspec.msgpack.Decoder(NewJob)


def archive_as_cancelled(which: str) -> str:
    """Return the statement that copies live jobs into the history; it takes the time twice, the reason, and `which`."""
    return f"""INSERT INTO taskharbor_history (
    finished_at, expires_at, reason, id, task, queue, options, priority, run_at, enqueued_at, timeout, attempt,
    deliveries, crashes, guarded, stray, stray_reason, settled, payload, key, digest, meta, errors, operations, part,
    flow, step, state)
    SELECT ?, ? + o.retain, ?, j.id, task, queue, options, priority, run_at, enqueued_at, timeout, attempt,
        deliveries, crashes, guarded, stray, stray_reason, settled, payload, key, digest, meta, errors, operations,
        part, flow, step, 'cancelled'
    FROM taskharbor_job j CROSS JOIN taskharbor_options o ON o.id = j.options WHERE {which}"""  # noqa: S608 - our own constants


_ARCHIVE = archive_as_cancelled(_LEFT)


def succeed_flows(flows: Sequence[str], step: Step) -> Routine[None]:
    """Have those of these flows that are open end well; steps that failures left over are cancelled."""
    found = read_json((yield Query(_STILL_OPEN, (json_text(flows),))), _still_open)
    if not found:
        return
    yield Query(_SUCCEED, (json_text([flow for flow, _ in found]), step.now))
    step.wakes.jobs.extend(flow for flow, _ in found)
    for flow, absorbing in found:
        if absorbing:
            yield from _cancel_steps(flow, LEFT_OVER, None, step)


def fail_flows(failures: Mapping[str, Failure], step: Step) -> Routine[None]:
    """Have those of these flows that run be failed by a dead letter, and tell their `on_failure` tasks."""
    rows = yield Query(_RUNNING, (json_text(list(failures)),))
    running = {flow: (name, read_meta(meta), on_failure) for flow, name, meta, on_failure in rows}
    reasons: list[tuple[str, str]] = []
    told: list[NewJob] = []
    for flow, failure in failures.items():
        if flow not in running:
            continue
        name, meta, on_failure = running[flow]
        reasons.append((flow, f"step {failure.task} ({failure.job_id}) is a dead letter: {failure.reason}"))
        if on_failure is not None:
            template = _on_failure.decode(on_failure)
            told.append(failure_job(template, failure, flow_id=flow, name=name, meta=meta))
    if not reasons:
        return
    yield Query(_FAIL, (json_text(reasons),))
    step.wakes.jobs.extend(flow for flow, _ in reasons)
    if told:
        yield from job_enqueue(step, JobEnqueue(jobs=told))


def resume_flow(flow: str, step: Step) -> Routine[None]:
    """Have a failed flow run on if none of its steps is a dead letter any more that is its failure."""
    yield Query(_RESUME, (flow,))


def cancel_flow(flow: str, reason: str, step: Step, note: str | None = None) -> Routine[int | None]:
    """End a flow, and return how many of its steps still run and were asked to stop; None if it has ended already.

    `note` is the operation to record on its steps, as JSON.
    """
    if not (yield Query(_CANCEL, (flow, step.now, reason))):
        return None
    step.wakes.jobs.append(flow)
    return (yield from _cancel_steps(flow, reason, note, step))


def _cancel_steps(flow: str, reason: str, note: str | None, step: Step) -> Routine[int]:
    """Cancel what is left of a flow, and return how many steps still run."""
    ((running, left),) = yield Query(_STEPS_LEFT, (flow,))
    if note is not None:
        yield Query(_NOTE_ALL, (note, flow))
    if running:
        yield Query(_ASK_TO_STOP, (reason, flow))
    ids = [job_id for job_id in _left.decode(left) if job_id is not None]
    if ids:
        yield Query(_END_KEYS, (step.now, flow))
        yield Query(_ARCHIVE, (step.now, step.now, reason, flow))
        yield Query(_REMOVE_INPUTS, (flow,))
        yield Query(_REMOVE, (flow,))
        step.wakes.jobs.extend(ids)
    return int(running)
