"""What a worker makes of the store: real handlers, real time. The rest of the suite needs neither.

These cases wait for what the code signals, never longer than `PATIENCE`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import TypeVar

from taskharbor import (
    Context,
    Harbor,
    JobRecord,
    JobState,
    JobTimeout,
    Registry,
    Reject,
    Retry,
    RetryLater,
    Signature,
    Snooze,
    task,
)
from taskharbor.driver import JobEnqueue, JobGet, QueueList, WorkerList
from taskharbor_conformance.bench import HOUR, NOW, SECOND, Bench, new_job
from taskharbor_conformance.case import case

T = TypeVar("T")

PATIENCE = 15.0
"""Seconds that anything may take. Far longer than it does, so that only what never comes fails."""
LEASE = 3 * SECOND
"""Short, so that a cancel is told within a second; long enough for a slow machine."""
AT_ONCE = Retry(max_attempts=3, base=NOW)


@asynccontextmanager
async def _harbor(bench: Bench, registry: Registry) -> AsyncGenerator[Harbor]:
    """Hand the bench's driver over to a harbor for the rest of the case."""
    await bench.close()  # the harbor closes the driver, so no store may be left open on it
    harbor = Harbor(bench.driver, registry=registry)
    try:
        yield harbor
    finally:
        await harbor.aclose()


async def _within(waiting: Awaitable[T], what: str) -> T:
    try:
        return await asyncio.wait_for(waiting, PATIENCE)
    except TimeoutError as error:
        raise AssertionError(f"{what}: not within {PATIENCE:.0f} s") from error


async def _become_ready(harbor: Harbor, ids: list[str]) -> None:
    loop, woken = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        loop.call_soon_threadsafe(woken.set)

    watch = harbor.driver.watch_queues(["default"], wake)
    try:
        while {(await harbor.jobs.aget(job_id)).state for job_id in ids} != {JobState.READY}:
            await woken.wait()
            woken.clear()
    finally:
        watch.close()


async def _nothing_is_leased(harbor: Harbor) -> None:
    workers = await harbor.aask(lambda store: store.worker_list(WorkerList()))
    queues = await harbor.aask(lambda store: store.queue_list(QueueList()))
    assert ([], 0) == ([worker.worker for worker in workers], sum(queue.running for queue in queues))


# --- attempts


@case("4.4")
async def the_start_of_a_guarded_job_is_written_before_it_runs(bench: Bench) -> None:
    registry = Registry()
    known: list[bool] = []

    @task(name="only.once", retry=Retry(max_attempts=1), registry=registry)
    async def only_once(ctx: Context) -> None:
        async with bench.driver.connect() as store:
            (record,) = await store.job_get(JobGet(ids=[ctx.job_id]))
            known.append(record is not None and record.started)

    async with _harbor(bench, registry) as harbor:
        await harbor.aenqueue_many([only_once.s()])
        await _within(harbor.arun_until_idle(), "the worker runs idle")

    assert [True] == known


@case("4.4", "4.3")
async def a_handler_that_snoozes_runs_again_without_spending_an_attempt(bench: Bench) -> None:
    registry = Registry()
    seen: list[tuple[int, int]] = []

    @task(name="not.yet", retry=Retry(max_attempts=1), registry=registry)
    async def not_yet(ctx: Context) -> str:
        seen.append((ctx.attempt, ctx.fence))
        if len(seen) < 3:
            raise Snooze(NOW)
        return "done"

    async with _harbor(bench, registry) as harbor:
        (handle,) = await harbor.aenqueue_many([not_yet.s()])
        await _within(harbor.arun_until_idle(), "the worker runs idle")
        result = await _within(handle.aresult(), "the result")

    fences = [fence for _, fence in seen]
    assert ("done", [1, 1, 1]) == (result, [attempt for attempt, _ in seen])
    assert sorted(set(fences)) == fences


