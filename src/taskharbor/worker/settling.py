"""Writing outcomes down: at once when idle, so that a lone job is never delayed; in growing batches under load."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from taskharbor.driver import JobSettle, Store
from taskharbor.errors import StoreUnavailable
from taskharbor.settlement import Settled, Settlement, SettleStatus
from taskharbor.worker.patience import Patience

logger = logging.getLogger("taskharbor.worker")

_BATCH = 1000


class Settling:
    """Gathers settlements while the last batch is on its way, and sends them as the next."""

    def __init__(
        self,
        store: Store,
        patience: Patience,
        on_settled: Callable[[Sequence[Settlement], Sequence[Settled]], None],
    ) -> None:
        self._store = store
        self._patience = patience
        self._on_settled = on_settled
        self._waiting: list[Settlement] = []
        self.pending = 0
        """How many settlements the store has not answered yet."""
        self._wake = asyncio.Event()
        self._gave_up = False

    def add(self, settlements: Sequence[Settlement]) -> None:
        """Have settlements written with the next batch."""
        self._waiting.extend(settlements)
        self.pending += len(settlements)
        self._wake.set()

    def give_up(self) -> None:
        """Stop asking a store that does not answer: what is not written is left to the leases' expiry."""
        self._gave_up = True

    async def run(self) -> None:
        """Write batches until cancelled."""
        while True:
            if not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
            answers = await self._settle(batch)
            self.pending -= len(batch)
            self._on_settled(batch, answers)

    async def _settle(self, batch: list[Settlement]) -> Sequence[Settled]:
        try:
            return await self._patience.ask(
                self._store.job_settle, JobSettle(settlements=batch), give_up=lambda: self._gave_up
            )
        except StoreUnavailable:
            logger.error(
                "stopped with %d outcomes unwritten; their jobs run again when their leases expire",
                len(batch),
            )
            return [Settled(SettleStatus.STALE)] * len(batch)
        except Exception:
            if len(batch) == 1:
                logger.exception("the outcome of job %s cannot be written; it runs again", batch[0].job_id)
                return [Settled(SettleStatus.STALE)]
        # One that the store chokes on must not take the others with it.
        return [answer for settlement in batch for answer in await self._settle([settlement])]
