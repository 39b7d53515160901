"""Turns: lines of one priority are served job by job, in turn, and share reserves with the plain lanes."""

from __future__ import annotations

from collections import Counter

from taskharbor.driver import AgedTake, Capability
from taskharbor.job import new_token
from taskharbor.retry import RetryNumbers
from taskharbor_conformance.bench import (
    HOUR,
    NOW,
    SECOND,
    Bench,
    failure,
    new_job,
    release,
    snooze,
    stray,
    success,
)
from taskharbor_conformance.case import case
from taskharbor_conformance.scopes import (
    BOTH,
    OTHER,
    A,
    B,
    C,
    at_most,
    in_line,
    of_keys,
    set_limit,
    token,
)

ONCE = RetryNumbers(max_attempts=1)
"""Of a job that is guarded from the beginning."""


async def _one_by_one(bench: Bench, count: int) -> list[str]:
    """Take so many jobs in so many reserves."""
    return [(await bench.take_one(tasks=BOTH)).id for _ in range(count)]


# --- turns


@case("4.25")
async def lines_take_turns_from_reserve_to_reserve(bench: Bench) -> None:
    of_a, of_b, of_c = await in_line(bench, A, 4), await in_line(bench, B, 2), await in_line(bench, C, 1)

    assert [of_a[0], of_b[0], of_c[0], of_a[1], of_b[1], of_a[2], of_a[3]] == await _one_by_one(bench, 7)


@case("4.25")
async def lines_take_turns_within_one_reserve(bench: Bench) -> None:
    of_a, of_b, of_c = await in_line(bench, A, 4), await in_line(bench, B, 2), await in_line(bench, C, 1)

    first = await bench.take_ids(5)

    assert {*of_a[:2], *of_b, *of_c} == set(first)
    assert of_a[:2] == [one for one in first if one in of_a], "in order within a line"
    assert of_a[2:] == await bench.take_ids()


@case("4.25")
async def a_turn_goes_on_where_the_last_reserve_ended(bench: Bench) -> None:
    of_a, of_b, of_c = [await in_line(bench, partition, 4) for partition in (A, B, C)]

    first, second = set(await bench.take_ids(4)), set(await bench.take_ids(4))

    assert {*of_a[:2], of_b[0], of_c[0]} == first
    assert {of_a[2], *of_b[1:3], of_c[1]} == second


@case("4.25")
async def ten_jobs_do_not_wait_behind_a_great_many(bench: Bench) -> None:
    jobs = [new_job(partition=A) for _ in range(600)]
    await bench.enqueue_all(*jobs)
    await bench.take(3)
    few = await in_line(bench, B, 10)

    taken = await bench.take_ids(21)

    assert set(few) <= set(taken)
    assert few == [one for one in taken if one in few]


@case("4.25")
async def a_great_many_lines_each_have_their_turn(bench: Bench) -> None:
    names = [f"k{number:03}" for number in range(150)]
    for _ in range(2):
        await bench.enqueue_all(*(new_job(partition=name) for name in names))
    ids = [job_id for size in (1, 40, 60, 49) for job_id in await bench.take_ids(size)]

    seen = [record.partition or "" for record in await bench.get(*ids) if record is not None]
    assert names == sorted(seen), "each once, before any has a second turn"


@case("4.25")
async def jobs_that_come_later_join_in(bench: Bench) -> None:
    of_b = await in_line(bench, B, 4)
    first = await _one_by_one(bench, 2)
    of_a, of_c = await in_line(bench, A, 2), await in_line(bench, C, 2)

    assert of_b[:2] == first
    assert [of_c[0], of_a[0], of_b[2], of_c[1], of_a[1], of_b[3]] == await _one_by_one(bench, 6)


@case("4.25")
async def lines_of_several_tasks_take_turns_too(bench: Bench) -> None:
    mail_a, mail_b = await in_line(bench, A, 2), await in_line(bench, B, 2)
    video = await in_line(bench, A, 2, task=OTHER)

    order = await _one_by_one(bench, 6)

    assert [mail_a[0], mail_b[0], video[0], mail_a[1], mail_b[1], video[1]] == order


