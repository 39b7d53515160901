"""Schedules for cases, and short ways to ask what is done with them. Ticks are the cases' own: stores know none."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from taskharbor.driver import (
    CreateStatus,
    Declared,
    DueSchedules,
    EnqueueStatus,
    Fired,
    Firing,
    ScheduleCreate,
    ScheduleDeclare,
    ScheduleDelete,
    ScheduleDue,
    ScheduleFind,
    ScheduleFire,
    SchedulePause,
    ScheduleResume,
)
from taskharbor.job import NewJob, new_job_id
from taskharbor.schedule import Every, NewSchedule, Schedule, ScheduleRecord, Trigger
from taskharbor_conformance.bench import ENOUGH, HOUR, Bench, new_job

MINUTE = timedelta(minutes=1)


def template(job: NewJob | None = None) -> NewJob:
    """Return what a tick's job is made of: a job without an id."""
    return msgspec.structs.replace(job or new_job(), id="")


def new_schedule(
    name: str = "tick",
    trigger: Trigger | None = None,
    *,
    until: datetime | None = None,
    job: NewJob | None = None,
    description: str = "",
) -> NewSchedule:
    """Return a schedule to be stored, each hour unless said otherwise."""
    schedule = Schedule(trigger=trigger or Every(HOUR), until=until)
    return NewSchedule(name=name, schedule=schedule, job=template(job), description=description)


def job_of(record: ScheduleRecord) -> NewJob:
    """Return a job for one tick."""
    return msgspec.structs.replace(record.job, id=new_job_id())


async def declare(
    bench: Bench,
    *schedules: NewSchedule,
    application: str = "app",
    digest: bytes | None = None,
    generation: int | None = None,
    force: bool = False,
) -> Declared:
    """Declare an application's schedules, by default under a digest that is their own text."""
    told = msgspec.json.encode(schedules)
    return await bench.store.schedule_declare(
        ScheduleDeclare(
            application=application,
            schedules=schedules,
            digest=told if digest is None else digest,
            generation=generation,
            force=force,
            now=bench.now,
        )
    )


async def create(bench: Bench, *schedules: NewSchedule, replace: bool = False) -> list[CreateStatus]:
    """Create schedules at run time."""
    request = ScheduleCreate(schedules=schedules, replace=replace, now=bench.now)
    answers = list(await bench.store.schedule_create(request))
    assert len(schedules) == len(answers), "schedule_create: one answer a schedule"
    return answers


async def delete(bench: Bench, *names: str) -> list[bool]:
    """Delete schedules."""
    return list(await bench.store.schedule_delete(ScheduleDelete(names=names, now=bench.now)))


async def pause(bench: Bench, *names: str, by: str = "", reason: str = "") -> list[bool]:
    """Pause schedules."""
    request = SchedulePause(names=names, by=by, reason=reason, now=bench.now)
    return list(await bench.store.schedule_pause(request))


async def resume(bench: Bench, *names: str) -> list[bool]:
    """Resume schedules."""
    return list(await bench.store.schedule_resume(ScheduleResume(names=names, now=bench.now)))


async def find(
    bench: Bench,
    *names: str,
    application: str | None = None,
    after: str | None = None,
    limit: int = ENOUGH,
) -> list[ScheduleRecord]:
    """Find schedules: those named, or all."""
    request = ScheduleFind(
        names=names or None, application=application, after=after, limit=limit, now=bench.now
    )
    return list(await bench.store.schedule_find(request))


async def record_of(bench: Bench, name: str = "tick") -> ScheduleRecord:
    """Return a schedule that must be there."""
    (record,) = await find(bench, name)
    return record


async def names_of(bench: Bench) -> list[str]:
    """Return the names of all schedules."""
    return [record.name for record in await find(bench)]


async def due(bench: Bench, limit: int = ENOUGH) -> DueSchedules:
    """Return what is to be looked at."""
    return await bench.store.schedule_due(ScheduleDue(limit=limit, now=bench.now))


async def due_names(bench: Bench, limit: int = ENOUGH) -> list[str]:
    """Return the names of what is to be looked at, in order."""
    return [one.record.name for one in (await due(bench, limit)).due]


async def fire(bench: Bench, *firings: Firing, fence: int | None = None) -> list[Fired]:
    """Move schedules on."""
    request = ScheduleFire(firings=firings, fence=fence, now=bench.now)
    answers = list(await bench.store.schedule_fire(request))
    assert len(firings) == len(answers), "schedule_fire: one answer a firing"
    return answers


def firing(
    record: ScheduleRecord,
    *jobs: NewJob,
    next_at: datetime | None = None,
    ended: bool = False,
    last_tick: datetime | None = None,
    waiting_tick: datetime | None = None,
    missed: int = 0,
    overlapped: int = 0,
    after: datetime,
) -> Firing:
    """Return how a schedule moves on, as it was read, past `after`."""
    return Firing(
        name=record.name,
        revision=record.revision,
        jobs=jobs,
        last_tick=last_tick,
        after=after,
        next_at=next_at,
        ended=ended,
        waiting_tick=waiting_tick,
        missed=missed,
        overlapped=overlapped,
    )


async def tick(bench: Bench, name: str = "tick", next_in: timedelta = HOUR) -> str:
    """Fire a schedule now, which must move it, and return the job's id."""
    record = await record_of(bench, name)
    job = job_of(record)
    (fired,) = await fire(
        bench, firing(record, job, last_tick=bench.now, after=bench.now, next_at=bench.now + next_in)
    )
    assert fired.moved, "schedule_fire: it was read as it is"
    assert [EnqueueStatus.CREATED] == [answer.status for answer in fired.jobs]
    return job.id


async def foresee(bench: Bench, *names: str, next_in: timedelta = HOUR) -> None:
    """Have the next ticks of schedules noted, as after a first look at them."""
    records = [await record_of(bench, name) for name in names]
    moves = [firing(each, after=bench.now, next_at=bench.now + next_in) for each in records]
    assert [True] * len(names) == [fired.moved for fired in await fire(bench, *moves)]


def moved(answers: Sequence[Fired]) -> list[bool]:
    """Return which of them moved their schedules."""
    return [answer.moved for answer in answers]
