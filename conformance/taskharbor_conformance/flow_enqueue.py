"""job_enqueue of flows: each is stored whole, once, or not at all."""

from __future__ import annotations

import msgspec

from taskharbor.driver import EnqueueStatus
from taskharbor.flow import FlowState
from taskharbor.job import JobState, OnConflict
from taskharbor_conformance.bench import DAY, HOUR, SECOND, Bench, burial, new_job
from taskharbor_conformance.case import case
from taskharbor_conformance.graphs import Stream, chain, chain_steps, chord, ids_of, new_flow

CREATED, EXISTING, CONFLICT, LEFT_OUT = (
    EnqueueStatus.CREATED,
    EnqueueStatus.EXISTING,
    EnqueueStatus.CONFLICT,
    EnqueueStatus.LEFT_OUT,
)
MANY = 4_500
"""Steps, in no list: more than any driver reads at once."""


@case("4.14", "4.1")
async def every_step_of_a_flow_is_a_job_from_the_start(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain(new_job(payload=b"a"), new_job(queue="mail"), new_job()))

    first, second, last = ids_of(flow)
    assert [JobState.READY, JobState.WAITING, JobState.WAITING] == await bench.states(first, second, last)
    assert [first, second, last] == sorted(await bench.find_ids())
    record = await bench.record(second)
    assert ("mail", flow.id, 1, last) == (record.queue, record.flow, record.waits, record.edges[0].job_id)
    assert (b"a", 0) == ((await bench.record(first)).payload, (await bench.record(first)).waits)


@case("4.1")
async def a_job_of_no_flow_names_none(bench: Bench) -> None:
    record = await bench.record(await bench.enqueue())

    assert (None, 0, ()) == (record.flow, record.waits, record.edges)


@case("4.14", "4.1")
async def jobs_and_flows_of_one_batch_are_answered_in_order(bench: Bench) -> None:
    jobs = [new_job(), new_job()]
    flows = [chain(), chord(3), chain()]

    answers = await bench.enqueue_both(jobs=jobs, flows=flows)

    expected = [(CREATED, one) for one in [*(job.id for job in jobs), *(flow.id for flow in flows)]]
    assert expected == [(answer.status, answer.job_id) for answer in answers]
    assert 2 + 2 + 4 + 2 == len(await bench.find_ids())
    assert sorted(flow.id for flow in flows) == await bench.find_flows()


@case("4.1", "4.14")
async def enqueueing_a_flow_again_stores_it_once(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain())
    await bench.finish(ids_of(flow)[0])

    answers = await bench.enqueue_both(flows=[flow])

    assert [(EXISTING, flow.id)] == [(answer.status, answer.job_id) for answer in answers]
    assert [JobState.SUCCEEDED, JobState.READY] == await bench.states(*ids_of(flow))
    assert {JobState.SUCCEEDED: 1, JobState.READY: 1} == dict((await bench.flow(flow.id)).steps)


@case("4.1", "4.14")
async def a_flow_that_stands_twice_in_a_batch_is_stored_once(bench: Bench) -> None:
    flow = chain()

    answers = await bench.enqueue_both(flows=[flow, flow])

    assert [CREATED, EXISTING] == [answer.status for answer in answers]
    assert sorted(ids_of(flow)) == await bench.find_ids()


@case("4.1", "4.14")
async def a_flow_may_be_read_in_parts_and_never_be_a_list(bench: Bench) -> None:
    whole = chord(MANY)
    flow = msgspec.structs.replace(whole, steps=Stream([*whole.steps]))

    await bench.enqueue_flow(flow)

    assert {JobState.READY: MANY, JobState.WAITING: 1} == dict((await bench.flow(flow.id)).steps)
    assert MANY == (await bench.record(flow.id)).waits


@case("4.14")
async def a_flow_keeps_its_name_and_metadata(bench: Bench) -> None:
    flow = msgspec.structs.replace(chain(name="import"), meta={"tenant": "ü'7"})

    await bench.enqueue_flow(flow)

    record = await bench.flow(flow.id)
    assert (flow.id, "import", {"tenant": "ü'7"}) == (record.id, record.name, record.meta)
    assert (FlowState.RUNNING, bench.now, None, "") == (
        record.state,
        record.enqueued_at,
        record.finished_at,
        record.reason,
    )


# --- keys


@case("4.9")
async def the_key_of_the_last_step_is_the_flows(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain(new_job(), new_job(key="k")))
    same, other = chain(new_job(), new_job(key="k")), chain(new_job(), new_job(key="k", digest=b"other"))

    answers = await bench.enqueue_both(flows=[same, other])

    assert [(EXISTING, flow.id), (CONFLICT, flow.id)] == [(a.status, a.job_id) for a in answers]
    assert [same.id, other.id] == [answer.step for answer in answers]
    assert sorted(ids_of(flow)) == await bench.find_ids()
    assert [flow.id] == await bench.find_flows()


