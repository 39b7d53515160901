"""Layers that hang, raise, swallow or break the rules: nothing is lost, the error is clear, the worker goes on."""

from __future__ import annotations

import asyncio
import contextlib
import dis
import logging
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, cast
from unittest import mock

import msgspec
import pytest

from taskharbor import (
    AsyncTask,
    Context,
    Harbor,
    JobCancelled,
    JobFailed,
    JobInterrupt,
    JobState,
    Registry,
    Retry,
    SyncTask,
    task,
)
from taskharbor.middleware import Attempt, Middleware
from taskharbor.task import passing
from taskharbor.task.decorator import Decorator
from taskharbor.worker import surrounding
from taskharbor.worker.layered import LayeredPlan
from taskharbor.worker.run import Run
from taskharbor.worker.surrounding import Call
from tests.support.work import LEASE, MS, SECOND, await_event, spin

ONCE = Retry(max_attempts=1)
TWICE = Retry(max_attempts=2, base=timedelta(0))

AnyTask = SyncTask[[], int] | AsyncTask[[], int]
Declare = Callable[..., AnyTask]


def declare_sync(registry: Registry, begun: threading.Event, *, stay: bool, **options: Any) -> AnyTask:
    decorate = cast("Decorator", task(name="work", registry=registry, **options))

    @decorate
    def work() -> int:
        begun.set()
        if stay:
            spin()
        return 1

    return work


def declare_async(registry: Registry, begun: threading.Event, *, stay: bool, **options: Any) -> AnyTask:
    decorate = cast("Decorator", task(name="work", registry=registry, **options))

    @decorate
    async def work() -> int:
        begun.set()
        if stay:
            await asyncio.Event().wait()
        return 1

    return work


both_colours = pytest.mark.parametrize("declare", [declare_sync, declare_async], ids=["def", "async-def"])


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'jobs.db'}"


# --- each layer below misbehaves in its way


class Broken(Exception):
    """Raised by a layer."""


class RaisesBefore(Middleware):
    def run(self, attempt: Attempt) -> Iterator[None]:
        if not attempt.has_result:
            raise Broken("before")
        yield


class RaisesAfter(Middleware):
    def run(self, attempt: Attempt) -> Iterator[None]:
        yield
        raise Broken("after")


class Exits(Middleware):
    def run(self, attempt: Attempt) -> Iterator[None]:
        yield
        raise SystemExit(3)


class YieldsTwice(Middleware):
    def run(self, attempt: Attempt) -> Iterator[None]:
        yield
        yield


class ClingsOn(Middleware):
    """Yields once more even where it is closed for that."""

    def run(self, attempt: Attempt) -> Iterator[None]:
        yield
        with contextlib.suppress(GeneratorExit):
            yield
        yield


class NeverYields(Middleware):
    def run(self, attempt: Attempt) -> Iterator[None]:
        if attempt.has_result:
            yield


class IsNoGenerator(Middleware):
    def run(self, attempt: Attempt) -> Iterator[None]:
        return cast("Iterator[None]", cast("object", None))


class AsyncRaisesBefore(Middleware):
    async def arun(self, attempt: Attempt) -> AsyncIterator[None]:
        if not attempt.has_result:
            raise Broken("before")
        yield


class AsyncRaisesAfter(Middleware):
    async def arun(self, attempt: Attempt) -> AsyncIterator[None]:
        yield
        raise Broken("after")


class AsyncYieldsTwice(Middleware):
    async def arun(self, attempt: Attempt) -> AsyncIterator[None]:
        yield
        yield


class AsyncNeverYields(Middleware):
    async def arun(self, attempt: Attempt) -> AsyncIterator[None]:
        if attempt.has_result:
            yield


EITHER = [
    (RaisesBefore(), "Broken", "before"),
    (RaisesAfter(), "Broken", "after"),
    (Exits(), "SystemExit", "3"),
    (YieldsTwice(), "MiddlewareError", "`YieldsTwice.run` of the middleware yielded twice"),
    (ClingsOn(), "MiddlewareError", "`ClingsOn.run` of the middleware yielded twice"),
    (NeverYields(), "MiddlewareError", "`NeverYields.run` of the middleware returned without its `yield`"),
    (IsNoGenerator(), "MiddlewareError", "`IsNoGenerator.run` of the middleware returned a NoneType"),
]
ASYNC = [
    (AsyncRaisesBefore(), "Broken", "before"),
    (AsyncRaisesAfter(), "Broken", "after"),
    (AsyncYieldsTwice(), "MiddlewareError", "`AsyncYieldsTwice.arun` of the middleware yielded twice"),
    (AsyncNeverYields(), "MiddlewareError", "`AsyncNeverYields.arun` of the middleware returned without"),
]


