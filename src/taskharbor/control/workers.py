"""`harbor.workers`: who works on a store now."""

from __future__ import annotations

from collections.abc import Sequence

from taskharbor.call import refuse_on_loop
from taskharbor.control.asking import Asks
from taskharbor.driver import LeaderList, Leadership, WorkerInfo, WorkerList


class Workers:
    """The live workers of a store: those that were heard within the time that they gave themselves."""

    def __init__(self, asks: Asks) -> None:
        """Made by the harbor."""
        self._asks = asks

    def list(self) -> Sequence[WorkerInfo]:
        """Return the live workers sorted by name, each with what it serves and how many jobs it holds."""
        refuse_on_loop("harbor.workers.list()", "harbor.workers.alist(...)")
        return self._asks.ask(lambda store: store.worker_list(WorkerList()))

    async def alist(self) -> Sequence[WorkerInfo]:
        """Return the live workers; the async form of `list`."""
        return await self._asks.aask(lambda store: store.worker_list(WorkerList()))

    def leaders(self) -> Sequence[Leadership]:
        """Return who leads now, sorted by role: `upkeep` is who fires schedules and prunes. Empty if nobody does."""
        refuse_on_loop("harbor.workers.leaders()", "harbor.workers.aleaders(...)")
        return self._asks.ask(lambda store: store.leader_list(LeaderList()))

    async def aleaders(self) -> Sequence[Leadership]:
        """Return who leads now; the async form of `leaders`."""
        return await self._asks.aask(lambda store: store.leader_list(LeaderList()))
