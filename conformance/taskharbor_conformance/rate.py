"""Rates: so many jobs in a time, spread evenly, and so many at once; by the store's clock alone."""

from __future__ import annotations

import bisect
from datetime import timedelta

from taskharbor.driver import Capability, HistoryPrune
from taskharbor.job import new_token
from taskharbor.limit import LimitTerms
from taskharbor_conformance.bench import (
    HOUR,
    NOW,
    SECOND,
    TASK,
    Bench,
    failure,
    new_job,
    release,
    stray,
    success,
)
from taskharbor_conformance.case import case
from taskharbor_conformance.scopes import (
    BOTH,
    OTHER,
    A,
    B,
    at_rate,
    clear_limits,
    declare,
    in_line,
    of_key,
    of_keys,
    of_queue,
    of_task,
    set_limit,
)

MICROSECOND = timedelta(microseconds=1)


async def _store(bench: Bench, count: int, **fields: str) -> list[str]:
    jobs = [
        new_job(task=fields.get("task", TASK), queue=fields.get("queue", "default")) for _ in range(count)
    ]
    await bench.enqueue_all(*jobs)
    return [job.id for job in jobs]


async def _taken(bench: Bench, *, after: timedelta = NOW) -> int:
    """Turn the clock, and return how many jobs are taken then."""
    bench.advance(after)
    return len(await bench.take(tasks=BOTH))


@case("4.24")
async def at_once_a_burst_and_then_one_at_a_time(bench: Bench) -> None:
    await set_limit(bench, of_task(), at_rate(1, SECOND, burst=3))
    ids = await _store(bench, 6)

    first = await bench.take_ids()
    early = await _taken(bench, after=SECOND - MICROSECOND)
    bench.advance(MICROSECOND)
    fourth = await bench.take_ids()
    none = await bench.take_ids()
    bench.advance(SECOND)

    assert (ids[:3], 0, ids[3:4], []) == (first, early, fourth, none)
    assert ids[4:5] == await bench.take_ids()


@case("4.24")
async def jobs_come_evenly_and_not_all_at_the_end_of_a_time(bench: Bench) -> None:
    await set_limit(bench, of_task(), at_rate(60, 60 * SECOND))
    await _store(bench, 20)

    taken = [await _taken(bench, after=SECOND / 4) for _ in range(20)]

    assert [1, 0, 0, 0] * 5 == taken


@case("4.24")
async def a_quiet_time_gathers_a_burst_and_no_more(bench: Bench) -> None:
    await set_limit(bench, of_task(), at_rate(1, SECOND, burst=3))
    await _store(bench, 20)
    await bench.take()

    after_two, after_hour = await _taken(bench, after=2 * SECOND), await _taken(bench, after=HOUR)

    assert (2, 3) == (after_two, after_hour)


@case("4.24")
async def a_rate_that_does_not_divide_evenly_is_never_exceeded(bench: Bench) -> None:
    await set_limit(bench, of_task(), at_rate(3, 10 * MICROSECOND))
    await _store(bench, 12)
    await bench.take()

    taken = [await _taken(bench, after=after * MICROSECOND) for after in (3, 1, 3, 1)]

    assert [0, 1, 0, 1] == taken, "four microseconds, where three would be too few"


@case("4.24")
async def a_great_rate_lets_through_what_is_its_share(bench: Bench) -> None:
    await set_limit(bench, of_task(), at_rate(1000, SECOND, burst=10))
    await _store(bench, 300)

    taken = [await _taken(bench), *[await _taken(bench, after=SECOND / 200) for _ in range(10)]]

    assert [10, *[5] * 10] == taken


@case("4.24")
async def each_key_has_its_own_rate(bench: Bench) -> None:
    await set_limit(bench, of_keys(), at_rate(1, SECOND))
    of_a, of_b = await in_line(bench, A, 3), await in_line(bench, B, 3)

    first = await bench.take_ids()
    bench.advance(SECOND)
    second = await bench.take_ids()

    assert ({of_a[0], of_b[0]}, {of_a[1], of_b[1]}) == (set(first), set(second))


@case("4.24")
async def one_keys_numbers_go_before_those_of_all_each_by_itself(bench: Bench) -> None:
    await set_limit(bench, of_keys(), at_rate(1, SECOND, max_running=2))
    await set_limit(bench, of_key(B), at_rate(5, SECOND, burst=5))
    await set_limit(bench, of_key(A), LimitTerms(max_running=1))
    of_a, of_b = await in_line(bench, A, 3), await in_line(bench, B, 6)

    first = await bench.take()
    a_ran = [one for one in first if one.id == of_a[0]]
    bench.advance(SECOND)
    full = await bench.take_ids()
    await bench.settle(*map(success, a_ran))

    assert {of_a[0], *of_b[:2]} == {one.id for one in first}, "its rate would have let five through"
    assert ([], of_a[1:2]) == (full, await bench.take_ids())


