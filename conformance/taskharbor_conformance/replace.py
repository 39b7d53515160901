"""`OnConflict.REPLACE`: the latest arguments, options and time in the place of those of the job that has the key."""

from __future__ import annotations

from datetime import timedelta
from typing import Unpack

from taskharbor.driver import EnqueueStatus
from taskharbor.job import REPLACEABLE, TERMINAL, JobState, KeyRule, NewJob, OnConflict
from taskharbor.retry import RetryNumbers
from taskharbor_conformance.bench import (
    BUILD,
    DAY,
    HOUR,
    SECOND,
    Bench,
    Doorbell,
    JobFields,
    failure,
    new_job,
    release,
    stray,
    success,
)
from taskharbor_conformance.case import case
from taskharbor_conformance.concurrency import in_threads
from taskharbor_conformance.graphs import chain_steps, new_flow
from taskharbor_conformance.unique import NOT_BEGUN, UNTIL_IT_ENDS, holder_in, unique

CREATED, REPLACED, EXISTING, CONFLICT, LEFT_OUT = (
    EnqueueStatus.CREATED,
    EnqueueStatus.REPLACED,
    EnqueueStatus.EXISTING,
    EnqueueStatus.CONFLICT,
    EnqueueStatus.LEFT_OUT,
)


def replacing(rule: KeyRule | None = None, **fields: Unpack[JobFields]) -> NewJob:
    """Return a job of the key `k` that takes the place of whoever has it."""
    fields.setdefault("key", "k")
    fields.setdefault("digest", b"")
    fields["key_rule"] = rule
    fields["on_conflict"] = OnConflict.REPLACE
    return new_job(**fields)


def debounced(latest: timedelta | None = None, **fields: Unpack[JobFields]) -> NewJob:
    """Return a job of the key `k` that puts its start off by a minute each time it comes."""
    fields.setdefault("run_in", 60 * SECOND)
    return replacing(KeyRule(states=NOT_BEGUN.states, latest=latest), **fields)


# --- what is replaced, and by what


@case("4.20")
async def everything_the_new_job_says_takes_the_place_of_what_the_old_one_said(bench: Bench) -> None:
    old = await bench.enqueue(key="k", meta={"tenant": "a"}, queue="mail", run_in=DAY)
    enqueued_at = bench.now
    bench.advance(SECOND)
    new = replacing(
        payload=b"[2]",
        codec="msgpack",
        fingerprint=7,
        queue="video",
        priority=1,
        run_in=HOUR,
        retry=RetryNumbers(max_attempts=7),
        meta={"tenant": "b"},
        keep_result=False,
    )

    (answer,) = await bench.enqueue_all(new)

    assert (REPLACED, old) == (answer.status, answer.job_id)
    assert [None] == await bench.get(new.id), "the new one's id is not stored"
    record = await bench.record(old)
    assert (b"[2]", "msgpack", 7, "k") == (record.payload, record.codec, record.fingerprint, record.key)
    assert ("video", 1, 7, False) == (record.queue, record.priority, record.max_attempts, record.keep_result)
    assert {"tenant": "b"} == record.meta
    assert (bench.now + HOUR, bench.now + HOUR) == (record.run_at, record.due_at)
    assert (enqueued_at, JobState.SCHEDULED) == (record.enqueued_at, record.state)


@case("4.20")
async def what_is_delivered_is_what_came_last(bench: Bench) -> None:
    old = await bench.enqueue(key="k", digest=b"", payload=b"first")
    timeout = timedelta(seconds=7)

    await bench.enqueue_all(replacing(payload=b"second"))
    await bench.enqueue_all(replacing(payload=b"third", timeout=timeout, retry=RetryNumbers(max_attempts=3)))

    (delivery,) = await bench.take()
    assert (old, b"third", timeout) == (delivery.id, delivery.payload, delivery.timeout)
    assert (3, 1, 1) == (delivery.retry.max_attempts, delivery.attempt, delivery.fence)


