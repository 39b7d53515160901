"""What a hostile reader found, and what became of it."""

from __future__ import annotations

import asyncio
import logging
import threading
from datetime import timedelta
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
    register_type,
    task,
)
from taskharbor.clock import ManualClock
from taskharbor.drivers.memory import MemoryDriver
from taskharbor.worker.sight import Sight

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
        told = threading.Event()
        # Two heartbeats after the jump the lease is valid again, by the new time.
        for _ in range(200):
            told.wait(0.02)
            expires = harbor.jobs.get(job.id).lease_expires_at
            if expires is not None and expires > clock.now():
                break
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
