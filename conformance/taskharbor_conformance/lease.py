"""lease_extend and lease_reclaim: keeping leases, reporting starts, and what becomes of a crashed worker's jobs."""

from __future__ import annotations

from taskharbor.driver import LeaseExtend, LeaseHold
from taskharbor.job import Delivery, JobState, new_token
from taskharbor.retry import RetryNumbers
from taskharbor.settlement import LOST_LIMIT, SettleKind, SettleStatus
from taskharbor_conformance.bench import (
    DAY,
    HOUR,
    LEASE,
    SECOND,
    STEADY,
    WORKER,
    Bench,
    burial,
    failure,
    release,
    snooze,
    success,
)
from taskharbor_conformance.case import case

AT_ONCE = RetryNumbers(max_attempts=20, base_seconds=0, jitter=False)


# --- extend


@case("4.5")
async def extending_a_lease_moves_its_expiry(bench: Bench) -> None:
    job_id = await bench.enqueue()
    delivery = await bench.take_one()
    bench.advance(10 * SECOND)

    answer = await bench.extend(delivery, lease=60 * SECOND)

    expected = bench.now + 60 * SECOND
    assert ([], expected) == (list(answer.lost), answer.expires_at)
    assert expected == (await bench.record(job_id)).lease_expires_at


@case("4.5")
async def a_lease_that_is_extended_is_not_reclaimed(bench: Bench) -> None:
    await bench.enqueue()
    delivery = await bench.take_one()

    for _ in range(5):
        bench.advance(LEASE - SECOND)
        answer = await bench.extend(delivery)
        assert ([], []) == (list(answer.lost), await bench.reclaim())

    assert [JobState.SUCCEEDED] == await bench.settle(success(delivery))


@case("4.5")
async def an_expired_lease_that_nobody_reclaimed_may_still_be_extended(bench: Bench) -> None:
    await bench.enqueue()
    delivery = await bench.take_one()
    bench.advance(DAY)

    answer = await bench.extend(delivery)

    assert [] == list(answer.lost)
    assert [] == await bench.reclaim()


@case("4.5")
async def extending_one_lease_leaves_the_others_as_they_were(bench: Bench) -> None:
    kept, dropped = await bench.enqueue(), await bench.enqueue()
    first = await bench.take_one()
    await bench.take_one()
    bench.advance(LEASE - SECOND)
    await bench.extend(first)
    bench.advance(2 * SECOND)

    reclaimed = await bench.reclaim()

    assert [dropped] == [job.job_id for job in reclaimed]
    assert JobState.RUNNING == await bench.state(kept)


@case("4.3", "4.5")
async def one_heartbeat_keeps_all_leases_and_names_the_lost_ones(bench: Bench) -> None:
    for _ in range(3):
        await bench.enqueue()
    first, settled, third = [await bench.take_one() for _ in range(3)]
    await bench.settle(success(settled))
    unknown = new_token()
    bench.advance(10 * SECOND)

    answer = await bench.store.lease_extend(
        LeaseExtend(
            worker=WORKER,
            leases=[LeaseHold(token) for token in (first.token, settled.token, unknown, third.token)],
            lease=LEASE,
            now=bench.now,
        )
    )

    assert sorted([settled.token, unknown]) == sorted(answer.lost)
    for job_id in (first.id, third.id):
        assert bench.now + LEASE == (await bench.record(job_id)).lease_expires_at


@case("4.3", "4.4")
async def a_reclaimed_lease_is_lost_and_its_starts_are_not_written(bench: Bench) -> None:
    job_id = await bench.enqueue()
    old = await bench.take_one()
    await bench.lose_workers()
    await bench.take_one(worker="worker-2")

    answer = await bench.extend(started=[old])

    assert [old.token] == list(answer.lost)
    assert not (await bench.record(job_id)).started