@case("4.24")
async def a_job_needs_the_rates_of_all_its_scopes(bench: Bench) -> None:
    await set_limit(bench, of_task(), at_rate(2, SECOND, burst=2))
    await set_limit(bench, of_keys(), at_rate(1, SECOND))
    for partition in (A, B):
        await in_line(bench, partition, 4)
    alone = await in_line(bench, "zeta", 1)

    first = await bench.take_ids()
    bench.advance(SECOND)
    second = await bench.take_ids()

    assert (2, 2) == (len(first), len(second))
    assert alone[0] in second, (
        "it was not served the first time: its turn comes before a second one of others"
    )


@case("4.24")
async def a_job_kept_back_by_one_limit_costs_nothing_of_another(bench: Bench) -> None:
    await set_limit(bench, of_task(), at_rate(1, HOUR, burst=2))
    await set_limit(bench, of_key(A), LimitTerms(max_running=0))
    await in_line(bench, A, 5)
    for _ in range(3):
        assert [] == await bench.take_ids()

    of_b = await in_line(bench, B, 3)

    assert of_b[:2] == await bench.take_ids()


@case("4.24")
async def a_queues_rate_is_on_all_its_jobs_and_on_no_other_queue(bench: Bench) -> None:
    await set_limit(bench, of_queue("mail"), at_rate(1, SECOND, burst=2))
    await _store(bench, 5, queue="mail")
    await in_line(bench, A, 5, queue="mail")
    await _store(bench, 3, queue="video")
    both = ["mail", "video"]

    first, none = await bench.take(queues=both), await bench.take(queues=both)
    bench.advance(SECOND)
    third = await bench.take(queues=both)

    by_queue = [sum(one.queue == name for one in first) for name in both]
    assert ([2, 3], [], 1) == (by_queue, none, len(third))


@case("4.24")
async def what_comes_back_needs_the_rate_anew(bench: Bench) -> None:
    await set_limit(bench, of_task(), at_rate(1, SECOND))
    ids = await _store(bench, 2)
    for end in (release, failure):
        await bench.settle(end(await bench.take_one()))
        assert [] == await bench.take_ids()
        bench.advance(SECOND)
    await bench.take_one()
    await bench.lose_workers()

    assert 1 == len(await bench.take_ids())
    assert [] == await bench.take_ids()
    assert len(ids) == len(await bench.find_ids())


@case("4.24", "4.2")
async def a_repeated_reserve_costs_nothing_of_a_rate(bench: Bench) -> None:
    await set_limit(bench, of_task(), at_rate(1, SECOND, burst=3))
    ids = await _store(bench, 5)
    token = new_token()

    first = await bench.take_ids(2, token=token)
    for _ in range(3):
        assert first == sorted(await bench.take_ids(2, token=token))

    assert ids[2:3] == await bench.take_ids()


@case("4.24", "4.16")
async def a_worker_that_does_not_know_the_task_keeps_the_rate_too(bench: Bench) -> None:
    await set_limit(bench, of_task(OTHER), at_rate(1, SECOND))
    ids = await _store(bench, 3, task=OTHER)
    met = await bench.take_one()
    await bench.settle(stray(met))
    nobody = await bench.take_ids(tasks=BOTH)
    bench.advance(SECOND)

    one = await bench.take_ids(tasks=BOTH)

    assert (ids[0], [], 1) == (met.id, nobody, len(one))


@case("4.24", "4.10")
async def how_long_a_rate_keeps_jobs_back_is_told(bench: Bench) -> None:
    await set_limit(bench, of_task(), at_rate(1, 10 * SECOND))
    await _store(bench, 3)
    await bench.take()
    bench.advance(4 * SECOND)

    told = (await bench.reserve()).next_due_in

    assert told is not None
    assert NOW < told <= 6 * SECOND


@case("4.24")
async def rates_of_queue_and_task_are_told_together(bench: Bench) -> None:
    await set_limit(bench, of_queue(), at_rate(1, 5 * SECOND))
    await set_limit(bench, of_task(), at_rate(1, 20 * SECOND))
    await _store(bench, 3)
    await bench.take()

    limited = (await bench.reserve()).next_due_in
    await bench.enqueue(task=OTHER, priority=9)
    other = (await bench.reserve(tasks=BOTH)).next_due_in

    assert limited is not None
    assert other is not None
    assert NOW < limited <= 20 * SECOND
    assert NOW < other <= 5 * SECOND


@case("4.24")
async def other_numbers_are_in_force_at_once(bench: Bench) -> None:
    await set_limit(bench, of_task(), at_rate(1, HOUR, burst=2))
    await _store(bench, 12)
    await bench.take()
    assert [] == await bench.take(), "and whoever finds nothing may look less closely the next time"

    await set_limit(bench, of_task(), at_rate(1, SECOND, burst=2))
    gained = await _taken(bench)
    after = [await _taken(bench, after=SECOND) for _ in range(4)]

    assert 0 == gained, "other numbers do not give a burst anew"
    assert sum(after) >= 2, "it does not wait for an hour that was said before"
    assert all(count <= 2 for count in after)
    assert sum(after) <= 5


