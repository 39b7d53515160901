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
_LONGEST = 1000
"""Characters of an expression: more than six fields with each of their values take."""
_NEAR = timedelta(days=2)
"""No zone has ever moved its clocks by more than a day: what is further from a wall than this is not near it in any
offset. And no zone moves them twice within it."""
_BEGIN = datetime(2000, 1, 1)  # noqa: DTZ001 - a wall
_GIVE_UP = timedelta(days=50 * 366)
"""So long without a tick there is none: as long as cronsim looks for a date."""
_TRIED_FROM = datetime(2026, 1, 1, tzinfo=UTC)
"""From where an expression is tried before it is taken."""
_MICRO = timedelta(microseconds=1)
_SECOND = timedelta(seconds=1)


def check(expression: str, zone: tzinfo) -> None:
    """Refuse an expression that cannot be read, or that has no ticks in a zone.

    Raises:
        OptionError: as said.
    """
    if not isinstance(expression, str) or not expression.strip():
        raise OptionError(f"cron({expression!r}): expected {_FIELDS}, such as '0 8 * * 1-5'")
    if expression.strip().startswith("@") and expression.strip().lower() not in ALIASES:
        raise OptionError(f"cron({expression!r}): expected {_FIELDS}, or one of {', '.join(ALIASES)}")
    if len(expression) > _LONGEST:
        raise OptionError(f"cron({expression[:40]!r}...): expected at most {_LONGEST:,} characters")
    from cronsim import CronSimError

    try:
        walls = _walls(expression, _BEGIN)
    except CronSimError as error:
        wanted = f"{_FIELDS}, such as '0 8 * * 1-5'"
        if "day-of-month" in str(error):
            wanted = "a day from 1 to 31 that at least one of its months has, L or LW"
        raise OptionError(f"cron({expression!r}): {str(error).lower()}; expected {wanted}") from error
    if next(walls, None) is None:
        raise OptionError(
            f"cron({expression!r}): no day in fifty years is such a date; nothing would ever be fired"
        )
    if next(forwards(expression, zone, _TRIED_FROM), None) is None:
        raise OptionError(
            f"cron({expression!r}, tz={str(zone)!r}): clocks leap over each such time there; nothing would ever be "
            "fired; give the minute and the hour as numbers ('0 2 ...'): such a time comes right after the leap"
        )


def first_gap(expression: str) -> timedelta:
    """Return the time between the first two walls of an expression from 2000 on; the longest there is if it has one."""
    walls = _walls(expression, _BEGIN)
    first, second = next(walls, None), next(walls, None)
    return timedelta.max if first is None or second is None else second - first


def forwards(expression: str, zone: tzinfo, after: datetime) -> Iterator[datetime]:
    """Yield the ticks after an instant, in UTC and in order; there are none after the year 9999, nor after fifty years
    without any.
    """
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
    last_tick = after
    walls = _walls(expression, shown(last, offset))
    while (wall := next(walls, None)) is not None and last - last_tick < _GIVE_UP:
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
            last = last_tick = tick


def _running_backwards(expression: str, zone: tzinfo, upto: datetime) -> Iterator[datetime]:
    last, offset = upto, offset_at(zone, upto)
    last_tick = upto
    walls = _walls(expression, shown(last, offset), reverse=True)
    while (wall := next(walls, None)) is not None and last_tick - last < _GIVE_UP:
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
            last = last_tick = tick
