"""A schedule: a call to be made again and again. Its times, its policies, its record.

The instants at which it is to fire are its *ticks*. Nothing here computes them: that needs the rules of calendars and
time zones (`taskharbor.scheduling`).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeAlias

import msgspec

from taskharbor.job import NewJob

DEFAULT_GRACE = timedelta(minutes=1)
DEFAULT_CATCH_UP = 100
CATCH_UP_LIMIT = 1000
"""Ticks that one look at a schedule makes jobs of, at most, whatever it declares."""
GENERATION_LIMIT = 2**53 - 1
"""The greatest number of a generation: JSON tells it exactly, and those of stores that count on fit in 64 bits."""
DEFAULT_APPLICATION = "default"
"""Whose declarations those are that name no application."""
SCHEDULE_META = "taskharbor.schedule"
"""Where a job's `meta` names the schedule that made it."""
TICK_META = "taskharbor.tick"
"""Where it tells the tick, in ISO format with its offset from UTC; not there if it was triggered by hand."""


class Cron(msgspec.Struct, frozen=True, tag="cron"):
    """Ticks by a cron expression, on the clocks of a time zone."""

    expression: str
    tz: str = "UTC"
    """A name of the IANA database."""


class Every(msgspec.Struct, frozen=True, tag="every"):
    """Ticks a fixed time apart, whatever clocks on walls do."""

    period: timedelta
    start: datetime | None = None
    """The first tick; aware. None counts from 1970-01-01T00:00Z, so that every hour is on the hour."""


Trigger: TypeAlias = Cron | Every


class Misfire(StrEnum):
    """What becomes of ticks that are later than the grace allows, as after an outage."""

    SKIP = "skip"
    """They are let go."""
    ONCE = "once"
    """One job stands for all of them: that of the latest."""
    CATCH_UP = "catch_up"
    """Each has its job, the latest of them up to a limit."""


class Overlap(StrEnum):
    """What becomes of a tick whose forerunner's job has not ended."""

    ALLOW = "allow"
    """It has its job."""
    SKIP = "skip"
    """It is let go."""
    QUEUE_ONE = "queue_one"
    """One tick, the latest, is kept until that job has ended, and then has its job; those before it are let go."""


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """When to fire, and what to do when that cannot be done in time. Made by `cron(...)` and `every(...)`."""

    trigger: Trigger
    misfire: Misfire = Misfire.ONCE
    catch_up: int = DEFAULT_CATCH_UP
    """How many late ticks have their jobs, with `Misfire.CATCH_UP`."""
    grace: timedelta = DEFAULT_GRACE
    """A tick that is no later than this is on time."""
    overlap: Overlap = Overlap.ALLOW
    until: datetime | None = None
    """No tick after this instant; aware."""


class NewSchedule(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule to be stored."""

    name: str
    """Unique in the store; a declared one's is `application/name`."""
    schedule: Schedule
    job: NewJob
    """What each tick's job is made of: all of it but its `id`, which is empty, and its `run_at`."""
    description: str = ""


class ScheduleRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the store knows of one schedule, at one instant."""

    name: str
    application: str | None
    """Whose declarations it is one of; None if it was created at run time."""
    schedule: Schedule
    job: NewJob
    description: str = ""
    revision: int
    """Grows whenever anything of it is written: a firing that has read an older one changes nothing."""
    created_at: datetime
    after: datetime
    """Its ticks up to this instant have been dealt with."""
    next_at: datetime | None
    """Its next tick, as computed when it was last looked at. None if it is to be computed, or there is no other
    (`ended`)."""
    ended: bool = False
    """It has no ticks any more."""
    waiting_tick: datetime | None = None
    """The tick that is kept until the last job has ended (`Overlap.QUEUE_ONE`)."""
    paused_at: datetime | None = None
    paused_by: str = ""
    reason: str = ""
    """Why it is paused."""
    last_tick: datetime | None = None
    """The last one that had a job."""
    last_job: str | None = None
    """That job, or the one last triggered by hand, whichever came later."""
    fired: int = 0
    """Jobs it has made, triggered ones included."""
    missed: int = 0
    """Ticks let go because they were too late."""
    overlapped: int = 0
    """Ticks let go because a job before had not ended."""
    kept_out: int = 0
    """Jobs not made because another has their key, as with a task's `unique=`; triggered ones included."""
