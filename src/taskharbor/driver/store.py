"""The life of a job in the store: enqueue, reserve, extend, reclaim, settle.

Every verb takes and returns batches, and is one atomic step: all of a batch is written, or none of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

import msgspec

from taskharbor.driver.request import Request
from taskharbor.driver.worker import Order
from taskharbor.flow import NewFlow
from taskharbor.job import Delivery, NewJob
from taskharbor.settlement import Settled, SettleKind, Settlement


class JobEnqueue(Request, frozen=True, kw_only=True):
    """Store jobs, and flows."""

    jobs: Sequence[NewJob]
    all_or_none: bool = False
    """Store nothing if any of them meets CONFLICT, or another job that has its key where it asked to be told
    (`OnConflict.RAISE`). Those that are the reason are answered so, what could have been stored with LEFT_OUT."""
    flows: Sequence[NewFlow] = ()
    """Each is stored whole or not at all: not if any of its steps' keys is taken."""


class EnqueueStatus(StrEnum):
    """What became of one job of a `job_enqueue`."""

    CREATED = "created"
    REPLACED = "replaced"
    """It took the place of the job that has its key, as it asked to (`OnConflict.REPLACE`): that job's queue, priority,
    payload, codec, fingerprint, digest, retry, timeout, metadata, times (`replacement_times`) and what is to be kept
    are the new one's. It keeps its id, when it was enqueued, attempts, deliveries, crashes, errors and operations, and
    is guarded still if it was. It is parked no more, and no more before others if it had been handed back.

    The new one's own id is not stored. So if the answer is lost and the request repeated, it is carried out anew, as
    one that came later: it replaces once more, or, if that job was leased meanwhile, is stored. Nothing is lost, and
    the same arguments may run twice."""
    EXISTING = "existing"
    """Its key is taken by a job with the same arguments, or its id is stored already: nothing was written."""
    CONFLICT = "conflict"
    """Its key is taken by a job with other arguments: nothing was written."""
    LEFT_OUT = "left_out"
    """It could have been stored, but `all_or_none` was asked and another could not."""


class Enqueued(msgspec.Struct, frozen=True, gc=False):
    """The answer for one job or one flow of a `job_enqueue`."""

    status: EnqueueStatus
    job_id: str
    """The new job's or flow's, or that of the job that holds the key."""
    step: str = ""
    """Of a flow that was not stored: which of its steps' keys is taken."""


class QueueTake(msgspec.Struct, frozen=True):
    """One queue to reserve from, and at most how many jobs of it."""

    name: str
    limit: int


class AgedTake(msgspec.Struct, frozen=True):
    """What goes before the order of priorities, so that none of them starves."""

    after: timedelta
    """Jobs of all priorities but the first that have been due for longer than this."""
    limit: int
    """At most so many of them in one reserve; at least 1."""


class JobReserve(Request, frozen=True, kw_only=True):
    """Lease the next jobs, in order of priority, lane, `due_at` and id over all the queues named.

    Jobs of paused queues are passed over whole. A guarded job is only taken within `guarded_limit`, and the reserve
    ends at the first one beyond it, so that it is not overtaken for ever. Solo jobs stand in a lane of their own,
    before the others of their priority: it is passed over unless `solo` allows, and then gives one job at most.

    With `aged`, first of all, those that have been due for too long: the longest due first, over all queues named,
    within their limits, from the front lane and the plain one (strays too). It ends at the first guarded one beyond
    `guarded_limit`, which holds nothing else up. What is left of the limits is taken in order as ever.

    Jobs with limits, or that take turns, stand in lines and not in those lanes: what is taken of them, and when, is
    said in `taskharbor.driver.limiting` (rules 24 and 25).
    """

    queues: Sequence[QueueTake]
    limit: int
    lease: timedelta
    token: int
    """A fresh random 63-bit number. Repeating a reserve with its token, while the lease exists, returns the jobs it
    took and still holds, and takes no new ones: what a worker does when the answer was lost."""
    worker: str
    tasks: frozenset[str]
    """Names of tasks this worker knows, aliases too: which stray lanes it may scan (rule 16)."""
    build: str
    """What the worker can decode, as a digest: stray lanes that it refused are left to others."""
    guarded_limit: int
    solo: bool
    aged: AgedTake | None = None
    partitioned_limit: int | None = None
    """At most so many jobs that stand in lines, or whose queue has a limit: how many slots are free, so that nobody
    holds ahead what another could start. None: as many as `limit` allows."""


