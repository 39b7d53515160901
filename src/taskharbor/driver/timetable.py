"""What becomes of schedules that are declared, created, resumed and fired: one decision for every driver's verbs.

A driver says what it has; the rules are here, and in the docstrings of `schedule` (rule 4.22).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from msgspec.structs import replace

from taskharbor.driver.schedule import DeclareStatus, Firing, ScheduleDeclare
from taskharbor.driver.store import Enqueued, EnqueueStatus
from taskharbor.job import new_token
from taskharbor.schedule import NewSchedule, ScheduleRecord

DECLARATIONS = 1000
"""Digests of sets that are remembered of an application, the last ones."""
_REVISION_BITS = 46
"""Of the number that a schedule's revisions begin at; room is left for growth, and they are exact in JSON."""
_REPLACED = frozenset({EnqueueStatus.CREATED, EnqueueStatus.REPLACED})


class Present(NamedTuple):
    """What an application has declared last."""

    generation: int = 0
    digest: bytes | None = None
    """None where it has declared nothing yet."""


class Changes(NamedTuple):
    """What has to be written so that an application's schedules are those that it declares."""

    added: list[ScheduleRecord]
    changed: list[ScheduleRecord]
    removed: list[str]


def declared_as(request: ScheduleDeclare, present: Present, *, known: bool) -> tuple[DeclareStatus, int]:
    """Return what becomes of a declaration, and the generation that is the present one after it.

    Args:
        request: what is declared.
        present: what the application declared last.
        known: whether the digest is remembered.
    """
    if request.generation is not None:
        if request.generation < present.generation:
            return DeclareStatus.OUTDATED, present.generation
        if request.generation > present.generation or request.digest != present.digest:
            return DeclareStatus.DECLARED, request.generation
        return DeclareStatus.CURRENT, present.generation
    if request.digest == present.digest:
        return DeclareStatus.CURRENT, present.generation
    if known and not request.force:
        return DeclareStatus.OUTDATED, present.generation
    return DeclareStatus.DECLARED, present.generation + 1


def changes(request: ScheduleDeclare, stored: Mapping[str, ScheduleRecord], now: datetime) -> Changes:
    """Return what a declaration that is taken over changes.

    Args:
        request: what is declared.
        stored: the schedules of the application, and whatever else has a name that is declared.
        now: the present.
    """
    wanted = {schedule.name: schedule for schedule in request.schedules}
    added: list[ScheduleRecord] = []
    changed: list[ScheduleRecord] = []
    for name, schedule in wanted.items():
        there = stored.get(name)
        if there is None:
            added.append(new_record(schedule, request.application, now))
            continue
        record = changed_record(there, schedule, request.application, now)
        if record is not there:
            changed.append(record)
    removed = sorted(
        name
        for name, there in stored.items()
        if there.application == request.application and name not in wanted
    )
    return Changes(added, changed, removed)


def sorted_names(records: Iterable[ScheduleRecord]) -> list[str]:
    """Return their names, sorted, as `Declared` has them."""
    return sorted(record.name for record in records)


def new_record(schedule: NewSchedule, application: str | None, now: datetime) -> ScheduleRecord:
    """Return the record of a schedule that was not there. Its revisions begin at a random number, so that who has read
    one of the same name that was deleted since changes nothing.
    """
    return ScheduleRecord(
        name=schedule.name,
        application=application,
        schedule=schedule.schedule,
        job=schedule.job,
        description=schedule.description,
        revision=new_token() >> (63 - _REVISION_BITS),
        created_at=now,
        after=now,
        next_at=None,
    )


def changed_record(
    record: ScheduleRecord, schedule: NewSchedule, application: str | None, now: datetime
) -> ScheduleRecord:
    """Return a record with what is new of it; the very same object if nothing is.

    It keeps its pause, its counts and its last job. With the same trigger it keeps its next tick, which is computed
    anew if the end has been moved; with another, and where it had no tick any more, ticks count from now.
    """
    same = (record.application, record.schedule, record.job, record.description)
    if same == (application, schedule.schedule, schedule.job, schedule.description):
        return record
    changed = replace(
        record,
        application=application,
        schedule=schedule.schedule,
        job=schedule.job,
        description=schedule.description,
        revision=record.revision + 1,
    )
    before, after = record.schedule, schedule.schedule
    if before.trigger != after.trigger:
        return replace(changed, after=now, next_at=None, ended=False, waiting_tick=None)
    if before.until != after.until:
        return replace(changed, after=now if record.ended else record.after, next_at=None, ended=False)
    return changed


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
    last = next((answer.job_id for answer in reversed(answers) if answer.status in _REPLACED), None)
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
