"""The register of live workers: who they are, what they know, when they were last heard."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
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


class WorkerRegister(Protocol):
    """The verbs of the register."""

    async def worker_announce(self, request: WorkerAnnounce, /) -> None:
        """Put a worker on the register."""
        ...

    async def worker_forget(self, request: WorkerForget, /) -> None:
        """Take workers off the register; leases they still hold are left to expire."""
        ...

    async def worker_list(self, request: WorkerList, /) -> Sequence[WorkerInfo]:
        """Return the live workers sorted by name. Those not heard for their `ttl` are left out."""
        ...
