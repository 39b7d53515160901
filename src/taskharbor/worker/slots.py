"""Reserved slots: which queue's jobs may start in what is free. Counts only, no I/O."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping

from taskharbor.job import Delivery


class Slots:
    """The slots of a worker of which some are reserved for queues.

    A queue's jobs take its own slots first, and the shared ones beyond. So those of all others never have more than the
    shared ones, whatever ends in which order.
    """

    def __init__(self, concurrency: int, reserved: Mapping[str, int]) -> None:
        """Begin with all of them free."""
        self.reserved = dict(reserved)
        self._shared = concurrency - sum(reserved.values())
        self._running = Counter[str]()

    def take(self, queue: str) -> None:
        """Note that a job of this queue takes a slot."""
        self._running[queue] += 1

    def leave(self, queue: str) -> None:
        """Note that a job of this queue has left its slot."""
        self._running[queue] -= 1

    @property
    def shared_free(self) -> int:
        """Return how many slots are free to any queue."""
        return self._shared - sum(
            max(running - self.reserved.get(queue, 0), 0) for queue, running in self._running.items()
        )

    def own_free(self, queue: str) -> int:
        """Return how many slots are free to this queue alone."""
        return max(self.reserved.get(queue, 0) - self._running[queue], 0)

    def free_to(self, queue: str) -> int:
        """Return in how many slots jobs of this queue may start now."""
        return self.own_free(queue) + self.shared_free

    def startable(self, buffer: deque[Delivery]) -> Delivery | None:
        """Take the first out of these that may start now; None if none may."""
        refused = set[str]()
        for place, delivery in enumerate(buffer):
            if delivery.queue in refused:
                continue
            if self.free_to(delivery.queue) > 0:
                del buffer[place]
                return delivery
            refused.add(delivery.queue)
        return None
