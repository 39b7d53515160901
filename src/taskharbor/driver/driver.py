"""The contract as a whole: a driver opens stores, says what it can do, and wakes those who wait.

Everything is asked in batches, through small protocols. A *store* is one place's connection: bound to the event loop it
was opened on. A driver is shared by all threads and loops of a process and holds no connection of its own until asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import timedelta
from enum import StrEnum
from typing import Protocol, runtime_checkable

import msgspec

from taskharbor.driver.audit import Audit
from taskharbor.driver.control import CancelStatus, JobCancel, JobControl, JobGet
from taskharbor.driver.event import EventFeed
from taskharbor.driver.flow import FlowCancel, FlowControl, FlowGet
from taskharbor.driver.leader import Leaders
from taskharbor.driver.limit import Limits
from taskharbor.driver.listen import Listen
from taskharbor.driver.queue import QueueControl
from taskharbor.driver.report import JobReports
from taskharbor.driver.retention import Retention
from taskharbor.driver.schedule import Schedules
from taskharbor.driver.statistics import Statistics
from taskharbor.driver.store import Enqueued, JobEnqueue, JobStore
from taskharbor.driver.worker import WorkerRegister
from taskharbor.errors import UnsupportedError
from taskharbor.flow import FlowRecord
from taskharbor.job import JobRecord


class Capability(StrEnum):
    """What some drivers offer and others cannot. Asked, never guessed."""

    BLOCKING = "blocking"
    """Producers may call it without an event loop (`BlockingDriver`); others go over a bridge."""
    DURABLE = "durable"
    """What was answered survives the end of the process."""
    SHARED = "shared"
    """Several processes can open the same store."""
    TRANSACTIONAL = "transactional"
    """Jobs can be stored in a transaction of the caller's own (`TransactionalDriver`)."""
    MIGRATIONS = "migrations"
    """Its tables have numbered versions (`MigratingDriver`)."""


class Store(
    JobStore,
    JobControl,
    FlowControl,
    QueueControl,
    WorkerRegister,
    Retention,
    JobReports,
    EventFeed,
    Statistics,
    Schedules,
    Leaders,
    Limits,
    Audit,
    Protocol,
):
    """Every verb, on one event loop. Any of them may raise `StoreUnavailable`; asking again is always safe."""


class Driver(Listen, Protocol):
    """What a storage engine implements."""

    @property
    def name(self) -> str:
        """Return the URL scheme it answers to, such as `sqlite`."""
        ...

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Return what it can do beyond the verbs that all drivers have."""
        ...

    @property
    def poll_interval(self) -> timedelta:
        """Return how long to wait for a wake-up before looking again."""
        ...

    def connect(self) -> AbstractAsyncContextManager[Store]:
        """Open a store for the running event loop; leaving the block closes it.

        Raises:
            StoreUnavailable: it cannot be reached now.
            DeploymentError: it can be reached, and cannot be used: no such database, an old schema.
        """
        ...

    def close(self) -> None:
        """Give up what is shared by all stores. Idempotent."""
        ...


class ProducerStore(Protocol):
    """The verbs a producer needs, in blocking form, callable from any thread."""

    def job_enqueue(self, request: JobEnqueue, /) -> Sequence[Enqueued]:
        """Store jobs and return one answer each, in order."""
        ...

    def job_get(self, request: JobGet, /) -> Sequence[JobRecord | None]:
        """Return one record an id, in order."""
        ...

    def job_cancel(self, request: JobCancel, /) -> Sequence[CancelStatus]:
        """Cancel jobs and return one answer each, in order."""
        ...

    def flow_get(self, request: FlowGet, /) -> Sequence[FlowRecord | None]:
        """Return one record an id, in order."""
        ...

    def flow_cancel(self, request: FlowCancel, /) -> Sequence[CancelStatus]:
        """End flows and return one answer each, in order."""
        ...


@runtime_checkable
class BlockingDriver(Protocol):
    """A driver with `Capability.BLOCKING`."""

    def connect_blocking(self) -> AbstractContextManager[ProducerStore]:
        """Open a blocking store; leaving the block closes it."""
        ...


class Joined(Protocol):
    """Enqueue within a transaction that the caller began, and ends."""

    def job_enqueue(self, request: JobEnqueue, /) -> Sequence[Enqueued]:
        """Store jobs in the caller's transaction and return one answer each, in order.

        What is refused leaves the transaction as it was.

        Raises:
            UsageError: there is no transaction to join, or the connection is one for event loops.
        """
        ...

    async def ajob_enqueue(self, request: JobEnqueue, /) -> Sequence[Enqueued]:
        """Store jobs in the caller's transaction; the async form of `job_enqueue`."""
        ...

    def leave(self) -> None:
        """Note that the caller sends no more through it: workers are woken once the transaction is committed."""
        ...


@runtime_checkable
class TransactionalDriver(Protocol):
    """A driver with `Capability.TRANSACTIONAL`."""

    def join(self, connection: object, /) -> Joined:
        """Return the way into a connection's transaction.

        Raises:
            UsageError: it is no connection of a kind this driver knows, or one to another store.
        """
        ...


class SchemaVersion(msgspec.Struct, frozen=True):
    """Where a store's tables stand."""

    present: int
    """Number of the last migration it has; 0 where there are no tables yet."""
    wanted: int
    """Number of the last migration this release knows."""


class Migration(msgspec.Struct, frozen=True):
    """One numbered change of a store's tables."""

    number: int
    name: str
    statements: Sequence[str]


@runtime_checkable
class MigratingDriver(Protocol):
    """A driver with `Capability.MIGRATIONS`. Blocking: migrations are run by people and at start-up."""

    @property
    def migrations(self) -> Sequence[Migration]:
        """Return every migration this release knows, in order, as one would run it by hand: each notes itself."""
        ...

    def schema_version(self) -> SchemaVersion:
        """Return where the store's tables stand, changing nothing.

        Raises:
            StoreUnavailable: it cannot be reached now.
            DeploymentError: it cannot be used.
        """
        ...

    def migrate(self, to: int | None = None) -> Sequence[Migration]:
        """Bring the tables to the version wanted, or only to `to`, and return what was run; nothing if they were there.

        Raises:
            StoreUnavailable: it cannot be reached now.
            SchemaError: the tables are newer than this release, or it knows no version `to`.
            DeploymentError: it cannot be used.
        """
        ...


def require(driver: Driver, capability: Capability, purpose: str) -> None:
    """Check that a driver has a capability.

    Raises:
        UnsupportedError: it has not; `purpose` says for what it was needed.
    """
    if capability not in driver.capabilities:
        can = ", ".join(sorted(driver.capabilities)) or "none"
        raise UnsupportedError(
            f"the driver {driver.name!r} does not offer {capability.value!r}, which {purpose} needs (it offers: {can})"
        )
