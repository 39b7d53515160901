"""A worker's entry in the store's register, by which others know which tasks are served and by which builds."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from datetime import UTC, datetime, timedelta

from taskharbor.driver import Store, WorkerAnnounce, WorkerForget
from taskharbor.errors import StoreUnavailable
from taskharbor.worker.preparing import Plans

logger = logging.getLogger("taskharbor.worker")


class Register:
    """One worker's entry. It lives by the heartbeat that extends the leases."""

    def __init__(
        self, store: Store, plans: Plans, *, worker: str, queues: tuple[str, ...], lease: timedelta
    ) -> None:
        self._store = store
        self._plans = plans
        self._worker = worker
        self._queues = queues
        self._lease = lease
        self._started_at = datetime.now(UTC)

    async def announce(self) -> None:
        """Put the worker on the register, or bring its entry up to date.

        Raises:
            StoreUnavailable: the store cannot be reached.
        """
        await self._store.worker_announce(
            WorkerAnnounce(
                worker=self._worker,
                queues=self._queues,
                tasks=self._plans.tasks,
                build=self._plans.build,
                # Told by every extend, so it may miss a few before others take it for gone.
                ttl=self._lease * 2,
                host=socket.gethostname(),
                pid=os.getpid(),
                started_at=self._started_at,
            )
        )

    async def announce_again(self) -> None:
        """Bring the entry up to date if that can be done now; if not, the next extend asks for it again."""
        try:
            await self.announce()
        except StoreUnavailable:
            pass
        except Exception:  # whatever it is, the worker can go on without
            logger.exception("worker %s cannot be put on the register", self._worker)

    async def forget(self) -> None:
        """Take the worker off the register; if the store cannot be reached, its entry ends by itself."""
        with contextlib.suppress(StoreUnavailable):
            await self._store.worker_forget(WorkerForget(workers=[self._worker]))
