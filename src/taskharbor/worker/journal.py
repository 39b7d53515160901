"""A worker's events on their way to the feed, for those who read it in other processes: while somebody watches.

That somebody does is learned from the store: with each heartbeat, and from the answer to what is appended. Until then
nothing is kept and nothing is asked. Events are news: those that a store in trouble does not take are dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from taskharbor.driver import EventAppend, Store
from taskharbor.errors import StoreError
from taskharbor.event import JobEvent

logger = logging.getLogger("taskharbor.worker")

EVERY_SECONDS = 0.5
_BATCH = 1000
_MOST_KEPT = 20_000
"""Beyond which the oldest are dropped: a store that does not keep up must not fill the memory."""
_PATIENCE_SECONDS = 5.0


class Journal:
    """What one worker has to append to the feed."""

    def __init__(
        self, store: Store, *, worker: str, pause: Callable[[float], Awaitable[object]] = asyncio.sleep
    ) -> None:
        """Prepare it for the running loop; `pause` waits so many seconds."""
        self._store = store
        self._worker = worker
        self._pause = pause
        self._loop = asyncio.get_running_loop()
        self._events = deque[JobEvent](maxlen=_MOST_KEPT)
        self._woken = asyncio.Event()
        self._wake_sent = False
        self._failing = False
        self._appending = asyncio.Lock()
        self.watched = False
        """Somebody reads the feed."""

    def watch(self, watched: bool) -> None:
        """Note whether somebody reads the feed."""
        self.watched = watched

    def add(self, events: Sequence[JobEvent]) -> None:
        """Have events appended soon. Callable from any thread."""
        self._events.extend(events)
        if not self._wake_sent:
            self._wake_sent = True
            with contextlib.suppress(RuntimeError):  # the loop has closed
                self._loop.call_soon_threadsafe(self._woken.set)

    async def run(self) -> None:
        """Append what is added, in batches, until cancelled."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            await self._pause(EVERY_SECONDS)
            self._wake_sent = False
            await self.flush()

    async def flush(self) -> None:
        """Append what has been added so far, in order."""
        async with self._appending:
            while self._events:
                batch = [self._events.popleft() for _ in range(min(len(self._events), _BATCH))]
                await self._append(batch)

    async def _append(self, batch: Sequence[JobEvent]) -> None:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                watched = await self._store.event_append(EventAppend(events=batch))
        except Exception as error:
            dropped = len(batch) + len(self._events)
            self._events.clear()
            if not self._failing:
                self._failing = True
                logger.warning(
                    "%d events of worker %s are dropped; the feed cannot be written now: %s",
                    dropped,
                    self._worker,
                    str(error) or "no answer",
                    exc_info=None if isinstance(error, (StoreError, TimeoutError)) else error,
                )
            return
        self._failing = False
        if not watched:
            self.watched = False
            self._events.clear()
