"""job_reserve: what is taken, in which order, under which lease."""

from __future__ import annotations

from datetime import timedelta

from taskharbor.driver import JobEnqueue, JobReserve, QueueTake
from taskharbor.job import JobState, new_token
from taskharbor.retry import RetryNumbers
from taskharbor_conformance.bench import (
    BUILD,
    DAY,
    HOUR,
    LEASE,
    SECOND,
    STEADY,
    TASK,
    WORKER,
    Bench,
    burial,
    failure,
    new_job,
    release,
    snooze,
    success,
)
from taskharbor_conformance.case import case


@case("4.1")
async def a_delivery_carries_what_a_worker_needs(bench: Bench) -> None:
    job = new_job(
        queue="mail",
        priority=2,
        payload=b"\x00\xff",
        codec="msgpack",
        fingerprint=2**62 + 1,
        retry=RetryNumbers(max_attempts=3, base_seconds=0.5, factor=1.5, cap_seconds=9, jitter=True),
        timeout=timedelta(milliseconds=1500),
        meta={"tenant": "Ærø"},
        key="k",
        keep_result=False,
    )
    await bench.enqueue_all(job)
    enqueued_at = bench.now
    bench.advance(SECOND)

    delivery = await bench.take_one(queues=["mail"], token=2**63 - 1)

    assert (job.id, job.task, "mail", 2) == (delivery.id, delivery.task, delivery.queue, delivery.priority)
    assert (job.payload, "msgpack", job.fingerprint) == (
        delivery.payload,
        delivery.codec,
        delivery.fingerprint,
    )
    assert (job.retry, job.timeout) == (delivery.retry, delivery.timeout)
    assert (job.meta, "k", False) == (delivery.meta, delivery.key, delivery.keep_result)
    assert (enqueued_at, enqueued_at) == (delivery.run_at, delivery.enqueued_at)
    assert (2**63 - 1, 1) == (delivery.token, delivery.attempt)
    assert (False, False, False) == (delivery.guarded, delivery.solo, delivery.cancel_requested)


@case("4.2")
async def a_leased_job_shows_who_holds_it_and_until_when(bench: Bench) -> None:
    job_id = await bench.enqueue()

    reservation = await bench.reserve(worker="worker-7")

    record = await bench.record(job_id)
    assert bench.now + LEASE == reservation.expires_at
    assert (JobState.RUNNING, "worker-7") == (record.state, record.worker)
    assert (bench.now + LEASE, 1, False) == (record.lease_expires_at, record.deliveries, record.started)


@case("4.2")
async def a_leased_job_is_returned_by_no_other_reserve(bench: Bench) -> None:
    await bench.enqueue()
    await bench.take_one()

    others = await bench.take(worker="worker-2")

    assert [] == others


@case("4.2", "4.5")
async def a_lease_that_expired_still_keeps_its_job_from_others(bench: Bench) -> None:
    await bench.enqueue()
    await bench.take_one()
    bench.advance(DAY)

    others = await bench.take(worker="worker-2")

    assert [] == others, "expiry permits a reclaim; it frees nothing by itself"


@case("4.2")
async def no_two_reserves_share_a_job(bench: Bench) -> None:
    ids = [await bench.enqueue() for _ in range(5)]

    first, second, third = await bench.take_ids(2), await bench.take_ids(2), await bench.take_ids(2)

    assert (ids[:2], ids[2:4], ids[4:]) == (first, second, third)


@case("4.2")
async def one_token_covers_the_whole_batch(bench: Bench) -> None:
    for _ in range(3):
        await bench.enqueue()
    token = new_token()

    deliveries = await bench.take(token=token)

    assert [token] * 3 == [delivery.token for delivery in deliveries]


@case("4.10")
async def a_reserve_takes_no_more_than_its_limit(bench: Bench) -> None:
    ids = [await bench.enqueue() for _ in range(3)]

    assert [] == await bench.take_ids(0)
    assert ids[:2] == await bench.take_ids(2)


@case("4.10")
async def a_reserve_takes_no_more_of_a_queue_than_its_quota(bench: Bench) -> None:
    mail = [await bench.enqueue(queue="mail") for _ in range(3)]
    video = [await bench.enqueue(queue="video") for _ in range(3)]

    taken = await bench.take_ids(10, queues={"mail": 1, "video": 2})

    assert [mail[0], video[0], video[1]] == taken


@case("4.10")
async def the_limit_holds_over_all_queues_together(bench: Bench) -> None:
    mail = [await bench.enqueue(queue="mail") for _ in range(3)]
    video = [await bench.enqueue(queue="video") for _ in range(3)]

    taken = await bench.take_ids(4, queues={"mail": 3, "video": 3})

    assert [*mail, video[0]] == taken


