"""Steps whose failure is taken as a value: it goes where the result would have gone, and the flow goes on."""

from __future__ import annotations

import msgspec

from taskharbor.driver import RequeueStatus
from taskharbor.flow import Failure, FlowState
from taskharbor.job import JobState
from taskharbor.retry import RetryNumbers
from taskharbor.step import Edge, Hole, Input, Step
from taskharbor_conformance.bench import Bench, burial, cancellation, failure, new_job, success
from taskharbor_conformance.case import case
from taskharbor_conformance.graphs import (
    VALUE,
    chord,
    failure_template,
    ids_of,
    inputs_of,
    new_flow,
    new_step,
    values_of,
)

TOLERANT = Hole("values", 0, many=True, tolerant=True)
SUCCEEDED, RUNNING = FlowState.SUCCEEDED, FlowState.RUNNING


def _told(given: Input) -> Failure:
    assert (True, "json") == (given.failed, given.codec)
    return msgspec.json.decode(given.value or b"", type=Failure)


@case("4.14")
async def a_dead_member_is_told_to_the_callback_as_a_failure(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chord(3, tolerant=True, on_failure=failure_template("failures")))
    one, two, three = await bench.take()
    await bench.settle(success(three, b"3"), burial(two, "no such page", "404"), success(one, b"1"))

    delivery = await bench.take_one()

    first, second, third = inputs_of(delivery)
    assert (Input(0, 0, "json", b"1"), Input(0, 2, "json", b"3")) == (first, third)
    assert (0, 1) == (second.slot, second.index)
    told = Failure(
        job_id=two.id,
        task=two.task,
        error_type="ValueError",
        error_message="404",
        reason="no such page",
        attempts=1,
    )
    assert told == _told(second)
    assert delivery.step is not None
    assert (TOLERANT,) == delivery.step.holes
    assert (RUNNING, []) == (await bench.flow_state(flow.id), await bench.take_ids(queues=["failures"]))
    await bench.settle(success(delivery))
    assert SUCCEEDED == await bench.flow_state(flow.id)


@case("4.14", "4.11")
async def a_cancelled_member_is_told_as_a_failure_without_an_error(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chord(3, tolerant=True))
    one, two, three = ids_of(flow)[:3]
    await bench.cancel(one, reason="not needed")
    deliveries = {delivery.id: delivery for delivery in await bench.take()}
    await bench.cancel(two, reason="too late")
    await bench.settle(failure(deliveries[two]), cancellation(deliveries[three], "gave up"))

    told = [_told(given) for given in inputs_of(await bench.take_one())]

    expected = [(one, "not needed", 0), (two, "too late", 1), (three, "gave up", 1)]
    assert expected == [(failed.job_id, failed.reason, failed.attempts) for failed in told]
    assert {("", "")} == {(failed.error_type, failed.error_message) for failed in told}
    assert RUNNING == await bench.flow_state(flow.id)


@case("4.14", "4.4")
async def a_member_whose_worker_died_for_the_last_time_is_told_as_a_failure(bench: Bench) -> None:
    member = new_job(retry=RetryNumbers(max_attempts=1))
    await bench.enqueue_flow(chord([member], tolerant=True))
    await bench.start(await bench.take_one())

    await bench.lose_workers()

    (given,) = inputs_of(await bench.take_one())
    assert (member.id, "taskharbor.WorkerLost") == (_told(given).job_id, _told(given).error_type)


@case("4.14")
async def members_that_all_failed_still_let_the_callback_run_once(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chord(5, tolerant=True))
    deliveries = await bench.take()

    await bench.settle(*map(burial, reversed(deliveries)))

    callback = await bench.take_one()
    assert ids_of(flow)[:-1] == [_told(given).job_id for given in inputs_of(callback)]
    assert [] == await bench.take_ids()


@case("4.14", "4.7")
async def a_failure_that_was_told_is_not_taken_back_by_a_requeue(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chord(2, tolerant=True))
    one, two, last = ids_of(flow)
    await bench.bury(one)

    statuses = await bench.requeue(one)
    await bench.finish(one, b"too late")
    waits = (await bench.record(last)).waits
    await bench.finish(two, b"2")

    first, second = inputs_of(await bench.take_one())
    assert ([RequeueStatus.REQUEUED], 1) == (statuses, waits)
    assert (one, b"2") == (_told(first).job_id, second.value)


@case("4.14", "4.7")
async def a_failure_is_told_once_though_the_member_fails_again(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chord(2, tolerant=True))
    one, _, last = ids_of(flow)
    await bench.bury(one, "once")
    await bench.requeue(one)

    await bench.bury(one, "twice")

    assert (1, JobState.WAITING) == ((await bench.record(last)).waits, await bench.state(last))


@case("4.14", "4.8")
async def a_failed_member_is_not_requeued_once_the_flow_has_ended(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chord(1, tolerant=True))
    member, _ = ids_of(flow)
    await bench.bury(member)
    await bench.finish(flow.id)

    statuses = await bench.requeue(member)

    assert ([RequeueStatus.NOT_DEAD], JobState.DEAD) == (statuses, await bench.state(member))


