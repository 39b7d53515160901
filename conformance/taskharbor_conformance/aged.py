"""Aging: what goes before the order of priorities, so that none of them starves."""

from __future__ import annotations

from datetime import timedelta

from taskharbor.driver import AgedTake
from taskharbor.job import new_token
from taskharbor.retry import RetryNumbers
from taskharbor_conformance.bench import (
    BUILD,
    HOUR,
    SECOND,
    TASK,
    Bench,
    failure,
    new_job,
    release,
    stray,
)
from taskharbor_conformance.case import case

ONE, MANY = AgedTake(HOUR, 1), AgedTake(HOUR, 100)
ONCE = RetryNumbers(max_attempts=1)
"""Of a job that is guarded from the beginning."""


async def _old(bench: Bench, count: int = 1, *, priority: int = 9, queue: str = "default") -> list[str]:
    """Return jobs that have been due for longer than an hour, a second apart, the longest first."""
    ids: list[str] = []
    for _ in range(count):
        ids.append(await bench.enqueue(priority=priority, queue=queue))
        bench.advance(SECOND)
    bench.advance(HOUR)
    return ids


async def _fresh(bench: Bench, count: int, *, queue: str = "default") -> list[str]:
    """Return jobs of the first priority that have only just come."""
    return [await bench.enqueue(priority=0, queue=queue) for _ in range(count)]


@case("4.21")
async def what_has_been_due_for_too_long_goes_first(bench: Bench) -> None:
    old = await _old(bench, 3)
    fresh = await _fresh(bench, 3)

    taken = await bench.take_ids(aged=AgedTake(HOUR, 2))

    assert [*old[:2], *fresh, old[2]] == taken


@case("4.21")
async def without_aging_priorities_are_strict(bench: Bench) -> None:
    old = await _old(bench, 2)
    fresh = await _fresh(bench, 2)

    assert [*fresh, *old] == await bench.take_ids()


@case("4.21")
async def a_job_is_aged_only_when_it_has_been_due_for_longer(bench: Bench) -> None:
    old = await bench.enqueue(priority=9)
    bench.advance(HOUR)
    (fresh,) = await _fresh(bench, 1)
    (exactly,) = await bench.take(1, aged=ONE)
    await bench.settle(failure(exactly))
    bench.advance(timedelta(microseconds=1))

    later = await bench.take_ids(1, aged=ONE)

    assert ([fresh], [old]) == ([exactly.id], later)


@case("4.21")
async def what_counts_is_when_it_was_due_not_when_it_came(bench: Bench) -> None:
    scheduled = await bench.enqueue(priority=9, run_in=3 * HOUR)
    (old,) = await _old(bench)
    bench.advance(2 * HOUR)
    (fresh,) = await _fresh(bench, 1)

    assert [old, fresh, scheduled] == await bench.take_ids(aged=MANY)


@case("4.21")
async def the_longest_due_goes_first_of_all_priorities_and_queues(bench: Bench) -> None:
    first = await _old(bench, priority=3, queue="mail")
    second = await _old(bench, priority=9, queue="video")
    third = await _old(bench, priority=1, queue="mail")
    fresh = await _fresh(bench, 1, queue="video")

    taken = await bench.take_ids(queues=["mail", "video"], aged=MANY)

    assert [*first, *second, *third, *fresh] == taken


@case("4.21")
async def jobs_due_at_one_instant_go_in_order_of_id(bench: Bench) -> None:
    jobs = [new_job(priority=9 - number % 3) for number in range(9)]
    await bench.enqueue_all(*reversed(jobs))
    bench.advance(2 * HOUR)

    assert [job.id for job in jobs] == await bench.take_ids(aged=MANY)


@case("4.21")
async def the_first_priority_takes_no_share_of_it(bench: Bench) -> None:
    first = await _old(bench, priority=0)
    (old,) = await _old(bench)
    bench.advance(HOUR)

    assert [old, *first] == await bench.take_ids(aged=MANY)