@case("4.20")
async def a_job_is_replaced_in_each_state_in_which_nobody_has_begun(bench: Bench) -> None:
    for state in sorted(REPLACEABLE):
        key = f"of {state}"
        old = await _holder(bench, key, state)

        (answer,) = await bench.enqueue_all(replacing(key=key, payload=b"new"))

        record = await bench.record(old)
        assert (REPLACED, old) == (answer.status, answer.job_id), state
        assert (b"new", JobState.READY, bench.now) == (record.payload, record.state, record.due_at), state
        await bench.finish(old)


async def _holder(bench: Bench, key: str, state: JobState) -> str:
    """Return a job of this key that waits in this state."""
    job_id = await bench.enqueue(key=key, digest=b"", run_in=HOUR if state is JobState.SCHEDULED else None)
    if state is JobState.PARKED:
        await bench.settle(stray(await bench.take_one(), refused_by=BUILD, reason="foreign payload"))
    if state is JobState.RETRYING:
        await bench.settle(failure(await bench.take_one(), after=HOUR))
    assert state is await bench.state(job_id)
    return job_id


@case("4.20")
async def beside_a_job_that_runs_the_new_one_is_stored(bench: Bench) -> None:
    old = await bench.enqueue(key="k", payload=b"first")
    running = await bench.take_one()
    second, third = replacing(payload=b"second"), replacing(payload=b"third")

    (stored,) = await bench.enqueue_all(second)
    (replaced,) = await bench.enqueue_all(third)

    assert [(CREATED, second.id), (REPLACED, second.id)] == [
        (stored.status, stored.job_id),
        (replaced.status, replaced.job_id),
    ]
    assert [JobState.SUCCEEDED] == await bench.settle(success(running))
    assert [b"third"] == [delivery.payload for delivery in await bench.take()]
    assert b"first" == (await bench.record(old)).payload


@case("4.20", "4.8")
async def what_has_ended_is_not_replaced_but_followed(bench: Bench) -> None:
    for state in sorted(TERMINAL):
        old = await holder_in(bench, state)
        new = replacing(payload=b"new")

        (answer,) = await bench.enqueue_all(new)

        assert (CREATED, new.id) == (answer.status, answer.job_id), state
        assert (state, b"[]") == (await bench.state(old), (await bench.record(old)).payload)
        await bench.delete(old, new.id)


@case("4.20")
async def a_job_that_cannot_be_replaced_keeps_no_latest_arguments_out_whatever_the_rule(bench: Bench) -> None:
    rule = KeyRule(states=tuple(JobState), window=DAY)
    await bench.enqueue(key="k", digest=b"")
    running = await bench.take_one()

    (beside,) = await bench.enqueue_all(replacing(rule, payload=b"new"))
    await bench.settle(success(running))
    await bench.settle(success(await bench.take_one()))
    (after,) = await bench.enqueue_all(replacing(rule, payload=b"newer"))

    assert (CREATED, CREATED) == (beside.status, after.status)


@case("4.20")
async def a_job_that_keeps_nobody_out_is_left_as_it_is(bench: Bench) -> None:
    old = await bench.enqueue(key="k", digest=b"", payload=b"old", run_in=HOUR)
    new = replacing(KeyRule(states=(JobState.READY,)), payload=b"new", run_in=HOUR)

    (answer,) = await bench.enqueue_all(new)

    assert (CREATED, new.id) == (answer.status, answer.job_id)
    assert [b"old", b"new"] == [(await bench.record(job_id)).payload for job_id in (old, new.id)]


@case("4.20", "4.14")
async def a_step_of_a_flow_is_not_replaced(bench: Bench) -> None:
    *_, last = steps = chain_steps(new_job(), new_job(key="k"))
    await bench.enqueue_flow(new_flow(*steps))

    (answer,) = await bench.enqueue_all(replacing(digest=b"same arguments"))

    assert (CONFLICT, last.id) == (answer.status, answer.job_id)
    assert b"[]" == (await bench.record(last.id)).payload


