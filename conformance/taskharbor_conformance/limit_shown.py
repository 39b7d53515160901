"""How jobs that a limit keeps back are shown: parked, with the reason, wherever one looks."""

from __future__ import annotations

from collections import Counter

from taskharbor.driver import (
    DeleteStatus,
    EnqueueStatus,
    JobCount,
    JobFind,
    QueueInfo,
    QueueList,
    RequeueStatus,
)
from taskharbor.job import JobState, KeyRule
from taskharbor.settlement import SettleKind
from taskharbor_conformance.bench import (
    HOUR,
    SECOND,
    TASK,
    Bench,
    burial,
    failure,
    new_job,
    release,
    stray,
    success,
)
from taskharbor_conformance.case import case
from taskharbor_conformance.scopes import (
    OTHER,
    A,
    B,
    at_most,
    at_rate,
    in_line,
    of_key,
    of_keys,
    of_queue,
    of_task,
    set_limit,
)

READY, PARKED = JobState.READY, JobState.PARKED


async def _queue(bench: Bench, name: str = "default") -> QueueInfo:
    (queue,) = (one for one in await bench.store.queue_list(QueueList(now=bench.now)) if one.name == name)
    return queue


@case("4.24")
async def what_a_full_limit_keeps_back_is_parked_with_the_reason(bench: Bench) -> None:
    await set_limit(bench, of_task(), at_most(1))
    first, second = [await bench.enqueue() for _ in range(2)]
    before = await bench.states(first, second)
    delivery = await bench.take_one()
    during = await bench.states(first, second)
    reason = (await bench.record(second)).reason
    await bench.settle(success(delivery))

    after = await bench.record(second)

    assert ([READY, READY], [JobState.RUNNING, PARKED]) == (before, during)
    assert str(of_task()) in reason
    assert "1" in reason
    assert (READY, "") == (after.state, after.reason)


@case("4.24")
async def the_reason_names_the_key_that_is_full(bench: Bench) -> None:
    await set_limit(bench, of_keys(), at_most(1))
    of_a = await in_line(bench, A, 2)
    await bench.take_one()
    of_b = await in_line(bench, B, 1)

    kept_back = await bench.record(of_a[1])

    assert (PARKED, True) == (kept_back.state, str(of_key(A)) in kept_back.reason)
    assert READY == await bench.state(of_b[0])


@case("4.24")
async def what_a_rate_keeps_back_is_parked_until_its_time(bench: Bench) -> None:
    await set_limit(bench, of_task(), at_rate())
    await bench.enqueue()
    second = await bench.enqueue()
    await bench.take()

    record = await bench.record(second)
    bench.advance(SECOND)

    assert (PARKED, True) == (record.state, "rate" in record.reason)
    assert READY == await bench.state(second)


@case("4.24")
async def a_queues_limit_parks_nothing(bench: Bench) -> None:
    await set_limit(bench, of_queue(), at_most(1))
    plain = [await bench.enqueue(priority=0) for _ in range(2)]
    in_lines = await in_line(bench, A, 1)
    await bench.take()

    assert [JobState.RUNNING, READY, READY] == await bench.states(*plain, *in_lines)
    queue = await _queue(bench)
    assert (2, 0, 1) == (queue.ready, queue.parked, queue.running)


@case("4.24", "4.7")
async def parked_jobs_are_found_and_counted_as_such(bench: Bench) -> None:
    await set_limit(bench, of_keys(), at_most(1))
    of_a, of_b = await in_line(bench, A, 3), await in_line(bench, B, 1)
    running = await bench.take_one()
    assert of_a[0] == running.id
    later = await bench.enqueue(partition=A, run_in=HOUR)
    plain = await bench.enqueue(task=OTHER)

    assert of_a[1:] == await bench.find_ids(PARKED)
    assert [*of_b, plain] == await bench.find_ids(READY)
    assert [later] == await bench.find_ids(JobState.SCHEDULED)
    counts = Counter(
        {(one.task, one.state): one.count for one in await bench.store.job_count(JobCount(now=bench.now))}
    )
    assert {
        (TASK, PARKED): 2,
        (TASK, READY): 1,
        (TASK, JobState.RUNNING): 1,
        (TASK, JobState.SCHEDULED): 1,
        (OTHER, READY): 1,
    } == counts
    queue = await _queue(bench)
    assert (2, 1, 2, 1) == (queue.ready, queue.scheduled, queue.parked, queue.running)


