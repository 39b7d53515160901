"""Writing outcomes down: at once when idle, so that a lone job is never delayed; in growing batches under load.

What an outcome means for its job is decided by `settlement`; what went wrong is told here, once, in the log.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from taskharbor.driver import JobSettle, Store
from taskharbor.errors import StoreUnavailable
from taskharbor.job import Delivery
from taskharbor.outcome import Outcome
from taskharbor.settlement import Settled, SettleKind, Settlement, SettleStatus, settlement
from taskharbor.worker.patience import Patience
from taskharbor.worker.run import Run

logger = logging.getLogger("taskharbor.worker")

_BATCH = 1000
# Held by name: hashing or looking up an enum member costs as much as the rest of the line.
_SUCCEED = SettleKind.SUCCEED
_TROUBLE = frozenset({SettleKind.RETRY, SettleKind.BURY, SettleKind.STRAY})


class Settling:
    """Gathers settlements while the last batch is on its way, and sends them as the next."""

    def __init__(
        self,
        store: Store,
        patience: Patience,
        worker: str,
        on_settled: Callable[[Sequence[Settlement], Sequence[Settled]], None],
    ) -> None:
        """Prepare it; `on_settled` is called with each batch and the store's answers, one each, in order."""
        self._worker = worker
        self._store = store
        self._patience = patience
        self._on_settled = on_settled
        self._waiting: list[Settlement] = []
        self.pending = 0
        """How many settlements the store has not answered yet."""
        self._wake = asyncio.Event()
        self._gave_up = False

    def finish(self, delivery: Delivery, outcome: Outcome) -> None:
        """Have the outcome of a delivery that never ran written down."""
        written = settlement(outcome, delivery)
        if written.kind in _TROUBLE:
            _log_trouble(written, delivery)
        self._add([written])

    def finish_runs(self, runs: Sequence[Run]) -> None:
        """Have the outcomes of runs that ended written down."""
        settlements = [settlement(run.ending(self._worker), run.delivery) for run in runs]
        for written, run in zip(settlements, runs, strict=True):
            if written.kind is not _SUCCEED and written.kind in _TROUBLE:
                _log_trouble(written, run.delivery)
        self._add(settlements)

    def _add(self, settlements: Sequence[Settlement]) -> None:
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


def _log_trouble(written: Settlement, delivery: Delivery) -> None:
    """Say what went wrong, by the error's type alone: its text may quote the payload."""
    told = (delivery.id, delivery.task, delivery.attempt, delivery.retry.max_attempts)
    kind = "" if written.error is None else written.error.type
    if written.kind is SettleKind.BURY:
        logger.error("job %s (task %r) is a dead letter after attempt %d of %d (%s)", *told, kind)
    elif written.kind is SettleKind.RETRY:
        logger.warning(
            "job %s (task %r) failed in attempt %d of %d with %s; next try in %s", *told, kind, written.after
        )
    else:
        why = (
            "its task is not registered here" if written.refused_by is None else "this build cannot decode it"
        )
        logger.warning("job %s (task %r) is left to other workers: %s", delivery.id, delivery.task, why)
