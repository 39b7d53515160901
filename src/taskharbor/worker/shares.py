"""Who comes next: shares of several queues by weight, and a share for jobs that have waited too long.

Decisions only, no I/O. Weights are kept as in stride scheduling (C. A. Waldspurger and W. E. Weihl, 1995): each queue
has a *distance*, the jobs taken from it over its weight, and whoever is behind is asked for more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from math import ceil

from taskharbor.driver import AgedTake
from taskharbor.job import Delivery

_MOST_ROUNDS = 2.0
"""How far a queue may fall behind the first: what it could not use beyond that is lost to it. A round is `weight` jobs
of each, over the smallest weight."""
_MOST_TAKEN = 1000
"""Of so many jobs at most the share is still owed to those that have waited too long."""
_A_LITTLE = 1e-9
"""What adding floats may lose."""


class Shares:
    """What to ask of each queue, so that what is taken of them comes to their weights.

    Over queues that all have work, what was taken of each differs from its share by less than two rounds, at any time
    and for reserves of any size. A queue without work leaves its share to the others, and saves none up.
    """

    def __init__(self, weights: Mapping[str, int]) -> None:
        """Begin with nothing taken. Weights are whole numbers of at least 1, of every queue that is served."""
        self._weights = dict(weights)
        self._far = dict.fromkeys(weights, 0.0)
        self._most_behind = _MOST_ROUNDS / min(weights.values())

    def quotas(
        self,
        limit: int,
        *,
        empty: Collection[str] = (),
        rooms: Mapping[str, int] | None = None,
        each: int = 0,
    ) -> dict[str, int]:
        """Return at most how many jobs to ask of each queue, when `limit` are wanted in all.

        Args:
            limit: at least 1.
            empty: queues that had nothing due a moment ago. The others' quotas come to `limit` without them; they are
                asked all the same, each for its share of `limit`.
            rooms: at most how many of each queue there is room for; None for as many as one likes.
            each: ask every queue with room for so many at least. The quotas may come to more than `limit` then.

        Returns:
            Queues by name, without those that are asked for none.
        """
        open_to = {name: limit if rooms is None else min(rooms[name], limit) for name in self._weights}
        some = [name for name, room in open_to.items() if room > 0]
        busy = [name for name in some if name not in empty] or some
        found = self._dealt(limit, {name: open_to[name] for name in busy})
        whole = sum(self._weights[name] for name in some)
        for name in some:
            if name not in busy:
                found[name] = min(ceil(limit * self._weights[name] / whole), open_to[name])
        for name in some if each else ():
            found[name] = max(found[name], min(each, open_to[name]))
        return {name: quota for name, quota in found.items() if quota > 0}

    def took(self, taken: Mapping[str, int], *, empty: Collection[str] = ()) -> None:
        """Note what was taken of each queue, and which queues have nothing due now."""
        for name, jobs in taken.items():
            self._far[name] += jobs / self._weights[name]
        busy = [far for name, far in self._far.items() if name not in empty]
        last = min(busy) if busy else max(self._far.values())
        least = max(busy, default=last) - self._most_behind
        start = max(last, least)
        for name, far in self._far.items():
            # One without work goes along with the last of those that have some. Counted from there, so that the
            # numbers stay small.
            self._far[name] = max(far, start if name in empty else least) - start

    def in_turn(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Return what one reserve took in an order in which each queue's come by their share; in their own else.

        Else a reserve of a thousand would start all of one queue before the first of another.
        """
        places = Counter[str]()
        keyed = list[tuple[float, int]]()
        for number, delivery in enumerate(deliveries):
            places[delivery.queue] += 1
            keyed.append((places[delivery.queue] / self._weights[delivery.queue], number))
        return [deliveries[number] for _, number in sorted(keyed)] if len(places) > 1 else deliveries

    def gave_back(self, queue: str) -> None:
        """Note that a job of this queue was handed back unstarted."""
        self._far[queue] -= 1 / self._weights[queue]

    def _dealt(self, limit: int, rooms: Mapping[str, int]) -> dict[str, int]:
        """Return quotas that come to `limit`, or to all the rooms, and bring these queues level."""
        quotas = dict.fromkeys(rooms, 0)
        rest, open_to = min(limit, sum(rooms.values())), list(rooms)
        while open_to:
            level = self._level(rest, open_to)
            wanted = {name: (level - self._far[name]) * self._weights[name] for name in open_to}
            over = [name for name, jobs in wanted.items() if jobs > rooms[name]]
            if not over:
                for name, jobs in wanted.items():
                    quotas[name] = max(int(jobs + _A_LITTLE), 0)
                break
            for name in over:
                quotas[name] = rooms[name]
                rest -= rooms[name]
            open_to = [name for name in open_to if name not in over]
        for _ in range(min(limit, sum(rooms.values())) - sum(quotas.values())):
            name = min(
                (name for name in rooms if quotas[name] < rooms[name]),
                key=lambda name: self._far[name] + (quotas[name] + 1) / self._weights[name],
            )
            quotas[name] += 1
        return quotas

    def _level(self, jobs: int, names: Sequence[str]) -> float:
        """Return how far those behind come with so many jobs."""
        weights = weighted = level = 0.0
        for name in sorted(names, key=self._far.__getitem__):
            if weights and self._far[name] >= level:
                break
            weights += self._weights[name]
            weighted += self._far[name] * self._weights[name]
            level = (jobs + weighted) / weights
        return level


class Aging:
    """Which part of each reserve goes to jobs that have been due for too long, whatever their priority.

    It is a share of what was taken, counted over reserves of any size. What no such job came for is not saved up.
    """

    def __init__(self, after: timedelta, share: float) -> None:
        """Begin with nothing taken; `share` is above 0 and at most 1."""
        self._after = after
        self._share = share
        self._credit = 0.0

    def take(self, limit: int) -> AgedTake | None:
        """Return what to ask first within a reserve of so many jobs. What is asked counts as taken."""
        jobs = min(int(self._credit + _A_LITTLE), limit)
        if jobs < 1:
            return None
        self._credit -= jobs
        return AgedTake(self._after, jobs)

    def took(self, jobs: int) -> None:
        """Note that so many jobs were taken."""
        self._credit = min(self._credit + jobs * self._share, max(_MOST_TAKEN * self._share, 1.0))
