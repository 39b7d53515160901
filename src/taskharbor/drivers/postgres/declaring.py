"""schedule_declare, schedule_create: one at a time, as they are rare, and each looks at what is there.

What is declared already, as at each start of a worker, is seen without waiting for anybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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
from taskharbor.drivers.postgres.routine import Query, Routine, text_array
from taskharbor.drivers.postgres.rows import micros_of
from taskharbor.drivers.postgres.schedule_rows import COLUMNS, add, change, record_of
from taskharbor.drivers.postgres.step import Step
from taskharbor.schedule import ScheduleRecord

_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('taskharbor.schedule', 0))"
"""Of names that are not there yet nothing else can be locked."""
_PRESENT = """SELECT generation, digest, EXISTS (
        SELECT FROM taskharbor.declaration k WHERE k.application = $1::text AND k.digest = $2::text)
    FROM taskharbor.declaration WHERE application = $1::text ORDER BY number DESC LIMIT 1"""
_NOTE = f"""INSERT INTO taskharbor.declaration (application, digest, generation, number, declared_at)
    SELECT $2::text, $3::text, $4::text::bigint, 1 + coalesce((SELECT d.number FROM taskharbor.declaration d
        WHERE d.application = $2::text ORDER BY d.number DESC LIMIT 1), 0),
        coalesce($1::text::timestamptz, clock_timestamp())
    ON CONFLICT (application, digest) DO UPDATE SET generation = excluded.generation, number = excluded.number,
        declared_at = excluded.declared_at
    RETURNING {micros_of("declared_at")}"""
_FORGET = f"""DELETE FROM taskharbor.declaration WHERE application = $1::text AND number <= (
    SELECT d.number FROM taskharbor.declaration d WHERE d.application = $1::text
    ORDER BY d.number DESC OFFSET {DECLARATIONS} LIMIT 1)"""
_CONCERNED = f"""SELECT {COLUMNS} FROM taskharbor.schedule s WHERE s.name = ANY (ARRAY(
    SELECT x.name FROM taskharbor.schedule x WHERE x.application = $2::text AND x.application IS NOT NULL
    UNION SELECT * FROM pg_catalog.unnest($1::text::text[]))) ORDER BY s.name FOR UPDATE OF s"""
_NAMED = f"""SELECT {COLUMNS} FROM taskharbor.schedule s WHERE s.name = ANY ($1::text::text[])
    ORDER BY s.name FOR UPDATE OF s"""
_REMOVE = "DELETE FROM taskharbor.schedule WHERE name = ANY ($1::text::text[])"
_READ_CLOCK = f"SELECT {micros_of('coalesce($1::text::timestamptz, clock_timestamp())')}"


def schedule_declare(step: Step, request: ScheduleDeclare) -> Routine[Declared]:
    """Make an application's schedules those declared here."""
    judged = yield from _judged(request)
    if judged.status is DeclareStatus.DECLARED:
        yield Query(_LOCK)
        judged = yield from _judged(request)  # another may have declared meanwhile
    status, generation, _ = judged
    if status is not DeclareStatus.DECLARED:
        return Declared(status=status, generation=generation)
    application = request.application
    ((micros,),) = yield Query(_NOTE, (step.now, application, request.digest.hex(), str(generation)))
    names = text_array([schedule.name for schedule in request.schedules])
    stored = _by_name((yield Query(_CONCERNED, (names, application))))
    written = changes(request, stored, from_micros(micros))
    yield from add(written.added)
    yield from change(written.changed)
    if written.removed:
        yield Query(_REMOVE, (text_array(written.removed),))
    yield Query(_FORGET, (application,))
    return written.answer(judged)


def _judged(request: ScheduleDeclare) -> Routine[Judged]:
    rows = yield Query(_PRESENT, (request.application, request.digest.hex()))
    for generation, digest, there in rows:
        present = Declaration(bytes.fromhex(digest), generation)
        return judge(request, present=present, known={request.digest} if there else ())
    return judge(request, present=None, known=())


def schedule_create(step: Step, request: ScheduleCreate) -> Routine[Sequence[CreateStatus]]:
    """Create schedules and return one answer each, in order."""
    if not request.schedules:
        return []
    yield Query(_LOCK)
    ((micros,),) = yield Query(_READ_CLOCK, (step.now,))
    now = from_micros(micros)
    before = _by_name((yield Query(_NAMED, (text_array([schedule.name for schedule in request.schedules]),))))
    after = dict(before)
    answers: list[CreateStatus] = []
    for schedule in request.schedules:
        there = after.get(schedule.name)
        if there is None:
            after[schedule.name] = first_record(schedule, None, now)
            answers.append(CreateStatus.CREATED)
        elif request.replace and there.application is None:
            after[schedule.name] = rewritten(there, schedule, None, now) or there
            answers.append(CreateStatus.REPLACED)
        elif step.repeated and there.application is None and rewritten(there, schedule, None, now) is None:
            answers.append(CreateStatus.CREATED)  # by the first asking, whose answer was lost
        else:
            answers.append(CreateStatus.EXISTING)
    yield from add([record for name, record in after.items() if name not in before])
    yield from change([record for name, record in after.items() if before.get(name, record) is not record])
    return answers


def _by_name(rows: Iterable[tuple[object, ...]]) -> dict[str, ScheduleRecord]:
    return {record.name: record for record in map(record_of, rows)}
