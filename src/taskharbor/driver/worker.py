"""The register of live workers: who they are, what they know, when they were last heard."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

import msgspec

from taskharbor.driver.request import Request


class WorkerAnnounce(Request, frozen=True, kw_only=True):
    """Put a worker on the register, or replace its entry. `lease_extend` keeps it there."""

    worker: str
    """Unique for each start of a worker."""
    queues: Sequence[str]
    tasks: frozenset[str]
    build: str
    ttl: timedelta
    """It counts as live until so long after it was last heard."""
    host: str = ""
    pid: int = 0
    started_at: datetime | None = None


class WorkerForget(Request, frozen=True, kw_only=True):
    """Take workers off the register, when they stop."""

    workers: Sequence[str]


class WorkerList(Request, frozen=True, kw_only=True):
    """List the live workers."""


class Order(StrEnum):
    """What a worker may be told to do, from afar."""

    DRAIN = "drain"
    """Start nothing new, hand back what has not started, finish what runs, and end: as after a first signal."""
    STOP = "stop"
    """The same, and cancel what still runs after the grace period's end, which is now: as after a second signal."""


class WorkerOrder(Request, frozen=True, kw_only=True):
    """Tell workers to end. They learn of it with their next heartbeat, and no supervisor starts them again."""

    workers: Sequence[str]
    order: Order
    by: str = ""
    reason: str = ""


class WorkerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One live worker."""

    worker: str
    queues: Sequence[str]
    tasks: frozenset[str]
    build: str
    host: str
    pid: int
    started_at: datetime | None
    seen_at: datetime
    running: int = 0
    """Jobs it holds leases on."""
    order: Order | None = None
    """What it was told to do, and has been told, or will be with its next heartbeat."""
    ordered_by: str = ""


class WorkerRegister(Protocol):
    """The verbs of the register."""

    async def worker_announce(self, request: WorkerAnnounce, /) -> None:
        """Put a worker on the register."""
        ...

    async def worker_forget(self, request: WorkerForget, /) -> None:
        """Take workers off the register; leases they still hold are left to expire."""
        ...

    async def worker_order(self, request: WorkerOrder, /) -> Sequence[bool]:
        """Give an order; return of each whether it is a live worker and the order is news, in order.

        A STOP goes before a DRAIN, whichever comes first. Announcing itself again does not free a worker of it.
        """
        ...

    async def worker_list(self, request: WorkerList, /) -> Sequence[WorkerInfo]:
        """Return the live workers sorted by name. Those not heard for their `ttl` are left out."""
        ...