@case("4.10")
async def a_queue_not_named_is_not_touched(bench: Bench) -> None:
    await bench.enqueue(queue="mail")

    assert [] == await bench.take_ids(queues=["video"])
    assert [] == await bench.take_ids(queues=[])


# --- order


@case("4.10")
async def lower_priority_numbers_go_first(bench: Bench) -> None:
    ids = {priority: await bench.enqueue(priority=priority) for priority in (5, 9, 0, 4)}

    taken = await bench.take_ids()

    assert [ids[0], ids[4], ids[5], ids[9]] == taken


@case("4.10")
async def within_a_priority_what_was_due_first_goes_first(bench: Bench) -> None:
    later = await bench.enqueue(run_in=20 * SECOND)
    sooner = await bench.enqueue(run_in=10 * SECOND)
    bench.advance(15 * SECOND)
    last = await bench.enqueue(run_in=15 * SECOND)
    bench.advance(HOUR)

    taken = await bench.take_ids()

    assert [sooner, later, last] == taken


@case("4.10")
async def jobs_due_at_one_instant_go_in_order_of_id(bench: Bench) -> None:
    jobs = [new_job() for _ in range(20)]

    await bench.enqueue_all(*reversed(jobs))

    assert [job.id for job in jobs] == await bench.take_ids()


@case("4.10")
async def several_queues_are_merged_in_one_order(bench: Bench) -> None:
    first = await bench.enqueue(queue="video")
    bench.advance(SECOND)
    second = await bench.enqueue(queue="mail")
    bench.advance(SECOND)
    third = await bench.enqueue(queue="video")
    urgent = await bench.enqueue(queue="mail", priority=1)

    taken = await bench.take_ids(queues=["mail", "video"])

    assert [urgent, first, second, third] == taken


@case("4.10")
async def a_job_never_runs_early(bench: Bench) -> None:
    job_id = await bench.enqueue(run_at=bench.now + HOUR)

    bench.advance(HOUR - SECOND)
    early = await bench.take_ids()
    bench.advance(SECOND)
    due = await bench.take_ids()

    assert ([], [job_id]) == (early, due)


@case("4.10")
async def a_scheduled_job_holds_up_nobody(bench: Bench) -> None:
    await bench.enqueue(priority=0, run_in=HOUR)
    await bench.enqueue(run_in=HOUR)
    ready = await bench.enqueue(priority=9)

    assert [ready] == await bench.take_ids()


@case("4.10")
async def what_was_handed_back_goes_to_the_front(bench: Bench) -> None:
    first = await bench.enqueue()
    second = await bench.enqueue()
    bench.advance(SECOND)
    await bench.settle(*map(release, [await bench.take_one(), await bench.take_one()]))
    waiting = await bench.enqueue()
    held = await bench.take(1)
    bench.advance(SECOND)

    await bench.settle(*map(release, held))

    assert [second, first, waiting] == await bench.take_ids()


@case("4.10")
async def handed_back_together_jobs_keep_their_order_before_all_others(bench: Bench) -> None:
    ids = [await bench.enqueue() for _ in range(5)]
    held = await bench.take(3)
    bench.advance(HOUR)

    await bench.settle(*map(release, reversed(held)))

    assert ids == await bench.take_ids()


@case("4.10")
async def the_front_is_that_of_the_jobs_own_priority(bench: Bench) -> None:
    handed_back = await bench.enqueue(priority=5)
    await bench.settle(release(await bench.take_one()))
    urgent = await bench.enqueue(priority=4)

    assert [urgent, handed_back] == await bench.take_ids()


@case("4.10")
async def a_job_due_again_takes_its_turn_at_the_time_it_is_due(bench: Bench) -> None:
    retried = await bench.enqueue()
    snoozed = await bench.enqueue()
    first, second = await bench.take(2)
    waiting = await bench.enqueue()
    bench.advance(SECOND)

    await bench.settle(failure(first), snooze(second))

    assert [waiting, retried, snoozed] == await bench.take_ids()


# --- asking again, and fences


@case("4.3")
async def repeating_a_reserve_returns_the_same_jobs_and_takes_no_new_ones(bench: Bench) -> None:
    for _ in range(5):
        await bench.enqueue()
    token = new_token()
    first = await bench.take(2, token=token)

    again = await bench.take(4, token=token)

    record = await bench.record(first[0].id)
    expected = sorted((delivery.id, delivery.payload, delivery.fence) for delivery in first)
    assert expected == sorted((delivery.id, delivery.payload, delivery.fence) for delivery in again)
    assert 1 == record.deliveries, "asking again is no second delivery"


@case("4.3")
async def repeating_a_reserve_returns_only_what_it_still_holds(bench: Bench) -> None:
    for _ in range(3):
        await bench.enqueue()
    token = new_token()
    first, second, third = await bench.take(token=token)
    await bench.enqueue()
    await bench.settle(success(second))

    again = await bench.take_ids(token=token)

    assert [first.id, third.id] == sorted(again)


