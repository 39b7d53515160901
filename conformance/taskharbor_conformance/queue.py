"""Queues: pausing stops reserve and nothing else."""

from __future__ import annotations

from taskharbor.driver import QueueInfo, QueueList
from taskharbor.job import JobState, new_token
from taskharbor_conformance.bench import (
    HOUR,
    SECOND,
    Bench,
    burial,
    failure,
    release,
    stray,
    success,
)
from taskharbor_conformance.case import case


async def _queues(bench: Bench) -> dict[str, QueueInfo]:
    return {queue.name: queue for queue in await bench.store.queue_list(QueueList(now=bench.now))}


@case("4.15")
async def a_paused_queue_is_not_reserved_from(bench: Bench) -> None:
    job_id = await bench.enqueue(queue="mail")
    await bench.pause("mail")

    reservation = await bench.reserve(queues=["mail"])

    assert ([], None) == (list(reservation.deliveries), reservation.next_due_in)
    assert JobState.READY == await bench.state(job_id), "its jobs stay what they are"


@case("4.15")
async def a_paused_queue_holds_up_no_other(bench: Bench) -> None:
    await bench.enqueue(queue="mail", priority=0)
    other = await bench.enqueue(queue="video")
    await bench.pause("mail")

    assert [other] == await bench.take_ids(queues=["mail", "video"])


@case("4.15")
async def a_resumed_queue_goes_on_where_it_was(bench: Bench) -> None:
    first = await bench.enqueue()
    await bench.pause("default")
    bench.advance(SECOND)
    second = await bench.enqueue()
    urgent = await bench.enqueue(priority=1)

    await bench.resume("default")

    assert [urgent, first, second] == await bench.take_ids()


@case("4.15")
async def a_paused_queue_is_enqueued_into_and_its_time_goes_on(bench: Bench) -> None:
    await bench.pause("default")

    job_id = await bench.enqueue(run_in=HOUR)
    bench.advance(HOUR)
    state = await bench.state(job_id)
    await bench.resume("default")

    assert JobState.READY == state
    assert [job_id] == await bench.take_ids()


@case("4.15")
async def a_pause_leaves_running_jobs_alone(bench: Bench) -> None:
    ids = [await bench.enqueue() for _ in range(3)]
    token = new_token()
    first, second, third = await bench.take(token=token)
    await bench.pause("default")

    kept = await bench.extend(first)
    again = await bench.take_ids(token=token)
    states = await bench.settle(success(first), failure(second), release(third))

    assert ([], ids) == (list(kept.lost), sorted(again))
    assert [JobState.SUCCEEDED, JobState.READY, JobState.READY] == states
    assert [] == await bench.take_ids(), "what comes back waits for the resume"


@case("4.15", "4.5")
async def crashed_workers_jobs_of_a_paused_queue_are_reclaimed(bench: Bench) -> None:
    job_id = await bench.enqueue()
    await bench.take_one()
    await bench.pause("default")

    reclaimed = await bench.lose_workers()

    assert [job_id] == [job.job_id for job in reclaimed]
    assert [] == await bench.take_ids()


@case("4.15")
async def jobs_of_a_paused_queue_can_be_cancelled_requeued_and_deleted(bench: Bench) -> None:
    first, second = await bench.enqueue(), await bench.enqueue()
    await bench.pause("default")

    await bench.cancel(first)
    await bench.requeue(first)
    await bench.delete(second)
    await bench.resume("default")

    assert [first] == await bench.take_ids()


@case("4.15")
async def several_queues_are_paused_and_resumed_at_once(bench: Bench) -> None:
    ids = [await bench.enqueue(queue=queue) for queue in ("a", "b", "c")]
    await bench.pause("a", "b")

    paused = await bench.take_ids(queues=["a", "b", "c"])
    await bench.resume("a", "b")

    assert ([ids[2]], ids[:2]) == (paused, await bench.take_ids(queues=["a", "b", "c"]))


@case("4.15")
async def a_pause_is_listed_with_who_asked_when_and_why(bench: Bench) -> None:
    await bench.pause("mail", by="ada", reason="server moves")

    queue = (await _queues(bench))["mail"]

    assert (True, bench.now) == (queue.paused, queue.paused_at)
    assert ("ada", "server moves") == (queue.paused_by, queue.reason)


@case("4.15")
async def pausing_again_keeps_the_first_instant(bench: Bench) -> None:
    await bench.pause("mail", by="ada")
    first = bench.now
    bench.advance(HOUR)

    await bench.pause("mail", by="bob")

    assert first == (await _queues(bench))["mail"].paused_at


@case("4.15")
async def a_queue_may_be_paused_before_anything_was_put_in_it(bench: Bench) -> None:
    await bench.pause("later")

    await bench.enqueue(queue="later")

    assert [] == await bench.take_ids(queues=["later"])


@case("4.15")
async def resuming_a_queue_that_is_not_paused_changes_nothing(bench: Bench) -> None:
    job_id = await bench.enqueue()

    await bench.resume("default", "never seen")

    assert ["default"] == await bench.queue_names()
    assert [job_id] == await bench.take_ids()


@case("4.15")
async def queues_with_live_jobs_or_a_pause_are_listed_by_name(bench: Bench) -> None:
    done = await bench.enqueue(queue="done", priority=0)
    await bench.settle(success(await bench.take_one(queues=["done"])))
    for queue in ("video", "mail"):
        await bench.enqueue(queue=queue)
    await bench.pause("paused", "resumed")
    await bench.resume("resumed")

    names = await bench.queue_names()

    assert ["mail", "paused", "video"] == names
    assert JobState.SUCCEEDED == await bench.state(done)


@case("4.15")
async def a_queue_is_listed_with_what_is_in_it(bench: Bench) -> None:
    for number in range(7):
        await bench.enqueue(queue="mail", priority=0, payload=b"%d" % number)
    running, retrying, dead, done, parked, *_ = await bench.take(7, queues=["mail"])
    await bench.settle(failure(retrying, HOUR), burial(dead), success(done), stray(parked))
    await bench.enqueue(queue="mail", run_in=HOUR)
    for _ in range(4):
        await bench.enqueue(queue="mail")
    await bench.enqueue(queue="video")

    queue = (await _queues(bench))["mail"]

    assert JobState.RUNNING == await bench.state(running.id)
    assert (4, 2, 1, 3, False) == (queue.ready, queue.scheduled, queue.parked, queue.running, queue.paused)
