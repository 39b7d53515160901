"""Where a worker's next reserve begins in each lane: past the rows that it, or others, have taken already.

While any transaction stays open for long (an analyst's, a dump's), the rows that are settled meanwhile stay in the
index, and whoever walks a lane from its beginning reads all of them, every time. So a worker keeps a *mark* in each
lane: how far it has come. What could then be missed, and why it is not:

- *Late commits.* A job becomes visible when its transaction commits, and may be due before the mark. But a transaction
  reads the clock for `due` only once it has its number (`rows.CLOCK`), so no job of it is due before the last scan
  whose snapshot had not given out that number yet. Of every transaction under way in a snapshot we keep that instant;
  when it has ended, marks beyond that instant go back to it, once. Marks in a backlog, where what is taken was due long
  ago, are not beyond it, and stay.
- *Rows that others lock.* A scan passes over them, and whoever locked them may roll back. So a scan that comes to the
  end of its lanes also tells the first row that was free and that it did not get. Up to there a lane is *sure*; where
  the mark is beyond, a scan now and then begins at the sure place instead.
- *A clock that steps back, a failover, a bug.* Everything is scanned from the beginning at the start, after a
  connection was lost, when the server's clock shows less than before, and now and then.

Looking back costs what there is to read, and is held to a small share of the time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
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
    xmax: int
    """The first transaction number not given out then."""
    running: tuple[int, ...]
    """Transactions under way then."""


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
        self._began = self._back_at = self._whole_at = self._clock()
        self._from = _Start.BEGINNING

    @property
    def whole(self) -> bool:
        """Return whether the scan that was begun starts at the beginning of every lane."""
        return self._from is _Start.BEGINNING

    def begin(self) -> None:
        """Decide where the next scan begins."""
        now = self._began = self._clock()
        if self._last is None or now >= self._whole_at:
            self._from = _Start.BEGINNING
        elif now >= self._back_at and self._unsure():
            self._from = _Start.SURE
        else:
            self._from = _Start.MARK

    def start(self, lane: Lane) -> Position:
        """Return where it begins in a lane."""
        # Solo jobs are few, and passed over on purpose: there is nothing to remember.
        if self._from is _Start.BEGINNING or lane.lane == SOLO:
            return BEGINNING
        return (self._marks if self._from is _Start.MARK else self._sure).get(lane, BEGINNING)

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
            lanes: those that it was to walk.
            taken: the last job that it took of each lane.
            left: where it came to the end of all lanes, the first job in each that was free and that it did not get;
                None where a limit ended it before.
            workers: how many share the time for scans from the beginning; asked of those only.
        """
        if self._last is not None and seen.now < self._last.now:
            self.restart()
            return left is not None
        end = (seen.now, "")
        if left is None:
            self._marks.update((lane, min(position, end)) for lane, position in taken.items())
        else:
            for lane in lanes:
                if self.start(lane) <= self._sure.get(lane, BEGINNING):
                    self._sure[lane] = end if lane not in left else min(_before(left[lane]), end)
                self._marks[lane] = end
        self._set_times(workers)
        set_back = self._note_running(seen)
        look_back = self._from is _Start.MARK and self._clock() >= self._back_at and self._unsure()
        return left is not None and (set_back or look_back)

    def _unsure(self) -> bool:
        return any(self._sure.get(lane, BEGINNING) < mark for lane, mark in self._marks.items())

    def _set_times(self, workers: int) -> None:
        if self._from is _Start.MARK:
            return
        now = self._clock()
        took = now - self._began
        self._back_at = now + max(_BACK_SECONDS, _SHARE * took)
        if self._from is _Start.BEGINNING:
            self._whole_at = now + max(_WHOLE_SECONDS, _SHARE * took * workers)

    def _note_running(self, seen: Seen) -> bool:
        """Keep who is under way, and return whether marks went back because of who has ended."""
        running = set(seen.running)
        ended = [self._late.pop(xid) for xid in [xid for xid in self._late if xid not in running]]
        last = self._last
        for xid in running.difference(self._late):
            self._late[xid] = last.now if last is not None and xid >= last.xmax else -1
        self._last = seen
        if not ended:
            return False
        if -1 in ended:  # begun before our first scan: its jobs may be anywhere
            self._sure.clear()
        known = [instant for instant in ended if instant >= 0]
        return bool(known) and self._set_back(min(known))

    def _set_back(self, instant: int) -> bool:
        place = (instant, "")
        for lane, sure in self._sure.items():
            self._sure[lane] = min(sure, place)
        beyond = [lane for lane, mark in self._marks.items() if mark > place]
        self._marks.update(dict.fromkeys(beyond, place))
        return bool(beyond)


def _before(position: Position) -> Position:
    return position[0], ""
