"""Async handlers: however one ends, its job ends as the rules say, and the worker goes on."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from taskharbor import (
    BlockingCallError,
    Context,
    DeadlockError,
    Harbor,
    JobCancelled,
    JobFailed,
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
from taskharbor.driver import LeaseReclaim
from taskharbor.drivers.memory import MemoryDriver
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
    within,
)

ONCE = Retry(max_attempts=1)
AT_ONCE = Retry(max_attempts=3, base=timedelta(0))


def test_a_handler_that_runs_too_long_is_cancelled_and_its_attempt_fails() -> None:
    """A timeout reaches the handler as a cancel and is told as `JobTimeout`."""
    registry, seen = Registry(), list[str]()

    @task(registry=registry, timeout=50 * MS, retry=ONCE)
    async def dawdle() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        job = dawdle.enqueue()
        harbor.run_until_idle()

        with pytest.raises(JobFailed) as failed:
            job.result()

    assert seen == ["cancelled"]
    assert failed.value.error_type == "taskharbor.errors.JobTimeout"
    assert "0:00:00.05" in failed.value.error_message


@pytest.mark.parametrize("kind", [JobTimeout, TimeoutError])
def test_a_retry_policy_may_treat_timeouts_apart(kind: type[BaseException]) -> None:
    """`Retry.on` finds a timeout by `JobTimeout`, or by `TimeoutError` along its MRO."""
    registry = Registry()

    @task(registry=registry, timeout=30 * MS, retry=Retry(max_attempts=5, on={kind: Retry.never}))
    async def dawdle() -> None:
        await asyncio.Event().wait()

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        job = dawdle.enqueue()
        harbor.run_until_idle()

        assert (job.status().state, job.status().attempt) == (JobState.DEAD, 1)


def test_a_running_handler_is_told_of_a_cancel_within_a_third_of_a_lease() -> None:
    """The heartbeat brings the cancel; the job ends cancelled, with the reason given."""
    registry, started = Registry(), threading.Event()

    @task(registry=registry)
    async def wait_for_ever() -> None:
        started.set()
        await asyncio.Event().wait()

    with Harbor(MemoryDriver(), registry=registry) as harbor, harbor.worker_thread(lease=LEASE):
        job = wait_for_ever.enqueue()
        await_event(started)

        assert job.cancel("no longer wanted")

        with pytest.raises(JobCancelled, match="no longer wanted"):
            job.result(ENOUGH)


def test_a_success_beats_a_cancel_that_the_handler_swallowed() -> None:
    """A handler may finish its work after it was told; what it returns counts."""
    registry, started = Registry(), threading.Event()

    @task(registry=registry)
    async def finish_anyway() -> str:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
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
    async def clean_up_badly() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise error

    with Harbor(MemoryDriver(), registry=registry) as harbor, harbor.worker_thread(lease=LEASE):
        job = clean_up_badly.enqueue()
        await_event(started)
        job.cancel()

        assert job.wait(ENOUGH).state is JobState.CANCELLED


def test_a_cancel_is_delivered_once_so_that_a_clean_up_can_end() -> None:
    """Later heartbeats tell of the same cancel, and do not interrupt the handler's clean-up again."""
    registry, started = Registry(), threading.Event()
    interrupts, driver = list[str](), TroubledDriver()
    heartbeats = threading.Semaphore(0)

    @task(registry=registry)
    async def clean_up() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            interrupts.append("first")
            driver.after = beat
            try:
                await asyncio.to_thread(await_three)
            except asyncio.CancelledError:
                interrupts.append("again")
                raise

    def beat(verb: str, request: object) -> None:
        if verb == "lease_extend":
            heartbeats.release()

    def await_three() -> None:
        # What the last one brings is told once it has been answered, so before the next is asked.
        for _ in range(3):
            assert heartbeats.acquire(timeout=ENOUGH.total_seconds())

    with Harbor(driver, registry=registry) as harbor, harbor.worker_thread(lease=LEASE):
        job = clean_up.enqueue()
        await_event(started)
        job.cancel()

        assert job.wait(ENOUGH).state is JobState.CANCELLED

    assert interrupts == ["first"]


