"""Who comes next, as pure arithmetic: shares by weight, the share of what has waited too long, reserved slots."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskharbor.errors import OptionError
from taskharbor.worker import WorkerSettings
from taskharbor.worker.shares import Aging, Shares
from taskharbor.worker.slots import Slots

NAMES = ("a", "b", "c", "d")
weights_of_some = st.dictionaries(st.sampled_from(NAMES), st.integers(1, 50), min_size=2)
limits = st.lists(st.integers(1, 200), min_size=1, max_size=60)


def rounds_off(weights: dict[str, int], taken: Counter[str]) -> float:
    """Return how many rounds (of as many jobs of each as its weight) some queue is off its share."""
    return max(
        abs(taken[name] / weight - taken.total() / sum(weights.values())) for name, weight in weights.items()
    )


@settings(deadline=None)
@given(weights_of_some, limits)
def test_what_is_taken_of_busy_queues_is_never_two_rounds_off_their_weights(
    weights: dict[str, int], limits: list[int]
) -> None:
    """However large or small the reserves are; and each gives all that was wanted."""
    shares, taken = Shares(weights), Counter[str]()

    for limit in limits:
        quotas = shares.quotas(limit)
        shares.took(quotas)
        taken += Counter(quotas)

        assert limit == sum(quotas.values())
        assert rounds_off(weights, taken) < 2


@settings(deadline=None)
@given(weights_of_some, limits)
def test_each_queue_can_be_asked_for_one_at_least(weights: dict[str, int], limits: list[int]) -> None:
    """However small the reserve and its share of it."""
    shares = Shares(weights)

    for limit in limits:
        quotas = shares.quotas(limit, each=1)

        assert set(weights) == set(quotas)
        assert all(1 <= quota <= limit for quota in quotas.values())
        shares.took(shares.quotas(limit))


@settings(deadline=None)
@given(weights_of_some, st.lists(st.integers(1, 200), min_size=30, max_size=60), st.data())
def test_a_queue_without_work_leaves_its_share_and_saves_none_up(
    weights: dict[str, int], limits: list[int], data: st.DataObject
) -> None:
    """The others share as if it were not there; once it has work again it gets its share, and no more."""
    idle = data.draw(st.sampled_from(sorted(weights)))
    others = {name: weight for name, weight in weights.items() if name != idle}
    shares, without, since = Shares(weights), Counter[str](), Counter[str]()

    for limit in limits:
        quotas = {name: quota for name, quota in shares.quotas(limit, empty={idle}).items() if name != idle}
        shares.took(quotas, empty={idle})
        without += Counter(quotas)
        assert limit == sum(quotas.values())
    for limit in limits:
        quotas = shares.quotas(limit)
        shares.took(quotas)
        since += Counter(quotas)

    assert rounds_off(others, without) < 2
    assert rounds_off(weights, since) < 4


@given(weights_of_some, st.integers(1, 300), st.data())
def test_quotas_keep_to_the_rooms_and_fill_them(
    weights: dict[str, int], limit: int, data: st.DataObject
) -> None:
    rooms = {name: data.draw(st.integers(0, 200)) for name in weights}

    quotas = Shares(weights).quotas(limit, rooms=rooms)

    assert all(0 < quota <= rooms[name] for name, quota in quotas.items())
    assert min(limit, sum(rooms.values())) == sum(quotas.values())


def test_a_queue_that_had_no_room_for_long_does_not_take_all_afterwards() -> None:
    shares = Shares({"mail": 1, "default": 1})
    for _ in range(1000):
        shares.took(shares.quotas(10, rooms={"mail": 0, "default": 10}))

    after = Counter[str]()
    for _ in range(10):
        quotas = shares.quotas(1)
        shares.took(quotas)
        after += Counter(quotas)

    assert after["default"] >= 4


def test_what_is_handed_back_unstarted_is_asked_again_of_its_queue() -> None:
    shares = Shares({"mail": 1, "default": 1})
    shares.took({"mail": 5, "default": 5})

    for _ in range(2):
        shares.gave_back("mail")

    assert {"mail": 3, "default": 1} == shares.quotas(4)


@settings(deadline=None)
@given(st.floats(0.001, 1), limits)
def test_aged_jobs_get_their_share_of_what_is_taken_and_not_one_more(share: float, limits: list[int]) -> None:
    """At any time, over reserves of any size."""
    aging, taken, aged = Aging(timedelta(minutes=5), share), 0, 0

    for limit in limits:
        take = aging.take(limit)
        aged += 0 if take is None else take.limit
        assert aged <= taken * share + 1e-6
        taken += limit
        aging.took(limit)

    assert aged >= taken * share - 1 - max(limits) * share - 1e-6


def test_reserves_of_one_job_are_aged_now_and_then() -> None:
    aging = Aging(timedelta(minutes=5), 0.1)
    asked = list[bool]()

    for _ in range(1000):
        asked.append(aging.take(1) is not None)
        aging.took(1)

    assert 99 == sum(asked)


def test_what_no_aged_job_came_for_is_not_saved_up() -> None:
    """A long time without any does not give them everything later."""
    aging = Aging(timedelta(minutes=5), 0.1)

    for _ in range(100):
        aging.take(100)
        aging.took(100)
    take = aging.take(100)

    assert take is not None
    assert 10 == take.limit


@given(
    st.integers(1, 20),
    st.dictionaries(st.sampled_from(NAMES), st.integers(1, 5)),
    st.lists(st.tuples(st.sampled_from(NAMES), st.booleans()), max_size=200),
)
def test_reserved_slots_are_never_taken_by_others_whatever_starts_and_ends(
    concurrency: int, reserved: dict[str, int], moves: list[tuple[str, bool]]
) -> None:
    while sum(reserved.values()) > concurrency:
        reserved.popitem()
    slots, running = Slots(concurrency, reserved), Counter[str]()

    for queue, starts in moves:
        if starts and slots.free_to(queue) > 0:
            slots.take(queue)
            running[queue] += 1
        elif not starts and running[queue]:
            slots.leave(queue)
            running[queue] -= 1
        for name, own in reserved.items():
            assert running.total() - running[name] <= concurrency - own
            assert slots.free_to(name) >= own - running[name]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"weights": {"mail": 0}}, "weights: 0 for queue 'mail': expected a whole number from 1 to 1000"),
        ({"weights": {"mail": True}}, "weights: True for queue 'mail'"),
        ({"weights": ["mail"]}, "expected a mapping of queue to number"),
        ({"queues": ["mail"], "weights": {"mial": 3}}, "'mial' is not served here (did you mean 'mail'?)"),
        ({"queues": ["mail"], "reserved": {"mial": 3}}, "'mial' is not served here (did you mean 'mail'?)"),
        (
            {"concurrency": 4, "reserved": {"mail": 5}},
            "expected a whole number from 1 to 4 (all slots there are)",
        ),
        ({"concurrency": 4, "reserved": {"mail": 3, "web": 2}}, "comes to 5 slots, and the worker has 4"),
        (
            {"concurrency": 4, "queues": ["mail", "default"], "reserved": {"mail": 4}},
            "leaves none of the 4 slots for default; reserve fewer, or raise concurrency",
        ),
        ({"aging": 300}, "aging=300: expected a timedelta of at least 1 ms, or None"),
        (
            {"aging": timedelta(minutes=5), "aging_share": 0},
            "aging_share=0: expected a number above 0 and at most 1",
        ),
        ({"aging_share": 0.5}, "aging_share=0.5: goes with aging, which was not given"),
    ],
)
def test_what_cannot_be_is_refused_with_what_was_expected(given: dict[str, object], why: str) -> None:
    with pytest.raises(OptionError) as refused:
        WorkerSettings(**given)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - what is wrong

    assert why in str(refused.value)


def test_a_queue_that_no_task_declares_is_refused_when_the_worker_learns_what_it_serves() -> None:
    with pytest.raises(OptionError, match=r"'mial' is not served here \(did you mean 'mail'\?\)"):
        WorkerSettings(weights={"mial": 3}).queues_served(["mail"])


def test_all_slots_may_be_reserved_where_each_queue_has_some() -> None:
    found = WorkerSettings(concurrency=3, queues=["a", "b"], reserved={"a": 1, "b": 2})

    assert {"a": 1, "b": 2} == found.reserved
