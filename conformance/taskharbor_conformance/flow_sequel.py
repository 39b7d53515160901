"""What a success brings with it: more jobs, flows and steps, written in the same settle or not at all."""

from __future__ import annotations

from taskharbor.driver import EnqueueStatus
from taskharbor.flow import FlowState, NewFlow, Sequel
from taskharbor.job import JobState, NewJob
from taskharbor.settlement import SettleStatus
from taskharbor.step import ORDER, Edge, Input, Step
from taskharbor_conformance.bench import DAY, HOUR, SECOND, Bench, failure, new_job, success
from taskharbor_conformance.case import case
from taskharbor_conformance.graphs import VALUE, VALUES, chain, ids_of, new_flow, new_step, values_of


@case("4.13")
async def jobs_asked_for_on_success_are_stored_with_it(bench: Bench) -> None:
    await bench.enqueue()
    jobs = (new_job(payload=b"a"), new_job(run_in=HOUR, queue="mail", meta={"a": "b"}))
    delivery = await bench.take_one()

    await bench.settle(success(delivery, sequel=Sequel(jobs=jobs)))

    first, second = [await bench.record(job.id) for job in jobs]
    assert (JobState.READY, b"a", bench.now) == (first.state, first.payload, first.enqueued_at)
    assert (JobState.SCHEDULED, "mail", bench.now + HOUR) == (second.state, second.queue, second.due_at)
    assert [jobs[0].id] == await bench.take_ids()


@case("4.13", "4.14")
async def flows_asked_for_on_success_are_stored_with_it(bench: Bench) -> None:
    await bench.enqueue()
    flow = chain(name="next")

    await bench.settle(success(await bench.take_one(), sequel=Sequel(flows=(flow,))))

    assert ("next", FlowState.RUNNING) == ((await bench.flow(flow.id)).name, await bench.flow_state(flow.id))
    for job_id in ids_of(flow):
        await bench.finish(job_id)
    assert FlowState.SUCCEEDED == await bench.flow_state(flow.id)


@case("4.13", "4.9")
async def what_is_asked_for_under_a_key_that_is_taken_is_left_out(bench: Bench) -> None:
    holder = await bench.enqueue(key="k", run_in=DAY)
    mine = await bench.enqueue()
    jobs = (new_job(key="k"), new_job(key="k", digest=b"other"), new_job(key="free"))
    flows = (chain(new_job(key="k"), new_job()), chain())

    states = await bench.settle(success(await bench.take_one(), sequel=Sequel(jobs=jobs, flows=flows)))

    assert [JobState.SUCCEEDED] == states
    assert sorted([holder, mine, jobs[2].id, *ids_of(flows[1])]) == await bench.find_ids()
    assert [flows[1].id] == await bench.find_flows()
    (answer,) = await bench.enqueue_all(new_job(key="free"))
    assert (EnqueueStatus.EXISTING, jobs[2].id) == (answer.status, answer.job_id)


@case("4.13", "4.3")
async def nothing_is_stored_of_a_success_under_a_lost_lease(bench: Bench) -> None:
    job_id = await bench.enqueue()
    late = await bench.take_one()
    await bench.lose_workers()

    (answer,) = await bench.answers(success(late, sequel=Sequel(jobs=(new_job(),), flows=(chain(),))))

    assert SettleStatus.STALE == answer.status
    assert ([job_id], []) == (await bench.find_ids(), await bench.find_flows())


@case("4.13", "4.3")
async def a_settle_repeated_stores_what_it_brings_once(bench: Bench) -> None:
    mine = await bench.enqueue()
    delivery = await bench.take_one()
    job = new_job()
    await bench.settle(success(delivery, sequel=Sequel(jobs=(job,))))
    await bench.delete(job.id)

    (answer,) = await bench.answers(success(delivery, sequel=Sequel(jobs=(job,))))

    assert (SettleStatus.ALREADY, [mine]) == (answer.status, await bench.find_ids())