def test_a_job_cancelled_before_it_started_never_runs() -> None:
    """It ends at once, and no worker sees it."""
    registry, ran = Registry(), list[int]()

    @task(registry=registry)
    async def run() -> None:
        ran.append(1)

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        job = run.enqueue()
        assert job.cancel()
        assert job.status().state is JobState.CANCELLED
        harbor.run_until_idle()

    assert ran == []


def test_a_buffered_job_that_is_cancelled_never_runs() -> None:
    """Reserved and not started yet, it is cancelled by the heartbeat."""
    registry, started, ran = Registry(), threading.Event(), list[str]()
    gate = threading.Event()

    @task(registry=registry)
    async def hold() -> None:
        started.set()
        await asyncio.to_thread(gate.wait)

    @task(registry=registry)
    async def run() -> None:
        ran.append("ran")

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        first, second = hold.enqueue(), run.enqueue()
        with harbor.worker_thread(lease=LEASE, concurrency=1, prefetch=5):
            await_event(started)
            eventually(lambda: second.status().state is JobState.RUNNING, "its reserve")
            second.cancel()
            assert second.wait(ENOUGH).state is JobState.CANCELLED
            gate.set()
            first.wait(ENOUGH)

    assert ran == []


def test_a_snooze_spends_no_attempt_and_waits_by_the_stores_clock() -> None:
    """It runs again once the clock has come to the time it asked for, as the same attempt."""
    registry, clock, attempts = Registry(), ManualClock(), list[int]()

    @task(registry=registry)
    async def not_yet(ctx: Context) -> str:
        attempts.append(ctx.attempt)
        if len(attempts) < 3:
            raise Snooze(for_=HOUR)
        return "now"

    with Harbor(MemoryDriver(clock), registry=registry) as harbor:
        job = not_yet.enqueue()
        harbor.run_until_idle()
        assert job.status().state is JobState.SCHEDULED
        clock.advance(HOUR - MS)
        harbor.run_until_idle()
        assert len(attempts) == 1
        clock.advance(MS)
        harbor.run_until_idle()
        clock.advance(HOUR)
        harbor.run_until_idle()

        assert job.result() == "now"

    assert attempts == [1, 1, 1]


def test_a_retry_asked_for_takes_the_time_asked_for_and_spends_an_attempt() -> None:
    """`RetryLater` overrides the backoff and not the number of attempts."""
    registry, clock, attempts = Registry(), ManualClock(), list[int]()

    @task(registry=registry, retry=Retry(max_attempts=2, base=timedelta(0)))
    async def later(ctx: Context) -> None:
        attempts.append(ctx.attempt)
        raise RetryLater(after=HOUR, reason="too busy")

    with Harbor(MemoryDriver(clock), registry=registry) as harbor:
        job = later.enqueue()
        harbor.run_until_idle()
        assert job.status().state is JobState.RETRYING
        clock.advance(HOUR - MS)
        harbor.run_until_idle()
        assert attempts == [1]
        clock.advance(MS)
        harbor.run_until_idle()

        assert (job.status().state, attempts) == (JobState.DEAD, [1, 2])
        assert [error.message for error in job.status().errors] == ["too busy", "too busy"]


def test_a_reject_is_a_dead_letter_at_once() -> None:
    """Whatever attempts are left, and with the reason given."""
    registry = Registry()

    @task(registry=registry, retry=AT_ONCE)
    async def refuse() -> None:
        raise Reject("no such customer")

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        job = refuse.enqueue()
        harbor.run_until_idle()

        assert (job.status().state, job.status().attempt) == (JobState.DEAD, 1)
        assert job.status().reason == "no such customer"


