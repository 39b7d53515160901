"""What the book holds: a job, a lease, a key, a worker, as the rules see them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from taskharbor.job import JobState, NewJob


@dataclass
class BookJob:
    """One job as the rules see it."""

    new: NewJob
    run_at: datetime
    enqueued_at: datetime
    due: datetime
    guarded: bool
    front: bool = False
    attempt: int = 0
    deliveries: int = 0
    lost: int = 0
    crashes: int = 0
    stray: bool = False
    refused_by: frozenset[str] = frozenset()
    stray_reason: str = ""
    token: int | None = None
    settled_under: int | None = None
    cancel: str | None = None
    final: JobState | None = None
    finished_at: datetime | None = None
    reason: str = ""
    result: bytes | None = None
    result_codec: str = ""
    errors: list[tuple[int, str, datetime]] = field(default_factory=list[tuple[int, str, datetime]])
    operations: list[tuple[str, datetime, str]] = field(default_factory=list[tuple[str, datetime, str]])

    @property
    def pending(self) -> bool:
        """Return whether it waits to be reserved."""
        return self.final is None and self.token is None

    @property
    def solo(self) -> bool:
        """Return whether two workers died while running it (rule 4)."""
        return self.crashes >= 2

    @property
    def order(self) -> tuple[int, int, datetime, str]:
        """Return its place among all jobs: priority, lane, due, id (rule 10). Solo jobs come before the lanes."""
        lane = 0 if self.solo else 1 if self.front else 2
        return self.new.priority, lane, self.due, self.new.id

    def open_to(self, tasks: frozenset[str], build: str) -> bool:
        """Return whether a worker that knows `tasks` and is of `build` may take it (rule 16)."""
        return not self.stray or (self.new.task in tasks and build not in self.refused_by)


@dataclass
class BookLease:
    """One reserve's jobs."""

    token: int
    worker: str
    duration: timedelta
    expires_at: datetime
    ids: list[str]
    started: set[str] = field(default_factory=set[str])


@dataclass
class BookKey:
    """Who holds an idempotency key, and from when on it is free again."""

    job_id: str
    digest: bytes
    free_at: datetime | None = None


@dataclass
class BookWorker:
    """One worker on the register."""

    tasks: frozenset[str]
    build: str
    ttl: timedelta
    seen_at: datetime


@dataclass
class Taken:
    """What a reserve should answer."""

    ids: list[str]
    held_back: bool
    due_in: timedelta | None
    """How long until the next job of these queues is due."""
    may_be_sooner: bool
    """A limit ended the reserve: the worker may be told to look again before that."""
    solo_left: bool
    """Solo jobs are left, which count or not."""
