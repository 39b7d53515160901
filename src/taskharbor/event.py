"""What happens in a job's life, as typed events: a closed union of Structs, each with the facts of its kind.

Events are news, not records: at most once each, told after the fact by the process in which it came to pass, and never
with arguments, results or error texts. What is true of a job is in its record.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeAlias

import msgspec

from taskharbor.report import Progress


class Ending(StrEnum):
    """How a delivery can end: what statistics count by."""

    SUCCEEDED = "succeeded"
    RETRYING = "retrying"
    DEAD = "dead"
    CANCELLED = "cancelled"
    SNOOZED = "snoozed"
    RELEASED = "released"
    PARKED = "parked"


class _Event(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="event"):
    """What all events tell."""

    id: str
    """A UUIDv7 made where it came to pass: the same event stored twice is one."""
    at: datetime
    """By the clock of the process that tells it."""
    job_id: str
    task: str
    queue: str
    flow: str | None = None


class JobEnqueued(_Event, frozen=True, kw_only=True, tag="enqueued"):
    """A producer stored a job. Told in the producer's own process only."""


class JobStarted(_Event, frozen=True, kw_only=True, tag="started"):
    """A handler began."""

    worker: str
    attempt: int
    waited: timedelta
    """From when it was enqueued."""


class JobProgressed(_Event, frozen=True, kw_only=True, tag="progressed"):
    """A handler told how far it is (`ctx.progress`)."""

    worker: str
    attempt: int
    progress: Progress


class _Ended(_Event, frozen=True, kw_only=True):
    worker: str
    """Who held it."""
    attempt: int
    ran: timedelta | None = None
    """How long its handler ran; None where it never began, or nobody knows."""


class JobSucceeded(_Ended, frozen=True, kw_only=True, tag="succeeded"):
    """A delivery ended well."""


class JobRetrying(_Ended, frozen=True, kw_only=True, tag="retrying"):
    """An attempt failed, and another will follow."""

    error: str
    """Qualified name of the exception's class."""
    next_in: timedelta


class JobDead(_Ended, frozen=True, kw_only=True, tag="dead"):
    """It became a dead letter."""

    error: str
    """Qualified name of the exception's class; "" where there was none."""
    reason: str


class JobCancelled(_Ended, frozen=True, kw_only=True, tag="cancelled"):
    """A cancel ended a delivery."""


class JobSnoozed(_Ended, frozen=True, kw_only=True, tag="snoozed"):
    """A handler asked to run later."""

    next_in: timedelta


class JobReleased(_Ended, frozen=True, kw_only=True, tag="released"):
    """It was handed back: its worker stopped, or was lost before it had begun."""


class JobParked(_Ended, frozen=True, kw_only=True, tag="parked"):
    """It was left to other workers: an unknown task, or a payload this build cannot decode."""


class JobRequeued(_Event, frozen=True, kw_only=True, tag="requeued"):
    """Somebody made a dead or cancelled job ready again. Told in that process only."""


JobEvent: TypeAlias = (
    JobEnqueued
    | JobStarted
    | JobProgressed
    | JobSucceeded
    | JobRetrying
    | JobDead
    | JobCancelled
    | JobSnoozed
    | JobReleased
    | JobParked
    | JobRequeued
)


class Tally(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How many deliveries of one task, in one queue, ended alike within one minute."""

    minute: datetime
    """Its beginning, in UTC."""
    queue: str
    task: str
    ending: Ending
    count: int
    ran: timedelta = timedelta(0)
    """How long their handlers ran, all together."""
