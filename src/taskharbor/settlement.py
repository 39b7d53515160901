"""What is written down of an attempt: a pure decision from outcome, job and policy, with no store and no clock.

A worker decides with `settlement`; whoever reclaims a dead worker's lease decides with `after_crash`. Both decisions
need only what is stored with the job, so every driver and every build decides alike.
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import assert_never

import msgspec

from taskharbor.flow import Sequel
from taskharbor.job import AttemptError, Delivery, JobState
from taskharbor.outcome import Cancelled, Failed, Outcome, Rejected, Released, Snoozed, Strayed, Succeeded
from taskharbor.retry import RetryNumbers

SOLO_CRASHES = 2
"""After so many crashes of workers running it, a job runs beside no other of that kind (rule 4)."""
LOST_LIMIT = 10
"""Deliveries in a row lost to crashes before the job was started that end it (rule 4)."""

ATTEMPTS_USED_UP = "attempts used up"
INTERRUPTED = "interrupted"
LOST_UNSTARTED = f"lost with its worker {LOST_LIMIT} times in a row before it was started"


class SettleKind(StrEnum):
    """What a settle does to the job's row."""

    SUCCEED = "succeed"
    RETRY = "retry"
    SNOOZE = "snooze"
    RELEASE = "release"
    BURY = "bury"
    CANCEL = "cancel"
    STRAY = "stray"


STATE_AFTER = {
    SettleKind.SUCCEED: JobState.SUCCEEDED,
    SettleKind.RETRY: JobState.RETRYING,
    SettleKind.SNOOZE: JobState.SCHEDULED,
    SettleKind.RELEASE: JobState.READY,
    SettleKind.BURY: JobState.DEAD,
    SettleKind.CANCEL: JobState.CANCELLED,
    SettleKind.STRAY: JobState.PARKED,
}
"""Where a settle leads as a rule; the store's answer says where it led."""


class Settlement(msgspec.Struct, frozen=True, gc=False):
    """The end of one delivery, to be written under its lease.

    The store has the last word on one thing: while a cancel is pending, everything but a success ends `cancelled`.
    """

    job_id: str
    token: int
    kind: SettleKind
    result: bytes | None = None
    """SUCCEED: the encoded result, of at most `PAYLOAD_LIMIT` bytes; None when it is not kept."""
    codec: str = ""
    """SUCCEED: the result's format."""
    after: timedelta | None = None
    """RETRY, SNOOZE: due so long after the store's now."""
    error: AttemptError | None = None
    """RETRY, BURY: what went wrong in this attempt."""
    reason: str = ""
    """BURY, CANCEL, STRAY: why."""
    charge: bool = False
    """Whether this delivery counts as an attempt."""
    refused_by: str | None = None
    """STRAY: the build that could not decode the payload; None when the task was unknown to it."""
    step: bool = False
    """The job is a step of a flow."""
    sequel: Sequel | None = None
    """SUCCEED: what is stored with it."""


class SettleStatus(StrEnum):
    """What became of one settlement (rule 3)."""

    SETTLED = "settled"
    ALREADY = "already"
    """This token settled it before; nothing was written again."""
    STALE = "stale"
    """The lease is gone; nothing changed."""
    HELD = "held"
    """Nothing changed, since somebody's transaction that has not ended holds what this needs: a job, or the key of one
    that it brings. To be asked again later, for as long as it takes."""


class Settled(msgspec.Struct, frozen=True, gc=False):
    """The store's answer to one settlement."""

    status: SettleStatus
    state: JobState | None = None
    """Where the job stands after SETTLED; None otherwise."""


_SUCCEED = SettleKind.SUCCEED


def settlement(outcome: Outcome, job: Delivery, *, draw: float | None = None) -> Settlement:
    """Return what to write for `outcome` of `job`.

    `draw` in [0, 1) replaces the jitter's random number, for tests.
    """
    if isinstance(outcome, Succeeded):  # first and plainly: nearly all of them are
        return Settlement(
            job.id,
            job.token,
            _SUCCEED,
            outcome.result,
            outcome.codec,
            None,
            None,
            "",
            True,
            None,
            job.step is not None,
            outcome.sequel,
        )
    told = _settlement(outcome, job, draw)
    return told if job.step is None else msgspec.structs.replace(told, step=True)


