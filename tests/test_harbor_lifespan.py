"""Dependencies: built before the first job, closed after the last, and checked against what tasks declare."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import cast

import pytest

from taskharbor import Context, Harbor, JobState, LifespanError, Registry, StoreUnavailable, task
from taskharbor.drivers.memory import MemoryDriver
from taskharbor.worker import Lifespan
from tests.support.work import ENOUGH, TroubledDriver, await_event, drains_noted, fails, threads_named


class Database:
    """What handlers depend on."""

    def __init__(self) -> None:
        self.closed = False


def a_registry(events: list[str]) -> Registry:
    registry = Registry()

    @task(registry=registry, name="use")
    async def use(ctx: Context[Database]) -> str:
        assert not ctx.deps.closed
        events.append("job")
        return type(ctx.deps).__name__

    @task(registry=registry, name="use_in_thread")
    def use_in_thread(ctx: Context[Database]) -> str:
        assert not ctx.deps.closed
        events.append("job")
        return type(ctx.deps).__name__

    return registry


def enqueue(harbor: Harbor, name: str) -> str:
    """Enqueue a job by its task's name."""
    from taskharbor.call import Call, Options

    definition = harbor.task(name)
    (sent,) = harbor.send([Call(definition, definition.bind((), {}), Options())])
    return sent.job_id


@pytest.mark.parametrize("colour", ["async", "sync"])
def test_dependencies_live_from_before_the_first_job_until_after_the_last(colour: str) -> None:
    """Built once a worker, by a context manager of either colour."""
    events = list[str]()

    @asynccontextmanager
    async def asynchronous() -> AsyncGenerator[Database]:
        events.append("open")
        database = Database()
        yield database
        database.closed = True
        events.append("close")

    @contextmanager
    def synchronous() -> Generator[Database]:
        events.append("open")
        database = Database()
        yield database
        database.closed = True
        events.append("close")

    deps: Lifespan = asynchronous if colour == "async" else synchronous
    with Harbor(MemoryDriver(), registry=a_registry(events), deps=deps) as harbor:
        enqueue(harbor, "use")
        enqueue(harbor, "use_in_thread")
        counts = harbor.run_until_idle()

    assert counts.settled == {"succeeded": 2}
    assert events == ["open", "job", "job", "close"]


def test_dependencies_are_closed_after_a_job_that_is_drained() -> None:
    """The last job to run still has them."""
    events, started = list[str](), threading.Event()
    registry = Registry()

    @task(registry=registry)
    async def slow(ctx: Context[Database]) -> bool:
        started.set()
        await asyncio.to_thread(await_event, draining)
        return ctx.deps.closed

    @asynccontextmanager
    async def deps() -> AsyncGenerator[Database]:
        database = Database()
        yield database
        database.closed = True
        events.append("closed")

    with Harbor(MemoryDriver(), registry=registry, deps=deps) as harbor, drains_noted() as draining:
        with harbor.worker_thread():
            job = slow.enqueue()
            await_event(started)

        assert job.result() is False
    assert events == ["closed"]


def test_an_error_while_they_are_built_is_told_at_the_start() -> None:
    """With its cause, to whoever starts the worker; nothing is left running."""

    @asynccontextmanager
    async def deps() -> AsyncGenerator[Database]:
        database = Database()
        if not database.closed:
            raise OSError("connection refused")
        yield database

    with Harbor(MemoryDriver(), registry=Registry(), deps=deps) as harbor:
        with (
            pytest.raises(LifespanError, match="OSError: connection refused") as failed,
            harbor.worker_thread(),
        ):
            pytest.fail("it started")
        assert isinstance(failed.value.__cause__, OSError)
        with pytest.raises(LifespanError):
            harbor.run_until_idle()
    assert threads_named("taskharbor-") == []


def test_missing_dependencies_are_told_at_the_start() -> None:
    """Naming the task and what it takes."""
    with (
        Harbor(MemoryDriver(), registry=a_registry([])) as harbor,
        pytest.raises(LifespanError, match=r"'use' takes a Context\[.*Database\].*Harbor\(deps="),
    ):
        harbor.run_until_idle()


def test_dependencies_of_another_type_are_told_at_the_start_and_closed() -> None:
    """Before a job could fail for it."""
    events = list[str]()

    @contextmanager
    def deps() -> Generator[int]:
        yield 3
        events.append("closed")

    with (
        Harbor(MemoryDriver(), registry=a_registry([]), deps=deps) as harbor,
        pytest.raises(LifespanError, match="yield a int"),
    ):
        harbor.run_until_idle()
    assert events == ["closed"]


def test_a_function_that_is_no_context_manager_is_told_at_the_start() -> None:
    """What to decorate it with is said."""

    def deps() -> Database:
        return Database()

    with (
        Harbor(
            MemoryDriver(), registry=Registry(), deps=cast("Lifespan", cast("Callable[[], object]", deps))
        ) as harbor,
        pytest.raises(LifespanError, match="asynccontextmanager"),
    ):
        harbor.run_until_idle()


def test_an_error_while_they_are_closed_is_told_where_the_worker_ends() -> None:
    """As the application's error, with its cause. The jobs are settled all the same."""
    registry = Registry()

    @task(registry=registry)
    async def work() -> str:
        return "done"

    @asynccontextmanager
    async def deps() -> AsyncGenerator[None]:
        yield
        raise OSError("could not close")

    with Harbor(MemoryDriver(), registry=registry, deps=deps) as harbor:
        job = work.enqueue()
        with (
            pytest.raises(
                LifespanError, match="deps could not be closed: OSError: could not close"
            ) as failed,
            harbor.worker_thread(),
        ):
            job.wait(ENOUGH)
        assert isinstance(failed.value.__cause__, OSError)
        assert job.status().state is JobState.SUCCEEDED


def test_an_error_while_they_are_closed_does_not_hide_why_the_worker_could_not_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """That is raised, and the other is in the log."""
    driver = TroubledDriver()
    driver.before = fails(1000, "worker_announce")

    @contextmanager
    def deps() -> Generator[None]:
        yield
        raise OSError("could not close")

    with (
        Harbor(driver, registry=Registry(), deps=deps) as harbor,
        pytest.raises(StoreUnavailable),
        harbor.worker_thread(),
    ):
        pytest.fail("it started")
    with (
        Harbor(MemoryDriver(), registry=a_registry([]), deps=deps) as harbor,
        pytest.raises(LifespanError, match="has no dependencies"),
        harbor.worker_thread(),
    ):
        pytest.fail("it started")

    assert 2 == caplog.messages.count(
        "the harbor's deps could not be closed: OSError: could not close; mend what Harbor(deps=...) does at its end"
    )
