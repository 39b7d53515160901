"""Time, as a thing that can be handed in: the system's clock, and one that a test turns.

The store's clock decides when a job is due (rule 18), so drivers hold a clock and nothing else asks the time for them.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from taskharbor.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS = {
    "d": timedelta(days=1),  # and no weeks: "7d" reads better than "1w"
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
    "us": timedelta(microseconds=1),
}


class Clock(Protocol):
    """Where a driver reads the time."""

    def now(self) -> datetime:
        """Return the present instant, aware, in UTC."""
        ...

    def on_turn(self, callback: Callable[[], None]) -> None:
        """Call `callback` whenever time jumps, so that sleepers look again. Real clocks never call it."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the present instant, aware, in UTC."""
        return datetime.now(UTC)

    def on_turn(self, callback: Callable[[], None]) -> None:
        """Do nothing: the machine's clock is not turned by hand."""


class ManualClock:
    """A clock that stands still until `advance` turns it. Thread-safe.

    Whoever sleeps until a due time is woken when the clock is turned, so that a test never sleeps itself. The idea is
    trio's `MockClock` (https://trio.readthedocs.io/en/stable/reference-testing.html).
    """

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = aware(start, "start")
        self._callbacks: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def now(self) -> datetime:
        """Return the instant the clock stands at."""
        return self._now

    def advance(self, by: timedelta) -> datetime:
        """Turn the clock by `by` (backwards if negative, as real clocks sometimes do) and return the new instant."""
        _check_turn(by)
        with self._lock:
            self._now += by
            callbacks = list(self._callbacks)
        for callback in callbacks:
            callback()
        return self._now

    def on_turn(self, callback: Callable[[], None]) -> None:
        """Call `callback` after every `advance`."""
        with self._lock:
            self._callbacks.append(callback)


def _check_turn(by: object) -> None:
    if not isinstance(by, timedelta):
        raise TypeError(f"advance({by!r}): expected a timedelta, such as timedelta(hours=1)")


def aware(moment: object, what: str) -> datetime:
    """Return `moment` in UTC.

    Raises:
        OptionError: it is no datetime, or has no time zone and so names no instant.
    """
    if not isinstance(moment, datetime):
        raise OptionError(f"{what}={moment!r}: expected an aware datetime, for example datetime.now(UTC)")
    if moment.tzinfo is None:
        raise OptionError(
            f"{what}={moment.isoformat()} has no time zone and so names no instant; "
            f"pass an aware datetime, for example datetime.now(UTC) or {moment.isoformat()}+00:00"
        )
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise OptionError(f"{what}={moment.isoformat()} lies beyond the years that can be stored") from error


def micros(moment: datetime) -> int:
    """Return whole microseconds since 1970: exact, and far quicker to compare and add than datetimes."""
    return duration_micros(moment - EPOCH)


def from_micros(value: int) -> datetime:
    """Return the aware UTC instant `value` microseconds after 1970."""
    return EPOCH + timedelta(microseconds=value)


def duration_micros(duration: timedelta) -> int:
    """Return a duration in whole microseconds."""
    return (duration.days * 86_400 + duration.seconds) * 1_000_000 + duration.microseconds


def told_duration(length: timedelta) -> str:
    """Return a duration as settings and options are written: `1h30m`."""
    parts: list[str] = []
    for name, unit in _UNITS.items():
        count, length = divmod(length, unit)
        if count:
            parts.append(f"{count}{name}")
    return "".join(parts) or "0s"


def told_roughly(length: timedelta) -> str:
    """Return a duration that was measured or drawn: `5ms`, `1m30s`.

    To a second; shorter than ten seconds, to a millisecond.
    """
    step = timedelta(seconds=1) if length >= timedelta(seconds=10) else timedelta(milliseconds=1)
    return told_duration(max(round(length / step), 1) * step if length > timedelta(0) else timedelta(0))