@case("4.25")
async def jobs_without_a_key_of_a_task_that_takes_turns_are_one_line(bench: Bench) -> None:
    keyless, of_a = await in_line(bench, "", 2), await in_line(bench, A, 2)

    assert [keyless[0], of_a[0], keyless[1], of_a[1]] == await _one_by_one(bench, 4)


@case("4.25", "4.10")
async def turns_are_within_a_priority(bench: Bench) -> None:
    late = await in_line(bench, A, 2)
    urgent = [await bench.enqueue(partition=B, priority=1) for _ in range(3)]

    assert [*urgent, *late] == await _one_by_one(bench, 5)


@case("4.25")
async def each_queue_has_turns_of_its_own(bench: Bench) -> None:
    mail = [await in_line(bench, partition, 2, queue="mail") for partition in (A, B)]
    video = [await in_line(bench, partition, 2, queue="video") for partition in (A, B)]

    first = [(await bench.take_one(queues=["mail"])).id, (await bench.take_one(queues=["video"])).id]
    second = [(await bench.take_one(queues=["mail"])).id, (await bench.take_one(queues=["video"])).id]

    assert ([mail[0][0], video[0][0]], [mail[1][0], video[1][0]]) == (first, second)


@case("4.25")
async def lines_of_several_queues_share_reserves(bench: Bench) -> None:
    await bench.enqueue_all(*(new_job(queue="mail", partition=f"k{number}") for number in range(20)))
    await bench.enqueue_all(*(new_job(queue="video", partition=A) for _ in range(20)))
    taken: Counter[str] = Counter()
    for number in range(20):
        (delivery,) = await bench.take(
            1, queues=["mail", "video"], token=token(queue=number % 2, lines_first=number % 4 < 2)
        )
        taken[delivery.queue] += 1

    assert {"mail": 10, "video": 10} == taken


@case("4.25")
async def a_queues_quota_is_kept(bench: Bench) -> None:
    for queue in ("mail", "video"):
        await in_line(bench, A, 3, queue=queue)
        await in_line(bench, B, 3, queue=queue)
        await bench.enqueue(queue=queue, priority=6)

    taken = await bench.take(queues={"mail": 2, "video": 5})

    assert {"mail": 2, "video": 5} == Counter(one.queue for one in taken)


@case("4.25", "4.15")
async def lines_of_a_paused_queue_wait(bench: Bench) -> None:
    of_a, of_b = await in_line(bench, A, 2), await in_line(bench, B, 1, queue="video")
    await bench.pause("default")

    paused = await bench.take_ids(queues=["default", "video"])
    await bench.resume("default")

    assert (of_b, of_a) == (paused, await bench.take_ids())


@case("4.25", needs=Capability.SHARED)
async def all_drivers_share_the_turn(bench: Bench) -> None:
    of_a, of_b = await in_line(bench, A, 2), await in_line(bench, B, 2)
    async with bench.beside(bench.open_driver()) as other:
        order = [*await bench.take_ids(1), *await other.take_ids(1), *await other.take_ids(1)]

    assert [of_a[0], of_b[0], of_a[1]] == order


@case("4.25", needs=Capability.DURABLE)
async def the_turn_outlives_a_restart(bench: Bench) -> None:
    of_a, of_b = await in_line(bench, A, 2), await in_line(bench, B, 2)
    order = await _one_by_one(bench, 1)

    await bench.restart()

    assert [of_a[0], of_b[0], of_a[1]] == [*order, *await _one_by_one(bench, 2)]


# --- beside plain jobs


@case("4.25")
async def lines_and_plain_jobs_share_reserves_equally(bench: Bench) -> None:
    plain = [await bench.enqueue() for _ in range(4)]
    of_a, of_b = await in_line(bench, A, 2), await in_line(bench, B, 2)
    order = [
        (await bench.take_one(token=token(lines_first=lines_first))).id for lines_first in (True, False) * 4
    ]

    assert [of_a[0], plain[0], of_b[0], plain[1], of_a[1], plain[2], of_b[1], plain[3]] == order


