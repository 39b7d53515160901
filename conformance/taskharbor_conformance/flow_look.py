"""flow_get, flow_find, and job_find of a flow's steps."""

from __future__ import annotations

import asyncio

from taskharbor.driver import (
    BlockingDriver,
    CancelStatus,
    Capability,
    EnqueueStatus,
    FlowCancel,
    FlowFind,
    FlowGet,
    JobEnqueue,
    JobFind,
)
from taskharbor.flow import FlowRecord, FlowState, NewFlow
from taskharbor.job import JobState
from taskharbor.step import DeliveredStep, Hole, Input
from taskharbor_conformance.bench import HOUR, UNKNOWN, Bench, burial, new_job, success
from taskharbor_conformance.case import case
from taskharbor_conformance.graphs import chain, chord, failure_template, ids_of


@case("4.14")
async def flows_are_looked_up_in_the_order_asked(bench: Bench) -> None:
    one, two = await bench.enqueue_flow(chain()), await bench.enqueue_flow(chord(3))

    request = FlowGet(ids=[two.id, UNKNOWN, one.id, two.id], now=bench.now)
    records = list(await bench.store.flow_get(request))

    assert [two.id, None, one.id, two.id] == [None if r is None else r.id for r in records]
    assert records[0] == records[3]


@case("4.14")
async def a_flow_counts_its_steps_in_every_state(bench: Bench) -> None:
    members = [new_job(), new_job(), new_job(), new_job(run_in=HOUR)]
    flow = await bench.enqueue_flow(chord(members))
    await bench.enqueue_flow(chord(2))
    mine = {delivery.id: delivery for delivery in await bench.take()}
    await bench.settle(success(mine[members[0].id]), burial(mine[members[1].id]))

    steps = (await bench.flow(flow.id)).steps

    expected = {
        JobState.SUCCEEDED: 1,
        JobState.DEAD: 1,
        JobState.RUNNING: 1,
        JobState.SCHEDULED: 1,
        JobState.WAITING: 1,
    }
    assert expected == {state: count for state, count in steps.items() if count}


async def _four_states(bench: Bench) -> list[NewFlow]:
    """Return flows in order of id: running, failed, succeeded, cancelled."""
    flows = [await bench.enqueue_flow(chain(new_job(), name=name)) for name in ("a", "b", "a", "b")]
    _, failed, succeeded, cancelled = flows
    await bench.bury(failed.id)
    await bench.finish(succeeded.id)
    await bench.cancel_flows(cancelled.id)
    return flows


def _holes_of(flow: NewFlow, job_id: str) -> tuple[Hole, ...]:
    """Return the holes of one of a flow's steps."""
    (step,) = [job.step for job in flow.steps if job.id == job_id]
    assert step is not None
    return step.holes


async def _find(bench: Bench, **fields: frozenset[str]) -> list[str]:
    states = frozenset(FlowState(state) for state in fields.get("states", ()))
    request = FlowFind(states=states, names=fields.get("names", frozenset()), now=bench.now)
    return [record.id for record in await bench.store.flow_find(request)]


@case("4.14")
async def flows_are_found_by_state_and_name(bench: Bench) -> None:
    running, failed, succeeded, cancelled = [flow.id for flow in await _four_states(bench)]

    assert [running, failed, succeeded, cancelled] == await _find(bench)
    for state, flow_id in zip(FlowState, (running, failed, succeeded, cancelled), strict=True):
        assert [flow_id] == await _find(bench, states=frozenset({state}))
    assert [running, cancelled] == await _find(bench, states=frozenset({"running", "cancelled"}))
    assert [running, succeeded] == await _find(bench, names=frozenset({"a"}))
    assert [failed] == await _find(bench, names=frozenset({"b"}), states=frozenset({"failed", "succeeded"}))
    assert [] == await _find(bench, names=frozenset({"c"}))


@case("4.14")
async def what_is_found_is_what_a_look_up_tells_but_for_the_counts(bench: Bench) -> None:
    flows = await _four_states(bench)

    found = await bench.store.flow_find(FlowFind(now=bench.now))
    told = await bench.store.flow_get(FlowGet(ids=[flow.id for flow in flows], now=bench.now))

    def facts(record: FlowRecord | None) -> tuple[object, ...]:
        assert record is not None
        return (record.id, record.name, record.meta, record.state, record.reason, record.finished_at)

    assert [facts(record) for record in told] == [facts(record) for record in found]
    assert [{}] * 4 == [dict(record.steps) for record in found]


@case("4.14")
async def flows_are_found_page_by_page_in_both_directions(bench: Bench) -> None:
    ids = [(await bench.enqueue_flow(chain())).id for _ in range(7)]

    for newest_first, expected in ((False, ids), (True, ids[::-1])):
        pages: list[list[str]] = []
        after = ""
        while not pages or pages[-1]:
            request = FlowFind(after=after, limit=3, newest_first=newest_first, now=bench.now)
            pages.append([record.id for record in await bench.store.flow_find(request)])
            after = pages[-1][-1] if pages[-1] else ""
        assert [expected[:3], expected[3:6], expected[6:], []] == pages


