"""Schedules: declared by applications, created by hand, and fired by whoever leads.

A store knows no calendar. It tells which schedules are due; the leader computes their ticks (`taskharbor.scheduling`)
and has the jobs stored and the schedule moved on in one step. Each such step names the revision that it has read:
where two have looked at the same schedule, one of them changes nothing. So a tick has one job, whoever died between.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

import msgspec

from taskharbor.driver.request import Request
from taskharbor.driver.store import Enqueued
from taskharbor.job import NewJob
from taskharbor.schedule import NewSchedule, ScheduleRecord


class ScheduleDeclare(Request, frozen=True, kw_only=True):
    """Make an application's schedules those declared here: add, change, and remove what is declared no more.

    An application's declarations have a *generation*. The store remembers the digest of each set that was ever declared
    (the last 1000 of an application) with its generation:

    - the present set's digest: nothing is changed;
    - a digest it has not seen: a new generation, one more than the greatest, or the one given;
    - a digest of an older generation: an old worker, during a rolling deploy. Nothing is changed, unless `force`, which
      makes a new generation of it, as a rollback does.

    Where a generation is given, numbers alone decide: a smaller one than the present is outdated, any other is taken
    over. What is changed keeps its pause, its counts and its last job. If its trigger is the same it keeps its next
    tick (to be computed anew if its end was moved); else, and if it had ended, its ticks count from now. A schedule
    that was created at run time under a name declared here becomes the application's.

    The decisions are in `declaring`.
    """

    application: str
    schedules: Sequence[NewSchedule]
    """Each name begins with the application's name and a slash."""
    digest: bytes
    """Of the whole set."""
    generation: int | None = None
    force: bool = False


class DeclareStatus(StrEnum):
    """What became of a declaration."""

    CURRENT = "current"
    """It is what the store has."""
    DECLARED = "declared"
    OUTDATED = "outdated"
    """A later generation is there: nothing was changed."""


class Declared(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a `schedule_declare`."""

    status: DeclareStatus
    generation: int
    """The present one, after it."""
    added: Sequence[str] = ()
    changed: Sequence[str] = ()
    removed: Sequence[str] = ()
    """Names, each list sorted."""
    contested: bool = False
    """Another set was declared under the very number that was given, and is replaced: two deployments have one."""


class ScheduleCreate(Request, frozen=True, kw_only=True):
    """Create schedules at run time; no declaration ever removes them."""

    schedules: Sequence[NewSchedule]
    replace: bool = False
    """Change what is there under the name, if that was created at run time too; it keeps what a declaration would."""


class CreateStatus(StrEnum):
    """What became of one schedule of a `schedule_create`."""

    CREATED = "created"
    REPLACED = "replaced"
    EXISTING = "existing"
    """The name is taken: nothing was written."""


class ScheduleDelete(Request, frozen=True, kw_only=True):
    """Delete schedules, declared ones too: those come back with the next generation that declares them."""

    names: Sequence[str]


class SchedulePause(Request, frozen=True, kw_only=True):
    """Fire schedules no more until they are resumed. Pausing again keeps the first instant."""

    names: Sequence[str]
    by: str = ""
    reason: str = ""


class ScheduleResume(Request, frozen=True, kw_only=True):
    """Let schedules fire again, from now on: ticks that passed meanwhile are not made up for. A tick that waits for a
    job's end is let go too. Those not paused are left as they are.
    """

    names: Sequence[str]


class ScheduleFind(Request, frozen=True, kw_only=True):
    """Find schedules, in order of name."""

    names: Sequence[str] | None = None
    application: str | None = None
    after: str | None = None
    """Only those whose names come after this one."""
    limit: int = 1000


class ScheduleDue(Request, frozen=True, kw_only=True):
    """Find what the scheduler has to look at, of schedules that are not paused: those not ended whose `next_at` has
    come or is to be computed, and those, ended or not, that keep a tick for the end of a job that has ended.
    """

    limit: int = 500


class DueSchedule(msgspec.Struct, frozen=True, kw_only=True):
    """One schedule to be looked at."""

    record: ScheduleRecord
    busy: bool
    """The job it last made has not ended."""


class DueSchedules(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a `schedule_due`."""

    now: datetime
    """By the store's clock."""
    due: Sequence[DueSchedule]
    """The longest due first, those to be computed before all, those due at the same instant in order of name. What
    keeps a tick has been due since that tick."""
    next_in: timedelta | None
    """How long until another is due: zero if the limit ended the list, None if there is none. What waits for a job's
    end is not foreseen."""


class Firing(msgspec.Struct, frozen=True, kw_only=True):
    """How one schedule moves on."""

    name: str
    revision: int
    """As it was read."""
    jobs: Sequence[NewJob] = ()
    """In order of their ticks. Stored as `job_enqueue` would, keys and all; the step is not undone by one whose key is
    taken."""
    last_tick: datetime | None = None
    """That of the last job. It becomes the schedule's if no key keeps that job out; else the `run_at` of the last that
    is not kept out does. None leaves what is there, as when it is triggered by hand."""
    after: datetime | None = None
    """None leaves `after`, `next_at`, `ended` and `waiting_tick` as they are, as when it is triggered by hand."""
    next_at: datetime | None = None
    ended: bool = False
    waiting_tick: datetime | None = None
    missed: int = 0
    overlapped: int = 0


class ScheduleFire(Request, frozen=True, kw_only=True):
    """Store the jobs of ticks and move their schedules on. Each firing is one atomic step."""

    firings: Sequence[Firing]
    fence: int | None = None
    """Of the caller's leadership of `UPKEEP`: where a later leader has come, nothing is changed. None where a person
    asks."""


class Fired(msgspec.Struct, frozen=True, kw_only=True):
    """The answer for one firing."""

    moved: bool
    """False: the schedule is gone, or was written since it was read, or another leads. Nothing was changed."""
    jobs: Sequence[Enqueued] = ()
    """One a job, in order. `fired` counts those created, `kept_out` those whose key another job has; `last_job` is the
    last one created or replaced, and stays as it is where there is none."""


class Schedules(Protocol):
    """The verbs for schedules."""

    async def schedule_declare(self, request: ScheduleDeclare, /) -> Declared:
        """Make an application's schedules those declared here."""
        ...

    async def schedule_create(self, request: ScheduleCreate, /) -> Sequence[CreateStatus]:
        """Create schedules and return one answer each, in order."""
        ...

    async def schedule_delete(self, request: ScheduleDelete, /) -> Sequence[bool]:
        """Delete schedules and return, for each, whether it was there."""
        ...

    async def schedule_pause(self, request: SchedulePause, /) -> Sequence[bool]:
        """Pause schedules and return, for each, whether it is there."""
        ...

    async def schedule_resume(self, request: ScheduleResume, /) -> Sequence[bool]:
        """Resume schedules and return, for each, whether it is there."""
        ...

    async def schedule_find(self, request: ScheduleFind, /) -> Sequence[ScheduleRecord]:
        """Return the matching schedules in order of name."""
        ...

    async def schedule_due(self, request: ScheduleDue, /) -> DueSchedules:
        """Return the schedules to be looked at now."""
        ...

    async def schedule_fire(self, request: ScheduleFire, /) -> Sequence[Fired]:
        """Store the jobs of ticks, move schedules on, and return one answer each, in order."""
        ...
