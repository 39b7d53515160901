"""Stopping: it always ends, starts nothing new, and leaves nothing leased."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from taskharbor import Context, Harbor, JobState, LifespanError, Registry, Retry, UsageError, task
from taskharbor.drivers.memory import MemoryDriver
from taskharbor.worker import stopping
from tests.support.work import (
    ENOUGH,
    LEASE,
    MS,
    SECOND,
    aeventually,
    arunning,
    await_event,
    eventually,
    running,
    spin,
    threads_named,
    until_running,
    within,
)

ONCE = Retry(max_attempts=1)


def test_a_drain_waits_for_what_runs_and_hands_back_what_has_not_started() -> None:
    """The running job succeeds; the buffered ones are ready again, no attempt spent, in their old order."""
    registry, ran = Registry(), list[int]()

    async def main() -> None:
        started, go_on = asyncio.Event(), asyncio.Event()

        @task(registry=registry)
        async def work(number: int) -> int:
            ran.append(number)
            started.set()
            await go_on.wait()
            return number

        async with Harbor(MemoryDriver(), registry=registry) as harbor:
            first = await work.aenqueue(0)
            others = [await work.aenqueue(number) for number in range(1, 6)]
            async with harbor.worker(concurrency=1, prefetch=3) as worker:
                await within(started.wait())
                await until_running(harbor, 4)
                stopping = asyncio.create_task(worker.stop())
                await until_running(harbor, 1)
                assert not stopping.done()
                go_on.set()
                assert await within(stopping) == []
            assert (await first.astatus()).state is JobState.SUCCEEDED
            statuses = [await other.astatus() for other in others]
            assert [(status.state, status.attempt) for status in statuses] == [(JobState.READY, 0)] * 5
            ran.clear()
            await within(harbor.arun_until_idle(concurrency=1))
            assert sorted(ran) == [1, 2, 3, 4, 5]
            assert set(ran[:3]) == {1, 2, 3}, "what was handed back goes to the front"

    asyncio.run(main())


def test_a_halt_cancels_and_hands_back_with_the_attempt() -> None:
    """A started job that was stopped for the shutdown runs again as the same attempt."""
    registry, attempts = Registry(), list[int]()
    started = threading.Event()

    @task(registry=registry)
    async def work(ctx: Context) -> None:
        attempts.append(ctx.attempt)
        if len(attempts) == 1:
            started.set()
            await asyncio.Event().wait()

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        with harbor.worker_thread() as worker:
            job = work.enqueue()
            await_event(started)
            worker.halt()
        assert (job.status().state, job.status().attempt) == (JobState.READY, 0)
        harbor.run_until_idle()
        assert job.status().state is JobState.SUCCEEDED

    assert attempts == [1, 1]


@pytest.mark.parametrize("kind", ["async", "thread"])
def test_a_job_with_one_attempt_that_was_interrupted_ends_dead(kind: str) -> None:
    """It began, and may not begin again."""
    registry, started = Registry(), threading.Event()

    @task(registry=registry, retry=ONCE)
    async def on_loop() -> None:
        started.set()
        await asyncio.Event().wait()

    @task(registry=registry, retry=ONCE)
    def in_thread() -> None:
        started.set()
        spin()

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        with harbor.worker_thread(grace=0 * MS):
            job = (on_loop if kind == "async" else in_thread).enqueue()
            await_event(started)

        assert (job.status().state, job.status().reason) == (JobState.DEAD, "interrupted")


def test_what_runs_longer_than_the_grace_is_cancelled() -> None:
    """The grace is waited for, and then no longer."""
    registry, started = Registry(), threading.Event()

    @task(registry=registry)
    async def work() -> None:
        started.set()
        await asyncio.Event().wait()

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        with harbor.worker_thread(grace=200 * MS):
            work.enqueue()
            await_event(started)
            began = time.monotonic()
        assert 0.2 <= time.monotonic() - began < 5
        assert running(harbor) == []


def test_an_async_handler_that_swallows_everything_does_not_keep_the_worker() -> None:
    """With its loop gone it can never go on, so its job is not kept from others."""
    registry, started = Registry(), threading.Event()

    @task(registry=registry)
    async def swallow() -> None:
        started.set()
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        with harbor.worker_thread(lease=LEASE, grace=0 * MS, halt=100 * MS):
            job = swallow.enqueue()
            await_event(started)

        eventually(lambda: running(harbor) == [], "the release of its job")
        assert job.status().state is JobState.READY
        eventually(lambda: not threads_named("taskharbor-leases"), "the end of the keeper")


def test_stop_may_be_asked_by_many_tasks_at_once_and_again_afterwards() -> None:
    """Each gets the same answer, and the worker stops once."""
    registry = Registry()

    @task(registry=registry)
    async def work() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        async with Harbor(MemoryDriver(), registry=registry) as harbor:
            await work.aenqueue()
            async with harbor.worker(grace=0 * MS) as worker:
                await until_running(harbor, 1)
                answers = await within(asyncio.gather(*(worker.stop() for _ in range(20))))
                worker.drain()
                worker.halt()
                assert await worker.stop() == []
            assert answers == [[]] * 20
            assert await arunning(harbor) == []

    asyncio.run(main())


def test_a_worker_thread_may_be_stopped_from_many_threads_at_once() -> None:
    """Drains and halts in any order, before and after its end."""
    registry = Registry()

    @task(registry=registry)
    async def work() -> None:
        await asyncio.Event().wait()

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        with harbor.worker_thread() as worker:
            for _ in range(20):
                work.enqueue()
            callers = [
                threading.Thread(target=worker.halt if number % 2 else worker.drain) for number in range(20)
            ]
            for caller in callers:
                caller.start()
            for caller in callers:
                caller.join()
        worker.drain()
        worker.halt()

        assert running(harbor) == []


@pytest.mark.parametrize("round_", range(5))
def test_a_stop_while_the_worker_starts_ends_it(round_: int) -> None:
    """Whatever it was doing: it is stopped afterwards, and its dependencies are closed."""
    registry, events = Registry(), list[str]()

    async def main() -> None:
        may_build = asyncio.Event()

        @asynccontextmanager
        async def deps() -> AsyncGenerator[object]:
            events.append("open")
            await may_build.wait()
            try:
                yield None
            finally:
                events.append("closed")

        async with Harbor(MemoryDriver(), registry=registry, deps=deps) as harbor:
            worker = harbor.worker()

            async def work() -> None:
                async with worker:
                    for _ in range(round_):
                        await asyncio.sleep(0)
                    await worker.run()

            working = asyncio.create_task(work())
            await aeventually(lambda: events == ["open"])
            stopping = asyncio.create_task(worker.stop())
            await asyncio.sleep(0)
            worker.drain()
            may_build.set()
            await within(asyncio.wait([working, stopping]))
            assert working.exception() is None
            assert stopping.result() == []
            assert await worker.stop() == []

    asyncio.run(main())
    assert events == ["open", "closed"]
    eventually(lambda: not threads_named("taskharbor-leases"), "the end of the keeper")


def test_a_worker_that_could_not_start_may_be_stopped() -> None:
    """There is nothing to stop."""

    @asynccontextmanager
    async def deps() -> AsyncGenerator[object]:
        if not threads_named("no such thread"):
            raise RuntimeError("no database")
        yield None

    async def main() -> None:
        async with Harbor(MemoryDriver(), registry=Registry(), deps=deps) as harbor:
            worker = harbor.worker()
            with pytest.raises(LifespanError, match="no database"):
                async with worker:
                    pass
            assert await within(worker.stop()) == []

    asyncio.run(main())


def test_a_worker_that_was_never_entered_may_be_stopped() -> None:
    """And a worker thread that was not entered says so instead of waiting for ever."""

    async def main() -> None:
        async with Harbor(MemoryDriver(), registry=Registry()) as harbor:
            worker = harbor.worker()
            worker.drain()
            worker.halt()
            assert await within(worker.stop()) == []

    asyncio.run(main())
    with Harbor(MemoryDriver(), registry=Registry()) as harbor, pytest.raises(UsageError):
        harbor.worker_thread().drain()


def test_when_the_task_that_holds_the_worker_is_cancelled_nothing_stays_leased() -> None:
    """Cancelled again while it drains, it cancels its handlers, completes the stop, and ends cancelled."""
    registry = Registry()

    async def main() -> None:
        cleaned, left = list[str](), asyncio.Event()

        @task(registry=registry)
        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                cleaned.append("cleaned")

        async with Harbor(MemoryDriver(), registry=registry) as harbor:
            job = await work.aenqueue()

            async def hold() -> None:
                async with harbor.worker():
                    try:
                        await asyncio.Event().wait()
                    finally:
                        left.set()  # and goes on, in the same step, until it waits for the worker's end

            holding = asyncio.create_task(hold())
            await until_running(harbor, 1)
            holding.cancel()
            await within(left.wait())
            assert not holding.done()
            holding.cancel()
            await within(asyncio.wait([holding]))
            assert holding.cancelled()
            assert cleaned == ["cleaned"]
            assert (await job.astatus()).state is JobState.READY

    asyncio.run(main())


def test_workers_started_and_stopped_under_load_lose_nothing() -> None:
    """Many times, from several threads; every job ends, and none twice."""
    registry, ran, moved = Registry(), list[int](), threading.Condition()

    def note(number: int) -> None:
        with moved:
            ran.append(number)
            moved.notify_all()

    @task(registry=registry)
    async def on_loop(number: int) -> None:
        note(number)

    @task(registry=registry)
    def in_thread(number: int) -> None:
        note(number)

    def some_more_ran(before: int) -> bool:
        return len(ran) >= min(before + 20, 3000)

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        harbor.enqueue_many([(on_loop if number % 2 else in_thread).s(number) for number in range(3000)])

        def start_and_stop() -> None:
            for _ in range(6):
                before = len(ran)
                with harbor.worker_thread(concurrency=5, prefetch=20), moved:
                    moved.wait_for(lambda: some_more_ran(before), ENOUGH.total_seconds())  # noqa: B023 - called here

        starters = [threading.Thread(target=start_and_stop) for _ in range(3)]
        for starter in starters:
            starter.start()
        for starter in starters:
            starter.join()
        assert running(harbor) == []
        harbor.run_until_idle()

    assert sorted(ran) == list(range(3000))


def test_the_end_of_a_worker_waits_for_no_job_that_was_scheduled() -> None:
    """What is due later stays where it is."""
    registry = Registry()

    @task(registry=registry)
    async def work() -> None:
        """Never run here."""

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        job = work.options(run_in=SECOND * 60).enqueue()
        with harbor.worker_thread():
            pass
        assert job.status().state is JobState.SCHEDULED
        assert ENOUGH > SECOND


def test_a_drain_says_again_and_again_for_whom_it_waits(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many handlers, and which jobs, ten of them at most. When they have ended, it is silent."""
    caplog.set_level(logging.INFO, "taskharbor")
    monkeypatch.setattr(stopping, "_TELL_AGAIN_SECONDS", 0.005)
    registry, started = Registry(), threading.Barrier(13)

    def told() -> list[str]:
        return [line for line in caplog.messages if "waits for" in line]

    @task(registry=registry, name="slow")
    def work(_secret: str) -> None:
        started.wait(ENOUGH.total_seconds())
        eventually(lambda: len(told()) >= 3)

    with (
        Harbor(MemoryDriver(), registry=registry) as harbor,
        harbor.worker_thread(concurrency=12, grace=ENOUGH),
    ):
        jobs = [work.enqueue("a secret") for _ in range(12)]
        started.wait(ENOUGH.total_seconds())

    first = told()[0]
    named = [job.id for job in jobs if f"job {job.id} (task 'slow')" in first]
    assert "waits for 12 running handlers, within its grace of 20 s: " in first
    assert 10 == len(named)
    assert first.endswith(", and 2 more")
    assert "secret" not in caplog.text
    assert "cancels" not in caplog.text


