"""A job: one call of a task, stored. Its states, the record a reader sees, and its id."""

from __future__ import annotations

import os
import random
import threading
import time
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from taskharbor.report import LogLine, Progress
from taskharbor.retry import RetryNumbers
from taskharbor.step import DeliveredStep, Edge, Step

DEFAULT_QUEUE = "default"
DEFAULT_PRIORITY = 5
"""Priorities run from 0 (first) to 9 (last); the default leaves room on both sides."""
DEFAULT_RETAIN = timedelta(days=7)
DEFAULT_KEY_TTL = timedelta(days=1)
PAYLOAD_LIMIT = 16 * 1024 * 1024
"""Bytes that a job's encoded arguments may have, and as many its encoded result: what every driver takes whole.

Stores take more (PostgreSQL a gigabyte a value, Redis half of one), and are slow long before that; MongoDB draws the
line for a document here. One number for all, since producers and workers have to agree on it.
"""


class JobState(StrEnum):
    """The states a user sees. Scheduled, retrying and ready differ only by time, so time decides when one looks."""

    WAITING = "waiting"
    """For an earlier step of its flow."""
    SCHEDULED = "scheduled"
    """Its `run_at` has not come."""
    READY = "ready"
    """May be reserved now."""
    PARKED = "parked"
    """May not run now, for a stated reason."""
    RUNNING = "running"
    """Leased by a worker, started or not."""
    RETRYING = "retrying"
    """An attempt failed; the next one's time has not come."""
    SUCCEEDED = "succeeded"
    DEAD = "dead"
    """A dead letter: not tried again unless a person asks."""
    CANCELLED = "cancelled"


TERMINAL = frozenset({JobState.SUCCEEDED, JobState.DEAD, JobState.CANCELLED})


class OnConflict(StrEnum):
    """What an enqueue does when its idempotency key is taken by the same arguments."""

    EXISTING = "existing"
    """Answer with the job that holds the key."""
    RAISE = "raise"
    """Raise `DuplicateJob`."""
    REPLACE = "replace"
    """Put the new arguments, options and time in the place of those of the job that has the key: it keeps its id, when
    it was enqueued, and its attempts. Done only as long as that one is not leased and has not ended (`REPLACEABLE`);
    else the new job is stored, whatever its rule says, and the key is its own from then on. A step of a flow is not
    replaced: a conflict."""


LIVE = frozenset(JobState) - TERMINAL
REPLACEABLE = frozenset({JobState.SCHEDULED, JobState.READY, JobState.PARKED, JobState.RETRYING})
"""States of a job that another may take the place of."""


class KeyRule(msgspec.Struct, frozen=True, gc=False):
    """For how long the job that has a key keeps others out, as the one that comes sees it.

    Without a rule: while it is live, and for its `key_ttl` after that. With one: in each of `states`, and in any until
    `window` is over; its `key_ttl` only says how long it is remembered once it has ended, and so does its `retain`: one
    whose record is gone keeps nobody out. With a rule, other arguments are no conflict where the digests are empty.
    The key of a step of a flow is kept as without a rule.
    """

    states: tuple[JobState, ...] = ()
    window: timedelta | None = None
    """So long after it was enqueued."""
    latest: timedelta | None = None
    """A replacement puts the start off to so long after the replaced one was enqueued, at the most. Where that has
    passed, a job that is due already keeps its place in its lane, and one that comes into another lane is due now."""