@case("4.4")
async def a_start_is_known_once_it_was_reported(bench: Bench) -> None:
    first, second = await bench.enqueue(), await bench.enqueue()
    deliveries = await bench.take()

    await bench.start(deliveries[0])
    await bench.start(deliveries[0])  # reporting again changes nothing

    assert (True, False) == ((await bench.record(first)).started, (await bench.record(second)).started)
    assert 0 == (await bench.record(first)).attempt, "the running attempt is not charged yet"


@case("4.3", "4.4")
async def a_start_reported_under_another_lease_is_not_written(bench: Bench) -> None:
    mine, other = await bench.enqueue(), await bench.enqueue()
    first = await bench.take_one()
    second = await bench.take_one(worker="worker-2")

    await bench.store.lease_extend(
        LeaseExtend(worker=WORKER, leases=[LeaseHold(first.token, [second.id])], lease=LEASE, now=bench.now)
    )

    assert (False, False) == ((await bench.record(mine)).started, (await bench.record(other)).started)


# --- when a lease may be reclaimed


@case("4.5")
async def a_lease_is_not_reclaimed_before_it_expires(bench: Bench) -> None:
    job_id = await bench.enqueue()
    await bench.take_one()
    bench.advance(LEASE - SECOND)

    assert [] == await bench.reclaim()
    assert JobState.RUNNING == await bench.state(job_id)


@case("4.5")
async def a_reclaim_takes_only_leases_that_its_caller_saw_long_enough(bench: Bench) -> None:
    short, long = await bench.enqueue(), await bench.enqueue()
    await bench.take_one(lease=10 * SECOND)
    await bench.take_one(lease=60 * SECOND)
    bench.advance(DAY)

    too_soon = await bench.reclaim(observed=10 * SECOND - SECOND)
    some = await bench.reclaim(observed=10 * SECOND)
    rest = await bench.reclaim(observed=60 * SECOND)

    assert ([], [short], [long]) == (
        [job.job_id for job in too_soon],
        [job.job_id for job in some],
        [job.job_id for job in rest],
    )


@case("4.5")
async def the_duration_that_counts_is_the_one_last_asked_for(bench: Bench) -> None:
    await bench.enqueue()
    delivery = await bench.take_one(lease=10 * SECOND)
    await bench.extend(delivery, lease=60 * SECOND)
    bench.advance(DAY)

    assert [] == await bench.reclaim(observed=30 * SECOND)
    assert 1 == len(await bench.reclaim(observed=60 * SECOND))


@case("4.5")
async def a_reclaim_leaves_the_leases_of_living_workers(bench: Bench) -> None:
    lost, kept = await bench.enqueue(), await bench.enqueue()
    await bench.take_one(worker="dead")
    bench.advance(LEASE - SECOND)
    alive = await bench.take_one(worker="alive")
    bench.advance(2 * SECOND)

    reclaimed = await bench.reclaim()

    assert [(lost, "dead")] == [(job.job_id, job.worker) for job in reclaimed]
    assert [JobState.SUCCEEDED] == await bench.settle(success(alive))
    assert JobState.SUCCEEDED == await bench.state(kept)


@case("4.5")
async def a_reclaim_tells_what_became_of_each_job(bench: Bench) -> None:
    unstarted = await bench.enqueue(queue="mail", task="a")
    started = await bench.enqueue(queue="mail", task="b")
    last = await bench.enqueue(queue="mail", task="c", retry=RetryNumbers(max_attempts=1))
    unwanted = await bench.enqueue(queue="mail", task="d")
    by_id = {delivery.id: delivery for delivery in await bench.take(queues=["mail"], worker="w")}
    await bench.start(by_id[started], by_id[last])
    await bench.cancel(unwanted)

    reclaimed = await bench.lose_workers()

    expected = [
        (unstarted, "a", "mail", "w", SettleKind.RELEASE),
        (started, "b", "mail", "w", SettleKind.RETRY),
        (last, "c", "mail", "w", SettleKind.BURY),
        (unwanted, "d", "mail", "w", SettleKind.CANCEL),
    ]
    assert expected == sorted((job.job_id, job.task, job.queue, job.worker, job.fate) for job in reclaimed)