# --- what it keeps


@case("4.20", "4.6")
async def attempts_errors_and_deliveries_are_kept(bench: Bench) -> None:
    old = await bench.enqueue(key="k", digest=b"")
    await bench.settle(failure(await bench.take_one(), after=HOUR))
    before = await bench.record(old)

    await bench.enqueue_all(replacing(payload=b"new", run_in=SECOND))

    record = await bench.record(old)
    assert (1, 1, before.errors) == (record.attempt, record.deliveries, record.errors)
    assert (JobState.RETRYING, bench.now + SECOND) == (record.state, record.due_at)
    bench.advance(SECOND)
    delivery = await bench.take_one()
    assert (b"new", 2, 2) == (delivery.payload, delivery.attempt, delivery.fence)


@case("4.20", "4.8")
async def what_people_did_is_kept(bench: Bench) -> None:
    old = await bench.enqueue(key="k", digest=b"")
    await bench.cancel(old, by="ada")
    await bench.requeue(old, by="ada")

    await bench.enqueue_all(replacing(run_in=HOUR))

    assert ["cancel", "requeue"] == [act.verb for act in (await bench.record(old)).operations]


@case("4.20", "4.16")
async def what_was_parked_is_open_to_all_again(bench: Bench) -> None:
    old = await _holder(bench, "k", JobState.PARKED)
    nobody = await bench.take_ids()

    await bench.enqueue_all(replacing(payload=b"new"))

    record = await bench.record(old)
    assert (JobState.READY, "", ()) == (record.state, record.reason, record.refused_by)
    assert ([], [old]) == (nobody, await bench.take_ids())


@case("4.20", "4.4")
async def a_job_of_one_attempt_is_guarded_from_then_on(bench: Bench) -> None:
    old = await bench.enqueue(key="k", digest=b"")

    await bench.enqueue_all(replacing(retry=RetryNumbers(max_attempts=1)))

    assert (await bench.record(old)).guarded
    assert [] == await bench.take_ids(guarded_limit=0)


@case("4.20", "4.4")
async def what_a_crash_left_behind_is_kept(bench: Bench) -> None:
    old = await bench.enqueue(key="k", digest=b"")
    await bench.start(await bench.take_one())
    await bench.lose_workers()
    bench.advance(HOUR)
    await bench.start(await bench.take_one())
    await bench.lose_workers()

    await bench.enqueue_all(replacing(payload=b"new"))

    record = await bench.record(old)
    assert [] == await bench.take_ids(solo=False), "it stays in the lane of those that run alone"
    delivery = await bench.take_one()
    assert (True, 2, 2) == (record.guarded, record.crashes, record.attempt)
    assert (True, True) == (delivery.guarded, delivery.solo)


@case("4.20", "4.3")
async def a_lease_that_had_been_settled_says_so_still(bench: Bench) -> None:
    await bench.enqueue(key="k", digest=b"")
    delivery = await bench.take_one()
    await bench.settle(release(delivery))
    await bench.enqueue_all(replacing(payload=b"new", run_in=HOUR))

    (answer,) = await bench.answers(release(delivery))

    assert "already" == answer.status


@case("4.20", "4.9")
async def the_key_is_held_with_the_new_digest_and_for_the_new_time(bench: Bench) -> None:
    old = await bench.enqueue(key="k", digest=b"old", key_ttl=timedelta(0))

    await bench.enqueue_all(replacing(digest=b"new", key_ttl=HOUR))

    answers = await bench.enqueue_all(new_job(key="k", digest=b"new"), new_job(key="k", digest=b"old"))
    assert [(EXISTING, old), (CONFLICT, old)] == [(answer.status, answer.job_id) for answer in answers]
    await bench.finish(old)
    bench.advance(HOUR - SECOND)
    (within,) = await bench.enqueue_all(new_job(key="k", digest=b"new"))
    bench.advance(SECOND)
    (after,) = await bench.enqueue_all(new_job(key="k", digest=b"new"))
    assert (EXISTING, CREATED) == (within.status, after.status)


