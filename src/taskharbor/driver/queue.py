"""Queues: paused and resumed by name, listed with what is in them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from taskharbor.driver.request import Request


class QueuePause(Request, frozen=True, kw_only=True):
    """Stop reserve on queues at once; enqueue, and jobs already leased, go on (rule 15)."""

    queues: Sequence[str]
    by: str = ""
    reason: str = ""


class QueueResume(Request, frozen=True, kw_only=True):
    """Let queues be reserved from again."""

    queues: Sequence[str]


class QueueList(Request, frozen=True, kw_only=True):
    """List every queue that holds live jobs or is paused."""


class QueueInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One queue, at one instant."""

    name: str
    paused: bool = False
    paused_at: datetime | None = None
    paused_by: str = ""
    reason: str = ""
    ready: int = 0
    scheduled: int = 0
    """Scheduled and retrying: due later."""
    parked: int = 0
    waiting: int = 0
    """For earlier steps of their flows."""
    running: int = 0


class QueueControl(Protocol):
    """The verbs for whole queues."""

    async def queue_pause(self, request: QueuePause, /) -> Sequence[bool]:
        """Pause queues, whether or not anything was ever put in them; return of each whether it was not paused before.

        Pausing again keeps the first instant.
        """
        ...

    async def queue_resume(self, request: QueueResume, /) -> Sequence[bool]:
        """Resume queues; return of each whether it was paused."""
        ...

    async def queue_list(self, request: QueueList, /) -> Sequence[QueueInfo]:
        """Return the queues sorted by name."""
        ...
