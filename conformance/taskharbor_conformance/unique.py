"""Uniqueness: for how long a key keeps others out, as the job that comes sees it, and keys that are handed over."""

from __future__ import annotations

from datetime import timedelta
from typing import Unpack

from taskharbor.driver import EnqueueStatus, HistoryPrune, RequeueStatus
from taskharbor.job import LIVE, REPLACEABLE, JobState, KeyRule, NewJob, OnConflict, new_job_ids
from taskharbor_conformance.bench import (
    BUILD,
    DAY,
    HOUR,
    SECOND,
    Bench,
    JobFields,
    burial,
    failure,
    new_job,
    stray,
    success,
)
from taskharbor_conformance.case import case
from taskharbor_conformance.concurrency import in_threads
from taskharbor_conformance.graphs import chain_steps, new_flow

CREATED, EXISTING, CONFLICT, LEFT_OUT = (
    EnqueueStatus.CREATED,
    EnqueueStatus.EXISTING,
    EnqueueStatus.CONFLICT,
    EnqueueStatus.LEFT_OUT,
)
NOT_BEGUN = KeyRule(states=tuple(sorted(REPLACEABLE)))
"""As long as nobody has begun with it."""
UNTIL_IT_ENDS = KeyRule(states=tuple(sorted(LIVE)))


def unique(rule: KeyRule = UNTIL_IT_ENDS, **fields: Unpack[JobFields]) -> NewJob:
    """Return a job of the key `k` under a rule, whose arguments do not count."""
    fields.setdefault("key", "k")
    fields.setdefault("digest", b"")
    fields["key_rule"] = rule
    return new_job(**fields)


def while_in(*states: JobState) -> KeyRule:
    """Return the rule of those who see a holder in these states alone."""
    return KeyRule(states=states)


async def store(bench: Bench, job: NewJob) -> str:
    """Store a job that nothing keeps out, and return its id."""
    (answer,) = await bench.enqueue_all(job)
    assert CREATED == answer.status, f"expected a new job, got {answer.status}"
    return answer.job_id


async def holder_in(bench: Bench, state: JobState) -> str:
    """Return a job in this state that has the key `k`."""
    job_id = await bench.enqueue(key="k", digest=b"", run_in=HOUR if state is JobState.SCHEDULED else None)
    match state:
        case JobState.PARKED:
            await bench.settle(stray(await bench.take_one(), refused_by=BUILD, reason="foreign payload"))
        case JobState.RUNNING:
            await bench.take_one()
        case JobState.RETRYING:
            await bench.settle(failure(await bench.take_one(), after=HOUR))
        case JobState.SUCCEEDED:
            await bench.settle(success(await bench.take_one()))
        case JobState.DEAD:
            await bench.settle(burial(await bench.take_one()))
        case JobState.CANCELLED:
            await bench.cancel(job_id)
        case JobState.SCHEDULED | JobState.READY | JobState.WAITING:
            pass
    assert state is await bench.state(job_id)
    return job_id


ALONE = [state for state in JobState if state is not JobState.WAITING]
"""The states that a job can be in which is no step of a flow."""


# --- states


@case("4.20")
async def a_job_is_kept_out_in_each_of_the_states_its_rule_names(bench: Bench) -> None:
    for state in ALONE:
        holder = await holder_in(bench, state)

        (answer,) = await bench.enqueue_all(unique(while_in(state)))

        assert (EXISTING, holder) == (answer.status, answer.job_id), state
        await _clear(bench)


@case("4.20")
async def a_job_is_kept_out_in_no_other_state(bench: Bench) -> None:
    for state in ALONE:
        await holder_in(bench, state)
        coming = unique(while_in(*(other for other in JobState if other is not state)))

        (answer,) = await bench.enqueue_all(coming)

        assert (CREATED, coming.id) == (answer.status, answer.job_id), state
        await _clear(bench)


async def _clear(bench: Bench) -> None:
    """Remove every job, whatever state it is in."""
    bench.advance(HOUR)
    await bench.reclaim()
    await bench.delete(*await bench.find_ids())
    assert [] == await bench.find_ids()


