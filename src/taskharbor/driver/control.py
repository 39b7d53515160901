"""What producers and operators ask of jobs: look at them, cancel, requeue, delete."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Protocol

import msgspec

from taskharbor.driver.request import Request
from taskharbor.job import JobRecord, JobState


class JobGet(Request, frozen=True, kw_only=True):
    """Look jobs up by id."""

    ids: Sequence[str]


class JobFilter(Request, frozen=True, kw_only=True):
    """Which jobs. An empty filter means any; several narrow it down together."""

    queues: frozenset[str] = frozenset()
    tasks: frozenset[str] = frozenset()
    error: str = ""
    """Only jobs whose last error is of this type: its qualified name, or the last part of it, as `ValueError`."""
    text: str = ""
    """Only jobs with this text in their reason or in their last error's message; case does not matter (of A to Z)."""
    enqueued_since: datetime | None = None
    """Only those enqueued at this instant or later; the three below likewise."""
    enqueued_before: datetime | None = None
    finished_since: datetime | None = None
    """Only jobs that have ended, as dead letters among others."""
    finished_before: datetime | None = None


class JobFind(JobFilter, frozen=True, kw_only=True):
    """Look for jobs, by id, which is by time of enqueue."""

    states: frozenset[JobState] = frozenset()
    key: str | None = None
    flow: str = ""
    """Only steps of this flow; empty for any job."""
    after: str = ""
    """Only ids beyond this: the last one of the page before."""
    limit: int = 100
    newest_first: bool = False
    """From the greatest id down; `after` then asks for lesser ones."""
    payloads: bool = True
    """False leaves what may be large out of the records: `payload` is empty then, and `result` None."""


class JobCount(JobFilter, frozen=True, kw_only=True):
    """Count jobs by queue, task and state."""


class Counted(msgspec.Struct, frozen=True):
    """How many jobs of one queue and task are in one state; never zero."""

    queue: str
    task: str
    state: JobState
    count: int


class JobCancel(Request, frozen=True, kw_only=True):
    """Cancel jobs: at once if not running, else by telling the worker with its next heartbeat (rule 11).

    Asked twice, the first reason stands; each asking is recorded.
    """

    ids: Sequence[str]
    reason: str = ""
    by: str = ""


class CancelStatus(StrEnum):
    """What became of one cancel."""

    CANCELLED = "cancelled"
    REQUESTED = "requested"
    """It is running; its worker is told within a third of a lease."""
    FINISHED = "finished"
    """It had ended already and was not changed."""
    MISSING = "missing"


class JobRequeue(Request, frozen=True, kw_only=True):
    """Make dead or cancelled jobs ready again, with all their attempts back; not before their `run_at` (rule 10).

    Recorded on the job (rule 8).
    """

    ids: Sequence[str]
    states: frozenset[JobState] = frozenset()
    """Only those that are in one of these now; empty for any that may be requeued."""
    by: str = ""
    reason: str = ""


class RequeueStatus(StrEnum):
    """What became of one requeue."""

    REQUEUED = "requeued"
    KEY_TAKEN = "key_taken"
    """Another job has taken its idempotency key since; nothing changed (rule 9)."""
    NOT_DEAD = "not_dead"
    """It is neither dead nor cancelled, or in none of the states asked for, or a cancelled step, or one of a flow that
    has ended; nothing changed."""
    MISSING = "missing"


class JobDelete(Request, frozen=True, kw_only=True):
    """Remove jobs for good, with their payloads, results and keys. Running jobs are left."""

    ids: Sequence[str]
    states: frozenset[JobState] = frozenset()
    """Only those that are in one of these now, in the same step that deletes them; empty for any."""


class DeleteStatus(StrEnum):
    """What became of one delete."""

    DELETED = "deleted"
    RUNNING = "running"
    """It is leased; cancel it first. Nothing changed."""
    OTHER_STATE = "other_state"
    """It is in none of the states asked for, or not any more. Nothing changed."""
    MISSING = "missing"


class JobControl(Protocol):
    """The verbs for looking at jobs and for acting on them by hand."""

    async def job_get(self, request: JobGet, /) -> Sequence[JobRecord | None]:
        """Return one record an id, in order; None where there is no such job.

        Those of jobs with holes tell what has come in for them (`JobRecord.step`), however large it is, and those that
        reported tell of it (`progress`, `log`); this alone tells them.
        """
        ...

    async def job_find(self, request: JobFind, /) -> Sequence[JobRecord]:
        """Return the matching jobs in order of id, upwards or downwards, at most `limit`.

        `step` and `progress` are None on all, and `log` is empty.
        """
        ...

    async def job_count(self, request: JobCount, /) -> Sequence[Counted]:
        """Return counts sorted by queue, task and state."""
        ...

    async def job_cancel(self, request: JobCancel, /) -> Sequence[CancelStatus]:
        """Cancel jobs and return one answer each, in order."""
        ...

    async def job_requeue(self, request: JobRequeue, /) -> Sequence[RequeueStatus]:
        """Requeue jobs and return one answer each, in order."""
        ...

    async def job_delete(self, request: JobDelete, /) -> Sequence[DeleteStatus]:
        """Delete jobs and return one answer each, in order."""
        ...
