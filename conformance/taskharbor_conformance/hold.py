"""Holds: a task, or one key of it, held back by hand until somebody lets go."""

from __future__ import annotations

from taskharbor.driver import Capability, HoldList, QueueInfo, QueueList
from taskharbor.job import JobState
from taskharbor.limit import HoldRecord
from taskharbor_conformance.bench import (
    HOUR,
    SECOND,
    TASK,
    Bench,
    Doorbell,
    failure,
    new_job,
    release,
    stray,
    success,
)
from taskharbor_conformance.case import case
from taskharbor_conformance.graphs import chain
from taskharbor_conformance.scopes import (
    BOTH,
    OTHER,
    A,
    B,
    at_most,
    hold,
    in_line,
    lift,
    of_key,
    of_keys,
    of_task,
    set_limit,
)


async def _held(bench: Bench) -> list[HoldRecord]:
    return list(await bench.store.hold_list(HoldList(now=bench.now)))


async def _queue(bench: Bench) -> QueueInfo:
    (queue,) = await bench.store.queue_list(QueueList(now=bench.now))
    return queue


@case("4.24")
async def jobs_of_a_task_that_is_held_back_are_not_taken(bench: Bench) -> None:
    before = await bench.enqueue()
    await hold(bench, of_task())
    after = await bench.enqueue()
    of_a = await in_line(bench, A, 1)
    other = await bench.enqueue(task=OTHER, priority=9)

    held = await bench.take_ids(tasks=BOTH)
    await lift(bench, of_task())

    assert [other] == held
    assert {before, after, *of_a} == set(await bench.take_ids())


@case("4.24")
async def a_key_is_held_back_alone(bench: Bench) -> None:
    of_a = await in_line(bench, A, 1)
    await hold(bench, of_key(A))
    of_a += await in_line(bench, A, 1)
    of_b, plain = await in_line(bench, B, 2), await bench.enqueue()

    held = await bench.take_ids()
    await lift(bench, of_key(A))

    assert ({*of_b, plain}, of_a) == (set(held), await bench.take_ids())


@case("4.24")
async def the_same_key_of_another_task_goes_on(bench: Bench) -> None:
    await hold(bench, of_key(A, OTHER))
    of_a = await in_line(bench, A, 1)
    await in_line(bench, A, 1, task=OTHER)

    assert of_a == await bench.take_ids(tasks=BOTH)


@case("4.24")
async def what_is_held_back_is_parked_with_the_reason(bench: Bench) -> None:
    ids = [await bench.enqueue(), *await in_line(bench, A, 1), *await in_line(bench, B, 1)]
    later = await bench.enqueue(run_in=HOUR)
    await hold(bench, of_task(), reason="the provider is down")
    during = await bench.states(*ids, later)
    reasons = {(await bench.record(job_id)).reason for job_id in ids}
    queue = await _queue(bench)
    await lift(bench, of_task())

    assert [*[JobState.PARKED] * 3, JobState.SCHEDULED] == during
    (reason,) = reasons
    assert str(of_task()) in reason
    assert "the provider is down" in reason
    assert (0, 3, 1) == (queue.ready, queue.parked, queue.scheduled)
    assert [JobState.READY] * 3 == await bench.states(*ids)


@case("4.24")
async def a_held_key_is_found_and_counted_apart_from_the_others(bench: Bench) -> None:
    of_a, of_b = await in_line(bench, A, 2), await in_line(bench, B, 3)
    await hold(bench, of_key(A))

    assert (of_a, of_b) == (await bench.find_ids(JobState.PARKED), await bench.find_ids(JobState.READY))
    queue = await _queue(bench)
    assert (3, 2) == (queue.ready, queue.parked)


@case("4.24")
async def what_runs_goes_on_and_what_comes_back_waits(bench: Bench) -> None:
    for _ in range(3):
        await bench.enqueue()
    one, two, three = await bench.take()
    await hold(bench, of_task())

    kept = await bench.extend(one, two, three)
    await bench.settle(success(one), failure(two), release(three))

    assert [] == list(kept.lost)
    assert [] == await bench.take_ids()
    assert [JobState.SUCCEEDED, JobState.PARKED, JobState.PARKED] == await bench.states(
        one.id, two.id, three.id
    )


@case("4.24")
async def nothing_is_due_while_all_is_held_back(bench: Bench) -> None:
    await hold(bench, of_task())
    await bench.enqueue()
    await bench.take()

    held = (await bench.reserve()).next_due_in
    await bench.enqueue(task=OTHER, run_in=HOUR)
    later = (await bench.reserve(tasks=BOTH)).next_due_in

    assert held is None or held >= SECOND, "a worker does not ask again and again"
    assert later is not None
    assert later <= HOUR


