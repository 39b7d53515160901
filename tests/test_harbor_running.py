"""The harbor at work: each way to run workers, being the current harbor, both colours, bridges and forks."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable

import pytest

from taskharbor import (
    BlockingCallError,
    Harbor,
    JobHandle,
    JobState,
    NoHarborError,
    OptionError,
    Registry,
    ResultTimeout,
    Retry,
    task,
)
from taskharbor.clock import ManualClock
from taskharbor.drivers.memory import MemoryDriver
from tests.support.work import (
    ENOUGH,
    HOUR,
    LEASE,
    MS,
    SECOND,
    TroubledDriver,
    await_event,
    drains_noted,
    threads_named,
    within,
)


def test_run_until_idle_leaves_what_is_due_later() -> None:
    """Idle is: nothing is due now."""
    registry, ran = Registry(), list[str]()

    @task(registry=registry)
    async def work(name: str) -> None:
        ran.append(name)

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        work.enqueue("now")
        work.options(run_in=HOUR).enqueue("late")

        assert harbor.run_until_idle().settled == {"succeeded": 1}
        assert ran == ["now"]


def test_run_until_idle_waits_for_what_is_due_within() -> None:
    """`within` goes on until nothing is due within so long."""
    registry, ran = Registry(), list[str]()

    @task(registry=registry)
    async def work(name: str) -> None:
        ran.append(name)

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        work.options(run_in=100 * MS).enqueue("soon")
        work.options(run_in=HOUR).enqueue("late")
        harbor.run_until_idle(within=60 * SECOND)

        assert ran == ["soon"]


def test_run_until_idle_runs_what_jobs_enqueue() -> None:
    """Until nothing is left, retries that are due included."""
    registry, ran = Registry(), list[int]()

    @task(registry=registry, retry=Retry(max_attempts=3, base=0 * MS))
    async def grow(depth: int) -> None:
        ran.append(depth)
        if len(ran) % 7 == 3:
            raise ValueError("again")
        if depth:
            await grow.aenqueue(depth - 1)
            await grow.aenqueue(depth - 1)

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        grow.enqueue(5)
        harbor.run_until_idle(concurrency=3)

        assert {job.state for job in harbor.jobs.find(limit=1000)} == {JobState.SUCCEEDED}
        assert len(harbor.jobs.find(limit=1000)) == 63


def test_run_until_idle_keeps_the_programs_own_ctrl_c_handler() -> None:
    """It borrows SIGINT in the main thread, and gives it back."""

    def mine(number: int, frame: object) -> None:
        """The program's own."""

    before = signal.signal(signal.SIGINT, mine)
    try:
        with Harbor(MemoryDriver(), registry=Registry()) as harbor:
            harbor.run_until_idle()
        assert signal.getsignal(signal.SIGINT) is mine
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_drains_and_a_second_one_cancels(times: int) -> None:
    """`KeyboardInterrupt` is raised once the worker has stopped, and never inside a handler."""
    registry, seen = Registry(), list[str]()

    @task(registry=registry)
    async def work() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.to_thread(await_event, draining)
            if times == 2:
                os.kill(os.getpid(), signal.SIGINT)
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        seen.append("finished")

    @task(registry=registry)
    async def never() -> None:
        seen.append("never")

    with Harbor(MemoryDriver(), registry=registry) as harbor, drains_noted() as draining:
        job, other = work.enqueue(), never.enqueue()
        with pytest.raises(KeyboardInterrupt):
            harbor.run_until_idle(concurrency=1)

        assert seen == (["finished"] if times == 1 else ["cancelled"])
        assert job.status().state is (JobState.SUCCEEDED if times == 1 else JobState.READY)
        assert other.status().state is JobState.READY


def test_a_worker_lives_inside_the_users_own_program() -> None:
    """Beside other work on the same loop, whose context it leaves alone."""
    registry, outer_registry = Registry(), Registry()

    @task(registry=registry)
    async def inner() -> str:
        return "inner"

    async def main() -> None:
        async with Harbor(MemoryDriver(), registry=outer_registry) as outer:
            harbor = Harbor(MemoryDriver(), registry=registry)
            async with harbor.worker():
                # The harbor of the `with` block is the current one still, not the worker's.
                job = await inner.aenqueue()
                assert (await outer.alook(job.id)).state is JobState.READY
            await harbor.arun_until_idle()
            job = await inner.aenqueue()
            assert (await outer.alook(job.id)).state is JobState.READY
            await harbor.aclose()
        with pytest.raises(NoHarborError):
            await inner.aenqueue()

    asyncio.run(main())


