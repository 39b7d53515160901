"""Where a worker's next reserve begins in each lane: past the rows that it, or others, have taken already.

While any transaction stays open for long (an analyst's, a dump's), the rows that are settled meanwhile stay in the
index, and whoever walks a lane from its beginning reads all of them, every time. So a worker keeps a *mark* in each
lane: how far it has come. What could then be missed, and why it is not:

- *Late commits.* A job becomes visible when its transaction commits, and may be due before the mark. But a transaction
  reads the clock for `due` only once it has its number (`rows.CLOCK`), and a scan is given a number of its own after it
  has read the clock: whoever has a greater one reads the clock later. So no job of a transaction is due before the last
  scan with a smaller number. We keep that instant of every transaction that a snapshot may not have seen the end of:
  those it lists, and all from its `xmax`, which is one past the last to have *ended*, up to the scan's own. A scan that
  meets such a one moves its marks only to that instant, where the scan before it was: most of them have ended by the
  next scan, which then finds what they wrote. The marks go on without those that have not, and when one of them has
  ended, marks beyond its instant go back to it, once. Marks in a backlog, where what is taken was due long ago, are not
  beyond it, and stay.
- *Rows that others lock.* A scan passes over them, and whoever locked them may roll back. So a scan that comes to the
  end of its lanes also tells the first row that was free and that it did not get. Up to there a lane is *sure*; where
  the mark is beyond, a scan now and then begins at the sure place instead.
- *A clock that steps back, a failover, a bug.* Everything is scanned from the beginning at the start, after a
  connection was lost, when another server answers or its clock shows less than before, and now and then.

Looking back costs what there is to read, and is held to a small share of the time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from enum import Enum, auto
from typing import NamedTuple, TypeAlias

import msgspec

from taskharbor.drivers.postgres.rows import SOLO

Position: TypeAlias = tuple[int, str]
"""When a job is due, in microseconds since 1970, and its id. A scan begins after it."""

BEGINNING: Position = (-1, "")
"""Before every job."""
_BACK_SECONDS, _WHOLE_SECONDS = 0.25, 10.0
"""At the soonest so long after a look back, or after a scan from the beginning, comes the next."""
_SHARE = 40
"""And so many times as long after it as it took."""


class Lane(NamedTuple):
    """One range of the index: a queue's jobs of one priority and lane, plain ones or one kind of strays."""

    priority: int
    lane: int
    queue: str
    stray: int


class Seen(msgspec.Struct, array_like=True, frozen=True):
    """When a scan saw the tables."""

    now: int
    """The server's clock when it began."""
    server: int
    """When the server was started: another one, or the same again, has its own numbers and clock."""
    own: int
    """Its own transaction's number, given to it after that, or to an earlier scan of the same transaction."""
    xmax: int
    """One past the last transaction to have ended; others from here on may have been under way."""
    running: tuple[int, ...]
    """Those before it that were."""


class _Start(Enum):
    MARK = auto()
    SURE = auto()
    BEGINNING = auto()