@case("4.20", "4.1")
async def one_that_is_asked_again_is_known_whoever_has_its_key_by_now(bench: Bench) -> None:
    first = new_job(key="k", digest=b"1", key_rule=UNTIL_IT_ENDS)
    second = new_job(key="l", digest=b"1", key_rule=KeyRule(window=SECOND))
    await bench.enqueue_all(first, second)
    bench.advance(2 * SECOND)
    follower = new_job(key="l", digest=b"2", key_rule=KeyRule(window=SECOND))
    await bench.enqueue_all(replacing(digest=b"2"), follower)

    again = [(await bench.enqueue_all(job))[0] for job in (first, second)]

    assert [(EXISTING, first.id), (EXISTING, second.id)] == [
        (answer.status, answer.job_id) for answer in again
    ]


@case("4.20", "4.17")
async def a_requeued_dead_letter_holds_its_key_as_it_was_replaced(bench: Bench) -> None:
    old = await bench.enqueue(key="k", digest=b"old")
    await bench.enqueue_all(replacing(digest=b"new", payload=b"new"))
    await bench.bury(old)
    await bench.requeue(old)

    answers = await bench.enqueue_all(new_job(key="k", digest=b"new"), new_job(key="k", digest=b"old"))

    assert [EXISTING, CONFLICT] == [answer.status for answer in answers]
    assert b"new" == (await bench.take_one()).payload


# --- time and queue


@case("4.20", "4.10")
async def each_that_comes_puts_the_start_off(bench: Bench) -> None:
    old = await bench.enqueue(key="k", digest=b"", run_in=60 * SECOND)

    for number in range(5):
        bench.advance(50 * SECOND)
        await bench.enqueue_all(debounced(payload=b"%d" % number))
        assert [] == await bench.take_ids()

    bench.advance(60 * SECOND)
    (delivery,) = await bench.take()
    assert (old, b"4") == (delivery.id, delivery.payload)


@case("4.20", "4.10")
async def the_start_is_put_off_until_its_latest_at_the_most(bench: Bench) -> None:
    await bench.enqueue(key="k", digest=b"", run_in=60 * SECOND)
    due = bench.now + 90 * SECOND

    bench.advance(50 * SECOND)
    (answer,) = await bench.enqueue_all(debounced(latest=90 * SECOND))

    record = await bench.record(answer.job_id)
    assert (due, due) == (record.run_at, record.due_at)
    bench.advance(39 * SECOND)
    early = await bench.take_ids()
    bench.advance(SECOND)
    assert ([], [answer.job_id]) == (early, await bench.take_ids())


@case("4.20", "4.10")
async def after_its_latest_a_job_keeps_its_place_however_often_it_is_replaced(bench: Bench) -> None:
    old = await bench.enqueue(key="k", digest=b"", run_in=60 * SECOND)
    bench.advance(90 * SECOND)
    other = await bench.enqueue()
    bench.advance(SECOND)

    for number in range(3):
        await bench.enqueue_all(debounced(latest=80 * SECOND, payload=b"%d" % number))
        bench.advance(SECOND)

    assert [(old, b"2"), (other, b"[]")] == [(one.id, one.payload) for one in await bench.take()]


@case("4.20", "4.10")
async def after_its_latest_a_job_that_comes_into_another_lane_is_due_now(bench: Bench) -> None:
    (answer,) = await bench.enqueue_all(debounced(latest=80 * SECOND))
    bench.advance(HOUR)
    there_before = await bench.enqueue(queue="video")
    bench.advance(SECOND)

    await bench.enqueue_all(debounced(latest=80 * SECOND, queue="video"))

    assert bench.now == (await bench.record(answer.job_id)).due_at
    assert [there_before, answer.job_id] == await bench.take_ids(queues=["video"])