@case("4.21")
async def each_reserve_gives_its_share(bench: Bench) -> None:
    old = await _old(bench, 4)
    await _fresh(bench, 40)

    taken = [await bench.take_ids(5, aged=ONE) for _ in range(4)]

    assert old == [ids[0] for ids in taken]
    assert [[]] * 4 == [[job_id for job_id in ids[1:] if job_id in old] for ids in taken]


@case("4.21", "4.10")
async def its_limits_hold_for_both_together(bench: Bench) -> None:
    old = await _old(bench, 3)
    fresh = await _fresh(bench, 3)

    assert old[:2] == await bench.take_ids(2, aged=MANY)
    assert [old[2], fresh[0]] == await bench.take_ids(2, aged=MANY)
    assert [] == await bench.take_ids(0, aged=MANY)


@case("4.21", "4.10")
async def the_quota_of_a_queue_holds_for_both_together(bench: Bench) -> None:
    mail = await _old(bench, 3, queue="mail")
    video = await _old(bench, 3, queue="video")
    fresh = await _fresh(bench, 2, queue="mail")

    taken = await bench.take_ids(queues={"mail": 2, "video": 1}, aged=MANY)
    then = await bench.take_ids(queues={"mail": 2, "video": 0}, aged=ONE)

    assert [mail[0], mail[1], video[0]] == taken
    assert [mail[2], fresh[0]] == then


@case("4.21", "4.10")
async def the_quota_of_a_queue_holds_for_all_its_priorities_together(bench: Bench) -> None:
    old = [await bench.enqueue(priority=priority, queue="mail") for priority in (9, 8, 7)]
    bench.advance(2 * HOUR)

    assert old[:2] == await bench.take_ids(queues={"mail": 2}, aged=MANY)


@case("4.21", "4.10")
async def within_its_quota_a_queue_gives_what_has_been_due_for_longest(bench: Bench) -> None:
    """Whatever was enqueued first, in whatever priority."""
    later = await bench.enqueue(priority=9, queue="mail", run_in=60 * SECOND)
    sooner = await bench.enqueue(priority=8, queue="mail")
    bench.advance(2 * HOUR)

    assert [sooner] == await bench.take_ids(queues={"mail": 1}, aged=MANY)
    assert [later] == await bench.take_ids(queues={"mail": 1}, aged=MANY)


@case("4.21", "4.15")
async def a_paused_queue_gives_no_aged_job(bench: Bench) -> None:
    mail = await _old(bench, queue="mail")
    video = await _old(bench, queue="video")
    await bench.pause("mail")

    paused = await bench.take_ids(queues=["mail", "video"], aged=MANY)
    await bench.resume("mail")
    resumed = await bench.take_ids(queues=["mail", "video"], aged=MANY)

    assert (video, mail) == (paused, resumed)


@case("4.21")
async def a_queue_not_named_gives_no_aged_job(bench: Bench) -> None:
    await _old(bench, queue="mail")

    assert [] == await bench.take_ids(queues=["video"], aged=MANY)


@case("4.21", "4.10")
async def what_was_handed_back_ages_too(bench: Bench) -> None:
    plain = await _old(bench, priority=8)
    handed_back = await bench.enqueue(priority=9)
    (held,) = [one for one in await bench.take() if one.id == handed_back]
    await bench.settle(release(held))
    bench.advance(2 * HOUR)
    fresh = await _fresh(bench, 1)

    taken = await bench.take_ids(aged=MANY)

    assert [handed_back, *fresh] == taken, f"{plain} is leased"


@case("4.21", "4.4")
async def it_ends_at_a_guarded_job_that_may_not_be_taken_which_holds_nothing_else_up(bench: Bench) -> None:
    guarded = await bench.enqueue(priority=9, retry=ONCE)
    bench.advance(SECOND)
    old = await _old(bench, 2)
    fresh = await _fresh(bench, 2)

    reservation = await bench.reserve(aged=MANY, guarded_limit=0)

    # The order of priorities ends at it, too, but only once it is its turn.
    assert fresh == [delivery.id for delivery in reservation.deliveries]
    assert (True, timedelta(0)) == (reservation.held_back, reservation.next_due_in)
    assert [guarded, *old] == await bench.take_ids(aged=MANY)