class Reservation(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a `job_reserve`. Without deliveries there is no lease."""

    deliveries: Sequence[Delivery]
    expires_at: datetime
    held_back: bool = False
    """It met a job that may be taken once a slot is free, and not before: a guarded one, or one of a line. At a guarded
    one in a plain lane it ended."""
    next_due_in: timedelta | None = None
    """How long until the next job of these queues is due: never too great; zero whenever one is due now, or may be, as
    after a reserve that a limit ended; None if there is none."""


class LeaseHold(msgspec.Struct, frozen=True):
    """One lease a worker means to keep."""

    token: int
    started: Sequence[str] = ()
    """Jobs of it whose handlers began since the last report: an attempt is a start that the store knows (rule 4)."""


class LeaseExtend(Request, frozen=True, kw_only=True):
    """Keep leases, report starts, learn of cancels: the heartbeat of a whole worker in one round trip."""

    worker: str
    leases: Sequence[LeaseHold]
    lease: timedelta
    """Each is extended to so long after the store's now."""


class CancelRequest(msgspec.Struct, frozen=True):
    """A running job whose cancel was asked for."""

    job_id: str
    reason: str


class LeaseExtended(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a `lease_extend`."""

    expires_at: datetime
    lost: Sequence[int] = ()
    """Tokens of leases that are gone; their starts were not written. An expired lease that nobody reclaimed is kept."""
    cancels: Sequence[CancelRequest] = ()
    """Every cancel pending in these leases, told anew each time."""
    known_worker: bool = True
    """False: the register has no such worker (any more), and it should announce itself again."""
    watched: bool = False
    """Somebody reads the feed of events: tell what happens (`event_append`)."""
    order: Order | None = None
    """What a person told this worker to do, told anew each time."""


class LeaseReclaim(Request, frozen=True, kw_only=True):
    """Take expired leases from workers that are gone and decide what becomes of their jobs (rules 4 and 5)."""

    observed: timedelta
    """For how long the caller has seen the store without a break. A lease of a longer duration is not touched: after an
    outage of the store its holder has a whole lease to come back."""
    limit: int = 1000
    """Jobs, at least one lease whole."""


class Reclaimed(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one job of a reclaimed lease."""

    job_id: str
    task: str
    queue: str
    worker: str
    """Who had held it."""
    fate: SettleKind
    """RETRY, RELEASE, BURY, or CANCEL where one was pending."""


class JobSettle(Request, frozen=True, kw_only=True):
    """Write down how deliveries ended."""

    settlements: Sequence[Settlement]


class JobStore(Protocol):
    """The verbs every job passes through."""

    async def job_enqueue(self, request: JobEnqueue, /) -> Sequence[Enqueued]:
        """Store jobs and flows and return one answer each: for the jobs in order, then for the flows."""
        ...

    async def job_reserve(self, request: JobReserve, /) -> Reservation:
        """Lease the next jobs that may run."""
        ...

    async def lease_extend(self, request: LeaseExtend, /) -> LeaseExtended:
        """Keep a worker's leases, write its starts, tell it of cancels."""
        ...

    async def lease_reclaim(self, request: LeaseReclaim, /) -> Sequence[Reclaimed]:
        """Take back the jobs of workers that are gone."""
        ...

    async def job_settle(self, request: JobSettle, /) -> Sequence[Settled]:
        """Write down how deliveries ended and return one answer each, in order."""
        ...
