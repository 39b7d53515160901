"""Schedules as rows: read, written, and what their columns hold.

`due` is the next tick, or `TO_COMPUTE` where that is to be computed: so those stand first in the index by which due
ones are found. What a tick's job is made of stands last in a row, since it may be large.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import lru_cache

import msgspec

from taskharbor.clock import from_micros, micros
from taskharbor.drivers.sqlite.enqueue import insert_many
from taskharbor.drivers.sqlite.routine import Cell, Query, Routine, Row
from taskharbor.drivers.sqlite.rows import json_text
from taskharbor.job import NewJob
from taskharbor.schedule import Schedule, ScheduleRecord

TO_COMPUTE = -(1 << 62)
"""Before every instant."""
_NAMES = (
    "name, application, task, queue, schedule, description, revision, created_at, after_at, due, ended, waiting_tick, "
    "paused_at, paused_by, reason, last_tick, last_job, fired, missed, overlapped, kept_out, job"
)
COLUMNS = f"s.{_NAMES}".replace(", ", ", s.")
"""What `record_of` reads, of a table named `s`."""
_CELLS = len(_NAMES.split(","))
_WRITE = f"INSERT OR REPLACE INTO taskharbor_schedule ({_NAMES}) VALUES "  # noqa: S608 - our own constants
_REMOVE = "DELETE FROM taskharbor_schedule WHERE name IN (SELECT value FROM json_each(?))"
_THERE = """SELECT name FROM taskharbor_schedule WHERE name IN (SELECT value FROM json_each(?))"""

_blob_of = msgspec.msgpack.Encoder().encode
_job_of = msgspec.msgpack.Decoder(NewJob).decode
_read_schedule = msgspec.json.Decoder(Schedule).decode


@lru_cache(maxsize=1000)  # immutable, and looked at again and again
def _schedule_of(text: str) -> Schedule:
    return _read_schedule(text)


def record_of(row: Row) -> ScheduleRecord:
    """Return the record that a row of `COLUMNS` holds; what follows them is passed over."""
    (
        name,
        application,
        _,
        _,
        schedule,
        description,
        revision,
        created_at,
        after,
        due,
        ended,
        waiting_tick,
    ) = row[:12]
    paused_at, paused_by, reason, last_tick, last_job, fired, missed, overlapped, kept_out, job = row[
        12:_CELLS
    ]
    return ScheduleRecord(
        name=name,
        application=application,
        schedule=_schedule_of(schedule),
        job=_job_of(job),
        description=description,
        revision=revision,
        created_at=from_micros(created_at),
        after=from_micros(after),
        next_at=None if ended or due == TO_COMPUTE else from_micros(due),
        ended=bool(ended),
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


def _instant(cell: int | None) -> datetime | None:
    return None if cell is None else from_micros(cell)


def cell_of(instant: datetime | None) -> int | None:
    """Return an instant as it is stored."""
    return None if instant is None else micros(instant)


def due_of(next_at: datetime | None) -> int:
    """Return what `due` holds for a next tick."""
    return TO_COMPUTE if next_at is None else micros(next_at)


def _cells_of(record: ScheduleRecord) -> tuple[Cell, ...]:
    return (
        record.name,
        record.application,
        record.job.task,
        record.job.queue,
        json_text(record.schedule),
        record.description,
        record.revision,
        micros(record.created_at),
        micros(record.after),
        due_of(record.next_at),
        int(record.ended),
        cell_of(record.waiting_tick),
        cell_of(record.paused_at),
        record.paused_by,
        record.reason,
        cell_of(record.last_tick),
        record.last_job,
        record.fired,
        record.missed,
        record.overlapped,
        record.kept_out,
        _blob_of(record.job),
    )


def write(records: Iterable[ScheduleRecord]) -> Routine[None]:
    """Store records, whatever is there under their names."""
    cells = [cell for record in records for cell in _cells_of(record)]
    yield from insert_many(_WRITE, cells, _CELLS)


def remove(names: Sequence[str]) -> Routine[None]:
    """Remove what is there under these names."""
    yield Query(_REMOVE, (json_text(names),))


def there(names: Sequence[str]) -> Routine[set[str]]:
    """Return which of these names are there."""
    return {name for (name,) in (yield Query(_THERE, (json_text(names),)))}
