"""How long flows are kept: over restarts, and until their retention ends."""

from __future__ import annotations

from taskharbor.driver import Capability, FlowGet, HistoryPrune
from taskharbor.flow import FlowState
from taskharbor.job import JobState, NewJob
from taskharbor_conformance.bench import DAY, ENOUGH, NOW, SECOND, Bench, new_job, success
from taskharbor_conformance.case import case
from taskharbor_conformance.graphs import chain, chord, failure_template, ids_of, told_of, values_of

GRACE = 2 * DAY
"""A store may remove by the day: what must be gone is looked for so much later."""


async def _prune(bench: Bench) -> None:
    while (await bench.store.history_prune(HistoryPrune(limit=ENOUGH, now=bench.now))).more:
        pass


def _kept(*retains: int) -> list[NewJob]:
    return [new_job(retain=days * DAY) for days in retains]


@case("4.17", "4.14")
async def a_flow_is_kept_as_long_as_its_last_step(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain(*_kept(1, 7)))
    for job_id in ids_of(flow):
        await bench.finish(job_id)
    bench.advance(DAY + GRACE)
    await _prune(bench)
    early = await bench.find_flows(), await bench.find_ids(), dict((await bench.flow(flow.id)).steps)
    bench.advance(4 * DAY + GRACE)

    await _prune(bench)

    assert ([flow.id], [flow.id], {JobState.SUCCEEDED: 1}) == early
    assert ([], []) == (await bench.find_flows(), await bench.find_ids())
    assert [None] == list(await bench.store.flow_get(FlowGet(ids=[flow.id], now=bench.now)))


@case("4.17", "4.14")
async def a_cancelled_flow_is_kept_as_long_as_its_last_step_would_be(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain(*_kept(1, 7)))
    await bench.cancel_flows(flow.id)
    bench.advance(7 * DAY - SECOND)
    await _prune(bench)
    early = await bench.flow_state(flow.id)
    bench.advance(GRACE)

    await _prune(bench)

    assert (FlowState.CANCELLED, []) == (early, await bench.find_flows())


@case("4.17", "4.14")
async def a_flow_that_has_not_ended_is_kept_and_so_is_what_it_waits_with(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain(*(new_job(retain=NOW) for _ in range(3))))
    failed = await bench.enqueue_flow(chain(*(new_job(retain=NOW) for _ in range(2))))
    first, second, _ = ids_of(flow)
    await bench.finish(first, b"1")
    await bench.bury(ids_of(failed)[0])
    bench.advance(100 * DAY)

    await _prune(bench)

    assert sorted([flow.id, failed.id]) == await bench.find_flows()
    assert [None] == await bench.get(first), "what has succeeded is needed no more"
    delivery = await bench.take_one()
    assert (second, [b"1"]) == (delivery.id, values_of(delivery))


@case("4.1", "4.14", needs=Capability.DURABLE)
async def flows_survive_a_restart_wherever_they_stand(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chord(3, on_failure=failure_template("failures")))
    one, two, three, last = ids_of(flow)
    await bench.finish(one, b"1")
    await bench.bury(two)
    before = await bench.flow(flow.id), await bench.get(*ids_of(flow))

    await bench.restart()

    assert before == (await bench.flow(flow.id), await bench.get(*ids_of(flow)))
    assert two == told_of(await bench.take_one(queues=["failures"])).job_id
    await bench.requeue(two)
    await bench.finish(three, b"3")
    await bench.restart()
    await bench.finish(two, b"2")
    delivery = await bench.take_one()
    assert (last, [b"1", b"2", b"3"]) == (delivery.id, values_of(delivery))
    await bench.settle(success(delivery))
    await bench.restart()
    assert FlowState.SUCCEEDED == await bench.flow_state(flow.id)
