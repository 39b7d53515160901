"""Many settling the steps of one flow at once: it advances as if they had come one after the other."""

from __future__ import annotations

import asyncio
from collections import Counter

from taskharbor.driver import CancelStatus, RequeueStatus
from taskharbor.flow import FlowState
from taskharbor.job import Delivery, JobState
from taskharbor_conformance.bench import Bench, burial, new_job, success
from taskharbor_conformance.case import case
from taskharbor_conformance.concurrency import EMPTY, STORES, in_threads
from taskharbor_conformance.graphs import chain, chord, failure_template, ids_of, values_of

CHORDS = 20
LENGTH = 6


async def _chords(bench: Bench, *, tolerant: bool = False) -> tuple[list[str], list[list[Delivery]]]:
    """Store chords of one member a store, and return the flows, and what each store took: a member of every flow."""
    queues = [f"queue-{number}" for number in range(STORES)]
    template = failure_template("failures")
    flows = [
        chord([new_job(queue=queue) for queue in queues], tolerant=tolerant, on_failure=template)
        for _ in range(CHORDS)
    ]
    await bench.enqueue_both(flows=flows)
    return [flow.id for flow in flows], [await bench.take(queues=[queue]) for queue in queues]


@case("4.14", "4.13")
async def of_many_settling_the_last_members_at_once_one_lets_the_callback_go(bench: Bench) -> None:
    flows, shares = await _chords(bench)

    async def settle(store: Bench, number: int) -> list[str]:
        share = shares[number][:: -1 if number % 2 else 1]
        await store.settle(*(success(one, one.id.encode()) for one in share))
        return []

    await in_threads(bench, settle)

    callbacks = await bench.take()
    expected = {flow: [share[place].id.encode() for share in shares] for place, flow in enumerate(flows)}
    assert expected == {delivery.id: values_of(delivery) for delivery in callbacks}
    assert {1} == {delivery.fence for delivery in callbacks}


@case("4.14", "4.13")
async def members_settled_one_by_one_at_once_are_all_counted(bench: Bench) -> None:
    flows, shares = await _chords(bench)

    async def settle(store: Bench, number: int) -> list[str]:
        for delivery in shares[number]:
            await store.settle(success(delivery, b"%d" % number))
        return []

    await in_threads(bench, settle)

    callbacks = await bench.take()
    assert sorted(flows) == sorted(delivery.id for delivery in callbacks)
    assert [b"%d" % number for number in range(STORES)] == values_of(callbacks[0])


@case("4.14")
async def of_members_that_die_at_once_one_makes_the_flow_failed(bench: Bench) -> None:
    flows, shares = await _chords(bench)

    async def bury(store: Bench, number: int) -> list[str]:
        for delivery in shares[number]:
            await store.settle(burial(delivery))
        return []

    await in_threads(bench, bury)

    assert sorted(flows) == await bench.find_flows(FlowState.FAILED)
    assert CHORDS == len(await bench.take(queues=["failures"])), "on_failure is stored once a flow"


@case("4.14")
async def failures_and_results_that_come_at_once_are_all_handed_on(bench: Bench) -> None:
    flows, shares = await _chords(bench, tolerant=True)

    async def end(store: Bench, number: int) -> list[str]:
        settle = burial if number % 2 else success
        for place, delivery in enumerate(shares[number]):
            await store.settle(settle(delivery) if place % 3 else success(delivery))
        return []

    await in_threads(bench, end)

    callbacks = await bench.take()
    assert sorted(flows) == sorted(delivery.id for delivery in callbacks)
    assert {STORES} == {len(values_of(delivery)) for delivery in callbacks}


@case("4.14", "4.2", "4.1")
async def many_draining_flows_run_every_step_once(bench: Bench) -> None:
    flows = [
        *(chain(*(new_job() for _ in range(LENGTH))) for _ in range(10)),
        *(chord(LENGTH) for _ in range(10)),
    ]
    await bench.enqueue_both(flows=flows)

    async def drain(store: Bench, number: int) -> list[str]:
        done: list[str] = []
        empty = 0
        while empty < EMPTY:
            deliveries = await store.take(1 + number % 3, worker=f"worker-{number}")
            empty = 0 if deliveries else empty + 1
            await store.settle(*map(success, deliveries))
            done += [delivery.id for delivery in deliveries]
            await asyncio.sleep(0)
        return done

    done = await in_threads(bench, drain)
    # All may have found nothing while the last of them settled.
    while rest := await bench.take():
        await bench.settle(*map(success, rest))
        done.append([delivery.id for delivery in rest])

    ran = Counter(job_id for of_one in done for job_id in of_one)
    assert dict.fromkeys((job_id for flow in flows for job_id in ids_of(flow)), 1) == dict(ran)
    assert sorted(flow.id for flow in flows) == await bench.find_flows(FlowState.SUCCEEDED)


@case("4.14", "4.11")
async def a_cancel_of_the_flow_and_the_last_settle_at_once_agree(bench: Bench) -> None:
    flows, shares = await _chords(bench)
    for share in shares[1:]:
        await bench.settle(*map(success, share))

    async with bench.beside() as one, bench.beside() as two:
        statuses, _ = await asyncio.gather(one.cancel_flows(*flows), two.settle(*map(success, shares[0])))

    assert {CancelStatus.CANCELLED, CancelStatus.REQUESTED} >= set(statuses)
    assert sorted(flows) == await bench.find_flows(FlowState.CANCELLED)
    assert {JobState.CANCELLED} == set(await bench.states(*flows))
    assert [] == await bench.take_ids()


@case("4.14", "4.7")
async def a_requeue_and_another_death_at_once_leave_the_flow_failed(bench: Bench) -> None:
    flows, shares = await _chords(bench)
    first, second, *_ = shares
    await bench.settle(*map(burial, first))

    async with bench.beside() as one, bench.beside() as two:
        statuses, _ = await asyncio.gather(
            one.requeue(*(delivery.id for delivery in first)), two.settle(*map(burial, second))
        )

    assert [RequeueStatus.REQUEUED] * CHORDS == statuses
    assert sorted(flows) == await bench.find_flows(FlowState.FAILED)


@case("4.9", "4.14")
async def of_many_enqueues_of_one_flow_at_once_one_stores_it(bench: Bench) -> None:
    flow = chord(5)
    keyed = [chain(new_job(), new_job(key="k")) for _ in range(STORES)]

    async def enqueue(store: Bench, number: int) -> list[str]:
        answers = await store.enqueue_both(flows=[flow, keyed[number]])
        return [f"{answer.status} {answer.job_id}" for answer in answers]

    told = Counter(answer for answers in await in_threads(bench, enqueue) for answer in answers)

    (stored,) = [found for found in await bench.find_flows() if found != flow.id]
    expected = {f"{status} {flow_id}": 1 for status in ("created",) for flow_id in (flow.id, stored)}
    expected |= {f"existing {flow_id}": STORES - 1 for flow_id in (flow.id, stored)}
    assert expected == told
    assert 6 + 2 == len(await bench.find_ids())
