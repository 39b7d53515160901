"""What the memory driver's tables are made of: a structure for each kind of row.

Instants and durations in here are whole microseconds.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from taskharbor.driver import Order
from taskharbor.event import JobEvent
from taskharbor.flow import FlowState
from taskharbor.job import AttemptError, JobState, NewJob, Operation
from taskharbor.report import LogLine, Progress
from taskharbor.settlement import SOLO_CRASHES
from taskharbor.step import DeliveredStep, Input

SOLO, FRONT, NORMAL = range(3)
"""Lanes of one priority, in order. Solo jobs stand apart, so that one that has to wait holds up nobody else."""
LANES = 3


class Stray(msgspec.Struct, frozen=True):
    """Which workers may take a job that some could not: those that know the task and are of none of the builds."""

    task: str
    refused_by: frozenset[str]

    def open_to(self, tasks: frozenset[str], build: str) -> bool:
        """Return whether a worker of that build, knowing those tasks, may take it."""
        return self.task in tasks and build not in self.refused_by


class Row(msgspec.Struct, gc=False):
    """One job."""

    job: NewJob
    """As enqueued. Another takes its place, with the same id, task and key, only while it has a lane entry."""
    run_at: datetime
    enqueued_at: datetime
    due: int
    lane: int = NORMAL
    entry: int = 0
    """Number of its valid lane entry; 0 while it has none."""
    token: int | None = None
    """The lease it is held under."""
    settled_token: int | None = None
    """The lease under which it was last settled, until the next reserve."""
    attempt: int = 0
    """Attempts charged."""
    deliveries: int = 0
    lost: int = 0
    """Deliveries in a row lost unstarted to crashes."""
    crashes: int = 0
    """Crashes while it was running."""
    guarded: bool = False
    stray: Stray | None = None
    stray_reason: str = ""
    cancel: str | None = None
    """The reason of a pending cancel."""
    final: JobState | None = None
    """Its terminal state."""
    finished: int = 0
    expires: int | None = None
    """When its retention ends."""
    waits: int = 0
    """How many inputs are to come before it may be reserved."""
    inputs: dict[tuple[int, int], Input] | None = None
    """What came in for it, by slot and index; kept until it succeeds or is cancelled."""
    reason: str = ""
    result: bytes | None = None
    result_codec: str = ""
    errors: tuple[AttemptError, ...] = ()
    operations: tuple[Operation, ...] = ()

    @property
    def solo(self) -> bool:
        """Return whether it may run beside no other of its kind."""
        return self.crashes >= SOLO_CRASHES

    @property
    def delivered(self) -> DeliveredStep | None:
        """Return what is delivered with it, if it is a step."""
        step = self.job.step
        if step is None or not (step.flow or step.holes):
            return None
        inputs = sorted((self.inputs or {}).values(), key=lambda one: (one.slot, one.index))
        return DeliveredStep(step.flow, step.holes, tuple(inputs))


class Lease(msgspec.Struct):
    """One reserve's jobs, and until when they are kept from others."""

    token: int
    worker: str
    expires: int
    duration: int
    rows: dict[str, Row]
    """Those not settled yet; a lease without rows is dropped."""
    started: set[str]


class Key(msgspec.Struct):
    """A taken idempotency key."""

    job_id: str
    digest: bytes
    expires: int | None = None
    """When it is free again; None while its job is live."""


class Pause(msgspec.Struct, frozen=True):
    """A paused queue."""

    at: int
    by: str
    reason: str


class Worker(msgspec.Struct):
    """A worker on the register."""

    queues: tuple[str, ...]
    tasks: frozenset[str]
    build: str
    ttl: int
    host: str
    pid: int
    started_at: datetime | None
    seen: int
    order: Order | None = None
    """What it was told to do."""
    ordered_by: str = ""


class Flow(msgspec.Struct):
    """What holds of all steps of a flow together."""

    id: str
    """That of its last step."""
    name: str
    meta: dict[str, str]
    on_failure: NewJob | None
    absorbing: bool
    enqueued: int
    retain: int
    """How long it is kept once it has ended: as its last step."""
    state: FlowState = FlowState.RUNNING
    reason: str = ""
    finished: int | None = None
    expires: int | None = None
    """When its retention ends."""


class Told(msgspec.Struct):
    """What one job has told of itself."""

    progress: Progress | None = None
    lines: tuple[LogLine, ...] = ()
    """The last ones, in order."""


class Kept(msgspec.Struct, frozen=True):
    """One event of the feed."""

    number: int
    """Its place, from 1."""
    at: int
    """When it was appended."""
    event: JobEvent


class Leader(msgspec.Struct, frozen=True):
    """Who leads a role, or was the last to."""

    worker: str
    fence: int
    since: int
    expires: int
    """In the past once it leads no more."""