@case("4.20", "4.10")
async def a_fixed_time_is_held_to_the_latest_too(bench: Bench) -> None:
    old = await bench.enqueue(key="k", digest=b"")

    await bench.enqueue_all(debounced(latest=HOUR, run_in=None, run_at=bench.now + DAY))
    bounded = (await bench.record(old)).due_at
    await bench.enqueue_all(debounced(run_in=None, run_at=bench.now + DAY))
    free = (await bench.record(old)).due_at

    assert (bench.now + HOUR, bench.now + DAY) == (bounded, free)


@case("4.20", "4.10")
async def a_time_in_the_past_overtakes_nobody(bench: Bench) -> None:
    old = await bench.enqueue(key="k", digest=b"", run_in=HOUR)
    bench.advance(SECOND)
    other = await bench.enqueue()
    bench.advance(SECOND)

    await bench.enqueue_all(replacing(run_at=bench.now - DAY))

    assert (bench.now - DAY, bench.now) == (
        (await bench.record(old)).run_at,
        (await bench.record(old)).due_at,
    )
    assert [other, old] == await bench.take_ids()


@case("4.20", "4.10")
async def a_time_in_the_past_keeps_no_place(bench: Bench) -> None:
    old = await bench.enqueue(key="k", digest=b"")
    bench.advance(SECOND)
    other = await bench.enqueue()
    bench.advance(SECOND)

    await bench.enqueue_all(replacing(run_at=bench.now - DAY))

    assert [other, old] == await bench.take_ids()


@case("4.20", "4.10")
async def what_was_handed_back_leaves_the_front(bench: Bench) -> None:
    await bench.enqueue(key="k", digest=b"")
    await bench.settle(release(await bench.take_one()))
    other = await bench.enqueue()
    bench.advance(SECOND)

    (answer,) = await bench.enqueue_all(replacing())

    assert [other, answer.job_id] == await bench.take_ids()


@case("4.20", "4.10")
async def a_job_that_changes_its_queue_is_in_the_new_one_only_and_wakes_it(bench: Bench) -> None:
    old = await bench.enqueue(key="k", digest=b"", queue="mail")
    bell = Doorbell()
    subscription = bench.driver.watch_queues(("video",), bell)
    try:
        await bench.enqueue_all(replacing(queue="video"))
        await bell.wait()
    finally:
        subscription.close()

    assert ["video"] == await bench.queue_names()
    assert [] == await bench.take_ids(queues=["mail"])
    assert [old] == await bench.take_ids(queues=["video"])


@case("4.20", "4.10")
async def a_job_that_changes_its_priority_takes_its_turn_by_the_new_one(bench: Bench) -> None:
    urgent = await bench.enqueue(key="k", digest=b"", priority=0)
    other = await bench.enqueue(priority=5)

    await bench.enqueue_all(replacing(priority=9))

    assert [other, urgent] == await bench.take_ids()


# --- batches, repeats, many at once


@case("4.20", "4.1")
async def in_a_batch_the_last_of_one_key_is_what_is_stored(bench: Bench) -> None:
    first, second, third = (replacing(payload=payload) for payload in (b"1", b"2", b"3"))

    answers = await bench.enqueue_all(first, second, third)

    assert [(CREATED, first.id), (REPLACED, first.id), (REPLACED, first.id)] == [
        (answer.status, answer.job_id) for answer in answers
    ]
    assert [first.id] == await bench.find_ids()
    assert b"3" == (await bench.take_one()).payload


@case("4.20", "4.1")
async def in_a_batch_the_last_of_one_key_takes_the_place_of_a_stored_one(bench: Bench) -> None:
    old = await bench.enqueue(key="k", digest=b"")
    other = new_job(payload=b"other")

    answers = await bench.enqueue_all(replacing(payload=b"1"), other, replacing(payload=b"2", run_in=HOUR))

    assert [(REPLACED, old), (CREATED, other.id), (REPLACED, old)] == [
        (answer.status, answer.job_id) for answer in answers
    ]
    record = await bench.record(old)
    assert (b"2", bench.now + HOUR) == (record.payload, record.due_at)


