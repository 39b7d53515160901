"""What one listener has not read yet: bounded, filled from any thread, read by threads and by event loops.

A thread that fills it may be interrupted by a `JobInterrupt`, so whoever calls from a handler does it sheltered.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Literal, TypeAlias

from taskharbor.telemetry.news import News

Overflow: TypeAlias = Literal["drop_oldest", "drop_newest", "wait"]
"""What becomes of news that finds a buffer full: it takes the place of the oldest, it is dropped, or who tells it waits
until there is room."""


class Buffer:
    """The news that one listener asked for, as far as it has not taken them."""

    def __init__(
        self,
        *,
        kinds: frozenset[type],
        tasks: frozenset[str],
        queues: frozenset[str],
        size: int,
        when_full: Overflow,
    ) -> None:
        """Make it empty. `kinds`, `tasks` and `queues` choose what is put in; an empty one of the last two is any."""
        self.kinds = kinds
        self._tasks = tasks
        self._queues = queues
        self._size = size
        self._waits = when_full == "wait"
        self._drops_oldest = when_full == "drop_oldest"
        self._items = deque[News]()
        self._pid = os.getpid()
        self._lock = threading.RLock()  # reentrant for the same reason as the hub's
        self._wakers = set[Callable[[], None]]()
        self._closed = False
        self.dropped = 0
        """How many were dropped because it was full."""

    @property
    def closed(self) -> bool:
        """Return whether nothing more is put in. In a forked child all that the parent made are closed."""
        return self._closed or self._pid != os.getpid()

    @property
    def full(self) -> bool:
        """Return whether who tells has to wait: there is more than it should hold, and the listener asked for that."""
        return self._waits and len(self._items) > self._size and not self.closed

    def put(self, news: Iterable[News]) -> None:
        """Put in what the listener asked for. Never waits: what comes while it is full, and is to wait, goes beyond."""
        chosen = [
            one
            for one in news
            if type(one) in self.kinds
            and (not self._tasks or one.task in self._tasks)
            and (not self._queues or one.queue in self._queues)
        ]
        if not chosen:
            return
        with self._lock:
            if self._closed:
                return
            for one in chosen:
                self._add(one)
            wakers = list(self._wakers)
        for wake in wakers:
            wake()

    def _add(self, one: News) -> None:
        if len(self._items) >= self._size and not self._waits:
            self.dropped += 1
            if not self._drops_oldest:
                return
            self._items.popleft()
        self._items.append(one)

    def take(self) -> tuple[News | None, bool]:
        """Return the oldest, None if there is none, and whether this has made room for those who wait for it."""
        if self._pid != os.getpid():
            return None, False
        with self._lock:
            if not self._items:
                return None, False
            made_room = self._waits and len(self._items) == self._size + 1
            return self._items.popleft(), made_room

    def on_news(self, wake: Callable[[], None]) -> None:
        """Have `wake` called, in any thread, whenever something is put in, and once it is closed."""
        with self._lock:
            self._wakers.add(wake)

    def off_news(self, wake: Callable[[], None]) -> None:
        """Call it no more."""
        with self._lock:
            self._wakers.discard(wake)

    def close(self) -> None:
        """Put in nothing more; what is there can still be taken. Wakes who waits."""
        if self._pid != os.getpid():
            return
        with self._lock:
            self._closed = True
            wakers = list(self._wakers)
        for wake in wakers:
            wake()
