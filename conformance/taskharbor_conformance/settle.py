"""job_settle: the fence, and what each way to end leaves behind."""

from __future__ import annotations

from datetime import datetime

from taskharbor.job import JobState, new_token
from taskharbor.settlement import Settlement, SettleStatus
from taskharbor_conformance.bench import (
    DAY,
    HOUR,
    LEASE,
    SECOND,
    UNKNOWN,
    Bench,
    burial,
    cancellation,
    failure,
    release,
    snooze,
    stray,
    success,
)
from taskharbor_conformance.case import case

SETTLED, ALREADY, STALE = SettleStatus.SETTLED, SettleStatus.ALREADY, SettleStatus.STALE


# --- the fence


@case("4.3", "4.1")
async def settling_a_reclaimed_job_with_the_old_lease_changes_nothing(bench: Bench) -> None:
    job_id = await bench.enqueue()
    old = await bench.take_one()
    await bench.lose_workers()
    before = await bench.record(job_id)

    for end in (success, failure, snooze, release, burial, cancellation, stray):
        (answer,) = await bench.answers(end(old))
        assert (STALE, None) == (answer.status, answer.state)

    assert before == await bench.record(job_id)


@case("4.3", "4.1")
async def an_old_lease_does_not_settle_what_another_worker_holds_now(bench: Bench) -> None:
    job_id = await bench.enqueue()
    old = await bench.take_one()
    await bench.lose_workers()
    new = await bench.take_one(worker="worker-2")
    before = await bench.record(job_id)

    (stale,) = await bench.answers(success(old, b"old"))

    assert STALE == stale.status
    assert before == await bench.record(job_id)
    assert [JobState.SUCCEEDED] == await bench.settle(success(new, b"new"))
    assert b"new" == (await bench.record(job_id)).result


@case("4.3")
async def an_old_lease_before_the_valid_one_in_a_batch_does_not_hide_it(bench: Bench) -> None:
    job_id = await bench.enqueue()
    old = await bench.take_one()
    await bench.lose_workers()
    now = await bench.take_one()

    answers = await bench.answers(success(old), success(now), success(now))

    assert [STALE, SettleStatus.SETTLED, SettleStatus.ALREADY] == [answer.status for answer in answers]
    assert JobState.SUCCEEDED is await bench.state(job_id)


@case("4.3")
async def settling_twice_is_told_and_writes_once(bench: Bench) -> None:
    job_id = await bench.enqueue()
    delivery = await bench.take_one()
    first = await bench.answers(success(delivery, b"first"))
    bench.advance(SECOND)
    before = await bench.record(job_id)

    second = await bench.answers(success(delivery, b"second"))

    assert [(SETTLED, JobState.SUCCEEDED)] == [(answer.status, answer.state) for answer in first]
    assert [(ALREADY, None)] == [(answer.status, answer.state) for answer in second]
    assert before == await bench.record(job_id)


@case("4.3")
async def a_failure_settled_twice_is_charged_once(bench: Bench) -> None:
    job_id = await bench.enqueue()
    delivery = await bench.take_one()
    await bench.settle(failure(delivery, after=HOUR))

    (again,) = await bench.answers(failure(delivery, after=2 * HOUR))

    record = await bench.record(job_id)
    assert (ALREADY, 1, 1) == (again.status, record.attempt, len(record.errors))
    bench.advance(HOUR)
    assert [job_id] == await bench.take_ids(), "the first answer stands"


@case("4.3")
async def every_way_to_end_is_remembered_until_the_next_reserve(bench: Bench) -> None:
    job_id = await bench.enqueue()

    for end in (release, snooze, failure, stray):
        delivery = await bench.take_one()
        await bench.settle(end(delivery))
        (repeated,) = await bench.answers(end(delivery))
        await bench.take_one()
        (too_late,) = await bench.answers(end(delivery))

        assert (ALREADY, STALE) == (repeated.status, too_late.status), end.__name__
        await bench.lose_workers()

    assert [job_id] == await bench.take_ids()


@case("4.3")
async def a_finished_job_remembers_its_settlement_for_as_long_as_it_is_kept(bench: Bench) -> None:
    job_id = await bench.enqueue()
    delivery = await bench.take_one()
    await bench.settle(success(delivery))
    bench.advance(DAY)

    (kept,) = await bench.answers(success(delivery))
    await bench.delete(job_id)
    (removed,) = await bench.answers(success(delivery))

    assert (ALREADY, STALE) == (kept.status, removed.status)


