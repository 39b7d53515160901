"""Rolled-up counters: how many deliveries ended how, by minute, queue and task.

Each worker counts by itself, and writes now and then what it has counted of a minute so far: whole numbers that take
the place of those it wrote before, so that writing twice changes nothing. Nothing is written when a job ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

from taskharbor.driver.request import Request
from taskharbor.event import Tally

STATISTICS_RETAIN = timedelta(days=7)
"""Minutes that began longer ago than this `history_prune` removes."""


class StatisticsWrite(Request, frozen=True, kw_only=True):
    """Write down what one worker has counted. Of a minute, queue, task and ending it replaces what it wrote before."""

    worker: str
    tallies: Sequence[Tally]


class StatisticsRead(Request, frozen=True, kw_only=True):
    """Read what was counted by all workers together. An empty filter means any."""

    since: datetime | None = None
    """Minutes that begin at this instant or later."""
    until: datetime | None = None
    """Minutes that begin before this instant."""
    queues: frozenset[str] = frozenset()
    tasks: frozenset[str] = frozenset()


class Statistics(Protocol):
    """The verbs of the counters."""

    async def statistics_write(self, request: StatisticsWrite, /) -> None:
        """Write down what one worker has counted."""
        ...

    async def statistics_read(self, request: StatisticsRead, /) -> Sequence[Tally]:
        """Return the sums over all workers, sorted by minute, queue, task and ending; none is zero."""
        ...