@case("4.9")
async def a_key_that_the_last_step_has_for_itself_is_shared_with_no_other_flow(bench: Bench) -> None:
    steps = chain_steps(new_job(), new_job(key="k"))
    flow = await bench.enqueue_flow(new_flow(*steps, own_key=False))
    again = new_flow(*chain_steps(new_job(), new_job(key="k")), own_key=False)

    (answer,) = await bench.enqueue_both(flows=[again])

    assert (CONFLICT, flow.id, again.id) == (answer.status, answer.job_id, answer.step)
    assert [flow.id] == await bench.find_flows()


@case("4.9")
async def a_key_of_a_middle_step_that_is_taken_leaves_the_whole_flow_out(bench: Bench) -> None:
    holder = await bench.enqueue(key="k")
    flow = chain(new_job(), new_job(key="k"), new_job(key="free"))

    (answer,) = await bench.enqueue_both(flows=[flow])

    assert (CONFLICT, holder, ids_of(flow)[1]) == (answer.status, answer.job_id, answer.step)
    assert ([holder], []) == (await bench.find_ids(), await bench.find_flows())
    assert await bench.enqueue(key="free"), "a flow that was left out takes no key"


@case("4.9")
async def the_keys_of_steps_are_taken_at_once_though_these_wait(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain(new_job(), new_job(key="k"), new_job()))

    (answer,) = await bench.enqueue_all(new_job(key="k"))

    assert (EXISTING, ids_of(flow)[1]) == (answer.status, answer.job_id)


@case("4.9")
async def the_key_of_a_flow_is_free_some_time_after_its_end(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain(new_job(), new_job(key="k", key_ttl=HOUR)))
    bench.advance(DAY)
    for job_id in ids_of(flow):
        await bench.finish(job_id)
    bench.advance(HOUR - SECOND)
    (early,) = await bench.enqueue_both(flows=[chain(new_job(), new_job(key="k"))])
    bench.advance(SECOND)

    (late,) = await bench.enqueue_both(flows=[chain(new_job(), new_job(key="k"))])

    assert [EXISTING, CREATED] == [early.status, late.status]


@case("4.9")
async def two_flows_of_one_batch_with_one_key_are_one_flow(bench: Bench) -> None:
    first, second = chain(new_job(), new_job(key="k")), chain(new_job(), new_job(key="k"))

    answers = await bench.enqueue_both(flows=[first, second])

    assert [(CREATED, first.id), (EXISTING, first.id)] == [(a.status, a.job_id) for a in answers]
    assert sorted(ids_of(first)) == await bench.find_ids()


@case("4.9")
async def all_or_none_holds_for_jobs_and_flows_together(bench: Bench) -> None:
    holder = await bench.enqueue(key="k")
    job, flow = new_job(), chain()

    by_flow = await bench.enqueue_both(
        jobs=[job], flows=[flow, chain(new_job(key="k"), new_job())], all_or_none=True
    )
    by_job = await bench.enqueue_both(
        jobs=[new_job(key="k", on_conflict=OnConflict.RAISE)], flows=[flow], all_or_none=True
    )

    assert [(LEFT_OUT, job.id), (LEFT_OUT, flow.id), (CONFLICT, holder)] == [
        (answer.status, answer.job_id) for answer in by_flow
    ]
    assert [(EXISTING, holder), (LEFT_OUT, flow.id)] == [(a.status, a.job_id) for a in by_job]
    assert ([holder], []) == (await bench.find_ids(), await bench.find_flows())


@case("4.9")
async def a_flow_that_asks_to_be_told_of_its_double_stops_all_or_none(bench: Bench) -> None:
    first = await bench.enqueue_flow(chain(new_job(), new_job(key="k")))
    job = new_job()
    lenient = chain(new_job(), new_job(key="k"))
    strict = chain(new_job(), new_job(key="k", on_conflict=OnConflict.RAISE))

    told = await bench.enqueue_both(jobs=[job], flows=[strict], all_or_none=True)
    stored = await bench.enqueue_both(jobs=[job], flows=[lenient], all_or_none=True)

    assert [LEFT_OUT, EXISTING] == [answer.status for answer in told]
    assert [CREATED, EXISTING] == [answer.status for answer in stored]
    assert sorted([*ids_of(first), job.id]) == await bench.find_ids()


@case("4.9", "4.7")
async def a_dead_step_whose_key_was_taken_since_is_not_requeued(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain(new_job(key="k", key_ttl=HOUR), new_job()))
    await bench.settle(burial(await bench.take_one()))
    bench.advance(2 * HOUR)
    await bench.enqueue(key="k")

    statuses = await bench.requeue(ids_of(flow)[0])

    assert ["key_taken"] == statuses
    assert FlowState.FAILED == await bench.flow_state(flow.id)
