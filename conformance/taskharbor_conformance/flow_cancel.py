"""How flows end early: cancelled as a whole, or with any of their steps."""

from __future__ import annotations

from taskharbor.driver import CancelStatus, DeleteStatus, FlowGet
from taskharbor.flow import FlowState
from taskharbor.job import JobState
from taskharbor_conformance.bench import (
    HOUR,
    SECOND,
    UNKNOWN,
    Bench,
    burial,
    cancellation,
    failure,
    new_job,
    release,
    success,
)
from taskharbor_conformance.case import case
from taskharbor_conformance.graphs import chain, chord, failure_template, ids_of, values_of

CANCELLED, DELETED = JobState.CANCELLED, DeleteStatus.DELETED


# --- the whole flow


@case("4.14", "4.11")
async def cancelling_a_flow_ends_all_that_waits_or_is_ready(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chord([new_job(), new_job(run_in=HOUR), new_job()]))
    one, *_ = ids_of(flow)
    await bench.finish(one, b"1")
    bench.advance(HOUR / 2)

    statuses = await bench.cancel_flows(flow.id, reason="not needed", by="ada")

    record = await bench.flow(flow.id)
    assert [CancelStatus.CANCELLED] == statuses
    assert (FlowState.CANCELLED, "not needed", bench.now) == (record.state, record.reason, record.finished_at)
    assert {JobState.SUCCEEDED: 1, CANCELLED: 3} == dict(record.steps)
    bench.advance(HOUR)
    assert [] == await bench.take_ids()
    assert ["not needed"] * 3 == [(await bench.record(job_id)).reason for job_id in ids_of(flow)[1:]]


@case("4.14", "4.8")
async def cancelling_a_flow_is_recorded_on_the_steps_that_it_ended(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain(*(new_job() for _ in range(3))))
    first, *rest = ids_of(flow)
    await bench.finish(first)

    await bench.cancel_flows(flow.id, reason="not needed", by="ada")

    assert () == (await bench.record(first)).operations
    for job_id in rest:
        (operation,) = (await bench.record(job_id)).operations
        assert ("cancel", "ada", "not needed", bench.now) == (
            operation.verb,
            operation.by,
            operation.reason,
            operation.at,
        )


@case("4.14", "4.11")
async def steps_that_run_are_asked_to_stop(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chord(3))
    running, ready, other = await bench.take()
    await bench.settle(release(ready), release(other))

    statuses = await bench.cancel_flows(flow.id, reason="not needed")
    heartbeat = await bench.extend(running)
    again = await bench.cancel_flows(flow.id)
    states = await bench.settle(failure(running))

    told = [(cancel.job_id, cancel.reason) for cancel in heartbeat.cancels]
    assert ([CancelStatus.REQUESTED], [CancelStatus.FINISHED]) == (statuses, again)
    assert ([(running.id, "not needed")], [CANCELLED]) == (told, states)
    assert {CANCELLED: 4} == dict((await bench.flow(flow.id)).steps)


@case("4.14", "4.11")
async def nothing_comes_of_what_a_step_of_a_cancelled_flow_returns(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain())
    running = await bench.take_one()
    await bench.cancel_flows(flow.id)

    states = await bench.settle(success(running, b"1"))

    assert ([JobState.SUCCEEDED], []) == (states, await bench.take_ids())
    assert (CANCELLED, FlowState.CANCELLED) == (await bench.state(flow.id), await bench.flow_state(flow.id))


@case("4.14", "4.11")
async def a_last_step_that_succeeds_after_the_cancel_leaves_the_flow_cancelled(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain(new_job()))
    running = await bench.take_one()
    await bench.cancel_flows(flow.id, reason="not needed")

    await bench.settle(success(running))

    record = await bench.flow(flow.id)
    assert (FlowState.CANCELLED, "not needed") == (record.state, record.reason)


@case("4.14", "4.11")
async def a_step_that_dies_after_the_cancel_leaves_the_flow_cancelled(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chord(2, on_failure=failure_template("failures")))
    one, two = await bench.take()
    await bench.cancel_flows(flow.id)

    states = await bench.settle(burial(one))
    await bench.lose_workers()

    assert ([CANCELLED], CANCELLED) == (states, await bench.state(two.id))
    assert FlowState.CANCELLED == await bench.flow_state(flow.id)
    assert [] == await bench.take_ids(queues=["failures"])


@case("4.14", "4.8")
async def a_flow_ends_once(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chord(3))
    running, *others = await bench.take()
    await bench.settle(*map(release, others))
    await bench.cancel_flows(flow.id, reason="not needed")
    before = await bench.flow(flow.id)
    bench.advance(SECOND)

    await bench.settle(cancellation(running, "told to"))
    await bench.delete(others[0].id)
    await bench.cancel_flows(flow.id, reason="again")

    after = await bench.flow(flow.id)
    assert (before.state, before.reason, before.finished_at) == (after.state, after.reason, after.finished_at)


@case("4.14", "4.8")
async def a_failed_flow_may_be_cancelled_and_keeps_its_dead_letters(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chord(2))
    one, two, last = ids_of(flow)
    await bench.bury(one)

    statuses = await bench.cancel_flows(flow.id, reason="not needed")

    record = await bench.flow(flow.id)
    assert [CancelStatus.CANCELLED] == statuses
    assert (FlowState.CANCELLED, "not needed") == (record.state, record.reason)
    assert [JobState.DEAD, CANCELLED, CANCELLED] == await bench.states(one, two, last)


