"""What a driver says it can do beyond the verbs, tried only on those who say so; and what all drivers are."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta

from taskharbor.driver import (
    BlockingDriver,
    CancelStatus,
    Capability,
    Driver,
    EnqueueStatus,
    JobCancel,
    JobEnqueue,
    JobGet,
    MigratingDriver,
)
from taskharbor.job import JobState
from taskharbor.settlement import SettleStatus
from taskharbor_conformance.bench import (
    HOUR,
    UNKNOWN,
    Bench,
    Doorbell,
    burial,
    failure,
    new_job,
    release,
    success,
)
from taskharbor_conformance.case import case

DURABLE, SHARED, BLOCKING = Capability.DURABLE, Capability.SHARED, Capability.BLOCKING
MIGRATIONS = Capability.MIGRATIONS


@case("4.1")
async def a_driver_says_what_it_is(bench: Bench) -> None:
    driver = bench.driver

    assert driver.name
    assert driver.capabilities <= frozenset(Capability)
    assert driver.poll_interval > timedelta(0)
    assert BLOCKING not in driver.capabilities or isinstance(driver, BlockingDriver)


@case("4.1")
async def all_stores_of_one_driver_are_one_place(bench: Bench) -> None:
    job_id = await bench.enqueue()

    async with bench.beside() as other:
        delivery = await other.take_one()
    states = await bench.settle(success(delivery))

    assert job_id == delivery.id
    assert [JobState.SUCCEEDED] == states


# --- blocking


@case("4.1", needs=BLOCKING)
async def a_blocking_producer_enqueues_looks_up_and_cancels(bench: Bench) -> None:
    driver = bench.driver
    assert isinstance(driver, BlockingDriver)
    jobs = [new_job(), new_job(run_in=HOUR)]
    ids = [job.id for job in jobs]

    def produce() -> tuple[list[EnqueueStatus], list[JobState | None], list[CancelStatus]]:
        with driver.connect_blocking() as store:
            enqueued = store.job_enqueue(JobEnqueue(jobs=jobs, now=bench.now))
            records = store.job_get(JobGet(ids=[*ids, UNKNOWN], now=bench.now))
            cancelled = store.job_cancel(JobCancel(ids=ids[1:], reason="why", by="ada", now=bench.now))
        return (
            [answer.status for answer in enqueued],
            [None if record is None else record.state for record in records],
            list(cancelled),
        )

    enqueued, states, cancelled = await asyncio.to_thread(produce)

    assert [EnqueueStatus.CREATED] * 2 == enqueued
    assert [JobState.READY, JobState.SCHEDULED, None] == states
    assert [CancelStatus.CANCELLED] == cancelled
    assert [ids[0]] == await bench.take_ids()
    assert "why" == (await bench.record(ids[1])).reason


@case("4.9", needs=BLOCKING)
async def a_blocking_producer_meets_the_same_keys(bench: Bench) -> None:
    driver = bench.driver
    assert isinstance(driver, BlockingDriver)
    first = await bench.enqueue(key="k")

    def produce() -> list[tuple[EnqueueStatus, str]]:
        with driver.connect_blocking() as store:
            jobs = [new_job(key="k"), new_job(key="k", digest=b"other")]
            return [(a.status, a.job_id) for a in store.job_enqueue(JobEnqueue(jobs=jobs, now=bench.now))]

    answers = await asyncio.to_thread(produce)

    assert [(EnqueueStatus.EXISTING, first), (EnqueueStatus.CONFLICT, first)] == answers


@case("4.10", needs=BLOCKING)
async def a_blocking_producer_wakes_workers(bench: Bench) -> None:
    driver = bench.driver
    assert isinstance(driver, BlockingDriver)
    bell = Doorbell()
    subscription = driver.watch_queues(["default"], bell)

    def produce() -> None:
        with driver.connect_blocking() as store:
            store.job_enqueue(JobEnqueue(jobs=[new_job()], now=bench.now))

    await asyncio.to_thread(produce)

    await bell.wait()
    subscription.close()


@case("4.1", needs=BLOCKING)
async def a_blocking_store_may_be_used_by_many_threads(bench: Bench) -> None:
    driver = bench.driver
    assert isinstance(driver, BlockingDriver)
    jobs = [new_job() for _ in range(40)]

    with driver.connect_blocking() as store:
        requests = [JobEnqueue(jobs=[job], now=bench.now) for job in jobs]
        await asyncio.gather(*(asyncio.to_thread(store.job_enqueue, request) for request in requests))

    assert [job.id for job in jobs] == await bench.find_ids()


# --- durable


@case("4.1", "4.2", "4.7", needs=DURABLE)
async def jobs_survive_a_restart_in_every_state(bench: Bench) -> None:
    ids = [await bench.enqueue(payload=b"%d" % number, priority=0) for number in range(5)]
    ids += [await bench.enqueue(run_in=HOUR), await bench.enqueue()]
    _, retrying, succeeded, dead, unwanted = await bench.take(5)
    await bench.settle(failure(retrying, HOUR), success(succeeded, b"result"), burial(dead))
    await bench.cancel(unwanted.id, reason="not needed", by="ada")
    before = await bench.get(*ids)

    await bench.restart()

    assert before == await bench.get(*ids)
    assert [ids[-1]] == await bench.take_ids()


@case("4.2", "4.3", needs=DURABLE)
async def leases_survive_a_restart(bench: Bench) -> None:
    held = await bench.enqueue()
    delivery = await bench.take_one()
    settled = await bench.enqueue()
    done = await bench.take_one()
    await bench.settle(release(done))
    await bench.start(delivery)

    await bench.restart()

    (already,) = await bench.answers(release(done))
    kept = await bench.extend(delivery)
    assert [settled] == await bench.take_ids(), "what was leased is still leased"
    assert (SettleStatus.ALREADY, []) == (already.status, list(kept.lost))
    assert (await bench.record(held)).started
    assert [JobState.SUCCEEDED] == await bench.settle(success(delivery))


@case("4.9", "4.15", needs=DURABLE)
async def keys_and_pauses_survive_a_restart(bench: Bench) -> None:
    first = await bench.enqueue(key="k")
    await bench.pause("default")

    await bench.restart()

    (duplicate,) = await bench.enqueue_all(new_job(key="k"))
    assert (EnqueueStatus.EXISTING, first) == (duplicate.status, duplicate.job_id)
    assert [] == await bench.take_ids()


# --- shared


@contextmanager
def _second(bench: Bench) -> Generator[Driver]:
    """Open the place a second time, as another process does."""
    driver = bench.open_driver()
    try:
        yield driver
    finally:
        driver.close()


@case("4.1", "4.2", "4.3", needs=SHARED)
async def what_one_process_enqueues_another_runs(bench: Bench) -> None:
    job_id = await bench.enqueue(payload=b"from the first")

    with _second(bench) as driver:
        async with bench.beside(driver) as other:
            delivery = await other.take_one()
            taken = await bench.take_ids()
            await other.settle(success(delivery, b"from the second"))

    assert (job_id, b"from the first", []) == (delivery.id, delivery.payload, taken)
    assert b"from the second" == (await bench.record(job_id)).result


@case("4.2", "4.1", needs=SHARED)
async def several_processes_reserving_at_once_run_every_job_once(bench: Bench) -> None:
    jobs = [new_job() for _ in range(100)]
    await bench.enqueue_all(*jobs)

    async def drain(store: Bench) -> list[str]:
        done: list[str] = []
        for _ in range(len(jobs)):
            deliveries = await store.take(3)
            await store.settle(*map(success, deliveries))
            done += [delivery.id for delivery in deliveries]
        return done

    with _second(bench) as driver:
        async with bench.beside(driver) as other:
            first, second = await asyncio.gather(drain(bench), drain(other))

    assert [job.id for job in jobs] == sorted(first + second)


@case("4.10", needs=SHARED)
async def wake_ups_cross_from_one_process_to_another(bench: Bench) -> None:
    queue_bell, job_bell = Doorbell(), Doorbell()
    with _second(bench) as driver:
        async with bench.beside(driver) as other:
            watching = driver.watch_queues(["default"], queue_bell)
            job_id = await bench.enqueue()
            await queue_bell.wait()
            watching.close()

            waiting = bench.driver.watch_jobs([job_id], job_bell)
            await other.finish(job_id)
            await job_bell.wait()
            waiting.close()


# --- migrations


@case("4.1", needs=MIGRATIONS)
async def a_store_that_was_opened_has_the_tables_wanted(bench: Bench) -> None:
    driver = bench.driver
    assert isinstance(driver, MigratingDriver)

    version, ran = await asyncio.to_thread(lambda: (driver.schema_version(), driver.migrate()))

    assert (version.wanted, []) == (version.present, list(ran))
    assert version.wanted == driver.migrations[-1].number


@case("4.1", needs=MIGRATIONS)
async def migrations_are_numbered_from_one_without_a_gap(bench: Bench) -> None:
    driver = bench.driver
    assert isinstance(driver, MigratingDriver)

    assert list(range(1, len(driver.migrations) + 1)) == [one.number for one in driver.migrations]
    assert all(one.name and one.statements for one in driver.migrations)


@case("4.1", needs=MIGRATIONS)
async def migrating_leaves_the_jobs_as_they_are(bench: Bench) -> None:
    driver = bench.driver
    assert isinstance(driver, MigratingDriver)
    job_id = await bench.enqueue()
    before = await bench.record(job_id)

    await asyncio.to_thread(driver.migrate)

    assert before == await bench.record(job_id)