def test_several_workers_of_one_harbor_share_the_work() -> None:
    """On one loop, and in threads beside it; each job runs once."""
    registry, ran, lock = Registry(), list[int](), threading.Lock()

    @task(registry=registry)
    async def on_loop(number: int) -> None:
        await asyncio.sleep(0)
        with lock:
            ran.append(number)

    @task(registry=registry)
    def in_thread(number: int) -> None:
        with lock:
            ran.append(number)

    async def main(harbor: Harbor) -> None:
        async with harbor.worker(concurrency=3), harbor.worker(concurrency=3):
            handles = await harbor.aenqueue_many(
                [(on_loop if number % 2 else in_thread).s(number) for number in range(400)]
            )
            for handle in handles:
                await handle.await_(ENOUGH)

    with Harbor(MemoryDriver(), registry=registry) as harbor, harbor.worker_thread(concurrency=3):
        asyncio.run(main(harbor))
    assert sorted(ran) == list(range(400))


def test_a_worker_is_entered_once() -> None:
    """Another is asked of the harbor."""

    async def main() -> None:
        async with Harbor(MemoryDriver(), registry=Registry()) as harbor:
            worker = harbor.worker()
            async with worker:
                pass
            with pytest.raises(Exception, match="entered once"):
                async with worker:
                    pass

    asyncio.run(main())


def test_a_setting_that_does_not_exist_names_the_nearest() -> None:
    """Typing mistakes are told before anything starts."""
    with (
        Harbor(MemoryDriver(), registry=Registry()) as harbor,
        pytest.raises(OptionError, match="'concurrency'"),
    ):
        harbor.worker(concurency=3)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]


def test_blocking_calls_on_a_loop_are_refused_and_name_the_other_form() -> None:
    """Every one of them."""
    registry = Registry()

    @task(registry=registry)
    async def work() -> int:
        return 1

    async def main() -> None:
        async with Harbor(MemoryDriver(), registry=registry) as harbor:
            job = await work.aenqueue()
            calls: dict[str, Callable[[], object]] = {
                "aenqueue": work.enqueue,
                "aenqueue()": work.s().enqueue,
                "aenqueue_many": lambda: harbor.enqueue_many([work.s()]),
                "aresult": job.result,
                "astatus": job.status,
                "acancel": job.cancel,
                "await_": job.wait,
                "arun_until_idle": harbor.run_until_idle,
                "jobs.aget": lambda: harbor.jobs.get(job.id),
                "jobs.afind": harbor.jobs.find,
                "jobs.acount": harbor.jobs.count,
                "jobs.acancel": lambda: harbor.jobs.cancel([job.id]),
                "jobs.arequeue": lambda: harbor.jobs.requeue([job.id]),
                "jobs.adelete": lambda: harbor.jobs.delete([job.id]),
                "queues.apause": lambda: harbor.queues.pause("default"),
                "queues.aresume": lambda: harbor.queues.resume("default"),
                "queues.alist": harbor.queues.list,
            }
            for form, call in calls.items():
                with pytest.raises(BlockingCallError) as refused:
                    call()
                assert form.removesuffix("()") in str(refused.value)
            assert (await job.astatus()).state is JobState.READY

    asyncio.run(main())


def test_a_driver_without_a_blocking_face_is_reached_over_a_bridge() -> None:
    """From many threads at once; the bridge's thread goes with the harbor."""
    registry, driver = Registry(), TroubledDriver()

    @task(registry=registry)
    def double(number: int) -> int:
        return number * 2

    @task(registry=registry)
    def chain(number: int) -> str:
        return double.enqueue(number).id

    with Harbor(driver, registry=registry) as harbor, harbor.worker_thread():
        harbor.install()
        results = list[int]()

        def produce(number: int) -> None:
            results.append(double.enqueue(number).result(ENOUGH))

        producers = [threading.Thread(target=produce, args=(number,)) for number in range(20)]
        for producer in producers:
            producer.start()
        for producer in producers:
            producer.join()
        assert sorted(results) == [number * 2 for number in range(20)]
        assert double.handle(chain.enqueue(4).result(ENOUGH)).result(ENOUGH) == 8
        job = double.options(run_in=HOUR).enqueue(1)
        assert job.cancel()
        assert harbor.jobs.get(job.id).state is JobState.CANCELLED
        assert harbor.queues.list() == []
    assert threads_named("taskharbor-bridge") == []


def test_a_harbor_can_be_used_again_after_it_was_closed() -> None:
    """Its connections are opened anew."""
    registry, driver = Registry(), TroubledDriver()

    @task(registry=registry)
    async def work() -> int:
        return 1

    harbor = Harbor(driver, registry=registry)
    for _ in range(2):
        with harbor:
            job = work.enqueue()
            harbor.run_until_idle()
            assert job.result() == 1


