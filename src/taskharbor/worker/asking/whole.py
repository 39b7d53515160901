"""Asking without reserved slots: as many jobs as fit, in order of priority or in quotas by weight."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Sequence

import msgspec

from taskharbor.driver import QueueTake, Reservation
from taskharbor.job import Delivery
from taskharbor.task.batch import MOST_IN_BATCH
from taskharbor.worker.asking.empties import Empties
from taskharbor.worker.asking.words import Ask, still_held_back
from taskharbor.worker.execution import Execution
from taskharbor.worker.pace import Pace
from taskharbor.worker.run import Run
from taskharbor.worker.settings import WorkerSettings
from taskharbor.worker.shares import Shares


class Open:
    """As many as fit, of all queues, in order of priority."""

    pause: float | None = None
    partial = False

    def __init__(
        self, settings: WorkerSettings, queues: Sequence[str], execution: Execution, buffer: deque[Delivery]
    ) -> None:
        self._queues = queues
        self.watched: Sequence[Sequence[str]] = [queues]
        self._execution = execution
        self._buffer = buffer
        self._pace = Pace(settings.prefetch)
        self.held_back = False
        self.crowded = False

    @property
    def ahead(self) -> int:
        return self._pace.target()

    @property
    def wants_more(self) -> bool:
        execution, buffered = self._execution, len(self._buffer)
        if self.held_back:
            return execution.free + execution.joining_guarded + self._joining_lined > buffered
        target = self._pace.target()
        return buffered <= target // 2 and (execution.free > 0 or target > 0 or self._joining > 0)

    @property
    def _joining(self) -> int:
        """Return how many to ask for beyond the slots: what joins a batch that gathers takes none."""
        return 0 if self.crowded else min(self._execution.joining, MOST_IN_BATCH)

    @property
    def _joining_lined(self) -> int:
        return 0 if self.crowded else self._execution.joining_lined

    def next(self) -> Ask:
        room = self._room()
        return msgspec.structs.replace(room, takes=[QueueTake(queue, room.limit) for queue in self._queues])

    def _room(self) -> Ask:
        """Return the numbers, but for those of each queue."""
        self._pace.measure()
        free, buffered, joining = self._execution.free, len(self._buffer), self._joining
        # What may not be held ahead comes by turns with what may: while it waits, nothing is, beyond one plain job that
        # is asked for so that the answer tells of more in the lines.
        ahead = 1 if self.held_back else self._pace.target()
        lined = free - buffered if self.held_back or not ahead else 0
        return Ask(
            (),
            max(free + ahead + joining - buffered, 1),
            max(free + self._execution.joining_guarded - buffered, 0),
            joining,
            max(lined, 0) + self._joining_lined,
        )

    def answered(self, ask: Ask, answer: Reservation) -> bool:
        self.held_back = still_held_back(self.held_back, ask, answer)
        more = answer.held_back or len(answer.deliveries) >= ask.limit
        self.crowded = self.crowded and more and self._execution.joining > 0
        return more

    def in_order(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        return deliveries

    def ended(self, runs: Sequence[Run]) -> None:
        self._pace.ended(len(runs))

    def gave_back(self, delivery: Delivery) -> None:
        """Nothing is counted here."""

    def woken(self, queue: str) -> bool:
        return True

    def slept(self) -> None:
        """All queues are always asked."""

    def look(self) -> None:
        self._pace.look()

    def standing(self) -> Collection[str] | None:
        if not self._pace.stands:
            return ()
        self._pace.hand_back()
        return None


class Weighted(Open):
    """As many as fit, in quotas by weight, and again at once for what a queue left over."""

    def __init__(
        self,
        settings: WorkerSettings,
        queues: Sequence[str],
        execution: Execution,
        buffer: deque[Delivery],
        shares: Shares,
    ) -> None:
        super().__init__(settings, queues, execution, buffer)
        self.watched: Sequence[Sequence[str]] = [[queue] for queue in queues]
        self._shares = shares
        self._empties = Empties()
        self._afresh = True
        """Nothing is known to be due: one look at all queues tells more than one at each by its share."""

    def next(self) -> Ask:
        room = self._room()
        quotas = self._shares.quotas(room.limit, empty=self._empties.now(), each=int(self._afresh))
        return msgspec.structs.replace(
            room, takes=[QueueTake(queue, quota) for queue, quota in quotas.items()]
        )

    def answered(self, ask: Ask, answer: Reservation) -> bool:
        self._afresh = False
        taken = Counter([delivery.queue for delivery in answer.deliveries])
        self._empties.note(ask, answer, taken)
        self._shares.took(taken, empty=self._empties.now())
        return super().answered(ask, answer) or len(self._empties.now()) < len(self._queues)

    def in_order(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        return self._shares.in_turn(deliveries)

    def gave_back(self, delivery: Delivery) -> None:
        self._shares.gave_back(delivery.queue)

    def woken(self, queue: str) -> bool:
        self._empties.forget(queue)
        return True

    def slept(self) -> None:
        self._empties.clear()
        self._afresh = True
