"""The words of asking: the numbers of one reserve, and who decides them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

import msgspec

from taskharbor.driver import QueueTake, Reservation, lines_first
from taskharbor.job import Delivery, new_token
from taskharbor.worker.run import Run


class Ask(msgspec.Struct, frozen=True):
    """The numbers of one reserve."""

    takes: Sequence[QueueTake]
    limit: int
    guarded_limit: int
    joining: int = 0
    """How many of `limit` are wanted for batches that gather, and need no slot."""
    partitioned_limit: int = 0
    """How many of `limit` may be jobs of lines: never more than there are slots for, so that none is held ahead."""
    token: int = msgspec.field(default_factory=new_token)


def still_held_back(before: bool, ask: Ask, answer: Reservation) -> bool:
    """Return whether jobs wait that are taken only when there is a slot for them.

    An answer that is full tells nothing of lines where the plain lanes came first: then it is as it was before.
    """
    full = len(answer.deliveries) >= ask.limit
    return answer.held_back or (before and full and not lines_first(ask.token))


class Asking(Protocol):
    """Decides how many jobs are wanted. All of it on the worker's loop."""

    held_back: bool
    """The last reserve met jobs that are taken only when there is a slot for them: guarded ones, or those of lines. No
    others are held ahead of them."""

    crowded: bool
    """Others than could join a batch that gathers stand before those that could: no more are asked for to join it."""

    watched: Sequence[Sequence[str]]
    """The queues, grouped by whose wake-ups need not be told apart."""

    @property
    def wants_more(self) -> bool:
        """Return whether there is room for something that may be there."""
        ...

    @property
    def ahead(self) -> int:
        """Return how many unstarted jobs to hold beyond the free slots."""
        ...

    @property
    def pause(self) -> float | None:
        """Return after how many seconds to look again at the latest when nothing is wanted now; None: not by itself."""
        ...

    @property
    def partial(self) -> bool:
        """Return whether the last reserve left out queues, for want of room: a slot that is left is news then."""
        ...

    def next(self) -> Ask:
        """Return what to ask for."""
        ...

    def answered(self, ask: Ask, answer: Reservation) -> bool:
        """Note an answer; return whether to go on at once, since more may be due."""
        ...

    def in_order(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Return in which order to start what one reserve took."""
        ...

    def ended(self, runs: Sequence[Run]) -> None:
        """Note runs that have left their slots."""
        ...

    def gave_back(self, delivery: Delivery) -> None:
        """Note that a job was handed back unstarted."""
        ...

    def woken(self, queue: str) -> bool:
        """Note that a queue may have news; return whether there is room for it."""
        ...

    def slept(self) -> None:
        """Note that time has passed: what was empty may not be so any more."""
        ...

    def look(self) -> None:
        """Begin to watch for what does not move."""
        ...

    def standing(self) -> Collection[str] | None:
        """Return of which queues nothing has ended since `look`, and hold none ahead of them; None for all."""
        ...