@case("4.20", "4.1")
async def in_a_batch_too_no_start_is_put_off_beyond_its_latest(bench: Bench) -> None:
    answers = await bench.enqueue_all(*(debounced(latest=90 * SECOND, run_in=HOUR) for _ in range(2)))

    due = (await bench.record(answers[0].job_id)).due_at
    assert [CREATED, REPLACED] == [answer.status for answer in answers]
    assert bench.now + 90 * SECOND == due


@case("4.20", "4.1")
async def in_a_batch_a_replaced_job_may_hand_its_key_over(bench: Bench) -> None:
    old = await bench.enqueue(key="k", digest=b"")
    last = unique(KeyRule(states=(JobState.RUNNING,)), payload=b"last")

    answers = await bench.enqueue_all(replacing(payload=b"replaced"), last)

    assert [(REPLACED, old), (CREATED, last.id)] == [(answer.status, answer.job_id) for answer in answers]
    assert [b"replaced", b"last"] == [delivery.payload for delivery in await bench.take()]
    (after,) = await bench.enqueue_all(new_job(key="k", digest=b""))
    assert (EXISTING, last.id) == (after.status, after.job_id)


@case("4.20", "4.1")
async def in_a_batch_a_job_sees_a_replaced_one_as_it_is_then(bench: Bench) -> None:
    tried = await _holder(bench, "tried", JobState.RETRYING)
    untried = await bench.enqueue(key="untried", digest=b"")
    scheduled = KeyRule(states=(JobState.SCHEDULED,))

    answers = await bench.enqueue_all(
        replacing(key="tried", run_in=HOUR),
        replacing(key="untried", run_in=HOUR),
        unique(scheduled, key="tried"),
        unique(scheduled, key="untried"),
    )

    assert [REPLACED, REPLACED, CREATED, EXISTING] == [answer.status for answer in answers]
    assert [tried, untried] == [answer.job_id for answer in answers[:2]]


@case("4.20", "4.9")
async def in_a_batch_the_digest_of_the_last_one_counts(bench: Bench) -> None:
    await bench.enqueue(key="k", digest=b"old")

    answers = await bench.enqueue_all(
        replacing(digest=b"new"), new_job(key="k", digest=b"new"), new_job(key="k", digest=b"old")
    )

    assert [REPLACED, EXISTING, CONFLICT] == [answer.status for answer in answers]


@case("4.20", "4.1")
async def many_are_replaced_in_one_batch(bench: Bench) -> None:
    olds = [new_job(key=f"k{number}", digest=b"", payload=b"old") for number in range(500)]
    await bench.enqueue_all(*olds)

    answers = await bench.enqueue_all(
        *(replacing(key=f"k{number}", payload=b"%d" % number) for number in range(500)), new_job()
    )

    assert [REPLACED] * 500 + [CREATED] == [answer.status for answer in answers]
    found = {delivery.id: delivery.payload for delivery in await bench.take()}
    assert [b"%d" % number for number in range(500)] == [found[job.id] for job in olds]


@case("4.20", "4.1")
async def all_or_none_replaces_nothing_if_another_is_refused(bench: Bench) -> None:
    old = await bench.enqueue(key="k", digest=b"", payload=b"old")
    await bench.enqueue(key="taken", digest=b"1")

    answers = await bench.enqueue_all(
        replacing(payload=b"new"), new_job(key="taken", digest=b"2"), all_or_none=True
    )

    assert [LEFT_OUT, CONFLICT] == [answer.status for answer in answers]
    assert b"old" == (await bench.record(old)).payload


@case("4.20", "4.1")
async def all_or_none_may_replace(bench: Bench) -> None:
    old = await bench.enqueue(key="k", digest=b"", payload=b"old")

    answers = await bench.enqueue_all(new_job(), replacing(payload=b"new"), all_or_none=True)

    assert [CREATED, REPLACED] == [answer.status for answer in answers]
    assert b"new" == (await bench.record(old)).payload


