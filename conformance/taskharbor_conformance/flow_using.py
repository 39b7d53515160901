"""Flows enqueued in a transaction of the caller's own: with their rows, or not at all."""

from __future__ import annotations

import msgspec

from taskharbor.driver import Capability, EnqueueStatus
from taskharbor.flow import FlowState
from taskharbor.job import JobState
from taskharbor_conformance.bench import Bench, Doorbell, new_job
from taskharbor_conformance.case import case
from taskharbor_conformance.graphs import Stream, chain, chord, failure_template, ids_of, values_of

TRANSACTIONAL = Capability.TRANSACTIONAL
MANY = 2_500


@case("4.13", "4.14", needs=TRANSACTIONAL)
async def rows_and_flows_are_committed_together(bench: Bench) -> None:
    flow = chord(3, on_failure=failure_template("failures"))
    async with bench.application() as app:
        await app.begin()
        await app.add_row(1)
        (answer,) = await app.enqueue_flows(flow)
        unseen = await bench.find_flows(), await bench.find_ids()
        await app.commit()
        rows = await app.rows()

    assert (EnqueueStatus.CREATED, flow.id) == (answer.status, answer.job_id)
    assert ([], []) == unseen
    assert ([1], [flow.id]) == (rows, await bench.find_flows())
    for number, member in enumerate(ids_of(flow)[:-1]):
        await bench.finish(member, b"%d" % number)
    assert [b"0", b"1", b"2"] == values_of(await bench.take_one())


@case("4.13", "4.14", "4.9", needs=TRANSACTIONAL)
async def a_rollback_leaves_nothing_of_a_flow(bench: Bench) -> None:
    async with bench.application() as app:
        await app.begin()
        await app.enqueue_flows(chain(new_job(), new_job(key="k")))
        await app.rollback()

    assert ([], []) == (await bench.find_flows(), await bench.find_ids())
    assert await bench.enqueue(key="k", digest=b"other arguments")


@case("4.13", "4.14", needs=TRANSACTIONAL)
async def a_savepoint_takes_a_flow_back_whole(bench: Bench) -> None:
    kept, dropped = chain(), chord(3)
    async with bench.application() as app:
        await app.begin()
        await app.enqueue_flows(kept)
        await app.savepoint()
        await app.enqueue_flows(dropped)
        await app.rollback_to_savepoint()
        await app.commit()

    assert ([kept.id], sorted(ids_of(kept))) == (await bench.find_flows(), await bench.find_ids())


@case("4.13", "4.9", needs=TRANSACTIONAL)
async def a_flow_whose_key_is_taken_leaves_the_transaction_as_it_was(bench: Bench) -> None:
    holder = await bench.enqueue(key="k", queue="other")
    refused, kept = chain(new_job(key="k"), new_job()), chain()
    async with bench.application() as app:
        await app.begin()
        await app.add_row(1)
        answers = await app.enqueue_flows(refused, kept)
        await app.commit()
        rows = await app.rows()

    assert [(EnqueueStatus.CONFLICT, holder), (EnqueueStatus.CREATED, kept.id)] == [
        (answer.status, answer.job_id) for answer in answers
    ]
    assert ([1], [kept.id]) == (rows, await bench.find_flows())
    assert sorted([holder, *ids_of(kept)]) == await bench.find_ids()


@case("4.13", "4.1", needs=TRANSACTIONAL)
async def a_flow_enqueued_again_in_its_transaction_is_stored_once(bench: Bench) -> None:
    flow = chain()
    async with bench.application() as app:
        await app.begin()
        (first,) = await app.enqueue_flows(flow)
        (second,) = await app.enqueue_flows(flow)
        await app.commit()

    assert [EnqueueStatus.CREATED, EnqueueStatus.EXISTING] == [first.status, second.status]
    assert sorted(ids_of(flow)) == await bench.find_ids()


@case("4.13", "4.14", needs=TRANSACTIONAL)
async def a_large_flow_is_committed_whole(bench: Bench) -> None:
    whole = chord(MANY)
    flow = msgspec.structs.replace(whole, steps=Stream([*whole.steps]))
    async with bench.application() as app:
        await app.begin()
        await app.enqueue_flows(flow)
        await app.commit()

    record = await bench.flow(flow.id)
    assert {JobState.READY: MANY, JobState.WAITING: 1} == dict(record.steps)
    assert FlowState.RUNNING == record.state


@case("4.13", "4.10", needs=TRANSACTIONAL)
async def a_flow_that_was_committed_wakes_the_queues_of_what_may_run(bench: Bench) -> None:
    bell = Doorbell()
    subscription = bench.driver.watch_queues(["mail"], bell)
    async with bench.application() as app:
        await app.begin()
        await app.enqueue_flows(chain(new_job(queue="mail"), new_job()))
        await app.commit()

    await bell.wait()
    subscription.close()