@case("4.13", "4.11")
async def a_success_in_spite_of_a_cancel_brings_its_jobs(bench: Bench) -> None:
    await bench.enqueue()
    delivery = await bench.take_one()
    await bench.cancel(delivery.id)
    job = new_job()

    await bench.settle(success(delivery, sequel=Sequel(jobs=(job,))))

    assert JobState.READY == await bench.state(job.id)


@case("4.13")
async def several_successes_of_one_batch_bring_each_their_own(bench: Bench) -> None:
    for _ in range(3):
        await bench.enqueue()
    jobs = [new_job(), new_job(key="k"), new_job(key="k")]
    deliveries = await bench.take()
    ends = [success(one, sequel=Sequel(jobs=(job,))) for one, job in zip(deliveries, jobs, strict=True)]

    await bench.settle(*ends)

    assert [jobs[0].id, jobs[1].id] == await bench.take_ids()


# --- steps that are known only now


def _expanded(*, order: bool = False) -> NewFlow:
    """Return a flow of a first step that will say how many it becomes, and of a last one that collects them.

    Args:
        order: the last step waits for the first by an edge, and not by a count that the first takes back.
    """
    first, last = new_job(), new_job()
    edges = (Edge(last.id, ORDER),) if order else ()
    return new_flow(
        new_step(first, Step(flow=last.id, edges=edges)),
        new_step(last, Step(flow=last.id, waits=1, holes=(VALUES,))),
    )


def _bodies(flow: NewFlow, count: int) -> tuple[NewJob, ...]:
    return tuple(
        new_step(
            new_job(payload=b"%d" % index),
            Step(
                flow=flow.id,
                edges=(Edge(flow.id, 0, index),),
                holes=(VALUE,),
                inputs=(Input(0, 0, "json", b"element %d" % index),),
            ),
        )
        for index in range(count)
    )


@case("4.14", "4.13")
async def more_steps_come_with_their_inputs_and_the_last_one_waits_for_them(bench: Bench) -> None:
    flow = await bench.enqueue_flow(_expanded())
    bodies = _bodies(flow, 3)

    await bench.settle(
        success(await bench.take_one(), sequel=Sequel(steps=bodies, waits={flow.id: len(bodies) - 1}))
    )

    assert (JobState.WAITING, 3) == (await bench.state(flow.id), (await bench.record(flow.id)).waits)
    deliveries = {delivery.id: delivery for delivery in await bench.take()}
    assert [[b"element %d" % index] for index in range(3)] == [values_of(deliveries[b.id]) for b in bodies]
    await bench.settle(*(success(deliveries[body.id], body.id.encode()) for body in reversed(bodies)))
    collecting = await bench.take_one()
    assert (flow.id, [body.id.encode() for body in bodies]) == (collecting.id, values_of(collecting))


@case("4.14", "4.13")
async def more_steps_belong_to_the_flow(bench: Bench) -> None:
    flow = await bench.enqueue_flow(_expanded())
    bodies = _bodies(flow, 2)
    await bench.settle(success(await bench.take_one(), sequel=Sequel(steps=bodies, waits={flow.id: 1})))

    steps = dict((await bench.flow(flow.id)).steps)
    await bench.bury(bodies[0].id)
    failed = await bench.flow_state(flow.id)
    await bench.cancel_flows(flow.id)

    assert {JobState.SUCCEEDED: 1, JobState.READY: 2, JobState.WAITING: 1} == steps
    assert (FlowState.FAILED, flow.id) == (failed, (await bench.record(bodies[1].id)).flow)
    assert JobState.CANCELLED == await bench.state(bodies[1].id)


@case("4.14", "4.13")
async def a_step_whose_count_comes_to_nothing_is_ready(bench: Bench) -> None:
    flow = await bench.enqueue_flow(_expanded())
    bench.advance(SECOND)

    await bench.settle(success(await bench.take_one(), sequel=Sequel(waits={flow.id: -1})))

    record = await bench.record(flow.id)
    assert (JobState.READY, 0, bench.now) == (record.state, record.waits, record.due_at)
    assert [] == values_of(await bench.take_one())


