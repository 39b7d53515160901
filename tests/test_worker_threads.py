"""Sync handlers: threads that stop one job without stopping another, and a worker that outlives what they do."""

from __future__ import annotations

import asyncio
import dis
import sys
import threading
import time
from collections.abc import Callable
from contextvars import Context as ContextVars
from contextvars import copy_context
from types import FrameType, SimpleNamespace
from typing import Any, cast

import pytest

from taskharbor import (
    Context,
    Harbor,
    JobCancelled,
    JobFailed,
    JobInterrupt,
    JobState,
    JobTimeout,
    Registry,
    Reject,
    Retry,
    RetryLater,
    Snooze,
    task,
)
from taskharbor.clock import ManualClock
from taskharbor.drivers.memory import MemoryDriver
from taskharbor.worker import execution
from taskharbor.worker.batch_run import AnyRun
from taskharbor.worker.run import Run
from taskharbor.worker.threads import Threads
from tests.support.work import (
    ENOUGH,
    HOUR,
    LEASE,
    MS,
    TroubledDriver,
    await_event,
    eventually,
    fails,
    running,
    spin,
    threads_named,
)

ONCE = Retry(max_attempts=1)
AT_ONCE = Retry(max_attempts=3, base=0 * MS)


def test_a_thread_that_runs_too_long_is_interrupted_and_its_attempt_fails() -> None:
    """`JobInterrupt` passes `except Exception` and is told as `JobTimeout`."""
    registry, seen = Registry(), list[str]()

    @task(registry=registry, timeout=50 * MS, retry=Retry(max_attempts=5, on={JobTimeout: Retry.never}))
    def dawdle() -> None:
        try:
            spin()
        except Exception:  # noqa: BLE001 - what it must not catch is the point
            seen.append("caught")
        finally:
            seen.append("finally")

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        job = dawdle.enqueue()
        harbor.run_until_idle()
        with pytest.raises(JobFailed) as failed:
            job.result()

    assert seen == ["finally"]
    assert failed.value.error_type == "taskharbor.errors.JobTimeout"
    assert failed.value.attempts == 1


def test_a_thread_is_told_of_a_cancel_within_a_third_of_a_lease() -> None:
    """The heartbeat brings the cancel, and the interrupt lands at the next bytecode."""
    registry, started = Registry(), threading.Event()

    @task(registry=registry)
    def work() -> None:
        started.set()
        spin()

    with Harbor(MemoryDriver(), registry=registry) as harbor, harbor.worker_thread(lease=LEASE):
        job = work.enqueue()
        await_event(started)
        job.cancel("enough")

        with pytest.raises(JobCancelled, match="enough"):
            job.result(ENOUGH)


def test_a_thread_hears_of_a_cancel_while_the_loop_is_blocked() -> None:
    """The keeper of the leases tells it, not the loop."""
    registry, started, blocked, go_on = Registry(), threading.Event(), threading.Event(), threading.Event()
    stopped = threading.Event()

    @task(registry=registry)
    def work() -> None:
        started.set()
        try:
            spin()
        finally:
            stopped.set()

    @task(registry=registry)
    async def block() -> None:
        blocked.set()
        go_on.wait(20)

    with Harbor(MemoryDriver(), registry=registry) as harbor, harbor.worker_thread(lease=LEASE):
        job = work.enqueue()
        await_event(started)
        block.enqueue()
        await_event(blocked)
        job.cancel()
        await_event(stopped)
        go_on.set()

        assert job.wait(ENOUGH).state is JobState.CANCELLED


def test_a_success_beats_an_interrupt_that_the_handler_swallowed() -> None:
    """A handler that catches `JobInterrupt` and returns has succeeded."""
    registry, started = Registry(), threading.Event()

    @task(registry=registry)
    def finish_anyway() -> str:
        started.set()
        try:
            spin()
        except JobInterrupt:
            pass
        return "done all the same"

    with Harbor(MemoryDriver(), registry=registry) as harbor, harbor.worker_thread(lease=LEASE):
        job = finish_anyway.enqueue()
        await_event(started)
        job.cancel()

        assert job.result(ENOUGH) == "done all the same"


