"""What becomes of each tick: misfires, overlaps and limits, as a table, and by what must hold always."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskharbor import every
from taskharbor.driver import DueSchedule, Firing
from taskharbor.job import NewJob
from taskharbor.schedule import (
    CATCH_UP_LIMIT,
    SCHEDULE_META,
    TICK_META,
    Misfire,
    Overlap,
    Schedule,
    ScheduleRecord,
)
from taskharbor.scheduling import plan, tick_id, ticks

START = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
TEMPLATE = NewJob(id="", task="report", payload=b"{}", codec="json", fingerprint=1, meta={"mine": "kept"})


def at(minutes: float) -> datetime:
    return START + minutes * MINUTE


def record(
    schedule: Schedule, *, next_at: datetime | None, waiting: datetime | None = None
) -> ScheduleRecord:
    """Return a schedule that was last looked at, or declared, at START."""
    return ScheduleRecord(
        name="shop/report",
        application="shop",
        schedule=schedule,
        job=TEMPLATE,
        revision=7,
        created_at=START,
        after=START,
        next_at=next_at,
        waiting_tick=waiting,
    )


def fired(firing: Firing) -> list[float]:
    """Return the ticks that have jobs, in minutes."""
    return [(job.run_at - START) / MINUTE for job in firing.jobs if job.run_at is not None]


class Case(NamedTuple):
    """One look at a schedule of each minute, whose ticks are on time for 90 seconds."""

    misfire: Misfire
    now: float
    jobs: list[float]
    missed: int = 0
    overlap: Overlap = Overlap.ALLOW
    busy: bool = False
    waiting: float | None = None
    overlapped: int = 0
    kept: float | None = None


SKIP, ONCE, CATCH_UP = Misfire.SKIP, Misfire.ONCE, Misfire.CATCH_UP
CASES = {
    "on time": Case(ONCE, 1, [1]),
    "a little late": Case(SKIP, 2.4, [1, 2]),
    "late ones are let go": Case(SKIP, 10, [9, 10], missed=8),
    "one stands for the late": Case(ONCE, 10, [8, 9, 10], missed=7),
    "the latest are caught up with": Case(CATCH_UP, 10, [6, 7, 8, 9, 10], missed=5),
    "all are caught up with": Case(CATCH_UP, 4, [1, 2, 3, 4]),
    "busy is no matter": Case(ONCE, 1, [1], busy=True),
    "busy lets go": Case(ONCE, 2, [], overlap=Overlap.SKIP, busy=True, overlapped=2),
    "the first makes the others overlap": Case(ONCE, 2, [1], overlap=Overlap.SKIP, overlapped=1),
    "missed and overlapped": Case(SKIP, 10, [9], missed=8, overlap=Overlap.SKIP, overlapped=1),
    "busy keeps the latest": Case(ONCE, 2, [], overlap=Overlap.QUEUE_ONE, busy=True, overlapped=1, kept=2),
    "busy replaces what waits": Case(
        ONCE, 1, [], overlap=Overlap.QUEUE_ONE, busy=True, waiting=-5, overlapped=1, kept=1
    ),
    "what waits comes first": Case(ONCE, 0.5, [-5], overlap=Overlap.QUEUE_ONE, waiting=-5),
    "and the next waits for it": Case(ONCE, 1, [-5], overlap=Overlap.QUEUE_ONE, waiting=-5, kept=1),
    "one runs and one waits": Case(ONCE, 2, [1], overlap=Overlap.QUEUE_ONE, kept=2),
    "what waited under another policy": Case(ONCE, 1, [-5, 1], waiting=-5),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_becomes_of_ticks(case: Case) -> None:
    catch_up = 3 if case.misfire is Misfire.CATCH_UP else None
    schedule = every(
        MINUTE, misfire=case.misfire, catch_up=catch_up, grace=1.5 * MINUTE, overlap=case.overlap
    )
    waiting = None if case.waiting is None else at(case.waiting)
    due = DueSchedule(record=record(schedule, next_at=at(1), waiting=waiting), busy=case.busy)

    firing = plan(due, at(case.now))

    assert (case.jobs, case.missed, case.overlapped) == (fired(firing), firing.missed, firing.overlapped)
    assert (None if case.kept is None else at(case.kept)) == firing.waiting_tick
    assert (at(case.now), at(int(case.now) + 1), False) == (firing.after, firing.next_at, firing.ended)
    assert (at(case.jobs[-1]) if case.jobs else None) == firing.last_tick
    assert ("shop/report", 7) == (firing.name, firing.revision)


def test_the_first_look_only_learns_the_next_tick() -> None:
    due = DueSchedule(record=record(every(MINUTE), next_at=None), busy=False)

    firing = plan(due, at(30))

    assert ([], START, at(1), 0) == (list(firing.jobs), firing.after, firing.next_at, firing.missed)


def test_the_job_of_a_tick_is_the_template_with_the_tick_in_it() -> None:
    due = DueSchedule(record=record(every(MINUTE), next_at=at(1)), busy=False)

    (job,) = plan(due, at(1)).jobs

    meta = {"mine": "kept", SCHEDULE_META: "shop/report", TICK_META: "2026-01-01T00:01:00+00:00"}
    id_ = tick_id("shop/report", at(1))
    assert msgspec.structs.replace(TEMPLATE, id=id_, run_at=at(1), meta=meta) == job


def test_a_tick_has_one_id_for_ever_and_no_other_tick_has_it() -> None:
    assert tick_id("shop/report", at(1)) == tick_id("shop/report", at(1))
    many = {tick_id(name, at(minute / 1000)) for name in ("a", "b", "a/b") for minute in range(500)}
    assert 1500 == len(many)
    shape = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
    assert all(shape.fullmatch(one) for one in many)
    assert tick_id("z", at(1)) < tick_id("a", at(2))


def test_the_last_tick_ends_it() -> None:
    schedule = every(MINUTE, until=at(2))

    before = plan(DueSchedule(record=record(schedule, next_at=at(1)), busy=False), at(1))
    last = plan(DueSchedule(record=record(schedule, next_at=at(1)), busy=False), at(9))

    assert (at(2), False) == (before.next_at, before.ended)
    assert (None, True) == (last.next_at, last.ended)


def test_the_last_tick_may_wait_for_a_job_although_there_is_no_other() -> None:
    schedule = every(MINUTE, until=at(1), overlap=Overlap.QUEUE_ONE)

    kept = plan(DueSchedule(record=record(schedule, next_at=at(1)), busy=True), at(1))
    ended = msgspec.structs.replace(
        record(schedule, next_at=None, waiting=kept.waiting_tick), after=at(1), ended=kept.ended
    )
    then = plan(DueSchedule(record=ended, busy=False), at(5))

    assert (True, at(1), []) == (kept.ended, kept.waiting_tick, list(kept.jobs))
    assert ([1], True, None) == (fired(then), then.ended, then.waiting_tick)


def test_more_than_the_limit_is_left_for_the_next_looks() -> None:
    schedule = every(MINUTE, misfire="catch_up", catch_up=2 * CATCH_UP_LIMIT)
    now = at(3 * CATCH_UP_LIMIT)
    due = DueSchedule(record=record(schedule, next_at=at(1)), busy=False)
    found: list[float] = []
    missed = looks = 0

    while True:
        firing = plan(due, now)
        assert len(firing.jobs) <= CATCH_UP_LIMIT
        found += fired(firing)
        missed += firing.missed
        looks += 1
        if firing.next_at is None or firing.next_at > now:
            break
        moved = msgspec.structs.replace(due.record, after=firing.after, next_at=firing.next_at)
        due = DueSchedule(record=moved, busy=False)

    # The two last minutes are on time; two thousand late ones are caught up with.
    assert list(range(CATCH_UP_LIMIT - 1, 3 * CATCH_UP_LIMIT + 1)) == found
    assert (CATCH_UP_LIMIT - 2, 3) == (missed, looks)


def made(period: timedelta, misfire: Misfire, catch_up: int, **options: Any) -> Schedule:
    return every(
        period, misfire=misfire, catch_up=catch_up if misfire is Misfire.CATCH_UP else None, **options
    )


SCHEDULES = st.builds(
    made,
    st.integers(1, 600).map(lambda seconds: timedelta(seconds=seconds)),
    start=st.none() | st.integers(-600, 600).map(lambda seconds: START + timedelta(seconds=seconds)),
    misfire=st.sampled_from(Misfire),
    catch_up=st.integers(1, 20),
    grace=st.integers(0, 600).map(lambda seconds: timedelta(seconds=seconds)),
    overlap=st.sampled_from(Overlap),
    until=st.none() | st.integers(0, 7200).map(lambda seconds: START + timedelta(seconds=seconds)),
)
LOOKS = st.lists(st.tuples(st.integers(0, 1800), st.booleans()), min_size=1, max_size=8)


@settings(max_examples=50, deadline=None)
@given(SCHEDULES, LOOKS)
def test_whatever_the_policies_no_tick_has_two_jobs_none_is_early_and_counts_add_up(
    schedule: Schedule, looks: list[tuple[int, bool]]
) -> None:
    now = START
    seen = plan(DueSchedule(record=record(schedule, next_at=None), busy=False), now)
    state = msgspec.structs.replace(
        record(schedule, next_at=seen.next_at), after=seen.after or START, ended=seen.ended
    )
    jobs: list[NewJob] = []
    let_go = 0

    for wait, busy in looks:
        now += timedelta(seconds=wait)
        firing = plan(DueSchedule(record=state, busy=busy), now)
        jobs += firing.jobs
        let_go += firing.missed + firing.overlapped
        state = msgspec.structs.replace(
            state,
            after=firing.after or state.after,
            next_at=firing.next_at,
            ended=firing.ended,
            waiting_tick=firing.waiting_tick,
        )

    times = [job.run_at for job in jobs if job.run_at is not None]
    passed = list(takewhile(lambda tick: tick <= now, ticks(schedule, START)))
    waiting = [] if state.waiting_tick is None else [state.waiting_tick]
    assert sorted(set(times)) == times
    assert set(times) | set(waiting) <= set(passed)
    assert len({job.id for job in jobs}) == len(jobs)
    assert len(passed) == len(jobs) + let_go + len(waiting)
    assert state.next_at is None or state.next_at > now
    assert state.ended == (state.next_at is None)
