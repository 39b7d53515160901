"""Durations, sizes, instants and lists as they are written on a command line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from taskharbor.cli.values import duration, instant, listed, pairs, size, told_duration, told_size
from tests.fixtures.support import steady


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("30s", timedelta(seconds=30)),
        ("5m", timedelta(minutes=5)),
        ("1h30m", timedelta(minutes=90)),
        ("500ms", timedelta(milliseconds=500)),
        ("1.5h", timedelta(minutes=90)),
        ("2d", timedelta(days=2)),
        ("1w1d", timedelta(days=8)),
        ("0s", timedelta(0)),
        ("7us", timedelta(microseconds=7)),
        (" 3s ", timedelta(seconds=3)),
    ],
)
def test_a_duration_is_numbers_with_units(text: str, meant: timedelta) -> None:
    assert meant == duration(text)


@pytest.mark.parametrize("text", ["", "s", "-1s", "1 s", "30m1h", "1s1s", "1y", "fast", "1e3s", "٣s", "."])
def test_what_is_no_duration_is_refused_with_what_is_one(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="write 30s, 5m, 1h30m or 500ms"):
        duration(text)


@pytest.mark.parametrize("text", ["30", "0", "1.5"])
def test_a_bare_number_is_refused_with_the_units_it_may_have_meant(text: str) -> None:
    with pytest.raises(
        typer.BadParameter, match=f"has no unit; write {text}s for seconds, {text}m for minutes"
    ):
        duration(text)


def test_a_duration_beyond_all_measure_is_refused() -> None:
    with pytest.raises(typer.BadParameter, match="longer than can be counted"):
        duration("9" * 400 + "w")


@steady
@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=3650)))
def test_a_duration_that_is_told_reads_as_the_same(length: timedelta) -> None:
    assert length == duration(told_duration(length))


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("512M", 512 << 20),
        ("2g", 2 << 30),
        ("1.5GiB", 3 << 29),
        ("10KB", 10240),
        ("1T", 1 << 40),
        ("77B", 77),
    ],
)
def test_a_size_is_a_number_with_a_unit_by_1024(text: str, meant: int) -> None:
    assert meant == size(text)


@pytest.mark.parametrize("text", ["512", "M", "-1M", "1X", ""])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match=r"write 512M or 1\.5G"):
        size(text)


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (0, "0B"),
        (1023, "1023B"),
        (1024, "1K"),
        (10 << 20, "10M"),
        (59_117_568, "56.4M"),
        (3 << 29, "1.5G"),
        (5 << 40, "5T"),
    ],
)
def test_a_size_is_told_as_it_is_written(count: int, told: str) -> None:
    assert told == told_size(count)


@given(st.integers(0, 1 << 60))
def test_a_size_that_is_told_reads_as_nearly_the_same(count: int) -> None:
    assert abs(size(told_size(count)) - count) <= max(1, count * 0.06)


def test_an_instant_has_a_zone() -> None:
    assert datetime(2030, 1, 31, 8, tzinfo=UTC) == instant("2030-01-31T08:00Z")
    assert datetime(2030, 1, 31, 8, tzinfo=timezone(timedelta(hours=2))) == instant("2030-01-31 08:00+02:00")


def test_an_instant_without_a_zone_is_refused() -> None:
    with pytest.raises(typer.BadParameter, match="has no zone; append Z"):
        instant("2030-01-31T08:00")


def test_what_is_no_instant_is_refused() -> None:
    with pytest.raises(typer.BadParameter, match="write ISO 8601 with a zone"):
        instant("tomorrow")


def test_names_come_with_commas_or_one_by_one() -> None:
    assert ["a", "b", "c"] == listed(["a, b", "c", ","])
    assert [] == listed(None)


def test_pairs_are_divided_at_the_first_equals_sign() -> None:
    assert {"a": "1=2", "b": ""} == pairs(["a=1=2", "b="])


@pytest.mark.parametrize(
    ("given", "why"), [(["a"], "expected name=value"), (["=1"], "expected"), (["a=1", "a=2"], "twice")]
)
def test_what_is_no_pair_is_refused(given: list[str], why: str) -> None:
    with pytest.raises(typer.BadParameter, match=why):
        pairs(given)
