"""Asking with reserved slots: the shared ones for all queues, then the reserved ones, each for its own."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Sequence

from taskharbor.driver import QueueTake, Reservation
from taskharbor.job import Delivery
from taskharbor.task.batch import MOST_IN_BATCH
from taskharbor.worker.asking.empties import LOOK_AGAIN_SECONDS, Empties
from taskharbor.worker.asking.words import Ask, still_held_back
from taskharbor.worker.execution import Execution
from taskharbor.worker.pace import Pace
from taskharbor.worker.run import Run
from taskharbor.worker.settings import WorkerSettings
from taskharbor.worker.shares import Shares
from taskharbor.worker.slots import Slots


class Apart:
    """Two reserves in turn: one into the shared slots, by weight or priority, and one into those that are reserved.

    How far ahead to hold jobs is judged queue by queue here: long ones in the shared slots must not fill the buffer
    while short ones pass through those of another queue.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        queues: Sequence[str],
        execution: Execution,
        slots: Slots,
        buffer: deque[Delivery],
        shares: Shares | None,
    ) -> None:
        self._queues = queues
        self.watched: Sequence[Sequence[str]] = [[queue] for queue in queues]
        self._prefetch = settings.prefetch
        self._execution = execution
        self._slots = slots
        self._buffer = buffer
        self._shares = shares
        self._paces = {queue: Pace(settings.prefetch) for queue in queues}
        self._empties = Empties()
        self.held_back = False
        self.crowded = False
        self.partial = False
        self._afresh = True
        """Nothing is known to be due: one look at all queues tells more than one at each by its share."""
        self._own = True
        """The last reserve was one into reserved slots."""

    @property
    def wants_more(self) -> bool:
        return self._wants_shared() or bool(self._own_rooms())

    @property
    def pause(self) -> float | None:
        return LOOK_AGAIN_SECONDS if any(map(self._slots.own_free, self._slots.reserved)) else None

    def next(self) -> Ask:
        for pace in self._paces.values():
            pace.measure()
        own, shared = self._own_rooms(), self._wants_shared()
        # In turn where both are wanted, so that neither waits until the other is satisfied.
        self._own = bool(own) and not (shared and self._own)
        ask = self._ask_own(own) if self._own else self._ask_shared()
        self.partial = len(ask.takes) < len(self._queues)
        return ask

    def _own_rooms(self) -> dict[str, int]:
        """Return the reserved slots that are free, of queues that may have something for them."""
        rooms = {queue: self._slots.own_free(queue) for queue in self._slots.reserved}
        if not any(rooms.values()):
            return {}
        empty = self._empties.now()
        return {queue: room for queue, room in rooms.items() if room and queue not in empty}

    def _ask_own(self, rooms: dict[str, int]) -> Ask:
        limit = sum(rooms.values())
        return Ask(
            [QueueTake(queue, room) for queue, room in rooms.items()], limit, limit, partitioned_limit=limit
        )

    def _wants_shared(self) -> bool:
        free = self._slots.shared_free
        if self.held_back:
            return free > 0 and not self._buffer
        ahead = self.ahead
        return len(self._buffer) <= ahead // 2 and (free > 0 or ahead > 0 or self._joining > 0)

    @property
    def _joining(self) -> int:
        """Return how many to ask for beyond the slots: what joins a batch that gathers takes none."""
        return 0 if self.crowded else min(self._execution.joining, MOST_IN_BATCH)

    def _ask_shared(self) -> Ask:
        free, ahead = self._slots.shared_free, {} if self.held_back else self._targets()
        joining = self._joining
        # One more than slots, as without reserved ones: so that the answer tells of more in the lines.
        one = int(self.held_back)
        limit = max(free + self._most(ahead) + one + joining - len(self._buffer), 1)
        lined = 0 if ahead else max(free - len(self._buffer), 0)
        joined = dict.fromkeys(self._execution.joined_queues, joining)
        waiting = Counter([delivery.queue for delivery in self._buffer])
        rooms = {
            queue: min(
                max(
                    self._slots.free_to(queue)
                    + ahead.get(queue, 0)
                    + one
                    + joined.get(queue, 0)
                    - waiting[queue],
                    0,
                ),
                limit,
            )
            for queue in self._queues
        }
        guarded = free + self._execution.joining_guarded
        if self._shares is not None:
            rooms = self._shares.quotas(limit, empty=self._empties.now(), rooms=rooms, each=int(self._afresh))
        takes = [QueueTake(queue, room) for queue, room in rooms.items() if room]
        lined += 0 if self.crowded else self._execution.joining_lined
        return Ask(takes, limit, guarded, joining, lined)

    @property
    def ahead(self) -> int:
        return self._most(self._targets())

    def _targets(self) -> dict[str, int]:
        return {queue: target for queue, pace in self._paces.items() if (target := pace.target())}

    def _most(self, targets: dict[str, int]) -> int:
        """Return how many to hold ahead in all: what was declared is for the whole worker."""
        whole = sum(targets.values())
        return whole if self._prefetch is None else min(whole, self._prefetch)

    def answered(self, ask: Ask, answer: Reservation) -> bool:
        taken = Counter([delivery.queue for delivery in answer.deliveries])
        self._empties.note(ask, answer, taken)
        if self._shares is not None:
            self._shares.took(taken, empty=self._empties.now())
        if not self._own:
            self._afresh = False
            self.held_back = still_held_back(self.held_back, ask, answer)
            more = answer.held_back or len(answer.deliveries) >= ask.limit
            self.crowded = self.crowded and more and self._execution.joining > 0
        if answer.held_back or len(answer.deliveries) >= ask.limit:
            return True
        empty = self._empties.now()
        return any(take.name not in empty for take in ask.takes) or (
            self.wants_more and not self._all_empty()
        )

    def _all_empty(self) -> bool:
        empty = self._empties.now()
        return all(queue in empty for queue in self._queues if self._slots.free_to(queue) > 0)

    def in_order(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        return deliveries if self._shares is None else self._shares.in_turn(deliveries)

    def ended(self, runs: Sequence[Run]) -> None:
        for run in runs:
            self._paces[run.delivery.queue].ended(1)

    def gave_back(self, delivery: Delivery) -> None:
        if self._shares is not None:
            self._shares.gave_back(delivery.queue)

    def woken(self, queue: str) -> bool:
        self._empties.forget(queue)
        joins = queue in self._execution.joined_queues and not self.crowded
        return joins or self._paces[queue].target() > 0 or self._slots.free_to(queue) > 0

    def slept(self) -> None:
        self._empties.clear()
        self._afresh = True
        self._own = True

    def look(self) -> None:
        for pace in self._paces.values():
            pace.look()

    def standing(self) -> Collection[str] | None:
        found = {queue for queue, pace in self._paces.items() if pace.stands}
        for queue in found:
            self._paces[queue].hand_back()
        return found