@pytest.mark.parametrize("error", [ValueError("x"), Snooze(for_=HOUR), RetryLater(after=HOUR)])
def test_whatever_but_a_success_ends_cancelled_once_a_cancel_is_pending(error: Exception) -> None:
    """A failure, a snooze and a retry asked for do not outlive a cancel."""
    registry, started = Registry(), threading.Event()

    @task(registry=registry)
    def clean_up_badly(ctx: Context) -> None:
        started.set()
        eventually(lambda: ctx.cancelled)
        raise error

    with Harbor(MemoryDriver(), registry=registry) as harbor, harbor.worker_thread(lease=LEASE):
        job = clean_up_badly.enqueue()
        await_event(started)
        job.cancel()

        assert job.wait(ENOUGH).state is JobState.CANCELLED


def test_a_handler_may_ask_whether_it_should_stop() -> None:
    """`ctx.cancelled` turns true, and `ctx.raise_if_cancelled` ends the attempt as what the stop was."""
    registry, started, asked = Registry(), threading.Event(), list[bool]()

    @task(registry=registry)
    def poll(ctx: Context) -> None:
        asked.append(ctx.cancelled)
        ctx.raise_if_cancelled()
        started.set()
        while True:
            try:
                spin(lambda: ctx.cancelled)
                break
            except JobInterrupt:
                continue
        asked.append(ctx.cancelled)
        ctx.raise_if_cancelled()

    with Harbor(MemoryDriver(), registry=registry) as harbor, harbor.worker_thread(lease=LEASE):
        job = poll.enqueue()
        await_event(started)
        job.cancel()

        assert job.wait(ENOUGH).state is JobState.CANCELLED

    assert asked == [False, True]


def test_verdicts_mean_in_threads_what_they_mean_on_the_loop() -> None:
    """Snooze, retry later, reject, and a policy for an exception's base class."""
    registry, clock = Registry(), ManualClock()

    @task(registry=registry, retry=Retry(max_attempts=3, base=0 * MS, on={LookupError: Retry.never}))
    def fail(how: str) -> None:
        raise {
            "snooze": Snooze(for_=HOUR),
            "later": RetryLater(after=HOUR),
            "reject": Reject("no"),
            "lookup": KeyError("x"),
            "value": ValueError("x"),
        }[how]

    with Harbor(MemoryDriver(clock), registry=registry) as harbor:
        jobs = {how: fail.enqueue(how) for how in ("snooze", "later", "reject", "lookup", "value")}
        harbor.run_until_idle()
        found = {how: (job.status().state, job.status().attempt) for how, job in jobs.items()}

    assert found == {
        "snooze": (JobState.SCHEDULED, 0),
        "later": (JobState.RETRYING, 1),
        "reject": (JobState.DEAD, 1),
        "lookup": (JobState.DEAD, 1),
        "value": (JobState.DEAD, 3),
    }


