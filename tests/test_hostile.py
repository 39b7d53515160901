"""What a hostile reader found, and what became of it."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from taskharbor import (
    Harbor,
    JobState,
    OptionError,
    Registry,
    Reject,
    RequeueStatus,
    Retry,
    RetryLater,
    Snooze,
    StoreUnavailable,
    register_type,
    task,
)
from taskharbor.clock import ManualClock
from taskharbor.driver import JobSettle, Store
from taskharbor.drivers.memory import MemoryDriver
from taskharbor.drivers.memory.store import MemoryStore
from taskharbor.settlement import Settled
from taskharbor.worker.sight import Sight
from tests.support.work import eventually

SECOND = timedelta(seconds=1)


class RateLimited(RetryLater):
    """A subclass that forgot to call ours: an ordinary mistake."""

    def __init__(self, message: str) -> None:
        Exception.__init__(self, message)


def test_a_verdict_without_its_fields_is_a_failure_like_any_other() -> None:
    mine = Registry()

    @task(registry=mine, retry=Retry.never)
    async def on_loop() -> None:
        raise RateLimited("slow down")

    @task(registry=mine, retry=Retry.never)
    def in_thread() -> None:
        raise RateLimited("slow down")

    with Harbor("memory://", registry=mine) as harbor:
        jobs = [on_loop.enqueue(), in_thread.enqueue()]
        harbor.run_until_idle()

        assert [JobState.DEAD] * 2 == [job.status().state for job in jobs]
        assert ["slow down"] * 2 == [job.status().errors[0].message for job in jobs]


def test_a_stop_does_not_wait_for_what_handlers_put_into_the_default_executor() -> None:
    mine, release = Registry(), threading.Event()

    async def main() -> float:
        loop, handler_began = asyncio.get_running_loop(), asyncio.Event()

        @task(registry=mine)
        async def waits() -> None:
            handler_began.set()
            await asyncio.to_thread(release.wait, 60)

        async with Harbor("memory://", registry=mine) as harbor:
            worker = harbor.worker(grace=0 * SECOND, halt=SECOND / 10)
            async with worker:
                await harbor.aenqueue_many([waits.s() for _ in range(50)])
                await handler_began.wait()
                began = loop.time()
                await worker.stop()
                took = loop.time() - began
            release.set()
        return took

    assert asyncio.run(main()) < 20


def test_a_requeued_job_keeps_its_earliest_start() -> None:
    clock, mine = ManualClock(), Registry()

    @task(registry=mine)
    def later() -> None: ...

    with Harbor(MemoryDriver(clock), registry=mine) as harbor:
        job = later.options(run_in=timedelta(days=7)).enqueue()
        job.cancel()

        assert [RequeueStatus.REQUEUED] == list(harbor.jobs.requeue([job.id]))

        assert JobState.SCHEDULED == job.status().state
        clock.advance(timedelta(days=7))
        assert JobState.READY == job.status().state


def test_a_jump_of_the_stores_clock_is_no_mass_crash() -> None:
    ours, clock = [100.0], ManualClock()
    sight = Sight(10 * SECOND, monotonic=lambda: ours[0])
    for _ in range(6):
        sight.seen(clock.now())
        ours[0] += 5
        clock.advance(5 * SECOND)
    sight.seen(clock.now())
    assert 30 * SECOND == sight.observed()

    clock.advance(timedelta(hours=1))
    sight.seen(clock.now())

    assert timedelta(0) == sight.observed()
    ours[0] += 5
    clock.advance(5 * SECOND)
    sight.seen(clock.now())
    assert 5 * SECOND == sight.observed()


def test_a_running_job_outlives_a_jump_of_the_stores_clock() -> None:
    clock, mine = ManualClock(), Registry()
    started, finish, runs = threading.Event(), threading.Event(), list[int]()

    @task(registry=mine)
    def works() -> str:
        runs.append(1)
        started.set()
        finish.wait(30)
        return "done"

    with Harbor(MemoryDriver(clock), registry=mine) as harbor, harbor.worker_thread(lease=SECOND / 2):
        job = works.enqueue()
        assert started.wait(30)
        clock.advance(timedelta(hours=1))
        # Two heartbeats after the jump the lease is valid again, by the new time.
        eventually(lambda: (harbor.jobs.get(job.id).lease_expires_at or clock.now()) > clock.now())
        finish.set()

        assert "done" == job.result(30 * SECOND)
    assert [1] == runs


def test_a_reason_is_words_bounded_and_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    mine = Registry()

    @task(registry=mine)
    def refuses() -> None:
        raise Reject("card 4111\x00" + "x" * 100_000)

    with caplog.at_level(logging.INFO), Harbor("memory://", registry=mine) as harbor:
        job = refuses.enqueue()
        harbor.run_until_idle()

        reason = job.status().reason
        assert reason.startswith("card 4111\\x00xxx")
        assert len(reason) < 600
        assert "4111" not in caplog.text
        with pytest.raises(OptionError, match="reason"):
            job.cancel("\x00")
        with pytest.raises(OptionError, match="by"):
            harbor.jobs.requeue([job.id], by="x" * 1000)
    nothing: Any = None
    with pytest.raises(OptionError, match="in words"):
        Reject(nothing)


class Array:
    """Compares by element, as arrays do."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = list(numbers)

    def __eq__(self, other: object) -> Any:
        raise ValueError("the truth value of an array is ambiguous")

    __hash__ = None  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]


