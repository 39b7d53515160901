"""What becomes of a declaration, and of each schedule that is written again: one decision for every driver."""

from __future__ import annotations

from collections.abc import Container, Mapping
from datetime import datetime
from typing import NamedTuple

import msgspec

from taskharbor.driver.schedule import Declared, DeclareStatus, ScheduleDeclare
from taskharbor.job import new_token
from taskharbor.schedule import NewSchedule, ScheduleRecord

DECLARATIONS = 1000
"""Digests of sets that are remembered of an application, the last ones."""
_FREE_BITS = 63 - 46
"""What is left free of a revision: it has to grow, and to be told exactly in JSON."""


class Declaration(NamedTuple):
    """A set of schedules that an application has declared once."""

    digest: bytes
    generation: int


class Judged(NamedTuple):
    """What becomes of a declaration."""

    status: DeclareStatus
    generation: int
    """The present one after it."""
    contested: bool
    """Another set has borne its number."""


class Changes(NamedTuple):
    """What is to be written so that an application's schedules are those that it declares, each list by name."""

    added: list[ScheduleRecord]
    changed: list[ScheduleRecord]
    removed: list[str]

    def answer(self, judged: Judged) -> Declared:
        """Return it as the caller is told of it."""
        return Declared(
            status=judged.status,
            generation=judged.generation,
            contested=judged.contested,
            added=[record.name for record in self.added],
            changed=[record.name for record in self.changed],
            removed=self.removed,
        )


def judge(request: ScheduleDeclare, *, present: Declaration | None, known: Container[bytes]) -> Judged:
    """Return what becomes of a declaration.

    Args:
        request: the declaration.
        present: the one that the store has, if the application has declared before.
        known: holds the digests of all that are remembered; of the request's own is enough.
    """
    status, generation = _judged(request, present, known)
    contested = (
        status is DeclareStatus.DECLARED and present is not None and request.generation == present.generation
    )
    return Judged(status, generation, contested)


def _judged(
    request: ScheduleDeclare, present: Declaration | None, known: Container[bytes]
) -> tuple[DeclareStatus, int]:
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
    """Return a new schedule as it is stored: its ticks count from now.

    Its revisions begin at a random number, so that who has read one of the same name, deleted since, changes nothing.
    """
    return ScheduleRecord(
        name=new.name,
        application=application,
        schedule=new.schedule,
        job=new.job,
        description=new.description,
        revision=new_token() >> _FREE_BITS,
        created_at=now,
        after=now,
        next_at=None,
    )


def rewritten(
    record: ScheduleRecord, new: NewSchedule, application: str | None, now: datetime
) -> ScheduleRecord | None:
    """Return a schedule as it is after what it says was written again; None if it says the same.

    It keeps its pause, its counts and its last job. If its trigger is the same it keeps its ticks, too, the next one to
    be computed anew if their end was moved, unless they had come to it; else they count from now, and none waits any
    more. Of whatever application the name was before, or of none: it is this one's now.
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
    before_it, after_it = record.schedule, new.schedule
    moved = before_it.until != after_it.until
    if before_it.trigger != after_it.trigger or (moved and record.ended):
        return msgspec.structs.replace(changed, after=now, next_at=None, ended=False, waiting_tick=None)
    return msgspec.structs.replace(changed, next_at=None) if moved else changed


def changes(request: ScheduleDeclare, stored: Mapping[str, ScheduleRecord], now: datetime) -> Changes:
    """Return what a declaration that is taken over changes.

    Args:
        request: the declaration.
        stored: the schedules of its application, and whatever else has a name that is declared.
        now: the present.
    """
    wanted = {new.name: new for new in request.schedules}
    added = [
        first_record(new, request.application, now) for name, new in wanted.items() if name not in stored
    ]
    there = ((stored[name], new) for name, new in wanted.items() if name in stored)
    written = (rewritten(record, new, request.application, now) for record, new in there)
    gone = (record for record in stored.values() if record.application == request.application)
    return Changes(
        added=sorted(added, key=lambda record: record.name),
        changed=sorted((each for each in written if each is not None), key=lambda record: record.name),
        removed=sorted(record.name for record in gone if record.name not in wanted),
    )