@case("4.6", "4.7")
async def a_handler_that_fails_is_tried_as_often_as_its_policy_says(bench: Bench) -> None:
    registry = Registry()
    attempts: list[int] = []

    @task(name="fails", retry=AT_ONCE, registry=registry)
    def fails(ctx: Context) -> None:
        attempts.append(ctx.attempt)
        raise KeyError(f"attempt {ctx.attempt}")

    async with _harbor(bench, registry) as harbor:
        (handle,) = await harbor.aenqueue_many([fails.s()])
        await _within(harbor.arun_until_idle(), "the worker runs idle")
        record = await harbor.jobs.aget(handle.id)

    assert ([1, 2, 3], JobState.DEAD, 3) == (attempts, record.state, record.attempt)
    assert [1, 2, 3] == [error.attempt for error in record.errors]
    assert all(error.type == "KeyError" and "attempt" in error.message for error in record.errors)
    assert all("fails" in error.traceback for error in record.errors)


@case("4.6")
async def a_policy_for_an_exception_type_comes_before_the_tasks_own(bench: Bench) -> None:
    registry = Registry()
    attempts: list[str] = []

    @task(
        name="picky",
        retry=Retry(max_attempts=3, base=NOW, on={LookupError: Retry.never}),
        registry=registry,
    )
    async def picky(kind: str) -> None:
        attempts.append(kind)
        raise KeyError(kind) if kind == "hopeless" else ValueError(kind)

    async with _harbor(bench, registry) as harbor:
        hopeless, other = await harbor.aenqueue_many([picky.s("hopeless"), picky.s("other")])
        await _within(harbor.arun_until_idle(), "the worker runs idle")
        states = [(await harbor.jobs.aget(handle.id)).state for handle in (hopeless, other)]

    assert (1, 3) == (attempts.count("hopeless"), attempts.count("other"))
    assert [JobState.DEAD, JobState.DEAD] == states


@case("4.6")
async def a_handler_may_say_when_to_try_again(bench: Bench) -> None:
    registry = Registry()

    @task(name="later", retry=AT_ONCE, registry=registry)
    async def later() -> None:
        raise RetryLater(HOUR)

    async with _harbor(bench, registry) as harbor:
        (handle,) = await harbor.aenqueue_many([later.s()])
        await _within(harbor.arun_until_idle(), "the worker runs idle")
        record = await harbor.jobs.aget(handle.id)

    assert (JobState.RETRYING, 1, 1) == (record.state, record.attempt, len(record.errors))


@case("4.7")
async def a_handler_may_reject_its_job_for_good(bench: Bench) -> None:
    registry = Registry()

    @task(name="rejects", retry=AT_ONCE, registry=registry)
    async def rejects() -> None:
        raise Reject("no such order")

    async with _harbor(bench, registry) as harbor:
        (handle,) = await harbor.aenqueue_many([rejects.s()])
        await _within(harbor.arun_until_idle(), "the worker runs idle")
        record = await harbor.jobs.aget(handle.id)

    assert (JobState.DEAD, "no such order", 1) == (record.state, record.reason, record.attempt)


@case("4.5", "4.2")
async def a_handler_that_blocks_the_event_loop_keeps_its_lease(bench: Bench) -> None:
    registry = Registry()
    lease = SECOND
    expiries: set[datetime | None] = set()

    async def watch(job_id: str) -> None:
        async with bench.driver.connect() as store, asyncio.timeout(PATIENCE):
            while len(expiries) < 5:  # at a third of a lease each, so longer than a whole one
                (record,) = await store.job_get(JobGet(ids=[job_id]))
                if record is not None:
                    expiries.add(record.lease_expires_at)
                # Nothing signals an extend to others; this looks every hundredth of a second.
                await asyncio.sleep(0.01)

    @task(name="blocks", registry=registry)
    async def blocks(ctx: Context) -> None:
        thread = threading.Thread(target=lambda: asyncio.run(watch(ctx.job_id)))
        thread.start()
        thread.join(PATIENCE)  # which blocks the loop

    async with _harbor(bench, registry) as harbor:
        (handle,) = await harbor.aenqueue_many([blocks.s()])
        await _within(harbor.arun_until_idle(lease=lease), "the worker runs idle")
        record = await harbor.jobs.aget(handle.id)

    assert len(expiries) >= 5, "the lease was extended while the loop was blocked"
    assert (JobState.SUCCEEDED, 1, 1) == (record.state, record.deliveries, record.attempt)