def test_values_that_do_not_compare_in_one_word_can_be_sent() -> None:
    register_type(
        Array, wire=list[int], encode=lambda array: array.numbers, decode=lambda numbers: Array(*numbers)
    )
    mine = Registry()

    @task(registry=mine)
    def twice(array: Array) -> Array:
        return Array(*(2 * number for number in array.numbers))

    with Harbor("memory://", registry=mine) as harbor:
        job = twice.enqueue(Array(1, 2))
        harbor.run_until_idle()

        assert [2, 4] == job.result(SECOND).numbers


def test_a_task_left_behind_cannot_end_the_program(caplog: pytest.LogCaptureFixture) -> None:
    mine, left = Registry(), list[asyncio.Task[None]]()

    @task(registry=mine)
    async def leaves() -> int:
        async def stubborn() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                raise SystemExit(3)

        left.append(asyncio.get_running_loop().create_task(stubborn()))
        await asyncio.sleep(0)
        return 1

    with Harbor("memory://", registry=mine) as harbor:
        leaves.enqueue()

        counts = harbor.run_until_idle()

    assert {"succeeded": 1} == counts.settled
    assert "SystemExit" in caplog.text


class Soon(Snooze):
    """A subclass with a field of its own making."""

    def __init__(self) -> None:
        super().__init__(SECOND)
        wrong: Any = 5
        self.for_ = wrong


def test_a_verdict_with_a_wrong_field_fails_alone() -> None:
    mine = Registry()

    @task(registry=mine, retry=Retry.never)
    async def soon() -> None:
        raise Soon

    @task(registry=mine)
    async def fine() -> int:
        return 1

    with Harbor("memory://", registry=mine) as harbor:
        bad, *good = soon.enqueue(), *harbor.enqueue_many([fine.s() for _ in range(20)])
        harbor.run_until_idle()

        assert JobState.DEAD == bad.status().state
        assert {JobState.SUCCEEDED} == {job.status().state for job in good}


class TroubledStore(MemoryStore):
    """A store one of whose settlements cannot be written, by a bug in it."""

    poison = ""

    async def job_settle(self, request: JobSettle) -> Sequence[Settled]:
        if any(settlement.job_id == self.poison for settlement in request.settlements):
            raise RuntimeError("a bug of the driver's")
        return await super().job_settle(request)


