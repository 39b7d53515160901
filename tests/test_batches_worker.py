"""Batches in a worker: gathering by size and by time, cancels, timeouts, stops and kills, on real stores."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Generator
from datetime import timedelta
from pathlib import Path

import pytest
from typing_extensions import override

from taskharbor import (
    Batch,
    BatchContext,
    Harbor,
    JobCancelled,
    JobFailed,
    JobState,
    Registry,
    Retry,
    WorkerOptions,
    task,
)
from taskharbor.middleware import Attempt, Middleware
from taskharbor.worker import intake
from tests.support.chaos import chaos_in
from tests.support.chaos_app import append_many
from tests.support.chaos_stores import POSTGRES, SQLITE, chaos_store
from tests.support.work import (
    ENOUGH,
    HOUR,
    LEASE,
    MS,
    await_event,
    eventually,
    running,
    spin,
)

FULL = Batch(size=3, wait=HOUR)
"""Waits for three, whatever comes."""
ONCE = Retry(max_attempts=1)


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'jobs.db'}"


class Pool:
    """What a handler and its test tell one another."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.seen: list[str] = []


@pytest.fixture
def pool() -> Generator[Pool]:
    made = Pool()
    yield made
    made.go_on.set()


# --- gathering


def test_a_batch_waits_until_it_is_full(url: str, pool: Pool) -> None:
    registry = Registry()

    @task(batch=FULL, registry=registry)
    def work(numbers: list[int]) -> None:
        pool.calls.append(numbers)

    with Harbor(url, registry=registry) as harbor, harbor.worker_thread(concurrency=2):
        handles = [work.enqueue(number) for number in range(2)]
        eventually(lambda: len(running(harbor)) == 2, "both are held")
        assert [] == pool.calls
        handles += [work.enqueue(number) for number in (2, 3)]
        for handle in handles[:3]:
            handle.result(timeout=ENOUGH)

        assert [[0, 1, 2]] == pool.calls
        eventually(lambda: len(running(harbor)) == 1, "the fourth is held")


def test_a_batch_that_does_not_fill_starts_when_its_first_job_has_waited(url: str, pool: Pool) -> None:
    registry = Registry()

    @task(batch=Batch(size=100, wait=20 * MS), registry=registry)
    def work(numbers: list[int]) -> None:
        pool.calls.append(numbers)

    with Harbor(url, registry=registry) as harbor, harbor.worker_thread():
        for handle in harbor.enqueue_many([work.s(number) for number in range(5)]):
            handle.result(timeout=ENOUGH)

    assert [0, 1, 2, 3, 4] == sorted(number for call in pool.calls for number in call)


def test_a_full_batch_is_reserved_beyond_the_free_slots_and_several_run_at_once(url: str, pool: Pool) -> None:
    """Of two slots each has a batch of fifty; what a third would take is left in the store, but for what is ahead."""
    registry = Registry()

    @task(batch=Batch(size=50, wait=HOUR), registry=registry)
    def work(numbers: list[int]) -> None:
        pool.calls.append(numbers)
        if len(pool.calls) == 2:
            pool.begun.set()
        assert pool.go_on.wait(ENOUGH.total_seconds())

    with Harbor(url, registry=registry) as harbor:
        handles = harbor.enqueue_many([work.s(number) for number in range(300)])
        with harbor.worker_thread(concurrency=2):
            await_event(pool.begun)
            assert 100 <= len(running(harbor)) <= 150
            pool.go_on.set()
            for handle in handles:
                handle.result(timeout=ENOUGH)

    assert [50] * 6 == [len(call) for call in pool.calls]