@case("4.20")
async def the_rule_is_that_of_the_job_that_comes(bench: Bench) -> None:
    await store(bench, unique(while_in(JobState.RUNNING)))

    (strict,) = await bench.enqueue_all(unique(UNTIL_IT_ENDS))
    (lax,) = await bench.enqueue_all(unique(while_in(JobState.RUNNING)))

    assert (EXISTING, CREATED) == (strict.status, lax.status)


@case("4.20", "4.9")
async def a_job_without_a_rule_is_kept_out_as_ever(bench: Bench) -> None:
    first = await store(bench, unique(while_in(JobState.RUNNING)))
    (live,) = await bench.enqueue_all(new_job(key="k", digest=b""))
    await bench.finish(first)

    (ended,) = await bench.enqueue_all(new_job(key="k", digest=b""))

    assert [(EXISTING, first)] * 2 == [(answer.status, answer.job_id) for answer in (live, ended)]


@case("4.20")
async def with_a_rule_a_key_is_free_as_soon_as_its_job_has_ended(bench: Bench) -> None:
    first = await store(bench, unique(key_ttl=DAY))
    (live,) = await bench.enqueue_all(unique())
    await bench.finish(first)

    (ended,) = await bench.enqueue_all(unique())

    assert (EXISTING, CREATED) == (live.status, ended.status)


@case("4.20")
async def a_rule_that_ends_with_the_start_lets_the_next_one_in_while_one_runs(bench: Bench) -> None:
    first = await store(bench, unique(NOT_BEGUN))
    (waiting,) = await bench.enqueue_all(unique(NOT_BEGUN))
    await bench.take_one()

    second = await store(bench, unique(NOT_BEGUN))
    (behind,) = await bench.enqueue_all(unique(NOT_BEGUN))

    assert [(EXISTING, first), (EXISTING, second)] == [
        (answer.status, answer.job_id) for answer in (waiting, behind)
    ]


@case("4.20")
async def time_alone_makes_a_scheduled_job_a_ready_one(bench: Bench) -> None:
    await store(bench, unique(run_in=HOUR))
    scheduled = while_in(JobState.SCHEDULED)
    (before,) = await bench.enqueue_all(unique(scheduled))
    bench.advance(HOUR)

    (after,) = await bench.enqueue_all(unique(scheduled))

    assert (EXISTING, CREATED) == (before.status, after.status)


@case("4.20", "4.16")
async def what_is_parked_is_ready_as_soon_as_a_worker_can_take_it(bench: Bench) -> None:
    await holder_in(bench, JobState.PARKED)
    parked = while_in(JobState.PARKED)
    (before,) = await bench.enqueue_all(unique(parked))
    await bench.announce(build="build-2")

    (after,) = await bench.enqueue_all(unique(parked))

    assert (EXISTING, CREATED) == (before.status, after.status)


@case("4.20")
async def other_arguments_are_a_conflict_only_where_their_digests_tell(bench: Bench) -> None:
    await store(bench, unique(digest=b"one", key="told"))
    await store(bench, unique(key="untold", payload=b"one"))

    answers = await bench.enqueue_all(unique(digest=b"two", key="told"), unique(key="untold", payload=b"two"))

    assert [CONFLICT, EXISTING] == [answer.status for answer in answers]


@case("4.20")
async def a_job_kept_out_may_ask_to_be_told(bench: Bench) -> None:
    first = await store(bench, unique())
    second = unique(on_conflict=OnConflict.RAISE)

    answers = await bench.enqueue_all(new_job(), second, all_or_none=True)

    assert [(LEFT_OUT, answers[0].job_id), (EXISTING, first)] == [(a.status, a.job_id) for a in answers]
    assert [first] == await bench.find_ids()


@case("4.20")
async def keys_of_other_tasks_are_other_keys(bench: Bench) -> None:
    await store(bench, unique())

    (answer,) = await bench.enqueue_all(unique(task="video.cut"))

    assert CREATED == answer.status


# --- a window


@case("4.20")
async def a_window_keeps_others_out_until_it_is_over_whatever_became_of_the_first(bench: Bench) -> None:
    throttle = KeyRule(window=HOUR)
    first = await store(bench, unique(throttle, key_ttl=HOUR))
    await bench.finish(first)
    bench.advance(HOUR - SECOND)
    (within,) = await bench.enqueue_all(unique(throttle))
    bench.advance(SECOND)

    (after,) = await bench.enqueue_all(unique(throttle))

    assert [(EXISTING, first), CREATED] == [(within.status, within.job_id), after.status]


