"""job_report: what running jobs tell, in tables of its own, and what a look-up tells of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from taskharbor.clock import from_micros, micros
from taskharbor.driver import JobReport
from taskharbor.drivers.sqlite.leaving import chunks
from taskharbor.drivers.sqlite.routine import Query, Routine
from taskharbor.drivers.sqlite.rows import Step, json_text
from taskharbor.report import LOG_LIMIT, LogLine, Progress

_progress = msgspec.json.Decoder(Progress)
_held = msgspec.json.Decoder(set[tuple[str, int]])

_HELD = """SELECT json_group_array(json_array(j.id, j.token)) FROM json_each(?) e
    CROSS JOIN taskharbor_job j ON j.id = e.value ->> 0 AND j.token = e.value ->> 1"""
_PROGRESS = """INSERT OR REPLACE INTO taskharbor_progress (job_id, progress)
    SELECT e.value ->> 0, e.value ->> 1 FROM json_each(?) e"""
_LINES = """INSERT OR IGNORE INTO taskharbor_log (job_id, fence, number, attempt, at, text)
    SELECT e.value ->> 0, e.value ->> 1, e.value ->> 2, e.value ->> 3, e.value ->> 4, e.value ->> 5
    FROM json_each(?) e"""
# All before the first of the last ones; nothing while there are no more than these.
_TRIM = """DELETE FROM taskharbor_log WHERE job_id = ?1 AND (fence, number) < (
    SELECT fence, number FROM taskharbor_log WHERE job_id = ?1 ORDER BY fence DESC, number DESC LIMIT 1 OFFSET ?2)"""
_TOLD = """SELECT job_id, 0, 0, 0, 0, progress FROM taskharbor_progress
        WHERE job_id IN (SELECT value FROM json_each(?1))
    UNION ALL SELECT job_id, fence, number, attempt, at, text FROM taskharbor_log
        WHERE job_id IN (SELECT value FROM json_each(?1)) ORDER BY 1, 2, 3"""
_FORGET = tuple(
    f"DELETE FROM {table} WHERE job_id IN (SELECT value FROM json_each(?))"  # noqa: S608 - our own constants
    for table in ("taskharbor_progress", "taskharbor_log")
)


def job_report(step: Step, request: JobReport) -> Routine[Sequence[bool]]:
    """Store what each tells, in order, and return whether it was."""
    fences = {(report.job_id, report.token) for report in request.reports}
    ((found,),) = yield Query(_HELD, (json_text(list(fences)),))
    held = _held.decode(found)
    told = [report for report in request.reports if (report.job_id, report.token) in held]
    progress = {
        report.job_id: json_text(report.progress) for report in told if report.progress is not None
    }  # the later of two stands
    if progress:
        yield Query(_PROGRESS, (json_text(list(progress.items())),))
    lines = [
        (report.job_id, line.fence, line.number, line.attempt, micros(line.at), line.text)
        for report in told
        for line in report.lines
    ]
    for chunk in chunks(lines):
        yield Query(_LINES, (json_text(chunk),))
    for job_id in {line[0] for line in lines}:
        yield Query(_TRIM, (job_id, LOG_LIMIT - 1))
    return [(report.job_id, report.token) in held for report in request.reports]


def told_by(ids: Sequence[str]) -> Routine[dict[str, tuple[Progress | None, tuple[LogLine, ...]]]]:
    """Return what those of these jobs have told that told anything."""
    told: dict[str, tuple[Progress | None, tuple[LogLine, ...]]] = {}
    if not ids:
        return told
    progress: dict[str, Progress] = {}
    logs: dict[str, list[LogLine]] = {}
    for job_id, fence, number, attempt, at, text in (yield Query(_TOLD, (json_text(ids),))):
        if not number:
            progress[job_id] = _progress.decode(text)
        else:
            line = LogLine(fence=fence, number=number, attempt=attempt, at=from_micros(at), text=text)
            logs.setdefault(job_id, []).append(line)
    for job_id in progress.keys() | logs.keys():
        told[job_id] = (progress.get(job_id), tuple(logs.get(job_id, ())))
    return told


def forget_reports(ids: Iterable[str]) -> Routine[None]:
    """Remove what these jobs told; they are gone."""
    gone = json_text(list(ids))
    for statement in _FORGET:
        yield Query(statement, (gone,))
