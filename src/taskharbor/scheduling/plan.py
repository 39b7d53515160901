"""The one decision: how a schedule that is due moves on. Misfires, overlaps and limits, with no store and no clock.

Its ticks since the last look are told apart into *late* ones, of which the misfire policy takes some, and those *on
time*. What is taken goes through the overlap policy, in order. A tick's job has an id made of the schedule's name and
the tick, so that a tick decided on twice would still be one job.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from hashlib import blake2b
from itertools import islice, takewhile
from typing import NamedTuple
from uuid import UUID

from msgspec.structs import replace

from taskharbor.clock import micros
from taskharbor.driver.schedule import DueSchedule, Firing
from taskharbor.job import NewJob
from taskharbor.schedule import (
    CATCH_UP_LIMIT,
    SCHEDULE_META,
    TICK_META,
    Misfire,
    Overlap,
    Schedule,
    ScheduleRecord,
)
from taskharbor.scheduling.times import late, ticks

_MICRO = timedelta(microseconds=1)
_VERSION_7 = 0x7000_8000_0000_0000_0000
"""The version and variant bits of a UUIDv7."""
_DRAWN = (0xFFF << 64) | ((1 << 62) - 1)
"""Its bits that stand for chance, and here for the hash."""


class _Taken(NamedTuple):
    """Ticks that the misfire policy leaves, in order; one more than the limit if there are more."""

    ticks: list[datetime]
    missed: int


class _Passed(NamedTuple):
    """What the overlap policy makes of ticks."""

    fire: Sequence[datetime]
    waiting: datetime | None
    overlapped: int


def plan(due: DueSchedule, now: datetime) -> Firing:
    """Return how a schedule moves on at an instant.

    One that was never looked at, or whose ticks count anew, only learns its next tick. Of the others each tick up to
    now is fired, kept, or counted as missed or overlapped; if that would be more than `CATCH_UP_LIMIT` jobs, what is
    left stays due, and the next look goes on.

    Args:
        due: the schedule as the store told it.
        now: the store's clock.

    Raises:
        OptionError: its time zone is not known on this machine.
    """
    record = due.record
    if record.next_at is None and not record.ended:
        return _moved(record, record.after, waiting=record.waiting_tick)
    taken = _taken(record.schedule, record.after, now)
    run, rest = taken.ticks[:CATCH_UP_LIMIT], taken.ticks[CATCH_UP_LIMIT:]
    kept = [] if record.waiting_tick is None else [record.waiting_tick]
    passed = _passed(record.schedule.overlap, kept + run, busy=due.busy)
    firing = _moved(record, run[-1] if rest else max(now, record.after), waiting=passed.waiting)
    return replace(
        firing,
        jobs=[tick_job(record.name, record.job, tick) for tick in passed.fire],
        last_tick=passed.fire[-1] if passed.fire else None,
        missed=taken.missed,
        overlapped=passed.overlapped,
    )


def tick_job(name: str, template: NewJob, tick: datetime) -> NewJob:
    """Return the job of one tick of the schedule of that name."""
    meta = {**template.meta, SCHEDULE_META: name, TICK_META: tick.isoformat()}
    return replace(template, id=tick_id(name, tick), run_at=tick, run_in=None, meta=meta)


def tick_id(name: str, tick: datetime) -> str:
    """Return the id of a tick's job: a UUIDv7 of the tick's time and a hash of both, the same for ever."""
    since = micros(tick)
    hashed = int.from_bytes(blake2b(f"{since}\0{name}".encode(), digest_size=10).digest())
    return str(UUID(int=max(since // 1000, 0) << 80 | _VERSION_7 | hashed & _DRAWN))


def _taken(schedule: Schedule, after: datetime, now: datetime) -> _Taken:
    on_time_from = now - schedule.grace
    keep = {Misfire.SKIP: 0, Misfire.ONCE: 1, Misfire.CATCH_UP: schedule.catch_up}[schedule.misfire]
    past = late(schedule, after, on_time_from, keep)
    present = takewhile(lambda tick: tick <= now, ticks(schedule, max(after, on_time_from - _MICRO)))
    room = max(CATCH_UP_LIMIT + 1 - len(past.latest), 0)
    return _Taken([*past.latest, *islice(present, room)], past.number - len(past.latest))


def _passed(overlap: Overlap, run: Sequence[datetime], *, busy: bool) -> _Passed:
    if overlap is Overlap.ALLOW:
        return _Passed(run, None, 0)
    fire, behind = ((), run) if busy else (run[:1], run[1:])
    if overlap is Overlap.QUEUE_ONE and behind:
        return _Passed(fire, behind[-1], len(behind) - 1)
    return _Passed(fire, None, len(behind))


def _moved(record: ScheduleRecord, after: datetime, *, waiting: datetime | None) -> Firing:
    next_at = next(ticks(record.schedule, after), None)
    return Firing(
        name=record.name,
        revision=record.revision,
        after=after,
        next_at=next_at,
        ended=next_at is None,
        waiting_tick=waiting,
    )
