"""Which queues came back empty a moment ago, and leave their share to the others."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

from taskharbor.driver import Reservation
from taskharbor.worker.asking.words import Ask

LOOK_AGAIN_SECONDS = 0.1
"""For so long a queue that came back empty counts as empty, unless it wakes us: jobs of it may become due meanwhile."""


class Empties:
    """Which queues came back empty a moment ago."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def now(self) -> Collection[str]:
        """Return them, without those last seen so too long ago."""
        old = time.monotonic() - LOOK_AGAIN_SECONDS
        for queue in [queue for queue, since in self._since.items() if since < old]:
            del self._since[queue]
        return self._since.keys()

    def note(self, ask: Ask, answer: Reservation, taken: Mapping[str, int]) -> None:
        """Learn from an answer: a queue that gave less than it was asked for is empty, where nothing else ended it."""
        proof = len(answer.deliveries) < ask.limit and not answer.held_back
        for take in ask.takes:
            if taken.get(take.name, 0) >= take.limit:
                self._since.pop(take.name, None)
            elif proof:
                self._since[take.name] = time.monotonic()

    def forget(self, queue: str) -> None:
        """Ask this one again."""
        self._since.pop(queue, None)

    def clear(self) -> None:
        """Ask all again."""
        self._since.clear()
