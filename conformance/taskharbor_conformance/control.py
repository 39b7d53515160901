"""What people ask of jobs: look at them, cancel, requeue, delete."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from taskharbor.driver import CancelStatus, DeleteStatus, JobCount, JobFind, RequeueStatus
from taskharbor.job import Delivery, JobState
from taskharbor.retry import RetryNumbers
from taskharbor.settlement import SettleKind, Settlement
from taskharbor_conformance.bench import (
    DAY,
    HOUR,
    NOW,
    SECOND,
    UNKNOWN,
    Bench,
    burial,
    cancellation,
    failure,
    new_job,
    release,
    snooze,
    stray,
    success,
)
from taskharbor_conformance.case import case
from taskharbor_conformance.graphs import chain, ids_of

End = Callable[[Delivery], Settlement]


async def _dead(bench: Bench, **fields: str) -> str:
    job_id = await bench.enqueue(key=fields.get("key"), key_ttl=NOW)
    await bench.settle(burial(await bench.take_one()))
    return job_id


# --- cancel


@case("4.11")
async def a_ready_job_is_cancelled_at_once(bench: Bench) -> None:
    job_id = await bench.enqueue()

    answers = await bench.cancel(job_id, reason="not needed", by="ada")

    record = await bench.record(job_id)
    assert [CancelStatus.CANCELLED] == answers
    assert (JobState.CANCELLED, "not needed", bench.now) == (record.state, record.reason, record.finished_at)
    assert [] == await bench.take()


@case("4.11")
async def a_scheduled_job_is_cancelled_at_once_and_never_runs(bench: Bench) -> None:
    job_id = await bench.enqueue(run_in=HOUR)

    answers = await bench.cancel(job_id)

    bench.advance(DAY)
    assert [CancelStatus.CANCELLED] == answers
    assert JobState.CANCELLED == await bench.state(job_id)
    assert [] == await bench.take()


@case("4.11")
async def a_retrying_job_is_cancelled_at_once_and_not_tried_again(bench: Bench) -> None:
    job_id = await bench.enqueue()
    await bench.settle(failure(await bench.take_one(), after=HOUR))

    answers = await bench.cancel(job_id)

    bench.advance(DAY)
    assert [CancelStatus.CANCELLED] == answers
    assert (JobState.CANCELLED, []) == (await bench.state(job_id), await bench.take())


@case("4.11", "4.16")
async def a_parked_job_is_cancelled_at_once(bench: Bench) -> None:
    job_id = await bench.enqueue(task="unknown")
    await bench.settle(stray(await bench.take_one()))

    answers = await bench.cancel(job_id)

    assert [CancelStatus.CANCELLED] == answers
    assert JobState.CANCELLED == await bench.state(job_id)
    assert [] == await bench.take(tasks=frozenset({"unknown"}))


@case("4.11")
async def a_handed_back_job_is_cancelled_at_once(bench: Bench) -> None:
    job_id = await bench.enqueue()
    await bench.settle(release(await bench.take_one()))

    answers = await bench.cancel(job_id)

    assert [CancelStatus.CANCELLED] == answers
    assert [] == await bench.take()


@case("4.11")
async def a_running_job_is_asked_to_stop_and_runs_on_until_it_does(bench: Bench) -> None:
    job_id = await bench.enqueue()
    await bench.start(await bench.take_one())
    before = await bench.record(job_id)

    answers = await bench.cancel(job_id)

    record = await bench.record(job_id)
    assert [CancelStatus.REQUESTED] == answers
    assert (JobState.RUNNING, False, True) == (
        record.state,
        before.cancel_requested,
        record.cancel_requested,
    )


@case("4.11")
async def a_job_leased_but_not_started_is_running_as_to_a_cancel(bench: Bench) -> None:
    job_id = await bench.enqueue()
    await bench.take_one()

    assert [CancelStatus.REQUESTED] == await bench.cancel(job_id)


@case("4.11")
async def a_cancel_is_told_with_every_heartbeat_until_the_job_is_settled(bench: Bench) -> None:
    unwanted, _ = await bench.enqueue(), await bench.enqueue()
    first, second = await bench.take()
    before = await bench.extend(first)
    await bench.cancel(unwanted, reason="not needed")

    told = [await bench.extend(first) for _ in range(3)]
    await bench.settle(cancellation(first))
    afterwards = await bench.extend(second)

    assert [] == list(before.cancels)
    for answer in told:
        assert [(unwanted, "not needed")] == [(cancel.job_id, cancel.reason) for cancel in answer.cancels]
    assert ([], []) == (list(afterwards.cancels), list(afterwards.lost))


@case("4.11")
async def a_cancel_without_a_reason_is_told_too(bench: Bench) -> None:
    job_id = await bench.enqueue()
    delivery = await bench.take_one()
    await bench.cancel(job_id)

    answer = await bench.extend(delivery)

    assert [(job_id, "")] == [(cancel.job_id, cancel.reason) for cancel in answer.cancels]
    assert [JobState.CANCELLED] == await bench.settle(failure(delivery))


@case("4.11")
async def a_cancel_is_told_to_the_lease_that_holds_the_job(bench: Bench) -> None:
    unwanted = await bench.enqueue()
    holder = await bench.take_one()
    await bench.enqueue()
    other = await bench.take_one(worker="worker-2")
    await bench.cancel(unwanted)

    elsewhere = await bench.extend(other, worker="worker-2")
    here = await bench.extend(holder)

    assert ([], [unwanted]) == (
        [cancel.job_id for cancel in elsewhere.cancels],
        [cancel.job_id for cancel in here.cancels],
    )


@case("4.11", "4.8")
async def a_success_beats_a_cancel(bench: Bench) -> None:
    job_id = await bench.enqueue()
    delivery = await bench.take_one()
    await bench.cancel(job_id, reason="too late")

    states = await bench.settle(success(delivery, b"done"))

    record = await bench.record(job_id)
    assert [JobState.SUCCEEDED] == states
    assert (b"done", "", False) == (record.result, record.reason, record.cancel_requested)


async def _ends_cancelled(bench: Bench, end: End, attempt: int) -> None:
    job_id = await bench.enqueue()
    delivery = await bench.take_one()
    await bench.start(delivery)
    await bench.cancel(job_id, reason="not needed")

    states = await bench.settle(end(delivery))

    record = await bench.record(job_id)
    assert [JobState.CANCELLED] == states
    assert (JobState.CANCELLED, bench.now) == (record.state, record.finished_at)
    assert ("not needed", attempt) == (record.reason, record.attempt)
    bench.advance(DAY)
    assert [] == await bench.take()


@case("4.11")
async def a_failure_with_a_cancel_pending_ends_cancelled_and_keeps_its_error(bench: Bench) -> None:
    await _ends_cancelled(bench, failure, 1)

    (job_id,) = await bench.find_ids(JobState.CANCELLED)
    assert ["boom"] == [error.message for error in (await bench.record(job_id)).errors]


@case("4.11")
async def a_snooze_with_a_cancel_pending_ends_cancelled(bench: Bench) -> None:
    await _ends_cancelled(bench, snooze, 0)


@case("4.11")
async def a_release_with_a_cancel_pending_ends_cancelled(bench: Bench) -> None:
    await _ends_cancelled(bench, release, 0)


@case("4.11", "4.16")
async def a_stray_with_a_cancel_pending_ends_cancelled(bench: Bench) -> None:
    await _ends_cancelled(bench, stray, 0)


@case("4.11")
async def a_burial_with_a_cancel_pending_ends_cancelled(bench: Bench) -> None:
    await _ends_cancelled(bench, burial, 1)


@case("4.11")
async def a_cancel_carried_out_ends_cancelled_for_the_reason_that_was_asked(bench: Bench) -> None:
    await _ends_cancelled(bench, cancellation, 1)


@case("4.11", "4.5")
async def a_reclaim_with_a_cancel_pending_ends_cancelled(bench: Bench) -> None:
    started, unstarted = await bench.enqueue(), await bench.enqueue()
    first, _ = await bench.take()
    await bench.start(first)
    await bench.cancel(started, unstarted, reason="not needed")

    reclaimed = await bench.lose_workers()

    assert [SettleKind.CANCEL] * 2 == [job.fate for job in reclaimed]
    for job_id in (started, unstarted):
        record = await bench.record(job_id)
        assert (JobState.CANCELLED, "not needed") == (record.state, record.reason)
    bench.advance(DAY)
    assert [] == await bench.take()


@case("4.11", "4.8")
async def a_finished_or_unknown_job_cannot_be_cancelled(bench: Bench) -> None:
    succeeded, dead, cancelled, ready = [await bench.enqueue() for _ in range(4)]
    first, second, third = await bench.take(3)
    await bench.settle(success(first), burial(second), cancellation(third))

    answers = await bench.cancel(succeeded, UNKNOWN, dead, ready, cancelled)

    assert [
        CancelStatus.FINISHED,
        CancelStatus.MISSING,
        CancelStatus.FINISHED,
        CancelStatus.CANCELLED,
        CancelStatus.FINISHED,
    ] == answers


@case("4.8")
async def a_cancel_is_recorded_with_who_asked_when_and_why(bench: Bench) -> None:
    waiting, running = await bench.enqueue(priority=9), await bench.enqueue()
    await bench.take_one()
    bench.advance(SECOND)

    await bench.cancel(waiting, running, reason="not needed", by="ada")

    for job_id in (waiting, running):
        (operation,) = (await bench.record(job_id)).operations
        expected = (bench.now, "cancel", "ada", "not needed")
        assert expected == (operation.at, operation.verb, operation.by, operation.reason)


# --- requeue


@case("4.7")
async def a_dead_letter_can_be_requeued_with_all_its_attempts_back(bench: Bench) -> None:
    job_id = await bench.enqueue(payload=b"kept", retry=RetryNumbers(2, 0, 1, 0, jitter=False))
    await bench.settle(failure(await bench.take_one()))
    await bench.settle(burial(await bench.take_one()))

    answers = await bench.requeue(job_id)

    record = await bench.record(job_id)
    delivery = await bench.take_one()
    assert [RequeueStatus.REQUEUED] == answers
    assert (JobState.READY, 0, "", None) == (
        record.state,
        record.attempt,
        record.reason,
        record.finished_at,
    )
    assert (1, b"kept") == (delivery.attempt, delivery.payload)
    assert 2 == len(record.errors), "what went wrong before is still told"


@case("4.7", "4.4")
async def a_requeued_job_survives_a_crash_that_its_old_attempts_would_not(bench: Bench) -> None:
    job_id = await bench.enqueue(retry=RetryNumbers(2, 0, 1, 0, jitter=False))
    await bench.settle(failure(await bench.take_one()))
    await bench.settle(burial(await bench.take_one()))
    await bench.requeue(job_id)
    await bench.start(await bench.take_one())

    (reclaimed,) = await bench.lose_workers()

    assert SettleKind.RETRY == reclaimed.fate


@case("4.8", "4.10")
async def a_cancelled_job_can_be_requeued(bench: Bench) -> None:
    job_id = await bench.enqueue(run_in=DAY)
    await bench.cancel(job_id, reason="not needed")

    answers = await bench.requeue(job_id)

    record = await bench.record(job_id)
    assert [RequeueStatus.REQUEUED] == answers
    assert (JobState.SCHEDULED, "", False) == (record.state, record.reason, record.cancel_requested)
    assert [] == await bench.take_ids(), "its run_at is never early"
    bench.advance(DAY)
    assert [job_id] == await bench.take_ids()


@case("4.8", "4.11")
async def a_job_requeued_after_a_cancel_is_not_cancelled_by_it_again(bench: Bench) -> None:
    job_id = await bench.enqueue()
    delivery = await bench.take_one()
    await bench.cancel(job_id)
    await bench.settle(release(delivery))
    await bench.requeue(job_id)

    again = await bench.take_one()
    states = await bench.settle(failure(again))

    assert not again.cancel_requested
    assert [JobState.READY] == states


@case("4.8")
async def only_dead_and_cancelled_jobs_are_requeued(bench: Bench) -> None:
    succeeded, running, ready = [await bench.enqueue() for _ in range(3)]
    first, _ = await bench.take(2)
    await bench.settle(success(first))
    scheduled = await bench.enqueue(run_in=HOUR)
    before = await bench.get(succeeded, running, ready, scheduled)

    answers = await bench.requeue(succeeded, running, ready, scheduled, UNKNOWN)

    assert [RequeueStatus.NOT_DEAD] * 4 + [RequeueStatus.MISSING] == answers
    assert before == await bench.get(succeeded, running, ready, scheduled)


@case("4.8")
async def a_requeue_is_recorded_after_what_was_done_before(bench: Bench) -> None:
    job_id = await bench.enqueue()
    await bench.cancel(job_id, by="ada", reason="not needed")
    bench.advance(SECOND)

    await bench.requeue(job_id, by="bob", reason="needed after all")

    operations = (await bench.record(job_id)).operations
    assert [
        (bench.now - SECOND, "cancel", "ada", "not needed"),
        (bench.now, "requeue", "bob", "needed after all"),
    ] == [(done.at, done.verb, done.by, done.reason) for done in operations]


@case("4.7", "4.10")
async def a_requeued_job_takes_its_turn_behind_those_that_wait(bench: Bench) -> None:
    dead = await _dead(bench)
    waiting = await bench.enqueue()
    bench.advance(SECOND)

    await bench.requeue(dead)

    assert [waiting, dead] == await bench.take_ids()


@case("4.7")
async def a_requeue_is_answered_for_each_job_by_itself(bench: Bench) -> None:
    first, second = await _dead(bench), await _dead(bench)

    answers = await bench.requeue(first, UNKNOWN, second)

    expected = [RequeueStatus.REQUEUED, RequeueStatus.MISSING, RequeueStatus.REQUEUED]
    assert expected == answers
    assert [first, second] == await bench.take_ids()


@case("4.9", "4.7")
async def a_requeue_takes_its_key_again(bench: Bench) -> None:
    dead = await _dead(bench, key="k")

    answers = await bench.requeue(dead)
    (duplicate,) = await bench.enqueue_all(new_job(key="k"))

    assert [RequeueStatus.REQUEUED] == answers
    assert dead == duplicate.job_id


@case("4.9", "4.7")
async def a_requeue_within_the_keys_time_keeps_it_for_as_long_as_the_job_lives(bench: Bench) -> None:
    dead = await bench.enqueue(key="k", key_ttl=HOUR)
    await bench.settle(burial(await bench.take_one()))
    await bench.requeue(dead)
    bench.advance(DAY)

    (duplicate,) = await bench.enqueue_all(new_job(key="k"))

    assert dead == duplicate.job_id


@case("4.9", "4.7")
async def a_requeue_whose_key_was_taken_since_is_refused(bench: Bench) -> None:
    dead = await _dead(bench, key="k")
    taker = await bench.enqueue(key="k")
    before = await bench.record(dead)

    answers = await bench.requeue(dead)

    assert [RequeueStatus.KEY_TAKEN] == answers
    assert before == await bench.record(dead)
    assert [taker] == await bench.take_ids()


@case("4.9", "4.7")
async def a_requeue_is_possible_once_whoever_took_the_key_is_gone(bench: Bench) -> None:
    dead = await _dead(bench, key="k")
    taker = await bench.enqueue(key="k", key_ttl=HOUR)
    await bench.finish(taker)
    within = await bench.requeue(dead)
    bench.advance(HOUR + SECOND)

    after = await bench.requeue(dead)

    assert ([RequeueStatus.KEY_TAKEN], [RequeueStatus.REQUEUED]) == (within, after)


@case("4.9", "4.7")
async def of_two_dead_jobs_of_one_key_a_requeue_takes_one(bench: Bench) -> None:
    first, second = await _dead(bench, key="k"), await _dead(bench, key="k")

    answers = await bench.requeue(first, second)

    assert [RequeueStatus.REQUEUED, RequeueStatus.KEY_TAKEN] == answers


# --- delete


@case("4.8")
async def a_deleted_job_is_gone(bench: Bench) -> None:
    ready, scheduled, succeeded, dead = [
        await bench.enqueue(),
        await bench.enqueue(run_in=HOUR),
        await bench.enqueue(priority=0),
        await bench.enqueue(priority=0),
    ]
    first, second = await bench.take(2)
    await bench.settle(success(first), burial(second))

    answers = await bench.delete(ready, scheduled, succeeded, dead, UNKNOWN)

    bench.advance(DAY)
    assert [DeleteStatus.DELETED] * 4 + [DeleteStatus.MISSING] == answers
    assert [None] * 4 == await bench.get(ready, scheduled, succeeded, dead)
    assert ([], []) == (await bench.take(), await bench.find_ids())


@case("4.2", "4.8")
async def a_running_job_is_not_deleted(bench: Bench) -> None:
    job_id = await bench.enqueue()
    delivery = await bench.take_one()

    running = await bench.delete(job_id)
    states = await bench.settle(success(delivery))
    finished = await bench.delete(job_id)

    assert ([DeleteStatus.RUNNING], [DeleteStatus.DELETED]) == (running, finished)
    assert [JobState.SUCCEEDED] == states


@case("4.8")
async def a_delete_takes_those_that_are_in_a_state_asked_for(bench: Bench) -> None:
    jobs = await _one_in_each_state(bench)
    ends = dict.fromkeys(jobs.values(), DeleteStatus.DELETED) | {JobState.RUNNING: DeleteStatus.RUNNING}

    for job_id, state in jobs.items():
        others = set(JobState) - {state}
        refused = await bench.delete(job_id, UNKNOWN, states=others)
        there = await bench.state(job_id)
        ended = await bench.delete(job_id, states={state, JobState.WAITING})

        assert [DeleteStatus.OTHER_STATE, DeleteStatus.MISSING] == refused, state
        assert (state, [ends[state]]) == (there, ended)

    assert [JobState.RUNNING] == [await bench.state(job_id) for job_id in await bench.find_ids()]


@case("4.7", "4.8")
async def a_purge_leaves_what_was_requeued_since_it_was_listed(bench: Bench) -> None:
    first, second, third, fourth = [await _dead(bench) for _ in range(4)]
    listed = await bench.find_ids(JobState.DEAD)
    await bench.requeue(second, fourth)
    (running,) = await bench.take(1)

    answers = await bench.delete(*listed, first, states={JobState.DEAD})

    deleted, other = DeleteStatus.DELETED, DeleteStatus.OTHER_STATE
    assert [first, second, third, fourth] == listed
    assert [deleted, other, deleted, other, DeleteStatus.MISSING] == answers
    assert (second, [fourth]) == (running.id, await bench.take_ids())
    assert [JobState.SUCCEEDED] == await bench.settle(success(running))


@case("4.14", "4.8")
async def a_step_that_is_not_in_the_states_asked_for_stays_with_its_flow(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain())
    first, last = ids_of(flow)

    refused = await bench.delete(first, last, states={JobState.DEAD})
    waiting = await bench.delete(last, states={JobState.WAITING})

    assert ([DeleteStatus.OTHER_STATE] * 2, [DeleteStatus.DELETED]) == (refused, waiting)


@case("4.10", "4.8")
async def time_alone_brings_a_job_into_a_state_that_a_delete_asks_for(bench: Bench) -> None:
    job_id = await bench.enqueue(run_in=HOUR)

    early = await bench.delete(job_id, states={JobState.READY})
    bench.advance(HOUR)
    late = await bench.delete(job_id, states={JobState.SCHEDULED})
    then = await bench.delete(job_id, states={JobState.READY})

    other = DeleteStatus.OTHER_STATE
    assert ([other], [other], [DeleteStatus.DELETED]) == (early, late, then)


@case("4.7", "4.9")
async def a_requeue_takes_those_that_are_in_a_state_asked_for(bench: Bench) -> None:
    dead, cancelled = await _dead(bench, key="k"), await bench.enqueue(key="other")
    await bench.cancel(cancelled)

    refused = (
        await bench.requeue(dead, states={JobState.CANCELLED}),
        await bench.requeue(cancelled, states={JobState.DEAD}),
    )
    before = await bench.states(dead, cancelled)
    taken = await bench.requeue(dead, cancelled, states={JobState.DEAD, JobState.CANCELLED})

    assert ([RequeueStatus.NOT_DEAD], [RequeueStatus.NOT_DEAD]) == refused
    assert [JobState.DEAD, JobState.CANCELLED] == before
    assert [RequeueStatus.REQUEUED] * 2 == taken


@case("4.8")
async def deleting_one_job_leaves_the_others(bench: Bench) -> None:
    first, second, third = [await bench.enqueue() for _ in range(3)]

    await bench.delete(second)

    assert [first, third] == await bench.take_ids()


# --- looking


@case("4.8")
async def looking_up_answers_in_the_order_asked(bench: Bench) -> None:
    first, second = await bench.enqueue(), await bench.enqueue()

    records = await bench.get(second, UNKNOWN, first, second)

    assert [second, None, first, second] == [record and record.id for record in records]
    assert [] == await bench.get()


@case("4.8")
async def an_id_that_could_be_no_jobs_is_simply_missing(bench: Bench) -> None:
    for name in ("", "42", "no such job", "\N{SNOWMAN}" * 40, UNKNOWN.replace("-", "")):
        assert [None] == await bench.get(name)
        assert [CancelStatus.MISSING] == await bench.cancel(name)
        assert [RequeueStatus.MISSING] == await bench.requeue(name)
        assert [DeleteStatus.MISSING] == await bench.delete(name)


async def _one_in_each_state(bench: Bench) -> dict[str, JobState]:
    """Return a job in each state that one of no flow can be in."""
    expected = {
        await bench.enqueue(priority=0, payload=b"running"): JobState.RUNNING,
        await bench.enqueue(priority=0, payload=b"retrying"): JobState.RETRYING,
        await bench.enqueue(priority=0, payload=b"succeeded"): JobState.SUCCEEDED,
        await bench.enqueue(priority=0, payload=b"dead"): JobState.DEAD,
        await bench.enqueue(priority=0, payload=b"parked"): JobState.PARKED,
        await bench.enqueue(priority=0, payload=b"cancelled"): JobState.CANCELLED,
        await bench.enqueue(run_in=HOUR): JobState.SCHEDULED,
        await bench.enqueue(): JobState.READY,
    }
    _, retrying, succeeded, dead, parked, cancelled = await bench.take(6)
    await bench.settle(
        failure(retrying, HOUR), success(succeeded), burial(dead), stray(parked), cancellation(cancelled)
    )
    return expected


@case("4.8")
async def every_state_is_shown_as_it_is(bench: Bench) -> None:
    expected = await _one_in_each_state(bench)

    records = await bench.get(*expected)

    assert list(expected.values()) == [record and record.state for record in records]
    for job_id, state in expected.items():
        assert [job_id] == await bench.find_ids(state), f"job_find by {state.value}"
    counts = await bench.store.job_count(JobCount(now=bench.now))
    assert dict.fromkeys(expected.values(), 1) == {counted.state: counted.count for counted in counts}


@case("4.10", "4.18")
async def time_alone_makes_scheduled_and_retrying_jobs_ready(bench: Bench) -> None:
    scheduled = await bench.enqueue(run_in=HOUR)
    retrying = await bench.enqueue()
    await bench.settle(failure(await bench.take_one(), after=HOUR))
    before = await bench.find_ids(JobState.READY)

    bench.advance(HOUR)

    assert ([], sorted([scheduled, retrying])) == (before, await bench.find_ids(JobState.READY))


@case("4.8")
async def jobs_are_found_without_what_may_be_large(bench: Bench) -> None:
    jobs = await _one_in_each_state(bench)
    (kept,) = [job_id for job_id, state in jobs.items() if state is JobState.SUCCEEDED]
    whole = {record.id: record for record in await bench.store.job_find(JobFind(now=bench.now))}

    for states in (frozenset[JobState](), *(frozenset({state}) for state in jobs.values())):
        found = await bench.store.job_find(JobFind(states=states, payloads=False, now=bench.now))
        expected = [
            msgspec.structs.replace(whole[job_id], payload=b"", result=None)
            for job_id, state in sorted(jobs.items())
            if not states or state in states
        ]
        assert expected == list(found), states

    assert (b"running", True) == (whole[min(jobs)].payload, whole[kept].result is not None)


@case("4.8")
async def jobs_are_found_by_queue_task_key_and_state_together(bench: Bench) -> None:
    mail = await bench.enqueue(queue="mail", task="a", key="k")
    other_task = await bench.enqueue(queue="mail", task="b", key="k")
    other_queue = await bench.enqueue(queue="video", task="a", key="other")
    scheduled = await bench.enqueue(queue="mail", task="a", run_in=HOUR)

    async def found(request: JobFind) -> list[str]:
        return [record.id for record in await bench.store.job_find(request)]

    now = bench.now
    everything = [mail, other_task, other_queue, scheduled]
    assert everything == await found(JobFind(now=now))
    assert [mail, other_task, scheduled] == await found(JobFind(queues=frozenset({"mail"}), now=now))
    assert everything == await found(JobFind(queues=frozenset({"mail", "video"}), now=now))
    assert [mail, other_queue, scheduled] == await found(JobFind(tasks=frozenset({"a"}), now=now))
    assert [mail, other_task] == await found(JobFind(key="k", now=now))
    assert [mail] == await found(JobFind(key="k", tasks=frozenset({"a"}), now=now))
    assert [scheduled] == await found(
        JobFind(
            queues=frozenset({"mail"}),
            tasks=frozenset({"a"}),
            states=frozenset({JobState.SCHEDULED, JobState.DEAD}),
            now=now,
        )
    )
    assert [] == await found(JobFind(key="no such key", now=now))


@case("4.8")
async def a_long_list_is_read_page_by_page(bench: Bench) -> None:
    jobs = [new_job() for _ in range(25)]
    await bench.enqueue_all(*reversed(jobs))
    pages: list[list[str]] = []

    after = ""
    while True:
        page = await bench.store.job_find(JobFind(after=after, limit=10, now=bench.now))
        if not page or len(pages) > 3:
            break
        pages.append([record.id for record in page])
        after = page[-1].id

    assert [10, 10, 5] == [len(page) for page in pages]
    assert [job.id for job in jobs] == [job_id for page in pages for job_id in page]


@case("4.8")
async def a_long_list_is_read_backwards_too(bench: Bench) -> None:
    jobs = [new_job() for _ in range(12)]
    await bench.enqueue_all(*jobs)
    await bench.finish(jobs[3].id)
    pages: list[list[str]] = []

    after = ""
    while True:
        request = JobFind(after=after, limit=5, newest_first=True, now=bench.now)
        page = await bench.store.job_find(request)
        if not page or len(pages) > 3:
            break
        pages.append([record.id for record in page])
        after = page[-1].id

    assert [5, 5, 2] == [len(page) for page in pages]
    assert [job.id for job in reversed(jobs)] == [job_id for page in pages for job_id in page]


@case("4.8")
async def pages_of_a_filtered_list_are_full(bench: Bench) -> None:
    ids = [await bench.enqueue(queue="even" if number % 2 else "odd") for number in range(20)]

    page = await bench.store.job_find(
        JobFind(queues=frozenset({"odd"}), after=ids[2], limit=5, now=bench.now)
    )

    assert ids[4:14:2] == [record.id for record in page]


@case("4.8")
async def counts_are_by_queue_task_and_state_and_sorted(bench: Bench) -> None:
    for queue, task in (("b", "y"), ("b", "x"), ("a", "y"), ("b", "x"), ("b", "x")):
        await bench.enqueue(queue=queue, task=task)
    await bench.enqueue(queue="b", task="x", run_in=HOUR)
    await bench.settle(success(await bench.take_one(queues=["a"])))

    counts = await bench.store.job_count(JobCount(now=bench.now))

    assert [
        ("a", "y", JobState.SUCCEEDED, 1),
        ("b", "x", JobState.READY, 3),
        ("b", "x", JobState.SCHEDULED, 1),
        ("b", "y", JobState.READY, 1),
    ] == [(counted.queue, counted.task, counted.state, counted.count) for counted in counts]


@case("4.8")
async def counts_can_be_asked_for_some_queues_and_tasks(bench: Bench) -> None:
    for queue, task in (("a", "x"), ("a", "y"), ("b", "x")):
        await bench.enqueue(queue=queue, task=task)

    of_a = await bench.store.job_count(JobCount(queues=frozenset({"a"}), now=bench.now))
    of_x = await bench.store.job_count(JobCount(tasks=frozenset({"x"}), now=bench.now))
    none = await bench.store.job_count(JobCount(queues=frozenset({"c"}), now=bench.now))

    assert [("a", "x"), ("a", "y")] == [(counted.queue, counted.task) for counted in of_a]
    assert [("a", "x"), ("b", "x")] == [(counted.queue, counted.task) for counted in of_x]
    assert [] == list(none)