@case("4.5")
async def a_lease_is_reclaimed_once(bench: Bench) -> None:
    job_id = await bench.enqueue()
    await bench.take_one()

    first = await bench.lose_workers()
    second = await bench.lose_workers()

    assert ([job_id], []) == ([job.job_id for job in first], second)


@case("4.5")
async def a_limited_reclaim_takes_whole_leases_and_leaves_the_rest_for_later(bench: Bench) -> None:
    ids = [await bench.enqueue() for _ in range(5)]
    for size in (3, 1, 1):
        await bench.take(size)
    bench.advance(DAY)

    steps = [await bench.reclaim(limit=1) for _ in range(4)]

    taken = [sorted(job.job_id for job in step) for step in steps]
    expected = [[], ids[:3], ids[3:4], ids[4:]]
    assert expected == sorted(taken), "each step takes one lease, whole"


@case("4.3", "4.5")
async def what_was_settled_is_not_reclaimed_with_the_rest_of_its_lease(bench: Bench) -> None:
    done, left = await bench.enqueue(), await bench.enqueue()
    first, _ = await bench.take()
    await bench.settle(success(first))

    reclaimed = await bench.lose_workers()

    assert [left] == [job.job_id for job in reclaimed]
    assert JobState.SUCCEEDED == await bench.state(done)


@case("4.1")
async def a_crashed_workers_jobs_are_delivered_again(bench: Bench) -> None:
    ids = [await bench.enqueue(payload=b"%d" % number, retry=AT_ONCE) for number in range(10)]
    deliveries = await bench.take()
    await bench.start(*deliveries[::2])
    await bench.lose_workers()

    again = {delivery.id: delivery.payload for delivery in await bench.take(worker="worker-2")}

    assert {job_id: b"%d" % number for number, job_id in enumerate(ids)} == again


# --- a job that was started


@case("4.4", "4.6")
async def a_started_job_is_charged_and_waits_for_its_backoff_after_a_crash(bench: Bench) -> None:
    job_id = await bench.enqueue(retry=STEADY)
    await bench.start(await bench.take_one(worker="worker-7"))

    await bench.lose_workers()

    record = await bench.record(job_id)
    assert (JobState.RETRYING, 1, 1) == (record.state, record.attempt, record.crashes)
    assert [(1, bench.now, "worker-7")] == [
        (error.attempt, error.at, error.worker) for error in record.errors
    ]
    assert ("", None, False) == (record.worker, record.lease_expires_at, record.started)
    bench.advance(10 * SECOND - SECOND)
    assert [] == await bench.take_ids()
    bench.advance(SECOND)
    assert 2 == (await bench.take_one()).attempt


@case("4.4", "4.6")
async def the_backoff_after_a_crash_grows_by_the_jobs_own_numbers(bench: Bench) -> None:
    numbers = RetryNumbers(max_attempts=9, base_seconds=4, factor=3, cap_seconds=30, jitter=False)
    await bench.enqueue(retry=numbers)
    waits: list[float] = []

    for _ in range(4):
        await bench.start(await bench.take_one())
        await bench.lose_workers()
        hint = (await bench.reserve()).next_due_in
        assert hint is not None, "the job is due some time"
        waits.append(hint.total_seconds())
        bench.advance(hint)

    assert [4, 12, 30, 30] == waits


@case("4.4", "4.6")
async def a_backoff_with_jitter_ends_within_its_ceiling(bench: Bench) -> None:
    numbers = RetryNumbers(max_attempts=9, base_seconds=20, factor=2, cap_seconds=60, jitter=True)
    ids = [await bench.enqueue(retry=numbers) for _ in range(30)]
    await bench.start(*await bench.take())
    await bench.lose_workers()

    at_once = await bench.take_ids()
    bench.advance(20 * SECOND)
    later = await bench.take_ids()

    assert sorted(ids) == sorted(at_once + later), "all are due when the ceiling has passed"
    assert len(at_once) < len(ids), "not all drew a wait of zero"


