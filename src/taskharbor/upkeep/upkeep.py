"""What every live worker does now and then: take expired leases from workers that are gone."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta

from taskharbor.driver import LeaseExtend, LeaseReclaim, Reclaimed, Store
from taskharbor.errors import StoreUnavailable
from taskharbor.settlement import SettleKind

logger = logging.getLogger("taskharbor.upkeep")


class Upkeep:
    """One worker's share of it."""

    def __init__(
        self,
        store: Store,
        *,
        lease: timedelta,
        observed: Callable[[], timedelta],
        seen: Callable[[datetime | None], None],
        lost: Callable[[], None],
        worker: str,
        on_own: Callable[[Sequence[str]], None],
        on_reclaimed: Callable[[Sequence[Reclaimed]], Awaitable[None]],
    ) -> None:
        """Prepare it; `observed`, `seen` and `lost` keep the worker's sight of the store (rule 5).

        `on_own` is told which of the worker's own jobs it has reclaimed, `on_reclaimed` of all.
        """
        self._store = store
        self._every = lease.total_seconds() / 3
        self._observed = observed
        self._seen = seen
        self._worker = worker
        self._on_own = on_own
        self._on_reclaimed = on_reclaimed
        self._lease = lease
        self._lost = lost

    async def run(self) -> None:
        """Reclaim at a third of a lease, until cancelled."""
        while True:
            try:
                await self.reclaim()
            except StoreUnavailable:
                self._lost()
            # Spread out, so that many workers do not ask in step.
            await asyncio.sleep(self._every * random.uniform(0.8, 1.2))

    async def reclaim(self) -> None:
        """Take expired leases from workers that are gone."""
        # First an empty heartbeat, for the store's time: if its clock has jumped, nobody is dead for that.
        told = await self._store.lease_extend(LeaseExtend(worker=self._worker, leases=[], lease=self._lease))
        self._seen(told.expires_at - self._lease)
        reclaimed = await self._store.lease_reclaim(LeaseReclaim(observed=self._observed()))
        own = [job.job_id for job in reclaimed if job.worker == self._worker]
        if own:
            self._on_own(own)
        for job in reclaimed:
            level = logging.ERROR if job.fate is SettleKind.BURY else logging.WARNING
            logger.log(
                level,
                "job %s (task %r, queue %r) was lost with worker %s: %s",
                job.job_id,
                job.task,
                job.queue,
                job.worker,
                _FATES.get(job.fate, job.fate.value),
            )
        await self._on_reclaimed(reclaimed)


_FATES = {
    SettleKind.RETRY: "its attempt counts as failed",
    SettleKind.RELEASE: "no start of it was known, and it is ready again",
    SettleKind.BURY: "it is a dead letter now",
    SettleKind.CANCEL: "it is cancelled, as was asked",
}
