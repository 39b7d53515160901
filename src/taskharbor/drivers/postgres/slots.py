"""Which partition of the history holds the jobs that expire on a day.

A ring: each partition holds one day's expiries, is emptied when that day is over, and then stands for a day ahead. So
retention is a TRUNCATE, and nobody creates or drops a table while jobs run (ADR 0011). The table `slot` says which day
each stands for at present; a day that none stands for goes to the partition `LONG`, whose rows go one by one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta

from taskharbor.clock import EPOCH, from_micros
from taskharbor.drivers.postgres.routine import Query, Routine
from taskharbor.drivers.postgres.rows import DEAD, LONG, micros_of
from taskharbor.drivers.postgres.schema import LONGEST_SLOTTED

_READ = f"SELECT slot, day - date '1970-01-01', {micros_of('clock_timestamp()')} FROM taskharbor.slot"
_AGAIN_SECONDS, _ANEW_SECONDS = 60.0, 600.0
"""It is read no sooner than that again for a day that is not there; and after so long in any case, for the time."""
_FIRST_DAY = EPOCH.date()
_DOUBT = timedelta(minutes=1)
"""How wrong what we take for the server's time may be."""


class Slots:
    """The ring as it was last read. A day that is not over keeps its partition, so what is known stays true."""

    def __init__(
        self,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Know nothing yet.

        Args:
            wall: this machine's time, by which ids are made.
            clock: counts seconds, whatever is done to this machine's time.
        """
        self._wall = wall
        self._clock = clock
        self._of: dict[date, int] = {}
        self._read_at: float | None = None
        self._server_at = EPOCH
        """The server's time then."""

    def may_hold(
        self, made_at: datetime, retains: Iterable[timedelta], now: datetime | None
    ) -> Routine[tuple[int, ...]]:
        """Return the partitions in which jobs can be that ended between `made_at` and now.

        Args:
            made_at: when the first of their ids was made here.
            retains: how long they are kept.
            now: the present, where a test gives one.
        """
        slotted = {retain for retain in retains if retain <= LONGEST_SLOTTED}
        # A test that gives the present may have turned the ring with it.
        if slotted and (now is not None or self._age() >= _ANEW_SECONDS):
            yield from self._read()
        days = self._days(made_at, slotted, now)
        if not days <= self._of.keys() and self._age() >= _AGAIN_SECONDS:
            yield from self._read()
            days = self._days(made_at, slotted, now)
        return (DEAD, LONG, *sorted(self._of[day] for day in days if day in self._of))

    def _age(self) -> float:
        return _ANEW_SECONDS if self._read_at is None else self._clock() - self._read_at

    def _days(self, made_at: datetime, retains: Iterable[timedelta], now: datetime | None) -> set[date]:
        if now is None:
            # An id tells this machine's time, which may be far from the server's: what both agree on is its age.
            now = self._server_at + timedelta(seconds=self._age())
            made_at = now - (self._wall() - made_at)
        days: set[date] = set()
        for retain in retains:
            first = (min(made_at, now) - _DOUBT + retain).date()
            last = (now + _DOUBT + retain).date()
            if (last - first).days > len(self._of):  # an id of long ago: what there is of that span
                days.update(day for day in self._of if first <= day <= last)
            else:
                days.update(first + timedelta(days=n) for n in range((last - first).days + 1))
        return days

    def _read(self) -> Routine[None]:
        rows = yield Query(_READ)
        self._read_at = self._clock()
        self._of = {_FIRST_DAY + timedelta(days=day): slot for slot, day, _ in rows}
        self._server_at = from_micros(max(now for _, _, now in rows)) if rows else self._wall()