@pytest.mark.parametrize(
    ("declare", "layer", "error", "told"),
    [
        *((declare_sync, *case) for case in EITHER),
        *((declare_async, *case) for case in EITHER + ASYNC),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Middleware) else "",
)
def test_a_bug_in_a_layer_fails_the_attempt_and_not_the_worker(
    url: str, declare: Declare, layer: Middleware, error: str, told: str
) -> None:
    registry = Registry()
    work = declare(registry, threading.Event(), stay=False, retry=TWICE, middleware=[layer])

    @task(registry=registry)
    def sound() -> str:
        return "well"

    with Harbor(url, registry=registry) as harbor:
        broken, beside = work.enqueue(), sound.enqueue()
        harbor.run_until_idle()

        with pytest.raises(JobFailed) as failed:
            broken.result()
        assert "well" == beside.result()

    assert failed.value.attempts == 2
    assert failed.value.error_type.rpartition(".")[2] == error
    assert told in failed.value.error_message


class Swallows(Middleware):
    def run(self, attempt: Attempt) -> Iterator[None]:
        with contextlib.suppress(BaseException):
            yield


class AsyncSwallows(Middleware):
    async def arun(self, attempt: Attempt) -> AsyncIterator[None]:
        with contextlib.suppress(BaseException):
            yield


swallowing = pytest.mark.parametrize(
    ("declare", "layer"),
    [(declare_sync, Swallows()), (declare_async, Swallows()), (declare_async, AsyncSwallows())],
    ids=["def", "async-def", "arun"],
)


@swallowing
def test_a_swallowed_failure_goes_on_and_says_who_swallowed_it(
    declare: Declare, layer: Middleware, caplog: pytest.LogCaptureFixture
) -> None:
    registry = Registry()
    work = declare(registry, threading.Event(), stay=False, retry=ONCE, middleware=[layer, RaisesAfter()])

    with Harbor("memory://", registry=registry) as harbor, caplog.at_level(logging.WARNING):
        job = work.enqueue()
        harbor.run_until_idle()
        with pytest.raises(JobFailed) as failed:
            job.result()

    name = type(layer).__name__
    assert failed.value.error_message == "after"
    assert f"`{name}.{'arun' if name == 'AsyncSwallows' else 'run'}` of the middleware caught this" in (
        failed.value.remote_traceback
    )
    assert f"caught Broken of job {job.id} (task 'work') and gave no result" in caplog.text


@swallowing
def test_a_swallowed_timeout_is_a_timeout(url: str, declare: Declare, layer: Middleware) -> None:
    registry = Registry()
    work = declare(registry, threading.Event(), stay=True, retry=ONCE, middleware=[layer], timeout=50 * MS)

    with Harbor(url, registry=registry) as harbor:
        job = work.enqueue()
        harbor.run_until_idle()
        with pytest.raises(JobFailed) as failed:
            job.result()

    assert failed.value.error_type == "taskharbor.errors.JobTimeout"


@swallowing
def test_a_swallowed_cancel_is_a_cancel(url: str, declare: Declare, layer: Middleware) -> None:
    registry, begun = Registry(), threading.Event()
    work = declare(registry, begun, stay=True, retry=ONCE, middleware=[layer])

    with Harbor(url, registry=registry) as harbor, harbor.worker_thread(lease=LEASE):
        job = work.enqueue()
        await_event(begun)
        job.cancel()
        with pytest.raises(JobCancelled):
            job.result(timeout=20 * SECOND)

        assert harbor.look(job.id).state is JobState.CANCELLED


@swallowing
def test_a_swallowed_shutdown_hands_the_job_back(url: str, declare: Declare, layer: Middleware) -> None:
    registry, begun = Registry(), threading.Event()
    work = declare(registry, begun, stay=True, middleware=[layer])

    with Harbor(url, registry=registry) as harbor:
        with harbor.worker_thread(grace=timedelta(0)):
            job = work.enqueue()
            await_event(begun)

        assert harbor.look(job.id).state is JobState.READY
        assert harbor.look(job.id).attempt == 0


def test_a_swallowed_cancel_with_a_result_in_its_place_is_a_success() -> None:
    class Saves(Middleware):
        def run(self, attempt: Attempt) -> Iterator[None]:
            try:
                yield
            except asyncio.CancelledError:
                attempt.replace_result(7)

    registry = Registry()
    work = declare_async(registry, threading.Event(), stay=True, middleware=[Saves()], timeout=50 * MS)

    with Harbor("memory://", registry=registry) as harbor:
        job = work.enqueue()
        harbor.run_until_idle()

        assert 7 == job.result()


# --- layers that hang


class HangsBefore(Middleware):
    def run(self, attempt: Attempt) -> Iterator[None]:
        spin()
        yield


class HangsAfter(Middleware):
    def run(self, attempt: Attempt) -> Iterator[None]:
        yield
        spin()


class AsyncHangsBefore(Middleware):
    async def arun(self, attempt: Attempt) -> AsyncIterator[None]:
        await asyncio.Event().wait()
        yield