@case("4.25", "4.10")
async def of_lines_and_plain_jobs_the_more_urgent_go_first(bench: Bench) -> None:
    late = await in_line(bench, A, 1)
    plain = await bench.enqueue(priority=3)
    urgent = await bench.enqueue(partition=A, priority=1)
    last = await bench.enqueue(priority=7)
    for lines_first in (True, False):
        order = await bench.take(token=token(lines_first=lines_first))
        taken = [one.id for one in order]
        await bench.settle(*map(snooze, order))
        assert {urgent, plain, *late, last} == set(taken)
    order_one_by_one = [
        (await bench.take_one(token=token(lines_first=lines_first))).id for lines_first in (True, False) * 2
    ]

    assert [urgent, plain, *late, last] == order_one_by_one


@case("4.25")
async def a_reserve_takes_of_both_as_far_as_its_limit_goes(bench: Bench) -> None:
    plain = [await bench.enqueue() for _ in range(3)]
    of_a = await in_line(bench, A, 3)

    first = await bench.take_ids(4, token=token(lines_first=True))

    assert {*of_a, plain[0]} == set(first)
    assert plain[1:] == await bench.take_ids(4)


# --- order within a line, and what holds it up


@case("4.25")
async def serial_order_by_key_is_a_limit_of_one(bench: Bench) -> None:
    await set_limit(bench, of_keys(), at_most(1))
    of_a, of_b = await in_line(bench, A, 5), await in_line(bench, B, 5)
    order: list[str] = []
    while len(order) < 10:
        deliveries = await bench.take()
        order += [one.id for one in deliveries]
        await bench.settle(*map(success, deliveries))

    assert (of_a, of_b) == ([one for one in order if one in of_a], [one for one in order if one in of_b])


@case("4.25")
async def a_retry_that_waits_lets_the_next_one_of_its_key_go_first(bench: Bench) -> None:
    await set_limit(bench, of_keys(), at_most(1))
    first, second = await in_line(bench, A, 2)
    await bench.settle(failure(await bench.take_one(), HOUR))

    after = await bench.take_one()
    bench.advance(HOUR)
    await bench.settle(success(after))

    assert (second, [first]) == (after.id, await bench.take_ids())


@case("4.25", "4.10")
async def what_was_handed_back_goes_first_in_its_line(bench: Bench) -> None:
    of_a = await in_line(bench, A, 4)
    deliveries = await bench.take(2)
    await bench.settle(*map(release, deliveries))

    assert of_a[0] in {one.id for one in deliveries}
    assert of_a == await _one_by_one(bench, 4)


@case("4.25", "4.10")
async def jobs_of_a_line_wait_for_their_time(bench: Bench) -> None:
    later = await bench.enqueue(partition=A, run_in=10 * SECOND)
    snoozed, now = await in_line(bench, A, 2)
    await bench.settle(snooze(await bench.take_one(), 5 * SECOND))
    first = await bench.take_ids()
    told = (await bench.reserve()).next_due_in
    bench.advance(5 * SECOND)
    second = await bench.take_ids()
    bench.advance(5 * SECOND)

    assert ([now], [snoozed], [later]) == (first, second, await bench.take_ids())
    assert told is not None
    assert NOW < told <= 5 * SECOND


@case("4.25", "4.4")
async def a_guarded_job_holds_up_its_own_line_only(bench: Bench) -> None:
    guarded = await bench.enqueue(partition=A, retry=ONCE)
    behind = await in_line(bench, A, 1)
    of_b, plain = await in_line(bench, B, 2), await bench.enqueue()

    reservation = await bench.reserve(guarded_limit=0)
    later = await bench.take_ids(guarded_limit=1)

    assert {*of_b, plain} == {one.id for one in reservation.deliveries}
    assert reservation.held_back
    assert [guarded, *behind] == later


