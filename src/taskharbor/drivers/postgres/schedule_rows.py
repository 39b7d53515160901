"""Schedules between the contract's words and their table: read by their columns, written whole.

What a schedule says is kept as JSON, for who looks at the table, and the arguments of its job as the bytes they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from itertools import accumulate

import msgspec

from taskharbor.clock import from_micros
from taskharbor.drivers.postgres.routine import Query, Routine, Row, nullable_array, plain_array, text_array
from taskharbor.drivers.postgres.rows import BATCH_BYTES, json_text, micros_of
from taskharbor.job import NewJob
from taskharbor.schedule import Schedule, ScheduleRecord

ROWS = 500
"""Schedules in one statement, at most."""
COLUMNS = f"""s.name, s.application, s.schedule::text, s.job::text, s.payload, s.description, s.revision,
    {micros_of("s.created_at")}, {micros_of("s.after")}, {micros_of("s.next_at")}, s.ended,
    {micros_of("s.waiting_tick")}, {micros_of("s.paused_at")}, s.paused_by, s.reason, {micros_of("s.last_tick")},
    s.last_job::text, s.fired, s.missed, s.overlapped, s.kept_out"""
"""Of a schedule `s`, as `record_of` reads them."""
_SAID = """said AS MATERIALIZED (SELECT s.name, s.application, s.schedule, s.job,
        substring($5::bytea FROM s.start FOR s.size) AS payload, s.description, s.revision, s.after, s.next_at, s.ended,
        s.waiting_tick
    FROM unnest($1::text::text[], $2::text::text[], $3::text::json[], $4::text::json[], $6::text::integer[],
        $7::text::integer[], $8::text::text[], $9::text::bigint[], $10::text::timestamptz[], $11::text::timestamptz[],
        $12::text::boolean[], $13::text::timestamptz[])
        s(name, application, schedule, job, start, size, description, revision, after, next_at, ended, waiting_tick))"""
_ADD = f"""WITH {_SAID}
INSERT INTO taskharbor.schedule (name, application, schedule, job, payload, description, revision, created_at, after)
    SELECT name, application, schedule, job, payload, description, revision, after, after FROM said ORDER BY name"""
_CHANGE = f"""WITH {_SAID}
UPDATE taskharbor.schedule t SET application = s.application, schedule = s.schedule, job = s.job, payload = s.payload,
    description = s.description, revision = s.revision, after = s.after, next_at = s.next_at, ended = s.ended,
    waiting_tick = s.waiting_tick
    FROM said s WHERE t.name = s.name"""

_schedule = msgspec.json.Decoder(Schedule)
_job = msgspec.json.Decoder(NewJob)


def record_of(row: Row) -> ScheduleRecord:
    """Return a schedule from a row of `COLUMNS`."""
    name, application, schedule, job, payload, description, revision, created_at, after, next_at = row[:10]
    ended, waiting_tick, paused_at, paused_by, reason, last_tick, last_job = row[10:17]
    fired, missed, overlapped, kept_out = row[17:21]
    return ScheduleRecord(
        name=name,
        application=application,
        schedule=_read_schedule(schedule),
        job=msgspec.structs.replace(_read_job(job), payload=payload),
        description=description,
        revision=revision,
        created_at=from_micros(created_at),
        after=from_micros(after),
        next_at=_instant(next_at),
        ended=ended,
        waiting_tick=_instant(waiting_tick),
        paused_at=_instant(paused_at),
        paused_by=paused_by,
        reason=reason,
        last_tick=_instant(last_tick),
        last_job=last_job,
        fired=fired,
        missed=missed,
        overlapped=overlapped,
        kept_out=kept_out,
    )


@lru_cache(maxsize=1000)
def _read_schedule(text: str) -> Schedule:
    return _schedule.decode(text)


@lru_cache(maxsize=1000)
def _read_job(text: str) -> NewJob:
    return _job.decode(text)


def _instant(micros: int | None) -> datetime | None:
    return None if micros is None else from_micros(micros)


def add(records: Sequence[ScheduleRecord]) -> Routine[None]:
    """Store new schedules, whose ticks count from when they were created."""
    for part in _parts(records):
        yield _written(_ADD, part)


def change(records: Sequence[ScheduleRecord]) -> Routine[None]:
    """Write what schedules say, and where they stand, over what is there; the caller has locked them."""
    for part in _parts(records):
        yield _written(_CHANGE, part)


def _parts(records: Sequence[ScheduleRecord]) -> Iterator[Sequence[ScheduleRecord]]:
    """Yield schedules in parts that one statement can take."""
    part: list[ScheduleRecord] = []
    size = 0
    for record in records:
        if part and (len(part) >= ROWS or size + len(record.job.payload) > BATCH_BYTES):
            yield part
            part, size = [], 0
        part.append(record)
        size += len(record.job.payload)
    if part:
        yield part


def _written(sql: str, records: Sequence[ScheduleRecord]) -> Query:
    payloads = [record.job.payload for record in records]
    sizes = [len(payload) for payload in payloads]
    return Query(
        sql,
        (
            text_array([record.name for record in records]),
            text_array([record.application for record in records]),
            text_array([json_text(record.schedule) for record in records]),
            text_array([json_text(msgspec.structs.replace(record.job, payload=b"")) for record in records]),
            b"".join(payloads),
            plain_array(accumulate(sizes[:-1], initial=1)),
            plain_array(sizes),
            text_array([record.description for record in records]),
            plain_array([record.revision for record in records]),
            plain_array([record.after.isoformat() for record in records]),
            nullable_array([_text(record.next_at) for record in records]),
            plain_array([record.ended for record in records]),
            nullable_array([_text(record.waiting_tick) for record in records]),
        ),
    )


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