def test_the_nearest_class_of_an_exception_chooses_its_policy() -> None:
    """`Retry.on` is looked up along the MRO; without a match the task's own numbers decide."""
    registry, clock = Registry(), ManualClock()
    on: dict[type[BaseException], Retry] = {
        LookupError: Retry.never,
        KeyError: Retry(max_attempts=2, base=timedelta(0), jitter=False),
    }

    @task(registry=registry, retry=Retry(max_attempts=3, base=timedelta(0), on=on))
    async def fail(how: str) -> None:
        raise {"key": KeyError, "index": IndexError, "value": ValueError}[how]("x")

    with Harbor(MemoryDriver(clock), registry=registry) as harbor:
        jobs = {how: fail.enqueue(how) for how in ("key", "index", "value")}
        harbor.run_until_idle()

        assert {how: job.status().attempt for how, job in jobs.items()} == {"key": 2, "index": 1, "value": 3}
        assert {job.status().state for job in jobs.values()} == {JobState.DEAD}


def test_the_backoff_is_kept_to_by_the_stores_clock() -> None:
    """10, 20 and 40 seconds: never a moment early."""
    registry, clock, attempts = Registry(), ManualClock(), list[int]()
    retry = Retry(max_attempts=4, base=10 * SECOND, factor=2.0, jitter=False)

    @task(registry=registry, retry=retry)
    async def fail(ctx: Context) -> None:
        attempts.append(ctx.attempt)
        raise ValueError("again")

    with Harbor(MemoryDriver(clock), registry=registry) as harbor:
        job = fail.enqueue()
        harbor.run_until_idle()
        for attempt, wait in enumerate((10, 20, 40), start=1):
            clock.advance(wait * SECOND - MS)
            harbor.run_until_idle()
            assert attempts == list(range(1, attempt + 1))
            clock.advance(MS)
            harbor.run_until_idle()
            assert attempts == list(range(1, attempt + 2))

        assert job.status().state is JobState.DEAD


def test_a_worker_that_waits_is_woken_when_the_clock_is_turned() -> None:
    """A scheduled job runs when its time comes, and not before."""
    registry, clock = Registry(), ManualClock()

    @task(registry=registry)
    async def run() -> str:
        return "ran"

    with Harbor(MemoryDriver(clock), registry=registry) as harbor, harbor.worker_thread():
        job = run.options(run_in=HOUR).enqueue()
        assert job.status().state is JobState.SCHEDULED
        clock.advance(HOUR)

        assert job.result(ENOUGH) == "ran"


def test_a_job_whose_attempts_are_used_up_is_dead_and_tells_of_each() -> None:
    """Every error is kept, oldest first; the caller gets the last, with its remote traceback."""
    registry = Registry()

    @task(registry=registry, retry=AT_ONCE)
    async def fail(ctx: Context) -> None:
        raise ValueError(f"broken {ctx.attempt}")

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        job = fail.enqueue()
        harbor.run_until_idle()
        with pytest.raises(JobFailed) as failed:
            job.result()

        assert [error.message for error in job.status().errors] == ["broken 1", "broken 2", "broken 3"]
        assert [error.attempt for error in job.status().errors] == [1, 2, 3]

    error = failed.value
    assert (error.error_type, error.error_message) == ("ValueError", "broken 3")
    assert (error.attempts, error.reason, error.job_id) == (3, "attempts used up", job.id)
    assert "in fail" in error.remote_traceback
    assert "taskharbor/worker" not in error.remote_traceback


class Upset(BaseException):
    """No `Exception`."""