@case("4.3", "4.11")
async def repeating_a_reserve_tells_of_a_cancel_asked_for_since(bench: Bench) -> None:
    job_id = await bench.enqueue()
    token = new_token()
    first = await bench.take_one(token=token)
    await bench.cancel(job_id)

    again = await bench.take_one(token=token)

    assert (False, True) == (first.cancel_requested, again.cancel_requested)


@case("4.3")
async def the_fence_grows_with_every_delivery_however_the_last_one_ended(bench: Bench) -> None:
    job_id = await bench.enqueue(retry=RetryNumbers(max_attempts=9, base_seconds=0, jitter=False))
    fences: list[int] = []

    for end in (release, snooze, failure, None, burial, success):
        delivery = await bench.take_one()
        fences.append(delivery.fence)
        if end is None:
            await bench.lose_workers()
        else:
            await bench.settle(end(delivery))
        if end is burial:
            await bench.requeue(job_id)

    assert sorted(set(fences)) == fences, "each fence is greater than the one before"
    assert 6 == (await bench.record(job_id)).deliveries


@case("4.2")
async def a_reserve_that_finds_nothing_holds_no_lease(bench: Bench) -> None:
    token = new_token()
    await bench.reserve(token=token)
    job_id = await bench.enqueue()

    taken = await bench.take_ids(token=token)

    assert [job_id] == taken


@case("4.4")
async def a_delivery_says_which_attempt_it_would_be(bench: Bench) -> None:
    await bench.enqueue()
    attempts: list[int] = []

    for end in (release, failure, snooze, failure, success):
        delivery = await bench.take_one()
        attempts.append(delivery.attempt)
        await bench.settle(end(delivery))

    assert [1, 1, 2, 2, 3] == attempts


@case("4.4")
async def a_job_of_several_attempts_is_not_guarded_at_first(bench: Bench) -> None:
    await bench.enqueue(retry=STEADY)

    delivery = await bench.take_one(guarded_limit=0, solo=False)

    assert (False, False) == (delivery.guarded, delivery.solo)


# --- the hint


@case("4.10")
async def an_empty_queue_has_no_next_job(bench: Bench) -> None:
    nothing = await bench.reserve()
    await bench.enqueue(queue="other")
    elsewhere = await bench.reserve()

    assert None is nothing.next_due_in
    assert None is elsewhere.next_due_in


@case("4.10")
async def the_hint_tells_how_long_until_the_next_job_is_due(bench: Bench) -> None:
    await bench.enqueue(run_in=HOUR, priority=0)
    await bench.enqueue(run_in=20 * SECOND, priority=9)
    await bench.enqueue(run_in=30 * SECOND)

    reservation = await bench.reserve()

    assert 20 * SECOND == reservation.next_due_in


@case("4.10")
async def the_hint_follows_a_retry(bench: Bench) -> None:
    await bench.enqueue()
    await bench.settle(failure(await bench.take_one(), after=40 * SECOND))
    bench.advance(10 * SECOND)

    reservation = await bench.reserve()

    assert 30 * SECOND == reservation.next_due_in


@case("4.10")
async def the_hint_is_zero_while_a_job_is_due_that_was_not_taken(bench: Bench) -> None:
    for _ in range(3):
        await bench.enqueue()

    reservation = await bench.reserve(2)

    assert 2 == len(reservation.deliveries)
    assert timedelta(0) == reservation.next_due_in


@case("4.10")
async def a_later_job_of_a_higher_priority_does_not_hide_one_that_is_due(bench: Bench) -> None:
    await bench.enqueue(priority=0)
    await bench.enqueue(priority=0, run_in=HOUR)
    await bench.enqueue(priority=5)

    reservation = await bench.reserve(1)

    assert 1 == len(reservation.deliveries)
    assert timedelta(0) == reservation.next_due_in


@case("4.10")
async def a_quota_that_is_used_up_does_not_hide_a_job_that_is_due(bench: Bench) -> None:
    for _ in range(2):
        await bench.enqueue()

    reservation = await bench.reserve(5, queues={"default": 1})

    assert 1 == len(reservation.deliveries)
    assert timedelta(0) == reservation.next_due_in


@case("4.18")
async def without_a_now_the_stores_own_clock_decides_what_is_due(bench: Bench) -> None:
    soon, later = new_job(), new_job(run_in=HOUR)
    await bench.store.job_enqueue(JobEnqueue(jobs=[soon, later]))

    reservation = await bench.store.job_reserve(
        JobReserve(
            queues=[QueueTake("default", 10)],
            limit=10,
            lease=LEASE,
            token=new_token(),
            worker=WORKER,
            tasks=frozenset({TASK}),
            build=BUILD,
            guarded_limit=10,
            solo=True,
        )
    )

    assert [soon.id] == [delivery.id for delivery in reservation.deliveries]
