"""What was done when, counted by all workers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from taskharbor.call import refuse_on_loop
from taskharbor.clock import aware
from taskharbor.control.asking import Asks, name_set
from taskharbor.driver import StatisticsRead
from taskharbor.event import Tally


class Statistics:
    """How many deliveries ended how, by minute, queue and task; kept for a week. Every method has an `a` form."""

    def __init__(self, asks: Asks) -> None:
        """Made by the harbor."""
        self._asks = asks

    def read(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        queues: Iterable[str] = (),
        tasks: Iterable[str] = (),
    ) -> Sequence[Tally]:
        """Return how many deliveries ended how, sorted by minute, queue, task and ending; none is zero.

        Workers write what they have counted about every ten seconds, and when they stop: the last minute grows.

        Args:
            since: only minutes that begin at this instant or later; None for all that are kept.
            until: only minutes that begin before this instant.
            queues: only these; empty for all.
            tasks: only these, by the names that jobs were enqueued under; empty for all.

        Raises:
            OptionError: a time without a timezone, or what is no list of names.
            BlockingCallError: on a running event loop; use `aread`.
        """
        request = _request(since, until, queues, tasks)
        refuse_on_loop("harbor.statistics.read()", "harbor.statistics.aread(...)")
        return self._asks.ask(lambda store: store.statistics_read(request))

    async def aread(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        queues: Iterable[str] = (),
        tasks: Iterable[str] = (),
    ) -> Sequence[Tally]:
        """Return how many deliveries ended how; the async form of `read`."""
        request = _request(since, until, queues, tasks)
        return await self._asks.aask(lambda store: store.statistics_read(request))


def _request(
    since: datetime | None, until: datetime | None, queues: Iterable[str], tasks: Iterable[str]
) -> StatisticsRead:
    return StatisticsRead(
        since=None if since is None else aware(since, "since"),
        until=None if until is None else aware(until, "until"),
        queues=name_set(queues, "queues"),
        tasks=name_set(tasks, "tasks"),
    )