@case("4.25", "4.4")
async def a_solo_job_holds_up_its_own_line_only(bench: Bench) -> None:
    solo = await bench.enqueue(partition=A)
    for _ in range(2):
        await bench.start(await bench.pick(solo))
        await bench.lose_workers()
        bench.advance(HOUR)
    behind, of_b = await in_line(bench, A, 1), await in_line(bench, B, 1)

    without = await bench.take_ids(solo=False)
    with_solo = await bench.take(1, solo=True)

    assert of_b == without
    assert ([solo], True) == ([one.id for one in with_solo], with_solo[0].solo)
    assert behind == await bench.take_ids(solo=False)


@case("4.25", "4.16")
async def strays_stand_in_lines_that_only_those_who_may_take_them_look_at(bench: Bench) -> None:
    ids = await in_line(bench, A, 2, task=OTHER)
    for _ in ids:
        await bench.settle(stray(await bench.take_one()))
    fresh = await in_line(bench, A, 1, task=OTHER)
    known = await in_line(bench, B, 1)

    met = await bench.take_ids()
    strays = await bench.take_ids(tasks=BOTH)

    assert {*fresh, *known} == set(met), "one that nobody has met yet is met by whoever comes"
    assert ids == strays


@case("4.25", "4.16")
async def a_refused_payload_in_a_line_is_left_to_other_builds(bench: Bench) -> None:
    (job_id,) = await in_line(bench, A, 1)
    await bench.settle(stray(await bench.take_one(build="old"), refused_by="old"))
    behind = await in_line(bench, A, 1)

    assert behind == await bench.take_ids(build="old")
    assert [job_id] == await bench.take_ids(build="new")


@case("4.25", "4.5")
async def jobs_of_crashed_workers_come_back_to_their_lines(bench: Bench) -> None:
    of_a, of_b = await in_line(bench, A, 3), await in_line(bench, B, 3)
    await bench.take(4)

    reclaimed = await bench.lose_workers()

    assert {*of_a[:2], *of_b[:2]} == {one.job_id for one in reclaimed}
    order = await _one_by_one(bench, 6)
    assert (of_a, of_b) == ([one for one in order if one in of_a], [one for one in order if one in of_b])


@case("4.25", "4.2")
async def a_repeated_reserve_takes_nobodys_turn(bench: Bench) -> None:
    of_a, of_b = await in_line(bench, A, 2), await in_line(bench, B, 2)
    mine = new_token()
    first = await bench.take_ids(1, token=mine)
    again = await bench.take_ids(1, token=mine)

    assert ([of_a[0]], [of_a[0]], [of_b[0], of_a[1]]) == (first, again, await _one_by_one(bench, 2))


@case("4.25", "4.21")
async def what_has_been_due_for_too_long_in_a_line_goes_first(bench: Bench) -> None:
    old = [await bench.enqueue(partition=A, priority=9) for _ in range(3)]
    bench.advance(HOUR + SECOND)
    fresh = [await bench.enqueue(partition=B, priority=0) for _ in range(3)]

    first = await bench.take_ids(2, aged=AgedTake(HOUR, 1))
    rest = await bench.take_ids(aged=AgedTake(HOUR, 1))

    assert {old[0], fresh[0]} == set(first)
    assert {*old[1:], *fresh[1:]} == set(rest)


@case("4.25", "4.21", "4.24")
async def aged_jobs_stay_under_their_limits(bench: Bench) -> None:
    await set_limit(bench, of_keys(), at_most(1))
    old = [await bench.enqueue(partition=A, priority=9) for _ in range(3)]
    bench.advance(HOUR + SECOND)
    fresh = await bench.enqueue(priority=0, task=OTHER)

    taken = await bench.take_ids(aged=AgedTake(HOUR, 10), tasks=BOTH)

    assert {old[0], fresh} == set(taken)
    assert [] == await bench.take_ids(aged=AgedTake(HOUR, 10), tasks=BOTH)
