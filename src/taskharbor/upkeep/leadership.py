"""Whether this worker leads, as far as it can know: asked again and again, and given up in good time."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from taskharbor.driver import UPKEEP, LeaderRelease, LeaderTake, Store

TTL: Final = timedelta(seconds=10)
"""Of a leader's lease. Asked for at a third of it, so that another takes over within about so long after a crash."""
_SAFE: Final = 0.8
"""Of the lease, counted from before it was asked for: then this worker holds itself for a leader no more. What it asks
the store later carries its fence, and changes nothing where another leads."""


class Leadership:
    """One worker's part in the election of who does the upkeep. Not safe to share between threads."""

    def __init__(
        self, worker: str, *, ttl: timedelta = TTL, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin as one who does not lead."""
        self._worker = worker
        self._ttl = ttl
        self._monotonic = monotonic
        self._fence = 0
        self._until: float | None = None
        self.every: Final = ttl / 3
        """How often to ask."""

    @property
    def fence(self) -> int | None:
        """Return the fence to write with; None while this worker does not lead."""
        if self._until is None or self._monotonic() >= self._until:
            return None
        return self._fence

    def leads(self) -> bool:
        """Return whether this worker leads, as far as it knows."""
        return self.fence is not None

    async def ask(self, store: Store) -> bool:
        """Lead if nobody else does, or go on leading; return whether this worker leads.

        Raises:
            StoreUnavailable: it is not known. Whoever led goes on until its time is over.
        """
        asked = self._monotonic()
        answer = await store.leader_take(LeaderTake(role=UPKEEP, worker=self._worker, ttl=self._ttl))
        if answer.worker != self._worker:
            self._until = None
            return False
        self._fence, self._until = answer.fence, asked + self._ttl.total_seconds() * _SAFE
        return True

    async def release(self, store: Store) -> None:
        """Lead no more, so that another can at once."""
        if self._until is not None:
            self._until = None
            await store.leader_release(LeaderRelease(role=UPKEEP, worker=self._worker))
