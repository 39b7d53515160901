"""When schedules fire: across the changes of clocks by expectations written by hand, and by what must hold always."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from unittest import mock
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskharbor import OptionError, cron, every
from taskharbor.schedule import Cron, Every, Misfire, Overlap, Schedule
from taskharbor.scheduling import crontab, ticks, zone
from taskharbor.scheduling.times import CATCH_UP_MOST, COUNT_LIMIT, late

PARIS, NEW_YORK, LORD_HOWE = "Europe/Paris", "America/New_York", "Australia/Lord_Howe"


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def shown(schedule: Schedule, after: str, count: int) -> list[str]:
    """Return the next ticks in UTC, without the year."""
    return [f"{tick:%m-%d %H:%M}" for tick in islice(ticks(schedule, instant(after)), count)]


@pytest.mark.parametrize(
    ("expression", "tz", "after", "expected"),
    [
        # Paris: on 29 March 2:00 is 3:00 (01:00Z); on 25 October 3:00 is 2:00 again (01:00Z).
        ("30 2 * * *", PARIS, "2026-03-28", ["03-28 01:30", "03-29 01:00", "03-30 00:30"]),
        ("30 2 * * *", PARIS, "2026-10-24", ["10-24 00:30", "10-25 00:30", "10-26 01:30"]),
        ("0,30 2,3 * * *", PARIS, "2026-03-29", ["03-29 01:00", "03-29 01:30", "03-30 00:00"]),
        ("0 * * * *", PARIS, "2026-03-29", ["03-29 01:00", "03-29 02:00", "03-29 03:00"]),
        ("30 * * * *", PARIS, "2026-10-25", ["10-25 00:30", "10-25 01:30", "10-25 02:30"]),
        ("*/30 2 * * *", PARIS, "2026-03-28 12:00", ["03-30 00:00", "03-30 00:30"]),
        (
            "*/30 2 * * *",
            PARIS,
            "2026-10-24 12:00",
            ["10-25 00:00", "10-25 00:30", "10-25 01:00", "10-25 01:30"],
        ),
        ("0 8 * * *", PARIS, "2026-10-24", ["10-24 06:00", "10-25 07:00"]),
        # New York: on 8 March 2:00 is 3:00 (07:00Z); on 1 November 2:00 is 1:00 again (06:00Z).
        ("30 2 * * *", NEW_YORK, "2026-03-07", ["03-07 07:30", "03-08 07:00", "03-09 06:30"]),
        ("30 1 * * *", NEW_YORK, "2026-10-31", ["10-31 05:30", "11-01 05:30", "11-02 06:30"]),
        ("0 * * * *", NEW_YORK, "2026-11-01 04:30", ["11-01 05:00", "11-01 06:00", "11-01 07:00"]),
        (
            "*/20 1 * * *",
            NEW_YORK,
            "2026-11-01 05:30",
            ["11-01 05:40", "11-01 06:00", "11-01 06:20", "11-01 06:40"],
        ),
        # Lord Howe, half an hour: on 4 October 2:00 is 2:30 (15:30Z the day before); on 5 April 2:00 is 1:30 (15:00Z).
        ("15 2 * * *", LORD_HOWE, "2026-10-02 12:00", ["10-02 15:45", "10-03 15:30", "10-04 15:15"]),
        ("45 1 * * *", LORD_HOWE, "2026-04-03 12:00", ["04-03 14:45", "04-04 14:45", "04-05 15:15"]),
        (
            "*/15 3 * * *",
            LORD_HOWE,
            "2026-10-03",
            ["10-03 16:00", "10-03 16:15", "10-03 16:30", "10-03 16:45"],
        ),
        ("*/15 2 * * *", LORD_HOWE, "2026-10-03", ["10-03 15:30", "10-03 15:45", "10-04 15:00"]),
        ("45 * * * *", LORD_HOWE, "2026-04-04 14:30", ["04-04 14:45", "04-04 15:15", "04-04 16:15"]),
        ("0 * * * *", LORD_HOWE, "2026-10-03 14:00", ["10-03 14:30", "10-03 16:00", "10-03 17:00"]),
        # Apia had no 30 December 2011 at all.
        ("0 12 * * *", "Pacific/Apia", "2011-12-29", ["12-29 22:00", "12-30 10:00", "12-30 22:00"]),
    ],
)
def test_ticks_go_by_the_clocks_of_the_zone_when_those_change(
    expression: str, tz: str, after: str, expected: list[str]
) -> None:
    schedule = cron(expression, tz=tz)

    assert expected == shown(schedule, after, len(expected))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("@daily", ["01-02 00:00", "01-03 00:00"]),
        ("@HOURLY", ["01-01 01:00", "01-01 02:00"]),
        ("@weekly", ["01-04 00:00", "01-11 00:00"]),
        ("0 9 L * *", ["01-31 09:00", "02-28 09:00"]),
        ("0 9 LW * *", ["01-30 09:00", "02-27 09:00"]),
        ("0 9 * * 5L", ["01-30 09:00", "02-27 09:00"]),
        ("0 9 * * MON#2", ["01-12 09:00", "02-09 09:00"]),
        ("0 9 13 * FRI", ["01-02 09:00", "01-09 09:00", "01-13 09:00"]),
        ("30 0 12 * * *", ["01-01 12:00", "01-02 12:00"]),
    ],
)
def test_what_an_expression_may_say(expression: str, expected: list[str]) -> None:
    assert expected == shown(cron(expression), "2026-01-01", len(expected))


def test_a_period_counts_real_time_whatever_clocks_do() -> None:
    hourly = every(timedelta(hours=6), start=datetime(2026, 3, 29, 1, tzinfo=ZoneInfo(PARIS)))

    assert ["03-29 00:00", "03-29 06:00"] == shown(hourly, "2026-01-01", 2)
    assert ["03-29 06:00", "03-29 12:00"] == shown(hourly, "2026-03-29", 2)
    assert ["01-01 00:05", "01-01 00:10"] == shown(every(timedelta(minutes=5)), "2026-01-01", 2)


def test_no_tick_comes_after_the_end() -> None:
    end = instant("2026-01-03")

    assert ["01-02 00:00", "01-03 00:00"] == shown(cron("@daily", until=end), "2026-01-01", 9)
    assert ["01-02 12:00", "01-03 00:00"] == shown(every(timedelta(hours=12), until=end), "2026-01-02", 9)


EXPRESSIONS = st.tuples(
    st.sampled_from(["*", "*/7", "0", "30", "15,45", "5-50/9"]),
    st.sampled_from(["*", "*/2", "0-4", "1,2,3", "2", "0", "23"]),
    st.sampled_from(["*", "1-15", "L"]),
    st.just("*"),
    st.sampled_from(["*", "1-5", "SUN"]),
).map(" ".join)
ZONES = st.sampled_from(
    [
        "UTC",
        PARIS,
        NEW_YORK,
        LORD_HOWE,
        "America/Havana",
        "America/Santiago",
        "Africa/Casablanca",
        "Pacific/Apia",
    ]
)
NEAR_CHANGES = st.sampled_from(
    [
        "2026-03-08",
        "2026-03-29",
        "2026-04-04",
        "2026-09-05",
        "2026-10-03",
        "2026-10-25",
        "2026-11-01",
        "2011-12-30",
    ]
)


@settings(max_examples=50, deadline=None)
@given(EXPRESSIONS, ZONES, NEAR_CHANGES, st.integers(-86_400, 86_400), st.integers(0, 2 * 86_400))
def test_ticks_are_those_minutes_whose_wall_matches_and_the_same_backwards(
    expression: str, tz: str, near: str, seconds: int, length: int
) -> None:
    after = instant(near) + timedelta(seconds=seconds)
    before = after + timedelta(seconds=length)
    schedule = cron(expression, tz=tz)

    found = list(takewhile(lambda tick: tick < before, ticks(schedule, after)))

    assert sorted(set(found)) == found
    assert found == list(late(schedule, after, before, CATCH_UP_MOST).latest)
    minute, hour = expression.split()[:2]
    if minute.startswith("*") or hour.startswith("*"):
        assert _by_trying_each_minute(expression, tz, after, before) == found


def _by_trying_each_minute(expression: str, tz: str, after: datetime, before: datetime) -> list[datetime]:
    """Return what a clock on the wall would have a person do: at each minute, look, and compare."""
    minutes, hours, days, _, weekdays = expression.split()
    found: list[datetime] = []
    moment = after.replace(second=0) + timedelta(minutes=1)
    while moment < before:
        wall = moment.astimezone(ZoneInfo(tz))
        last_day = (wall + timedelta(days=1)).day == 1
        fits = (
            _fits(minutes, wall.minute, 59)
            and _fits(hours, wall.hour, 23)
            and (last_day if days == "L" else _fits(days, wall.day, 31))
            and _fits(weekdays, wall.isoweekday() % 7, 6)
        )
        # Where both days are said, either will do.
        if "*" not in (days, weekdays) and _fits(minutes, wall.minute, 59) and _fits(hours, wall.hour, 23):
            by_day = last_day if days == "L" else _fits(days, wall.day, 31)
            fits = by_day or _fits(weekdays, wall.isoweekday() % 7, 6)
        if fits:
            found.append(moment)
        moment += timedelta(minutes=1)
    return found


def _fits(field: str, value: int, greatest: int) -> bool:
    if field == "SUN":
        return value == 0
    wanted: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        low, _, high = (f"0-{greatest}" if span == "*" else span).partition("-")
        wanted.update(range(int(low), int(high or low) + 1, int(step or 1)))
    return value in wanted


def test_times_that_clocks_always_leap_over_are_refused_and_not_looked_for_without_end() -> None:
    never = Schedule(trigger=Cron("*/5 2 * 3 0L", PARIS))  # the last Sunday of March, when 2:00 is 3:00

    with pytest.raises(OptionError, match="clocks leap over each such time there"):
        cron("*/5 2 * 3 0L", tz=PARIS)

    with mock.patch.object(crontab, "change_between", wraps=zone.change_between) as changes:
        assert [] == list(ticks(never, instant("2026-01-01")))
        assert 0 == late(never, instant("2025-01-01"), instant("2026-01-01"), 1).number
    assert changes.call_count < 500
    assert ["03-29 01:00"] == shown(cron("5 2 * 3 0L", tz=PARIS), "2026-01-01", 1)


def test_a_year_of_seconds_is_counted_without_being_walked_through() -> None:
    start, end = instant("2025-01-01"), instant("2026-01-01")

    by_period = late(every(timedelta(seconds=1)), start, end, 2)
    by_cron = late(cron("* * * * * *", tz=PARIS), start, end, 2)
    kept = late(cron("* * * * * *", tz=PARIS), start, end, COUNT_LIMIT + 1)

    assert 365 * 86_400 - 1 == by_period.number
    assert COUNT_LIMIT == by_cron.number == 1000  # each took its time on the loop that keeps leases
    assert COUNT_LIMIT + 1 == kept.number == len(kept.latest)
    assert (
        [end - timedelta(seconds=2), end - timedelta(seconds=1)] == by_period.latest == list(by_cron.latest)
    )


def test_schedules_are_plain_values() -> None:
    made = cron("0 8 * * *", tz=PARIS, misfire="skip", overlap="queue_one", grace=timedelta(0))

    assert Cron("0 8 * * *", PARIS) == made.trigger
    assert (Misfire.SKIP, Overlap.QUEUE_ONE) == (made.misfire, made.overlap)
    assert Every(timedelta(hours=1)) == every(timedelta(hours=1)).trigger


def test_an_expression_longer_than_any_is_refused_before_it_is_read() -> None:
    with pytest.raises(OptionError, match="expected at most 1,000 characters"):
        cron(f"1-59/1 {'9' * 5000} * * *")


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("61 * * * *", "bad minute; expected five fields"),
        ("* * * *", "wrong number of fields"),
        ("0 0 30 2 *", "bad day-of-month; expected a day from 1 to 31 that at least one of its months has"),
        ("0 0 31 4,6,9,11 *", "bad day-of-month"),
        ("0 0 * * MON#6", "bad day-of-week"),
        ("@reboot", "one of @yearly"),
        ("", "expected five fields"),
        ("every day", "wrong number of fields"),
    ],
)
def test_an_expression_that_cannot_be_is_refused_in_words(expression: str, told: str) -> None:
    with pytest.raises(OptionError) as caught:
        cron(expression)

    assert f"cron({expression!r})" in str(caught.value)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("tz", "told"), [("Europe/Pari", "did you mean 'Europe/Paris'?"), ("/etc", "IANA"), ("", "IANA")]
)
def test_a_zone_that_is_none_is_refused(tz: str, told: str) -> None:
    with pytest.raises(OptionError, match=r"expected a name of the IANA database") as caught:
        cron("@daily", tz=tz)

    assert told in str(caught.value)


def test_a_machine_without_a_database_of_zones_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("zoneinfo.TZPATH", ())
    monkeypatch.setattr("zoneinfo.available_timezones", set)

    with pytest.raises(OptionError, match="pip install tzdata"):
        zone.zone_of("Mars/Olympus")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"misfire": "never"}, "misfire='never': expected one of 'skip', 'once', 'catch_up'"),
        ({"overlap": "no"}, "overlap='no': expected one of"),
        ({"catch_up": 0}, "catch_up=0: expected a whole number from 1 to 10,000"),
        ({"catch_up": 5}, "catch_up=5: goes with misfire='catch_up', and misfire is 'once'"),
        ({"grace": timedelta(seconds=-1)}, "grace: expected a timedelta from 0"),
        ({"until": datetime(2026, 1, 1)}, "has no time zone"),  # noqa: DTZ001
    ],
)
def test_a_policy_that_cannot_be_is_refused(options: dict[str, object], told: str) -> None:
    with pytest.raises(OptionError) as caught:
        cron("@daily", **options)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    assert told in str(caught.value)


def test_a_tick_is_on_time_for_a_minute_or_until_the_next_one_if_that_is_sooner() -> None:
    made = {
        2: (every(timedelta(seconds=2)), cron("*/2 * * * * *")),
        60: (every(timedelta(hours=1)), cron("* * * * *"), cron("30 0 8 * * *"), cron("0 0 29 2 *")),
        90: (every(timedelta(seconds=2), grace=timedelta(seconds=90)),),
    }

    for seconds, schedules in made.items():
        assert {timedelta(seconds=seconds)} == {schedule.grace for schedule in schedules}


@pytest.mark.parametrize("period", [timedelta(0), timedelta(milliseconds=999), timedelta(seconds=-5)])
def test_a_period_shorter_than_a_second_is_refused(period: timedelta) -> None:
    with pytest.raises(OptionError, match="every"):
        every(period)