@case("4.20", "4.9")
async def a_replacement_whose_answer_was_lost_is_carried_out_anew(bench: Bench) -> None:
    old = await bench.enqueue(key="k", digest=b"", payload=b"old")
    job = replacing(payload=b"new")
    await bench.enqueue_all(job)

    (waiting,) = await bench.enqueue_all(job)
    await bench.take_one()
    (running,) = await bench.enqueue_all(job)
    (known,) = await bench.enqueue_all(job)

    assert [(REPLACED, old), (CREATED, job.id), (EXISTING, job.id)] == [
        (answer.status, answer.job_id) for answer in (waiting, running, known)
    ]


@case("4.20", "4.9")
async def repeating_the_enqueue_of_a_job_that_was_replaced_since_changes_nothing(bench: Bench) -> None:
    first = replacing(payload=b"first")
    await bench.enqueue_all(first)
    await bench.enqueue_all(replacing(payload=b"second"))

    (answer,) = await bench.enqueue_all(first)

    assert (EXISTING, first.id) == (answer.status, answer.job_id)
    assert b"second" == (await bench.take_one()).payload


@case("4.20")
async def of_many_replacing_at_once_one_job_is_left_with_what_one_of_the_last_brought(bench: Bench) -> None:
    async def work(store: Bench, number: int) -> list[str]:
        told: list[str] = []
        for turn in range(15):
            (answer,) = await store.enqueue_all(debounced(payload=b"%d:%d" % (number, turn)))
            told.append(f"{answer.status} {answer.job_id}")
        return told

    told = [one for some in await in_threads(bench, work) for one in some]

    (job_id,) = await bench.find_ids()
    assert {f"created {job_id}", f"replaced {job_id}"} == set(told)
    assert 1 == told.count(f"created {job_id}")
    bench.advance(HOUR)
    (delivery,) = await bench.take()
    assert delivery.payload.endswith(b":14"), "each store's own last comes after all its others"


@case("4.20", "4.2")
async def what_is_replaced_while_others_take_it_runs_with_every_last_word(bench: Bench) -> None:
    async def work(store: Bench, number: int) -> list[str]:
        seen: list[str] = []
        for turn in range(20):
            if number % 2:
                key = f"k{number}"
                await store.enqueue_all(replacing(key=key, payload=b"%d" % turn))
            else:
                deliveries = await store.take(3)
                seen += [f"{delivery.key} {delivery.payload.decode()}" for delivery in deliveries]
                await store.settle(*map(success, deliveries))
        return seen

    seen = [one for some in await in_threads(bench, work) for one in some]

    left = await bench.take()
    seen += [f"{delivery.key} {delivery.payload.decode()}" for delivery in left]
    assert len(set(seen)) == len(seen), "nothing runs twice"
    assert {"k1 19", "k3 19", "k5 19"} <= set(seen), "nobody's last word is lost"


@case("4.20", "4.1")
async def plain_jobs_and_replacing_ones_may_share_a_batch(bench: Bench) -> None:
    plain, other = new_job(key="other"), new_job()
    rules = UNTIL_IT_ENDS

    answers = await bench.enqueue_all(plain, replacing(rules), other, new_job(key="other"), replacing(rules))

    assert [CREATED, CREATED, CREATED, EXISTING, REPLACED] == [answer.status for answer in answers]
    assert 3 == len(await bench.find_ids())


@case("4.20", "4.25")
async def a_replacement_past_its_latest_start_keeps_its_place_in_its_own_line_alone(bench: Bench) -> None:
    old = await bench.enqueue(key="k", digest=b"", partition="a")
    due = bench.now
    bench.advance(60 * SECOND)

    await bench.enqueue_all(debounced(latest=SECOND, partition="a"))
    same = await bench.record(old)
    await bench.enqueue_all(debounced(latest=SECOND, partition="b"))
    other = await bench.record(old)

    assert (("a", due), ("b", bench.now)) == ((same.partition, same.due_at), (other.partition, other.due_at))
