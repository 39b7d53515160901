"""What becomes of schedules that are paused, resumed and fired: one decision for every driver (rule 4.22)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from msgspec.structs import replace

from taskharbor.driver.schedule import Firing
from taskharbor.driver.store import Enqueued, EnqueueStatus
from taskharbor.schedule import ScheduleRecord

_WRITTEN = frozenset({EnqueueStatus.CREATED, EnqueueStatus.REPLACED})


def paused_record(record: ScheduleRecord, by: str, reason: str, now: datetime) -> ScheduleRecord:
    """Return a record, paused; the very same object if it is already."""
    if record.paused_at is not None:
        return record
    return replace(record, paused_at=now, paused_by=by, reason=reason, revision=record.revision + 1)


def resumed_record(record: ScheduleRecord, now: datetime) -> ScheduleRecord:
    """Return a record that may fire again, from now on; the very same object if it was not paused."""
    if record.paused_at is None:
        return record
    return replace(
        record,
        paused_at=None,
        paused_by="",
        reason="",
        after=now,
        next_at=None,
        waiting_tick=None,
        revision=record.revision + 1,
    )


def made(answers: Sequence[Enqueued]) -> tuple[int, str | None]:
    """Return how many jobs a firing has made, and the last that it made or replaced; None if there is none."""
    fired = sum(answer.status is EnqueueStatus.CREATED for answer in answers)
    last = next((answer.job_id for answer in reversed(answers) if answer.status in _WRITTEN), None)
    return fired, last


def fired_record(record: ScheduleRecord, firing: Firing, answers: Sequence[Enqueued]) -> ScheduleRecord:
    """Return a record moved on by a firing, whose jobs were answered so."""
    fired, last_job = made(answers)
    moved = replace(
        record,
        revision=record.revision + 1,
        last_tick=firing.last_tick or record.last_tick,
        last_job=last_job or record.last_job,
        fired=record.fired + fired,
        missed=record.missed + firing.missed,
        overlapped=record.overlapped + firing.overlapped,
    )
    if firing.after is None:
        return moved
    return replace(
        moved,
        after=firing.after,
        next_at=firing.next_at,
        ended=firing.ended,
        waiting_tick=firing.waiting_tick,
    )
