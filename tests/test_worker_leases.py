"""Leases: kept while the loop is blocked, given up when it stalls, and what a worker does when it lost one."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from taskharbor import Context, Harbor, JobState, Registry, Retry, task
from taskharbor.driver import (
    JobCancel,
    JobReserve,
    LeaseExtend,
    LeaseHold,
    LeaseReclaim,
    QueueTake,
    Store,
    WorkerForget,
    WorkerList,
)
from taskharbor.drivers.memory import MemoryDriver
from taskharbor.job import new_token
from taskharbor.worker.leases import Unreported
from tests.fixtures.support import untyped
from tests.support.work import (
    ENOUGH,
    HOUR,
    LEASE,
    MS,
    SECOND,
    TroubledDriver,
    aeventually,
    await_event,
    eventually,
    until,
    within,
)

ONCE = Retry(max_attempts=1)
NO_WAIT = Retry(max_attempts=5, base=0 * MS)


def test_a_loop_that_is_blocked_beyond_the_lease_does_not_lose_its_jobs() -> None:
    """The leases are kept from a thread of their own."""
    registry, blocked, go_on = Registry(), threading.Event(), threading.Event()

    @task(registry=registry)
    async def block() -> str:
        blocked.set()
        go_on.wait(20)
        return "kept"

    with Harbor(MemoryDriver(), registry=registry) as harbor, harbor.worker_thread(lease=LEASE):
        job = block.enqueue()
        await_event(blocked)
        first = harbor.look(job.id).lease_expires_at
        assert first is not None
        # Another worker's upkeep looks all the time.
        with harbor.worker_thread(lease=LEASE, queues=["other"]):
            eventually(lambda: (harbor.look(job.id).lease_expires_at or first) > first + 2 * LEASE)
        go_on.set()

        assert job.result(ENOUGH) == "kept"
        assert harbor.look(job.id).deliveries == 1


def test_a_stalled_worker_in_the_users_process_suspends_and_resumes() -> None:
    """It stops extending, so that others may take its jobs; when the loop turns again it goes on."""
    registry, blocked, go_on = Registry(), threading.Event(), threading.Event()
    runs = list[int]()

    @task(registry=registry, retry=NO_WAIT)
    async def block(ctx: Context) -> str:
        runs.append(ctx.fence)
        if len(runs) == 1:
            blocked.set()
            go_on.wait(20)
        return "done"

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        with harbor.worker_thread(lease=LEASE, stall=150 * MS) as stalled:
            job = block.enqueue()
            await_event(blocked)
            with harbor.worker_thread(lease=LEASE):
                assert job.result(ENOUGH) == "done"
            go_on.set()
            eventually(lambda: stalled.worker.counts.stale == 1, "the stale settle")

            assert block.enqueue().result(ENOUGH) == "done"
        assert runs == [1, 2, 1]


def test_a_stall_is_told_with_the_job_that_blocks_and_those_beside_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """By id and task; what they carry stays out of the log."""
    registry, blocked, beside, go_on = Registry(), threading.Event(), threading.Event(), threading.Event()

    @task(registry=registry, name="blocks")
    async def block(_secret: str) -> None:
        await asyncio.to_thread(await_event, beside)
        blocked.set()
        go_on.wait(20)

    @task(registry=registry, name="waits")
    def wait() -> None:
        beside.set()
        go_on.wait(20)

    with Harbor(MemoryDriver(), registry=registry) as harbor, harbor.worker_thread(stall=150 * MS):
        blocks, waits = block.enqueue("a secret"), wait.enqueue()
        await_event(blocked)
        eventually(lambda: "has been blocked" in caplog.text, "the record of the stall")
        go_on.set()
        for job in (blocks, waits):
            job.wait(ENOUGH)

    (told,) = [line for line in caplog.messages if "has been blocked" in line]
    assert f"It is in the handler of job {blocks.id} (task 'blocks')" in told
    assert f"beside it ran job {waits.id} (task 'waits')" in told
    assert "secret" not in told


_STALLS = """
import threading
from datetime import timedelta
from taskharbor import Harbor, Registry, task

registry = Registry()

@task(registry=registry)
async def a_handler_that_blocks() -> None:
    threading.Event().wait(60)

