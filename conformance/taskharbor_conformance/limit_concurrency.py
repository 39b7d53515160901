"""Many at once under limits: several stores and threads that reserve and settle, and nobody ever above."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable

from taskharbor.job import Delivery, JobState
from taskharbor.settlement import Settlement
from taskharbor_conformance.bench import HOUR, NOW, TASK, Bench, failure, new_job, release, success
from taskharbor_conformance.case import case
from taskharbor_conformance.concurrency import STORES, in_threads
from taskharbor_conformance.scopes import (
    BOTH,
    OTHER,
    at_most,
    at_rate,
    limits,
    of_keys,
    of_queue,
    of_task,
    set_limit,
)

ROUNDS = 2000
"""More reserves than any of them needs."""
End = Callable[[Delivery], Settlement]


class _Tally:
    """What is leased for certain: counted up once a reserve has answered, and down before a settlement is asked for.

    So it is never more than what is leased in the store, and above a limit only where the store is.
    """

    def __init__(self, partitions: dict[str, str]) -> None:
        self._partitions = partitions
        self._lock = threading.Lock()
        self._leased: Counter[str] = Counter()
        self.most: Counter[str] = Counter()

    def count(self, deliveries: list[Delivery], change: int) -> None:
        with self._lock:
            for one in deliveries:
                for name in self._names(one):
                    self._leased[name] += change
                    self.most[name] = max(self.most[name], self._leased[name])

    def _names(self, one: Delivery) -> tuple[str, ...]:
        key = self._partitions.get(one.id)
        return ("all", f"task {one.task}", *(() if key is None else (f"key {key}",)))


def _unsteady(one: Delivery) -> Settlement:
    if one.fence == 1:
        return release(one)
    return failure(one, NOW) if one.attempt == 1 else success(one)


async def _drained(bench: Bench, end: End, jobs: dict[str, str], count: int) -> tuple[_Tally, list[str]]:
    """Let several threads reserve and settle until all jobs are done; return what was leased at once, and what ran."""
    tally = _Tally(jobs)
    done: list[str] = []

    async def work(store: Bench, number: int) -> list[str]:
        for _ in range(ROUNDS):
            if len(done) >= count:
                break
            deliveries = await store.take(1 + number % 4, tasks=BOTH, worker=f"worker-{number}")
            tally.count(deliveries, 1)
            await asyncio.sleep(0)
            tally.count(deliveries, -1)
            ends = [end(one) for one in deliveries]
            states = await store.settle(*ends)
            done.extend(
                one.id for one, state in zip(deliveries, states, strict=True) if state is JobState.SUCCEEDED
            )
        return []

    await in_threads(bench, work)
    return tally, done


@case("4.24", "4.2")
async def at_no_instant_do_several_threads_hold_more_than_the_limits_allow(bench: Bench) -> None:
    await set_limit(bench, of_queue(), at_most(6))
    await set_limit(bench, of_task(), at_most(4))
    await set_limit(bench, of_keys(), at_most(2))
    jobs = [new_job(partition=f"k{number % 5}") for number in range(90)]
    others = [new_job(task=OTHER) for _ in range(30)]
    await bench.enqueue_all(*jobs, *others)

    partitions = {job.id: job.partition or "" for job in jobs}
    tally, done = await _drained(bench, success, partitions, len(jobs) + len(others))

    assert tally.most["all"] <= 6
    assert tally.most[f"task {TASK}"] <= 4
    assert all(count <= 2 for name, count in tally.most.items() if name.startswith("key "))
    assert sorted(job.id for job in (*jobs, *others)) == sorted(done), "each once, and none is lost"
    assert {0} == {record.running for record in (await limits(bench)).values()}


@case("4.24", "4.25", "4.2")
async def jobs_that_come_back_while_others_reserve_stay_under_their_limits(bench: Bench) -> None:
    await set_limit(bench, of_keys(), at_most(1))
    jobs = [new_job(partition=f"k{number % 4}") for number in range(40)]
    await bench.enqueue_all(*jobs)

    partitions = {job.id: job.partition or "" for job in jobs}
    tally, done = await _drained(bench, _unsteady, partitions, len(jobs))

    assert all(count <= 1 for name, count in tally.most.items() if name.startswith("key "))
    assert sorted(partitions) == sorted(done)


@case("4.24", "4.2")
async def several_threads_take_a_burst_once(bench: Bench) -> None:
    await set_limit(bench, of_task(), at_rate(1, HOUR, burst=10))
    await set_limit(bench, of_keys(), at_rate(1, HOUR, burst=3))
    jobs = [new_job(partition=f"k{number % 5}") for number in range(60)]
    await bench.enqueue_all(*jobs)

    async def take(store: Bench, number: int) -> list[str]:
        return [job_id for _ in range(8) for job_id in await store.take_ids(1 + number % 3)]

    taken = [job_id for ids in await in_threads(bench, take) for job_id in ids]

    partitions = {job.id: job.partition for job in jobs}
    assert (10, 10) == (len(taken), len(set(taken)))
    assert max(Counter(partitions[job_id] for job_id in taken).values()) <= 3
    assert STORES > 1
