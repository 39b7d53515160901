"""What becomes of schedules that are paused, resumed and fired: one decision for every driver (rule 4.22)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from msgspec.structs import replace

from taskharbor.driver.schedule import Firing
from taskharbor.driver.store import Enqueued, EnqueueStatus
from taskharbor.job import NewJob
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


class Made(NamedTuple):
    """What came of a firing's jobs."""

    fired: int
    """Created."""
    kept_out: int
    """Not made because another job has their key."""
    last_tick: datetime | None
    """That of the last one that is there now; None if there is none, or it was triggered by hand."""
    last_job: str | None
    """The last that was created or replaced; None if there is none."""


def kept_out(job: NewJob, answer: Enqueued) -> bool:
    """Return whether a job was not made because another has its key; one that is stored already was not kept out."""
    return answer.status not in _WRITTEN and answer.job_id != job.id


def made(firing: Firing, answers: Sequence[Enqueued]) -> Made:
    """Return what came of a firing's jobs, which were answered so."""
    there = [job for job, answer in zip(firing.jobs, answers, strict=True) if not kept_out(job, answer)]
    last_tick = None
    if there and firing.last_tick is not None:
        last_tick = firing.last_tick if there[-1] is firing.jobs[-1] else there[-1].run_at
    return Made(
        sum(answer.status is EnqueueStatus.CREATED for answer in answers),
        len(firing.jobs) - len(there),
        last_tick,
        next((answer.job_id for answer in reversed(answers) if answer.status in _WRITTEN), None),
    )


def fired_record(record: ScheduleRecord, firing: Firing, answers: Sequence[Enqueued]) -> ScheduleRecord:
    """Return a record moved on by a firing, whose jobs were answered so."""
    came = made(firing, answers)
    moved = replace(
        record,
        revision=record.revision + 1,
        last_tick=came.last_tick or record.last_tick,
        last_job=came.last_job or record.last_job,
        fired=record.fired + came.fired,
        missed=record.missed + firing.missed,
        overlapped=record.overlapped + firing.overlapped,
        kept_out=record.kept_out + came.kept_out,
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