@case("4.21", "4.4")
async def guarded_jobs_go_within_their_limit_which_holds_for_both_together(bench: Bench) -> None:
    guarded = [await bench.enqueue(priority=9, retry=ONCE) for _ in range(2)]
    bench.advance(2 * HOUR)
    fresh = await bench.enqueue(priority=0, retry=ONCE)
    plain = await bench.enqueue(priority=0)

    taken = await bench.take_ids(aged=ONE, guarded_limit=1)

    # The one guarded job there was room for is taken; the order of priorities ends at the next guarded one.
    assert [guarded[0]] == taken
    assert [guarded[1], fresh, plain] == await bench.take_ids(aged=ONE, guarded_limit=2)


@case("4.21", "4.4")
async def a_solo_job_stays_in_its_own_lane(bench: Bench) -> None:
    solo = await bench.enqueue(priority=9)
    for _ in range(2):
        await bench.start(await bench.take_one())
        await bench.lose_workers()
        bench.advance(HOUR)
    bench.advance(HOUR)
    fresh = await _fresh(bench, 2)

    first = await bench.take_ids(1, aged=MANY, solo=True)
    refused = await bench.take_ids(aged=MANY, solo=False)
    taken = await bench.take_ids(aged=MANY, solo=True)

    assert fresh == [*first, *refused], "it is not taken before its turn"
    assert [solo] == taken


@case("4.21", "4.16")
async def strays_age_for_those_who_may_take_them(bench: Bench) -> None:
    job_id = await bench.enqueue(priority=9)
    await bench.settle(stray(await bench.take_one(), refused_by=BUILD, reason="foreign payload"))
    bench.advance(2 * HOUR)
    fresh = await _fresh(bench, 2)

    refused = await bench.take_ids(1, aged=MANY)
    taken = await bench.take_ids(1, aged=MANY, build="build-2")
    unknown = await bench.take_ids(aged=MANY, build="build-2", tasks=frozenset({f"not.{TASK}"}))

    assert ([fresh[0]], [job_id], [fresh[1]]) == (refused, taken, unknown)


@case("4.21", "4.14")
async def what_is_not_due_is_never_aged(bench: Bench) -> None:
    await bench.enqueue(priority=9, run_in=3 * HOUR)
    bench.advance(2 * HOUR)

    reservation = await bench.reserve(aged=MANY)

    assert [] == reservation.deliveries
    assert HOUR == reservation.next_due_in


@case("4.21", "4.10")
async def the_hint_is_zero_where_aged_jobs_are_left(bench: Bench) -> None:
    await _old(bench, 3)

    reservation = await bench.reserve(2, aged=ONE)

    assert 2 == len(reservation.deliveries)
    assert timedelta(0) == reservation.next_due_in


@case("4.21", "4.10")
async def the_hint_tells_of_what_comes_next_where_all_that_was_aged_is_taken(bench: Bench) -> None:
    old = await _old(bench, 3)
    await bench.enqueue(run_in=20 * SECOND)

    reservation = await bench.reserve(aged=MANY)

    assert old == [delivery.id for delivery in reservation.deliveries]
    assert 20 * SECOND == reservation.next_due_in


@case("4.21", "4.3")
async def repeating_a_reserve_takes_no_more_aged_jobs(bench: Bench) -> None:
    old = await _old(bench, 3)
    token = new_token()
    first = await bench.take_ids(1, aged=ONE, token=token)

    again = await bench.take_ids(3, aged=MANY, token=token)

    assert (old[:1], old[:1]) == (first, again)


@case("4.21", "4.2")
async def an_aged_job_is_leased_as_any_other(bench: Bench) -> None:
    (old,) = await _old(bench)

    (delivery,) = await bench.take(aged=ONE)

    record = await bench.record(old)
    assert (1, 1) == (record.deliveries, delivery.fence)
    assert [] == await bench.take_ids(aged=MANY)
