"""What becomes of a declaration, and of each schedule that is written again: one decision for every driver."""

from __future__ import annotations

from collections.abc import Container
from datetime import datetime
from typing import NamedTuple

import msgspec

from taskharbor.driver.schedule import DeclareStatus, ScheduleDeclare
from taskharbor.schedule import NewSchedule, ScheduleRecord


class Declaration(NamedTuple):
    """A set of schedules that an application has declared once."""

    digest: bytes
    generation: int


def judge(
    request: ScheduleDeclare, *, present: Declaration | None, known: Container[bytes]
) -> tuple[DeclareStatus, int]:
    """Return what becomes of a declaration, and the generation that is the present one after it.

    Args:
        request: the declaration.
        present: the one that the store has, if the application has declared before.
        known: holds the digests of all that are remembered; of the request's own is enough.
    """
    given = request.generation
    if present is None:
        return DeclareStatus.DECLARED, 1 if given is None else given
    if given is not None:
        if given < present.generation:
            return DeclareStatus.OUTDATED, present.generation
        same = given == present.generation and request.digest == present.digest
        return (DeclareStatus.CURRENT if same else DeclareStatus.DECLARED), given
    if request.digest == present.digest:
        return DeclareStatus.CURRENT, present.generation
    if request.digest in known and not request.force:
        return DeclareStatus.OUTDATED, present.generation
    return DeclareStatus.DECLARED, present.generation + 1


def first_record(new: NewSchedule, application: str | None, now: datetime) -> ScheduleRecord:
    """Return a new schedule as it is stored: its ticks count from now."""
    return ScheduleRecord(
        name=new.name,
        application=application,
        schedule=new.schedule,
        job=new.job,
        description=new.description,
        revision=1,
        created_at=now,
        after=now,
        next_at=None,
    )


def rewritten(
    record: ScheduleRecord, new: NewSchedule, application: str | None, now: datetime
) -> ScheduleRecord | None:
    """Return a schedule as it is after what it says was written again; None if it says the same.

    It keeps its pause, its counts and its last job. If its trigger is the same it keeps its ticks, too, unless they had
    come to an end that is another now; else they count from now, and none waits any more. Of whatever application the
    name was before, or of none: it is this one's now.
    """
    before = (record.application, record.schedule, record.job, record.description)
    if before == (application, new.schedule, new.job, new.description):
        return None
    changed = msgspec.structs.replace(
        record,
        application=application,
        schedule=new.schedule,
        job=new.job,
        description=new.description,
        revision=record.revision + 1,
    )
    same_ticks = record.schedule.trigger == new.schedule.trigger
    if same_ticks and not (record.ended and record.schedule.until != new.schedule.until):
        return changed
    return msgspec.structs.replace(changed, after=now, next_at=None, ended=False, waiting_tick=None)