# --- cancel and timeout


async def _cancelled_while_running(
    bench: Bench, registry: Registry, signature: Signature[object], started: threading.Event
) -> JobRecord:
    """Run the call, ask for a cancel once its handler has started, and return how the job ended."""
    async with _harbor(bench, registry) as harbor:
        (handle,) = await harbor.aenqueue_many([signature])
        async with harbor.worker(lease=LEASE, grace=SECOND):
            assert await asyncio.to_thread(started.wait, PATIENCE), "the handler starts"
            await harbor.jobs.acancel([handle.id], reason="not needed")
            return await harbor.aawait_end(handle.id, timedelta(seconds=PATIENCE))


@case("4.11")
async def a_running_async_handler_is_cancelled_at_its_next_await(bench: Bench) -> None:
    registry = Registry()
    started = threading.Event()
    ended: list[str] = []

    @task(name="waits", registry=registry)
    async def waits() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cleaned up")

    record = await _cancelled_while_running(bench, registry, waits.s(), started)

    assert (JobState.CANCELLED, "not needed", ["cleaned up"]) == (record.state, record.reason, ended)


@case("4.11")
async def a_running_handler_in_a_thread_is_interrupted_at_its_next_bytecode(bench: Bench) -> None:
    registry = Registry()
    started = threading.Event()
    ended: list[str] = []

    @task(name="spins", registry=registry)
    def spins() -> None:
        started.set()
        try:
            never = threading.Event()
            while True:
                never.wait(0.01)
        finally:
            ended.append("cleaned up")

    record = await _cancelled_while_running(bench, registry, spins.s(), started)

    assert (JobState.CANCELLED, "not needed", ["cleaned up"]) == (record.state, record.reason, ended)


@case("4.11")
async def a_handler_in_a_thread_can_see_that_it_should_stop(bench: Bench) -> None:
    registry = Registry()
    started = threading.Event()
    seen: list[bool] = []

    @task(name="looks", registry=registry)
    def looks(ctx: Context) -> None:
        started.set()
        never = threading.Event()
        try:
            while not ctx.cancelled:
                never.wait(0.01)
        finally:
            seen.append(ctx.cancelled)
        ctx.raise_if_cancelled()

    record = await _cancelled_while_running(bench, registry, looks.s(), started)

    assert (JobState.CANCELLED, [True]) == (record.state, seen)


@case("4.11")
async def a_handler_that_returns_in_spite_of_a_cancel_has_succeeded(bench: Bench) -> None:
    registry = Registry()
    started = threading.Event()

    @task(name="finishes", registry=registry)
    async def finishes() -> str:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "done all the same"
        return "never"

    record = await _cancelled_while_running(bench, registry, finishes.s(), started)

    assert (JobState.SUCCEEDED, b'"done all the same"') == (record.state, record.result)


@case("4.12", "4.6")
async def an_attempt_that_runs_too_long_has_failed(bench: Bench) -> None:
    registry = Registry()
    retry = Retry(max_attempts=2, base=NOW)

    @task(name="slow", timeout=SECOND / 10, retry=retry, registry=registry)
    async def slow() -> None:
        await asyncio.Event().wait()

    @task(name="slow.thread", timeout=SECOND / 10, retry=retry, registry=registry)
    def slow_thread() -> None:
        never = threading.Event()
        while True:
            never.wait(0.01)

    async with _harbor(bench, registry) as harbor:
        handles = await harbor.aenqueue_many([slow.s(), slow_thread.s()])
        await _within(harbor.arun_until_idle(), "the worker runs idle")
        records = [await harbor.jobs.aget(handle.id) for handle in handles]

    for record in records:
        assert (JobState.DEAD, 2) == (record.state, record.attempt), record.task
        assert ["JobTimeout"] * 2 == [error.type.rpartition(".")[2] for error in record.errors]


