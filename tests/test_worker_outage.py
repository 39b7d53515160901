"""When the store is away, or its answer is lost: no job is lost, none runs twice for it, and the worker goes on."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from taskharbor import Harbor, JobState, Registry, Retry, StoreUnavailable, task
from taskharbor.driver import JobReserve, LeaseReclaim
from tests.support.work import (
    ENOUGH,
    LEASE,
    MS,
    Trouble,
    TroubledDriver,
    await_event,
    eventually,
    fails,
    running,
)

ONCE = Retry(max_attempts=1)


def everywhere(verbs: list[str], *, answered: bool) -> list[tuple[str, bool]]:
    return [(verb, answered) for verb in verbs]


VERBS = ["job_reserve", "job_settle", "lease_extend", "lease_reclaim", "history_prune", "worker_forget"]


@pytest.mark.parametrize(
    ("verb", "answered"), everywhere(VERBS, answered=False) + everywhere(VERBS, answered=True)
)
def test_a_cut_connection_neither_loses_a_job_nor_runs_it_twice(verb: str, answered: bool) -> None:
    """Cut before the verb was carried out, or after it was and before its answer came."""
    registry, ran, lock = Registry(), list[int](), threading.Lock()
    driver = TroubledDriver()

    @task(registry=registry)
    async def on_loop(number: int) -> None:
        with lock:
            ran.append(number)

    @task(registry=registry, retry=ONCE)
    def guarded(number: int) -> None:
        with lock:
            ran.append(number)

    with Harbor(driver, registry=registry) as harbor:
        harbor.enqueue_many([(guarded if number % 3 == 0 else on_loop).s(number) for number in range(30)])
        trouble = fails(2, verb)
        if answered:
            driver.after = trouble
        else:
            driver.before = trouble
        counts = harbor.run_until_idle(concurrency=4, prefetch=3)

        assert running(harbor) == []
        assert sorted(ran) == list(range(30))
        # Guarded jobs for which there was no slot yet were handed back.
        assert counts.settled.pop("ready", 0) >= 0
        assert counts.settled == {"succeeded": 30}


def test_a_reserve_whose_answer_was_lost_is_repeated_with_its_token() -> None:
    """So the store gives the same jobs again, and no second lease is made."""
    registry, driver = Registry(), TroubledDriver()

    @task(registry=registry)
    async def work() -> None:
        """End at once."""

    with Harbor(driver, registry=registry) as harbor:
        work.enqueue()
        driver.after = fails(1, "job_reserve")
        harbor.run_until_idle()
        tokens = [request.token for _, request in driver.asked if isinstance(request, JobReserve)]

    assert tokens[0] == tokens[1]
    assert len(set(tokens[1:])) == len(tokens) - 1


def test_an_enqueue_that_failed_is_told_to_the_caller() -> None:
    """Whether it was carried out is not known; the same key makes asking again safe."""
    registry, driver = Registry(), TroubledDriver()

    @task(registry=registry)
    async def work() -> str:
        return "once"

    with Harbor(driver, registry=registry) as harbor:
        driver.after = fails(1, "job_enqueue")
        with pytest.raises(StoreUnavailable):
            work.options(key="order-1").enqueue()
        job = work.options(key="order-1").enqueue()
        harbor.run_until_idle()

        assert not job.created
        assert job.result() == "once"
        assert len(harbor.jobs.find()) == 1


def test_a_worker_that_cannot_reach_the_store_at_first_says_so() -> None:
    """Starting is refused, nothing is left behind, and a later worker starts."""
    registry, driver = Registry(), TroubledDriver()

    @task(registry=registry)
    async def work() -> str:
        return "fine"

    with Harbor(driver, registry=registry) as harbor:
        driver.before = fails(1, "worker_announce")
        with pytest.raises(StoreUnavailable), harbor.worker_thread():
            pytest.fail("it started")
        with harbor.worker_thread():
            assert work.enqueue().result(ENOUGH) == "fine"


def test_a_worker_outlives_an_outage_of_everything() -> None:
    """What was running is settled afterwards, and what waited runs."""
    registry, driver = Registry(), TroubledDriver()
    started, go_on, away = threading.Event(), threading.Event(), threading.Event()

    @task(registry=registry)
    def work(first: bool) -> str:
        if first:
            started.set()
            go_on.wait(20)
        return "done"

    def outage(verb: str, request: object) -> None:
        if away.is_set():
            raise StoreUnavailable("away")

    with Harbor(driver, registry=registry) as harbor, harbor.worker_thread(lease=LEASE):
        job, other = work.enqueue(first=True), work.options(run_in=300 * MS).enqueue(first=False)
        await_event(started)
        driver.before = outage
        away.set()
        go_on.set()
        refused = len(driver.asked)
        eventually(lambda: len(driver.asked) > refused + 6, "several refusals")
        away.clear()

        assert job.result(ENOUGH) == "done"
        assert other.result(ENOUGH) == "done"
        assert (job.status().attempt, job.status().errors) == (1, ())


@pytest.mark.parametrize("verb", ["job_settle", "job_reserve", "lease_extend", "worker_forget", ""])
def test_a_stop_ends_while_the_store_is_down(verb: str) -> None:
    """What could not be written is left to the leases' expiry; nobody waits for ever."""
    registry, driver = Registry(), TroubledDriver()
    started, away = threading.Event(), threading.Event()

    @task(registry=registry)
    async def work() -> None:
        started.set()
        await asyncio.Event().wait()

    def outage(asked: str, request: object) -> None:
        if away.is_set() and asked in (verb or asked):
            raise StoreUnavailable("away")

    driver.before = outage
    with Harbor(driver, registry=registry) as harbor:
        with harbor.worker_thread(lease=LEASE, grace=0 * MS, halt=100 * MS):
            work.enqueue()
            await_event(started)
            away.set()
            began = time.monotonic()
        assert time.monotonic() - began < 10
        away.clear()
        # A later worker takes over what could not be handed back.
        started.clear()
        with harbor.worker_thread(lease=LEASE, grace=0 * MS, halt=100 * MS):
            await_event(started)


