"""`cron(...)` and `every(...)`: schedules whose times and policies have been checked."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal, TypeVar

from taskharbor.clock import aware
from taskharbor.errors import OptionError
from taskharbor.outcome import checked_wait
from taskharbor.schedule import (
    DEFAULT_CATCH_UP,
    DEFAULT_GRACE,
    Cron,
    Every,
    Misfire,
    Overlap,
    Schedule,
    Trigger,
)
from taskharbor.scheduling.crontab import check, first_gap
from taskharbor.scheduling.times import CATCH_UP_MOST
from taskharbor.scheduling.zone import zone_of

_SHORTEST = timedelta(seconds=1)
_EnumT = TypeVar("_EnumT", bound=StrEnum)


def cron(
    expression: str,
    *,
    tz: str = "UTC",
    misfire: Misfire | Literal["skip", "once", "catch_up"] = Misfire.ONCE,
    catch_up: int | None = None,
    grace: timedelta | None = None,
    overlap: Overlap | Literal["allow", "skip", "queue_one"] = Overlap.ALLOW,
    until: datetime | None = None,
) -> Schedule:
    """Make a schedule of a cron expression, by the clocks of a time zone.

    Five fields: minute, hour, day of month, month, day of week (0 and 7 are Sunday; names in English); six with a
    second before them. Lists, ranges and steps; `L` (last day of the month) and `LW` (last weekday of it), `5L` (last
    Friday), `1#2` (second Monday); `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`. Where both kinds of day are
    given and neither begins with `*`, a day of either kind will do.

    When clocks change: a fixed time (`30 2 * * *`) that they leap over comes right after the leap; one that they show
    twice, the first time only. Where the minute or the hour begins with `*`, each time that the clocks show it counts:
    every hour of the night, be it one twice. For a fixed time apart whatever clocks do, take `every`.

    Args:
        expression: the times.
        tz: on whose clocks; a name of the IANA database.
        misfire: what becomes of ticks that are later than `grace`, as after an outage.
        catch_up: with `misfire="catch_up"` only, how many of those, the latest, have their jobs: 1 to 10,000; None is
            100.
        grace: how late a tick still is on time, and has its job whatever `misfire` says. None is a minute, or the time
            between the first two ticks of an expression with seconds, if that is shorter.
        overlap: what becomes of a tick while the last job of this schedule has not ended.
        until: no tick is after this instant; aware.

    Raises:
        OptionError: the expression cannot be read, is of no date, or only of times that clocks in that zone leap over;
            the zone is unknown, or another value cannot be.
    """
    check(expression, zone_of(tz))
    grace = _default_grace(first_gap(expression)) if grace is None else grace
    return _schedule(f"cron({expression!r})", Cron(expression, tz), misfire, catch_up, grace, overlap, until)


def every(
    period: timedelta,
    *,
    start: datetime | None = None,
    misfire: Misfire | Literal["skip", "once", "catch_up"] = Misfire.ONCE,
    catch_up: int | None = None,
    grace: timedelta | None = None,
    overlap: Overlap | Literal["allow", "skip", "queue_one"] = Overlap.ALLOW,
    until: datetime | None = None,
) -> Schedule:
    """Make a schedule of instants a fixed time apart, whatever clocks on walls do.

    Args:
        period: at least a second.
        start: the first tick; aware. None counts from 1970-01-01T00:00Z, so that `every(timedelta(hours=1))` is on the
            hour, in each process and after each start.
        misfire: what becomes of ticks that are later than `grace`, as after an outage.
        catch_up: with `misfire="catch_up"` only, how many of those, the latest, have their jobs: 1 to 10,000; None is
            100.
        grace: how late a tick still is on time, and has its job whatever `misfire` says. None is a minute, or the
            period, if that is shorter.
        overlap: what becomes of a tick while the last job of this schedule has not ended.
        until: no tick is after this instant; aware.

    Raises:
        OptionError: a value cannot be.
    """
    where = f"every({period!r})"
    if not isinstance(period, timedelta) or checked_wait(period, where) < _SHORTEST:
        raise OptionError(f"{where}: expected a timedelta of at least a second, such as timedelta(minutes=5)")
    first = None if start is None else aware(start, f"{where}: start")
    grace = _default_grace(period) if grace is None else grace
    return _schedule(where, Every(period, first), misfire, catch_up, grace, overlap, until)


def _default_grace(period: timedelta) -> timedelta:
    """Return how late is on time where nobody says it: no more than a tick, so that an outage makes no run of jobs."""
    return min(DEFAULT_GRACE, period)


def _schedule(
    where: str,
    trigger: Trigger,
    misfire: Misfire | str,
    catch_up: int | None,
    grace: timedelta,
    overlap: Overlap | str,
    until: datetime | None,
) -> Schedule:
    misfire = _one_of(Misfire, misfire, f"{where}: misfire")
    if catch_up is None:
        catch_up = DEFAULT_CATCH_UP
    elif type(catch_up) is not int or not 1 <= catch_up <= CATCH_UP_MOST:
        raise OptionError(
            f"{where}: catch_up={catch_up!r}: expected a whole number from 1 to {CATCH_UP_MOST:,}"
        )
    elif misfire is not Misfire.CATCH_UP:
        raise OptionError(
            f"{where}: catch_up={catch_up}: goes with misfire='catch_up', and misfire is {misfire.value!r}"
        )
    return Schedule(
        trigger=trigger,
        misfire=misfire,
        catch_up=catch_up,
        grace=checked_wait(grace, f"{where}: grace"),
        overlap=_one_of(Overlap, overlap, f"{where}: overlap"),
        until=None if until is None else aware(until, f"{where}: until"),
    )


def _one_of(choices: type[_EnumT], value: str, what: str) -> _EnumT:
    try:
        return choices(value)
    except ValueError:
        listed = ", ".join(repr(choice.value) for choice in choices)
        raise OptionError(f"{what}={value!r}: expected one of {listed}") from None