def _settlement(outcome: Outcome, job: Delivery, draw: float | None) -> Settlement:
    job_id, token = job.id, job.token
    match outcome:
        case Failed(error, policy, after):
            # One attempt is a promise of the call's; what the task says of an exception does not lift it.
            numbers = job.retry if policy is None or job.retry.max_attempts == 1 else policy.numbers()
            if job.attempt >= numbers.max_attempts:
                return _bury(
                    job, error, ATTEMPTS_USED_UP if numbers.max_attempts > 1 else "not to be retried"
                )
            if after is None:
                after = numbers.backoff(job.attempt, draw=draw)
            return Settlement(job_id, token, SettleKind.RETRY, after=after, error=error, charge=True)
        case Rejected(error, reason):
            return _bury(job, error, reason)
        case Snoozed(for_):
            return Settlement(job_id, token, SettleKind.SNOOZE, after=for_)
        case Cancelled(reason):
            return Settlement(job_id, token, SettleKind.CANCEL, reason=reason, charge=True)
        case Released(started):
            if started and job.retry.max_attempts == 1:
                return _bury(job, interrupted(job.attempt), INTERRUPTED)
            return Settlement(job_id, token, SettleKind.RELEASE)
        case Strayed(reason, refused_by):
            return Settlement(job_id, token, SettleKind.STRAY, reason=reason, refused_by=refused_by)
        case Succeeded():
            raise AssertionError("read by the caller")
        case _:
            assert_never(outcome)


def _bury(job: Delivery, error: AttemptError, reason: str) -> Settlement:
    return Settlement(job.id, job.token, SettleKind.BURY, error=error, reason=reason, charge=True)


def interrupted(attempt: int) -> AttemptError:
    """Return the error of a job that was stopped with its worker and may not be started again."""
    return AttemptError(
        attempt=attempt,
        type="taskharbor.Interrupted",
        message="the worker shut down while this ran, and max_attempts=1 forbids a second start",
    )


REFUSED = "the store refused its outcome"


def refused_letter(refused: Settlement, *, attempt: int, worker: str, why: str) -> Settlement | None:
    """Return the dead letter of a job whose outcome a store refuses for ever; None if the job gets none.

    It ran, and would come to the same once more, so it is not run again. Of one that is handed back, snoozed, cancelled
    or left to others, nothing could be left out that the store may mind: its lease expires instead.

    Args:
        refused: what the store did not take.
        attempt: which attempt it was, from 1.
        worker: who held the job.
        why: what the store said, without any of the job's data.
    """
    if refused.kind is _SUCCEED:
        size = len(refused.result or b"")
        what = f"it succeeded, and the store refuses to note that with its result of {size:,} bytes"
    elif refused.error is not None:
        what = f"it failed with {refused.error.type}, and the store refuses to note that"
    else:
        return None
    error = AttemptError(
        attempt=attempt,
        type="taskharbor.OutcomeRefused",
        message=f"{what}: {why}",
        worker=worker,
    )
    return Settlement(
        refused.job_id,
        refused.token,
        SettleKind.BURY,
        error=error,
        reason=REFUSED,
        charge=True,
        step=refused.step,
    )


class AfterCrash(msgspec.Struct, frozen=True):
    """What reclaim does with one job of a lease that expired (rule 4)."""

    kind: SettleKind
    """RETRY (it was started: charged and backed off), RELEASE (never started: front lane, guarded) or BURY."""
    crashes: int
    """Crashes while it was running, this one included."""
    lost: int
    """Deliveries in a row lost unstarted, this one included."""
    after: timedelta | None = None
    error: AttemptError | None = None
    reason: str = ""


def after_crash(
    *,
    started: bool,
    attempt: int,
    crashes: int,
    lost: int,
    numbers: RetryNumbers,
    worker: str,
    draw: float | None = None,
) -> AfterCrash:
    """Decide for one job of an expired lease.

    Args:
        started: the store knows of its start.
        attempt: attempts charged before this delivery.
        crashes: crashes while it ran, before this one.
        lost: deliveries in a row lost unstarted, before this one.
        numbers: the job's retry policy.
        worker: who held the lease, for the error's text.
        draw: replaces the jitter's random number, for tests.
    """
    if started:
        error = AttemptError(
            attempt=attempt + 1,
            type="taskharbor.WorkerLost",
            message="the worker's lease expired while this ran: its process died, or lost the store",
            worker=worker,
        )
        if attempt + 1 >= numbers.max_attempts:
            return AfterCrash(SettleKind.BURY, crashes + 1, 0, error=error, reason=ATTEMPTS_USED_UP)
        return AfterCrash(
            SettleKind.RETRY, crashes + 1, 0, after=numbers.backoff(attempt + 1, draw=draw), error=error
        )
    if lost + 1 >= LOST_LIMIT:
        error = AttemptError(
            attempt=attempt, type="taskharbor.WorkerLost", message=LOST_UNSTARTED, worker=worker
        )
        return AfterCrash(SettleKind.BURY, crashes, lost + 1, error=error, reason=LOST_UNSTARTED)
    return AfterCrash(SettleKind.RELEASE, crashes, lost + 1)
