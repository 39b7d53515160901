"""Wake-ups: they may come for nothing, but when something did change, one comes.

The contract lets one get lost now and then, since everybody looks again by itself; here, where nothing is cut, each is
expected to arrive.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from taskharbor_conformance.bench import (
    HOUR,
    Bench,
    Doorbell,
    burial,
    cancellation,
    failure,
    new_job,
    release,
    snooze,
    stray,
    success,
)
from taskharbor_conformance.case import case


@asynccontextmanager
async def _queue_woken(bench: Bench, *queues: str) -> AsyncGenerator[Doorbell]:
    """Expect that what the block does wakes those who watch these queues."""
    bell = Doorbell()
    subscription = bench.driver.watch_queues(queues or ("default",), bell)
    try:
        yield bell
        await bell.wait()
    finally:
        subscription.close()


@asynccontextmanager
async def _job_woken(bench: Bench, *job_ids: str) -> AsyncGenerator[Doorbell]:
    """Expect that what the block does wakes those who wait for these jobs."""
    bell = Doorbell()
    subscription = bench.driver.watch_jobs(job_ids, bell)
    try:
        yield bell
        await bell.wait()
    finally:
        subscription.close()


# --- queues


@case("4.10")
async def an_enqueue_wakes_its_queue(bench: Bench) -> None:
    async with _queue_woken(bench):
        await bench.enqueue()


@case("4.10")
async def a_scheduled_job_wakes_its_queue_as_it_may_be_due_earlier_than_was_told(bench: Bench) -> None:
    async with _queue_woken(bench):
        await bench.enqueue(run_in=HOUR)


@case("4.10")
async def any_of_the_queues_watched_wakes(bench: Bench) -> None:
    for queue in ("mail", "video"):
        async with _queue_woken(bench, "mail", "video"):
            await bench.enqueue(queue=queue)


@case("4.10")
async def one_batch_wakes_every_queue_it_touches(bench: Bench) -> None:
    async with _queue_woken(bench, "mail"), _queue_woken(bench, "video"):
        await bench.enqueue_all(new_job(queue="mail"), new_job(queue="video"))


@case("4.6")
async def a_retry_wakes_its_queue(bench: Bench) -> None:
    await bench.enqueue()
    delivery = await bench.take_one()

    async with _queue_woken(bench):
        await bench.settle(failure(delivery, after=HOUR))


@case("4.4")
async def a_snooze_wakes_its_queue(bench: Bench) -> None:
    await bench.enqueue()
    delivery = await bench.take_one()

    async with _queue_woken(bench):
        await bench.settle(snooze(delivery, HOUR))


@case("4.10")
async def a_release_wakes_its_queue(bench: Bench) -> None:
    await bench.enqueue()
    delivery = await bench.take_one()

    async with _queue_woken(bench):
        await bench.settle(release(delivery))


@case("4.16")
async def a_stray_wakes_its_queue_as_another_worker_may_take_it(bench: Bench) -> None:
    await bench.enqueue()
    delivery = await bench.take_one()

    async with _queue_woken(bench):
        await bench.settle(stray(delivery))


@case("4.5")
async def a_reclaim_wakes_the_queues_of_its_jobs(bench: Bench) -> None:
    await bench.enqueue(queue="mail")
    await bench.take_one(queues=["mail"])

    async with _queue_woken(bench, "mail"):
        await bench.lose_workers()


@case("4.7")
async def a_requeue_wakes_its_queue(bench: Bench) -> None:
    job_id = await bench.enqueue()
    await bench.settle(burial(await bench.take_one()))

    async with _queue_woken(bench):
        await bench.requeue(job_id)


@case("4.15")
async def a_resume_wakes_its_queue(bench: Bench) -> None:
    await bench.enqueue()
    await bench.pause("default")

    async with _queue_woken(bench):
        await bench.resume("default")


@case("4.10")
async def everybody_who_watches_a_queue_is_woken(bench: Bench) -> None:
    async with _queue_woken(bench), _queue_woken(bench, "other", "default"):
        await bench.enqueue()


@case("4.10")
async def an_enqueue_from_another_store_wakes_too(bench: Bench) -> None:
    async with bench.beside() as other, _queue_woken(bench):
        await other.enqueue()


@case("4.10")
async def a_wake_up_is_given_again_for_the_next_event(bench: Bench) -> None:
    async with _queue_woken(bench) as bell:
        for _ in range(3):
            bell.reset()
            await bench.enqueue()
            await bell.wait()


@case("4.10")
async def who_stopped_watching_is_not_woken(bench: Bench) -> None:
    bell = Doorbell()
    subscription = bench.driver.watch_queues(["default"], bell)
    subscription.close()
    subscription.close()  # idempotent

    async with _queue_woken(bench):
        await bench.enqueue()

    assert not bell.rung


@case("4.10")
async def one_watcher_that_stops_leaves_the_others(bench: Bench) -> None:
    first = bench.driver.watch_queues(["default"], Doorbell())

    async with _queue_woken(bench):
        first.close()
        await bench.enqueue()


@case("4.10")
async def queues_can_be_watched_from_any_thread(bench: Bench) -> None:
    bell = Doorbell()
    subscription = await asyncio.to_thread(bench.driver.watch_queues, ["default"], bell)

    await bench.enqueue()

    await bell.wait()
    await asyncio.to_thread(subscription.close)


# --- jobs


@case("4.8")
async def a_success_wakes_who_waits_for_the_job(bench: Bench) -> None:
    job_id = await bench.enqueue()
    delivery = await bench.take_one()

    async with _job_woken(bench, job_id):
        await bench.settle(success(delivery))


@case("4.8", "4.7")
async def a_burial_wakes_who_waits_for_the_job(bench: Bench) -> None:
    job_id = await bench.enqueue()
    delivery = await bench.take_one()

    async with _job_woken(bench, job_id):
        await bench.settle(burial(delivery))


@case("4.8", "4.11")
async def a_cancel_carried_out_wakes_who_waits_for_the_job(bench: Bench) -> None:
    job_id = await bench.enqueue()
    delivery = await bench.take_one()

    async with _job_woken(bench, job_id):
        await bench.settle(cancellation(delivery))


@case("4.8", "4.11")
async def a_cancel_at_once_wakes_who_waits_for_the_job(bench: Bench) -> None:
    job_id = await bench.enqueue(run_in=HOUR)

    async with _job_woken(bench, job_id):
        await bench.cancel(job_id)


@case("4.8", "4.4")
async def a_reclaim_that_ends_a_job_wakes_who_waits_for_it(bench: Bench) -> None:
    job_id = await bench.enqueue()
    await bench.take_one()
    await bench.cancel(job_id)

    async with _job_woken(bench, job_id):
        await bench.lose_workers()


@case("4.8")
async def any_of_the_jobs_waited_for_wakes(bench: Bench) -> None:
    ids = [await bench.enqueue() for _ in range(3)]
    deliveries = await bench.take()

    async with _job_woken(bench, *ids) as bell:
        for delivery in deliveries:
            bell.reset()
            await bench.settle(success(delivery))
            await bell.wait()


@case("4.8")
async def a_settle_through_another_store_wakes_too(bench: Bench) -> None:
    job_id = await bench.enqueue()

    async with bench.beside() as other, _job_woken(bench, job_id):
        await other.finish(job_id)


@case("4.8")
async def who_stopped_waiting_for_a_job_is_not_woken(bench: Bench) -> None:
    job_id = await bench.enqueue()
    bell = Doorbell()
    subscription = bench.driver.watch_jobs([job_id], bell)
    subscription.close()
    subscription.close()  # idempotent

    async with _job_woken(bench, job_id):
        await bench.finish(job_id)

    assert not bell.rung
