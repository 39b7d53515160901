"""Many at once: several stores, several event loops in several threads, one place."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from taskharbor.driver import CancelStatus, EnqueueStatus
from taskharbor.job import JobState
from taskharbor.settlement import SettleStatus
from taskharbor_conformance.bench import LEASE, NOW, Bench, failure, new_job, release, success
from taskharbor_conformance.case import case

STORES = 6
JOBS = 240
EMPTY = 5
"""A worker stops after so many reserves in a row that found nothing."""

Work = Callable[[Bench, int], Awaitable[list[str]]]


async def _side_by_side(bench: Bench, work: Work) -> list[list[str]]:
    """Let each of several stores do the work at the same time, on this event loop."""
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(bench.beside()) for _ in range(STORES)]
        return list(await asyncio.gather(*(work(store, number) for number, store in enumerate(stores))))


async def in_threads(bench: Bench, work: Work) -> list[list[str]]:
    """Let each of several threads do the work at the same time, each with an event loop and a store of its own."""

    async def with_store(number: int) -> list[str]:
        async with bench.beside() as store:
            return await work(store, number)

    def thread(number: int) -> list[str]:
        return asyncio.run(with_store(number))

    return list(await asyncio.gather(*(asyncio.to_thread(thread, number) for number in range(STORES))))


async def _drain(bench: Bench, number: int) -> list[str]:
    """Reserve and settle in small batches, as a worker does, and return the ids of what succeeded."""
    done: list[str] = []
    empty = 0
    while empty < EMPTY:
        deliveries = await bench.take(1 + number % 7, worker=f"worker-{number}")
        empty = 0 if deliveries else empty + 1
        if deliveries:
            await bench.settle(*map(success, deliveries))
        done += [delivery.id for delivery in deliveries]
        await asyncio.sleep(0)
    return done


async def _each_ran_once(bench: Bench, ids: list[str], done: list[list[str]]) -> None:
    ran = Counter(job_id for ids_of_one in done for job_id in ids_of_one)
    twice = [job_id for job_id, times in ran.items() if times > 1]
    assert [] == twice, "no job is reserved twice"
    assert sorted(ids) == sorted(ran), "no job is left"
    assert ids == await bench.find_ids(JobState.SUCCEEDED)
    assert {1} == {record.deliveries for record in await bench.get(*ids) if record is not None}


@case("4.2", "4.1")
async def many_reserving_at_once_run_every_job_once(bench: Bench) -> None:
    jobs = [new_job() for _ in range(JOBS)]
    await bench.enqueue_all(*jobs)

    done = await _side_by_side(bench, _drain)

    await _each_ran_once(bench, [job.id for job in jobs], done)


@case("4.2", "4.1")
async def many_threads_reserving_at_once_run_every_job_once(bench: Bench) -> None:
    jobs = [new_job() for _ in range(JOBS)]
    await bench.enqueue_all(*jobs)

    done = await in_threads(bench, _drain)

    await _each_ran_once(bench, [job.id for job in jobs], done)


@case("4.2", "4.1")
async def jobs_that_come_back_while_others_reserve_are_neither_lost_nor_doubled(bench: Bench) -> None:
    jobs = [new_job() for _ in range(JOBS // 4)]
    await bench.enqueue_all(*jobs)

    async def unsteady(store: Bench, number: int) -> list[str]:
        done: list[str] = []
        empty = 0
        while empty < EMPTY:
            deliveries = await store.take(5)
            empty = 0 if deliveries else empty + 1
            ends = [
                release(delivery)
                if delivery.fence == 1
                else failure(delivery, NOW)
                if delivery.attempt == 1
                else success(delivery)
                for delivery in deliveries
            ]
            await store.settle(*ends)
            done += [delivery.id for delivery in deliveries if delivery.fence > 1 and delivery.attempt > 1]
            await asyncio.sleep(0)
        return done

    done = await in_threads(bench, unsteady)
    done.append(await _drain_rest(bench))

    ran = Counter(job_id for ids in done for job_id in ids)
    assert {job.id: 1 for job in jobs} == ran
    records = [record for record in await bench.get(*(job.id for job in jobs)) if record is not None]
    assert {(3, 2, 1)} == {(r.deliveries, r.attempt, len(r.errors)) for r in records}


async def _drain_rest(bench: Bench) -> list[str]:
    """Bring what is left to its end: all others may have stopped while the last jobs were on their way back."""
    done: list[str] = []
    for _ in range(3 * JOBS):
        for delivery in await bench.take():
            if delivery.fence == 1:
                await bench.settle(release(delivery))
            elif delivery.attempt == 1:
                await bench.settle(failure(delivery))
            else:
                await bench.settle(success(delivery))
                done.append(delivery.id)
    return done


@case("4.1")
async def jobs_enqueued_while_others_reserve_are_all_delivered(bench: Bench) -> None:
    jobs = [[new_job() for _ in range(JOBS // STORES)] for _ in range(STORES)]

    async def produce_and_drain(store: Bench, number: int) -> list[str]:
        done: list[str] = []
        for job in jobs[number]:
            await store.enqueue_all(job)
            deliveries = await store.take(2)
            await store.settle(*map(success, deliveries))
            done += [delivery.id for delivery in deliveries]
        return done

    done = await in_threads(bench, produce_and_drain)
    done.append(await _drain(bench, 0))

    await _each_ran_once(bench, sorted(job.id for of_one in jobs for job in of_one), done)


@case("4.9")
async def of_many_enqueues_with_one_key_at_once_one_stores_its_job(bench: Bench) -> None:
    async def same_keys(store: Bench, number: int) -> list[str]:
        answers = [(await store.enqueue_all(new_job(key=f"k{key}")))[0] for key in range(10)]
        return [answer.status for answer in answers] + [answer.job_id for answer in answers]

    told = await in_threads(bench, same_keys)

    created = sum(status == EnqueueStatus.CREATED for answers in told for status in answers[:10])
    stored = await bench.find_ids()
    assert (10, 10) == (created, len(stored))
    for answers in told:
        assert stored == sorted(answers[10:]), "everybody is told the job that was stored"


@case("4.3")
async def of_many_settles_of_one_delivery_at_once_one_is_written(bench: Bench) -> None:
    job_id = await bench.enqueue()
    delivery = await bench.take_one()

    async def settle(store: Bench, number: int) -> list[str]:
        return [answer.status for answer in await store.answers(failure(delivery))]

    told = Counter(status for statuses in await in_threads(bench, settle) for status in statuses)

    record = await bench.record(job_id)
    assert {SettleStatus.SETTLED: 1, SettleStatus.ALREADY: STORES - 1} == told
    assert (1, 1) == (record.attempt, len(record.errors))


@case("4.5")
async def of_many_reclaims_at_once_each_job_is_taken_back_once(bench: Bench) -> None:
    jobs = [new_job() for _ in range(20)]
    await bench.enqueue_all(*jobs)
    for _ in range(5):
        await bench.take(4)
    bench.advance(2 * LEASE)

    async def reclaim(store: Bench, number: int) -> list[str]:
        return [reclaimed.job_id for reclaimed in await store.reclaim()]

    told = await in_threads(bench, reclaim)

    ids = [job.id for job in jobs]
    assert ids == sorted(job_id for of_one in told for job_id in of_one)
    assert ids == sorted(await bench.take_ids())


@case("4.3", "4.11")
async def a_cancel_and_a_settle_at_once_agree_on_the_end(bench: Bench) -> None:
    ids = [await bench.enqueue() for _ in range(STORES)]
    deliveries = await bench.take()

    async def settle(store: Bench) -> list[str]:
        return [state or "" for state in await store.settle(*map(release, deliveries))]

    async with bench.beside() as one, bench.beside() as two:
        cancelled, settled = await asyncio.gather(one.cancel(*ids), settle(two))

    for job_id, cancel, state in zip(ids, cancelled, settled, strict=True):
        assert cancel in (CancelStatus.REQUESTED, CancelStatus.CANCELLED)
        assert JobState.CANCELLED == await bench.state(job_id), (cancel, state)