class NewJob(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A job to be stored, as the producer hands it to the driver."""

    id: str
    """A UUIDv7 made by the producer: enqueueing the same id twice stores one job."""
    task: str
    payload: bytes
    """The arguments, in the format that `codec` names; at most `PAYLOAD_LIMIT` bytes."""
    codec: str
    fingerprint: int
    """Of the signature the payload was written under; 63 bits."""
    queue: str = DEFAULT_QUEUE
    priority: int = DEFAULT_PRIORITY
    run_at: datetime | None = None
    run_in: timedelta | None = None
    """Travels as a duration: the store's clock turns it into a time."""
    retry: RetryNumbers = RetryNumbers()
    timeout: timedelta | None = None
    """How long one attempt may run."""
    meta: dict[str, str] = {}
    key: str | None = None
    """Idempotency key; its scope is the task."""
    key_ttl: timedelta = DEFAULT_KEY_TTL
    """How long the key stays taken after the job has finished."""
    digest: bytes = b""
    """Of the canonical arguments; set when there is a key."""
    on_conflict: OnConflict = OnConflict.EXISTING
    key_rule: KeyRule | None = None
    keep_result: bool = True
    retain: timedelta = DEFAULT_RETAIN
    """How long the job can be looked up after it succeeded or was cancelled."""
    step: Step | None = None
    """Its place in a flow."""
    partition: str | None = None
    """Which line of its task it stands in (rule 25); `KEYLESS` if the task has limits, or takes turns, and no key. None
    for jobs of tasks without any of that: they stand in the plain lanes of their queue."""


class AttemptError(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Why one attempt failed, bounded in size. Never holds the payload."""

    attempt: int
    at: datetime | None = None
    """Set by the store when it is written."""
    type: str
    """Qualified name of the exception's class."""
    message: str
    traceback: str = ""
    worker: str = ""


class Operation(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A named act of a person that changed a job (rule 8)."""

    at: datetime
    verb: str
    by: str = ""
    reason: str = ""


class JobRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the store knows of one job, at one instant."""

    id: str
    task: str
    queue: str
    state: JobState
    priority: int
    run_at: datetime
    enqueued_at: datetime
    due_at: datetime | None = None
    """When it may be taken next: moved by retries and snoozes, which leave `run_at` as it was. None while it is running
    and once it has ended."""
    finished_at: datetime | None = None
    attempt: int = 0
    """Attempts charged so far; the running one is not among them."""
    max_attempts: int
    deliveries: int = 0
    """How often it was reserved. Grows for ever: the next `ctx.fence` is one more."""
    guarded: bool = False
    """A worker that held it crashed; its start is now written before it runs (rule 4)."""
    crashes: int = 0
    """Crashes of workers while it was running."""
    worker: str = ""
    """Who holds its lease."""
    lease_expires_at: datetime | None = None
    started: bool = False
    """The store knows that its handler was started under the present lease."""
    cancel_requested: bool = False
    reason: str = ""
    """Why it is parked, dead or cancelled."""
    refused_by: tuple[str, ...] = ()
    """Builds that could not decode its payload (rule 16)."""
    key: str | None = None
    meta: dict[str, str] = {}
    payload: bytes
    codec: str
    fingerprint: int
    result: bytes | None = None
    result_codec: str = ""
    keep_result: bool = True
    errors: tuple[AttemptError, ...] = ()
    """One a failed attempt, oldest first."""
    operations: tuple[Operation, ...] = ()
    partition: str | None = None
    """Which line of its task it stands in, among those that take turns."""
    flow: str | None = None
    """The flow that it is a step of."""
    waits: int = 0
    """How many inputs are to come yet, while it is waiting."""
    edges: tuple[Edge, ...] = ()
    """The steps that wait for its result."""
    step: DeliveredStep | None = None
    """What has come in for it, where it takes arguments from other steps. Only a look-up by id tells it; once it has
    succeeded or was cancelled, nothing of it is kept but the holes."""
    progress: Progress | None = None
    """How far its handler last said it was, in whatever attempt. Only a look-up by id tells it, and the log."""
    log: tuple[LogLine, ...] = ()
    """The last lines that its handler wrote (`LOG_LIMIT`), in all attempts, oldest first."""


_VERSION_7 = 0x7000_8000_0000_0000_0000
"""The version and variant bits of a UUIDv7."""
_last_id_time = 0
_id_lock = threading.Lock()
_id_random = random.Random()


def _reseed() -> None:
    # A forked child would otherwise draw its parent's numbers, and wait for a lock that nobody there will release.
    global _id_lock  # noqa: PLW0603
    _id_lock = threading.Lock()
    _id_random.seed(os.urandom(16))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reseed)


def new_job_id() -> str:
    """Return a UUIDv7 that sorts after every one this process made before."""
    return new_job_ids(1)[0]


def new_job_ids(count: int) -> list[str]:
    """Return so many UUIDv7 in order, which sort after every one this process made before.

    The 12 bits after the version hold the part of the millisecond (RFC 9562, section 6.2, method 3), pushed on by one
    from each to the next, and where the clock gives the same or an earlier value, so jobs enqueued in a row keep their
    order.
    """
    global _last_id_time  # noqa: PLW0603 - one sequence a process is the point
    ms, part = divmod(time.time_ns(), 1_000_000)
    stamp = ms << 12 | part * 4096 // 1_000_000
    with _id_lock:
        begin = max(stamp, _last_id_time + 1)
        _last_id_time = begin + count - 1
    draw = _id_random.getrandbits
    return [_written(stamp, draw(62)) for stamp in range(begin, begin + count)]


def _written(stamp: int, tail: int) -> str:
    number = (stamp >> 12) << 80 | (stamp & 0xFFF) << 64 | _VERSION_7 | tail
    text = number.to_bytes(16).hex()  # quicker than formatting the parts
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def new_token() -> int:
    """Return a random 63-bit lease token: compared for equality only, since a counter can repeat after a crash."""
    return int.from_bytes(os.urandom(8)) >> 1


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """A reserved job with its lease: what a worker needs in order to run it, and to settle it.

    Drivers make thousands a second, and give the fields by place, in this order: by name takes seven times as long.
    """

    id: str
    token: int
    """The lease it is held under; one token covers every job of one reserve."""
    task: str
    queue: str
    payload: bytes
    codec: str
    fingerprint: int
    attempt: int
    """The attempt this would be if it is started, from 1."""
    fence: int
    """Grows with every reserve of this job."""
    retry: RetryNumbers
    timeout: timedelta | None
    priority: int
    run_at: datetime
    enqueued_at: datetime
    key: str | None
    meta: dict[str, str]
    keep_result: bool
    guarded: bool
    """Its start has to be written (`lease_extend`) before its handler runs."""
    solo: bool
    """Guarded, and two workers died while running it: it runs beside no other of that kind."""
    cancel_requested: bool
    step: DeliveredStep | None = None
    """What came in for it from other steps, where it is one of a flow."""
