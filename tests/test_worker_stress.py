"""Everything at once: many producers, several workers, failures, snoozes, cancels, starts and stops."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter

import pytest

from taskharbor import (
    Context,
    Harbor,
    JobHandle,
    JobInterrupt,
    JobState,
    Registry,
    Reject,
    Retry,
    RetryLater,
    Snooze,
    task,
)
from taskharbor.driver import Driver
from taskharbor.drivers.memory import MemoryDriver
from tests.support.work import ENOUGH, LEASE, MS, TroubledDriver, running, states, threads_named

SOON = Retry(max_attempts=6, base=2 * MS, cap=5 * MS)


@pytest.mark.parametrize("bridged", [False, True])
def test_whatever_happens_every_job_ends_and_the_counts_add_up(bridged: bool) -> None:
    """Producers in threads and tasks, workers that come and go, handlers of both colours that misbehave."""
    registry, lock = Registry(), threading.Lock()
    chance = random.Random(11)
    done = Counter[int]()
    odd = list[str]()

    def fate(attempt: int) -> None:
        """Misbehave, less with each attempt."""
        with lock:
            draw = chance.random() * attempt
        if draw < 0.05:
            raise Snooze(for_=2 * MS)
        if draw < 0.10:
            raise RetryLater(after=2 * MS)
        if draw < 0.15:
            raise ValueError("again")
        if draw < 0.16:
            raise Reject("never")
        if draw < 0.17:
            raise SystemExit(1)

    @task(registry=registry, retry=SOON)
    async def on_loop(ctx: Context, number: int) -> int:
        fate(ctx.attempt)
        await asyncio.sleep(0)
        with lock:
            done[number] += 1
        return number

    @task(registry=registry, retry=SOON, queue="threads")
    def in_thread(ctx: Context, number: int) -> int:
        try:
            fate(ctx.attempt)
            for _ in range(3000):  # a while for a cancel to come
                pass
        except JobInterrupt:
            if not ctx.cancelled:
                with lock:
                    odd.append(ctx.job_id)
            raise
        with lock:
            done[number] += 1
        return number

    @task(registry=registry, retry=Retry(max_attempts=1), timeout=50 * MS)
    async def dawdle(number: int) -> int:
        for _ in range(number % 30):
            await asyncio.sleep(0)
        return number

    driver: Driver = TroubledDriver() if bridged else MemoryDriver()
    handles = list[JobHandle[int]]()

    def call(number: int) -> JobHandle[int]:
        kind = (on_loop, in_thread, dawdle)[number % 3]
        return kind.options(priority=number % 10).enqueue(number)

    with Harbor(driver, registry=registry) as harbor:
        harbor.install()

        def produce(start: int) -> None:
            for number in range(start, start + 100):
                job = call(number)
                with lock:
                    handles.append(job)
                    cancel = chance.random() < 0.05
                if cancel:
                    job.cancel("changed its mind")

        async def produce_on_loop() -> None:
            async def one(number: int) -> None:
                job = await on_loop.aenqueue(number)
                with lock:
                    handles.append(job)
                if number % 20 == 0:
                    await job.acancel()

            await asyncio.gather(*(one(number) for number in range(1000, 1300)))

        def come_and_go(start: int) -> None:
            for number in range(start, start + 8):
                with harbor.worker_thread(
                    lease=LEASE, concurrency=4, prefetch=8, grace=5 * MS, halt=1000 * MS
                ):
                    job = on_loop.enqueue(number)
                    job.wait(ENOUGH)
                    with lock:
                        handles.append(job)

        crew = [threading.Thread(target=produce, args=(100 * number,)) for number in range(6)]
        crew.append(threading.Thread(target=lambda: asyncio.run(produce_on_loop())))
        crew.extend(threading.Thread(target=come_and_go, args=(start,)) for start in (2000, 2100))
        with (
            harbor.worker_thread(lease=LEASE, concurrency=5),
            harbor.worker_thread(lease=LEASE, concurrency=3),
        ):
            for thread in crew:
                thread.start()
            for thread in crew:
                thread.join()
            ended = {job.id: job.wait(ENOUGH).state for job in handles}

        assert len(ended) == 916
        assert running(harbor) == []
        assert set(ended.values()) <= {JobState.SUCCEEDED, JobState.DEAD, JobState.CANCELLED}
        assert states(harbor) == {state.value: count for state, count in Counter(ended.values()).items()}
        succeeded = Counter(
            job.task.rpartition(".")[2] for job in harbor.jobs.find(states=[JobState.SUCCEEDED], limit=2000)
        )
        # Run to its end once more only where a stop took the result away: never counted as an attempt.
        assert len(done) >= succeeded["on_loop"] + succeeded["in_thread"]
        for job in harbor.jobs.find(states=[JobState.DEAD], limit=2000):
            assert job.errors, job.id
            assert len(job.errors) == job.attempt or job.reason == "interrupted"
    assert odd == []
    assert threads_named("taskharbor-worker", "taskharbor-leases", "taskharbor-bridge") == []


def test_a_job_is_never_run_by_two_workers_at_once() -> None:
    """While its lease is valid nobody else gets it, however many ask."""
    registry, lock = Registry(), threading.Lock()
    inside, twice = set[int](), list[int]()

    @task(registry=registry, retry=SOON)
    def work(ctx: Context, number: int) -> None:
        with lock:
            if number in inside:
                twice.append(number)
            inside.add(number)
        time.sleep(0)  # an opening for others
        with lock:
            inside.discard(number)
        if ctx.attempt < 3:
            raise ValueError("again")

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        jobs = harbor.enqueue_many([work.s(number) for number in range(300)])
        with (
            harbor.worker_thread(lease=100 * MS, concurrency=4),
            harbor.worker_thread(lease=100 * MS, concurrency=4, prefetch=50),
            harbor.worker_thread(lease=100 * MS, concurrency=4, prefetch=0),
        ):
            for job in jobs:
                assert job.wait(ENOUGH).state is JobState.SUCCEEDED
        assert {job.status().attempt for job in jobs} == {3}
    assert twice == []