@case("4.14", "4.8", "4.11")
async def a_cancelled_member_is_not_requeued_though_the_flow_goes_on(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chord(2, tolerant=True))
    one, _, last = ids_of(flow)
    await bench.cancel(one)

    statuses = await bench.requeue(one)

    assert ([RequeueStatus.NOT_DEAD], JobState.CANCELLED) == (statuses, await bench.state(one))
    assert (RUNNING, 1) == (await bench.flow_state(flow.id), (await bench.record(last)).waits)


@case("4.14")
async def deleting_a_member_is_told_as_a_failure_too(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chord(2, tolerant=True))
    one, two, _ = ids_of(flow)

    await bench.delete(one)
    await bench.finish(two, b"2")

    first, second = inputs_of(await bench.take_one())
    assert (one, b"2", RUNNING) == (_told(first).job_id, second.value, await bench.flow_state(flow.id))


@case("4.14")
async def an_absorbed_dead_member_does_not_keep_a_flow_failed(bench: Bench) -> None:
    absorbed, plain, last = new_job(), new_job(), new_job()
    edge, other = (Edge(last.id, 0, 0),), (Edge(last.id, 0, 1),)
    flow = new_flow(
        new_step(absorbed, Step(flow=last.id, edges=edge, absorbers=edge)),
        new_step(plain, Step(flow=last.id, edges=other)),
        new_step(last, Step(flow=last.id, waits=2, holes=(TOLERANT,))),
        absorbing=True,
    )
    await bench.enqueue_flow(flow)
    await bench.bury(absorbed.id)
    await bench.bury(plain.id)
    failed = await bench.flow_state(flow.id)

    await bench.requeue(plain.id)

    assert (FlowState.FAILED, RUNNING) == (failed, await bench.flow_state(flow.id))


# --- members of several steps, and what is left over


async def _members_of_two_steps(bench: Bench) -> list[str]:
    """Store a flow of two members with two steps each, and a callback that takes their failures; return the ids."""
    first, second, third, fourth, last = (new_job() for _ in range(5))

    def absorbers(index: int) -> tuple[Edge, ...]:
        return (Edge(last.id, 0, index),)

    def before(step: str, index: int) -> Step:
        return Step(flow=last.id, edges=(Edge(step, 0),), absorbers=absorbers(index))

    def after(index: int) -> Step:
        edges = absorbers(index)
        return Step(flow=last.id, waits=1, edges=edges, absorbers=edges, holes=(VALUE,))

    flow = new_flow(
        new_step(first, before(second.id, 0)),
        new_step(second, after(0)),
        new_step(third, before(fourth.id, 1)),
        new_step(fourth, after(1)),
        new_step(last, Step(flow=last.id, waits=2, holes=(TOLERANT,))),
        absorbing=True,
    )
    await bench.enqueue_flow(flow)
    return ids_of(flow)


@case("4.14")
async def a_failure_in_the_middle_of_a_member_is_the_members(bench: Bench) -> None:
    first, second, third, fourth, last = await _members_of_two_steps(bench)
    await bench.bury(first)
    await bench.finish(third, b"3")
    await bench.finish(fourth, b"4")

    delivery = await bench.take_one()

    failed, value = inputs_of(delivery)
    assert (last, first, b"4") == (delivery.id, _told(failed).job_id, value.value)
    assert JobState.WAITING == await bench.state(second)


@case("4.14")
async def what_is_left_over_is_cancelled_when_the_last_step_has_succeeded(bench: Bench) -> None:
    first, second, third, fourth, last = await _members_of_two_steps(bench)
    await bench.bury(first)
    await bench.bury(third)

    await bench.finish(last)

    record = await bench.flow(last)
    assert (SUCCEEDED, bench.now) == (record.state, record.finished_at)
    assert [JobState.CANCELLED] * 2 == await bench.states(second, fourth)
    assert {JobState.DEAD: 2, JobState.CANCELLED: 2, JobState.SUCCEEDED: 1} == dict(record.steps)


@case("4.14", "4.11")
async def what_is_left_over_and_runs_is_asked_to_stop(bench: Bench) -> None:
    first, second, third, _, last = await _members_of_two_steps(bench)
    await bench.bury(first)
    await bench.requeue(first)
    await bench.finish(first, b"late")
    running = await bench.pick(second)
    await bench.bury(third)
    await bench.finish(last)

    heartbeat = await bench.extend(running)
    states = await bench.settle(failure(running))

    assert [second] == [cancel.job_id for cancel in heartbeat.cancels]
    assert ([JobState.CANCELLED], SUCCEEDED) == (states, await bench.flow_state(last))


@case("4.14")
async def a_requeued_member_may_go_on_beside_the_failure_it_told(bench: Bench) -> None:
    first, second, _, _, last = await _members_of_two_steps(bench)
    await bench.bury(first)
    await bench.requeue(first)
    await bench.finish(first, b"1")

    delivery = await bench.pick(second)
    await bench.settle(success(delivery, b"2"))

    assert [b"1"] == values_of(delivery)
    assert 1 == (await bench.record(last)).waits