class TroubledDriver(MemoryDriver):
    """Hands out `TroubledStore`s, and refuses to be connected to more often than it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.connections = 1000

    def connect(self) -> AbstractAsyncContextManager[Store]:
        return self._troubled()

    @asynccontextmanager
    async def _troubled(self) -> AsyncGenerator[Store]:
        self.connections -= 1
        if self.connections < 0:
            raise StoreUnavailable("too many connections")
        yield TroubledStore(self._tables)


def test_an_outcome_that_cannot_be_written_takes_no_other_with_it() -> None:
    mine = Registry()

    @task(registry=mine)
    async def works(number: int) -> int:
        return number

    with Harbor(TroubledDriver(), registry=mine) as harbor:
        jobs = harbor.enqueue_many([works.s(number) for number in range(20)])
        TroubledStore.poison = jobs[7].id

        harbor.run_until_idle()

        assert {JobState.SUCCEEDED} == {job.status().state for job in jobs if job is not jobs[7]}
        # It is still leased, and runs again when the lease expires.
        assert JobState.RUNNING == jobs[7].status().state


def test_a_worker_that_cannot_keep_leases_does_not_start() -> None:
    mine, driver = Registry(), TroubledDriver()
    driver.connections = 1  # for the worker itself; none is left for the keeper of its leases

    @task(registry=mine)
    def never() -> None: ...

    with Harbor(driver, registry=mine) as harbor:
        never.enqueue()
        with pytest.raises(StoreUnavailable, match="too many"):
            harbor.run_until_idle()

        driver.connections = 1000
        assert {JobState.READY} == {job.state for job in harbor.jobs.find()}


def test_a_timeout_does_not_cut_an_enqueue_in_half() -> None:
    mine = Registry()

    @task(registry=mine)
    def child(number: int) -> None: ...

    @task(registry=mine, timeout=SECOND / 100, retry=Retry.never, queue="parents")
    def parent(start: int) -> None:
        for _ in range(20):
            harbor.enqueue_many([child.options(key=str(start)).s(start), *(child.s(n) for n in range(200))])
            start += 1

    with Harbor("memory://", registry=mine) as harbor:
        for round_ in range(10):
            parent.enqueue(round_ * 1000)
        harbor.run_until_idle(queues=["parents"], concurrency=2)

        stored = harbor.jobs.find(tasks=[child.name], limit=100_000)
        keyed = [record for record in stored if record.key is not None]
        assert len(stored) == 201 * len(keyed) > 0
        harbor.run_until_idle(queues=["default"])
        states = {counted.state for counted in harbor.jobs.count(tasks=[child.name])}
        assert {JobState.SUCCEEDED} == states


def test_closing_a_bridge_waits_for_the_calls_under_way() -> None:
    harbor = Harbor("memory://", registry=Registry())
    done, errors = list[int](), list[BaseException]()

    def ask() -> None:
        try:
            for _ in range(50):
                harbor.jobs.count()
            done.append(1)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        harbor.close()
    for thread in threads:
        thread.join(30)
    harbor.close()

    assert ([1] * 4, []) == (done, errors)


def test_a_killed_idle_child_costs_nobody_an_attempt(tmp_path: Path) -> None:
    program = """
import multiprocessing, os, signal
from datetime import timedelta
from taskharbor import Harbor, Retry, task

@task(run="process", retry=Retry.never)
def cpu(x: int) -> int:
    return x * x

if __name__ == "__main__":
    with Harbor("memory://") as harbor, harbor.worker_thread(handler_processes=1):
        print(cpu.enqueue(2).result(timedelta(seconds=30)))
        (child,) = multiprocessing.active_children()
        child.kill()
        child.join()
        print(cpu.enqueue(3).result(timedelta(seconds=30)))
"""
    (tmp_path / "app.py").write_text(program)

    ended = subprocess.run(
        [sys.executable, "app.py"], cwd=tmp_path, capture_output=True, text=True, timeout=90, check=False
    )

    assert ended.stdout == "4\n9\n", ended.stderr
