"""How many unstarted jobs are worth holding: about what ended in the last tenth of a second."""

from __future__ import annotations

import time

_MOST_PREFETCHED = 1000
_PREFETCH_SECONDS = 0.1


class Pace:
    """How fast jobs end, of a worker or of one of its queues: short ones are held ahead, long ones left to others."""

    def __init__(self, prefetch: int | None) -> None:
        """Begin at nothing; a `prefetch` that was declared is kept to, but while nothing moves."""
        self._prefetch = prefetch
        self._lately = 0
        """Runs that ended since the rate was last measured."""
        self._in_all = 0
        self._before = 0
        self._handed_back_at = -1
        self._rate = 0.0
        self._rate_at = time.monotonic()

    def ended(self, runs: int) -> None:
        """Note that so many have ended."""
        self._lately += runs
        self._in_all += runs

    def target(self) -> int:
        """Return how many unstarted jobs to hold beyond the free slots."""
        if self._handed_back_at == self._in_all:  # nothing has moved since some were handed back
            return 0
        if self._prefetch is not None:
            return self._prefetch
        return min(int(self._rate * _PREFETCH_SECONDS), _MOST_PREFETCHED)

    def measure(self) -> None:
        """Take up what has ended since the last time: a rise counts at once, a fall by and by."""
        now = time.monotonic()
        passed = now - self._rate_at
        if passed >= _PREFETCH_SECONDS / 4:
            rate = self._lately / passed
            self._rate = rate if rate > self._rate else self._rate * 0.7 + rate * 0.3
            self._lately, self._rate_at = 0, now

    def look(self) -> None:
        """Remember how many have ended, for `stands`."""
        self._before = self._in_all

    @property
    def stands(self) -> bool:
        """Return whether nothing has ended since the last `look`."""
        return self._in_all == self._before

    def hand_back(self) -> None:
        """Hold nothing any more, until something ends."""
        self._rate = 0.0
        self._handed_back_at = self._in_all
