"""schedule_declare, schedule_create: what an application declares, and what is made by hand.

What becomes of each is decided in `taskharbor.driver.declaring`.
"""

from __future__ import annotations

from collections.abc import Sequence

from taskharbor.clock import from_micros
from taskharbor.driver import CreateStatus, Declared, DeclareStatus, ScheduleCreate, ScheduleDeclare
from taskharbor.driver.declaring import (
    DECLARATIONS,
    Declaration,
    Judged,
    changes,
    first_record,
    judge,
    rewritten,
)
from taskharbor.drivers.sqlite.routine import Query, Routine
from taskharbor.drivers.sqlite.rows import Step, json_text
from taskharbor.drivers.sqlite.schedule_rows import COLUMNS, record_of, remove, write
from taskharbor.schedule import ScheduleRecord

_PRESENT = """SELECT digest, generation FROM taskharbor_declaration WHERE application = ?
    ORDER BY number DESC LIMIT 1"""
_KNOWN = "SELECT digest FROM taskharbor_declaration WHERE application = ? AND digest = ?"
# Numbered anew, so that the last one declared is the present one.
_FORGET = "DELETE FROM taskharbor_declaration WHERE application = ? AND digest = ?"
_REMEMBER = "INSERT INTO taskharbor_declaration (application, digest, generation) VALUES (?, ?, ?)"
_TRIM = """DELETE FROM taskharbor_declaration WHERE application = ?1 AND number <= (
    SELECT number FROM taskharbor_declaration WHERE application = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)"""
_OF_APPLICATION = f"SELECT {COLUMNS} FROM taskharbor_schedule s WHERE s.application = ?"  # noqa: S608 - our own constants
_NAMED = f"""SELECT {COLUMNS} FROM taskharbor_schedule s
    WHERE s.name IN (SELECT value FROM json_each(?))"""  # noqa: S608 - our own constants


def nothing_declared(step: Step, request: ScheduleDeclare) -> Routine[Declared | None]:
    """Return the answer, without writing, if the declaration changes nothing."""
    status, generation, _ = yield from _judged(request)
    return None if status is DeclareStatus.DECLARED else Declared(status=status, generation=generation)


def _judged(request: ScheduleDeclare) -> Routine[Judged]:
    last = yield Query(_PRESENT, (request.application,))
    known = yield Query(_KNOWN, (request.application, request.digest))
    present = Declaration(*last[0]) if last else None
    return judge(request, present=present, known=[digest for (digest,) in known])


def schedule_declare(step: Step, request: ScheduleDeclare) -> Routine[Declared]:
    """Make an application's schedules those declared here."""
    judged = yield from _judged(request)
    status, generation, _ = judged
    if status is not DeclareStatus.DECLARED:
        return Declared(status=status, generation=generation)
    yield Query(_FORGET, (request.application, request.digest))
    yield Query(_REMEMBER, (request.application, request.digest, generation))
    yield Query(_TRIM, (request.application, DECLARATIONS))
    stored = yield from _named([schedule.name for schedule in request.schedules])
    rows = yield Query(_OF_APPLICATION, (request.application,))
    stored.update((record.name, record) for record in map(record_of, rows))
    change = changes(request, stored, from_micros(step.now))
    yield from write([*change.added, *change.changed])
    yield from remove(change.removed)
    return change.answer(judged)


def schedule_create(step: Step, request: ScheduleCreate) -> Routine[Sequence[CreateStatus]]:
    """Create schedules and return one answer each, in order."""
    now = from_micros(step.now)
    stored = yield from _named([schedule.name for schedule in request.schedules])
    written: dict[str, ScheduleRecord] = {}
    answers: list[CreateStatus] = []
    for schedule in request.schedules:
        there = stored.get(schedule.name)
        if there is None:
            answers.append(CreateStatus.CREATED)
            record: ScheduleRecord | None = first_record(schedule, None, now)
        elif request.replace and there.application is None:
            answers.append(CreateStatus.REPLACED)
            record = rewritten(there, schedule, None, now)
        else:
            answers.append(CreateStatus.EXISTING)
            record = None
        if record is not None:
            stored[record.name] = written[record.name] = record
    yield from write(written.values())
    return answers


def _named(names: Sequence[str]) -> Routine[dict[str, ScheduleRecord]]:
    rows = yield Query(_NAMED, (json_text(names),))
    return {record.name: record for record in map(record_of, rows)}