@case("4.24")
async def declaring_the_same_rate_again_gives_no_burst_anew(bench: Bench) -> None:
    await declare(bench, {of_task(): at_rate(1, HOUR, burst=2)})
    await _store(bench, 5)
    first = await _taken(bench)

    await declare(bench, {of_task(): at_rate(1, HOUR, burst=2)})

    assert (2, 0) == (first, await _taken(bench))


@case("4.24")
async def a_rate_that_is_taken_back_holds_nothing_up(bench: Bench) -> None:
    await set_limit(bench, of_task(), at_rate(1, HOUR))
    ids = await _store(bench, 4)
    first = await bench.take_ids()

    await clear_limits(bench, of_task())

    assert (ids[:1], ids[1:]) == (first, await bench.take_ids())


@case("4.24")
async def a_rate_that_is_set_anew_begins_with_its_whole_burst(bench: Bench) -> None:
    await set_limit(bench, of_task(), at_rate(1, HOUR, burst=2))
    await _store(bench, 6)
    await bench.take()
    await clear_limits(bench, of_task())

    await set_limit(bench, of_task(), at_rate(1, HOUR, burst=2))

    assert [2, 0] == [await _taken(bench), await _taken(bench)]


@case("4.24", "4.18")
async def a_clock_that_is_set_back_holds_a_rate_up_for_no_longer_than_its_burst(bench: Bench) -> None:
    await set_limit(bench, of_task(), at_rate(1, SECOND, burst=3))
    await _store(bench, 3)
    await bench.take()
    assert [] == await bench.take()
    bench.advance(-HOUR)
    await _store(bench, 10)

    taken = [await _taken(bench, after=SECOND) for _ in range(5)]

    assert sum(taken) >= 3
    assert all(count <= 3 for count in taken)


@case("4.24", "4.17")
async def pruning_forgets_no_rate_that_is_in_use(bench: Bench) -> None:
    await set_limit(bench, of_keys(), at_rate(1, HOUR, burst=2))
    await in_line(bench, A, 5)
    await bench.take()
    bench.advance(SECOND)

    await bench.store.history_prune(HistoryPrune(now=bench.now))
    shut = await bench.take_ids()
    bench.advance(HOUR)

    assert ([], 1) == (shut, len(await bench.take_ids()))


@case("4.24", needs=Capability.SHARED)
async def all_drivers_of_a_place_share_a_rate(bench: Bench) -> None:
    await set_limit(bench, of_task(), at_rate(1, SECOND, burst=4))
    await _store(bench, 20)
    async with bench.beside(bench.open_driver()) as other:
        taken = [len(await one.take(1)) for one in (bench, other) * 4]
        bench.advance(2 * SECOND)
        later = len(await other.take(1)), len(await bench.take())

    assert ([1, 1, 1, 1, 0, 0, 0, 0], (1, 1)) == (taken, later)


@case("4.24")
async def in_no_span_of_time_are_more_taken_than_the_rate_allows(bench: Bench) -> None:
    limit, per, burst = 7, 2 * SECOND, 4
    await set_limit(bench, of_keys(), at_rate(limit, per, burst=burst))
    await set_limit(bench, of_task(), at_rate(2 * limit - 3, per, burst=burst + 1))
    for partition in (A, B):
        await bench.enqueue_all(*(new_job(partition=partition) for _ in range(60)))
    starts: dict[str, list[timedelta]] = {A: [], B: [], "": []}
    since = bench.now
    partitions = {}
    for record in await bench.get(*await bench.find_ids()):
        assert record is not None
        partitions[record.id] = record.partition or ""
    for step in range(80):
        bench.advance(timedelta(milliseconds=(step * 37) % 230))
        deliveries = await bench.take(1 + step % 5)
        await bench.settle(*map(success, deliveries))
        for one in deliveries:
            starts[partitions[one.id]].append(bench.now - since)
            starts[""].append(bench.now - since)

    _within(starts[A], limit / per.total_seconds(), burst)
    _within(starts[B], limit / per.total_seconds(), burst)
    _within(starts[""], (2 * limit - 3) / per.total_seconds(), burst + 1)
    spent = (bench.now - since).total_seconds()
    assert len(starts[""]) >= spent * (2 * limit - 3) / per.total_seconds() - 5, "nor much less"


def _within(starts: list[timedelta], each_second: float, burst: int) -> None:
    """Look at the span from each start to each later one."""
    for place, first in enumerate(starts):
        for last in starts[place:]:
            count = bisect.bisect_right(starts, last) - bisect.bisect_left(starts, first)
            assert count <= burst + (last - first).total_seconds() * each_second + 1e-6