@case("4.20")
async def a_window_is_over_even_if_the_first_one_has_not_begun(bench: Bench) -> None:
    throttle = KeyRule(window=HOUR)
    await store(bench, unique(throttle, run_in=DAY))
    bench.advance(HOUR)

    (answer,) = await bench.enqueue_all(unique(throttle))

    assert CREATED == answer.status


@case("4.20")
async def states_keep_others_out_beyond_the_window(bench: Bench) -> None:
    both = KeyRule(states=UNTIL_IT_ENDS.states, window=HOUR)
    first = await store(bench, unique(both, key_ttl=HOUR))
    bench.advance(2 * HOUR)
    (live,) = await bench.enqueue_all(unique(both))
    await bench.finish(first)

    (ended,) = await bench.enqueue_all(unique(both))

    assert (EXISTING, CREATED) == (live.status, ended.status)


@case("4.20")
async def a_window_runs_from_the_enqueue_of_the_one_it_let_in(bench: Bench) -> None:
    throttle = KeyRule(window=HOUR)
    let_in: list[timedelta] = []
    begin = bench.now

    for _ in range(19):
        (answer,) = await bench.enqueue_all(unique(throttle))
        if answer.status is CREATED:
            let_in.append(bench.now - begin)
        bench.advance(HOUR / 6)

    assert [number * HOUR for number in range(4)] == let_in


@case("4.20", "4.17")
async def one_whose_record_is_gone_keeps_out_only_those_without_a_rule(bench: Bench) -> None:
    for key in ("ruled", "plain"):
        await bench.enqueue(key=key, digest=b"", key_ttl=DAY * 20, retain=HOUR)
    await bench.settle(*map(success, await bench.take()))
    bench.advance(4 * DAY)
    await bench.store.history_prune(HistoryPrune(now=bench.now))
    assert [] == await bench.find_ids()

    answers = await bench.enqueue_all(
        unique(KeyRule(states=tuple(JobState)), key="ruled"), new_job(key="plain", digest=b"")
    )

    assert [CREATED, EXISTING] == [answer.status for answer in answers]


# --- a key that is handed over


@case("4.20")
async def a_key_that_was_handed_over_is_its_new_jobs_alone(bench: Bench) -> None:
    old = await store(bench, unique(NOT_BEGUN, key_ttl=timedelta(0)))
    running = await bench.take_one()
    new = await store(bench, unique(NOT_BEGUN, key_ttl=HOUR))

    await bench.settle(success(running))

    (answer,) = await bench.enqueue_all(new_job(key="k", digest=b""))
    assert JobState.SUCCEEDED == await bench.state(old)
    assert (EXISTING, new) == (answer.status, answer.job_id), "the old job's end is nothing to the key"


@case("4.20")
async def of_two_that_had_a_key_the_last_ones_time_counts(bench: Bench) -> None:
    await store(bench, unique(NOT_BEGUN, key_ttl=DAY))
    first = await bench.take_one()
    new = await store(bench, unique(NOT_BEGUN, key_ttl=HOUR))
    second = await bench.take_one()
    await bench.settle(success(second))
    bench.advance(HOUR / 2)
    await bench.settle(success(first))
    (before,) = await bench.enqueue_all(new_job(key="k", digest=b""))
    bench.advance(HOUR / 2)

    (after,) = await bench.enqueue_all(new_job(key="k", digest=b""))

    assert [(EXISTING, new), CREATED] == [(before.status, before.job_id), after.status]


@case("4.20", "4.8")
async def deleting_the_one_that_had_a_key_frees_it_for_nobody(bench: Bench) -> None:
    old = await store(bench, unique(NOT_BEGUN))
    await bench.settle(success(await bench.take_one()))
    new = await store(bench, unique(NOT_BEGUN))

    await bench.delete(old)

    (answer,) = await bench.enqueue_all(new_job(key="k", digest=b""))
    assert (EXISTING, new) == (answer.status, answer.job_id)


