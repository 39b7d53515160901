"""job_report, and what a look-up tells of it."""

from __future__ import annotations

from collections.abc import Sequence

from taskharbor.driver import JobReport
from taskharbor.drivers.memory.rows import Told
from taskharbor.drivers.memory.tables import Tables
from taskharbor.report import LOG_LIMIT, Report


def job_report(tables: Tables, request: JobReport, now: int) -> Sequence[bool]:
    """Store what each tells, in order, and return whether it was."""
    return [_store(tables, report) for report in request.reports]


def _store(tables: Tables, report: Report) -> bool:
    row = tables.rows.get(report.job_id)
    if row is None or row.token != report.token:
        return False
    told = tables.reports.setdefault(report.job_id, Told())
    if report.progress is not None:
        told.progress = report.progress
    if report.lines:
        lines = {(line.fence, line.number): line for line in (*report.lines[::-1], *told.lines)}
        told.lines = tuple(lines[place] for place in sorted(lines)[-LOG_LIMIT:])
    return True
