"""statistics_write and statistics_read: what workers counted, added up when it is read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from taskharbor.clock import from_micros
from taskharbor.driver import STATISTICS_RETAIN, StatisticsRead, StatisticsWrite
from taskharbor.drivers.memory.tables import Tables
from taskharbor.event import Ending, Tally


def statistics_write(tables: Tables, request: StatisticsWrite, now: int) -> None:
    """Write down what one worker has counted."""
    for tally in request.tallies:
        tables.tallies[tally.minute, tally.queue, tally.task, tally.ending, request.worker] = tally


def statistics_read(tables: Tables, request: StatisticsRead, now: int) -> Sequence[Tally]:
    """Return the sums over all workers, sorted."""
    sums: dict[tuple[datetime, str, str, Ending], Tally] = {}
    for tally in tables.tallies.values():
        if (
            (request.since is None or tally.minute >= request.since)
            and (request.until is None or tally.minute < request.until)
            and (not request.queues or tally.queue in request.queues)
            and (not request.tasks or tally.task in request.tasks)
        ):
            place = (tally.minute, tally.queue, tally.task, tally.ending)
            before = sums.get(place)
            sums[place] = (
                tally
                if before is None
                else msgspec.structs.replace(
                    before, count=before.count + tally.count, ran=before.ran + tally.ran
                )
            )
    return [sums[place] for place in sorted(sums) if sums[place].count]


def prune_statistics(tables: Tables, now: int) -> None:
    """Remove the minutes that began too long ago."""
    kept_since: datetime = from_micros(now) - STATISTICS_RETAIN
    for counter in [counter for counter in tables.tallies if counter[0] < kept_since]:
        del tables.tallies[counter]
