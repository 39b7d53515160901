"""Time zones: reading a name, the offset at an instant, and the instant at which it changes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from difflib import get_close_matches

from taskharbor.errors import OptionError

_SECOND = timedelta(seconds=1)


def zone_of(name: str) -> tzinfo:
    """Return the time zone of that name in the IANA database.

    Raises:
        OptionError: there is none of that name, or no database on this machine.
    """
    if name == "UTC":
        return UTC
    import zoneinfo

    try:
        return zoneinfo.ZoneInfo(name)
    # What it raises of a folder's name, of an absolute path, of one that leads outside.
    except (zoneinfo.ZoneInfoNotFoundError, OSError, ValueError, TypeError) as error:
        known = zoneinfo.available_timezones()
        if not known:
            raise OptionError(
                f"tz={name!r}: this machine has no database of time zones; pip install tzdata"
            ) from error
        near = get_close_matches(str(name), known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise OptionError(
            f"tz={name!r}: expected a name of the IANA database of time zones, such as 'Europe/Paris'{hint}"
        ) from error


def offset_at(zone: tzinfo, instant: datetime) -> timedelta:
    """Return how far the clocks of a zone are ahead of UTC at an instant."""
    return instant.astimezone(zone).utcoffset() or timedelta(0)


def change_between(zone: tzinfo, early: datetime, late: datetime) -> datetime:
    """Return the first whole second whose offset is no longer that of `early`, where that of `late` is another.

    With more than one change between the two, it is one of them.
    """
    before = offset_at(zone, early)
    low, high = early.replace(microsecond=0), late.replace(microsecond=0)
    while high - low > _SECOND:
        middle = low + (high - low) // _SECOND // 2 * _SECOND
        if offset_at(zone, middle) == before:
            low = middle
        else:
            high = middle
    return high


def shown(instant: datetime, offset: timedelta) -> datetime:
    """Return what a clock with that offset shows at an instant: a naive datetime."""
    return (instant + offset).replace(tzinfo=None)


def instant_of(wall: datetime, zone: tzinfo) -> datetime:
    """Return the instant at which the clocks of a zone show `wall`, in UTC.

    The first of two where they show it twice. Where they leap over it, the instant of the leap.
    """
    first = wall.replace(tzinfo=zone).astimezone(UTC)
    if first.astimezone(zone).replace(tzinfo=None) == wall:
        return first
    # In a gap the one fold reckons with the offset before it, the other with that after it.
    return change_between(zone, wall.replace(tzinfo=zone, fold=1).astimezone(UTC), first)