class AsyncHangsAfter(Middleware):
    async def arun(self, attempt: Attempt) -> AsyncIterator[None]:
        yield
        await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("declare", "layer"),
    [
        (declare_sync, HangsBefore()),
        (declare_sync, HangsAfter()),
        (declare_async, AsyncHangsBefore()),
        (declare_async, AsyncHangsAfter()),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Middleware) else "",
)
def test_a_layer_that_hangs_is_ended_by_the_jobs_timeout(
    url: str, declare: Declare, layer: Middleware
) -> None:
    registry, order = Registry(), list[str]()

    class Outside(Middleware):
        def run(self, attempt: Attempt) -> Iterator[None]:
            try:
                yield
            except BaseException as error:
                order.append(type(error).__name__)
                raise

    work = declare(
        registry, threading.Event(), stay=False, retry=ONCE, middleware=[Outside(), layer], timeout=50 * MS
    )

    with Harbor(url, registry=registry) as harbor:
        job = work.enqueue()
        counts = harbor.run_until_idle()
        with pytest.raises(JobFailed) as failed:
            job.result()

    assert counts.settled == {"dead": 1}
    assert failed.value.error_type == "taskharbor.errors.JobTimeout"
    assert order == ["CancelledError" if declare is declare_async else "JobInterrupt"]


# --- interrupts


class Ends(Middleware):
    """Notes how it is left."""

    def __init__(self, entered: list[int], left: list[str]) -> None:
        self._entered = entered
        self._left = left

    def run(self, attempt: Attempt) -> Iterator[None]:
        self._entered.append(1)
        try:
            yield
        except BaseException as error:
            self._left.append(type(error).__name__)
            raise
        self._left.append("end")


OURS = {surrounding.__file__, passing.__file__}


def lands_after(frame: FrameType) -> bool:
    """Return whether an interrupt may land once the bytecode that a frame is at has been carried out."""
    name = dis.opname[frame.f_code.co_code[frame.f_lasti]]
    return name.startswith("CALL") or name in ("RESUME", "JUMP_BACKWARD")


def interrupted(call: Callable[[], object], at: int) -> bool:
    """Call something with a `JobInterrupt` at the n-th place between its layers; return whether it came so far."""
    left = at
    may_land = dict[FrameType, bool]()

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in OURS:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= may_land.get(frame, False)
            may_land[frame] = left > 0 and lands_after(frame)
            if left == 0:
                left = -1
                raise JobInterrupt
        return trace

    sys.settrace(trace)
    try:
        with contextlib.suppress(JobInterrupt, ZeroDivisionError):
            call()
    finally:
        sys.settrace(None)
        may_land.clear()
    return left < 0


def interrupted_everywhere(divisor: int) -> list[tuple[list[str], bool]]:
    """Return how three layers around a division were left, for an interrupt at every place there is.

    And for each whether there is a result.
    """
    found = list[tuple[list[str], bool]]()
    reached = True
    while reached:
        entered, left = list[int](), list[str]()
        through = surrounding.surrounded([Ends(entered, left) for _ in range(3)])
        attempt = Attempt(Context.detached(object()), msgspec.defstruct("Nothing", [])(), "worker")

        reached = interrupted(partial(through, attempt, lambda: 1 // divisor), len(found) + 1)

        assert len(entered) == len(left), f"a layer is open after an interrupt at place {len(found) + 1}"
        found.append((left, attempt.has_result))
    return found


@pytest.mark.parametrize("divisor", [1, 0], ids=["returns", "raises"])
def test_an_interrupt_anywhere_between_layers_leaves_none_of_them_open(divisor: int) -> None:
    """Threads are interrupted wherever they are: every layer gone into is left, and told why at its `yield`."""
    # In a thread of its own: an exception out of a trace function may leave the thread's state of exceptions askew.
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(interrupted_everywhere, divisor).result()

    ways = Counter(way for left, _ in found for way in left)
    assert len(found) > 15
    assert ways["JobInterrupt"] > 15
    if divisor:  # else it may come while another exception is on its way, and the layer is closed instead
        assert set(ways) == {"JobInterrupt", "end"}
    # It came too late for an attempt whose outermost layer had ended well, and in time for every other.
    assert [left[2:] == ["end"] for left, _ in found] == [has_result for _, has_result in found]


def test_a_timeout_that_lands_when_the_last_layer_has_ended_leaves_the_success() -> None:
    registry, begun = Registry(), threading.Event()
    work = declare_sync(registry, begun, stay=False, retry=ONCE)

    def cut_short(plan: LayeredPlan, run: Run, call: Call) -> object:
        around(plan, run, call)
        raise JobInterrupt

    around = LayeredPlan.around
    with (
        mock.patch.object(LayeredPlan, "around", cut_short),
        Harbor("memory://", registry=registry, middleware=[Ends([], [])]) as harbor,
    ):
        job = work.enqueue()
        harbor.run_until_idle()

        assert 1 == job.result(timeout=timedelta(0))
