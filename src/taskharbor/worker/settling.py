"""Writing outcomes down: at once when idle, so that a lone job is never delayed; in growing batches under load.

What an outcome means for its job is decided by `settlement`; what went wrong is told here, once, in the log. A batch
that the store refuses while it answers other verbs is left to `sifting`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import timedelta

from taskharbor.clock import told_roughly
from taskharbor.driver import JobSettle, Store
from taskharbor.errors import StoreUnavailable
from taskharbor.job import PAYLOAD_LIMIT, Delivery
from taskharbor.outcome import LACKING, Outcome
from taskharbor.settlement import Settled, SettleKind, Settlement, SettleStatus, settlement
from taskharbor.worker.later import Later
from taskharbor.worker.patience import Patience
from taskharbor.worker.reporting import Reporting
from taskharbor.worker.run import Run
from taskharbor.worker.sifting import Sifting
from taskharbor.worker.sight import Sight
from taskharbor.worker.telling import Telling

logger = logging.getLogger("taskharbor.worker")

_BATCH = 1000
BATCH_BYTES = PAYLOAD_LIMIT
"""What a batch holds of results and errors, or it is one settlement alone."""
_HEAVY = BATCH_BYTES // _BATCH
"""A batch of none but lighter ones need not be weighed."""
_FEW = 3
"""Refusals of a batch, while other verbs are answered, after which others do not wait for it any more."""
# Held by name: hashing or looking up an enum member costs as much as the rest of the line.
_SUCCEED = SettleKind.SUCCEED
_HELD = SettleStatus.HELD
_TROUBLE = frozenset({SettleKind.RETRY, SettleKind.BURY, SettleKind.STRAY})


class Settling:
    """Gathers settlements while the last batch is on its way, and sends them as the next."""

    def __init__(
        self,
        store: Store,
        patience: Patience,
        sight: Sight,
        worker: str,
        on_settled: Callable[[Sequence[Settlement], Sequence[Settled]], None],
        telling: Telling,
        reporting: Reporting,
    ) -> None:
        """Prepare it; `on_settled` is called with each batch and the store's answers, one each, in order."""
        self._telling = telling
        self._reporting = reporting
        self._worker = worker
        self._store = store
        self._patience = patience
        self._sight = sight
        self._on_settled = on_settled
        self._sifting = Sifting(store, self._answered, worker=worker, observed=sight.observed)
        self._later = Later(store, self._answered, self._sifting.add, _portion)
        self._waiting: list[Settlement] = []
        self._heavy = False
        """Some that wait are so large that a batch has to be weighed."""
        self.pending = 0
        """How many settlements the store has not answered yet."""
        self._wake = asyncio.Event()
        self._gave_up = False

    def finish(self, delivery: Delivery, outcome: Outcome) -> None:
        """Have the outcome of a delivery that never ran written down."""
        written = settlement(outcome, delivery)
        if written.kind in _TROUBLE:
            self._note_trouble(written, delivery)
        self._telling.note(delivery, None)
        self._add([written])

    def finish_runs(self, runs: Sequence[Run]) -> None:
        """Have the outcomes of runs that ended written down."""
        settlements: list[Settlement] = []
        for run in runs:
            written = settlement(run.ending(self._worker), run.delivery)
            settlements.append(written)
            self._telling.note(run.delivery, run.seconds)
            if run.told is not None:
                self._reporting.last_words(run)
            if written.kind is _SUCCEED:
                result = written.result
                if result is not None and len(result) > _HEAVY:
                    self._heavy = True
            elif written.kind in _TROUBLE:
                self._note_trouble(written, run.delivery)
        self._add(settlements)

    def _note_trouble(self, written: Settlement, delivery: Delivery) -> None:
        _log_trouble(written, delivery)
        self._heavy = self._heavy or _weight(written) > _HEAVY

    def _add(self, settlements: Sequence[Settlement]) -> None:
        self._waiting.extend(settlements)
        self.pending += len(settlements)
        self._wake.set()

    def give_up(self) -> None:
        """Stop asking a store that does not answer: what is not written is left to the leases' expiry."""
        self._gave_up = True
        self._sifting.give_up()
        self._later.give_up()

    async def run(self) -> None:
        """Write batches until cancelled."""
        while True:
            if not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            if self._telling.full:
                await self._telling.room()
            if self._reporting.owed:
                await self._reporting.write_last()
            batch = self._next_batch()
            answers = await self._settle(batch)
            if answers is None:
                self._sifting.add(batch)
                continue
            if not self._sifting.idle:
                self._sifting.note_written(batch)
            self._answered(batch, answers)

    async def sift(self) -> None:
        """Write what the store has refused or put off, or leave it, until cancelled."""
        await asyncio.gather(self._sifting.run(), self._later.run())

    def _next_batch(self) -> list[Settlement]:
        count = _count_within(self._waiting, BATCH_BYTES) if self._heavy else _BATCH
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        self._heavy = self._heavy and bool(self._waiting)
        return batch

    def _answered(self, batch: Sequence[Settlement], answers: Sequence[Settled]) -> None:
        if any([answer.status is _HELD for answer in answers]):  # noqa: C419 - quicker
            pairs = list(zip(batch, answers, strict=True))
            self._later.add([written for written, answer in pairs if answer.status is _HELD])
            batch = [written for written, answer in pairs if answer.status is not _HELD]
            answers = [answer for answer in answers if answer.status is not _HELD]
            if not batch:
                return
        self.pending -= len(batch)
        self._telling.ended(batch, answers)
        self._on_settled(batch, answers)

    async def _settle(self, batch: list[Settlement]) -> Sequence[Settled] | None:
        """Return the store's answers; None if it refuses this batch, and answers other verbs."""
        refusals, answers = 0, self._sight.answers

        def enough() -> bool:
            nonlocal refusals
            refusals += 1
            return self._gave_up or (refusals >= _FEW and self._sight.answers > answers)

        try:
            return await self._patience.ask(
                self._store.job_settle, JobSettle(settlements=batch), give_up=enough
            )
        except StoreUnavailable as error:
            if not self._gave_up:
                logger.warning(
                    "the store refuses %d outcomes and answers other questions; they are tried apart from those that "
                    "come after: %s",
                    len(batch),
                    error,
                )
                return None
            logger.error(
                "stopped with %d outcomes unwritten; their jobs run again when their leases expire",
                len(batch),
            )
            return [Settled(SettleStatus.STALE)] * len(batch)
        except Exception:  # noqa: BLE001 - whatever it is, the sifting finds out which of them it is about, and tells
            return None


