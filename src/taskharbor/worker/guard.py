"""Guarded jobs between their slot and their handler: the store has to know of a start before it happens (rule 4)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import timedelta

from taskharbor.driver import LeaseExtend, LeaseExtended, LeaseHold, Store
from taskharbor.errors import StoreUnavailable
from taskharbor.job import Delivery
from taskharbor.outcome import Cancelled, Outcome, Released
from taskharbor.worker.batch_run import AnyRun, BatchRun
from taskharbor.worker.execution import Execution
from taskharbor.worker.leases import Leases
from taskharbor.worker.patience import Patience
from taskharbor.worker.run import Run

logger = logging.getLogger("taskharbor.worker")


class Guard:
    """Has the starts of guarded jobs written, as many as there are at a time, and then starts them."""

    def __init__(
        self,
        store: Store,
        leases: Leases,
        execution: Execution,
        patience: Patience,
        *,
        worker: str,
        lease: timedelta,
        finish: Callable[[Delivery, Outcome], None],
        stopping: Callable[[], bool],
        slot_left: Callable[[bool], None],
    ) -> None:
        """Make it for the running loop.

        Args:
            store: the worker's own.
            leases: what the worker holds.
            execution: whose slots the runs have already taken.
            patience: how to ask a store that may be away.
            worker: its name.
            lease: how long a lease lasts.
            finish: takes the outcome of a job that was not started.
            stopping: tells whether nothing may be started any more.
            slot_left: told of each slot that a run has left unstarted, and whether the run was a solo one.
        """
        self._store = store
        self._leases = leases
        self._execution = execution
        self._patience = patience
        self._worker = worker
        self._lease = lease
        self._finish = finish
        self._stopping = stopping
        self._slot_left = slot_left
        self._loop = asyncio.get_running_loop()
        self._waiting: list[AnyRun] = []
        self._task: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        """Return whether no run waits for its start to be written."""
        return not self._waiting

    def start(self, work: AnyRun) -> None:
        """Start a run, or a batch of them, which has its slot, once its start is written."""
        self._waiting.append(work)
        if self._task is None:
            self._task = self._loop.create_task(self._write_starts(), name="taskharbor-guard")

    async def done(self) -> None:
        """Wait until no start is under way."""
        if self._task is not None:
            await self._task

    async def _write_starts(self) -> None:
        while self._waiting:
            waiting = list(self._waiting)
            answer = await self._written([run for work in waiting for run in work.parts])
            del self._waiting[: len(waiting)]
            cancelled = {} if answer is None else {cancel.job_id: cancel.reason for cancel in answer.cancels}
            for work in waiting:
                ready = [run for run in work.parts if self._is_ready(run, answer, cancelled)]
                if not ready:
                    self._execution.leave_slot(solo=work.solo, queue=work.queue)
                    self._slot_left(work.solo)
                elif isinstance(work, BatchRun):
                    work.keep(ready)
                    self._execution.start_batch(work)
                else:
                    self._execution.start(work)
        self._task = None

    def _is_ready(self, run: Run, answer: LeaseExtended | None, cancelled: Mapping[str, str]) -> bool:
        """Return whether a run may start now; if not, say what becomes of it instead."""
        delivery = run.delivery
        if answer is not None and delivery.token in answer.lost:
            self._leases.drop(delivery.token)
        elif answer is None or self._stopping():
            self._finish(delivery, Released())
        elif delivery.id in cancelled:
            self._finish(delivery, Cancelled(cancelled[delivery.id]))
        else:
            run.reported = True
        return run.reported

    async def _written(self, runs: list[Run]) -> LeaseExtended | None:
        """Return the store's answer to the starts; None if they were not written."""
        starts: dict[int, list[str]] = {}
        for run in runs:
            starts.setdefault(run.delivery.token, []).append(run.delivery.id)
        request = LeaseExtend(
            worker=self._worker,
            leases=[LeaseHold(token, started) for token, started in starts.items()],
            lease=self._lease,
        )
        try:
            return await self._patience.ask(self._store.lease_extend, request, give_up=self._stopping)
        except StoreUnavailable:
            return None
        except Exception:  # whatever it is, these jobs must not be held for ever
            logger.exception(
                "the starts of %d guarded jobs could not be written; they are handed back", len(runs)
            )
            return None
