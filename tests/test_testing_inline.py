"""The inline harbor: jobs run when it is told to, by the clock that it is given, and fail when they are asked to."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from taskharbor import (
    BlockingCallError,
    Context,
    Harbor,
    JobFailed,
    JobState,
    LifespanError,
    MsgpackCodec,
    OptionError,
    Registry,
    Reject,
    Retry,
    Snooze,
    StoreUnavailable,
    UsageError,
    chain,
    every,
    task,
)
from taskharbor.call.dispatcher import install, installed
from taskharbor.event import JobEnqueued, JobStarted, JobSucceeded
from taskharbor.middleware import Attempt, Middleware, Outgoing
from taskharbor.testing import InlineHarbor, ManualClock, enqueued
from tests.support.work import eventually

HOUR = timedelta(hours=1)
registry = Registry()
ran: list[str] = []


@task(name="inline.add", registry=registry)
def add(x: int, y: int = 1) -> int:
    ran.append(f"add({x}, {y})")
    return x + y


@task(name="inline.aadd", registry=registry, queue="async")
async def aadd(x: int) -> int:
    ran.append(f"aadd({x})")
    return x


@task(name="inline.fan", registry=registry)
async def fan(width: int) -> None:
    for number in range(width):
        await add.options(queue=f"nobody-declared-{number}", run_in=HOUR * number).aenqueue(number)


@task(name="inline.flaky", registry=registry, retry=Retry(max_attempts=3, base=HOUR, jitter=False))
def flaky(ctx: Context, good: int) -> int:
    ran.append(f"flaky at {ctx.attempt}")
    if ctx.attempt < good:
        raise ConnectionError(f"attempt {ctx.attempt}")
    return ctx.attempt


@task(name="inline.pausing", registry=registry)
def pausing(ctx: Context, times: int) -> None:
    ran.append("pausing")
    if len(ran) <= times:
        raise Snooze(HOUR)


@task(name="inline.rejecting", registry=registry)
def rejecting() -> None:
    raise Reject("no such thing")


@task(name="inline.elsewhere", registry=registry, run="process")
def elsewhere(x: int) -> tuple[int, int]:
    return x + 1, os.getpid()


@pytest.fixture(autouse=True)
def nothing_ran() -> Iterator[None]:
    ran.clear()
    yield
    ran.clear()


@pytest.fixture
def harbor() -> Iterator[InlineHarbor]:
    with InlineHarbor(registry=registry) as harbor:
        yield harbor


# --- drain


def test_nothing_runs_before_drain_and_all_that_is_due_at_drain(harbor: InlineHarbor) -> None:
    handles = [add.enqueue(1), aadd.enqueue(2)]
    assert [] == ran

    counts = harbor.drain()

    assert ({"succeeded": 2}, 0) == (counts.settled, counts.stale)
    assert [2, 2] == [handle.result() for handle in handles]
    assert {} == harbor.drain().settled


def test_jobs_run_one_at_a_time_in_their_order(harbor: InlineHarbor) -> None:
    for number in range(5):
        add.options(priority=9 - number).enqueue(number)

    harbor.drain()

    assert [f"add({number}, 1)" for number in (4, 3, 2, 1, 0)] == ran


def test_what_a_job_enqueues_runs_too_in_whatever_queue(harbor: InlineHarbor) -> None:
    fan.enqueue(3)

    counts = harbor.drain()

    assert {"succeeded": 2} == counts.settled
    assert {"succeeded": 2} == harbor.drain(within=HOUR * 2).settled
    assert ["add(0, 1)", "add(1, 1)", "add(2, 1)"] == ran


def test_the_clock_is_turned_to_each_due_time_and_no_further(harbor: InlineHarbor) -> None:
    start = harbor.clock.now()
    add.options(run_in=HOUR).enqueue(1)
    add.options(run_at=start + HOUR * 5).enqueue(2)

    first = harbor.drain(within=HOUR * 3)

    assert ({"succeeded": 1}, HOUR) == (first.settled, harbor.clock.now() - start)
    assert {"succeeded": 1} == harbor.drain(within=HOUR * 4).settled
    assert HOUR * 5 == harbor.clock.now() - start


def test_without_within_the_clock_stands_still(harbor: InlineHarbor) -> None:
    job = flaky.enqueue(2)

    assert {"retrying": 1} == harbor.drain().settled

    assert JobState.RETRYING is job.status().state
    assert datetime(2026, 1, 1, tzinfo=UTC) == harbor.clock.now()


def test_retries_and_snoozes_run_within(harbor: InlineHarbor) -> None:
    job = flaky.enqueue(3)
    harbor.drain(within=HOUR * 10)
    ran.clear()
    pausing.enqueue(2)

    counts = harbor.drain(within=HOUR * 10)

    assert 3 == job.result()
    assert {"scheduled": 2, "succeeded": 1} == counts.settled


def test_a_flow_runs_through(harbor: InlineHarbor) -> None:
    flow = chain(add.s(1), aadd).enqueue()

    harbor.drain()

    assert 2 == flow.result()
    assert [{"x": 1, "y": 1}, {}] == [
        dict(call.arguments) for call in (*enqueued(add), *enqueued(aadd))
    ]  # what came in is gone once a step has succeeded


def test_process_tasks_run_in_children_and_fail_as_others_do(harbor: InlineHarbor) -> None:
    harbor.fail_next(elsewhere, OSError("gone"))
    job = elsewhere.enqueue(1)

    counts = harbor.drain(within=HOUR)

    assert {"retrying": 1, "succeeded": 1} == counts.settled
    number, process = job.result()
    assert (2, True) == (number, process != os.getpid())


def test_a_paused_queue_ends_a_drain(harbor: InlineHarbor) -> None:
    add.enqueue(1)
    harbor.queues.pause("default")

    assert {} == harbor.drain(within=HOUR).settled


def test_it_drains_on_an_event_loop() -> None:
    async def main() -> None:
        async with InlineHarbor(registry=registry) as harbor:
            await fan.aenqueue(2)
            with pytest.raises(BlockingCallError, match=r"await harbor.adrain\(\)"):
                harbor.drain()

            counts = await harbor.adrain(within=HOUR)

            assert {"succeeded": 3} == counts.settled
            await flaky.aenqueue(2)
            with pytest.raises(ConnectionError):
                await harbor.adrain(raise_errors=True)

    asyncio.run(main())


def test_settings_around_play_no_part(monkeypatch: pytest.MonkeyPatch, harbor: InlineHarbor) -> None:
    monkeypatch.setenv("TASKHARBOR_QUEUES", "another")
    monkeypatch.setenv("TASKHARBOR_NONSENSE", "x")
    add.enqueue(1)

    assert {"succeeded": 1} == harbor.drain().settled


def test_listeners_of_the_test_itself_are_not_waited_for(harbor: InlineHarbor) -> None:
    everything = harbor.events(when_full="wait", size=1)
    results = harbor.results(add, when_full="wait", size=1)
    for number in range(3):
        add.enqueue(number)

    harbor.drain()

    told = iter(partial(everything.get, timedelta(0)), None)
    assert Counter({JobEnqueued: 3, JobStarted: 3, JobSucceeded: 3}) == Counter(map(type, told))
    assert [1, 2, 3] == [one.result for one in iter(partial(results.get, timedelta(0)), None)]
    assert (0, 0) == (everything.dropped, results.dropped)


def test_a_drain_leaves_no_thread_behind(harbor: InlineHarbor) -> None:
    before = set(threading.enumerate())
    add.enqueue(1)

    harbor.drain()

    # Idle ones were told to end; a worker doesn't wait until they have.
    eventually(lambda: not set(threading.enumerate()) - before)


@pytest.mark.parametrize("within", [timedelta(-1), 5])
def test_a_wrong_duration_is_refused(harbor: InlineHarbor, within: timedelta) -> None:
    with pytest.raises(OptionError, match="within"):
        harbor.drain(within=within)


# --- errors raised


def test_an_error_is_raised_with_the_handlers_own_traceback(harbor: InlineHarbor) -> None:
    flaky.enqueue(2)
    flaky.enqueue(2)

    with pytest.raises(ConnectionError, match="attempt 1") as caught:
        harbor.drain(within=HOUR * 10, raise_errors=True)

    assert "flaky" in [frame.name for frame in caught.traceback]
    assert ["and then ConnectionError: attempt 1"] == caught.value.__notes__
    assert ["flaky at 1"] * 2 == ran  # the clock was not turned


def test_a_harbor_may_raise_by_itself_and_a_drain_may_not() -> None:
    with InlineHarbor(registry=registry, raise_errors=True) as harbor:
        rejecting.enqueue()
        with pytest.raises(Reject, match="no such thing"):
            harbor.drain()
        rejecting.enqueue()

        assert {"dead": 1} == harbor.drain(raise_errors=False).settled
        pausing.enqueue(0)
        assert {"succeeded": 1} == harbor.drain().settled


def test_a_snooze_is_no_error(harbor: InlineHarbor) -> None:
    pausing.enqueue(2)

    counts = harbor.drain(within=HOUR * 10, raise_errors=True)

    assert {"scheduled": 2, "succeeded": 1} == counts.settled


def test_a_job_that_is_dead_without_its_handler_is_raised_too() -> None:
    class Spoiling(Middleware):
        def run(self, attempt: Attempt) -> Iterator[None]:
            yield
            attempt.replace_result("no number")

    with InlineHarbor(registry=registry, middleware=[Spoiling()]) as spoilt:
        add.enqueue(1)

        with pytest.raises(JobFailed, match=r"task 'inline.add' is a dead letter"):
            spoilt.drain(raise_errors=True)


# --- failures on purpose


def test_the_next_attempts_fail_and_the_handler_does_not_run(harbor: InlineHarbor) -> None:
    harbor.fail_next(flaky, OSError("gone"), times=2)
    job = flaky.enqueue(1)

    harbor.drain(within=HOUR * 10)

    assert ["OSError", "OSError"] == [error.type for error in job.status().errors]
    assert ["flaky at 3"] == ran


@pytest.mark.parametrize("which", ["sync", "async"])
def test_an_attempt_fails_after_its_handler(harbor: InlineHarbor, which: str) -> None:
    chosen = add if which == "sync" else aadd
    harbor.fail_next(chosen, OSError("crash"), after=True)
    job = chosen.enqueue(4)

    counts = harbor.drain(within=HOUR * 10)

    assert {"retrying": 1, "succeeded": 1} == counts.settled
    assert 2 == len(ran)
    assert JobState.SUCCEEDED is job.status().state


def test_only_that_task_fails(harbor: InlineHarbor) -> None:
    harbor.fail_next(add, OSError("gone"))
    aadd.enqueue(1)

    assert {"succeeded": 1} == harbor.drain().settled


def test_the_harbors_layers_see_a_planned_failure() -> None:
    seen: list[str] = []

    class Seeing(Middleware):
        def run(self, attempt: Attempt) -> Iterator[None]:
            try:
                yield
            except OSError as error:
                seen.append(str(error))
                attempt.replace_result(5)

    with InlineHarbor(registry=registry, middleware=[Seeing()]) as harbor:
        harbor.fail_next(add, OSError("gone"))
        job = add.enqueue(1)

        assert {"succeeded": 1} == harbor.drain(raise_errors=True).settled
        assert (["gone"], 5) == (seen, job.result())


@pytest.mark.parametrize("stored", [False, True])
def test_enqueues_fail_in_every_form(harbor: InlineHarbor, *, stored: bool) -> None:
    harbor.fail_next_enqueue(times=5, stored=stored)

    async def on_a_loop() -> None:
        with pytest.raises(StoreUnavailable):
            await add.aenqueue(3)
        with pytest.raises(StoreUnavailable):
            await harbor.aenqueue_many([add.s(4)])

    with pytest.raises(StoreUnavailable, match="fail_next_enqueue"):
        add.enqueue(1)
    with pytest.raises(StoreUnavailable):
        harbor.enqueue_many([add.s(2)])
    asyncio.run(on_a_loop())
    with pytest.raises(StoreUnavailable):
        chain(add.s(5), aadd).enqueue()
    add.enqueue(6)

    assert ([1, 2, 3, 4, 5, 6] if stored else [6]) == [call.arguments["x"] for call in enqueued(add)]


@pytest.mark.parametrize("times", [0, -1, True, 1.5])
def test_a_wrong_number_of_times_is_refused(harbor: InlineHarbor, times: int) -> None:
    with pytest.raises(OptionError, match="times"):
        harbor.fail_next(add, OSError(), times=times)
    with pytest.raises(OptionError, match="times"):
        harbor.fail_next_enqueue(times=times)


def test_what_cannot_fail_so_is_refused(harbor: InlineHarbor) -> None:
    with pytest.raises(OptionError, match="expected a task"):
        harbor.fail_next(print, OSError())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(OptionError, match="expected an exception object"):
        harbor.fail_next(add, OSError)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# --- made of an application's


def test_it_is_like_an_applications_harbor() -> None:
    went: list[str] = []
    own = Registry()

    class Going(Middleware):
        def enqueue(self, jobs: Sequence[Outgoing]) -> Iterator[None]:
            went.append(jobs[0].task)
            yield

    @task(name="like.use", registry=own)
    def use(ctx: Context[str]) -> str:
        return ctx.deps

    application = Harbor(
        "memory://",
        registry=own,
        codec=MsgpackCodec(),
        middleware=[Going()],
        deps=lambda: nullcontext("real"),
    )

    with InlineHarbor.like(application) as harbor:
        job = use.enqueue()
        harbor.drain(raise_errors=True)
        assert ("real", ["like.use"], "msgpack") == (job.result(), went, harbor.records()[0].codec)
    clock = ManualClock(datetime(2030, 1, 1, tzinfo=UTC))
    with InlineHarbor.like(application, deps=lambda: nullcontext("fake"), clock=clock) as harbor:
        job = use.enqueue()
        harbor.drain(raise_errors=True)
        assert ("fake", 2030) == (job.result(), harbor.records()[0].enqueued_at.year)


def test_dependencies_of_another_type_are_refused() -> None:
    own = Registry()

    @task(name="like.wants", registry=own)
    def wants(ctx: Context[str]) -> str:
        return ctx.deps

    with InlineHarbor(registry=own, deps=lambda: nullcontext(5)) as harbor:
        wants.enqueue()

        with pytest.raises(LifespanError):
            harbor.drain()


# --- being current


def test_everywhere_it_is_current_in_other_threads_until_its_end() -> None:
    before = installed()
    try:
        with Harbor("memory://") as other:
            other.install()
            with InlineHarbor(registry=registry).everywhere() as harbor:
                thread = threading.Thread(target=add.enqueue, args=(1,))
                thread.start()
                thread.join()

                assert {"succeeded": 1} == harbor.drain().settled
            assert installed() is other
    finally:
        install(before)


def test_each_has_a_store_of_its_own(harbor: InlineHarbor) -> None:
    add.enqueue(1)

    with InlineHarbor(registry=registry) as inner:
        add.enqueue(2)
        assert ([2], [1]) == (
            [call.arguments["x"] for call in enqueued(add)],
            [call.arguments["x"] for call in enqueued(add, harbor=harbor)],
        )
        assert "InlineHarbor at 2026-01-01" in repr(inner)


# --- standing in for the application's harbor


def test_nothing_asked_of_the_applications_harbor_reaches_its_store() -> None:
    app = Harbor("memory://", registry=registry)
    with InlineHarbor.like(app).everywhere() as harbor:
        with app:
            add.enqueue(1)
        app.enqueue_many([add.s(2), add.s(3)])
        with app.using(object()):
            add.enqueue(4)

        assert 4 == len(app.jobs.find()) == len(harbor.jobs.find())
        assert {"succeeded": 4} == harbor.drain().settled

    assert [] == app.jobs.find()
    app.close()


def test_what_a_using_block_sent_is_gone_if_it_raises() -> None:
    connection = object()
    with InlineHarbor(registry=registry) as harbor:
        with suppress(ValueError), harbor.using(connection):
            with harbor.using(connection):
                add.enqueue(1)
            chain(add.s(1), add).enqueue()
            raise ValueError("refused")

        assert [] == harbor.jobs.find()


def test_waiting_for_a_result_that_nobody_works_on_is_refused() -> None:
    with InlineHarbor(registry=registry) as harbor:
        job = add.enqueue(1)
        with pytest.raises(UsageError, match=r"job .* is ready, .*harbor\.drain\(\)"):
            job.result()

        harbor.drain()

        assert 2 == job.result()


def test_schedules_fire_as_the_clock_is_turned() -> None:
    tasks = Registry()
    ticks: list[datetime | None] = []

    @task(registry=tasks, schedule=every(timedelta(minutes=20)))
    def sweep(ctx: Context) -> None:
        ticks.append(ctx.tick)

    with Harbor("memory://", registry=tasks) as app:
        app.schedule(sweep.s(), every(timedelta(minutes=45)), name="sweep more")
        with InlineHarbor.like(app) as harbor:
            begin = harbor.clock.now()
            harbor.drain()
            harbor.drain(within=HOUR)
        minutes = [tick and (tick - begin).total_seconds() / 60 for tick in ticks]

    assert [20, 40, 45, 60] == minutes
