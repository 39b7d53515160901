"""How flows advance: a success hands its result on, and lets go what waited for nothing else."""

from __future__ import annotations

from taskharbor.driver import Counted, JobCount, QueueList
from taskharbor.flow import FlowState, Sequel
from taskharbor.job import JobState, new_token
from taskharbor.retry import RetryNumbers
from taskharbor.settlement import Settlement, SettleStatus
from taskharbor.step import ORDER, Edge, Input, Step
from taskharbor_conformance.bench import (
    HOUR,
    SECOND,
    TASK,
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
from taskharbor_conformance.graphs import (
    VALUE,
    VALUES,
    chain,
    chord,
    ids_of,
    inputs_of,
    new_flow,
    new_step,
    values_of,
)

ODD = b"\x00\xff'\"\\ \n\xc3"
"""A result that no store may read."""


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


# --- advance


@case("4.14", "4.13")
async def a_result_is_handed_to_the_next_step_as_it_is(bench: Bench) -> None:
    await bench.enqueue_flow(chain())
    await bench.settle(success(await bench.take_one(), ODD, "msgpack+zip"))

    delivery = await bench.take_one()

    assert [Input(0, 0, "msgpack+zip", ODD)] == inputs_of(delivery)
    assert delivery.step is not None
    assert (delivery.id, (VALUE,)) == (delivery.step.flow, delivery.step.holes)


@case("4.14", "4.13")
async def an_empty_result_is_not_a_missing_one(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chord(2))
    first, second, _ = ids_of(flow)
    await bench.finish(first, b"")
    await bench.finish(second, None)

    assert [b"", None] == values_of(await bench.take_one())


@case("4.14")
async def a_chain_runs_in_order_to_its_end(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain(*(new_job() for _ in range(5))))
    ran: list[str] = []
    came: list[list[bytes | None]] = []
    while deliveries := await bench.take():
        (delivery,) = deliveries
        ran.append(delivery.id)
        came.append(values_of(delivery))
        bench.advance(SECOND)
        await bench.settle(success(delivery, b"%d" % len(ran)))

    record = await bench.flow(flow.id)
    assert ids_of(flow) == ran
    assert [[], [b"1"], [b"2"], [b"3"], [b"4"]] == came
    assert (FlowState.SUCCEEDED, bench.now, "") == (record.state, record.finished_at, record.reason)
    assert {JobState.SUCCEEDED: 5} == dict(record.steps)
    assert b"5" == (await bench.record(flow.id)).result


@case("4.14")
async def one_result_goes_to_all_that_wait_for_it(bench: Bench) -> None:
    start, one, two, last = (new_job() for _ in range(4))
    middle = Step(flow=last.id, waits=1, holes=(VALUE,))
    flow = new_flow(
        new_step(start, Step(flow=last.id, edges=(Edge(one.id, 0), Edge(two.id, 0), Edge(last.id, 0)))),
        new_step(one, middle),
        new_step(two, middle),
        new_step(last, middle),
    )
    await bench.enqueue_flow(flow)

    await bench.finish(start.id, b"1")

    deliveries = await bench.take()
    assert {one.id, two.id, last.id} == {delivery.id for delivery in deliveries}
    assert [[b"1"]] * 3 == [values_of(delivery) for delivery in deliveries]


@case("4.14")
async def a_step_waits_for_its_last_input_and_gets_them_in_order(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chord(4))
    *members, last = ids_of(flow)
    deliveries = {delivery.id: delivery for delivery in await bench.take()}
    waits: list[int] = []
    for member in (members[2], members[0], members[3], members[1]):
        waits.append((await bench.record(last)).waits)
        assert JobState.WAITING == await bench.state(last)
        await bench.settle(success(deliveries[member], member.encode()))

    delivery = await bench.take_one()
    assert [4, 3, 2, 1] == waits
    assert (last, 0) == (delivery.id, (await bench.record(last)).waits)
    assert [Input(0, index, "json", one.encode()) for index, one in enumerate(members)] == inputs_of(delivery)
    assert delivery.step is not None
    assert (VALUES,) == delivery.step.holes


@case("4.14")
async def members_settled_in_one_batch_let_the_callback_go_once(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chord(7))
    deliveries = await bench.take()

    await bench.settle(*(success(one, one.id.encode()) for one in reversed(deliveries)))

    callback = await bench.take_one()
    assert [] == await bench.take_ids()
    assert [one.encode() for one in ids_of(flow)[:-1]] == values_of(callback)
    assert 1 == callback.fence


@case("4.14")
async def a_result_may_fill_several_holes_of_one_step(bench: Bench) -> None:
    one, two, last = (new_job() for _ in range(3))
    flow = new_flow(
        new_step(one, Step(flow=last.id, edges=(Edge(last.id, 1), Edge(last.id, 0, 1)))),
        new_step(two, Step(flow=last.id, edges=(Edge(last.id, 0),))),
        new_step(last, Step(flow=last.id, waits=3, holes=(VALUES,))),
    )
    await bench.enqueue_flow(flow)

    await bench.finish(one.id, b"one")
    early = (await bench.record(last.id)).waits
    await bench.finish(two.id, b"two")

    came = [(one.slot, one.index, one.value) for one in inputs_of(await bench.take_one())]
    assert 1 == early
    assert [(0, 0, b"two"), (0, 1, b"one"), (1, 0, b"one")] == came


@case("4.14")
async def what_only_waits_for_a_step_gets_no_value_of_it(bench: Bench) -> None:
    one, two, last = (new_job() for _ in range(3))
    flow = new_flow(
        new_step(one, Step(flow=last.id, edges=(Edge(last.id, ORDER, 0),))),
        new_step(two, Step(flow=last.id, edges=(Edge(last.id, ORDER, 1),))),
        new_step(last, Step(flow=last.id, waits=2)),
    )
    await bench.enqueue_flow(flow)

    await bench.finish(one.id, b"secret")
    early = await bench.state(last.id)
    await bench.finish(two.id, b"secret")

    delivery = await bench.take_one()
    assert (JobState.WAITING, last.id, []) == (early, delivery.id, inputs_of(delivery))
    assert delivery.step is not None
    assert {None} >= {one.value for one in delivery.step.inputs}


@case("4.14")
async def a_callback_of_no_members_runs_at_once(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chord(0))

    delivery = await bench.take_one()

    assert (flow.id, []) == (delivery.id, values_of(delivery))
    assert delivery.step is not None
    assert (VALUES,) == delivery.step.holes
    await bench.settle(success(delivery))
    assert FlowState.SUCCEEDED == await bench.flow_state(flow.id)


@case("4.14")
async def a_step_may_have_inputs_from_the_start(bench: Bench) -> None:
    first, last = new_job(), new_job()
    given = Input(0, 0, "json", ODD)
    flow = new_flow(
        new_step(first, Step(flow=last.id, edges=(Edge(last.id, 0, 1),), holes=(VALUE,), inputs=(given,))),
        new_step(last, Step(flow=last.id, waits=1, holes=(VALUES,), inputs=(given,))),
    )
    await bench.enqueue_flow(flow)

    delivery = await bench.take_one()
    await bench.settle(success(delivery, b"1"))

    assert [given] == inputs_of(delivery)
    assert [given, Input(0, 1, "json", b"1")] == inputs_of(await bench.take_one())


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


# --- what changes nothing


@case("4.3", "4.14")
async def a_settle_repeated_does_not_advance_twice(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chord(2))
    delivery = (await bench.take())[0]
    await bench.settle(success(delivery, b"1"))

    (again,) = await bench.answers(success(delivery, b"2"))

    assert (SettleStatus.ALREADY, 1) == (again.status, (await bench.record(flow.id)).waits)


@case("4.3", "4.14")
async def a_settle_under_a_lost_lease_advances_nothing(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain())
    late = await bench.take_one()
    await bench.lose_workers()

    (answer,) = await bench.answers(success(late, b"late"))
    state = await bench.state(flow.id)
    await bench.finish(late.id, b"in time")

    assert (SettleStatus.STALE, JobState.WAITING) == (answer.status, state)
    assert [b"in time"] == values_of(await bench.take_one())


@case("4.3", "4.14")
async def a_member_settled_twice_in_one_batch_counts_once(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chord(2))
    first, _ = await bench.take()

    answers = await bench.answers(success(first), success(first))

    assert [SettleStatus.SETTLED, SettleStatus.ALREADY] == [answer.status for answer in answers]
    assert 1 == (await bench.record(flow.id)).waits


@case("4.14", "4.6")
async def retries_snoozes_and_lost_workers_of_members_change_nothing_in_the_result(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chord(6))
    *members, last = ids_of(flow)
    one = {delivery.id: delivery for delivery in await bench.take()}
    await bench.settle(
        failure(one[members[0]]),
        snooze(one[members[1]]),
        release(one[members[2]]),
        stray(one[members[3]]),
        success(one[members[4]], members[4].encode()),
    )
    await bench.start(one[members[5]])
    await bench.lose_workers()
    bench.advance(HOUR)
    waits = (await bench.record(last)).waits

    again = await bench.take()
    await bench.settle(*(success(delivery, delivery.id.encode()) for delivery in again))

    callback = await bench.take_one()
    assert (5, 5, FlowState.RUNNING) == (waits, len(again), await bench.flow_state(flow.id))
    assert [member.encode() for member in members] == values_of(callback)
    assert (1, []) == (callback.fence, await bench.take_ids())


@case("4.14", "4.13")
async def a_settle_need_not_say_that_it_is_of_a_step(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain())
    one = await bench.take_one()

    await bench.settle(Settlement(one.id, one.token, success(one).kind, b"1", "json", charge=True))

    assert [b"1"] == values_of(await bench.take_one())
    assert FlowState.RUNNING == await bench.flow_state(flow.id)


@case("4.13", "4.14")
async def plain_jobs_and_steps_of_several_flows_may_be_settled_in_one_batch(bench: Bench) -> None:
    plain = [await bench.enqueue() for _ in range(3)]
    flows = [await bench.enqueue_flow(chord(3)) for _ in range(3)]
    going, failed, cancelled = flows
    taken = {delivery.id: delivery for delivery in await bench.take()}
    of_going, of_failed, of_cancelled = [[taken[job_id] for job_id in ids_of(flow)[:-1]] for flow in flows]
    follow_up = new_job()

    states = await bench.settle(
        success(taken[plain[0]], b"0"),
        success(of_going[2], b"3"),
        burial(of_failed[0]),
        failure(taken[plain[1]], HOUR),
        success(of_cancelled[0], b"1"),
        cancellation(of_cancelled[1]),
        success(of_going[0], b"1", sequel=Sequel(jobs=(follow_up,))),
        burial(taken[plain[2]]),
        release(of_failed[1]),
        success(of_going[1], b"2"),
        snooze(of_failed[2], HOUR),
    )

    expected = (
        "succeeded succeeded dead retrying succeeded cancelled succeeded dead ready succeeded scheduled"
    )
    assert expected.split() == states
    assert [FlowState.RUNNING, FlowState.FAILED, FlowState.CANCELLED] == [
        await bench.flow_state(flow.id) for flow in flows
    ]
    ready = {delivery.id: delivery for delivery in await bench.take()}
    assert {going.id, of_failed[1].id, follow_up.id} == set(ready)
    assert [b"1", b"2", b"3"] == values_of(ready[going.id])
    assert [JobState.WAITING, JobState.CANCELLED] == await bench.states(failed.id, cancelled.id)


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