@case("4.12")
async def a_policy_may_treat_timeouts_apart(bench: Bench) -> None:
    registry = Registry()
    retry = Retry(max_attempts=5, base=NOW, on={JobTimeout: Retry.never})

    @task(name="slow", timeout=SECOND / 10, retry=retry, registry=registry)
    async def slow() -> None:
        await asyncio.Event().wait()

    async with _harbor(bench, registry) as harbor:
        (handle,) = await harbor.aenqueue_many([slow.s()])
        await _within(harbor.arun_until_idle(), "the worker runs idle")
        record = await harbor.jobs.aget(handle.id)

    assert (JobState.DEAD, 1) == (record.state, record.attempt)


# --- rolling deploys


@case("4.16")
async def a_worker_leaves_a_task_it_does_not_know_to_one_that_does(bench: Bench) -> None:
    old, new = Registry(), Registry()

    @task(name="video.cut", registry=new)
    async def cut(seconds: int) -> int:
        return seconds

    async with _harbor(bench, new) as harbor:
        (handle,) = await harbor.aenqueue_many([cut.s(7)])
        behind = Harbor(bench.driver, registry=old)
        await _within(behind.arun_until_idle(), "the old worker runs idle")
        parked = await harbor.jobs.aget(handle.id)
        await _within(harbor.arun_until_idle(), "the new worker runs idle")
        result = await _within(handle.aresult(), "the result")

    assert (JobState.PARKED, 0) == (parked.state, parked.attempt)
    assert "video.cut" in parked.reason
    assert 7 == result


@case("4.16")
async def a_worker_leaves_a_payload_of_another_build_to_that_build(bench: Bench) -> None:
    old, new = Registry(), Registry()

    @task(name="greet", registry=old)
    async def greet_by_number(who: int) -> str:
        return f"number {who}"

    @task(name="greet", registry=new)
    async def greet_by_name(who: str) -> str:
        return who

    async with _harbor(bench, new) as harbor:
        (handle,) = await harbor.aenqueue_many([greet_by_name.s("ada")])
        behind = Harbor(bench.driver, registry=old)
        await _within(behind.arun_until_idle(), "the old worker runs idle")
        parked = await harbor.jobs.aget(handle.id)
        await _within(harbor.arun_until_idle(), "the new worker runs idle")
        result = await _within(handle.aresult(), "the result")

    assert (JobState.PARKED, 0, 1) == (parked.state, parked.attempt, len(parked.refused_by))
    assert "ada" == result
    assert greet_by_number.name == greet_by_name.name


@case("4.16", "4.7")
async def a_payload_that_the_workers_own_build_cannot_decode_is_a_dead_letter(bench: Bench) -> None:
    registry = Registry()

    @task(name="greet", registry=registry)
    async def greet(who: str) -> str:
        return who

    async with _harbor(bench, registry) as harbor:
        broken = new_job(
            task=greet.name, payload=b"not JSON", fingerprint=harbor.task(greet.name).fingerprint
        )
        await harbor.aask(lambda store: store.job_enqueue(JobEnqueue(jobs=[broken])))
        await _within(harbor.arun_until_idle(), "the worker runs idle")
        record = await harbor.jobs.aget(broken.id)

    assert (JobState.DEAD, b"not JSON", 1) == (record.state, record.payload, len(record.errors))


# --- shutdown