@case("4.3")
async def a_token_that_holds_nothing_settles_nothing(bench: Bench) -> None:
    job_id = await bench.enqueue()
    ready = await bench.record(job_id)
    guess = Settlement(job_id, new_token(), success(await bench.take_one()).kind, b"guess", charge=True)
    running = await bench.record(job_id)

    (answer,) = await bench.answers(guess)

    assert STALE == answer.status
    assert running == await bench.record(job_id)
    assert JobState.READY == ready.state


@case("4.3")
async def one_leases_token_does_not_settle_another_leases_job(bench: Bench) -> None:
    await bench.enqueue()
    other = await bench.enqueue()
    mine = await bench.take_one()
    theirs = await bench.take_one(worker="worker-2")
    forged = Settlement(theirs.id, mine.token, success(theirs).kind, b"forged", charge=True)

    (answer,) = await bench.answers(forged)

    assert STALE == answer.status
    assert JobState.RUNNING == await bench.state(other)


@case("4.3")
async def a_job_never_reserved_or_never_stored_cannot_be_settled(bench: Bench) -> None:
    delivery_of = await bench.enqueue()
    held = await bench.take_one()
    await bench.settle(release(held))
    waiting = await bench.enqueue()
    forged = Settlement(waiting, held.token, success(held).kind, charge=True)
    unknown = Settlement(UNKNOWN, held.token, success(held).kind)

    answers = await bench.answers(forged, unknown)

    assert [STALE, STALE] == [answer.status for answer in answers]
    assert [delivery_of, waiting] == await bench.take_ids()


@case("4.3", "4.5")
async def an_expired_lease_that_nobody_reclaimed_still_settles(bench: Bench) -> None:
    await bench.enqueue()
    delivery = await bench.take_one()
    bench.advance(10 * LEASE)

    assert [JobState.SUCCEEDED] == await bench.settle(success(delivery))


@case("4.3")
async def a_lease_settled_in_part_holds_the_rest(bench: Bench) -> None:
    ids = [await bench.enqueue() for _ in range(3)]
    first, second, third = await bench.take()

    await bench.settle(success(second))

    assert [ids[0], ids[2]] == await bench.find_ids(JobState.RUNNING)
    assert [] == await bench.take_ids()
    assert [JobState.SUCCEEDED] * 2 == await bench.settle(success(first), success(third))


# --- batches


@case("4.13")
async def each_job_of_a_batch_is_settled_by_itself(bench: Bench) -> None:
    ids = [await bench.enqueue() for _ in range(8)]
    gone, good, done, *rest = await bench.take()
    await bench.settle(success(done, b"kept"))
    await bench.settle(release(gone))
    await bench.take_one()
    ends = (failure(rest[0], HOUR), snooze(rest[1], HOUR), release(rest[2]), burial(rest[3]))

    answers = await bench.answers(
        success(gone), success(good), success(done, b"lost"), *ends, cancellation(rest[4])
    )

    assert [
        (STALE, None),
        (SETTLED, JobState.SUCCEEDED),
        (ALREADY, None),
        (SETTLED, JobState.RETRYING),
        (SETTLED, JobState.SCHEDULED),
        (SETTLED, JobState.READY),
        (SETTLED, JobState.DEAD),
        (SETTLED, JobState.CANCELLED),
    ] == [(answer.status, answer.state) for answer in answers]
    assert b"kept" == (await bench.record(ids[2])).result
    assert JobState.RUNNING == await bench.state(ids[0])


@case("4.13")
async def a_batch_may_span_leases_and_queues(bench: Bench) -> None:
    for number in range(6):
        await bench.enqueue(queue=f"queue {number % 3}")
    queues = [f"queue {number}" for number in range(3)]
    deliveries = [await bench.take_one(queues=queues) for _ in range(6)]

    states = await bench.settle(*map(success, reversed(deliveries)))

    assert [JobState.SUCCEEDED] * 6 == states


@case("4.13", "4.3")
async def one_job_twice_in_one_batch_is_settled_once(bench: Bench) -> None:
    job_id = await bench.enqueue()
    delivery = await bench.take_one()

    answers = await bench.answers(success(delivery, b"first"), failure(delivery))

    record = await bench.record(job_id)
    assert [SETTLED, ALREADY] == [answer.status for answer in answers]
    assert (JobState.SUCCEEDED, b"first", 1, ()) == (
        record.state,
        record.result,
        record.attempt,
        record.errors,
    )


@case("4.13")
async def an_empty_batch_settles_nothing(bench: Bench) -> None:
    assert [] == await bench.answers()