def test_what_is_cancelled_when_the_grace_ends_is_named_and_what_is_handed_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A job that may not start twice is cancelled too, and not handed back."""
    registry, started = Registry(), threading.Barrier(3)

    @task(registry=registry, name="again")
    def again() -> None:
        started.wait(ENOUGH.total_seconds())
        spin()

    @task(registry=registry, name="once", retry=ONCE)
    def once() -> None:
        started.wait(ENOUGH.total_seconds())
        spin()

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        with harbor.worker_thread(grace=MS) as thread:
            first, second = again.enqueue(), once.enqueue()
            started.wait(ENOUGH.total_seconds())
        name = thread.worker.name

    cancelled = next(line for line in caplog.messages if "cancels" in line)
    assert cancelled.startswith(f"the grace of 0.001 s is over: worker {name} cancels 2 handlers: ")
    assert f"job {first.id} (task 'again')" in cancelled
    assert f"job {second.id} (task 'once')" in cancelled
    assert f"worker {name} hands back 1 cancelled jobs: job {first.id} (task 'again')" in caplog.messages


def test_a_halt_says_that_it_was_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    """And not that a grace is over."""
    registry, started = Registry(), threading.Event()

    @task(registry=registry)
    async def work() -> None:
        started.set()
        await asyncio.Event().wait()

    with Harbor(MemoryDriver(), registry=registry) as harbor, harbor.worker_thread() as worker:
        work.enqueue()
        await_event(started)
        worker.halt()

    assert 1 == caplog.text.count("it was told to halt: worker")
    assert "grace" not in caplog.text