def test_waiting_for_a_result_ends_with_the_callers_patience() -> None:
    """In both colours, within the time given; the job goes on."""
    registry = Registry()

    @task(registry=registry)
    async def work() -> int:
        return 1

    with Harbor(MemoryDriver(ManualClock()), registry=registry) as harbor:
        job = work.enqueue()
        began = time.monotonic()
        with pytest.raises(ResultTimeout):
            job.result(30 * MS)

        async def wait() -> None:
            with pytest.raises(ResultTimeout):
                await job.aresult(30 * MS)

        asyncio.run(wait())
        assert time.monotonic() - began < 5
        harbor.run_until_idle()
        assert job.result() == 1


def test_waiters_in_both_colours_are_woken_by_the_end_of_a_job() -> None:
    """The store's poll is half a minute; nobody waits for it."""
    registry = Registry()

    @task(registry=registry)
    async def work(number: int) -> int:
        return number

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        jobs = [work.enqueue(number) for number in range(10)]
        got = list[int]()

        def get(job: JobHandle[int]) -> None:
            got.append(job.result(ENOUGH))

        waiters = [threading.Thread(target=get, args=(job,)) for job in jobs]
        for waiter in waiters:
            waiter.start()

        async def wait() -> list[int]:
            waits: list[Awaitable[int]] = [job.aresult(ENOUGH) for job in jobs]
            working = asyncio.to_thread(harbor.run_until_idle)
            *results, _ = await within(asyncio.gather(*waits, working))
            return [result for result in results if isinstance(result, int)]

        assert asyncio.run(wait()) == list(range(10))
        for waiter in waiters:
            waiter.join()
        assert sorted(got) == list(range(10))


_FORKS = """
import asyncio, os, sys
sys.path.insert(0, ".")
from taskharbor import Harbor, Registry, task
from tests.support.work import TroubledDriver
from taskharbor.drivers.memory import MemoryDriver

registry = Registry()

@task(registry=registry)
async def work() -> int:
    return 1

opened, closed = [], []

class Watched(TroubledDriver):
    def connect(self):
        opened.append(os.getpid())
        return super().connect()

    def close(self) -> None:
        closed.append("driver")

harbor = Harbor(Watched(), registry=registry)
with harbor:
    work.enqueue()
    child = os.fork()
    if child == 0:
        # The parent's connection is abandoned, and one of the child's own opened.
        work.enqueue()
        harbor.close()
        os._exit(0 if opened == [os.getppid(), os.getpid()] else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, status
    # The parent's own still works.
    job = work.enqueue()
    assert opened == [os.getpid()]
    harbor.run_until_idle()
    assert job.result() == 1
    # Nothing of a child's own to close, and the parent's is left alone.
    for close in harbor.close, lambda: asyncio.run(harbor.aclose()):
        child = os.fork()
        if child == 0:
            close()
            os._exit(2 if closed else 0)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0, status
    job = work.enqueue()
    harbor.run_until_idle()
    assert job.result() == 1
print("well")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_after_a_fork_connections_are_abandoned_and_opened_anew() -> None:
    """The child uses none of the parent's, closes none of them, and neither disturbs the other."""
    ended = subprocess.run(
        [sys.executable, "-c", _FORKS], capture_output=True, text=True, timeout=60, check=False
    )

    assert (ended.stdout, ended.returncode) == ("well\n", 0), ended.stderr


def test_one_harbor_may_be_current_in_many_threads_at_once() -> None:
    """Each thread's block ends as it began."""
    registry = Registry()

    @task(registry=registry)
    async def work() -> int:
        return 1

    harbor, barrier, left = Harbor(MemoryDriver(), registry=registry), threading.Barrier(8), list[bool]()

    def use() -> None:
        with harbor:
            barrier.wait()
            work.enqueue()
            barrier.wait()
        try:
            work.s().enqueue()
        except NoHarborError:
            left.append(True)

    users = [threading.Thread(target=use) for _ in range(8)]
    for user in users:
        user.start()
    for user in users:
        user.join()

    assert left == [True] * 8


def test_a_worker_thread_that_is_left_by_an_exception_stops_all_the_same() -> None:
    """The exception is the caller's; nothing stays behind."""
    registry, started = Registry(), threading.Event()

    @task(registry=registry)
    async def work() -> None:
        started.set()
        await asyncio.to_thread(await_event, draining)

    with Harbor(MemoryDriver(), registry=registry) as harbor, drains_noted() as draining:
        job = work.enqueue()

        def fail() -> None:
            await_event(started)
            raise RuntimeError("the caller's")

        with pytest.raises(RuntimeError, match="the caller's"), harbor.worker_thread(lease=LEASE):
            fail()

        assert job.status().state is JobState.SUCCEEDED
        assert threads_named("taskharbor-worker", "taskharbor-leases") == []
