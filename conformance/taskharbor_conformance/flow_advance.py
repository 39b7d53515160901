"""How flows advance: a success hands its result on, and lets go what waited for nothing else."""

from __future__ import annotations

from taskharbor.flow import FlowState, Sequel
from taskharbor.job import JobState
from taskharbor.settlement import Settlement, SettleStatus
from taskharbor.step import ORDER, Edge, Input, Step
from taskharbor_conformance.bench import (
    HOUR,
    SECOND,
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
