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
from taskharbor.drivers.sqlite.routine import Query, Routine, Wakes
from taskharbor.drivers.sqlite.rows import NORMAL, SOLO, OptionsBook, Step, json_text
from taskharbor.job import JobState, Operation
from taskharbor.settlement import SOLO_CRASHES

A = TypeVar("A")

_ARCHIVES = ("taskharbor_history", "taskharbor_dead")
_REQUEUED = (
    "id, task, queue, options, priority, guarded, stray, stray_reason, deliveries, crashes, run_at, enqueued_at, "
    "timeout, payload, key, digest, meta, errors"
)
_NOTE = "operations = json_insert(coalesce(operations, '[]'), '$[#]', json(?))"
_ARCHIVED_AS_CANCELLED = """INSERT INTO taskharbor_history (
    id, task, queue, options, priority, run_at, enqueued_at, finished_at, timeout, attempt, deliveries, crashes,
    guarded, stray, stray_reason, reason, settled, payload, key, digest, meta, errors, operations, state, expires_at)
    SELECT j.id, task, queue, options, priority, run_at, enqueued_at, ?2, timeout, attempt, deliveries, crashes,
        guarded, stray, stray_reason, ?3, settled, payload, key, digest, meta, errors, operations, 'cancelled',
        ?2 + o.retain
    FROM taskharbor_job j CROSS JOIN taskharbor_options o ON o.id = j.options WHERE j.id = ?1"""
_END_KEY = "UPDATE taskharbor_key SET expires_at = ? + ttl WHERE task = ? AND name = ? AND job_id = ?"
_HOLDER = """SELECT job_id FROM taskharbor_key
    WHERE task = ? AND name = ? AND (expires_at IS NULL OR expires_at > ?)"""


def job_cancel(step: Step, request: JobCancel) -> Routine[Sequence[CancelStatus]]:
    """Cancel jobs and return one answer each, in order."""
    note = _note("cancel", request.by, request.reason, step.now)
    return (
        yield from _each(
            request.ids, lambda job_id: _cancel(job_id, request.reason, note, step.now, step.wakes)
        )
    )


def _cancel(job_id: str, reason: str, note: str, now: int, wakes: Wakes) -> Routine[CancelStatus]:
    live = yield Query("SELECT task, key, token FROM taskharbor_job WHERE id = ?", (job_id,))
    if not live:
        return CancelStatus.FINISHED if (yield from _archive_of(job_id)) else CancelStatus.MISSING
    ((task, key, token),) = live
    yield Query(f"UPDATE taskharbor_job SET {_NOTE} WHERE id = ?", (note, job_id))  # noqa: S608
    if token is not None:  # the first reason stands
        yield Query("UPDATE taskharbor_job SET cancel = ? WHERE id = ? AND cancel IS NULL", (reason, job_id))
        return CancelStatus.REQUESTED
    yield Query(_ARCHIVED_AS_CANCELLED, (job_id, now, reason))
    yield Query("DELETE FROM taskharbor_job WHERE id = ?", (job_id,))
    if key is not None:
        yield Query(_END_KEY, (now, task, key, job_id))
    wakes.jobs.append(job_id)
    return CancelStatus.CANCELLED


def job_requeue(step: Step, request: JobRequeue) -> Routine[Sequence[RequeueStatus]]:
    """Requeue jobs and return one answer each, in order."""
    note = _note("requeue", request.by, request.reason, step.now)
    return (
        yield from _each(request.ids, lambda job_id: _requeue(job_id, note, step.book, step.now, step.wakes))
    )


def _requeue(job_id: str, note: str, book: OptionsBook, now: int, wakes: Wakes) -> Routine[RequeueStatus]:
    table = yield from _archive_of(job_id)
    if table is None:
        live = yield Query("SELECT 1 FROM taskharbor_job WHERE id = ?", (job_id,))
        return RequeueStatus.NOT_DEAD if live else RequeueStatus.MISSING
    state = "state" if table == "taskharbor_history" else "'dead'"
    ((found, task, key, digest, queue, number),) = yield Query(
        f"SELECT {state}, task, key, digest, queue, options FROM {table} WHERE id = ?",  # noqa: S608
        (job_id,),
    )
    if found == JobState.SUCCEEDED:
        return RequeueStatus.NOT_DEAD
    if key is not None:
        holder = yield Query(_HOLDER, (task, key, now))
        if holder and holder[0][0] != job_id:
            return RequeueStatus.KEY_TAKEN
        options = (yield from book.fetch([number]))[number]
        yield Query(
            "INSERT OR REPLACE INTO taskharbor_key (task, name, job_id, digest, ttl) VALUES (?, ?, ?, ?, ?)",
            (task, key, job_id, digest, duration_micros(options.key_ttl)),
        )
    yield Query(
        f"INSERT INTO taskharbor_job ({_REQUEUED}, lane, due, settled, operations) SELECT {_REQUEUED}, "  # noqa: S608
        "CASE WHEN crashes >= ?2 THEN ?3 ELSE ?4 END, max(run_at, ?5), settled, "
        f"json_insert(coalesce(operations, '[]'), '$[#]', json(?6)) FROM {table} WHERE id = ?1",
        (job_id, SOLO_CRASHES, SOLO, NORMAL, now, note),
    )
    yield Query(f"DELETE FROM {table} WHERE id = ?", (job_id,))  # noqa: S608
    wakes.queues.add(queue)
    return RequeueStatus.REQUEUED


def job_delete(step: Step, request: JobDelete) -> Routine[Sequence[DeleteStatus]]:
    """Delete jobs and return one answer each, in order."""
    return (yield from _each(request.ids, lambda job_id: _delete(job_id, step.wakes)))


def _delete(job_id: str, wakes: Wakes) -> Routine[DeleteStatus]:
    for table in ("taskharbor_job", *_ARCHIVES):
        token = "token" if table == "taskharbor_job" else "NULL"
        found = yield Query(f"SELECT task, key, {token} FROM {table} WHERE id = ?", (job_id,))  # noqa: S608
        if not found:
            continue
        ((task, key, held),) = found
        if held is not None:
            return DeleteStatus.RUNNING
        yield Query(f"DELETE FROM {table} WHERE id = ?", (job_id,))  # noqa: S608
        if key is not None:
            yield Query(
                "DELETE FROM taskharbor_key WHERE task = ? AND name = ? AND job_id = ?", (task, key, job_id)
            )
        wakes.jobs.append(job_id)
        return DeleteStatus.DELETED
    return DeleteStatus.MISSING


def _archive_of(job_id: str) -> Routine[str | None]:
    """Return the table that keeps a job which has ended; None if there is no such job."""
    for table in _ARCHIVES:
        found = yield Query(f"SELECT 1 FROM {table} WHERE id = ?", (job_id,))  # noqa: S608
        if found:
            return table
    return None


def _each(ids: Iterable[str], act: Callable[[str], Routine[A]]) -> Routine[list[A]]:
    answers: list[A] = []
    for job_id in ids:
        answers.append((yield from act(job_id)))  # noqa: PERF401 - no yield inside a comprehension
    return answers


def _note(verb: str, by: str, reason: str, now: int) -> str:
    return json_text(Operation(at=from_micros(now), verb=verb, by=by, reason=reason))
