"""Writing down what a worker has counted: now and then while there is something new, and when it stops."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from taskharbor.driver import StatisticsWrite, Store
from taskharbor.errors import StoreError
from taskharbor.telemetry import Tallies

logger = logging.getLogger("taskharbor.worker")

EVERY_SECONDS = 10.0
_BATCH = 1000
_PATIENCE_SECONDS = 5.0


class Recording:
    """Writes the tallies of one worker."""

    def __init__(
        self,
        store: Store,
        tallies: Tallies,
        *,
        worker: str,
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """Prepare it; `pause` waits so many seconds."""
        self._store = store
        self._tallies = tallies
        self._worker = worker
        self._pause = pause
        self._failing = False
        self._writing = asyncio.Lock()

    async def run(self) -> None:
        """Write what has changed, every ten seconds or so, until cancelled."""
        while True:
            await self._pause(EVERY_SECONDS)
            await self.write()

    async def write(self) -> None:
        """Write what has changed. A store in trouble is asked again the next time."""
        async with self._writing:
            if not self._tallies.dirty:
                return
            tallies = self._tallies.take()
            try:
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    for begin in range(0, len(tallies), _BATCH):
                        part = tallies[begin : begin + _BATCH]
                        await self._store.statistics_write(StatisticsWrite(worker=self._worker, tallies=part))
            except Exception as error:
                lost = self._tallies.give_back(tallies)
                if not self._failing or lost:
                    self._failing = True
                    logger.warning(
                        "what worker %s has counted cannot be written now%s: %s",
                        self._worker,
                        f", and {lost} counts of the oldest minutes are given up" if lost else "",
                        str(error) or "no answer",
                        exc_info=None if isinstance(error, (StoreError, TimeoutError)) else error,
                    )
                return
            self._failing = False
            self._tallies.written()
