"""job_cancel, job_requeue, job_delete: acts by hand, one job after the other, as a person asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from taskharbor.clock import duration_micros, from_micros
from taskharbor.driver import (
    CancelStatus,
    DeleteStatus,
    JobCancel,
    JobDelete,
    JobRequeue,
    RequeueStatus,
)
from taskharbor.drivers.sqlite.advance import Advance
from taskharbor.drivers.sqlite.ending import NOTE, archive_as_cancelled, resume_flow
from taskharbor.drivers.sqlite.leaving import Fall
from taskharbor.drivers.sqlite.report import forget_reports
from taskharbor.drivers.sqlite.routine import Query, Routine
from taskharbor.drivers.sqlite.rows import LINES, NORMAL, SOLO, Step, json_text
from taskharbor.drivers.sqlite.shut import Shut, shut_now
from taskharbor.drivers.sqlite.states import LIVE_STATE, positional
from taskharbor.flow import FLOW_ENDED
from taskharbor.job import JobState, Operation
from taskharbor.settlement import SOLO_CRASHES

A = TypeVar("A")

_ARCHIVES = ("taskharbor_history", "taskharbor_dead")
_REQUEUED = (
    "id, task, queue, options, priority, guarded, stray, stray_reason, deliveries, crashes, run_at, enqueued_at, "
    "timeout, payload, key, digest, meta, errors, flow, step, part"
)
_ARCHIVE = archive_as_cancelled("j.id = ?")
_STATE = (
    f"SELECT {LIVE_STATE} FROM taskharbor_job WHERE id = :id UNION ALL SELECT state FROM taskharbor_history "  # noqa: S608 - our own constants
    "WHERE id = :id UNION ALL SELECT 'dead' FROM taskharbor_dead WHERE id = :id"
)
_END_KEY = "UPDATE taskharbor_key SET expires_at = ? + ttl WHERE task = ? AND name = ? AND job_id = ?"
_HOLDER = """SELECT job_id FROM taskharbor_key
    WHERE task = ? AND name = ? AND (expires_at IS NULL OR expires_at > ?)"""


def job_cancel(step: Step, request: JobCancel) -> Routine[Sequence[CancelStatus]]:
    """Cancel jobs and return one answer each, in order."""
    note = operation("cancel", request.by, request.reason, step.now)
    return (yield from _each(request.ids, lambda job_id: _cancel(job_id, request.reason, note, step)))


def _cancel(job_id: str, reason: str, note: str, step: Step) -> Routine[CancelStatus]:
    live = yield Query(
        "SELECT task, key, token, attempt, step IS NOT NULL FROM taskharbor_job WHERE id = ?", (job_id,)
    )
    if not live:
        return CancelStatus.FINISHED if (yield from _archive_of(job_id)) else CancelStatus.MISSING
    ((task, key, token, attempts, is_step),) = live
    yield Query(f"UPDATE taskharbor_job SET {NOTE} WHERE id = ?", (note, job_id))  # noqa: S608 - our own constants
    if token is not None:  # the first reason stands
        yield Query("UPDATE taskharbor_job SET cancel = ? WHERE id = ? AND cancel IS NULL", (reason, job_id))
        return CancelStatus.REQUESTED
    advance = Advance(step)
    if is_step:
        yield from advance.fall([Fall(job_id, task, JobState.CANCELLED, reason, None, attempts)])
    yield Query(_ARCHIVE, (step.now, step.now, reason, job_id))
    yield Query("DELETE FROM taskharbor_job WHERE id = ?", (job_id,))
    if key is not None:
        yield Query(_END_KEY, (step.now, task, key, job_id))
    step.wakes.jobs.append(job_id)
    yield from advance.write()
    return CancelStatus.CANCELLED


def job_requeue(step: Step, request: JobRequeue) -> Routine[Sequence[RequeueStatus]]:
    """Requeue jobs and return one answer each, in order."""
    note = operation("requeue", request.by, request.reason, step.now)
    return (yield from _each(request.ids, lambda job_id: _requeue(job_id, request.states, note, step)))


def _requeue(job_id: str, states: frozenset[JobState], note: str, step: Step) -> Routine[RequeueStatus]:
    table = yield from _archive_of(job_id)
    if table is None:
        live = yield Query("SELECT 1 FROM taskharbor_job WHERE id = ?", (job_id,))
        return RequeueStatus.NOT_DEAD if live else RequeueStatus.MISSING
    state = "state" if table == "taskharbor_history" else "'dead'"
    ((found, task, key, digest, queue, number, flow, is_step),) = yield Query(
        f"SELECT {state}, task, key, digest, queue, options, flow, step IS NOT NULL FROM {table} "  # noqa: S608 - our own constants
        "WHERE id = ?",
        (job_id,),
    )
    if states and found not in states:
        return RequeueStatus.NOT_DEAD
    if found == JobState.SUCCEEDED:
        return RequeueStatus.NOT_DEAD
    if is_step and not (found == JobState.DEAD and (yield from _is_open(flow))):
        return RequeueStatus.NOT_DEAD
    if key is not None:
        holder = yield Query(_HOLDER, (task, key, step.now))
        if holder and holder[0][0] != job_id:
            return RequeueStatus.KEY_TAKEN
        options = (yield from step.book.fetch([number]))[number]
        yield Query(
            "INSERT OR REPLACE INTO taskharbor_key (task, name, job_id, digest, ttl) VALUES (?, ?, ?, ?, ?)",
            (task, key, job_id, digest, duration_micros(options.key_ttl)),
        )
    yield Query(
        f"INSERT INTO taskharbor_job ({_REQUEUED}, lane, due, settled, operations) SELECT {_REQUEUED}, "  # noqa: S608 - our own constants
        "CASE WHEN crashes >= ?2 THEN ?3 ELSE ?4 END + iif(part IS NULL, 0, ?7), max(run_at, ?5), settled, "
        f"json_insert(coalesce(operations, '[]'), '$[#]', json(?6)) FROM {table} WHERE id = ?1",
        (job_id, SOLO_CRASHES, SOLO, NORMAL, step.now, note, LINES),
    )
    yield Query(f"DELETE FROM {table} WHERE id = ?", (job_id,))  # noqa: S608 - our own constants
    if flow is not None:
        yield from resume_flow(flow, step)
    step.wakes.queues.add(queue)
    return RequeueStatus.REQUEUED


def _is_open(flow: str | None) -> Routine[bool]:
    """Return whether a dead step of this flow may run once more; one of no flow always may."""
    if flow is None:
        return True
    found = yield Query("SELECT state FROM taskharbor_flow WHERE id = ?", (flow,))
    return bool(found) and found[0][0] not in FLOW_ENDED


def job_delete(step: Step, request: JobDelete) -> Routine[Sequence[DeleteStatus]]:
    """Delete jobs and return one answer each, in order."""
    if not request.states:
        return (yield from _each(request.ids, lambda job_id: _delete(job_id, step)))
    shut = yield from shut_now(step)
    return (yield from _each(request.ids, lambda job_id: _delete_in(request.states, shut, job_id, step)))


def _delete_in(states: frozenset[JobState], shut: Shut, job_id: str, step: Step) -> Routine[DeleteStatus]:
    """Delete a job that is in one of these states now."""
    found = yield positional(_STATE, {"id": job_id, "now": step.now, **shut.values()})
    if found and JobState(found[0][0]) not in states:
        return DeleteStatus.OTHER_STATE
    return (yield from _delete(job_id, step))


def _delete(job_id: str, step: Step) -> Routine[DeleteStatus]:
    for table in ("taskharbor_job", *_ARCHIVES):
        token = "token" if table == "taskharbor_job" else "NULL"
        found = yield Query(
            f"SELECT task, key, {token}, attempt, flow, step IS NOT NULL FROM {table} WHERE id = ?",  # noqa: S608 - our own constants
            (job_id,),
        )
        if not found:
            continue
        ((task, key, held, attempts, flow, is_step),) = found
        if held is not None:
            return DeleteStatus.RUNNING
        advance = Advance(step)
        if is_step and table != "taskharbor_history":
            reason = f"step {task} ({job_id}) was deleted"
            fall = Fall(job_id, task, JobState.CANCELLED, reason, None, attempts)
            yield from advance.fall([fall], table)
        yield Query(f"DELETE FROM {table} WHERE id = ?", (job_id,))  # noqa: S608 - our own constants
        yield from forget_reports([job_id])
        if key is not None:
            yield Query(
                "DELETE FROM taskharbor_key WHERE task = ? AND name = ? AND job_id = ?", (task, key, job_id)
            )
        yield from advance.write()
        if flow == job_id:
            yield Query("DELETE FROM taskharbor_flow WHERE id = ?", (flow,))
        step.wakes.jobs.append(job_id)
        return DeleteStatus.DELETED
    return DeleteStatus.MISSING


def _archive_of(job_id: str) -> Routine[str | None]:
    """Return the table that keeps a job which has ended; None if there is no such job."""
    for table in _ARCHIVES:
        found = yield Query(f"SELECT 1 FROM {table} WHERE id = ?", (job_id,))  # noqa: S608 - our own constants
        if found:
            return table
    return None


def _each(ids: Iterable[str], act: Callable[[str], Routine[A]]) -> Routine[list[A]]:
    answers: list[A] = []
    for job_id in ids:
        answers.append((yield from act(job_id)))  # noqa: PERF401 - no yield inside a comprehension
    return answers


def operation(verb: str, by: str, reason: str, now: int) -> str:
    """Return what is recorded of an act by hand, as JSON."""
    return json_text(Operation(at=from_micros(now), verb=verb, by=by, reason=reason))
