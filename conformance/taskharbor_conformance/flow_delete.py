"""What deleting steps means: a flow that was to have their results will not come to its end."""

from __future__ import annotations

from taskharbor.driver import DeleteStatus
from taskharbor.flow import FlowState
from taskharbor.job import JobState
from taskharbor_conformance.bench import Bench, new_job, success
from taskharbor_conformance.case import case
from taskharbor_conformance.graphs import chain, chord, ids_of, values_of

CANCELLED, DELETED = JobState.CANCELLED, DeleteStatus.DELETED


@case("4.14")
async def deleting_a_step_that_has_not_succeeded_cancels_its_flow(bench: Bench) -> None:
    for place in range(3):
        flow = await bench.enqueue_flow(chord(3))
        job_id = ids_of(flow)[place]

        statuses = await bench.delete(job_id)

        record = await bench.flow(flow.id)
        assert ([DELETED], [None]) == (statuses, await bench.get(job_id))
        assert (FlowState.CANCELLED, {CANCELLED: 3}) == (record.state, dict(record.steps))


@case("4.14", "4.7")
async def purging_the_dead_step_ends_the_flow(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain())
    first, last = ids_of(flow)
    await bench.bury(first)

    await bench.delete(first)

    record = await bench.flow(flow.id)
    assert (FlowState.CANCELLED, CANCELLED, bench.now) == (
        record.state,
        await bench.state(last),
        record.finished_at,
    )


@case("4.14")
async def deleting_a_step_that_has_succeeded_changes_nothing(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain(*(new_job() for _ in range(3))))
    first, *_ = ids_of(flow)
    await bench.finish(first, b"1")

    await bench.delete(first)

    assert FlowState.RUNNING == await bench.flow_state(flow.id)
    assert [b"1"] == values_of(await bench.take_one())


@case("4.14")
async def a_flow_goes_with_its_last_step(bench: Bench) -> None:
    ended, live = await bench.enqueue_flow(chain()), await bench.enqueue_flow(chain())
    await bench.finish(ids_of(ended)[0])
    await bench.finish(ended.id)

    statuses = await bench.delete(ended.id, live.id)

    assert [DELETED] * 2 == statuses
    assert [] == await bench.find_flows()
    assert [JobState.SUCCEEDED, CANCELLED] == await bench.states(ids_of(ended)[0], ids_of(live)[0])
    assert [] == await bench.take_ids()


@case("4.14")
async def a_flow_may_be_deleted_with_all_its_steps(bench: Bench) -> None:
    flow, other = await bench.enqueue_flow(chord(3)), await bench.enqueue_flow(chain())

    statuses = await bench.delete(*ids_of(flow))

    assert [DELETED] * 4 == statuses
    assert ([other.id], sorted(ids_of(other))) == (await bench.find_flows(), await bench.find_ids())
    await bench.enqueue_flow(flow)
    assert {JobState.READY: 3, JobState.WAITING: 1} == dict((await bench.flow(flow.id)).steps)


@case("4.14", "4.2")
async def a_step_that_runs_is_not_deleted_and_its_flow_goes_on(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain())
    running = await bench.take_one()

    statuses = await bench.delete(running.id)

    assert ([DeleteStatus.RUNNING], FlowState.RUNNING) == (statuses, await bench.flow_state(flow.id))
    await bench.settle(success(running))
    assert [flow.id] == await bench.take_ids()
