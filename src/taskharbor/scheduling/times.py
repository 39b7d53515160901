"""The ticks of a schedule, and those of them that are late."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import NamedTuple

from taskharbor.clock import aware
from taskharbor.schedule import Cron, Every, Schedule
from taskharbor.scheduling import crontab, intervals
from taskharbor.scheduling.zone import zone_of

CATCH_UP_MOST = 10_000
"""Late ticks that any schedule catches up with."""
COUNT_LIMIT = 1_000
"""Late ticks of a cron expression that one look counts, unless it is to keep more. After a year's outage a schedule of
each second has 31 million: that many are not walked through to write down how many they were, and the first looks after
an outage are those for which the most waits."""
_MICRO = timedelta(microseconds=1)


class Late(NamedTuple):
    """Ticks that were not dealt with in time."""

    number: int
    """Of a cron expression at most `COUNT_LIMIT`, or as many as were asked for, even if they are more."""
    latest: Sequence[datetime]
    """As many of the latest as were asked for, in order."""


def ticks(schedule: Schedule, after: datetime) -> Iterator[datetime]:
    """Yield the ticks of a schedule after an instant, itself excluded: aware, in UTC, in order, without end.

    Where the schedule ends they end: none is later than its `until`.

    Raises:
        OptionError: `after` is not aware; or the time zone is not known on this machine.
    """
    begin = aware(after, "after")
    trigger = schedule.trigger
    found = (
        crontab.forwards(trigger.expression, zone_of(trigger.tz), begin)
        if isinstance(trigger, Cron)
        else intervals.forwards(trigger, begin)
    )
    until = schedule.until
    return found if until is None else takewhile(lambda tick: tick <= until, found)


def late(schedule: Schedule, after: datetime, before: datetime, keep: int) -> Late:
    """Count the ticks between two instants, both excluded, and return the latest of them.

    Takes as long for a year as for a day: it walks back from the end, no further than `COUNT_LIMIT` ticks, or `keep` if
    that is more.
    """
    upto = before - _MICRO if schedule.until is None else min(before - _MICRO, schedule.until.astimezone(UTC))
    if upto <= after:
        return Late(0, ())
    if isinstance(schedule.trigger, Every):
        return _late_of_period(schedule.trigger, after, upto, keep)
    return _late_of_cron(schedule.trigger, after, upto, keep)


def _late_of_period(trigger: Every, after: datetime, upto: datetime, keep: int) -> Late:
    end = intervals.number_at(trigger, upto) + 1
    count = end - max(intervals.number_at(trigger, after) + 1, 0)
    return Late(count, [intervals.tick_at(trigger, end - i) for i in range(min(count, keep), 0, -1)])


def _late_of_cron(trigger: Cron, after: datetime, upto: datetime, keep: int) -> Late:
    count, most = 0, max(COUNT_LIMIT, keep)
    latest: deque[datetime] = deque()
    for tick in crontab.backwards(trigger.expression, zone_of(trigger.tz), upto):
        if tick <= after or count == most:
            break
        count += 1
        if count <= keep:
            latest.appendleft(tick)
    return Late(count, latest)
