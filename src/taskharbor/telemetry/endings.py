"""From how a delivery ended to the event that tells of it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TypeAlias

import msgspec

from taskharbor.event import (
    Ending,
    JobCancelled,
    JobDead,
    JobParked,
    JobReleased,
    JobRetrying,
    JobSnoozed,
    JobSucceeded,
)


class Ended(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is known of a delivery that ended, whatever the kind of its end."""

    job_id: str
    task: str
    queue: str
    flow: str | None
    worker: str
    """Who held it."""
    attempt: int
    ran: timedelta | None
    error: str = ""
    """Qualified name of the exception's class, if there was one."""
    reason: str = ""
    next_in: timedelta = timedelta(0)


_Plain: TypeAlias = JobSucceeded | JobCancelled | JobReleased | JobParked
EndEvent: TypeAlias = _Plain | JobRetrying | JobDead | JobSnoozed

_PLAIN: dict[Ending, type[_Plain]] = {
    Ending.SUCCEEDED: JobSucceeded,
    Ending.CANCELLED: JobCancelled,
    Ending.RELEASED: JobReleased,
    Ending.PARKED: JobParked,
}


EVENTS: dict[Ending, type] = {
    **_PLAIN,
    Ending.RETRYING: JobRetrying,
    Ending.DEAD: JobDead,
    Ending.SNOOZED: JobSnoozed,
}


def event_of(ending: Ending, ended: Ended, *, event_id: str, at: datetime) -> EndEvent:
    """Return the event of a delivery that has ended so."""
    if ending is Ending.RETRYING:
        return JobRetrying(
            id=event_id,
            at=at,
            job_id=ended.job_id,
            task=ended.task,
            queue=ended.queue,
            flow=ended.flow,
            worker=ended.worker,
            attempt=ended.attempt,
            ran=ended.ran,
            error=ended.error,
            next_in=ended.next_in,
        )
    if ending is Ending.DEAD:
        return JobDead(
            id=event_id,
            at=at,
            job_id=ended.job_id,
            task=ended.task,
            queue=ended.queue,
            flow=ended.flow,
            worker=ended.worker,
            attempt=ended.attempt,
            ran=ended.ran,
            error=ended.error,
            reason=ended.reason,
        )
    if ending is Ending.SNOOZED:
        return JobSnoozed(
            id=event_id,
            at=at,
            job_id=ended.job_id,
            task=ended.task,
            queue=ended.queue,
            flow=ended.flow,
            worker=ended.worker,
            attempt=ended.attempt,
            ran=ended.ran,
            next_in=ended.next_in,
        )
    return _PLAIN[ending](
        id=event_id,
        at=at,
        job_id=ended.job_id,
        task=ended.task,
        queue=ended.queue,
        flow=ended.flow,
        worker=ended.worker,
        attempt=ended.attempt,
        ran=ended.ran,
    )
