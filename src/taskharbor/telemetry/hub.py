"""Where those who tell meet those who listen, in one process; each harbor has one.

While nobody listens, who might tell something looks at `active`, and makes nothing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence

from taskharbor.telemetry.buffer import Buffer
from taskharbor.telemetry.news import News

logger = logging.getLogger("taskharbor")

_LOOK_SECONDS = 0.05
"""Between two looks for room by a thread: a handler that waits has to notice that it is cancelled."""
_TELL_SECONDS = 10.0


class Hub:
    """Carries news from who tells to who listens. Safe to use from any thread and any event loop."""

    def __init__(self) -> None:
        """Make one without listeners."""
        self.active = False
        """Somebody listens."""
        self.waits = True
        """Whoever tells waits for listeners that asked for it; or what they have not read goes beyond their size."""
        self._pid = os.getpid()
        # Reentrant: a subscription that is collected as garbage may end inside of any block below.
        self._lock = threading.RLock()
        self._buffers: tuple[Buffer, ...] = ()
        self._kinds = frozenset[type]()
        self._waiting = set[Callable[[], None]]()

    def wants(self, kind: type) -> bool:
        """Return whether somebody listens for news of that kind."""
        return self.active and kind in self._kinds

    def publish(self, news: Sequence[News]) -> None:
        """Tell those who listen. Never waits."""
        if self._is_forked():
            return
        for buffer in self._buffers:
            buffer.put(news)

    def full(self, kinds: frozenset[type]) -> bool:
        """Return whether who tells news of these kinds has to wait for a listener that asked for it."""
        return (self.active and self.waits) and any(
            buffer.full and not kinds.isdisjoint(buffer.kinds) for buffer in self._buffers
        )

    def wait_for_room(self, kinds: frozenset[type]) -> None:
        """Block until no listener to these kinds has to be waited for."""
        since, told = time.monotonic(), False
        while self.full(kinds):
            time.sleep(_LOOK_SECONDS)
            if not told and time.monotonic() - since > _TELL_SECONDS:
                told = True
                _tell_of_wait()

    async def room(self, kinds: frozenset[type], enough: Callable[[], bool] = lambda: False) -> None:
        """Wait until no listener to these kinds has to be waited for, or until `enough`, looked at now and then."""
        import asyncio

        since, told = time.monotonic(), False
        loop, woken = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has closed
                loop.call_soon_threadsafe(woken.set)

        self.on_room(wake)
        try:
            while self.full(kinds) and not enough():
                woken.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(woken.wait(), _LOOK_SECONDS)
                if not told and time.monotonic() - since > _TELL_SECONDS:
                    told = True
                    _tell_of_wait()
        finally:
            self.off_room(wake)

    # --- listeners

    def add(self, buffer: Buffer) -> None:
        """Let a listener in."""
        self._is_forked()
        with self._lock:
            self._set((*self._buffers, buffer))

    def remove(self, buffer: Buffer) -> None:
        """Let a listener go."""
        if self._is_forked():
            return
        buffer.close()
        with self._lock:
            self._set(tuple(other for other in self._buffers if other is not buffer))
        self.note_room()

    def on_room(self, wake: Callable[[], None]) -> None:
        """Have `wake` called, in any thread, whenever a listener that was full has room again."""
        with self._lock:
            self._waiting.add(wake)

    def off_room(self, wake: Callable[[], None]) -> None:
        """Call it no more."""
        with self._lock:
            self._waiting.discard(wake)

    def note_room(self) -> None:
        """Wake those who wait for room."""
        with self._lock:
            waiting = list(self._waiting)
        for wake in waiting:
            wake()

    def close(self) -> None:
        """Let all listeners go; more may come."""
        for buffer in self._buffers:
            self.remove(buffer)

    def _set(self, buffers: tuple[Buffer, ...]) -> None:
        self._buffers = tuple(buffer for buffer in buffers if not buffer.closed)
        self._kinds = frozenset(kind for buffer in self._buffers for kind in buffer.kinds)
        self.active = bool(self._buffers)

    def _is_forked(self) -> bool:
        """Return whether this is a child forked since it was made; then its listeners are the parent's."""
        if self._pid == os.getpid():
            return False
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._waiting = set[Callable[[], None]]()
        self._set(())
        return True


def _tell_of_wait() -> None:
    logger.warning(
        "a listener with when_full='wait' has not read for %g s, and whatever tells it something waits; read it from "
        "another thread or task than the one that enqueues, or close it",
        _TELL_SECONDS,
    )
