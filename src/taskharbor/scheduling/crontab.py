"""The ticks of a cron expression on the clocks of a time zone, forwards and backwards.

Cronsim is asked about walls only: naive times, which know no zone. How walls become instants is decided here, since its
own way loses ticks where clocks move by half an hour. It follows Debian's cron:

- *Fixed times* (neither the minute nor the hour begins with `*`): each wall has one tick. Where the clocks leap over
  it, that is the instant of the leap; where they show it twice, the first time. Two that fall together are one.
- *Running times* (the others, such as `*/15 * * * *` or `0 * * * *`): each instant at which the clocks show such a
  wall. In an hour that comes twice they tick twice; what is leapt over does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING

from taskharbor.errors import OptionError
from taskharbor.scheduling.zone import change_between, instant_of, offset_at, shown

if TYPE_CHECKING:
    from cronsim import CronSim

ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_FIELDS = "five fields (minute hour day-of-month month day-of-week), or six (a second before them)"
_WITH_SECONDS = 6
_NEAR = timedelta(days=2)
"""No zone has ever moved its clocks by more than a day: what is further from a wall than this is not near it in any
offset. And no zone moves them twice within it."""
_MICRO = timedelta(microseconds=1)
_SECOND = timedelta(seconds=1)


def check(expression: str) -> None:
    """Refuse an expression that cannot be read, or that has no ticks.

    Raises:
        OptionError: as said.
    """
    if not isinstance(expression, str) or not expression.strip():
        raise OptionError(f"cron({expression!r}): expected {_FIELDS}, such as '0 8 * * 1-5'")
    if expression.strip().startswith("@") and expression.strip().lower() not in ALIASES:
        raise OptionError(f"cron({expression!r}): expected {_FIELDS}, or one of {', '.join(ALIASES)}")
    from cronsim import CronSimError

    try:
        walls = _walls(expression, datetime(2000, 1, 1))  # noqa: DTZ001 - a wall
    except CronSimError as error:
        hint = ", or one that none of these months has" if "day-of-month" in str(error) else ""
        raise OptionError(
            f"cron({expression!r}): {str(error).lower()}{hint}; expected {_FIELDS}, such as '0 8 * * 1-5'"
        ) from error
    if next(walls, None) is None:
        raise OptionError(
            f"cron({expression!r}): no day in fifty years is such a date; nothing would ever be fired"
        )


def forwards(expression: str, zone: tzinfo, after: datetime) -> Iterator[datetime]:
    """Yield the ticks after an instant, in UTC and in order; there are none after the year 9999."""
    walk = _fixed_forwards if _is_fixed(expression) else _running_forwards
    try:
        yield from walk(expression, zone, after)
    except OverflowError:
        return


def backwards(expression: str, zone: tzinfo, upto: datetime) -> Iterator[datetime]:
    """Yield the ticks up to an instant, itself included, in UTC, the latest first."""
    walk = _fixed_backwards if _is_fixed(expression) else _running_backwards
    try:
        yield from walk(expression, zone, upto)
    except OverflowError:
        return


def _walls(expression: str, wall: datetime, *, reverse: bool = False) -> CronSim:
    """Walk the walls after that one; backwards, those up to it."""
    from cronsim import CronSim

    text = ALIASES.get(expression.strip().lower(), expression)
    # Backwards, cronsim begins with the second it is given only if that has begun already.
    return CronSim(text, wall.replace(microsecond=1) if reverse else wall, reverse)


def _is_fixed(expression: str) -> bool:
    fields = ALIASES.get(expression.strip().lower(), expression).split()
    minute, hour = fields[1:3] if len(fields) == _WITH_SECONDS else fields[:2]
    return not minute.startswith("*") and not hour.startswith("*")


def _fixed_forwards(expression: str, zone: tzinfo, after: datetime) -> Iterator[datetime]:
    last = after
    for wall in _walls(expression, shown(after, offset_at(zone, after))):
        tick = instant_of(wall, zone)
        if tick > last:
            yield tick
            last = tick


def _fixed_backwards(expression: str, zone: tzinfo, upto: datetime) -> Iterator[datetime]:
    local = upto.astimezone(zone)
    start = local.replace(tzinfo=None, fold=0)
    if local.fold:
        # The second time that clocks show it: all that they showed meanwhile has had its first time.
        start += upto - local.replace(fold=0).astimezone(UTC)
    last = upto + _MICRO
    for wall in _walls(expression, start, reverse=True):
        tick = instant_of(wall, zone)
        if tick < last:
            yield tick
            last = tick


def _running_forwards(expression: str, zone: tzinfo, after: datetime) -> Iterator[datetime]:
    """Stretch by stretch of one offset: within one, instants and walls go alike."""
    last, offset = after, offset_at(zone, after)
    walls = _walls(expression, shown(last, offset))
    while (wall := next(walls, None)) is not None:
        tick = wall.replace(tzinfo=UTC) - offset
        near = min(tick, last + _NEAR)
        if offset_at(zone, near) != offset:
            change = change_between(zone, last, near)
            offset, last = offset_at(zone, change), change - _MICRO
            walls = _walls(expression, shown(change, offset) - _SECOND)
        elif near < tick:
            # Nothing between can match, whatever the offset.
            last = tick - _NEAR
            offset = offset_at(zone, last)
            walls = _walls(expression, shown(last, offset))
        else:
            yield tick
            last = tick


def _running_backwards(expression: str, zone: tzinfo, upto: datetime) -> Iterator[datetime]:
    last, offset = upto, offset_at(zone, upto)
    walls = _walls(expression, shown(last, offset), reverse=True)
    while (wall := next(walls, None)) is not None:
        tick = wall.replace(tzinfo=UTC) - offset
        near = max(tick, last - _NEAR)
        if offset_at(zone, near) != offset:
            last = change_between(zone, near, last) - _SECOND
            offset = offset_at(zone, last)
            walls = _walls(expression, shown(last, offset), reverse=True)
        elif near > tick:
            last = tick + _NEAR
            offset = offset_at(zone, last)
            walls = _walls(expression, shown(last, offset), reverse=True)
        else:
            yield tick
            last = tick