@pytest.mark.parametrize("verb", ["job_settle", "job_reserve", "worker_forget"])
def test_a_stop_ends_while_the_store_does_not_even_refuse(verb: str) -> None:
    """A store that answers nothing at all is waited for no longer than one that refuses."""
    registry, driver = Registry(), TroubledDriver()
    started = threading.Event()

    @task(registry=registry)
    async def work() -> None:
        started.set()
        await asyncio.Event().wait()

    async def never() -> None:
        await asyncio.Event().wait()

    with Harbor(driver, registry=registry) as harbor:
        ended = threading.Event()
        work.enqueue()

        def hold() -> None:
            with harbor.worker_thread(lease=LEASE, grace=0 * MS, halt=100 * MS, concurrency=2):
                await_event(started)
                driver.gates[verb] = never
                if verb == "job_reserve":
                    asked = driver.count("job_reserve")
                    eventually(lambda: driver.count("job_reserve") > asked)
            ended.set()

        threading.Thread(target=hold, daemon=True).start()
        assert ended.wait(10), "it waits for ever"
        driver.gates.clear()


def test_jobs_of_a_lost_lease_are_not_settled_and_counted_as_stale() -> None:
    """Somebody else has them now: whatever became of them here changes nothing."""
    registry, driver = Registry(), TroubledDriver()
    started, go_on = threading.Event(), threading.Event()

    @task(registry=registry)
    def work() -> str:
        started.set()
        try:
            go_on.wait(20)
        finally:
            pass
        return "too late"

    with Harbor(driver, registry=registry) as harbor:
        with harbor.worker_thread() as thread:
            job = work.options(retry=Retry(max_attempts=1)).enqueue()
            await_event(started)

            async def take() -> None:
                async with driver.memory.connect() as store:
                    await store.lease_reclaim(
                        LeaseReclaim(observed=timedelta(days=2), now=datetime.now(UTC) + timedelta(days=1))
                    )

            asyncio.run(take())
            assert job.status().state is JobState.DEAD
            go_on.set()
            eventually(lambda: thread.worker.counts.stale == 1, "the stale settle")
        assert job.status().state is JobState.DEAD
        assert job.status().errors[-1].type == "taskharbor.WorkerLost"


def test_trouble_at_random_calls_loses_nothing() -> None:
    """Every verb fails now and then, before or after it was carried out."""
    registry, ran, lock = Registry(), list[int](), threading.Lock()
    driver, chance = TroubledDriver(), random.Random(7)

    @task(registry=registry)
    async def work(number: int) -> None:
        with lock:
            ran.append(number)

    def sometimes(verb: str, request: object) -> None:
        if chance.random() < 0.15:
            raise StoreUnavailable("now and then")

    with Harbor(driver, registry=registry) as harbor:
        harbor.enqueue_many([work.s(number) for number in range(200)])
        trouble: Trouble = sometimes
        with harbor.worker_thread(concurrency=5, prefetch=2):
            driver.before = driver.after = trouble
            eventually(lambda: len(set(ran)) == 200, "every run")
            driver.before = driver.after = fails(0)
            eventually(lambda: running(harbor) == [], "every settle")

        assert sorted(ran) == list(range(200))
        assert {job.state for job in harbor.jobs.find(limit=1000)} == {JobState.SUCCEEDED}
