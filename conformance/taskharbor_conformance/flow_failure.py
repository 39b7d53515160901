"""What a dead step means: the flow has failed, what waits for it stays waiting, and a requeue resumes it."""

from __future__ import annotations

from taskharbor.driver import RequeueStatus
from taskharbor.flow import FlowFailure, FlowState
from taskharbor.job import JobState
from taskharbor.retry import RetryNumbers
from taskharbor_conformance.bench import HOUR, Bench, burial, error_of, new_job, release, success
from taskharbor_conformance.case import case
from taskharbor_conformance.graphs import chain, chord, failure_template, ids_of, told_of, values_of

FAILED, RUNNING = FlowState.FAILED, FlowState.RUNNING
REQUEUED, NOT_DEAD = RequeueStatus.REQUEUED, RequeueStatus.NOT_DEAD
FAILURES = "failures"
"""A queue for `on_failure` jobs."""


@case("4.14", "4.7")
async def a_dead_member_makes_the_flow_failed_and_what_waits_stays_waiting(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chord(3))
    *members, last = ids_of(flow)
    await bench.bury(members[0], "no such page")
    for member in members[1:]:
        await bench.finish(member)

    record = await bench.flow(flow.id)
    assert (FAILED, None) == (record.state, record.finished_at)
    assert f"step mail.send ({members[0]}) is a dead letter: no such page" == record.reason
    assert (JobState.WAITING, 1) == (await bench.state(last), (await bench.record(last)).waits)
    assert {JobState.DEAD: 1, JobState.SUCCEEDED: 2, JobState.WAITING: 1} == dict(record.steps)
    assert [] == await bench.take_ids()


@case("4.14")
async def the_rest_of_a_failed_flow_still_advances(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain(*(new_job() for _ in range(3))))
    other = await bench.enqueue_flow(chain())
    first, second, _ = ids_of(flow)
    await bench.finish(first)
    await bench.bury(second)
    await bench.finish(ids_of(other)[0])

    await bench.finish(other.id)

    assert [FAILED, FlowState.SUCCEEDED] == [await bench.flow_state(one.id) for one in (flow, other)]


@case("4.14", "4.4")
async def a_step_whose_worker_died_for_the_last_time_makes_the_flow_failed(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain(new_job(retry=RetryNumbers(max_attempts=1)), new_job()))
    await bench.start(await bench.take_one())

    await bench.lose_workers()

    record = await bench.flow(flow.id)
    assert (FAILED, JobState.WAITING) == (record.state, await bench.state(flow.id))
    assert "attempts used up" in record.reason


@case("4.14")
async def the_last_step_may_fail_as_any_other(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain())
    await bench.finish(ids_of(flow)[0], b"1")
    await bench.bury(flow.id)
    failed = await bench.flow_state(flow.id)

    statuses = await bench.requeue(flow.id)
    delivery = await bench.take_one()
    await bench.settle(success(delivery))

    assert (FAILED, [REQUEUED], [b"1"]) == (failed, statuses, values_of(delivery))
    assert FlowState.SUCCEEDED == await bench.flow_state(flow.id)


# --- on_failure


@case("4.14")
async def on_failure_is_stored_and_told_which_step_failed_and_why(bench: Bench) -> None:
    template = failure_template(FAILURES)
    flow = chain(name="import", on_failure=template)
    await bench.enqueue_flow(flow)
    before = await bench.take_ids(queues=[FAILURES])
    dead = await bench.take_one()
    await bench.settle(burial(dead, "no such page", "404"))

    delivery = await bench.take_one(queues=[FAILURES])

    error = error_of(dead)
    told = FlowFailure(
        flow_id=flow.id,
        name="import",
        meta={},
        job_id=dead.id,
        task=dead.task,
        error_type=error.type,
        error_message="404",
        reason="no such page",
        attempts=1,
    )
    assert ([], told) == (before, told_of(delivery))
    assert delivery.step is not None
    assert template.step is not None
    assert ("", template.step.holes) == (delivery.step.flow, delivery.step.holes)
    assert (template.task, template.payload) == (delivery.task, delivery.payload)
    assert template.id != delivery.id


@case("4.14")
async def an_on_failure_job_is_no_step_of_the_flow(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain(on_failure=failure_template(FAILURES)))
    await bench.bury(ids_of(flow)[0])
    steps = dict((await bench.flow(flow.id)).steps)
    delivery = await bench.take_one(queues=[FAILURES])
    record = await bench.record(delivery.id)
    await bench.settle(burial(delivery))

    assert (None, {JobState.DEAD: 1, JobState.WAITING: 1}) == (record.flow, steps)
    assert FAILED == await bench.flow_state(flow.id)
    assert [] == await bench.take_ids(queues=[FAILURES])


@case("4.14", "4.7")
async def an_on_failure_job_that_died_can_be_requeued_and_is_told_the_same(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain(on_failure=failure_template(FAILURES)))
    await bench.bury(ids_of(flow)[0])
    first = await bench.take_one(queues=[FAILURES])
    await bench.settle(burial(first))

    statuses = await bench.requeue(first.id)

    second = await bench.take_one(queues=[FAILURES])
    assert ([REQUEUED], first.id, told_of(first)) == (statuses, second.id, told_of(second))
    assert [JobState.SUCCEEDED] == await bench.settle(success(second))


@case("4.14", "4.8", "4.11")
async def an_on_failure_job_that_was_cancelled_has_lost_its_input_and_is_not_requeued(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain(on_failure=failure_template(FAILURES)))
    await bench.bury(ids_of(flow)[0])
    told = await bench.take_one(queues=[FAILURES])
    await bench.settle(release(told))
    await bench.cancel(told.id)

    statuses = await bench.requeue(told.id)

    assert ([NOT_DEAD], FAILED) == (statuses, await bench.flow_state(flow.id))