@case("4.4", "4.6", "4.7")
async def crashes_use_up_the_attempts(bench: Bench) -> None:
    job_id = await bench.enqueue(payload=b"poison", retry=RetryNumbers(2, 0, 1, 0, jitter=False))
    await bench.start(await bench.take_one())
    await bench.lose_workers()
    await bench.start(await bench.take_one())

    await bench.lose_workers()

    record = await bench.record(job_id)
    assert (JobState.DEAD, 2, 2) == (record.state, record.attempt, record.crashes)
    assert (b"poison", [1, 2]) == (record.payload, [error.attempt for error in record.errors])
    assert (bench.now, True) == (record.finished_at, bool(record.reason))
    assert [] == await bench.take()


@case("4.4", "4.6")
async def failures_and_crashes_count_alike(bench: Bench) -> None:
    job_id = await bench.enqueue(retry=RetryNumbers(2, 0, 1, 0, jitter=False))
    await bench.settle(failure(await bench.take_one()))
    await bench.start(await bench.take_one())

    (reclaimed,) = await bench.lose_workers()

    assert SettleKind.BURY == reclaimed.fate
    assert JobState.DEAD == await bench.state(job_id)


@case("4.4")
async def a_released_start_is_not_charged(bench: Bench) -> None:
    job_id = await bench.enqueue()
    delivery = await bench.take_one()
    await bench.start(delivery)
    await bench.settle(release(delivery))

    again = await bench.take_one()

    record = await bench.record(job_id)
    assert (1, False) == (again.attempt, again.guarded)
    assert (0, False) == (record.attempt, record.started), "the start was of the lease before"


@case("4.4")
async def an_old_start_is_not_charged_to_a_later_delivery(bench: Bench) -> None:
    job_id = await bench.enqueue()
    delivery = await bench.take_one()
    await bench.start(delivery)
    await bench.settle(release(delivery))
    await bench.take_one()

    (reclaimed,) = await bench.lose_workers()

    assert SettleKind.RELEASE == reclaimed.fate
    assert 0 == (await bench.record(job_id)).attempt


# --- a job that was not started


@case("4.4")
async def a_job_never_started_goes_back_to_the_front_uncharged_and_guarded(bench: Bench) -> None:
    lost = await bench.enqueue()
    await bench.take_one()
    waiting = await bench.enqueue()

    await bench.lose_workers()

    record = await bench.record(lost)
    first, second = await bench.take()
    assert (JobState.READY, 0, 0, ()) == (record.state, record.attempt, record.crashes, record.errors)
    assert (lost, waiting) == (first.id, second.id)
    assert (1, True, False) == (first.attempt, first.guarded, first.solo)
    assert (True, False) == (record.guarded, second.guarded)


@case("4.4")
async def a_started_job_is_guarded_after_a_crash_too(bench: Bench) -> None:
    await bench.enqueue(retry=AT_ONCE)
    await bench.start(await bench.take_one())
    await bench.lose_workers()

    delivery = await bench.take_one()

    assert (True, False) == (delivery.guarded, delivery.solo)


@case("4.4")
async def a_guarded_job_is_guarded_for_good(bench: Bench) -> None:
    job_id = await bench.enqueue()
    await bench.take_one()
    await bench.lose_workers()
    guarded: list[bool] = []

    for end in (release, snooze, failure, burial, success):
        delivery = await bench.take_one()
        guarded.append(delivery.guarded)
        await bench.settle(end(delivery))
        if end is burial:
            await bench.requeue(job_id)

    assert [True] * 5 == guarded


@case("4.4")
async def a_job_of_one_attempt_is_always_guarded(bench: Bench) -> None:
    job_id = await bench.enqueue(retry=RetryNumbers(max_attempts=1))

    held_back = await bench.take(guarded_limit=0)
    delivery = await bench.take_one(guarded_limit=1)

    assert ([], True, False) == (held_back, delivery.guarded, delivery.solo)
    assert (await bench.record(job_id)).guarded


