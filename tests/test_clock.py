"""Time as a thing that can be handed in."""

from __future__ import annotations

import threading
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskharbor import OptionError
from taskharbor.clock import (
    EPOCH,
    ManualClock,
    SystemClock,
    aware,
    duration_micros,
    from_micros,
    micros,
    told_roughly,
)
from tests.fixtures.support import steady, untyped

instants = st.datetimes(
    min_value=datetime(1900, 1, 2),  # noqa: DTZ001 - made aware by the strategy
    max_value=datetime(2999, 1, 1),  # noqa: DTZ001
    timezones=st.timezones(),
)


def test_the_systems_clock_gives_the_present_in_utc() -> None:
    before = datetime.now(UTC)

    now = SystemClock().now()

    assert before <= now <= datetime.now(UTC)
    assert now.tzinfo is UTC


def test_the_systems_clock_never_calls_back() -> None:
    called: list[None] = []

    SystemClock().on_turn(lambda: called.append(None))

    assert [] == called


def test_a_manual_clock_stands_still_until_it_is_turned() -> None:
    clock = ManualClock()

    assert clock.now() == clock.now()


def test_turning_a_clock_moves_it_and_tells_the_new_instant() -> None:
    clock = ManualClock(datetime(2030, 1, 1, tzinfo=UTC))

    told = clock.advance(timedelta(hours=1))

    assert datetime(2030, 1, 1, 1, tzinfo=UTC) == told == clock.now()


def test_a_clock_can_be_turned_back() -> None:
    clock = ManualClock()

    assert clock.now() - timedelta(seconds=5) == clock.advance(timedelta(seconds=-5))


def test_everyone_who_asked_is_called_at_each_turn_and_sees_the_new_time() -> None:
    clock = ManualClock()
    seen: list[tuple[str, datetime]] = []
    clock.on_turn(lambda: seen.append(("one", clock.now())))
    clock.on_turn(lambda: seen.append(("two", clock.now())))

    first = clock.advance(timedelta(1))
    second = clock.advance(timedelta(1))

    assert [("one", first), ("two", first), ("one", second), ("two", second)] == seen


def test_a_callback_may_ask_for_more_callbacks() -> None:
    clock = ManualClock()
    seen: list[str] = []
    clock.on_turn(lambda: clock.on_turn(lambda: seen.append("inner")))

    clock.advance(timedelta(1))
    clock.advance(timedelta(1))

    assert ["inner"] == seen


def test_turns_from_many_threads_all_count() -> None:
    clock = ManualClock()
    start = clock.now()

    def turn() -> None:
        for _ in range(200):
            clock.advance(timedelta(seconds=1))

    threads = [threading.Thread(target=turn) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert timedelta(seconds=800) == clock.now() - start


def test_a_clock_does_not_start_at_an_instant_without_a_zone() -> None:
    with pytest.raises(OptionError, match="start="):
        ManualClock(datetime(2030, 1, 1))  # noqa: DTZ001 - that is the mistake


def test_a_naive_datetime_is_refused_with_what_to_write_instead() -> None:
    with pytest.raises(
        OptionError, match=r"run_at=2030-01-01T00:00:00 has no time zone.*datetime.now\(UTC\)"
    ):
        aware(datetime(2030, 1, 1), "run_at")  # noqa: DTZ001


@pytest.mark.parametrize("wrong", ["2030-01-01", date(2030, 1, 1), 5.0, None], ids=str)
def test_what_is_no_datetime_is_refused(wrong: object) -> None:
    with pytest.raises(OptionError, match="run_at="):
        aware(untyped(wrong), "run_at")


@pytest.mark.parametrize(
    "edge",
    [
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=12))),
    ],
    ids=str,
)
def test_an_instant_beyond_what_utc_can_hold_is_refused(edge: datetime) -> None:
    with pytest.raises(OptionError, match="run_at="):
        aware(edge, "run_at")


@steady
@given(instants)
def test_an_aware_datetime_is_the_same_instant_in_utc(moment: datetime) -> None:
    there = aware(moment, "x")

    assert UTC is there.tzinfo
    assert moment.timestamp() == there.timestamp()


@steady
@given(instants)
def test_microseconds_of_an_instant_lead_back_to_it_exactly(moment: datetime) -> None:
    there = moment.astimezone(UTC)

    assert there == from_micros(micros(there))


@steady
@given(st.timedeltas())
def test_microseconds_of_a_duration_lead_back_to_it_exactly(duration: timedelta) -> None:
    assert duration == timedelta(microseconds=duration_micros(duration))


def test_the_epoch_is_zero() -> None:
    assert 0 == micros(EPOCH)
    assert -1 == micros(EPOCH - timedelta(microseconds=1))


def test_a_clock_is_turned_by_durations_alone() -> None:
    with pytest.raises(TypeError, match="expected a timedelta"):
        ManualClock().advance(3600)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_a_duration_that_was_drawn_is_told_without_its_microseconds() -> None:
    told = [told_roughly(timedelta(seconds=s)) for s in (0, 0.000_2, 0.004_919, 1, 9.999_6, 90.4, 3600)]

    assert ["0s", "1ms", "5ms", "1s", "10s", "1m30s", "1h"] == told