@case("4.14", "4.13")
async def a_step_may_come_to_wait_for_more_as_its_last_input_comes(bench: Bench) -> None:
    flow = await bench.enqueue_flow(_expanded(order=True))
    bodies = _bodies(flow, 2)

    await bench.settle(success(await bench.take_one(), sequel=Sequel(steps=bodies, waits={flow.id: 2})))

    assert (JobState.WAITING, 2) == (await bench.state(flow.id), (await bench.record(flow.id)).waits)
    await bench.settle(*(success(one, b"1") for one in await bench.take()))
    assert [flow.id] == await bench.take_ids()


@case("4.14", "4.13")
async def more_steps_may_wait_for_one_another(bench: Bench) -> None:
    flow = await bench.enqueue_flow(_expanded())
    (first,) = _bodies(flow, 1)
    second = new_step(new_job(), Step(flow=flow.id, waits=1, holes=(VALUE,), edges=(Edge(flow.id, 0, 0),)))
    leading = new_step(first, Step(flow=flow.id, edges=(Edge(second.id, 0),)))
    await bench.settle(
        success(await bench.take_one(), sequel=Sequel(steps=(leading, second), waits={flow.id: 0}))
    )
    await bench.finish(leading.id, b"1")
    between = await bench.take_one()
    await bench.settle(success(between, b"2"))

    delivery = await bench.take_one()

    assert (second.id, [b"1"]) == (between.id, values_of(between))
    assert (flow.id, [b"2"]) == (delivery.id, values_of(delivery))


@case("4.14", "4.13")
async def a_flow_that_was_cancelled_gets_no_more_steps(bench: Bench) -> None:
    flow = await bench.enqueue_flow(_expanded())
    running = await bench.take_one()
    await bench.cancel_flows(flow.id)
    job = new_job()

    states = await bench.settle(
        success(running, sequel=Sequel(jobs=(job,), steps=_bodies(flow, 3), waits={flow.id: 2}))
    )

    assert [JobState.SUCCEEDED] == states
    assert sorted([*ids_of(flow), job.id]) == await bench.find_ids()
    assert JobState.CANCELLED == await bench.state(flow.id)
    assert [job.id] == await bench.take_ids()


@case("4.14", "4.13")
async def a_failed_flow_gets_more_steps(bench: Bench) -> None:
    first, dead, last = new_job(), new_job(), new_job()
    flow = new_flow(
        new_step(first, Step(flow=last.id)),
        new_step(dead, Step(flow=last.id, edges=(Edge(last.id, ORDER),))),
        new_step(last, Step(flow=last.id, waits=2, holes=(VALUES,))),
    )
    await bench.enqueue_flow(flow)
    await bench.bury(dead.id)
    bodies = _bodies(flow, 2)

    await bench.settle(success(await bench.take_one(), sequel=Sequel(steps=bodies, waits={flow.id: 1})))

    assert sorted(body.id for body in bodies) == sorted(await bench.take_ids())
    assert 3 == (await bench.record(flow.id)).waits


@case("4.14", "4.3")
async def no_steps_come_of_a_success_under_a_lost_lease(bench: Bench) -> None:
    flow = await bench.enqueue_flow(_expanded())
    late = await bench.take_one()
    await bench.lose_workers()

    await bench.answers(success(late, sequel=Sequel(steps=_bodies(flow, 2), waits={flow.id: 1})))

    assert (sorted(ids_of(flow)), 1) == (await bench.find_ids(), (await bench.record(flow.id)).waits)


@case("4.14", "4.3", "4.6")
async def an_expansion_tried_again_is_stored_once(bench: Bench) -> None:
    flow = await bench.enqueue_flow(_expanded())
    bodies = _bodies(flow, 2)
    sequel = Sequel(steps=bodies, waits={flow.id: 1})
    await bench.settle(failure(await bench.take_one()))
    delivery = await bench.take_one()
    await bench.settle(success(delivery, sequel=sequel))

    (again,) = await bench.answers(success(delivery, sequel=sequel))

    assert (SettleStatus.ALREADY, 2) == (again.status, (await bench.record(flow.id)).waits)
    assert 4 == len(await bench.find_ids())