@case("4.13")
async def results_and_errors_stay_with_their_jobs(bench: Bench) -> None:
    ids = [await bench.enqueue() for _ in range(100)]
    deliveries = await bench.take()

    await bench.settle(
        *(
            success(delivery, b"%d" % number)
            if number % 2
            else burial(delivery, f"reason {number}", f"message {number}")
            for number, delivery in enumerate(deliveries)
        )
    )

    for number, job_id in enumerate(ids):
        record = await bench.record(job_id)
        if number % 2:
            assert (b"%d" % number, ()) == (record.result, record.errors)
        else:
            assert (f"reason {number}", [f"message {number}"]) == (
                record.reason,
                [error.message for error in record.errors],
            )


# --- success


@case("4.8", "4.13")
async def a_success_keeps_its_result(bench: Bench) -> None:
    job_id = await bench.enqueue()
    delivery = await bench.take_one()
    bench.advance(SECOND)

    await bench.settle(success(delivery, b"\x00\xffresult", "msgpack"))

    record = await bench.record(job_id)
    assert (JobState.SUCCEEDED, bench.now, 1) == (record.state, record.finished_at, record.attempt)
    assert (b"\x00\xffresult", "msgpack") == (record.result, record.result_codec)
    assert ("", None, False) == (record.worker, record.lease_expires_at, record.started)
    assert [] == await bench.take()


@case("4.13")
async def an_empty_result_is_not_the_same_as_none(bench: Bench) -> None:
    empty, none = await bench.enqueue(), await bench.enqueue()
    first, second = await bench.take()

    await bench.settle(success(first, b""), success(second, None, ""))

    assert (b"", None) == ((await bench.record(empty)).result, (await bench.record(none)).result)


# --- failure


@case("4.6")
async def a_failed_job_is_due_again_after_its_wait_and_not_before(bench: Bench) -> None:
    job_id = await bench.enqueue()

    states = await bench.settle(failure(await bench.take_one(), after=90 * SECOND))

    bench.advance(89 * SECOND)
    early = await bench.take_ids()
    retrying = await bench.state(job_id)
    bench.advance(SECOND)
    assert ([JobState.RETRYING], [], JobState.RETRYING) == (states, early, retrying)
    assert JobState.READY == await bench.state(job_id)
    assert 2 == (await bench.take_one()).attempt


@case("4.6")
async def the_wait_of_a_failure_is_the_workers_to_say(bench: Bench) -> None:
    """`RetryLater` and `Retry.on` decide in the worker: the store applies what it is told, not the job's numbers."""
    job_id = await bench.enqueue()

    await bench.settle(failure(await bench.take_one(), after=3 * SECOND))

    bench.advance(3 * SECOND)
    assert [job_id] == await bench.take_ids()


@case("4.6")
async def a_wait_of_nothing_is_due_at_once(bench: Bench) -> None:
    await bench.enqueue()

    states = await bench.settle(failure(await bench.take_one()))

    assert [JobState.READY] == states
    assert 2 == (await bench.take_one()).attempt


@case("4.7")
async def every_failed_attempt_leaves_its_error_in_order(bench: Bench) -> None:
    job_id = await bench.enqueue()
    times: list[datetime] = []

    for number in range(1, 4):
        bench.advance(SECOND)
        times.append(bench.now)
        await bench.settle(failure(await bench.take_one(), message=f"failure {number}\n\tÆ"))

    record = await bench.record(job_id)
    expected = [
        (number, at, "ValueError", f"failure {number}\n\tÆ", "Traceback ...", "worker-1")
        for number, at in enumerate(times, start=1)
    ]
    assert 3 == record.attempt
    assert expected == [
        (error.attempt, error.at, error.type, error.message, error.traceback, error.worker)
        for error in record.errors
    ]


@case("4.6", "4.7")
async def a_success_after_failures_keeps_their_errors(bench: Bench) -> None:
    job_id = await bench.enqueue()
    await bench.settle(failure(await bench.take_one()))

    await bench.settle(success(await bench.take_one()))

    record = await bench.record(job_id)
    assert (JobState.SUCCEEDED, 2, 1) == (record.state, record.attempt, len(record.errors))


@case("4.6", "4.2")
async def a_job_that_waits_for_its_retry_is_held_by_nobody(bench: Bench) -> None:
    job_id = await bench.enqueue()
    delivery = await bench.take_one()

    await bench.settle(failure(delivery, after=DAY))

    record = await bench.record(job_id)
    assert ("", None) == (record.worker, record.lease_expires_at)
    assert [delivery.token] == list((await bench.extend(delivery)).lost)
    assert [] == await bench.lose_workers()