with Harbor("memory://", registry=registry) as harbor:
    a_handler_that_blocks.enqueue()
    harbor.run_until_idle(owns_process=True, stall=timedelta(milliseconds=200), lease=timedelta(milliseconds=300))
"""


def test_a_stalled_worker_ends_the_process_that_exists_for_it() -> None:
    """With a code that says 'try again', and the stacks of all threads on standard error."""
    ended = subprocess.run(
        [sys.executable, "-c", _STALLS], capture_output=True, text=True, timeout=60, check=False
    )

    assert ended.returncode == 75
    assert "a_handler_that_blocks" in ended.stderr
    assert "has been blocked" in ended.stderr
    assert "(task '__main__.a_handler_that_blocks')" in ended.stderr


def test_an_async_handler_is_told_when_its_lease_was_lost() -> None:
    """It is cancelled; what it does then is settled in vain, and counted as stale."""
    registry = Registry()

    async def main() -> None:
        told, driver = asyncio.Event(), MemoryDriver()

        @task(registry=registry, retry=Retry(max_attempts=5, base=HOUR, jitter=False))
        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                told.set()

        async with Harbor(driver, registry=registry) as harbor, driver.connect() as store:
            async with harbor.worker(lease=LEASE) as worker:
                job = await work.aenqueue()

                async def started() -> bool:
                    return (await harbor.alook(job.id)).started

                await until(started)
                await store.lease_reclaim(LeaseReclaim(observed=HOUR, now=datetime.now(UTC) + SECOND))
                await within(told.wait())
                await aeventually(lambda: worker.counts.stale == 1, "the stale settle")
            record = await harbor.alook(job.id)
            assert (record.state, record.attempt) == (JobState.RETRYING, 1)
            assert [error.type for error in record.errors] == ["taskharbor.WorkerLost"]

    asyncio.run(main())


def test_starts_are_reported_with_the_next_extend() -> None:
    """After a crash a job that had begun is charged for it."""
    registry, started, go_on = Registry(), threading.Event(), threading.Event()

    @task(registry=registry)
    def work() -> None:
        started.set()
        go_on.wait(20)

    with Harbor(MemoryDriver(), registry=registry) as harbor, harbor.worker_thread(lease=LEASE):
        job = work.enqueue()
        await_event(started)
        eventually(lambda: harbor.look(job.id).started, "the report")
        go_on.set()
        job.wait(ENOUGH)


def test_a_handler_that_has_run_for_a_while_is_reported_before_the_next_extend() -> None:
    """So that whoever looks sees it started; each at the cost of one extend, however long its lease."""
    registry, driver, go_on = Registry(), TroubledDriver(), threading.Event()

    @task(registry=registry)
    def in_thread() -> None:
        go_on.wait(20)

    @task(registry=registry)
    async def on_loop() -> None:
        await asyncio.to_thread(go_on.wait, 20)

    with Harbor(driver, registry=registry) as harbor, harbor.worker_thread(lease=HOUR):
        first = in_thread.enqueue()
        eventually(lambda: harbor.look(first.id).started, "the first report")
        second = on_loop.enqueue()
        eventually(lambda: harbor.look(second.id).started, "the second report")
        written = [request for _, request in driver.asked if isinstance(request, LeaseExtend)]
        go_on.set()
        for job in (first, second):
            job.wait(ENOUGH)

    starts = [[job_id for hold in request.leases for job_id in hold.started] for request in written]
    assert [[first.id], [second.id]] == [started for started in starts if started]
    assert 2 == len([request for request in written if request.leases])
    assert len(written) <= 3, "beside them there is the first heartbeat of upkeep"


def test_only_who_is_found_unreported_twice_makes_an_extend_come_early() -> None:
    """Short jobs never do, however many there are, and after a report it begins anew."""
    unreported = Unreported()
    a, b, c = (untyped(object()) for _ in range(3))

    assert not unreported.look([])
    assert not unreported.look([a, b])
    assert not unreported.look([c]), "the others have ended"
    assert not unreported.look([])
    assert not unreported.look([a])
    assert unreported.look([b, a])
    assert not unreported.look([b, a]), "just asked for"
    assert unreported.look([a])


def test_a_job_lost_without_a_known_start_is_told_as_that(caplog: pytest.LogCaptureFixture) -> None:
    """It may have begun: it may be what its worker died of."""
    registry, driver = Registry(), MemoryDriver()

    @task(registry=registry, name="lost")
    async def work() -> None:
        """Succeed."""

    with Harbor(driver, registry=registry) as harbor:
        job = work.enqueue()

        async def lose() -> None:
            async with driver.connect() as store:
                await reserve_as_a_ghost(store)

        asyncio.run(lose())
        with harbor.worker_thread(lease=LEASE):
            job.wait(ENOUGH)

    assert (
        f"job {job.id} (task 'lost', queue 'default') was lost with worker ghost: "
        "no start of it was known, and it is ready again"
    ) in caplog.messages


def test_the_register_knows_a_worker_while_it_works() -> None:
    """Announced at the start, kept by extends, announced again if it was forgotten, gone at the end."""
    registry, driver = Registry(), TroubledDriver()

    def workers() -> list[str]:
        async def ask() -> list[str]:
            async with driver.memory.connect() as store:
                return [info.worker for info in await store.worker_list(WorkerList())]

        return asyncio.run(ask())

    def forget(name: str) -> None:
        async def ask() -> None:
            async with driver.memory.connect() as store:
                await store.worker_forget(WorkerForget(workers=[name]))

        asyncio.run(ask())

    with Harbor(driver, registry=registry) as harbor:
        with harbor.worker_thread(lease=LEASE) as thread:
            assert workers() == [thread.worker.name]
            forget(thread.worker.name)
            eventually(lambda: workers() == [thread.worker.name], "the second announcement")
        assert workers() == []


async def reserve_as_a_ghost(store: Store) -> tuple[int, set[str]]:
    """Reserve everything under a lease that has expired already; return its token and the jobs."""
    token = new_token()
    answer = await store.job_reserve(
        JobReserve(
            queues=[QueueTake("default", 1000)],
            limit=1000,
            lease=0 * MS,
            token=token,
            worker="ghost",
            tasks=frozenset(),
            build="ghost",
            guarded_limit=1000,
            solo=True,
        )
    )
    return token, {delivery.id for delivery in answer.deliveries}


def make_solo(driver: MemoryDriver, ids: list[str]) -> None:
    """Bring jobs, one at a time, into the state that two crashes leave."""

    async def work() -> None:
        async with driver.connect() as store:
            for _ in range(2):
                left = set(ids)
                while left:
                    token, held = await reserve_as_a_ghost(store)
                    assert held
                    await store.lease_extend(
                        LeaseExtend(
                            worker="ghost", leases=[LeaseHold(token, sorted(held & left))], lease=0 * MS
                        )
                    )
                    await store.lease_reclaim(LeaseReclaim(observed=HOUR))
                    left -= held

    asyncio.run(work())


class Gauge:
    """Counts how many are inside at once."""

    def __init__(self) -> None:
        self.inside = 0
        self.most = 0
        self.lock = threading.Lock()

    def __enter__(self) -> None:
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.inside -= 1


def test_guarded_jobs_run_at_any_concurrency() -> None:
    """Their starts are written first, by as many as there are slots."""
    for concurrency in (1, 2, 3):
        registry, driver, gauge = Registry(), TroubledDriver(), Gauge()

        @task(registry=registry, retry=ONCE)
        def work(gauge: int, number: int) -> int:
            with GAUGES[gauge]:
                time.sleep(0)  # an opening for others
            return number

        GAUGES[concurrency] = gauge
        with Harbor(driver, registry=registry) as harbor:
            jobs = harbor.enqueue_many([work.s(concurrency, number) for number in range(60)])
            harbor.run_until_idle(concurrency=concurrency)

            assert [job.result() for job in jobs] == list(range(60))
        assert gauge.most <= concurrency
        written = [hold for verb, request in driver.asked if verb == "lease_extend" for hold in [request]]
        assert written


GAUGES: dict[int, Gauge] = {}


def test_no_solo_job_runs_beside_another() -> None:
    """Those that twice took a worker down with them run one at a time, plain ones beside them."""
    registry, driver, solo, plain = Registry(), MemoryDriver(), Gauge(), Gauge()
    ended, moved, two = list[int](), threading.Condition(), threading.Barrier(2)

    @task(registry=registry, retry=NO_WAIT)
    def risky(number: int) -> int:
        with solo, moved:
            # So long that another would have been started too: plain ones have, if there were any left.
            enough = min(len(ended) + 6, 60)
            assert moved.wait_for(lambda: len(ended) >= enough, ENOUGH.total_seconds())
        return number

    @task(registry=registry)
    def harmless(number: int) -> int:
        with plain:
            two.wait(ENOUGH.total_seconds())
        with moved:
            ended.append(number)
            moved.notify_all()
        return number

    with Harbor(driver, registry=registry) as harbor:
        risks = [risky.enqueue(number) for number in range(8)]
        make_solo(driver, [job.id for job in risks])
        assert {harbor.look(job.id).crashes for job in risks} == {2}
        others = [harmless.enqueue(number) for number in range(60)]
        harbor.run_until_idle(concurrency=5)

        assert [job.result() for job in risks] == list(range(8))
        assert [job.result() for job in others] == list(range(60))
    assert solo.most == 1
    assert plain.most > 1


def test_a_solo_job_that_was_cancelled_before_its_start_does_not_hold_up_the_next() -> None:
    """Its slot is left, and the next of that kind is looked for at once."""
    registry, driver = Registry(), TroubledDriver()
    driver.poll_interval = timedelta(seconds=60)

    @task(registry=registry, retry=NO_WAIT)
    async def risky(number: int) -> int:
        return number

    with Harbor(driver, registry=registry) as harbor:
        first, second = risky.enqueue(1), risky.enqueue(2)
        make_solo(driver.memory, [first.id, second.id])
        cancelled = threading.Event()

        def cancel_the_first(verb: str, request: object) -> None:
            # Between its reserve and the writing of its start.
            if isinstance(request, LeaseExtend) and not cancelled.is_set():
                for hold in request.leases:
                    if first.id in hold.started:
                        cancelled.set()

                        async def cancel() -> None:
                            async with driver.memory.connect() as store:
                                await store.job_cancel(JobCancel(ids=[first.id]))

                        thread = threading.Thread(target=lambda: asyncio.run(cancel()))
                        thread.start()
                        thread.join()

        driver.before = cancel_the_first
        with harbor.worker_thread():
            assert second.result(ENOUGH) == 2
            assert first.wait(ENOUGH).state is JobState.CANCELLED
        assert cancelled.is_set()


def test_guarded_solo_and_plain_jobs_under_load_never_stall_the_worker() -> None:
    """Whatever the reserve ended at, the worker looks again when it can go on."""
    registry, driver = Registry(), MemoryDriver()
    solo = Gauge()

    @task(registry=registry, retry=NO_WAIT)
    async def risky(number: int) -> int:
        with solo:
            await asyncio.sleep(0)
        return number

    @task(registry=registry, retry=ONCE)
    async def guarded(number: int) -> int:
        await asyncio.sleep(0)
        return number

    @task(registry=registry)
    def plain(number: int) -> int:
        return number

    for concurrency in (1, 2, 3):
        with Harbor(driver, registry=registry) as harbor:
            risks = [risky.enqueue(number) for number in range(5)]
            make_solo(driver, [job.id for job in risks])
            with harbor.worker_thread(concurrency=concurrency), harbor.worker_thread(concurrency=concurrency):
                jobs = list(risks)
                jobs += [
                    (guarded if number % 2 else plain).options(priority=number % 10).enqueue(number)
                    for number in range(150)
                ]
                for job in jobs:
                    job.result(ENOUGH)


def test_jobs_lost_unstarted_are_guarded_and_run() -> None:
    """A crash before their start charges nothing."""
    registry, driver = Registry(), MemoryDriver()

    @task(registry=registry)
    async def work(ctx: Context) -> int:
        return ctx.attempt

    with Harbor(driver, registry=registry) as harbor:
        jobs = [work.enqueue() for _ in range(5)]

        async def lose() -> None:
            async with driver.connect() as store:
                await reserve_as_a_ghost(store)
                await store.lease_reclaim(LeaseReclaim(observed=HOUR))

        asyncio.run(lose())
        assert {harbor.look(job.id).guarded for job in jobs} == {True}
        harbor.run_until_idle(concurrency=2)

        assert [job.result() for job in jobs] == [1] * 5