@case("4.4")
async def a_job_of_one_attempt_that_was_started_dies_with_its_worker(bench: Bench) -> None:
    job_id = await bench.enqueue(retry=RetryNumbers(max_attempts=1))
    await bench.start(await bench.take_one())

    await bench.lose_workers()

    record = await bench.record(job_id)
    assert (JobState.DEAD, 1, 1) == (record.state, record.attempt, len(record.errors))


@case("4.4")
async def a_job_of_one_attempt_that_was_not_started_is_delivered_again(bench: Bench) -> None:
    job_id = await bench.enqueue(retry=RetryNumbers(max_attempts=1))
    await bench.take_one()

    await bench.lose_workers()

    assert job_id == (await bench.take_one()).id


# --- guarded jobs and free slots


async def _guarded(bench: Bench, count: int) -> list[str]:
    return [await bench.enqueue(retry=RetryNumbers(max_attempts=1)) for _ in range(count)]


@case("4.4")
async def guarded_jobs_are_taken_only_into_free_slots(bench: Bench) -> None:
    ids = await _guarded(bench, 3)

    reservation = await bench.reserve(guarded_limit=2)

    assert ids[:2] == [delivery.id for delivery in reservation.deliveries]
    assert reservation.held_back


@case("4.4")
async def a_reserve_ends_at_the_first_guarded_job_beyond_its_slots(bench: Bench) -> None:
    before = await bench.enqueue()
    (guarded,) = await _guarded(bench, 1)
    after = await bench.enqueue()
    less_urgent = await bench.enqueue(priority=9)

    reservation = await bench.reserve(guarded_limit=0)
    rest = await bench.take_ids(guarded_limit=1)

    assert [before] == [delivery.id for delivery in reservation.deliveries]
    assert reservation.held_back
    assert [guarded, after, less_urgent] == rest, "nobody overtook it"


@case("4.4")
async def a_reserve_that_took_all_was_not_held_back(bench: Bench) -> None:
    await _guarded(bench, 2)
    await bench.enqueue()

    reservation = await bench.reserve(guarded_limit=2)

    assert (3, False) == (len(reservation.deliveries), reservation.held_back)


@case("4.4")
async def unguarded_jobs_use_up_no_guarded_slots(bench: Bench) -> None:
    plain = [await bench.enqueue() for _ in range(3)]
    guarded = await _guarded(bench, 1)

    assert plain + guarded == await bench.take_ids(guarded_limit=1)


# --- solo


async def _solo(bench: Bench, count: int) -> list[str]:
    """Return jobs that two workers died of, due now."""
    return await _made_solo(bench, [await bench.enqueue(retry=AT_ONCE) for _ in range(count)])


async def _made_solo(bench: Bench, ids: list[str]) -> list[str]:
    """Have two workers die of jobs, which are all there are."""
    for _ in range(2):
        for _ in ids:
            await bench.start(await bench.take_one())
        await bench.lose_workers()
    return ids


@case("4.4")
async def a_job_that_two_workers_died_of_runs_alone(bench: Bench) -> None:
    await bench.enqueue(retry=AT_ONCE)
    seen: list[tuple[bool, bool]] = []

    for _ in range(3):
        delivery = await bench.take_one()
        seen.append((delivery.guarded, delivery.solo))
        await bench.start(delivery)
        await bench.lose_workers()

    assert [(False, False), (True, False), (True, True)] == seen


@case("4.4")
async def crashes_before_the_start_make_no_job_solo(bench: Bench) -> None:
    job_id = await bench.enqueue()

    for _ in range(4):
        await bench.take_one()
        await bench.lose_workers()

    assert not (await bench.take_one()).solo
    assert 0 == (await bench.record(job_id)).crashes


