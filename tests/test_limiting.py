"""The shared decision on limits and turns (`taskharbor.driver.limiting`), by itself: no store, no clock."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from taskharbor.driver.limiting import (
    LOOK_AGAIN_MICROS,
    Candidate,
    Gates,
    Line,
    Quota,
    Rules,
    Waiting,
    allot,
    in_turn,
    interval,
    queues_in_turn,
)
from taskharbor.limit import LimitTerms, RateTerms, Scope, ScopeKind

NOW = 1_800_000_000_000_000
SECOND = 1_000_000
TASK, KEYS = Scope(ScopeKind.TASK, "send"), Scope(ScopeKind.KEYS, "send")
RATE = RateTerms(10, timedelta(seconds=1), burst=3)


def key(name: str) -> Scope:
    return Scope(ScopeKind.KEY, "send", name)


def line(partition: str, queue: str = "q", priority: int = 5) -> Line:
    return Line(queue, priority, "send", partition)


def waiting(
    partition: str, count: int, *, more: bool = False, guarded: int = -1, queue: str = "q"
) -> Waiting:
    jobs = [Candidate(f"{partition}{number}", guarded=number == guarded) for number in range(count)]
    return Waiting(line(partition, queue), jobs, more)


def quota(limit: int = 100, *, guarded: int = 100, solo: int = 1, partitioned: int = 100) -> Quota:
    return Quota(limit, {"q": limit, "r": limit}, guarded, solo, partitioned)


def gates(*terms: tuple[Scope, LimitTerms], held: tuple[Scope, ...] = (), **running: int) -> Gates:
    rules = Rules(dict(terms), dict.fromkeys(held, "why"))
    return Gates(rules, {("q", "send", name): count for name, count in running.items()}, {}, NOW)


def test_lines_take_turns_job_by_job() -> None:
    found = allot([waiting("a", 5), waiting("b", 2), waiting("c", 1)], gates(), quota(6))
    assert found.jobs == [["a0", "a1", "a2"], ["b0", "b1"], ["c0"]]
    assert found.last == {("q", 5): ("send", "a", 0)}
    assert found.wait == 0, "the limit ended it"


def test_a_line_has_the_least_room_of_its_gates() -> None:
    found = allot(
        [waiting("a", 5), waiting("b", 5)],
        gates((TASK, LimitTerms(6)), (KEYS, LimitTerms(3)), (key("a"), LimitTerms(5)), a=2, b=1),
        quota(),
    )
    assert [len(jobs) for jobs in found.jobs] == [2, 1], "three more of the task: a, b, a"
    assert found.wait == LOOK_AGAIN_MICROS


def test_each_of_the_two_numbers_of_one_key_goes_before_that_of_all_keys() -> None:
    rules = gates((KEYS, LimitTerms(1, RATE)), (key("a"), LimitTerms(max_running=7)))
    assert rules.room(line("a")) == RATE.burst, "its own number, and the rate of all"
    assert rules.room(line("b")) == 1


def test_what_is_held_back_gives_nothing_and_waits_for_a_wake() -> None:
    for held in (TASK, key("a")):
        found = allot([waiting("a", 2)], gates(held=(held,)), quota())
        assert (found.jobs, found.wait) == ([[]], None)
    assert gates(held=(key("a"),)).room(line("b")) > 0


def test_a_guarded_job_holds_up_its_own_line_only() -> None:
    asked = quota(guarded=0)
    found = allot([waiting("a", 3, guarded=1), waiting("b", 3)], gates(), asked)
    assert found.jobs == [["a0"], ["b0", "b1", "b2"]]
    assert asked.held_back


def test_a_solo_job_is_waited_for_silently() -> None:
    asked = quota(solo=0)
    solo = Waiting(line("a"), [Candidate("a0", guarded=True, solo=True), Candidate("a1")])
    found = allot([solo, waiting("b", 1)], gates(), asked)
    assert found.jobs == [[], ["b0"]]
    assert not asked.held_back


def test_who_has_more_is_asked_for_more() -> None:
    assert allot([waiting("a", 2, more=True)], gates(), quota()).hungry
    assert not allot([waiting("a", 2, more=True)], gates(), quota(2)).hungry
    assert not allot([waiting("a", 2)], gates(), quota()).hungry


def test_slots_bound_what_is_taken_of_lines() -> None:
    assert sum(map(len, allot([waiting("a", 9)], gates(), quota(partitioned=4)).jobs)) == 4


def test_lines_go_on_after_the_one_served_last() -> None:
    lines = [line(name) for name in "cab"]
    assert [one.partition for one in in_turn(lines, ("send", "a", 0))] == ["b", "c", "a"]
    assert [one.partition for one in in_turn(lines, None)] == ["a", "b", "c"]
    assert {tuple(queues_in_turn(["q", "r"], token)) for token in range(8)} == {("q", "r"), ("r", "q")}


def test_a_clock_that_was_set_back_shuts_a_gate_no_longer_than_its_burst_takes() -> None:
    rules = Rules({TASK: LimitTerms(rate=RATE)}, {})
    late = Gates(rules, {}, {TASK: NOW + 3600 * SECOND}, NOW)
    assert late.room(line("a")) == 0
    assert late.wait(line("a")) == interval(RATE)


@given(
    limit=st.integers(1, 50),
    burst=st.integers(1, 20),
    steps=st.lists(st.tuples(st.integers(0, 300_000), st.integers(1, 30)), max_size=60),
)
def test_in_no_span_of_time_more_than_the_burst_and_the_rate(
    limit: int, burst: int, steps: list[tuple[int, int]]
) -> None:
    rate = RateTerms(limit, timedelta(seconds=1), burst)
    rules = Rules({KEYS: LimitTerms(rate=rate)}, {})
    arrivals: dict[Scope, int] = {}
    now, taken = NOW, Counter[int]()
    for pause, wanted in steps:
        now += pause
        at = Gates(rules, {}, arrivals, now)
        found = allot([waiting("a", wanted)], at, quota())
        count = len(found.jobs[0])
        arrivals = arrivals | at.changed
        if count < wanted:
            assert found.wait is not None
            assert found.wait > 0
            assert Gates(rules, {}, arrivals, now + found.wait).room(line("a")) == 1, "neither early nor late"
            assert Gates(rules, {}, arrivals, now + found.wait - 1).room(line("a")) == 0
        taken[now] += count
    moments = sorted(taken)
    for number, first in enumerate(moments):
        jobs = 0
        for last in moments[number:]:
            jobs += taken[last]
            assert jobs <= burst + (last - first) * limit / SECOND
