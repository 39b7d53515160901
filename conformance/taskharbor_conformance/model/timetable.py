"""The book's part about schedules and leadership: a second, naive reading of what the verbs do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from taskharbor.driver import (
    AHEAD,
    CreateStatus,
    Declared,
    DeclareStatus,
    Enqueued,
    EnqueueStatus,
    Firing,
    ScheduleDeclare,
)
from taskharbor.schedule import NewSchedule
from taskharbor_conformance.model.book import Book

LONG_AGO = timedelta(days=10_000)


@dataclass
class BookSchedule:
    """One schedule as the rules see it."""

    new: NewSchedule
    application: str | None
    created_at: datetime
    after: datetime
    next_at: datetime | None = None
    ended: bool = False
    waiting: datetime | None = None
    paused: tuple[datetime, str, str] | None = None
    last_tick: datetime | None = None
    last_job: str | None = None
    fired: int = 0
    missed: int = 0
    overlapped: int = 0
    kept_out: int = 0
    written: bool = True
    """It was, since it was last looked at."""
    revision: int = -1
    """As it was then."""

    def change(self, new: NewSchedule, application: str | None, now: datetime) -> bool:
        """Say something else of it, and return whether that is anything new."""
        before, was_ended = self.new, self.ended
        if (before, self.application) == (new, application):
            return False
        self.new, self.application = new, application
        self.written = True
        moved = before.schedule.until != new.schedule.until
        if before.schedule.trigger != new.schedule.trigger or (moved and was_ended):
            self.after, self.waiting = now, None
        if before.schedule.trigger != new.schedule.trigger or moved:
            self.next_at, self.ended = None, False
        return True


@dataclass
class BookLeader:
    """Who leads, or was the last to."""

    worker: str
    fence: int
    since: datetime
    until: datetime


class Timetable:
    """Schedules, declarations and leaders beside the jobs of a book."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self.schedules: dict[str, BookSchedule] = {}
        self.declared: dict[str, list[tuple[bytes, int]]] = {}
        self.leader: BookLeader | None = None

    # what is said of schedules

    def declare(self, request: ScheduleDeclare) -> Declared:
        """Take a declaration over, or not, and return the answer."""
        before = self.declared.setdefault(request.application, [])
        digest, present = before[-1] if before else (None, 0)
        if request.generation is not None:
            outdated = request.generation < present
            current = (request.generation, request.digest) == (present, digest)
            generation = request.generation
        else:
            current = request.digest == digest
            outdated = not current and not request.force and request.digest in [one for one, _ in before]
            generation = present + 1
        if outdated or current:
            status = DeclareStatus.OUTDATED if outdated else DeclareStatus.CURRENT
            return Declared(status=status, generation=present)
        before.append((request.digest, generation))
        wanted = {new.name: new for new in request.schedules}
        changed = [
            name
            for name, new in sorted(wanted.items())
            if name in self.schedules and self.schedules[name].change(new, request.application, self.book.now)
        ]
        added = sorted(wanted.keys() - self.schedules.keys())
        of_it = [name for name, one in self.schedules.items() if one.application == request.application]
        removed = sorted(set(of_it) - wanted.keys())
        for name in added:
            self._add(wanted[name], request.application)
        self.delete(removed)
        return Declared(
            status=DeclareStatus.DECLARED,
            generation=generation,
            added=added,
            changed=changed,
            removed=removed,
            contested=request.generation is not None and request.generation == present,
        )

    def create(self, new: NewSchedule, *, replace: bool) -> CreateStatus:
        """Create one schedule by hand."""
        there = self.schedules.get(new.name)
        if there is None:
            self._add(new, None)
            return CreateStatus.CREATED
        if not replace or there.application is not None:
            return CreateStatus.EXISTING
        there.change(new, None, self.book.now)
        return CreateStatus.REPLACED

    def _add(self, new: NewSchedule, application: str | None) -> None:
        self.schedules[new.name] = BookSchedule(new, application, self.book.now, self.book.now)

    def delete(self, names: Sequence[str]) -> list[bool]:
        """Delete schedules."""
        return [self.schedules.pop(name, None) is not None for name in names]

    def pause(self, names: Sequence[str], by: str, reason: str) -> list[bool]:
        """Pause schedules."""
        for name in names:
            one = self.schedules.get(name)
            if one is not None and one.paused is None:
                one.paused = (self.book.now, by, reason)
                one.written = True
        return [name in self.schedules for name in names]

    def resume(self, names: Sequence[str]) -> list[bool]:
        """Let schedules fire again, from now on."""
        for name in names:
            one = self.schedules.get(name)
            if one is not None and one.paused is not None:
                one.paused = one.waiting = one.next_at = None
                one.after = self.book.now
                one.written = True
        return [name in self.schedules for name in names]

    # ticks

    def busy(self, one: BookSchedule) -> bool:
        """Return whether the job it made last has not ended."""
        job = self.book.jobs.get(one.last_job or "")
        return job is not None and job.final is None

    def due(self) -> list[str]:
        """Return the names of all that is to be looked at, in order."""
        since: dict[str, datetime] = {}
        for name, one in self.schedules.items():
            times = (
                [self.book.now - LONG_AGO if one.next_at is None else one.next_at] if not one.ended else []
            )
            times = [time for time in times if time <= self.book.now]
            if one.waiting is not None and not self.busy(one):
                times.append(one.waiting)
            if times and one.paused is None:
                since[name] = min(times)
        return sorted(since, key=lambda name: (since[name], name))

    def next_in(self) -> timedelta | None:
        """Return how long until another is due."""
        times = [one.next_at for one in self.schedules.values() if one.paused is None and not one.ended]
        return min((time - self.book.now for time in times if time and time > self.book.now), default=None)

    def fire(self, firing: Firing) -> list[Enqueued]:
        """Move a schedule on, which was read as it is, and return the answers for its jobs."""
        one = self.schedules[firing.name]
        answers = self.book.enqueue(firing.jobs, all_or_none=False)
        for job, answer in zip(firing.jobs, answers, strict=True):
            one.fired += answer.status is EnqueueStatus.CREATED
            if answer.status in (EnqueueStatus.CREATED, EnqueueStatus.REPLACED):
                one.last_job = answer.job_id
            elif answer.job_id != job.id:
                one.kept_out += 1
                continue
            one.last_tick = firing.last_tick or one.last_tick
        one.missed += firing.missed
        one.overlapped += firing.overlapped
        one.written = True
        if firing.after is not None:
            one.after, one.next_at = firing.after, firing.next_at
            one.ended, one.waiting = firing.ended, firing.waiting_tick
        return answers

    # leadership

    def lead(self, worker: str, ttl: timedelta) -> BookLeader:
        """Lead if nobody else does, and return who leads."""
        now, last = self.book.now, self.leader
        ahead = last is not None and last.worker != worker and last.until > now + ttl + AHEAD
        if last is None or last.until <= now or ahead:
            self.leader = BookLeader(worker, 0 if last is None else last.fence, now, now + ttl)
        elif last.worker == worker:
            last.until = now + ttl
        assert self.leader is not None
        return self.leader

    def leave(self, worker: str) -> bool:
        """Lead no more, and return whether that worker did."""
        last = self.leader
        if last is None or last.worker != worker or last.until <= self.book.now:
            return False
        last.until = self.book.now
        return True
