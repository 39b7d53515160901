"""Steps on their way to a worker: what waits is left alone, and what comes to be ready has its inputs and its time."""

from __future__ import annotations

from taskharbor.driver import Counted, JobCount, QueueList
from taskharbor.job import JobState, new_token
from taskharbor.retry import RetryNumbers
from taskharbor_conformance.bench import (
    HOUR,
    SECOND,
    TASK,
    Bench,
    failure,
    new_job,
    release,
    snooze,
    stray,
    success,
)
from taskharbor_conformance.case import case
from taskharbor_conformance.graphs import chain, chord, ids_of, values_of

# --- waiting


@case("4.14")
async def a_step_that_waits_is_not_reserved(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain())
    first, second = ids_of(flow)

    taken = await bench.take_ids()
    bench.advance(1000 * HOUR)

    assert [first] == taken
    assert [] == await bench.take_ids()
    assert JobState.WAITING == await bench.state(second)
    assert 1 == (await bench.record(second)).waits


@case("4.14")
async def a_step_that_waits_does_not_make_a_worker_look_again(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain())

    await bench.take_one()
    reservation = await bench.reserve()

    assert (JobState.WAITING, None) == (await bench.state(flow.id), reservation.next_due_in)


@case("4.14")
async def steps_that_wait_are_found_and_counted_as_such(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chord(3))
    await bench.enqueue(run_in=HOUR)
    *members, last = ids_of(flow)
    await bench.finish(members[0])

    counted = await bench.store.job_count(JobCount(now=bench.now))
    (queue,) = await bench.store.queue_list(QueueList(now=bench.now))

    expected = {JobState.READY: 2, JobState.SCHEDULED: 1, JobState.SUCCEEDED: 1, JobState.WAITING: 1}
    assert {Counted("default", TASK, state, count) for state, count in expected.items()} == set(counted)
    assert (2, 1, 1, 0) == (queue.ready, queue.scheduled, queue.waiting, queue.running)
    assert [last] == await bench.find_ids(JobState.WAITING)
    assert sorted(members[1:]) == await bench.find_ids(JobState.READY)


@case("4.14")
async def a_queue_of_which_all_steps_wait_is_listed(bench: Bench) -> None:
    await bench.enqueue_flow(chain(new_job(), new_job(queue="mail")))

    listed = {queue.name: queue for queue in await bench.store.queue_list(QueueList(now=bench.now))}

    assert ["default", "mail"] == sorted(listed)
    assert (0, 1) == (listed["mail"].ready, listed["mail"].waiting)


# --- when a step is due


@case("4.14", "4.10")
async def run_in_counts_from_when_the_last_input_came(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain(new_job(), new_job(run_in=HOUR)))
    bench.advance(2 * HOUR)
    await bench.finish(ids_of(flow)[0])
    due = bench.now + HOUR

    record = await bench.record(flow.id)
    bench.advance(HOUR - SECOND)
    early = await bench.take_ids()
    bench.advance(SECOND)

    assert (JobState.SCHEDULED, due) == (record.state, record.due_at)
    assert ([], [flow.id]) == (early, await bench.take_ids())


@case("4.14", "4.10")
async def run_in_of_a_step_that_waits_for_nothing_counts_from_the_enqueue(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain(new_job(run_in=HOUR), new_job()))
    early = await bench.take_ids()
    bench.advance(HOUR)

    assert ([], [ids_of(flow)[0]]) == (early, await bench.take_ids())


@case("4.14", "4.10")
async def run_at_of_a_step_is_never_early_and_waits_for_its_inputs_too(bench: Bench) -> None:
    at = bench.now + HOUR
    soon = await bench.enqueue_flow(chain(new_job(), new_job(run_at=at, queue="soon")))
    late = await bench.enqueue_flow(chain(new_job(), new_job(run_at=at, queue="late")))
    queues = ["soon", "late"]
    await bench.finish(ids_of(soon)[0])
    before = await bench.take_ids(queues=queues)
    bench.advance(HOUR)
    at_time = await bench.take_ids(queues=queues)
    bench.advance(HOUR)
    await bench.finish(ids_of(late)[0])

    assert ([], [soon.id], [late.id]) == (before, at_time, await bench.take_ids(queues=queues))


@case("4.10", "4.14")
async def a_step_takes_its_place_in_the_queue_when_its_last_input_comes(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain())
    bench.advance(SECOND)
    plain = await bench.enqueue(run_in=SECOND)
    bench.advance(2 * SECOND)
    first = await bench.take_one(queues=["default"])
    await bench.settle(release(first) if first.id == plain else success(first))
    later = await bench.enqueue()

    order = await bench.take_ids()

    # The step and `later` are due at the same time: of these the lesser id goes first.
    assert first.id == ids_of(flow)[0]
    assert [plain, flow.id, later] == order


@case("4.10", "4.14")
async def a_step_keeps_its_priority_and_queue(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain(new_job(), new_job(priority=1, queue="mail")))
    other = await bench.enqueue(priority=2, queue="mail")
    await bench.finish(ids_of(flow)[0])

    assert [flow.id, other] == await bench.take_ids(queues=["mail"])


@case("4.4", "4.14")
async def a_step_of_one_attempt_is_guarded_when_it_comes_to_run(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain(new_job(), new_job(retry=RetryNumbers(max_attempts=1))))
    await bench.finish(ids_of(flow)[0])

    held_back = await bench.reserve(guarded_limit=0)
    delivery = await bench.take_one()

    assert (True, []) == (held_back.held_back, list(held_back.deliveries))
    assert (flow.id, True) == (delivery.id, delivery.guarded)


@case("4.15", "4.14")
async def steps_come_to_be_ready_in_a_paused_queue_and_stay(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain(new_job(), new_job(queue="mail")))
    await bench.pause("mail")
    await bench.finish(ids_of(flow)[0])
    paused = await bench.state(flow.id), await bench.take_ids(queues=["mail"])

    await bench.resume("mail")

    assert (JobState.READY, []) == paused
    assert [flow.id] == await bench.take_ids(queues=["mail"])


# --- what is delivered


@case("4.14")
async def a_plain_job_is_delivered_without_a_step(bench: Bench) -> None:
    await bench.enqueue()
    await bench.enqueue_flow(chain())

    plain, step = await bench.take()

    assert plain.step is None
    assert step.step is not None
    assert ((), ()) == (step.step.holes, step.step.inputs)


@case("4.14", "4.1")
async def a_step_has_its_inputs_each_time_it_is_delivered(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain())
    await bench.finish(ids_of(flow)[0], b"1")
    came: list[list[bytes | None]] = []
    for end in (failure, release, snooze, stray):
        delivery = await bench.take_one()
        came.append(values_of(delivery))
        await bench.settle(end(delivery))
    came.append(values_of(await bench.take_one()))
    await bench.lose_workers()
    bench.advance(HOUR)

    came.append(values_of(await bench.take_one()))

    assert [[b"1"]] * 6 == came


@case("4.3", "4.14")
async def a_repeated_reserve_brings_the_inputs_again(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain())
    await bench.finish(ids_of(flow)[0], b"1")
    token = new_token()

    first = await bench.take_one(token=token)
    second = await bench.take_one(token=token)

    assert first == second
    assert [b"1"] == values_of(second)
