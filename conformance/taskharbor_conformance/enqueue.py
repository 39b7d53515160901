"""job_enqueue: what is stored, idempotency keys, batches."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from taskharbor.driver import EnqueueStatus, JobEnqueue, JobGet
from taskharbor.job import JobState, OnConflict
from taskharbor.retry import RetryNumbers
from taskharbor_conformance.bench import (
    DAY,
    HOUR,
    NOW,
    SECOND,
    Bench,
    burial,
    failure,
    new_job,
    success,
)
from taskharbor_conformance.case import case

CREATED, EXISTING, CONFLICT, LEFT_OUT = (
    EnqueueStatus.CREATED,
    EnqueueStatus.EXISTING,
    EnqueueStatus.CONFLICT,
    EnqueueStatus.LEFT_OUT,
)


@case("4.1")
async def a_stored_job_can_be_looked_up_as_it_was_handed_in(bench: Bench) -> None:
    job = new_job(
        queue="mail",
        priority=3,
        payload=b'{"to":"a@b.c"}',
        fingerprint=2**63 - 1,
        retry=RetryNumbers(max_attempts=7),
        meta={"tenant": "Ærø"},
        key="order 1",
        keep_result=False,
    )

    (answer,) = await bench.enqueue_all(job)

    record = await bench.record(job.id)
    assert (CREATED, job.id) == (answer.status, answer.job_id)
    assert (job.task, "mail", 3, JobState.READY) == (record.task, record.queue, record.priority, record.state)
    assert (job.payload, "json", 2**63 - 1) == (record.payload, record.codec, record.fingerprint)
    assert ({"tenant": "Ærø"}, "order 1", 7, False) == (
        record.meta,
        record.key,
        record.max_attempts,
        record.keep_result,
    )
    assert (bench.now, bench.now, None) == (record.enqueued_at, record.run_at, record.finished_at)
    assert (0, 0, 0, False) == (record.attempt, record.deliveries, record.crashes, record.cancel_requested)
    assert ((), (), None, "") == (record.errors, record.operations, record.result, record.worker)


@case("4.1")
async def payloads_are_bytes_and_stay_as_they_are(bench: Bench) -> None:
    payloads = [b"", bytes(range(256)), b"\x00", b"x" * 300_000]

    for payload in payloads:
        await bench.enqueue(payload=payload)

    deliveries = await bench.take()
    assert payloads == [delivery.payload for delivery in deliveries]


@case("4.1")
async def a_batch_is_stored_whole_and_answered_in_order(bench: Bench) -> None:
    jobs = [new_job(payload=b"%d" % number) for number in range(500)]

    answers = await bench.enqueue_all(*jobs)

    assert [(CREATED, job.id) for job in jobs] == [(answer.status, answer.job_id) for answer in answers]
    assert [job.id for job in jobs] == await bench.find_ids()


@case("4.1")
async def an_empty_batch_stores_nothing(bench: Bench) -> None:
    assert [] == await bench.enqueue_all()
    assert [] == await bench.find_ids()


@case("4.9")
async def the_same_id_twice_stores_one_job(bench: Bench) -> None:
    job_id = await bench.enqueue(payload=b"first")

    (answer,) = await bench.enqueue_all(new_job(id=job_id, payload=b"second"))

    assert (EXISTING, job_id) == (answer.status, answer.job_id)
    assert [b"first"] == [delivery.payload for delivery in await bench.take()]


@case("4.9")
async def the_same_id_twice_in_one_batch_stores_one_job(bench: Bench) -> None:
    job = new_job(payload=b"first")

    answers = await bench.enqueue_all(job, new_job(id=job.id, payload=b"second"))

    assert [CREATED, EXISTING] == [answer.status for answer in answers]
    assert [b"first"] == [delivery.payload for delivery in await bench.take()]


@case("4.9", "4.8")
async def enqueueing_the_id_of_a_finished_job_again_does_not_run_it_again(bench: Bench) -> None:
    job_id = await bench.enqueue()
    await bench.finish(job_id)

    (answer,) = await bench.enqueue_all(new_job(id=job_id))

    assert EXISTING == answer.status
    assert JobState.SUCCEEDED == await bench.state(job_id)
    assert [] == await bench.take()


@case("4.9")
async def repeating_an_enqueue_whose_answer_was_lost_names_the_same_job(bench: Bench) -> None:
    job = new_job(key="k", on_conflict=OnConflict.RAISE)
    await bench.enqueue_all(job, all_or_none=True)

    (answer,) = await bench.enqueue_all(job, all_or_none=True)

    assert (EXISTING, job.id) == (answer.status, answer.job_id)


# --- keys


@case("4.9")
async def a_key_admits_one_job_while_it_is_live(bench: Bench) -> None:
    first = await bench.enqueue(key="k")

    (answer,) = await bench.enqueue_all(new_job(key="k"))

    assert (EXISTING, first) == (answer.status, answer.job_id)
    assert [first] == await bench.find_ids()


@case("4.9")
async def a_key_is_taken_whatever_the_live_job_waits_for(bench: Bench) -> None:
    scheduled = await bench.enqueue(key="scheduled", run_in=10 * DAY)
    running = await bench.enqueue(key="running")
    retrying = await bench.enqueue(key="retrying")
    deliveries = {delivery.id: delivery for delivery in await bench.take()}
    await bench.settle(failure(deliveries[retrying], after=10 * DAY))
    bench.advance(9 * DAY)

    answers = await bench.enqueue_all(*(new_job(key=key) for key in ("scheduled", "running", "retrying")))

    expected = [(EXISTING, scheduled), (EXISTING, running), (EXISTING, retrying)]
    assert expected == [(answer.status, answer.job_id) for answer in answers]


@case("4.9")
async def a_key_stays_taken_for_its_time_after_success(bench: Bench) -> None:
    first = await bench.enqueue(key="k", key_ttl=HOUR)
    bench.advance(2 * HOUR)
    await bench.finish(first)
    bench.advance(HOUR - SECOND)

    (answer,) = await bench.enqueue_all(new_job(key="k"))

    assert (EXISTING, first) == (answer.status, answer.job_id)


@case("4.9")
async def a_key_stays_taken_for_its_time_after_a_cancel(bench: Bench) -> None:
    first = await bench.enqueue(key="k", key_ttl=HOUR)
    await bench.cancel(first)
    bench.advance(HOUR - SECOND)

    (answer,) = await bench.enqueue_all(new_job(key="k"))

    assert (EXISTING, first) == (answer.status, answer.job_id)


@case("4.9")
async def a_key_stays_taken_for_its_time_after_death(bench: Bench) -> None:
    first = await bench.enqueue(key="k", key_ttl=HOUR)
    await bench.settle(burial(await bench.take_one()))
    bench.advance(HOUR - SECOND)

    (answer,) = await bench.enqueue_all(new_job(key="k"))

    assert (EXISTING, first) == (answer.status, answer.job_id)


@case("4.9")
async def a_key_is_free_when_its_time_is_over(bench: Bench) -> None:
    finished = await bench.enqueue(key="finished", key_ttl=HOUR)
    await bench.finish(finished)
    cancelled = await bench.enqueue(key="cancelled", key_ttl=HOUR)
    await bench.cancel(cancelled)
    await bench.enqueue(key="dead", key_ttl=HOUR)
    await bench.settle(burial(await bench.take_one()))
    bench.advance(HOUR + SECOND)

    answers = await bench.enqueue_all(*(new_job(key=key) for key in ("finished", "cancelled", "dead")))

    assert [CREATED, CREATED, CREATED] == [answer.status for answer in answers]


@case("4.9")
async def a_key_that_was_free_again_is_held_by_its_new_job(bench: Bench) -> None:
    first = await bench.enqueue(key="k", key_ttl=HOUR)
    await bench.finish(first)
    bench.advance(2 * HOUR)
    second = await bench.enqueue(key="k")
    bench.advance(2 * HOUR)

    (answer,) = await bench.enqueue_all(new_job(key="k"))

    assert (EXISTING, second) == (answer.status, answer.job_id)


@case("4.9")
async def a_key_of_no_time_is_free_as_soon_as_its_job_ends(bench: Bench) -> None:
    first = await bench.enqueue(key="k", key_ttl=NOW)
    (while_live,) = await bench.enqueue_all(new_job(key="k"))
    await bench.finish(first)

    (afterwards,) = await bench.enqueue_all(new_job(key="k"))

    assert (EXISTING, CREATED) == (while_live.status, afterwards.status)


@case("4.9")
async def a_failed_attempt_does_not_free_the_key(bench: Bench) -> None:
    first = await bench.enqueue(key="k", key_ttl=NOW)
    await bench.settle(failure(await bench.take_one(), after=DAY))
    (while_retrying,) = await bench.enqueue_all(new_job(key="k"))
    bench.advance(DAY)
    await bench.settle(success(await bench.take_one()))

    (afterwards,) = await bench.enqueue_all(new_job(key="k"))

    assert (EXISTING, first) == (while_retrying.status, while_retrying.job_id)
    assert CREATED == afterwards.status


@case("4.9")
async def a_keys_scope_is_its_task(bench: Bench) -> None:
    first = await bench.enqueue(task="mail.send", key="k")

    other = await bench.enqueue(task="mail.purge", key="k")

    assert [first, other] == await bench.find_ids()


@case("4.9")
async def keys_of_different_tasks_are_never_mixed_up(bench: Bench) -> None:
    pairs = [("a", "b:c"), ("a:b", "c"), ("a", "b c"), ("a b", "c"), ("a", "B:C"), ("a", "")]

    answers = await bench.enqueue_all(*(new_job(task=task, key=key) for task, key in pairs))

    assert [CREATED] * len(pairs) == [answer.status for answer in answers]


@case("4.9")
async def the_same_key_with_other_arguments_is_a_conflict(bench: Bench) -> None:
    first = await bench.enqueue(key="k", digest=b"one")

    (answer,) = await bench.enqueue_all(new_job(key="k", digest=b"two"))

    assert (CONFLICT, first) == (answer.status, answer.job_id)
    assert [first] == await bench.find_ids()


@case("4.9")
async def arguments_are_compared_by_digest_and_not_by_payload(bench: Bench) -> None:
    first = await bench.enqueue(key="k", digest=b"one", payload=b"as first encrypted")

    (answer,) = await bench.enqueue_all(new_job(key="k", digest=b"one", payload=b"as encrypted again"))

    assert (EXISTING, first) == (answer.status, answer.job_id)


@case("4.9")
async def a_conflict_lasts_as_long_as_the_key(bench: Bench) -> None:
    first = await bench.enqueue(key="k", digest=b"one", key_ttl=HOUR)
    await bench.finish(first)
    (before,) = await bench.enqueue_all(new_job(key="k", digest=b"two"))
    bench.advance(HOUR + SECOND)

    (after,) = await bench.enqueue_all(new_job(key="k", digest=b"two"))

    assert (CONFLICT, CREATED) == (before.status, after.status)


@case("4.9")
async def two_jobs_of_one_key_in_one_batch_store_the_first(bench: Bench) -> None:
    first, second = new_job(key="k"), new_job(key="k")

    answers = await bench.enqueue_all(first, second)

    expected = [(CREATED, first.id), (EXISTING, first.id)]
    assert expected == [(answer.status, answer.job_id) for answer in answers]
    assert [first.id] == await bench.find_ids()


@case("4.9")
async def two_jobs_of_one_key_and_other_arguments_in_one_batch_are_a_conflict(bench: Bench) -> None:
    first, second = new_job(key="k", digest=b"one"), new_job(key="k", digest=b"two")

    answers = await bench.enqueue_all(first, second)

    expected = [(CREATED, first.id), (CONFLICT, first.id)]
    assert expected == [(answer.status, answer.job_id) for answer in answers]
    assert [first.id] == await bench.find_ids()


@case("4.9")
async def the_rest_of_a_batch_is_stored_beside_a_conflict(bench: Bench) -> None:
    held = await bench.enqueue(key="k", digest=b"one")
    before, clash, after = new_job(), new_job(key="k", digest=b"two"), new_job()

    answers = await bench.enqueue_all(before, clash, after)

    assert [CREATED, CONFLICT, CREATED] == [answer.status for answer in answers]
    assert [held, before.id, after.id] == await bench.find_ids()


@case("4.9")
async def all_or_none_stores_nothing_beside_a_conflict(bench: Bench) -> None:
    held = await bench.enqueue(key="k", digest=b"one")
    before, clash, after = new_job(key="other"), new_job(key="k", digest=b"two"), new_job()

    answers = await bench.enqueue_all(before, clash, after, all_or_none=True)

    expected = [(LEFT_OUT, before.id), (CONFLICT, held), (LEFT_OUT, after.id)]
    assert expected == [(answer.status, answer.job_id) for answer in answers]
    assert [held] == await bench.find_ids()


@case("4.9")
async def all_or_none_stores_nothing_beside_a_duplicate_that_asked_to_be_told(bench: Bench) -> None:
    held = await bench.enqueue(key="k")
    first, duplicate = new_job(), new_job(key="k", on_conflict=OnConflict.RAISE)

    answers = await bench.enqueue_all(first, duplicate, all_or_none=True)

    expected = [(LEFT_OUT, first.id), (EXISTING, held)]
    assert expected == [(answer.status, answer.job_id) for answer in answers]
    assert [held] == await bench.find_ids()


@case("4.9")
async def all_or_none_stores_the_rest_beside_a_duplicate_that_is_content(bench: Bench) -> None:
    held = await bench.enqueue(key="k")
    first, duplicate = new_job(), new_job(key="k")

    answers = await bench.enqueue_all(first, duplicate, all_or_none=True)

    assert [CREATED, EXISTING] == [answer.status for answer in answers]
    assert [held, first.id] == await bench.find_ids()


@case("4.9")
async def what_all_or_none_left_out_has_taken_no_key_and_can_be_enqueued_again(bench: Bench) -> None:
    await bench.enqueue(key="k", digest=b"one")
    left_out, clash = new_job(key="free"), new_job(key="k", digest=b"two")
    await bench.enqueue_all(left_out, clash, all_or_none=True)

    other = await bench.enqueue(key="free", digest=b"other arguments")
    (again,) = await bench.enqueue_all(new_job(id=left_out.id))

    assert JobState.READY == await bench.state(other)
    assert (CREATED, left_out.id) == (again.status, again.job_id)


@case("4.9")
async def deleting_a_job_frees_its_key(bench: Bench) -> None:
    live = await bench.enqueue(key="live")
    done = await bench.enqueue(key="done")
    await bench.finish(done)
    await bench.delete(live, done)

    answers = await bench.enqueue_all(new_job(key="live"), new_job(key="done", digest=b"other"))

    assert [CREATED, CREATED] == [answer.status for answer in answers]


@case("4.9")
async def deleting_a_job_leaves_its_key_to_whoever_has_taken_it_since(bench: Bench) -> None:
    first = await bench.enqueue(key="k", key_ttl=NOW)
    await bench.finish(first)
    second = await bench.enqueue(key="k")
    await bench.delete(first)

    (answer,) = await bench.enqueue_all(new_job(key="k"))

    assert (EXISTING, second) == (answer.status, answer.job_id)


# --- when


@case("4.10")
async def a_job_of_a_later_time_is_scheduled_until_then(bench: Bench) -> None:
    run_at = bench.now + HOUR
    job_id = await bench.enqueue(run_at=run_at)
    early = await bench.record(job_id)

    bench.advance(HOUR)

    assert (JobState.SCHEDULED, run_at) == (early.state, early.run_at)
    assert JobState.READY == await bench.state(job_id)


@case("4.10", "4.18")
async def run_in_is_counted_from_the_stores_now(bench: Bench) -> None:
    job_id = await bench.enqueue(run_in=timedelta(minutes=5))

    record = await bench.record(job_id)

    assert (JobState.SCHEDULED, bench.now + timedelta(minutes=5)) == (record.state, record.run_at)


@case("4.10")
async def a_time_in_the_past_is_due_at_once_but_overtakes_nobody(bench: Bench) -> None:
    first = await bench.enqueue()
    bench.advance(SECOND)

    late = await bench.enqueue(run_at=bench.now - DAY)

    assert JobState.READY == await bench.state(late)
    assert [first, late] == await bench.take_ids()


@case("4.18")
async def without_a_now_the_stores_own_clock_decides(bench: Bench) -> None:
    soon, later = new_job(run_in=NOW), new_job(run_in=HOUR)

    await bench.store.job_enqueue(JobEnqueue(jobs=[soon, later]))

    records = await bench.store.job_get(JobGet(ids=[soon.id, later.id]))
    assert [JobState.READY, JobState.SCHEDULED] == [record and record.state for record in records]
    # Loosely: the store's clock is nobody else's, but it tells the year.
    off = [abs(record.enqueued_at - datetime.now(UTC)) for record in records if record is not None]
    assert max(off) < 2 * DAY