# --- snooze, release


@case("4.4")
async def a_snooze_costs_no_attempt(bench: Bench) -> None:
    job_id = await bench.enqueue()
    delivery = await bench.take_one()
    await bench.start(delivery)

    states = await bench.settle(snooze(delivery, HOUR))

    record = await bench.record(job_id)
    bench.advance(HOUR - SECOND)
    early = await bench.take_ids()
    bench.advance(SECOND)
    assert ([JobState.SCHEDULED], 0, ()) == (states, record.attempt, record.errors)
    assert ([], 1) == (early, (await bench.take_one()).attempt)


@case("4.4")
async def a_snooze_gives_back_no_attempt_spent_before(bench: Bench) -> None:
    job_id = await bench.enqueue()
    await bench.settle(failure(await bench.take_one()))

    await bench.settle(snooze(await bench.take_one()))

    assert 1 == (await bench.record(job_id)).attempt
    assert 2 == (await bench.take_one()).attempt


@case("4.4", "4.10")
async def a_release_is_ready_at_once_and_costs_nothing(bench: Bench) -> None:
    job_id = await bench.enqueue()

    states = await bench.settle(release(await bench.take_one()))

    record = await bench.record(job_id)
    assert ([JobState.READY], 0, (), False) == (states, record.attempt, record.errors, record.guarded)
    assert 1 == (await bench.take_one()).attempt


# --- dead letters


@case("4.7")
async def a_dead_letter_keeps_its_payload_its_errors_and_the_reason(bench: Bench) -> None:
    job_id = await bench.enqueue(payload=b"arguments", meta={"a": "b"}, key="k")
    await bench.settle(failure(await bench.take_one(), message="first"))

    states = await bench.settle(burial(await bench.take_one(), "attempts used up", "second"))

    record = await bench.record(job_id)
    assert ([JobState.DEAD], "attempts used up", bench.now) == (states, record.reason, record.finished_at)
    assert (b"arguments", {"a": "b"}, "k") == (record.payload, record.meta, record.key)
    assert (2, ["first", "second"]) == (record.attempt, [error.message for error in record.errors])


@case("4.7", "4.8")
async def a_dead_letter_is_not_tried_again(bench: Bench) -> None:
    await bench.enqueue()
    await bench.settle(burial(await bench.take_one()))

    bench.advance(100 * DAY)

    assert [] == await bench.take()
    assert [] == await bench.reclaim()


@case("4.11")
async def a_cancelled_delivery_ends_its_job_with_the_reason(bench: Bench) -> None:
    job_id = await bench.enqueue()

    states = await bench.settle(cancellation(await bench.take_one(), "not needed"))

    record = await bench.record(job_id)
    assert ([JobState.CANCELLED], "not needed", bench.now) == (states, record.reason, record.finished_at)
    assert [] == await bench.take()


@case("4.8")
async def a_terminal_state_never_changes_by_itself(bench: Bench) -> None:
    succeeded, dead, cancelled = [await bench.enqueue() for _ in range(3)]
    first, second, third = await bench.take()
    await bench.settle(success(first), burial(second), cancellation(third))
    before = await bench.get(succeeded, dead, cancelled)

    for end in (success, failure, snooze, release, burial, cancellation, stray):
        await bench.answers(end(first), end(second), end(third))
    await bench.extend(first, started=[second, third])
    await bench.cancel(succeeded, dead, cancelled, reason="too late")
    await bench.lose_workers()

    assert before == await bench.get(succeeded, dead, cancelled)


@case("4.6", "4.10")
async def a_record_tells_when_a_job_may_be_taken_next(bench: Bench) -> None:
    began = bench.now
    job_id = await bench.enqueue(run_in=HOUR)
    scheduled = await bench.record(job_id)
    bench.advance(HOUR)
    delivery = await bench.take_one()
    running = await bench.record(job_id)
    await bench.settle(failure(delivery, after=SECOND))

    retrying = await bench.record(job_id)

    assert (began + HOUR, None, bench.now + SECOND) == (scheduled.due_at, running.due_at, retrying.due_at)
    assert began + HOUR == retrying.run_at


@case("4.3", "4.13")
async def a_success_that_stands_twice_in_a_batch_is_written_once(bench: Bench) -> None:
    job_id = await bench.enqueue()
    delivery = await bench.take_one()

    answers = await bench.answers(success(delivery, b"first"), success(delivery, b"second"))

    assert [SettleStatus.SETTLED, SettleStatus.ALREADY] == [answer.status for answer in answers]
    assert b"first" == (await bench.record(job_id)).result