class Marks:
    """How far one worker has come in every lane. For one reserve at a time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Know nothing yet. `clock` counts seconds, for the share of time only."""
        self._clock = clock
        self.restart()

    def restart(self) -> None:
        """Forget everything: the next scan reads all there is."""
        self._marks: dict[Lane, Position] = {}
        self._sure: dict[Lane, Position] = {}
        self._late: dict[int, int] = {}
        """Transactions under way, each with the instant before which no job of it is due; -1 if that is unknown."""
        self._last: Seen | None = None
        self._numbered_at = -1
        """The clock of the scan to which the last scan's own number was given."""
        self._met_since = -1
        """The instant before which no job is due of those whom the last scan met, or could not list."""
        self._began = self._back_at = self._whole_at = self._clock()
        self._from = _Start.BEGINNING

    @property
    def whole(self) -> bool:
        """Return whether the scan that was begun starts at the beginning of every lane."""
        return self._from is _Start.BEGINNING

    def begin(self, lanes: Iterable[Lane]) -> None:
        """Decide where the next scan, of these lanes, begins."""
        now = self._began = self._clock()
        if self._last is None or now >= self._whole_at:
            self._from = _Start.BEGINNING
        elif now >= self._back_at and self._unsure(lanes):
            self._from = _Start.SURE
        else:
            self._from = _Start.MARK

    def start(self, lane: Lane) -> Position:
        """Return where it begins in a lane."""
        # Solo jobs are few, and passed over on purpose: there is nothing to remember.
        if self._from is _Start.BEGINNING or lane.lane == SOLO:
            return BEGINNING
        mark = self._marks.get(lane, BEGINNING)
        return mark if self._from is _Start.MARK else min(mark, self._sure.get(lane, BEGINNING))

    def note(
        self,
        seen: Seen,
        lanes: Collection[Lane],
        taken: Mapping[Lane, Position],
        left: Mapping[Lane, Position] | None,
        *,
        workers: int = 1,
    ) -> bool:
        """Take in what a scan found, and return whether another one may find more at once.

        Args:
            seen: when it saw the tables.
            lanes: those that it was to walk; no solo lanes.
            taken: the last job that it took of each lane.
            left: where it came to the end of all lanes, the first job in each that was free and that it did not get;
                None where a limit ended it before.
            workers: how many share the time for scans from the beginning; asked of those only.
        """
        last = self._last
        if last is not None and (seen.server != last.server or seen.now < last.now):
            self.restart()
            return True
        ended, met = self._note_running(seen)
        end = (self._met_since if met else seen.now, "")
        if left is None:
            self._marks.update((lane, min(taken[lane], end)) for lane in lanes if lane in taken)
            missed = self._beyond(ended, ())
        else:
            # Where it began before them, it has seen the jobs of those who have ended.
            missed = self._beyond(ended, lanes)
            for lane in lanes:
                if self.start(lane) <= self._sure.get(lane, BEGINNING):
                    self._sure[lane] = end if lane not in left else min(_before(left[lane]), end)
                self._marks[lane] = end
        for lane in missed:
            self._marks[lane] = ended
            self._sure[lane] = min(self._sure.get(lane, BEGINNING), ended)
        self._set_times(workers)
        if any(lane in lanes for lane in missed):
            return True
        looks_back = self._from is _Start.MARK and self._clock() >= self._back_at
        return left is not None and looks_back and self._unsure(lanes)

    def _unsure(self, lanes: Iterable[Lane]) -> bool:
        return any(
            self._sure.get(lane, BEGINNING) < self._marks[lane] for lane in lanes if lane in self._marks
        )

    def _set_times(self, workers: int) -> None:
        if self._from is _Start.MARK:
            return
        now = self._clock()
        took = now - self._began
        self._back_at = now + max(_BACK_SECONDS, _SHARE * took)
        if self._from is _Start.BEGINNING:
            self._whole_at = now + max(_WHOLE_SECONDS, _SHARE * took * workers)

    def _note_running(self, seen: Seen) -> tuple[Position, bool]:
        """Keep who is under way.

        Returns:
            The place before which none is due of the jobs of those who have ended since the last scan; whether others
            are met for the first time.
        """
        last, running = self._last, set(seen.running)
        ended = [self._late.pop(xid) for xid in [xid for xid in self._late if xid not in running]]
        if last is not None:
            # The last scan has ended, too; so whoever had a number before it, and goes on, is listed now. (Where its
            # transaction goes on, some may still not be: they are then among those of this scan.)
            unlisted = range(last.xmax, last.own)
            self._late.update((xid, self._met_since) for xid in running if xid in unlisted)
        if last is None or seen.own != last.own:
            self._met_since, self._numbered_at = self._numbered_at, seen.now
        met = running.difference(self._late)
        self._late.update(dict.fromkeys(met, self._met_since))
        self._last = seen
        return (min(ended, default=seen.now), ""), bool(met) or seen.xmax < seen.own

    def _beyond(self, place: Position, walked: Collection[Lane]) -> list[Lane]:
        """Return the lanes that were entered, or if not walked are to be entered, after a place."""
        return [
            lane
            for lane, mark in self._marks.items()
            if place < (self.start(lane) if lane in walked else mark)
        ]


def _before(position: Position) -> Position:
    return position[0], ""
