"""The verbs for schedules. What becomes of one is decided in `taskharbor.driver`; here it is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from taskharbor.clock import from_micros
from taskharbor.driver import (
    UPKEEP,
    CreateStatus,
    Declared,
    DeclareStatus,
    DueSchedule,
    DueSchedules,
    Fired,
    Firing,
    JobEnqueue,
    ScheduleCreate,
    ScheduleDeclare,
    ScheduleDelete,
    ScheduleDue,
    ScheduleFind,
    ScheduleFire,
    SchedulePause,
    ScheduleResume,
)
from taskharbor.driver.declaring import DECLARATIONS, Declaration, changes, first_record, judge, rewritten
from taskharbor.driver.timetable import fired_record, paused_record, resumed_record
from taskharbor.drivers.memory.enqueue import job_enqueue
from taskharbor.drivers.memory.leader import last_fence
from taskharbor.drivers.memory.tables import Tables
from taskharbor.schedule import ScheduleRecord

_TO_COMPUTE = datetime(1, 1, 1, tzinfo=UTC)
"""Stands for the next tick where it is to be computed: before all others."""


def schedule_declare(tables: Tables, request: ScheduleDeclare, now: int) -> Declared:
    """Make an application's schedules those declared here."""
    digests = tables.declared.setdefault(request.application, {})
    present = None
    if digests:
        digest = next(reversed(digests))
        present = Declaration(digest, digests[digest])
    judged = judge(request, present=present, known=digests)
    status, generation, _ = judged
    if status is not DeclareStatus.DECLARED:
        return Declared(status=status, generation=generation)
    digests.pop(request.digest, None)
    digests[request.digest] = generation
    if len(digests) > DECLARATIONS:
        del digests[next(iter(digests))]
    change = changes(request, tables.schedules, from_micros(now))
    for record in (*change.added, *change.changed):
        tables.schedules[record.name] = record
    for name in change.removed:
        del tables.schedules[name]
    return change.answer(judged)


def schedule_create(tables: Tables, request: ScheduleCreate, now: int) -> Sequence[CreateStatus]:
    """Create schedules and return one answer each, in order."""
    answers: list[CreateStatus] = []
    for schedule in request.schedules:
        there = tables.schedules.get(schedule.name)
        if there is None:
            tables.schedules[schedule.name] = first_record(schedule, None, from_micros(now))
            answers.append(CreateStatus.CREATED)
        elif request.replace and there.application is None:
            tables.schedules[schedule.name] = rewritten(there, schedule, None, from_micros(now)) or there
            answers.append(CreateStatus.REPLACED)
        else:
            answers.append(CreateStatus.EXISTING)
    return answers


def schedule_delete(tables: Tables, request: ScheduleDelete, now: int) -> Sequence[bool]:
    """Delete schedules and return, for each, whether it was there."""
    return [tables.schedules.pop(name, None) is not None for name in request.names]


def schedule_pause(tables: Tables, request: SchedulePause, now: int) -> Sequence[bool]:
    """Pause schedules and return, for each, whether it is there."""
    at = from_micros(now)
    return _change_each(
        tables, request.names, lambda record: paused_record(record, request.by, request.reason, at)
    )


def schedule_resume(tables: Tables, request: ScheduleResume, now: int) -> Sequence[bool]:
    """Resume schedules and return, for each, whether it is there."""
    at = from_micros(now)
    return _change_each(tables, request.names, lambda record: resumed_record(record, at))


def _change_each(
    tables: Tables, names: Sequence[str], change: Callable[[ScheduleRecord], ScheduleRecord]
) -> list[bool]:
    for name in names:
        if name in tables.schedules:
            tables.schedules[name] = change(tables.schedules[name])
    return [name in tables.schedules for name in names]


def schedule_find(tables: Tables, request: ScheduleFind, now: int) -> Sequence[ScheduleRecord]:
    """Return the matching schedules in order of name."""
    names = tables.schedules.keys() if request.names is None else set(request.names) & tables.schedules.keys()
    found = [
        tables.schedules[name] for name in sorted(names) if request.after is None or name > request.after
    ]
    if request.application is not None:
        found = [record for record in found if record.application == request.application]
    return found[: max(request.limit, 0)]


def schedule_due(tables: Tables, request: ScheduleDue, now: int) -> DueSchedules:
    """Return the schedules to be looked at now."""
    at = from_micros(now)
    due: list[tuple[datetime, DueSchedule]] = []
    later: list[datetime] = []
    for record in tables.schedules.values():
        if record.paused_at is not None:
            continue
        busy = _is_busy(tables, record)
        since = [] if record.waiting_tick is None or busy else [record.waiting_tick]
        next_at = record.next_at or _TO_COMPUTE
        if not record.ended:
            (since if next_at <= at else later).append(next_at)
        if since:
            due.append((min(since), DueSchedule(record=record, busy=busy)))
    due.sort(key=lambda one: (one[0], one[1].record.name))
    taken = due[: max(request.limit, 0)]
    next_in = min(later) - at if later else None
    return DueSchedules(
        now=at,
        due=[one for _, one in taken],
        next_in=timedelta(0) if len(taken) < len(due) else next_in,
    )


def _is_busy(tables: Tables, record: ScheduleRecord) -> bool:
    row = None if record.last_job is None else tables.rows.get(record.last_job)
    return row is not None and row.final is None


def schedule_fire(tables: Tables, request: ScheduleFire, now: int) -> Sequence[Fired]:
    """Store the jobs of ticks, move schedules on, and return one answer each, in order."""
    if request.fence is not None and last_fence(tables, UPKEEP) > request.fence:
        return [Fired(moved=False)] * len(request.firings)
    return [_fire(tables, firing, now) for firing in request.firings]


def _fire(tables: Tables, firing: Firing, now: int) -> Fired:
    record = tables.schedules.get(firing.name)
    if record is None or record.revision != firing.revision:
        return Fired(moved=False)
    answers = job_enqueue(tables, JobEnqueue(jobs=firing.jobs), now) if firing.jobs else ()
    tables.schedules[firing.name] = fired_record(record, firing, answers)
    return Fired(moved=True, jobs=answers)
