"""A retry policy: the waits it gives, whom it treats apart, and the numbers it refuses."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskharbor import OptionError, Retry
from taskharbor.retry import MAX_ATTEMPTS, RetryNumbers
from tests.fixtures.support import steady, untyped

LONGEST = timedelta(days=3650)

policies = st.builds(
    Retry,
    max_attempts=st.integers(1, MAX_ATTEMPTS),
    base=st.timedeltas(timedelta(0), LONGEST),
    factor=st.floats(1.0, 1000.0),
    cap=st.timedeltas(timedelta(0), LONGEST),
    jitter=st.booleans(),
)
attempts = st.integers(1, MAX_ATTEMPTS)
draws = st.floats(0, 1, exclude_max=True)


@steady
@given(policies, attempts, draws)
def test_a_wait_is_never_negative_and_never_beyond_the_cap(policy: Retry, attempt: int, draw: float) -> None:
    wait = policy.numbers().backoff(attempt, draw=draw)

    assert timedelta(0) <= wait <= policy.cap


@steady
@given(policies, attempts)
def test_a_wait_drawn_by_chance_is_within_bounds_too(policy: Retry, attempt: int) -> None:
    assert timedelta(0) <= policy.numbers().backoff(attempt) <= policy.cap


@steady
@given(policies, st.integers(1, MAX_ATTEMPTS - 1), draws)
def test_the_ceiling_never_falls_from_one_attempt_to_the_next(
    policy: Retry, attempt: int, draw: float
) -> None:
    numbers = policy.numbers()

    assert numbers.backoff(attempt, draw=draw) <= numbers.backoff(attempt + 1, draw=draw)


@steady
@given(st.integers(1, 40))
def test_without_jitter_the_wait_is_the_ceiling(attempt: int) -> None:
    numbers = Retry(base=timedelta(seconds=3), cap=timedelta(days=1), jitter=False).numbers()

    expected = min(timedelta(days=1), timedelta(seconds=3 * 2.0 ** (attempt - 1)))

    assert expected == numbers.backoff(attempt)


@steady
@given(attempts, draws)
def test_with_jitter_the_wait_is_the_drawn_part_of_the_ceiling(attempt: int, draw: float) -> None:
    numbers = Retry(base=timedelta(seconds=8), factor=1.0).numbers()

    assert timedelta(seconds=8 * draw) == numbers.backoff(attempt, draw=draw)


def test_jitter_uses_the_whole_range_evenly() -> None:
    numbers = Retry(base=timedelta(seconds=1), factor=1.0).numbers()
    random.seed(7)

    waits = [numbers.backoff(1).total_seconds() for _ in range(4000)]

    assert min(waits) < 0.01
    assert max(waits) > 0.99
    assert 0.48 < sum(waits) / len(waits) < 0.52


def test_growth_beyond_all_floats_ends_at_the_cap() -> None:
    numbers = Retry(
        max_attempts=MAX_ATTEMPTS, base=timedelta(microseconds=1), factor=1000.0, jitter=False
    ).numbers()

    assert timedelta(hours=1) == numbers.backoff(MAX_ATTEMPTS)


@steady
@given(attempts)
def test_a_base_of_zero_means_no_wait_however_many_attempts(attempt: int) -> None:
    numbers = Retry(base=timedelta(0), jitter=False).numbers()

    assert timedelta(0) == numbers.backoff(attempt)


def test_an_attempt_before_the_first_waits_like_the_first() -> None:
    numbers = Retry(jitter=False).numbers()

    assert numbers.backoff(1) == numbers.backoff(0)


def test_the_policy_of_the_nearest_class_in_the_mro_wins() -> None:
    lookup, key = Retry(max_attempts=2), Retry(max_attempts=3)
    policy = Retry(on={LookupError: lookup, KeyError: key, Exception: Retry.never})

    assert key is policy.policy_for(KeyError())
    assert lookup is policy.policy_for(IndexError())
    assert Retry.never is policy.policy_for(ValueError())
    assert policy.policy_for(KeyboardInterrupt()) is None


def test_with_two_bases_the_mro_decides_and_not_the_order_of_the_mapping() -> None:
    class Both(ConnectionError, ValueError): ...

    first, second = Retry(max_attempts=2), Retry(max_attempts=3)
    policy = Retry(on={ValueError: second, OSError: first})

    assert first is policy.policy_for(Both())


def test_without_on_no_policy_applies() -> None:
    assert Retry().policy_for(ValueError()) is None


def test_never_is_one_attempt() -> None:
    assert 1 == Retry.never.max_attempts


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_attempts": 0},
        {"max_attempts": -1},
        {"max_attempts": MAX_ATTEMPTS + 1},
        {"max_attempts": 2.5},
        {"max_attempts": "5"},
        {"max_attempts": None},
        {"max_attempts": True},
        {"base": timedelta(microseconds=-1)},
        {"base": LONGEST + timedelta(microseconds=1)},
        {"base": 1.5},
        {"base": None},
        {"cap": timedelta(-1)},
        {"cap": timedelta.max},
        {"cap": 3600},
        {"factor": 0.99},
        {"factor": -2.0},
        {"factor": 1000.1},
        {"factor": float("inf")},
        {"factor": float("nan")},
        {"factor": "2"},
        {"factor": True},
        {"factor": None},
        {"jitter": "yes"},
        {"jitter": None},
        {"on": {"ValueError": Retry()}},
        {"on": {int: Retry()}},
        {"on": {ValueError: 3}},
        {"on": {ValueError: None}},
        {"on": {ValueError: Retry(on={OSError: Retry()})}},
        {"on": [ValueError]},
        {"on": None},
    ],
    ids=str,
)
def test_a_number_that_cannot_be_is_refused_by_name(wrong: dict[str, Any]) -> None:
    (name,) = wrong

    with pytest.raises(OptionError, match=rf"Retry\({name}="):
        Retry(**wrong)


@pytest.mark.parametrize(
    "right",
    [
        {"max_attempts": 1},
        {"max_attempts": MAX_ATTEMPTS},
        {"base": timedelta(0)},
        {"cap": timedelta(0)},
        {"base": LONGEST, "cap": LONGEST},
        {"factor": 1},
        {"factor": 1000.0},
        {"on": {BaseException: Retry.never}},
    ],
    ids=str,
)
def test_a_number_at_the_edge_of_its_range_is_accepted(right: dict[str, Any]) -> None:
    assert isinstance(Retry(**right), Retry)


def test_the_text_for_a_wrong_max_attempts_says_that_it_counts_all_attempts() -> None:
    with pytest.raises(
        OptionError, match=r"expected 1 to 32000; it counts all attempts, so 1 means no retry"
    ):
        Retry(max_attempts=0)


def test_a_policy_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        untyped(Retry()).max_attempts = 9


@steady
@given(policies)
def test_the_numbers_of_a_policy_cross_the_wire(policy: Retry) -> None:
    numbers = policy.numbers()

    assert numbers == msgspec.json.decode(msgspec.json.encode(numbers), type=RetryNumbers)