@case("4.14", "4.8")
async def flows_are_cancelled_in_one_batch_and_answered_in_order(bench: Bench) -> None:
    ended, live, running = [await bench.enqueue_flow(chain(new_job())) for _ in range(3)]
    await bench.finish(ended.id)
    await bench.pick(running.id)

    statuses = await bench.cancel_flows(running.id, UNKNOWN, ended.id, live.id)

    expected = [
        CancelStatus.REQUESTED,
        CancelStatus.MISSING,
        CancelStatus.FINISHED,
        CancelStatus.CANCELLED,
    ]
    assert expected == statuses
    assert FlowState.SUCCEEDED == await bench.flow_state(ended.id)


@case("4.14")
async def a_job_of_no_flow_is_no_flow(bench: Bench) -> None:
    job_id = await bench.enqueue()

    statuses = await bench.cancel_flows(job_id)

    assert ([CancelStatus.MISSING], JobState.READY) == (statuses, await bench.state(job_id))
    assert [None] == list(await bench.store.flow_get(FlowGet(ids=[job_id], now=bench.now)))


@case("4.14")
async def cancelling_a_flow_leaves_its_neighbours(bench: Bench) -> None:
    flow, other = await bench.enqueue_flow(chain()), await bench.enqueue_flow(chain())

    await bench.cancel_flows(flow.id)

    assert FlowState.RUNNING == await bench.flow_state(other.id)
    assert [ids_of(other)[0]] == await bench.take_ids()


# --- one of its steps


@case("4.14", "4.11")
async def cancelling_a_step_cancels_its_flow(bench: Bench) -> None:
    for place in range(4):
        flow = await bench.enqueue_flow(chord(3))
        job_id = ids_of(flow)[place]

        statuses = await bench.cancel(job_id, reason="not needed")

        record = await bench.flow(flow.id)
        assert [CancelStatus.CANCELLED] == statuses
        assert (FlowState.CANCELLED, {CANCELLED: 4}) == (record.state, dict(record.steps))
        assert ("not needed", bench.now) == (record.reason, record.finished_at)


@case("4.14", "4.11")
async def a_running_step_cancels_its_flow_once_it_has_stopped(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain())
    running = await bench.take_one()
    statuses = await bench.cancel(running.id, reason="not needed")
    before = await bench.flow_state(flow.id)

    await bench.settle(failure(running))

    assert ([CancelStatus.REQUESTED], FlowState.RUNNING) == (statuses, before)
    assert FlowState.CANCELLED == await bench.flow_state(flow.id)
    assert [CANCELLED] * 2 == await bench.states(*ids_of(flow))


@case("4.14", "4.11")
async def a_step_that_succeeds_in_spite_of_a_cancel_advances_its_flow(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain())
    running = await bench.take_one()
    await bench.cancel(running.id)

    await bench.settle(success(running, b"1"))

    assert FlowState.RUNNING == await bench.flow_state(flow.id)
    assert [b"1"] == values_of(await bench.take_one())


@case("4.14", "4.11")
async def a_handler_that_ends_as_cancelled_cancels_its_flow(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chord(2))
    one, two = await bench.take()

    await bench.settle(cancellation(one, "gave up"))
    heartbeat = await bench.extend(two)

    assert FlowState.CANCELLED == await bench.flow_state(flow.id)
    assert [two.id] == [cancel.job_id for cancel in heartbeat.cancels]
    assert CANCELLED == await bench.state(flow.id)


@case("4.14", "4.4", "4.11")
async def a_cancel_carried_out_by_a_reclaim_cancels_the_flow(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain())
    running = await bench.take_one()
    await bench.cancel(running.id)

    await bench.lose_workers()

    assert FlowState.CANCELLED == await bench.flow_state(flow.id)
    assert CANCELLED == await bench.state(flow.id)


@case("4.14", "4.11")
async def several_steps_cancelled_in_one_batch_end_their_flow_once(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chord(3))
    one, two, *_ = ids_of(flow)

    await bench.cancel(one, two, reason="not needed")

    record = await bench.flow(flow.id)
    assert (FlowState.CANCELLED, "not needed") == (record.state, record.reason)
    assert {CANCELLED: 4} == dict(record.steps)


@case("4.14", "4.11")
async def plain_jobs_and_steps_are_cancelled_in_one_batch_and_answered_in_order(bench: Bench) -> None:
    plain, done = await bench.enqueue(), await bench.enqueue()
    one, two = await bench.enqueue_flow(chain()), await bench.enqueue_flow(chain(new_job()))
    await bench.finish(done)
    await bench.pick(two.id)

    statuses = await bench.cancel(two.id, UNKNOWN, one.id, done, plain)

    assert [
        CancelStatus.REQUESTED,
        CancelStatus.MISSING,
        CancelStatus.CANCELLED,
        CancelStatus.FINISHED,
        CancelStatus.CANCELLED,
    ] == statuses
    assert [FlowState.CANCELLED, FlowState.RUNNING] == [await bench.flow_state(f.id) for f in (one, two)]
    assert [] == await bench.take_ids()
