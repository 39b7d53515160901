"""For how long a worker has seen the store without a break: what it takes to call others dead (rule 5)."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta


class Sight:
    """Kept up by every answer of the store, broken by every failure and by silence longer than `max_gap`.

    An outage, or a pause of this process, is not a mass crash: afterwards other workers get a whole lease to come back
    before anyone reclaims their jobs.
    """

    def __init__(self, max_gap: timedelta, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._max_gap = max_gap.total_seconds()
        self._monotonic = monotonic
        self._since: float | None = None
        self._last = 0.0

    def seen(self) -> None:
        """Note that the store answered."""
        now = self._monotonic()
        if self._since is None or now - self._last > self._max_gap:
            self._since = now
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