class BrokenText(Exception):
    """Cannot be told."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class BrokenTextBadly(Exception):
    """Ends whoever asks for its text, or tries to."""

    def __str__(self) -> str:
        raise SystemExit(3)


class NoText(Exception):
    """Its text is no text."""

    def __str__(self) -> str:
        return 3  # type: ignore[return-value] # pyright: ignore[reportReturnType] # noqa: PLE0307


def recurse(depth: int) -> int:
    return recurse(depth + 1) + 1


ODD_ERRORS: list[BaseException] = [
    SystemExit(1),
    KeyboardInterrupt(),
    GeneratorExit(),
    asyncio.CancelledError(),
    StopAsyncIteration(),
    Upset("upset"),
    BrokenText(),
    BrokenTextBadly(),
    NoText(),
    ValueError("x" * 5_000_000),
    ValueError("half a pair \udc80 and a NUL \x00"),
    ExceptionGroup("several", [ValueError("one"), KeyError("two")]),
]


@pytest.mark.parametrize("error", ODD_ERRORS, ids=lambda error: type(error).__name__)
def test_whatever_a_handler_raises_ends_its_own_attempt_only(error: BaseException) -> None:
    """The attempt fails with what was raised, bounded in size, and the worker runs the next job."""
    registry = Registry()

    @task(registry=registry, retry=ONCE)
    async def fail() -> None:
        raise error

    @task(registry=registry)
    async def fine() -> str:
        return "fine"

    with Harbor(MemoryDriver(), registry=registry) as harbor, harbor.worker_thread():
        job = fail.enqueue()
        status = job.wait(ENOUGH)
        assert fine.enqueue().result(ENOUGH) == "fine"

    assert status.state is JobState.DEAD
    assert status.errors[0].type.endswith(type(error).__name__)
    assert len(status.errors[0].message) < 5_000
    assert len(status.errors[0].traceback) < 20_000


def test_a_handler_that_recurses_without_end_fails_alone() -> None:
    """The interpreter's own limit ends it; its traceback is cut to size."""
    registry = Registry()

    @task(registry=registry, retry=ONCE)
    async def dive() -> int:
        return recurse(0)

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        job = dive.enqueue()
        harbor.run_until_idle()

        assert job.status().errors[0].type == "RecursionError"
        assert len(job.status().errors[0].traceback) < 20_000


def test_a_child_task_that_calls_sys_exit_does_not_end_the_worker() -> None:
    """asyncio raises a task's `SystemExit` out of the loop as well; a worker's own loop goes on all the same."""
    registry = Registry()

    async def leave() -> None:
        raise SystemExit(5)

    @task(registry=registry, retry=ONCE)
    async def fail() -> None:
        await asyncio.create_task(leave())

    @task(registry=registry)
    async def fine() -> str:
        return "fine"

    with Harbor(MemoryDriver(), registry=registry) as harbor, harbor.worker_thread():
        job = fail.enqueue()

        assert job.wait(5 * SECOND).state is JobState.DEAD
        assert fine.enqueue().result(5 * SECOND) == "fine"


def test_asyncio_tasks_that_a_handler_left_behind_do_not_keep_the_worker() -> None:
    """They are cancelled when the worker's loop ends; one that swallows its cancellation is left."""
    registry, let_go = Registry(), threading.Event()

    async def stubborn() -> None:
        while not let_go.is_set():
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue

    async def mild() -> None:
        await asyncio.Event().wait()

    kept = list[asyncio.Task[None]]()

    @task(registry=registry)
    async def leak() -> int:
        kept.append(asyncio.create_task(stubborn(), name="stubborn"))
        kept.append(asyncio.create_task(mild(), name="mild"))
        await asyncio.sleep(0)
        return len(kept)

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        job = leak.enqueue()
        done = threading.Event()

        def work() -> None:
            harbor.run_until_idle()
            done.set()

        threading.Thread(target=work, daemon=True).start()
        await_event(done)

        assert job.result() == 2
    assert kept[1].cancelled()
    let_go.set()
    kept[0].get_coro().close()


def test_a_result_of_the_wrong_type_fails_the_attempt_and_says_so() -> None:
    """What a handler returns is checked against what it declares."""
    registry = Registry()

    class Receipt(msgspec.Struct):
        number: int

    @task(registry=registry, retry=ONCE)
    async def lie() -> Receipt:
        return "a receipt"  # type: ignore[return-value] # pyright: ignore[reportReturnType]

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        job = lie.enqueue()
        harbor.run_until_idle()
        (error,) = job.status().errors

    assert error.type == "taskharbor.errors.PayloadError"
    assert "it returned a str" in error.message


place = contextvars.ContextVar("place", default="untouched")