@case("4.20", "4.9")
async def a_dead_letter_whose_key_was_handed_over_is_not_requeued_while_another_has_it(bench: Bench) -> None:
    old = await store(bench, unique())
    await bench.settle(burial(await bench.take_one()))
    await store(bench, unique(key_ttl=HOUR))

    refused = await bench.requeue(old)
    await bench.settle(success(await bench.take_one()))
    bench.advance(HOUR)
    done = await bench.requeue(old)

    assert [RequeueStatus.KEY_TAKEN, RequeueStatus.REQUEUED] == [*refused, *done]


@case("4.20", "4.8")
async def pruning_the_one_that_had_a_key_leaves_it_to_its_new_job(bench: Bench) -> None:
    await store(bench, unique(key_ttl=timedelta(0), retain=timedelta(0)))
    await bench.settle(success(await bench.take_one()))
    new = await store(bench, unique(run_in=20 * DAY))
    bench.advance(4 * DAY)

    await bench.store.history_prune(HistoryPrune(now=bench.now))

    (answer,) = await bench.enqueue_all(new_job(key="k", digest=b""))
    assert (EXISTING, new) == (answer.status, answer.job_id)


# --- batches


@case("4.20", "4.1")
async def of_one_key_in_a_batch_the_first_keeps_the_others_out(bench: Bench) -> None:
    first, second, third = unique(), unique(), new_job(key="k", digest=b"")

    answers = await bench.enqueue_all(first, second, third)

    assert [CREATED, EXISTING, EXISTING] == [answer.status for answer in answers]
    assert {first.id} == {answer.job_id for answer in answers}


@case("4.20", "4.1")
async def in_a_batch_a_job_sees_the_one_before_it_in_the_state_it_is_stored_in(bench: Bench) -> None:
    scheduled, running = while_in(JobState.SCHEDULED), while_in(JobState.RUNNING)
    jobs = [
        unique(key="later", run_in=HOUR),
        unique(scheduled, key="later"),
        unique(key="now"),
        unique(scheduled, key="now"),
        unique(running, key="now"),
    ]

    answers = await bench.enqueue_all(*jobs)

    assert [CREATED, EXISTING, CREATED, CREATED, CREATED] == [answer.status for answer in answers]
    (last,) = await bench.enqueue_all(new_job(key="now", digest=b""))
    assert (EXISTING, jobs[-1].id) == (last.status, last.job_id), "of several the last has the key"


@case("4.20", "4.1")
async def all_or_none_hands_no_key_over_if_another_is_refused(bench: Bench) -> None:
    old = await store(bench, unique())
    running = await bench.take_one()
    await store(bench, unique(key="taken"))

    answers = await bench.enqueue_all(
        unique(NOT_BEGUN), unique(key="taken", on_conflict=OnConflict.RAISE), all_or_none=True
    )

    (answer,) = await bench.enqueue_all(new_job(key="k", digest=b""))
    assert [LEFT_OUT, EXISTING] == [answer.status for answer in answers]
    assert (EXISTING, old) == (answer.status, answer.job_id)
    await bench.settle(success(running))


@case("4.20", "4.14")
async def a_step_of_a_flow_keeps_its_key_whatever_the_rule_of_those_who_come(bench: Bench) -> None:
    *_, last = steps = chain_steps(new_job(), new_job(key="k", digest=b""))
    await bench.enqueue_flow(new_flow(*steps))

    (live,) = await bench.enqueue_all(unique(while_in(JobState.DEAD)))
    for _ in steps:
        await bench.settle(success(await bench.take_one()))
    (ended,) = await bench.enqueue_all(unique(while_in(JobState.DEAD)))

    assert [(EXISTING, last.id)] * 2 == [(answer.status, answer.job_id) for answer in (live, ended)]


@case("4.20")
async def of_many_enqueueing_at_once_one_is_let_in(bench: Bench) -> None:
    ids = new_job_ids(6 * 20)

    async def work(store: Bench, number: int) -> list[str]:
        created: list[str] = []
        for job_id in ids[number * 20 : number * 20 + 20]:
            (answer,) = await store.enqueue_all(unique(NOT_BEGUN, id=job_id))
            if answer.status is CREATED:
                created.append(answer.job_id)
        return created

    created = [job_id for some in await in_threads(bench, work) for job_id in some]

    assert 1 == len(created)
    assert created == await bench.find_ids()