def _portion(settlements: Sequence[Settlement]) -> int:
    return _count_within(settlements, BATCH_BYTES)


def _count_within(settlements: Sequence[Settlement], size: int) -> int:
    """Return how many of the first make a batch of at most so many bytes, or of one."""
    for count, written in enumerate(settlements[:_BATCH]):
        size -= _weight(written)
        if size < 0:
            return max(count, 1)
    return _BATCH


def _weight(written: Settlement) -> int:
    """Return about how many bytes there are to write, but for what all have."""
    weight = 0 if written.result is None else len(written.result)
    return (
        weight
        if written.error is None
        else weight + len(written.error.message) + len(written.error.traceback)
    )


def _log_trouble(written: Settlement, delivery: Delivery) -> None:
    """Say what went wrong, by the error's type alone: its text may quote the payload."""
    step = delivery.step
    task = repr(delivery.task) if step is None or not step.flow else f"{delivery.task!r}, flow {step.flow}"
    told = (delivery.id, task, delivery.attempt, delivery.retry.max_attempts)
    kind = "" if written.error is None else written.error.type
    if written.kind is SettleKind.BURY:
        logger.error("job %s (task %s) is a dead letter after attempt %d of %d (%s)", *told, kind)
    elif written.kind is SettleKind.RETRY:
        logger.warning(
            "job %s (task %s) failed in attempt %d of %d with %s; next try in %s",
            *told,
            kind,
            told_roughly(written.after or timedelta(0)),
        )
    else:
        if written.refused_by is None:
            why = "its task is not registered here"
        elif written.reason.startswith(LACKING):
            why = written.reason
        else:
            why = "this build cannot decode it; its reason, in `jobs show`, says why"
        logger.warning("job %s (task %r) is left to other workers: %s", delivery.id, delivery.task, why)
