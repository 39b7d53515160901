"""All by which a worker tells what it does, put together: reports of its jobs, events, counts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Generator
from contextlib import contextmanager

from taskharbor.driver import Store
from taskharbor.telemetry import Hub, Tallies
from taskharbor.worker.background import Background
from taskharbor.worker.journal import Journal
from taskharbor.worker.recording import Recording
from taskharbor.worker.reporting import Reporting
from taskharbor.worker.telling import Telling


class Voice:
    """What one worker tells, and its ways to do so."""

    def __init__(self, hub: Hub, store: Store, *, worker: str) -> None:
        """Prepare it for the running loop."""
        tallies = Tallies()
        self._hub = hub
        self._recording = Recording(store, tallies, worker=worker)
        self.journal = Journal(store, worker=worker)
        self.telling = Telling(hub, self.journal, tallies, worker=worker)
        self.reporting = Reporting(store, self.telling.progressed, worker=worker)

    def start(self, background: Background) -> None:
        """Begin to write what is told."""
        _ = background.spawn(self.reporting.run(), "reporting")
        _ = background.spawn(self.journal.run(), "journal")
        _ = background.spawn(self._recording.run(), "recording")

    @contextmanager
    def heard(self, go_on: Callable[[], None]) -> Generator[None]:
        """Return a block in which `go_on` is called on this loop when a listener that was waited for has room again."""
        loop = asyncio.get_running_loop()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has closed
                loop.call_soon_threadsafe(go_on)

        self._hub.on_room(wake)
        try:
            yield
        finally:
            self._hub.off_room(wake)

    async def last_words(self) -> None:
        """Write what is left to write, when all outcomes are written."""
        await self._recording.write()
        await self.journal.flush()
