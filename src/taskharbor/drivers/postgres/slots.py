"""Which partition of the history holds the jobs that expire on a day.

A ring: each partition holds one day's expiries, is emptied when that day is over, and then stands for a day ahead. So
retention is a TRUNCATE, and nobody creates or drops a table while jobs run (ADR 0011). The table `slot` says which day
each stands for at present; a day that none stands for goes to the partition `LONG`, whose rows go one by one.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import date, datetime, timedelta

from taskharbor.clock import EPOCH
from taskharbor.drivers.postgres.routine import Query, Routine
from taskharbor.drivers.postgres.rows import DEAD, LONG, micros_of

_READ = f"SELECT slot, day - date '1970-01-01', {micros_of('clock_timestamp()')} FROM taskharbor.slot"
_AGAIN_SECONDS = 60.0
_FIRST_DAY = EPOCH.date()


class Slots:
    """The ring as it was last read. A day that is not over keeps its partition, so what is known stays true."""

    def __init__(self) -> None:
        self._of: dict[date, int] = {}
        self._ahead = timedelta(0)
        """How far the server's clock is before ours."""
        self._read_at = -_AGAIN_SECONDS

    def may_hold(
        self, made_at: datetime, retains: Iterable[timedelta], now: datetime | None
    ) -> Routine[tuple[int, ...]]:
        """Return the partitions in which jobs can be that ended between `made_at` and now."""
        days = self._days(made_at, retains, now)
        if not days <= self._of.keys() and time.monotonic() - self._read_at >= _AGAIN_SECONDS:
            yield from self._read()
            days = self._days(made_at, retains, now)
        return (DEAD, LONG, *sorted(self._of[day] for day in days if day in self._of))

    def _days(self, made_at: datetime, retains: Iterable[timedelta], now: datetime | None) -> set[date]:
        if now is None:
            now = datetime.now(EPOCH.tzinfo) + self._ahead
        days: set[date] = set()
        for retain in retains:
            # A second more on both sides, for clocks that drift.
            first = (min(made_at, now) - timedelta(seconds=1) + retain).date()
            last = (now + timedelta(seconds=1) + retain).date()
            if (last - first).days > len(self._of):  # an id of long ago: what there is of that span
                days.update(day for day in self._of if first <= day <= last)
            else:
                days.update(first + timedelta(days=n) for n in range((last - first).days + 1))
        return days

    def _read(self) -> Routine[None]:
        rows = yield Query(_READ)
        self._read_at = time.monotonic()
        self._of = {_FIRST_DAY + timedelta(days=day): slot for slot, day, _ in rows}
        for _, _, now in rows[:1]:
            self._ahead = EPOCH + timedelta(microseconds=now) - datetime.now(EPOCH.tzinfo)
