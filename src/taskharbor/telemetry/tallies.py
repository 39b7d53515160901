"""A worker's counts: how many deliveries ended how, by minute, queue and task.

Kept by all workers at all times, so it costs an update of one entry for each delivery. What is written are whole
numbers of a minute so far, which take the place of those written before. So a minute that is over is remembered for a
while, for a clock that steps back; and nothing is counted in one that was forgotten.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from taskharbor.event import Ending, Tally

_MINUTE = 60
_MOST_REMEMBERED = 2_000
"""Entries that are remembered though they are written, and their minute is over."""
_MOST_KEPT = 20_000
"""Entries that are kept while the store is away: the oldest minutes are given up first."""

Key: TypeAlias = tuple[int, str, str, str]
"""The ending is its plain text: hashing a member of an enum costs as much as all the rest."""


class _Count:
    __slots__ = ("count", "seconds")

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0


class Tallies:
    """Counts by one thread, which also takes what is to be written."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        """Make it empty; `wall` is the clock, in seconds since 1970."""
        self._wall = wall
        self._counts: dict[Key, _Count] = {}
        self._changed = set[Key]()
        self._forgotten = -1
        """The latest minute of which something was forgotten."""

    @property
    def dirty(self) -> bool:
        """Return whether something was counted since it was last taken."""
        return bool(self._changed)

    def minute(self) -> int:
        """Return the minute to count in, since 1970: the present one, or where that was forgotten the next."""
        return max(int(self._wall()) // _MINUTE, self._forgotten + 1)

    def note(self, minute: int, queue: str, task: str, ending: str, seconds: float, count: int = 1) -> None:
        """Count deliveries that ended so (the value of an `Ending`), whose handlers ran for so long all together."""
        key = (minute, queue, task, ending)
        entry = self._counts.get(key)
        if entry is None:
            entry = self._counts[key] = _Count()
        entry.count += count
        entry.seconds += seconds
        self._changed.add(key)

    def take(self) -> list[Tally]:
        """Return what has changed since it was last taken, as whole numbers."""
        changed, self._changed = self._changed, set[Key]()
        return [_tally(key, self._counts[key]) for key in sorted(changed)]

    def written(self) -> None:
        """Note that all that was taken is written: minutes that are over are forgotten, the oldest first."""
        excess = len(self._counts) - _MOST_REMEMBERED
        if excess > 0:
            # One minute more is kept: whoever counts has read the clock a moment ago.
            over = self.minute() - 1
            gone = sorted(key for key in self._counts if key[0] < over and key not in self._changed)
            self._forget(gone[:excess])

    def give_back(self, tallies: list[Tally]) -> int:
        """Note that these could not be written, so that they are taken again; return how many were given up."""
        self._changed.update(_key(tally) for tally in tallies)
        excess = len(self._counts) - _MOST_KEPT
        return self._forget(sorted(self._counts)[:excess]) if excess > 0 else 0

    def _forget(self, keys: Sequence[Key]) -> int:
        """Forget some entries, and return how many of them were not written."""
        unwritten = len(self._changed)
        for key in keys:
            del self._counts[key]
            self._changed.discard(key)
            self._forgotten = max(self._forgotten, key[0])
        return unwritten - len(self._changed)


def _tally(key: Key, entry: _Count) -> Tally:
    minute, queue, task, ending = key
    return Tally(
        minute=datetime.fromtimestamp(minute * _MINUTE, UTC),
        queue=queue,
        task=task,
        ending=Ending(ending),
        count=entry.count,
        ran=timedelta(seconds=entry.seconds),
    )


def _key(tally: Tally) -> Key:
    return int(tally.minute.timestamp()) // _MINUTE, tally.queue, tally.task, tally.ending.value