@case("4.14")
async def the_steps_of_a_flow_are_found_in_every_state(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chord(4))
    await bench.enqueue_flow(chain())
    await bench.enqueue()
    one, two, *_ = ids_of(flow)
    await bench.finish(one)
    await bench.bury(two)
    store = bench.store

    async def found(**fields: frozenset[JobState]) -> list[str]:
        request = JobFind(flow=flow.id, states=fields.get("states", frozenset()), now=bench.now)
        return [record.id for record in await store.job_find(request)]

    page = await store.job_find(JobFind(flow=flow.id, limit=2, newest_first=True, now=bench.now))
    rest = await store.job_find(JobFind(flow=flow.id, after=sorted(ids_of(flow))[1], now=bench.now))
    assert sorted(ids_of(flow)) == await found()
    assert sorted([one, two]) == await found(states=frozenset({JobState.SUCCEEDED, JobState.DEAD}))
    assert sorted(ids_of(flow))[:2:-1] == [record.id for record in page]
    assert sorted(ids_of(flow))[2:] == [record.id for record in rest]
    assert [] == list(await store.job_find(JobFind(flow=UNKNOWN, now=bench.now)))


@case("4.14", "4.13")
async def a_look_up_tells_what_has_come_in_for_a_step(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chord([new_job(), new_job()]))
    first, second, last = ids_of(flow)
    holes = _holes_of(flow, last)

    at_first = (await bench.record(last)).step
    await bench.finish(second, b"2")
    waiting = (await bench.record(last)).step
    await bench.finish(first, b"1")
    await bench.bury(last)
    dead = (await bench.record(last)).step

    one, two = Input(0, 0, "json", b"1"), Input(0, 1, "json", b"2")
    assert DeliveredStep(flow.id, holes, ()) == at_first
    assert DeliveredStep(flow.id, holes, (two,)) == waiting
    assert DeliveredStep(flow.id, holes, (one, two)) == dead


@case("4.14", "4.13")
async def what_came_in_is_told_while_a_step_runs_and_not_once_it_has_succeeded(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain())
    first, last = ids_of(flow)
    await bench.finish(first, b"1")
    delivery = await bench.take_one()

    running = (await bench.record(last)).step
    await bench.settle(success(delivery))
    succeeded = (await bench.record(last)).step

    assert delivery.step == running
    assert DeliveredStep(flow.id, _holes_of(flow, last), ()) == succeeded


@case("4.14")
async def a_look_up_tells_what_an_on_failure_job_is_given(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain(on_failure=failure_template()))
    await bench.bury(ids_of(flow)[0])
    delivery = await bench.take_one()
    await bench.settle(burial(delivery))

    told = (await bench.record(delivery.id)).step

    assert delivery.step == told
    assert told is not None
    assert ("", 1) == (told.flow, len(told.inputs))


@case("4.14")
async def no_step_is_told_of_what_takes_nothing_nor_by_a_search(bench: Bench) -> None:
    plain = await bench.enqueue(key="mine")
    flow = await bench.enqueue_flow(chain())
    first, last = ids_of(flow)
    store = bench.store

    found = await store.job_find(JobFind(flow=flow.id, now=bench.now))
    told = await bench.get(last, plain, first, last)

    assert [None, None] == [record.step for record in found]
    assert [True, False, False, True] == [record is not None and record.step is not None for record in told]


@case("4.14", needs=Capability.BLOCKING)
async def a_blocking_producer_enqueues_looks_up_and_cancels_flows(bench: Bench) -> None:
    driver = bench.driver
    assert isinstance(driver, BlockingDriver)
    flow = chord(3)

    def produce() -> tuple[list[EnqueueStatus], list[FlowRecord | None], list[CancelStatus]]:
        with driver.connect_blocking() as store:
            enqueued = store.job_enqueue(JobEnqueue(jobs=(), flows=[flow], now=bench.now))
            records = list(store.flow_get(FlowGet(ids=[flow.id, UNKNOWN], now=bench.now)))
            request = FlowCancel(ids=[flow.id, UNKNOWN], reason="why", by="ada", now=bench.now)
            cancelled = store.flow_cancel(request)
        return [answer.status for answer in enqueued], records, list(cancelled)

    enqueued, (record, missing), cancelled = await asyncio.to_thread(produce)

    assert [EnqueueStatus.CREATED] == enqueued
    assert record is not None
    assert (FlowState.RUNNING, None) == (record.state, missing)
    assert {JobState.READY: 3, JobState.WAITING: 1} == dict(record.steps)
    assert [CancelStatus.CANCELLED, CancelStatus.MISSING] == cancelled
    assert (FlowState.CANCELLED, "why") == (
        await bench.flow_state(flow.id),
        (await bench.flow(flow.id)).reason,
    )
    assert {JobState.CANCELLED} == set(await bench.states(*ids_of(flow)))