@case("4.4")
async def no_solo_job_is_taken_unless_allowed(bench: Bench) -> None:
    (solo,) = await _solo(bench, 1)

    without = await bench.take_ids(solo=False)
    allowed = await bench.take_ids(solo=True)

    assert ([], [solo]) == (without, allowed)


@case("4.4")
async def at_most_one_solo_job_is_taken_at_a_time(bench: Bench) -> None:
    ids = await _solo(bench, 3)

    first, second = await bench.take_ids(), await bench.take_ids()

    assert (1, 1) == (len(first), len(second))
    assert {*first, *second} < set(ids)


@case("4.4")
async def solo_jobs_hold_up_nobody_else(bench: Bench) -> None:
    solos = await _solo(bench, 2)
    plain = [await bench.enqueue() for _ in range(2)]
    guarded = await _guarded(bench, 1)

    without = await bench.take_ids(2, solo=False)
    allowed = await bench.take_ids(solo=True)

    assert plain == without
    assert {*guarded} < {*allowed} < {*guarded, *solos}
    assert 2 == len(allowed)


@case("4.4", "4.10")
async def solo_jobs_that_are_passed_over_take_up_no_room(bench: Bench) -> None:
    """Of several priorities: each is the first in its lane."""
    first, *_ = await _made_solo(bench, [await bench.enqueue(retry=AT_ONCE, priority=n) for n in range(4)])
    plain = [await bench.enqueue() for _ in range(3)]

    alone = await bench.take_ids(2)
    among_queues = await bench.take_ids(2, queues=["default", "mail"], solo=False)

    assert ([first, plain[0]], plain[1:]) == (alone, among_queues)


@case("4.4", "4.10")
async def solo_jobs_of_other_queues_take_up_no_room(bench: Bench) -> None:
    ids = [await bench.enqueue(retry=AT_ONCE, priority=n) for n in range(4)]
    first, *_ = await _made_solo(bench, ids)
    plain = await bench.enqueue(queue="mail")

    assert [first, plain] == await bench.take_ids(2, queues=["default", "mail"])


@case("4.4")
async def a_solo_job_stays_solo_however_it_comes_back(bench: Bench) -> None:
    (job_id,) = await _solo(bench, 1)
    solo: list[bool] = []

    for end in (release, snooze, failure, burial, success):
        delivery = await bench.take_one()
        solo.append(delivery.solo)
        await bench.settle(end(delivery))
        if end is burial:
            await bench.requeue(job_id)

    assert [True] * 5 == solo


# --- deliveries lost in a row


async def _lose(bench: Bench, times: int) -> None:
    for _ in range(times):
        await bench.take_one()
        await bench.lose_workers()


async def _start_and_fail(bench: Bench) -> None:
    delivery = await bench.take_one()
    await bench.start(delivery)
    await bench.settle(failure(delivery))


@case("4.4")
async def ten_deliveries_lost_in_a_row_end_a_job(bench: Bench) -> None:
    job_id = await bench.enqueue(payload=b"poison")
    await _lose(bench, LOST_LIMIT - 1)
    before = await bench.record(job_id)

    await _lose(bench, 1)

    record = await bench.record(job_id)
    assert (10, JobState.READY) == (LOST_LIMIT, before.state)
    assert (JobState.DEAD, 0, b"poison") == (record.state, record.attempt, record.payload)
    assert (1, True) == (len(record.errors), bool(record.reason))


@case("4.4")
async def handing_back_does_not_count_as_a_lost_delivery(bench: Bench) -> None:
    job_id = await bench.enqueue()

    for _ in range(LOST_LIMIT + 1):
        await bench.settle(release(await bench.take_one()))
    await _lose(bench, LOST_LIMIT - 1)

    assert JobState.READY == await bench.state(job_id)


@case("4.4")
async def an_attempt_ends_the_row_of_lost_deliveries(bench: Bench) -> None:
    job_id = await bench.enqueue()
    await _lose(bench, LOST_LIMIT - 1)
    await _start_and_fail(bench)

    await _lose(bench, LOST_LIMIT - 1)

    assert JobState.READY == await bench.state(job_id)