class BrokenText(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


def recurse(depth: int) -> int:
    return recurse(depth + 1) + 1


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(1),
        KeyboardInterrupt(),
        GeneratorExit(),
        JobInterrupt(),
        BrokenText(),
        ValueError("x" * 5_000_000),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_handler_raises_ends_its_own_attempt_only(error: BaseException) -> None:
    """The attempt fails with what was raised, and the same thread runs the next job."""
    registry = Registry()

    @task(registry=registry, retry=ONCE)
    def fail() -> None:
        raise error

    @task(registry=registry)
    def fine() -> str:
        return "fine"

    with Harbor(MemoryDriver(), registry=registry) as harbor, harbor.worker_thread(concurrency=1):
        status = fail.enqueue().wait(ENOUGH)
        assert fine.enqueue().result(ENOUGH) == "fine"

    assert status.state is JobState.DEAD
    assert status.errors[0].type.endswith(type(error).__name__)
    assert len(status.errors[0].message) < 5_000


def test_a_thread_that_recurses_without_end_fails_alone() -> None:
    """The interpreter's own limit ends it."""
    registry = Registry()

    @task(registry=registry, retry=ONCE)
    def dive() -> int:
        return recurse(0)

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        job = dive.enqueue()
        harbor.run_until_idle()

        assert job.status().errors[0].type == "RecursionError"


def test_a_def_that_returns_a_coroutine_fails_and_is_told_to_be_async() -> None:
    """Nobody would await it; it is closed, so that no warning is given either."""
    registry = Registry()

    async def later() -> int:
        return 1

    @task(registry=registry, retry=ONCE)
    def forgot() -> int:
        return later()  # type: ignore[return-value] # pyright: ignore[reportReturnType]

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        job = forgot.enqueue()
        harbor.run_until_idle()
        (error,) = job.status().errors

    assert "async def" in error.message


def test_a_hundred_blocking_handlers_really_run_at_once() -> None:
    """Each waits for all the others."""
    registry, barrier = Registry(), threading.Barrier(100)

    @task(registry=registry, retry=ONCE)
    def meet() -> int:
        return barrier.wait(ENOUGH.total_seconds())

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        jobs = [meet.enqueue() for _ in range(100)]
        harbor.run_until_idle(concurrency=100)

        assert sorted(job.result() for job in jobs) == list(range(100))


def test_an_interrupt_lands_only_in_the_job_it_was_meant_for() -> None:
    """Thousands of short jobs whose timeouts race with their ends: each ends as itself, and no thread dies."""
    registry, meddled = Registry(), list[str]()
    crashed = list[str]()

    @task(registry=registry, timeout=1 * MS, retry=ONCE, keep_result=False)
    def race(length: int) -> None:
        for _ in range(length):
            pass

    @task(registry=registry, retry=ONCE)
    def bystander(number: int) -> int:
        try:
            total = 0
            for step in range(300):
                total += step
        except BaseException as error:
            meddled.append(repr(error))
            raise
        return number

    before = threading.excepthook

    def note(args: threading.ExceptHookArgs) -> None:
        crashed.append(repr(args))

    threading.excepthook = note
    try:
        with Harbor(MemoryDriver(), registry=registry, check=False) as harbor:
            racers = harbor.enqueue_many([race.s(length * 20) for length in range(2500)])
            bystanders = harbor.enqueue_many([bystander.s(number) for number in range(2500)])
            counts = harbor.run_until_idle(concurrency=4)

            ended = {job.status().state for job in racers}
            assert [job.result() for job in bystanders] == list(range(2500))
    finally:
        threading.excepthook = before

    assert ended <= {JobState.SUCCEEDED, JobState.DEAD}
    assert sum(counts.settled.values()) == 5000
    assert (meddled, crashed) == ([], [])


def test_cancels_that_race_with_ends_take_nothing_from_other_jobs() -> None:
    """Cancels told by the keeper's thread and timeouts told by the loop, upon jobs that are about to end."""
    registry, meddled = Registry(), list[str]()

    @task(registry=registry, retry=ONCE, keep_result=False, timeout=5 * MS)
    def race() -> None:
        for _ in range(20_000):
            pass

    @task(registry=registry, retry=ONCE, keep_result=False)
    def bystander() -> None:
        try:
            for _ in range(5_000):
                pass
        except BaseException as error:
            meddled.append(repr(error))
            raise

    with (
        Harbor(MemoryDriver(), registry=registry) as harbor,
        harbor.worker_thread(lease=100 * MS, concurrency=8),
    ):
        jobs = harbor.enqueue_many([race.s() for _ in range(600)])
        others = harbor.enqueue_many([bystander.s() for _ in range(600)])
        for job in jobs:
            job.cancel()
        for job in [*jobs, *others]:
            job.wait(ENOUGH)

        assert {job.status().state for job in others} == {JobState.SUCCEEDED}

    assert meddled == []


class Strike:
    """Interrupts a thread of the pool at one chosen bytecode where the interpreter lets exceptions in."""

    def __init__(self, at: int, pool: Threads) -> None:
        self.left = at
        self.struck = False
        self.pool = pool

    def __call__(self, frame: FrameType, event: str, arg: object) -> Any:
        ours = "worker/threads.py", "worker/interrupts.py", "test_worker_threads.py"
        if not frame.f_code.co_filename.endswith(ours):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and not self.struck and self.at_work():
            name = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            if name.startswith(("JUMP_BACKWARD", "POP_JUMP_BACKWARD", "RESUME", "CALL", "PRECALL")):
                self.left -= 1
                if self.left < 0:
                    self.struck = True
                    raise JobInterrupt
        return self

    def at_work(self) -> bool:
        threads = self.pool._all  # pyright: ignore[reportPrivateUsage]
        return bool(threads) and threads[0].run is not None


def a_run() -> Run:
    """Return what the pool needs of a run."""
    stand_in = SimpleNamespace(context=None, interrupt=None, plan=SimpleNamespace(in_process=False))
    return cast("Run", cast("object", stand_in))


def idle_handler(run: AnyRun) -> None:
    """Stand in for a handler."""


@pytest.mark.skipif(sys.gettrace() is not None, reason="something else is tracing")
def test_wherever_an_interrupt_lands_the_thread_lives_and_tells_of_the_end_once() -> None:
    """Each bytecode from a job's start until it has been left behind, one after the other."""
    crashed = list[str]()

    done = threading.Event()

    def note(args: threading.ExceptHookArgs) -> None:
        crashed.append(repr(args))
        done.set()

    before, threading.excepthook = threading.excepthook, note
    try:
        for at in range(200):
            ended, runs = list[AnyRun](), [a_run(), a_run()]

            def on_end(run: AnyRun, ended: list[AnyRun] = ended) -> None:
                ended.append(run)
                if len(ended) == 2:
                    done.set()

            done.clear()
            pool = Threads(1, idle_handler, on_end, copy_context())
            strike = Strike(at, pool)
            threading.settrace(strike)
            try:
                for run in runs:
                    pool.submit(run)
            finally:
                threading.settrace(cast("Any", None))
            done.wait(ENOUGH.total_seconds())
            pool.close()

            assert (crashed, ended) == ([], runs), f"struck at {at}"
            if at == 0 and not strike.struck and sys.version_info[:2] == (3, 12):
                pytest.skip("this Python traces no opcodes in a thread's frames")
            if not strike.struck:
                assert at > 5, "the trace saw next to nothing"
                return
    finally:
        threading.excepthook = before
    pytest.fail("a run has more places for an interrupt than were tried")


def test_a_thread_that_will_not_stop_keeps_its_slot_and_lease_and_is_settled_late() -> None:
    """Stop returns after grace and halt, names the job, and leaves only that one leased, until its handler ends."""
    registry, started, let_go = Registry(), threading.Event(), threading.Event()

    @task(registry=registry)
    def hang() -> None:
        started.set()
        let_go.wait()  # a C call: no exception gets in

    @task(registry=registry)
    def fine() -> None:
        """End at once."""

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        with harbor.worker_thread(lease=LEASE, grace=50 * MS, halt=100 * MS):
            job = hang.enqueue()
            await_event(started)
            fine.enqueue().wait(ENOUGH)
            began = time.monotonic()
        assert time.monotonic() - began < 5
        assert running(harbor) == [job.id]
        lease = harbor.look(job.id).lease_expires_at
        assert lease is not None
        eventually(lambda: (harbor.look(job.id).lease_expires_at or lease) > lease, "the next extend")

        let_go.set()

        # The interrupt lands as soon as the C call returns: it is handed back, its attempt given back.
        eventually(lambda: running(harbor) == [], "its settlement")
        assert (job.status().state, job.status().attempt) == (JobState.READY, 0)
        eventually(
            lambda: not threads_named("taskharbor-handler", "taskharbor-leases"), "the end of its threads"
        )


def test_a_thread_that_swallows_its_interrupt_does_not_keep_the_worker() -> None:
    """It is named and left; its job stays leased while it runs."""
    registry, started, let_go = Registry(), threading.Event(), threading.Event()

    @task(registry=registry)
    def swallow() -> None:
        started.set()
        while not let_go.is_set():
            try:
                spin(let_go.is_set)
            except JobInterrupt:
                continue

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        with harbor.worker_thread(lease=LEASE, grace=0 * MS, halt=600 * MS):
            job = swallow.enqueue()
            await_event(started)
        assert running(harbor) == [job.id]
        let_go.set()

        assert job.wait(ENOUGH).state is JobState.SUCCEEDED


def test_a_late_run_that_ends_while_outcomes_are_written_leaves_no_keeper_behind() -> None:
    """Between giving it up and the worker's end it is settled like any other."""
    registry, started, let_go = Registry(), threading.Event(), threading.Event()
    driver = TroubledDriver()

    @task(registry=registry)
    def hang() -> None:
        started.set()
        let_go.wait()

    @task(registry=registry)
    async def brief() -> None:
        await asyncio.Event().wait()

    with Harbor(driver, registry=registry) as harbor:
        with harbor.worker_thread(lease=LEASE, grace=0 * MS, halt=300 * MS):
            job, other = hang.enqueue(), brief.enqueue()
            await_event(started)
            eventually(lambda: harbor.look(other.id).state is JobState.RUNNING)
            refuse = fails(3, "job_settle")

            def before(verb: str, request: object) -> None:
                if verb == "job_settle" and threading.current_thread().name == "taskharbor-worker":
                    refuse(verb, request)
                    let_go.set()

            driver.before = before
        eventually(lambda: running(harbor) == [], "their settlement")
        assert job.status().state is JobState.READY

    eventually(lambda: not threads_named("taskharbor-leases"), "the end of the keeper")


class OneThread(Threads):
    """A pool of one thread, however many were asked for."""

    def __init__(
        self,
        limit: int,
        execute: Callable[[AnyRun], None],
        on_end: Callable[[AnyRun], None],
        base: ContextVars,
    ) -> None:
        super().__init__(1, execute, on_end, base)


def test_a_timeout_counts_from_the_start_of_the_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for a thread is not running: here, behind a job that ends after a timeout of that length was over."""
    registry, started, go_on = Registry(), threading.Event(), threading.Event()
    monkeypatch.setattr(execution, "Threads", OneThread)

    @task(registry=registry)
    def hold() -> None:
        started.set()
        await_event(go_on)

    @task(registry=registry, timeout=300 * MS, retry=ONCE)
    def waits() -> None:
        """End at once, once it has the thread."""

    @task(registry=registry, timeout=300 * MS, retry=ONCE)
    async def overruns() -> None:
        await asyncio.Event().wait()

    with Harbor(MemoryDriver(), registry=registry) as harbor, harbor.worker_thread(concurrency=3):
        hold.enqueue()
        await_event(started)
        waiting = waits.enqueue()
        eventually(lambda: waiting.status().state is JobState.RUNNING)
        assert overruns.enqueue().wait(ENOUGH).state is JobState.DEAD
        go_on.set()

        assert waiting.wait(ENOUGH).state is JobState.SUCCEEDED


def test_the_worker_and_its_threads_are_gone_when_the_block_ends() -> None:
    """No thread of ours is left, whatever ran."""
    registry, five = Registry(), threading.Barrier(5)

    @task(registry=registry)
    def work() -> None:
        five.wait(ENOUGH.total_seconds())

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        for _ in range(3):
            with harbor.worker_thread(concurrency=10):
                for job in [work.enqueue() for _ in range(50)]:
                    job.wait(ENOUGH)
        eventually(
            lambda: not threads_named("taskharbor-handler", "taskharbor-leases"), "the end of its threads"
        )