@case("4.24")
async def a_hold_waits_beside_a_limit(bench: Bench) -> None:
    await set_limit(bench, of_keys(), at_most(1))
    of_a, of_b = await in_line(bench, A, 2), await in_line(bench, B, 2)
    await hold(bench, of_key(A))

    first = await bench.take_ids()
    await lift(bench, of_key(A))
    second = await bench.take_ids()

    assert (of_b[:1], of_a[:1]) == (first, second)


@case("4.24")
async def held_back_as_a_whole_and_by_key_both_must_be_lifted(bench: Bench) -> None:
    of_a, of_b = await in_line(bench, A, 1), await in_line(bench, B, 1)
    await hold(bench, of_task(), of_key(A))

    await lift(bench, of_task())
    first = await bench.take_ids()
    await lift(bench, of_key(A))

    assert (of_b, of_a) == (first, await bench.take_ids())


@case("4.24")
async def what_is_held_is_listed_with_who_when_and_why(bench: Bench) -> None:
    placed = await hold(bench, of_task(OTHER), of_key(A), by="ada", reason="why")
    first = bench.now
    bench.advance(SECOND)
    again = await hold(bench, of_key(A), of_key(B), by="bob", reason="other")

    held = await _held(bench)
    lifted = await lift(bench, of_key(A), of_task(), of_key(B))

    assert ([True, True], [False, True], [True, False, True]) == (placed, again, lifted)
    assert sorted([of_task(OTHER), of_key(A), of_key(B)]) == [record.scope for record in held]
    by_scope = {record.scope: (record.at, record.by, record.reason) for record in held}
    assert (first, "ada", "why") == by_scope[of_key(A)], "asked again, the first one stands"
    assert (first + SECOND, "bob", "other") == by_scope[of_key(B)]
    assert [of_task(OTHER)] == [record.scope for record in await _held(bench)]


@case("4.24", "4.11", "4.8")
async def held_jobs_can_be_cancelled_requeued_and_deleted(bench: Bench) -> None:
    first, second, third = [await bench.enqueue() for _ in range(3)]
    await hold(bench, of_task())

    await bench.cancel(first)
    await bench.requeue(first)
    await bench.delete(second)

    assert [] == await bench.take_ids()
    assert JobState.PARKED == await bench.state(first)
    await lift(bench, of_task())
    assert {first, third} == set(await bench.take_ids())


@case("4.24", "4.16")
async def strays_are_held_back_too(bench: Bench) -> None:
    job_id = await bench.enqueue(task=OTHER)
    await bench.settle(stray(await bench.take_one()))
    await hold(bench, of_task(OTHER))

    held = await bench.take_ids(tasks=BOTH)
    await lift(bench, of_task(OTHER))

    assert ([], [job_id]) == (held, await bench.take_ids(tasks=BOTH))


@case("4.24", "4.14")
async def steps_of_flows_are_held_back_and_go_on(bench: Bench) -> None:
    flow = chain(new_job(task=OTHER), new_job(partition=A))
    await bench.enqueue_flow(flow)
    await hold(bench, of_task())
    waiting = await bench.state(flow.id)
    await bench.settle(success(await bench.take_one(tasks=BOTH)))

    held = await bench.take_ids(tasks=BOTH)
    state = await bench.state(flow.id)
    await lift(bench, of_task())

    assert (JobState.WAITING, [], JobState.PARKED) == (waiting, held, state)
    assert [flow.id] == await bench.take_ids()


@case("4.24")
async def a_great_many_held_jobs_hold_up_nobody(bench: Bench) -> None:
    await bench.enqueue_all(*(new_job(priority=0) for _ in range(1500)))
    others = [await bench.enqueue(task=OTHER, priority=9) for _ in range(3)]
    await hold(bench, of_task())
    found: list[str] = []
    for _ in range(10):
        reservation = await bench.reserve(tasks=BOTH)
        found += [one.id for one in reservation.deliveries]
        if reservation.next_due_in is None or reservation.next_due_in >= SECOND:
            break

    assert others == found
    assert 1500 == (await _queue(bench)).parked


@case("4.24", "4.10")
async def letting_go_wakes_workers(bench: Bench) -> None:
    await bench.enqueue()
    await hold(bench, of_task())
    bell = Doorbell()
    subscription = bench.driver.watch_queues(["default"], bell)
    bell.reset()

    await lift(bench, of_task())

    await bell.wait()
    subscription.close()


@case("4.24", needs=Capability.SHARED)
async def all_drivers_of_a_place_hold_back_at_once(bench: Bench) -> None:
    ids = [await bench.enqueue() for _ in range(3)]
    async with bench.beside(bench.open_driver()) as other:
        first = await other.take_ids(1)
        await hold(bench, of_task())
        held = await other.take_ids()
        await lift(other, of_task())
        second = await bench.take_ids()

    assert (ids[:1], [], ids[1:]) == (first, held, second)
    assert TASK == (await bench.record(ids[0])).task