@pytest.mark.parametrize(
    "settings",
    [
        WorkerOptions(concurrency=1),
        WorkerOptions(concurrency=1, weights={"default": 3, "other": 1}),
        WorkerOptions(concurrency=2, reserved={"other": 1}),
    ],
    ids=["plain", "weights", "reserved"],
)
@pytest.mark.parametrize("retry", [Retry(), ONCE], ids=["", "once"])
def test_a_batch_that_gathers_gives_way_when_others_wait_for_its_slot(
    settings: WorkerOptions, retry: Retry, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It starts with what it has, however long it would have waited."""
    monkeypatch.setattr(intake, "_LONGEST_WAIT_SECONDS", 0.05)
    registry = Registry()

    @task(batch=FULL, registry=registry)
    def work(numbers: list[int]) -> None:
        pool.calls.append(numbers)

    @task(registry=registry, retry=retry)
    async def single() -> None: ...

    settings["queues"] = ["default", "other"]
    with Harbor("memory://", registry=registry) as harbor, harbor.worker_thread(**settings):
        first = work.enqueue(1)
        eventually(lambda: len(running(harbor)) == 1, "it is held")
        single.enqueue().result(timeout=ENOUGH)
        first.result(timeout=ENOUGH)

    assert [[1]] == pool.calls


@pytest.mark.parametrize(
    "settings",
    [
        WorkerOptions(concurrency=2),
        WorkerOptions(concurrency=2, weights={"default": 3, "other": 1}),
        WorkerOptions(concurrency=3, reserved={"other": 1}),
    ],
    ids=["plain", "weights", "reserved"],
)
def test_a_batch_that_gathers_keeps_no_other_jobs_from_workers_that_have_slots_for_them(
    settings: WorkerOptions, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More is reserved than there are slots, for what may join it; what does not is handed back at once."""
    monkeypatch.setattr(intake, "_LONGEST_WAIT_SECONDS", 3600)
    registry, started = Registry(), threading.Semaphore(0)

    @task(batch=Batch(size=100, wait=HOUR), registry=registry)
    def gather(numbers: list[int]) -> None: ...

    @task(registry=registry)
    def hold() -> None:
        started.release()
        assert pool.go_on.wait(ENOUGH.total_seconds())

    settings["queues"] = ["default", "other"]
    with Harbor("memory://", registry=registry) as harbor, harbor.worker_thread(**settings):
        gather.enqueue(1)
        eventually(lambda: len(running(harbor)) == 1, "it is held")
        harbor.enqueue_many([hold.s() for _ in range(20)])
        assert started.acquire(timeout=20)
        with harbor.worker_thread(concurrency=19):
            assert all(started.acquire(timeout=20) for _ in range(19))
            pool.go_on.set()


def test_until_idle_waits_for_no_batch_that_begins_when_nothing_more_comes(
    url: str, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last job is reserved with the others, and gathers while the worker sleeps, once a slot is left for it."""
    registry, sleep = Registry(), intake.Intake._sleep  # pyright: ignore[reportPrivateUsage]

    async def noted_sleep(self: intake.Intake, next_due_in: timedelta | None) -> None:
        if self._quiet and not self._woken.is_set():  # pyright: ignore[reportPrivateUsage]
            pool.begun.set()
        await sleep(self, next_due_in)

    monkeypatch.setattr(intake.Intake, "_sleep", noted_sleep)

    @task(batch=Batch(size=2, wait=HOUR), registry=registry)
    def work(numbers: list[int]) -> None:
        pool.calls.append(numbers)
        await_event(pool.begun)

    with Harbor(url, registry=registry) as harbor:
        harbor.enqueue_many([work.s(number) for number in range(5)])
        harbor.run_until_idle(concurrency=1, prefetch=10)

    assert [[0, 1], [2, 3], [4]] == pool.calls


def test_jobs_that_may_start_once_are_batched_with_their_starts_written_first(url: str, pool: Pool) -> None:
    registry = Registry()

    @task(batch=FULL, retry=ONCE, registry=registry)
    def work(numbers: list[int]) -> None:
        pool.calls.append(numbers)
        pool.begun.set()
        assert pool.go_on.wait(ENOUGH.total_seconds())

    with Harbor(url, registry=registry) as harbor, harbor.worker_thread(concurrency=1):
        handles = harbor.enqueue_many([work.s(number) for number in range(3)])
        await_event(pool.begun)
        assert [True] * 3 == [harbor.look(handle.id).started for handle in handles]
        pool.go_on.set()
        for handle in handles:
            handle.result(timeout=ENOUGH)

    assert [[0, 1, 2]] == pool.calls


# --- stopping some, or all


def test_a_cancel_of_one_is_told_and_does_not_end_its_neighbours(url: str, pool: Pool) -> None:
    """What it came to all the same counts: a success beats the cancel, and a failure does not."""
    registry = Registry()

    @task(batch=FULL, registry=registry)
    def work(ctx: BatchContext, numbers: list[int]) -> list[int | Exception]:
        pool.begun.set()
        spin(lambda: ctx.jobs[0].cancelled and ctx.jobs[1].cancelled)
        pool.seen.append(f"{ctx.cancelled} {[job.cancelled for job in ctx.jobs]}")
        return [0, OSError("gone"), 2]

    with Harbor(url, registry=registry) as harbor, harbor.worker_thread(lease=LEASE):
        handles = harbor.enqueue_many([work.s(number) for number in range(3)])
        await_event(pool.begun)
        handles[0].cancel()
        handles[1].cancel()

        assert [0, 2] == [handles[0].result(timeout=ENOUGH), handles[2].result(timeout=ENOUGH)]
        with pytest.raises(JobCancelled):
            handles[1].result(timeout=ENOUGH)
        assert ["False [True, True, False]"] == pool.seen


@pytest.mark.parametrize("in_thread", [True, False], ids=["def", "async def"])
def test_a_call_is_interrupted_once_all_of_its_jobs_are_cancelled(url: str, in_thread: bool) -> None:
    registry, begun, ended = Registry(), threading.Event(), list[str]()

    def work(numbers: list[int]) -> None:
        begun.set()
        try:
            spin()
        except BaseException as error:
            ended.append(type(error).__name__)
            raise

    async def awork(numbers: list[int]) -> None:
        begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError as error:
            ended.append(type(error).__name__)
            raise

    declared = task(batch=FULL, registry=registry, name="work")
    batched = declared(work) if in_thread else declared(awork)
    with Harbor(url, registry=registry) as harbor, harbor.worker_thread(lease=LEASE):
        handles = harbor.enqueue_many([batched.s(number) for number in range(3)])
        await_event(begun)
        for handle in handles:
            handle.cancel()
        for handle in handles:
            with pytest.raises(JobCancelled):
                handle.result(timeout=ENOUGH)

    assert ["JobInterrupt" if in_thread else "CancelledError"] == ended


@pytest.mark.parametrize("in_thread", [True, False], ids=["def", "async def"])
def test_a_timeout_is_that_of_the_call_and_fails_each(in_thread: bool) -> None:
    registry = Registry()

    def work(numbers: list[int]) -> None:
        spin()

    async def awork(numbers: list[int]) -> None:
        await asyncio.get_running_loop().create_future()

    declared = task(batch=FULL, timeout=50 * MS, registry=registry, name="work", retry=ONCE)
    batched = declared(work) if in_thread else declared(awork)
    with Harbor("memory://", registry=registry) as harbor, harbor.worker_thread():
        handles = harbor.enqueue_many([batched.s(number) for number in range(3)])
        for handle in handles:
            with pytest.raises(JobFailed, match="ran longer than its timeout"):
                handle.result(timeout=ENOUGH)


def test_a_job_cancelled_while_its_batch_gathers_is_left_out(url: str, pool: Pool) -> None:
    registry = Registry()

    @task(batch=FULL, registry=registry)
    def work(numbers: list[int]) -> None:
        pool.calls.append(numbers)

    with Harbor(url, registry=registry) as harbor, harbor.worker_thread(lease=LEASE):
        handles = [work.enqueue(number) for number in range(2)]
        eventually(lambda: len(running(harbor)) == 2, "both are held")
        handles[0].cancel()
        with pytest.raises(JobCancelled):
            handles[0].result(timeout=ENOUGH)
        handles += [work.enqueue(number) for number in (2, 3)]
        handles[3].result(timeout=ENOUGH)

    assert [[1, 2, 3]] == [sorted(call) for call in pool.calls]


def test_a_drain_hands_back_what_gathers_and_waits_for_what_runs(url: str, pool: Pool) -> None:
    registry = Registry()

    @task(batch=FULL, registry=registry)
    def work(numbers: list[int]) -> None:
        pool.calls.append(numbers)
        pool.begun.set()
        assert pool.go_on.wait(ENOUGH.total_seconds())

    with Harbor(url, registry=registry) as harbor:
        handles = harbor.enqueue_many([work.s(number) for number in range(5)])
        with harbor.worker_thread(grace=ENOUGH) as worker:
            await_event(pool.begun)
            eventually(lambda: len(running(harbor)) == 5, "two more gather")
            worker.drain()
            eventually(lambda: len(running(harbor)) == 3, "they are handed back")
            pool.go_on.set()

        assert [[0, 1, 2]] == pool.calls
        assert ["succeeded"] * 3 + ["ready"] * 2 == [handle.status().state.value for handle in handles]
        assert [0, 0] == [handle.status().attempt for handle in handles[3:]]


@pytest.mark.parametrize("in_thread", [True, False], ids=["def", "async def"])
def test_a_halt_in_the_middle_hands_all_of_a_batch_back_with_their_attempts(in_thread: bool) -> None:
    registry, begun = Registry(), threading.Event()

    def work(numbers: list[int]) -> None:
        begun.set()
        spin()

    async def awork(numbers: list[int]) -> None:
        begun.set()
        await asyncio.get_running_loop().create_future()

    declared = task(batch=FULL, registry=registry, name="work")
    batched = declared(work) if in_thread else declared(awork)
    with Harbor("memory://", registry=registry) as harbor:
        handles = harbor.enqueue_many([batched.s(number) for number in range(3)])
        with harbor.worker_thread() as worker:
            await_event(begun)
            worker.halt()

        assert [(JobState.READY, 0)] * 3 == [
            (handle.status().state, handle.status().attempt) for handle in handles
        ]


class Tidying(Middleware):
    """Awaits on its way in, and on its way out whatever came of the job."""

    def __init__(self, where: str, pool: Pool) -> None:
        self.where, self.pool = where, pool

    @override
    async def arun(self, attempt: Attempt) -> AsyncIterator[None]:
        await self._stand("in", attempt)
        try:
            yield
        finally:
            await self._stand("out", attempt)
            self.pool.seen.append(f"out {attempt.arguments['numbers']}")

    async def _stand(self, where: str, attempt: Attempt) -> None:
        await asyncio.sleep(0)
        if (where, attempt.arguments["numbers"]) == (self.where, 1):
            self.pool.begun.set()
            await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize("where", ["in", "out"])
def test_a_layer_that_hangs_around_a_batch_is_ended_with_it_and_none_is_left_open(
    where: str, pool: Pool
) -> None:
    """On the way in the handler is never called; on the way out it is what the others came to that counts."""
    registry = Registry()

    @task(batch=FULL, registry=registry, middleware=[Tidying(where, pool)])
    async def work(numbers: list[int]) -> None:
        pool.calls.append(numbers)

    with Harbor("memory://", registry=registry) as harbor, harbor.worker_thread(lease=LEASE):
        handles = harbor.enqueue_many([work.s(number) for number in range(3)])
        await_event(pool.begun)
        for handle in handles:
            handle.cancel()
        eventually(lambda: not running(harbor), "all have ended")

        found = [handle.status().state.value for handle in handles]
        if where == "in":
            assert ["cancelled"] * 3 == found
            assert ["out 0"] == [note for note in pool.seen if note != "out 1"]
            assert [] == pool.calls
        else:
            assert ["succeeded", "cancelled", "succeeded"] == found
            assert ["out 2", "out 0"] == pool.seen


# --- on PostgreSQL, and kills


@pytest.mark.slow
def test_batches_on_postgresql(tmp_path: Path) -> None:
    registry, calls = Registry(), list[int]()

    @task(batch=Batch(size=40, wait=HOUR), registry=registry, retry=Retry(max_attempts=2, base=0 * MS))
    async def work(ctx: BatchContext, numbers: list[int]) -> list[int | Exception]:
        calls.append(len(numbers))
        for job in ctx.jobs:
            job.log("here")
        return [OSError("odd") if number % 2 and len(numbers) > 1 else number for number in numbers]

    with chaos_store(POSTGRES, tmp_path) as store, Harbor(store.url, registry=registry) as harbor:
        handles = harbor.enqueue_many([work.s(number) for number in range(100)])
        harbor.run_until_idle(concurrency=4)

        assert list(range(100)) == [handle.result() for handle in handles]
        assert [40, 40, 20] == [call for call in calls if call > 1]
        assert 50 == len([call for call in calls if call == 1]), "each that failed was tried again alone"
        assert ["here"] * 2 == [line.text for line in handles[1].log()]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_nothing_is_lost_when_a_worker_is_killed_in_the_middle_of_a_batch(tmp_path: Path) -> None:
    """What the killed worker had begun runs again, each alone; its attempts are charged as those of any other job."""
    with chaos_in(tmp_path, SQLITE) as chaos:
        handles = chaos.harbor.enqueue_many([append_many.s(300) for _ in range(40)])
        victim = chaos.start_worker("--concurrency", "2")
        eventually(lambda: len(chaos.trail.lines()) >= 40, "two batches run")
        chaos.kill(victim)
        other = chaos.start_worker("--concurrency", "20")
        chaos.await_all_ended()
        chaos.stop(other)

        chaos.check_store()
        chaos.check_nothing_lost(handle.id for handle in handles)
        assert len(chaos.trail.lines()) > 40, "the kill has cut a batch short"
        assert 0 == chaos.count("lease")
