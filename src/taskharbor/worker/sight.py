"""For how long a worker has seen the store without a break: what it takes to call others dead (rule 5)."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta


class Sight:
    """Kept up by every answer of the store; broken by a failure, by silence, and by a jump of the store's clock, each
    longer than `max_gap`.

    An outage, or a pause of this process, is not a mass crash: afterwards other workers get a whole lease to come back
    before anyone reclaims their jobs.
    """

    def __init__(self, max_gap: timedelta, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._max_gap = max_gap.total_seconds()
        self._monotonic = monotonic
        self._since: float | None = None
        self._last = 0.0
        self.answers = 0
        """How often the store was seen."""
        self._ahead: float | None = None
        """How far the store's clock was ahead of ours when this view began, in seconds."""

    def seen(self, store_time: datetime | None = None) -> None:
        """Note that the store answered, and what its clock said, where the answer tells."""
        now = self._monotonic()
        self.answers += 1
        if self._since is None or now - self._last > self._max_gap:
            self._since, self._ahead = now, None
        if store_time is not None:
            ahead = store_time.timestamp() - now
            # A clock that jumps makes every lease look expired at once, its own among them; and a machine that slept
            # may not have counted the time.
            if self._ahead is not None and abs(ahead - self._ahead) > self._max_gap:
                self._since, self._ahead = now, ahead
            elif self._ahead is None:
                self._ahead = ahead
        self._last = now

    def lost(self) -> None:
        """Note that the store did not answer."""
        self._since = None

    def observed(self) -> timedelta:
        """Return for how long the store has been seen without a break, up to now."""
        now = self._monotonic()
        if self._since is None or now - self._last > self._max_gap:
            return timedelta(0)
        return timedelta(seconds=now - self._since)