@case("4.24", "4.7")
async def pages_of_parked_and_of_ready_jobs_are_full(bench: Bench) -> None:
    await set_limit(bench, of_keys(), at_most(1))
    of_a, of_b = list[str](), list[str]()
    for _ in range(5):
        of_a += await in_line(bench, A, 1)
        of_b += await in_line(bench, B, 1)
    delivery = await bench.take_one()
    assert of_a[0] == delivery.id

    async def pages(state: JobState, *, newest_first: bool) -> list[list[str]]:
        found: list[list[str]] = []
        after = ""
        while True:
            page = await bench.store.job_find(
                JobFind(
                    states=frozenset({state}), after=after, limit=2, newest_first=newest_first, now=bench.now
                )
            )
            found.append([record.id for record in page])
            if len(page) < 2:
                return found
            after = page[-1].id

    assert [of_a[1:3], of_a[3:5], []] == await pages(PARKED, newest_first=False)
    assert [[of_b[4], of_b[3]], [of_b[2], of_b[1]], [of_b[0]]] == await pages(READY, newest_first=True)


@case("4.24")
async def times_to_come_are_shown_and_not_the_limit(bench: Bench) -> None:
    await set_limit(bench, of_task(), at_most(0))
    scheduled = await bench.enqueue(run_in=HOUR)
    await set_limit(bench, of_task(), at_most(1))
    retrying = await bench.enqueue()
    await bench.settle(failure(await bench.take_one(), HOUR))
    await set_limit(bench, of_task(), at_most(0))

    early = await bench.states(scheduled, retrying)
    bench.advance(HOUR)

    assert [JobState.SCHEDULED, JobState.RETRYING] == early
    assert [PARKED, PARKED] == await bench.states(scheduled, retrying)


@case("4.24", "4.16")
async def a_strays_own_reason_goes_first(bench: Bench) -> None:
    await set_limit(bench, of_task(OTHER), at_most(1))
    job_id = await bench.enqueue(task=OTHER)
    await bench.settle(stray(await bench.take_one(), reason="unknown here"))
    await set_limit(bench, of_task(OTHER), at_most(0))

    record = await bench.record(job_id)

    assert (PARKED, "unknown here") == (record.state, record.reason)


@case("4.24", "4.7", "4.8")
async def parked_jobs_are_chosen_by_state(bench: Bench) -> None:
    await set_limit(bench, of_task(), at_most(1))
    first, second, third = [await bench.enqueue() for _ in range(3)]
    delivery = await bench.take_one()
    assert first == delivery.id

    kept = await bench.delete(second, states=[READY])
    deleted = await bench.delete(second, states=[PARKED])
    await bench.settle(success(delivery))
    again = await bench.delete(third, states=[PARKED])

    assert ([DeleteStatus.DELETED], True, True) == (
        deleted,
        DeleteStatus.DELETED not in kept,
        DeleteStatus.DELETED not in again,
    )
    assert [None] == await bench.get(second)


@case("4.24", "4.8")
async def a_requeue_by_state_knows_parked_jobs(bench: Bench) -> None:
    await set_limit(bench, of_task(), at_most(0))
    job_id = await bench.enqueue()

    by_ready = await bench.requeue(job_id, states=[READY])
    by_parked = await bench.requeue(job_id, states=[PARKED])

    assert RequeueStatus.REQUEUED not in by_ready
    del by_parked  # whether a ready job is requeued is told elsewhere; that it is not lost, here
    assert PARKED == await bench.state(job_id)


@case("4.24", "4.9")
async def key_rules_do_not_look_at_limits(bench: Bench) -> None:
    await set_limit(bench, of_task(), at_most(0))
    first = await bench.enqueue(key="k")
    while_ready = KeyRule(states=(READY,))
    while_parked = KeyRule(states=(PARKED,))

    (kept_out,) = await bench.enqueue_all(new_job(key="k", key_rule=while_ready))
    (let_in,) = await bench.enqueue_all(new_job(key="k", key_rule=while_parked))

    assert (EnqueueStatus.EXISTING, first) == (kept_out.status, kept_out.job_id)
    assert EnqueueStatus.CREATED == let_in.status


@case("4.24", "4.3")
async def a_settlements_answer_does_not_look_at_limits(bench: Bench) -> None:
    await set_limit(bench, of_task(), at_most(1))
    await bench.enqueue()
    delivery = await bench.take_one()
    await set_limit(bench, of_task(), at_most(0))

    (state,) = await bench.settle(release(delivery))

    assert (READY, SettleKind.RELEASE) == (state, SettleKind.RELEASE)
    assert PARKED == await bench.state(delivery.id)


@case("4.24", "4.15")
async def what_has_ended_and_what_runs_is_shown_as_ever(bench: Bench) -> None:
    ids = [await bench.enqueue() for _ in range(4)]
    done, dead, _ = await bench.take(3)
    await bench.settle(success(done), burial(dead))
    await bench.cancel(ids[3])
    await set_limit(bench, of_task(), at_most(0))

    states = [JobState.SUCCEEDED, JobState.DEAD, JobState.RUNNING, JobState.CANCELLED]
    assert states == await bench.states(*ids)