def test_no_job_sees_the_context_variables_that_another_has_set() -> None:
    """Each handler, async or in a thread, starts from the worker's own context."""
    registry, seen = Registry(), list[str]()

    @task(registry=registry)
    async def change(value: str) -> None:
        seen.append(place.get())
        place.set(value)
        await asyncio.sleep(0)
        assert place.get() == value

    @task(registry=registry)
    def change_in_thread(value: str) -> None:
        seen.append(place.get())
        place.set(value)

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        for number in range(20):
            change.enqueue(f"a{number}")
            change_in_thread.enqueue(f"t{number}")
        harbor.run_until_idle(concurrency=3)

    assert seen == ["untouched"] * 40


def test_handlers_enqueue_in_their_own_colour() -> None:
    """`aenqueue` in async handlers and `enqueue` in threads; the harbor is current in both."""
    registry, ran = Registry(), list[str]()

    @task(registry=registry)
    async def leaf(where: str) -> None:
        ran.append(where)

    @task(registry=registry)
    async def from_async() -> None:
        await leaf.aenqueue("async")

    @task(registry=registry)
    def from_thread() -> None:
        leaf.enqueue("thread")

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        from_async.enqueue()
        from_thread.enqueue()
        harbor.run_until_idle()

    assert sorted(ran) == ["async", "thread"]


def test_waiting_for_another_job_inside_a_handler_is_refused() -> None:
    """It would hold a slot that the other job may need."""
    registry = Registry()

    @task(registry=registry)
    async def leaf() -> int:
        return 1

    @task(registry=registry, retry=ONCE)
    async def wait_async() -> int:
        return await (await leaf.aenqueue()).aresult()

    @task(registry=registry, retry=ONCE)
    def wait_in_thread() -> int:
        return leaf.enqueue().result()

    @task(registry=registry, retry=ONCE)
    async def wait_aside() -> int:
        handle = await leaf.aenqueue()
        return await asyncio.to_thread(handle.result)

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        jobs = [wait_async.enqueue(), wait_in_thread.enqueue(), wait_aside.enqueue()]
        harbor.run_until_idle()

        for job in jobs:
            assert job.status().errors[0].type.endswith(DeadlockError.__name__), job


def test_a_blocking_call_in_an_async_handler_is_refused_and_names_the_other_form() -> None:
    """It would stop the loop that every other handler runs on."""
    registry = Registry()

    @task(registry=registry)
    async def leaf() -> int:
        return 1

    @task(registry=registry, retry=ONCE)
    async def block() -> None:
        leaf.enqueue()

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        job = block.enqueue()
        harbor.run_until_idle()
        (error,) = job.status().errors

    assert error.type.endswith(BlockingCallError.__name__)
    assert "aenqueue" in error.message


def test_a_handler_that_was_reserved_again_here_is_still_watched_when_the_old_run_ends() -> None:
    """Its lease was lost and won back by the same worker: the end of the first run is not the end of the second."""
    registry = Registry()

    async def main() -> None:
        first_may_end, second_runs = asyncio.Event(), asyncio.Event()
        runs = list[int]()

        @task(registry=registry)
        async def work(ctx: Context) -> None:
            runs.append(ctx.fence)
            if len(runs) == 1:
                while not first_may_end.is_set():
                    try:
                        await first_may_end.wait()
                    except asyncio.CancelledError:
                        continue
                return
            second_runs.set()
            await asyncio.Event().wait()

        driver = MemoryDriver()
        async with (
            Harbor(driver, registry=registry) as harbor,
            driver.connect() as store,
            harbor.worker(lease=LEASE, grace=0 * MS, halt=300 * MS) as worker,
        ):
            job = await work.aenqueue()
            await aeventually(lambda: len(runs) == 1, "the first run")
            await store.lease_reclaim(LeaseReclaim(observed=HOUR, now=datetime.now(UTC) + SECOND))
            # Ready, or retrying after a backoff of up to a second.
            await within(second_runs.wait())
            first_may_end.set()
            await aeventually(lambda: worker.counts.stale == 1, "the first run's settle")

            await job.acancel()

            assert (await job.await_(5 * SECOND)).state is JobState.CANCELLED
        assert len(runs) == 2

    asyncio.run(main())