@case("4.14")
async def a_flow_that_has_failed_does_not_fail_again(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chord(3, on_failure=failure_template(FAILURES)))
    one, two, three = await bench.take()

    await bench.settle(burial(one, "first"), burial(two, "second"))
    await bench.settle(burial(three, "third"))

    (told,) = await bench.take(queues=[FAILURES])
    assert "first" == told_of(told).reason
    assert one.id in (await bench.flow(flow.id)).reason


@case("4.14")
async def on_failure_is_stored_again_when_a_resumed_flow_fails_again(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain(on_failure=failure_template(FAILURES)))
    first, _ = ids_of(flow)
    await bench.bury(first, "once")
    (one,) = await bench.take(queues=[FAILURES])
    await bench.requeue(first)
    await bench.bury(first, "twice")

    (two,) = await bench.take(queues=[FAILURES])

    assert ["once", "twice"] == [told_of(one).reason, told_of(two).reason]
    assert one.id != two.id


@case("4.14", "4.3")
async def a_burial_repeated_stores_on_failure_once(bench: Bench) -> None:
    await bench.enqueue_flow(chain(on_failure=failure_template(FAILURES)))
    delivery = await bench.take_one()
    await bench.settle(burial(delivery))

    await bench.answers(burial(delivery))

    assert 1 == len(await bench.take(queues=[FAILURES]))


# --- resume


@case("4.14", "4.7")
async def requeueing_the_dead_step_resumes_the_flow_where_it_stood(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain(*(new_job() for _ in range(3))))
    first, second, last = ids_of(flow)
    await bench.finish(first, b"1")
    await bench.bury(second)

    statuses = await bench.requeue(second, by="ada")

    record = await bench.flow(flow.id)
    assert ([REQUEUED], RUNNING, "") == (statuses, record.state, record.reason)
    delivery = await bench.take_one()
    assert (second, 1, [b"1"]) == (delivery.id, delivery.attempt, values_of(delivery))
    await bench.settle(success(delivery, b"2"))
    delivery = await bench.take_one()
    assert (last, [b"2"]) == (delivery.id, values_of(delivery))
    await bench.settle(success(delivery))
    assert FlowState.SUCCEEDED == await bench.flow_state(flow.id)


@case("4.14", "4.7")
async def a_requeued_member_gives_the_callback_the_whole_list(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chord(3))
    *members, last = ids_of(flow)
    await bench.bury(members[1])
    for member in (members[2], members[0]):
        await bench.finish(member, member.encode())
    await bench.requeue(members[1])
    await bench.finish(members[1], members[1].encode())

    delivery = await bench.take_one()

    assert last == delivery.id
    assert [member.encode() for member in members] == values_of(delivery)


@case("4.14", "4.7")
async def a_flow_stays_failed_until_its_last_dead_step_is_requeued(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chord(2))
    one, two = await bench.take()
    await bench.settle(burial(one), burial(two))

    await bench.requeue(two.id)
    halfway = await bench.flow_state(flow.id)
    await bench.requeue(one.id)

    assert (FAILED, RUNNING) == (halfway, await bench.flow_state(flow.id))


@case("4.14", "4.7")
async def dead_steps_requeued_in_one_batch_resume_the_flow(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chord(2))
    one, two = await bench.take()
    await bench.settle(burial(one), burial(two))

    statuses = await bench.requeue(one.id, two.id)

    assert ([REQUEUED] * 2, RUNNING) == (statuses, await bench.flow_state(flow.id))


@case("4.14", "4.8")
async def steps_that_wait_or_were_cancelled_are_not_requeued(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain())
    first, last = ids_of(flow)
    waiting = await bench.requeue(last)
    await bench.cancel(first)

    statuses = await bench.requeue(first, last)

    assert ([NOT_DEAD], [NOT_DEAD] * 2) == (waiting, statuses)
    assert [JobState.CANCELLED] * 2 == await bench.states(first, last)
    assert FlowState.CANCELLED == await bench.flow_state(flow.id)


@case("4.14", "4.8")
async def a_dead_step_of_a_flow_that_was_cancelled_is_not_requeued(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain())
    first, _ = ids_of(flow)
    await bench.bury(first)
    await bench.cancel_flows(flow.id)

    statuses = await bench.requeue(first)

    assert [NOT_DEAD] == statuses
    assert (JobState.DEAD, FlowState.CANCELLED) == (await bench.state(first), await bench.flow_state(flow.id))


@case("4.14", "4.17")
async def a_failed_flow_can_be_resumed_long_after(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain())
    first, _ = ids_of(flow)
    await bench.bury(first)
    bench.advance(10_000 * HOUR)
    await bench.requeue(first)
    await bench.finish(first)

    await bench.finish(flow.id)

    assert FlowState.SUCCEEDED == await bench.flow_state(flow.id)


@case("4.14")
async def a_flow_that_stays_failed_tells_of_a_step_that_is_still_dead(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chord(2))
    first, second, _ = ids_of(flow)
    await bench.bury(first, "the first")
    await bench.bury(second, "the second")
    told = (await bench.flow(flow.id)).reason
    await bench.requeue(first)

    record = await bench.flow(flow.id)

    assert f"step mail.send ({first}) is a dead letter: the first" == told
    assert (FAILED, f"step mail.send ({second}) is a dead letter: the second") == (
        record.state,
        record.reason,
    )