@case("4.19")
async def a_drain_lets_running_handlers_finish_and_hands_back_the_rest(bench: Bench) -> None:
    registry = Registry()
    started, finish = asyncio.Event(), asyncio.Event()

    @task(name="works", registry=registry)
    async def works(number: int) -> int:
        started.set()
        await finish.wait()
        return number

    async with _harbor(bench, registry) as harbor:
        handles = await harbor.aenqueue_many([works.s(number) for number in range(5)])
        async with harbor.worker(concurrency=1, prefetch=3) as worker:
            await _within(started.wait(), "a handler starts")
            worker.drain()
            # Only once the rest has been handed back: the running one is still at work then.
            await _within(
                _become_ready(harbor, [handle.id for handle in handles[1:]]), "the rest is handed back"
            )
            assert JobState.RUNNING == (await handles[0].astatus()).state
            finish.set()
            await _within(worker.stop(), "the worker stops")
        records = [await harbor.jobs.aget(handle.id) for handle in handles]
        await _nothing_is_leased(harbor)

    assert [JobState.SUCCEEDED] + [JobState.READY] * 4 == [record.state for record in records]
    assert [1, 0, 0, 0, 0] == [record.attempt for record in records]


@case("4.19", "4.4")
async def a_hard_stop_cancels_what_runs_and_gives_its_attempt_back(bench: Bench) -> None:
    registry = Registry()
    started = [asyncio.Event(), asyncio.Event()]

    @task(name="endless", registry=registry)
    async def endless() -> None:
        started[0].set()
        await asyncio.Event().wait()

    @task(name="endless.once", retry=Retry(max_attempts=1), registry=registry)
    async def endless_once() -> None:
        started[1].set()
        await asyncio.Event().wait()

    async with _harbor(bench, registry) as harbor:
        handles = await harbor.aenqueue_many([endless.s(), endless_once.s()])
        async with harbor.worker() as worker:
            for event in started:
                await _within(event.wait(), "the handlers start")
            worker.halt()
            unfinished = await _within(worker.stop(), "the worker stops")
        again, once = [await harbor.jobs.aget(handle.id) for handle in handles]
        await _nothing_is_leased(harbor)

    assert [] == unfinished
    assert (JobState.READY, 0, ()) == (again.state, again.attempt, again.errors)
    assert (JobState.DEAD, "interrupted") == (once.state, once.reason)


@case("4.19")
async def the_grace_ends_by_itself(bench: Bench) -> None:
    registry = Registry()
    started = threading.Event()

    @task(name="spins", registry=registry)
    def spins() -> None:
        started.set()
        never = threading.Event()
        while True:
            never.wait(0.01)

    async with _harbor(bench, registry) as harbor:
        (handle,) = await harbor.aenqueue_many([spins.s()])
        async with harbor.worker(grace=NOW) as worker:
            assert await asyncio.to_thread(started.wait, PATIENCE), "the handler starts"
            unfinished = await _within(worker.stop(), "the worker stops")
        record = await harbor.jobs.aget(handle.id)
        await _nothing_is_leased(harbor)

    assert ([], JobState.READY, 0) == (unfinished, record.state, record.attempt)


@case("4.19")
async def stopping_again_and_again_ends_once(bench: Bench) -> None:
    registry = Registry()
    started = asyncio.Event()

    @task(name="endless", registry=registry)
    async def endless() -> None:
        started.set()
        await asyncio.Event().wait()

    async with _harbor(bench, registry) as harbor:
        (handle,) = await harbor.aenqueue_many([endless.s()])
        async with harbor.worker() as worker:
            await _within(started.wait(), "the handler starts")
            for _ in range(3):
                worker.drain()
                worker.halt()
            await _within(asyncio.gather(*(worker.stop() for _ in range(5))), "every stop ends")
            await _within(worker.stop(), "and so does a late one")
        record = await harbor.jobs.aget(handle.id)
        await _nothing_is_leased(harbor)

    assert (JobState.READY, 1) == (record.state, record.deliveries)