@case("4.4")
async def a_started_delivery_ends_the_row_even_if_it_crashed(bench: Bench) -> None:
    job_id = await bench.enqueue(retry=AT_ONCE)
    await _lose(bench, LOST_LIMIT - 1)
    await bench.start(await bench.take_one())
    await bench.lose_workers()

    await _lose(bench, LOST_LIMIT - 1)

    assert JobState.READY == await bench.state(job_id)


@case("4.4", "4.7")
async def a_requeue_ends_the_row_of_lost_deliveries(bench: Bench) -> None:
    job_id = await bench.enqueue()
    await _lose(bench, LOST_LIMIT)
    await bench.requeue(job_id)

    await _lose(bench, LOST_LIMIT - 1)

    assert JobState.READY == await bench.state(job_id)


@case("4.4")
async def only_the_jobs_of_the_crashed_worker_become_guarded(bench: Bench) -> None:
    await bench.enqueue()
    await bench.take_one(worker="dead")
    bystander = await bench.enqueue()
    await bench.lose_workers()

    guarded = {delivery.id: delivery.guarded for delivery in await bench.take()}

    assert False is guarded[bystander]


@case("4.4")
async def a_poison_job_ends_and_its_neighbours_do_not(bench: Bench) -> None:
    """A worker reports what it started and dies of one job, again and again, as the rule has it."""
    neighbours = [await bench.enqueue() for _ in range(3)]
    poison = await bench.enqueue()
    neighbours += [await bench.enqueue() for _ in range(3)]

    for _ in range(30):
        deliveries = await bench.take(guarded_limit=2)
        if any(delivery.id == poison for delivery in deliveries):
            await _die_of(bench, poison, deliveries)
        else:
            await bench.settle(*map(success, deliveries))
        bench.advance(60 * SECOND)

    assert JobState.DEAD == await bench.state(poison)
    assert [JobState.SUCCEEDED] * 6 == [await bench.state(job_id) for job_id in neighbours]


async def _die_of(bench: Bench, poison: str, deliveries: list[Delivery]) -> None:
    # Guarded starts are written before they run; of the others the worker had no time to tell.
    await bench.start(*(delivery for delivery in deliveries if delivery.guarded and delivery.id == poison))
    await bench.lose_workers()


@case("4.3", "4.5")
async def an_extended_lease_can_be_settled_in_parts_until_the_last_job(bench: Bench) -> None:
    for _ in range(3):
        await bench.enqueue()
    first, second, third = await bench.take()

    await bench.settle(success(first))
    kept = await bench.extend(second)
    await bench.settle(success(second), success(third))
    gone = await bench.extend(third)
    (again,) = await bench.answers(success(third))

    assert ([], [third.token]) == (list(kept.lost), list(gone.lost))
    assert SettleStatus.ALREADY == again.status


@case("4.2", "4.5")
async def an_old_lease_takes_back_only_what_it_still_holds(bench: Bench) -> None:
    first, second = await bench.enqueue(), await bench.enqueue()
    early = await bench.take(lease=10 * SECOND)
    await bench.settle(release(early[0]))
    later = await bench.take(lease=HOUR)

    bench.advance(20 * SECOND)
    reclaimed = await bench.reclaim()

    assert [first] == [delivery.id for delivery in later]
    assert [second] == [job.job_id for job in reclaimed]
    assert [JobState.SUCCEEDED] == await bench.settle(success(later[0]))


@case("4.11")
async def the_first_reason_of_a_cancel_stands(bench: Bench) -> None:
    await bench.enqueue()
    delivery = await bench.take_one()

    await bench.cancel(delivery.id, reason="the first")
    await bench.cancel(delivery.id, reason="the second")
    told = await bench.extend(delivery)
    await bench.settle(failure(delivery))

    assert ["the first"] == [cancel.reason for cancel in told.cancels]
    assert "the first" == (await bench.record(delivery.id)).reason
