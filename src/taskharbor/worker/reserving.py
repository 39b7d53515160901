"""The reserve itself: what a worker adds to the numbers that were decided, and how it asks a store that may be away."""

from __future__ import annotations

from collections.abc import Callable

from taskharbor.driver import JobReserve, Reservation, Store
from taskharbor.errors import StoreUnavailable
from taskharbor.worker.asking import Ask
from taskharbor.worker.execution import Execution
from taskharbor.worker.patience import Patience
from taskharbor.worker.preparing import Plans
from taskharbor.worker.settings import WorkerSettings
from taskharbor.worker.shares import Aging
from taskharbor.worker.sharing import AGING_SHARE


class Reserving:
    """Asks for jobs that this worker can run; a share of them, with aging, has waited too long."""

    def __init__(
        self,
        store: Store,
        settings: WorkerSettings,
        plans: Plans,
        execution: Execution,
        patience: Patience,
        *,
        worker: str,
        on_refresh: Callable[[], None],
        stopping: Callable[[], bool],
    ) -> None:
        """Prepare it; `on_refresh` is called when tasks have been declared since the last time."""
        self._store = store
        self._lease = settings.lease
        self._plans = plans
        self._execution = execution
        self._patience = patience
        self._worker = worker
        self._on_refresh = on_refresh
        self._stopping = stopping
        share = AGING_SHARE if settings.aging_share is None else settings.aging_share
        self._aging = None if settings.aging is None else Aging(settings.aging, share)

    async def ask(self, ask: Ask) -> Reservation | None:
        """Return the store's answer, however long it takes; None if the worker stops before there is one."""
        if self._plans.outdated:
            self._plans.refresh()
            self._on_refresh()
        request = JobReserve(
            queues=ask.takes,
            limit=ask.limit,
            lease=self._lease,
            token=ask.token,
            worker=self._worker,
            tasks=self._plans.tasks,
            build=self._plans.build,
            guarded_limit=ask.guarded_limit,
            solo=not self._execution.solo,
            partitioned_limit=ask.partitioned_limit,
            aged=None if self._aging is None else self._aging.take(ask.limit),
        )
        try:
            answer = await self._patience.ask(self._store.job_reserve, request, give_up=self._stopping)
        except StoreUnavailable:
            return None
        if self._aging is not None:
            self._aging.took(len(answer.deliveries))
        return answer
