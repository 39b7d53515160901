"""Large flows: what holds for three steps holds for thousands."""

from __future__ import annotations

from taskharbor.flow import FlowState
from taskharbor.job import JobState
from taskharbor_conformance.bench import Bench, new_job, success
from taskharbor_conformance.case import case
from taskharbor_conformance.graphs import chain, chord, ids_of, values_of

MEMBERS = 3_000
BATCH = 250
LENGTH = 500


@case("4.14")
async def a_callback_gets_thousands_of_results_in_order(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chord(MEMBERS))
    *members, last = ids_of(flow)
    while deliveries := await bench.take(BATCH):
        if deliveries[0].id == last:
            break
        await bench.settle(*(success(one, one.id.encode()) for one in deliveries))

    (callback,) = deliveries
    assert [member.encode() for member in members] == values_of(callback)
    await bench.settle(success(callback))
    record = await bench.flow(flow.id)
    assert (FlowState.SUCCEEDED, {JobState.SUCCEEDED: MEMBERS + 1}) == (record.state, dict(record.steps))


@case("4.14")
async def a_chain_of_hundreds_of_steps_runs_to_its_end(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain(*(new_job() for _ in range(LENGTH))))

    ran: list[str] = []
    while deliveries := await bench.take():
        (delivery,) = deliveries
        assert [b"%d" % (len(ran) - 1)] * (len(ran) > 0) == values_of(delivery)
        await bench.settle(success(delivery, b"%d" % len(ran)))
        ran.append(delivery.id)

    assert ids_of(flow) == ran
    assert FlowState.SUCCEEDED == await bench.flow_state(flow.id)


@case("4.14", "4.11")
async def a_flow_of_thousands_is_cancelled_whole(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chord(MEMBERS))

    await bench.cancel_flows(flow.id)

    assert {JobState.CANCELLED: MEMBERS + 1} == dict((await bench.flow(flow.id)).steps)
    assert [] == await bench.take_ids()
