"""Layers around attempts: their order, what they see and may change, in threads and on the loop alike."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any, cast

import pytest

from taskharbor import (
    AsyncTask,
    Context,
    Harbor,
    JobFailed,
    JobState,
    MiddlewareError,
    OptionError,
    PayloadError,
    Registry,
    Reject,
    Retry,
    RetryLater,
    Snooze,
    SyncTask,
    task,
)
from taskharbor.middleware import Attempt, Middleware
from taskharbor.task.decorator import Decorator
from tests.fixtures.support import untyped

ONCE = Retry(max_attempts=1)
AT_ONCE = Retry(max_attempts=3, base=timedelta(0))
CHILD = Registry()

AnyTask = SyncTask[[int], int] | AsyncTask[[int], int]
Declare = Callable[..., AnyTask]


def declare_sync(fn: Callable[[int], int], registry: Registry, **options: Any) -> AnyTask:
    decorate = cast("Decorator", task(name="work", registry=registry, **options))

    @decorate
    def work(value: int) -> int:
        return fn(value)

    return work


def declare_async(fn: Callable[[int], int], registry: Registry, **options: Any) -> AnyTask:
    decorate = cast("Decorator", task(name="work", registry=registry, **options))

    @decorate
    async def work(value: int) -> int:
        return fn(value)

    return work


both_colours = pytest.mark.parametrize("declare", [declare_sync, declare_async], ids=["def", "async-def"])


class Note(Middleware):
    """Notes in a list when it is gone in and out of."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self._name = name
        self._notes = notes

    def run(self, attempt: Attempt) -> Iterator[None]:
        self._notes.append(f"{self._name} in")
        yield
        self._notes.append(f"{self._name} out")


class Around(Middleware):
    """Runs a generator function given to it."""

    def __init__(self, steps: Callable[[Attempt], Iterator[None]]) -> None:
        self._steps = steps

    def run(self, attempt: Attempt) -> Iterator[None]:
        return self._steps(attempt)


def run_one(
    declare: Declare,
    steps: Callable[[Attempt], Iterator[None]],
    fn: Callable[[int], int] = lambda value: value + 1,
    **options: Any,
) -> int:
    """Return the result of one job with a layer around it, called with 1."""
    registry = Registry()
    work = declare(fn, registry, **options)
    with Harbor("memory://", registry=registry, middleware=[Around(steps)]) as harbor:
        job = work.enqueue(1)
        harbor.run_until_idle()
        return job.result(timeout=timedelta(0))


@both_colours
def test_layers_run_from_the_harbors_first_to_the_tasks_last_and_back(declare: Declare) -> None:
    notes, registry = list[str](), Registry()

    def handler(value: int) -> int:
        notes.append("handler")
        return value

    work = declare(handler, registry, middleware=[Note("third", notes), Note("fourth", notes)])
    layers = [Note("first", notes), Note("second", notes)]

    with Harbor("memory://", registry=registry, middleware=layers) as harbor:
        work.enqueue(1)
        harbor.run_until_idle()

    inwards = ["first", "second", "third", "fourth"]
    assert notes == [
        *(f"{name} in" for name in inwards),
        "handler",
        *(f"{name} out" for name in reversed(inwards)),
    ]


@both_colours
def test_a_layer_sees_the_job_its_arguments_and_its_result(declare: Declare) -> None:
    seen = list[object]()

    def look(attempt: Attempt) -> Iterator[None]:
        seen.extend(
            [attempt.context.task, attempt.context.attempt, dict(attempt.arguments), attempt.has_result]
        )
        yield
        seen.append(attempt.result)

    assert 2 == run_one(declare, look)
    assert seen == ["work", 1, {"value": 1}, False, 2]


def test_what_a_layer_sees_of_the_arguments_cannot_be_changed() -> None:
    def meddle(attempt: Attempt) -> Iterator[None]:
        untyped(attempt.arguments)["value"] = 7
        yield

    with pytest.raises(JobFailed, match="does not support item assignment"):
        run_one(declare_sync, meddle, retry=ONCE)


@both_colours
def test_a_layer_may_replace_the_result(declare: Declare) -> None:
    def double(attempt: Attempt) -> Iterator[None]:
        yield
        assert isinstance(attempt.result, int)
        attempt.replace_result(attempt.result * 2)

    assert 4 == run_one(declare, double)


@both_colours
def test_a_replaced_result_has_to_be_of_the_declared_type(declare: Declare) -> None:
    def spoil(attempt: Attempt) -> Iterator[None]:
        yield
        attempt.replace_result("two")

    with pytest.raises(JobFailed) as failed:
        run_one(declare, spoil)

    assert failed.value.error_type == f"{PayloadError.__module__}.PayloadError"


@both_colours
def test_a_layer_may_give_the_result_without_the_handler(declare: Declare) -> None:
    called = list[int]()

    def note(value: int) -> int:
        called.append(value)
        return value

    def cached(attempt: Attempt) -> Iterator[None]:
        attempt.replace_result(42)
        if not attempt.has_result:
            yield

    assert 42 == run_one(declare, cached, note)
    assert called == []


@both_colours
def test_a_result_given_before_the_yield_is_forgotten_there(declare: Declare) -> None:
    def early(attempt: Attempt) -> Iterator[None]:
        attempt.replace_result(42)
        try:
            yield
        except ValueError:
            assert not attempt.has_result
            raise

    def fail(value: int) -> int:
        raise ValueError(value)

    assert 2 == run_one(declare, early)
    with pytest.raises(JobFailed) as failed:
        run_one(declare, early, fail, retry=ONCE)
    assert failed.value.error_type == "ValueError"


class LeavesOut(Middleware):
    """Returns without its `yield` where there is a result already."""

    def run(self, attempt: Attempt) -> Iterator[None]:
        if not attempt.has_result:
            yield


class AsyncLeavesOut(Middleware):
    async def arun(self, attempt: Attempt) -> AsyncIterator[None]:
        if not attempt.has_result:
            yield


@pytest.mark.parametrize(
    ("declare", "inner"),
    [(declare_sync, LeavesOut()), (declare_async, LeavesOut()), (declare_async, AsyncLeavesOut())],
    ids=["def", "async-def", "arun"],
)
def test_a_result_given_before_the_yield_is_not_seen_further_in(declare: Declare, inner: Middleware) -> None:
    def early(attempt: Attempt) -> Iterator[None]:
        attempt.replace_result(42)
        yield

    assert 2 == run_one(declare, early, middleware=[inner])


def test_asking_for_a_result_that_is_not_there_says_when_it_is() -> None:
    def hasty(attempt: Attempt) -> Iterator[None]:
        assert attempt.result
        yield

    with pytest.raises(JobFailed, match="has no result yet; it has one after the `yield`"):
        run_one(declare_sync, hasty, retry=ONCE)


@both_colours
def test_a_layer_may_make_a_success_of_a_failure(declare: Declare) -> None:
    def forgive(attempt: Attempt) -> Iterator[None]:
        try:
            yield
        except ZeroDivisionError:
            attempt.replace_result(0)

    assert 0 == run_one(declare, forgive, lambda value: value // 0, retry=ONCE)


@both_colours
@pytest.mark.parametrize("where", ["before", "after", "instead"])
def test_a_verdict_that_a_layer_raises_is_the_outcome(declare: Declare, where: str) -> None:
    registry = Registry()

    def judge(attempt: Attempt) -> Iterator[None]:
        if where == "before":
            raise Reject("no more")
        try:
            yield
        except ValueError as error:
            raise Reject("no more") from error
        raise Reject("no more")

    def handler(value: int) -> int:
        if where == "instead":
            raise ValueError(value)
        return value

    work = declare(handler, registry, retry=AT_ONCE)
    with Harbor("memory://", registry=registry, middleware=[Around(judge)]) as harbor:
        job = work.enqueue(1)
        harbor.run_until_idle()
        record = harbor.look(job.id)

    assert (record.state, record.reason, record.attempt) == (JobState.DEAD, "no more", 1)


@both_colours
@pytest.mark.parametrize(
    ("verdict", "state"),
    [
        (Snooze(timedelta(hours=1)), JobState.SCHEDULED),
        (RetryLater(timedelta(hours=1)), JobState.RETRYING),
        (Reject("bad"), JobState.DEAD),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_a_handlers_verdict_is_seen_by_layers_and_passes_through(
    declare: Declare, verdict: Exception, state: JobState
) -> None:
    seen, registry = list[BaseException](), Registry()

    def watch(attempt: Attempt) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            seen.append(error)
            raise

    def handler(value: int) -> int:
        raise verdict

    work = declare(handler, registry)
    with Harbor("memory://", registry=registry, middleware=[Around(watch)]) as harbor:
        job = work.enqueue(1)
        harbor.run_until_idle()
        record = harbor.look(job.id)

    assert seen == [verdict]
    assert record.state is state


@both_colours
def test_a_failure_that_passes_through_is_told_from_the_handlers_own_frame(declare: Declare) -> None:
    def fail(value: int) -> int:
        raise ValueError("wrong")

    def plain(attempt: Attempt) -> Iterator[None]:
        yield

    with pytest.raises(JobFailed) as failed:
        run_one(declare, plain, fail, retry=ONCE)

    assert failed.value.error_message == "wrong"
    frames = [line for line in failed.value.remote_traceback.splitlines() if line.startswith("  File")]
    assert [line.rsplit(" ", 1)[1] for line in frames] == ["work", "fail"]


@both_colours
@pytest.mark.parametrize("raised", [StopIteration(7), StopAsyncIteration(7), GeneratorExit(), KeyError(7)])
def test_exceptions_that_generators_cannot_let_through_pass_a_layer_too(
    declare: Declare, raised: BaseException
) -> None:
    """A coroutine makes a RuntimeError of a StopIteration by itself; nothing else is changed."""

    def handler(value: int) -> int:
        raise raised

    def plain(attempt: Attempt) -> Iterator[None]:
        yield

    with pytest.raises(JobFailed) as failed:
        run_one(declare, plain, handler, retry=ONCE)

    changed = declare is declare_async and isinstance(raised, StopIteration)
    assert failed.value.error_type == ("RuntimeError" if changed else type(raised).__name__)


# --- arun


def same(value: int) -> int:
    return value


class AsyncOnly(Middleware):
    def __init__(self, notes: list[str]) -> None:
        self._notes = notes

    async def arun(self, attempt: Attempt) -> AsyncIterator[None]:
        self._notes.append("arun in")
        try:
            yield
        finally:
            self._notes.append("arun out")


class EachColour(AsyncOnly):
    def run(self, attempt: Attempt) -> Iterator[None]:
        self._notes.append("run in")
        yield
        self._notes.append("run out")


@pytest.mark.parametrize(("declare", "form"), [(declare_sync, "run"), (declare_async, "arun")])
def test_arun_takes_the_place_of_run_around_async_handlers(declare: Declare, form: str) -> None:
    notes, registry = list[str](), Registry()
    work = declare(same, registry)

    with Harbor("memory://", registry=registry, middleware=[EachColour(notes)]) as harbor:
        work.enqueue(1)
        harbor.run_until_idle()

    assert notes == [f"{form} in", f"{form} out"]


class AsyncChanges(Middleware):
    """Does with `arun` what the tests above do with `run`."""

    def __init__(self, what: str) -> None:
        self._what = what

    async def arun(self, attempt: Attempt) -> AsyncIterator[None]:
        if self._what == "skip":
            attempt.replace_result(42)
            return
        try:
            yield
        except ZeroDivisionError:
            if self._what == "forgive":
                attempt.replace_result(0)
            elif self._what == "reject":
                raise Reject("no more") from None
        else:
            attempt.replace_result(43)


@pytest.mark.parametrize(("what", "result"), [("skip", 42), ("forgive", 0), ("replace", 43)])
def test_arun_changes_the_outcome_as_run_does(what: str, result: int) -> None:
    registry = Registry()
    work = declare_async(lambda value: value if what == "replace" else value // 0, registry, retry=ONCE)

    with Harbor("memory://", registry=registry, middleware=[AsyncChanges(what)]) as harbor:
        job = work.enqueue(1)
        harbor.run_until_idle()

        assert result == job.result()


@pytest.mark.parametrize(("what", "error"), [("reject", Reject), ("swallow", ZeroDivisionError)])
def test_arun_raises_and_swallows_as_run_does(what: str, error: type[Exception]) -> None:
    registry = Registry()
    work = declare_async(lambda value: value // 0, registry, retry=ONCE)

    with Harbor("memory://", registry=registry, middleware=[AsyncChanges(what)]) as harbor:
        job = work.enqueue(1)
        harbor.run_until_idle()

        with pytest.raises(JobFailed) as failed:
            job.result()

    assert failed.value.error_type.rpartition(".")[2] == error.__name__


def test_arun_alone_around_a_def_task_is_refused_where_the_task_is_declared() -> None:
    with pytest.raises(MiddlewareError, match=r"AsyncOnly has `arun` alone.* task 'work' is a `def`"):
        declare_sync(lambda value: value, Registry(), middleware=[AsyncOnly([])])


def test_arun_alone_around_a_harbor_with_a_def_task_is_refused_when_a_worker_starts() -> None:
    registry = Registry()
    declare_sync(lambda value: value, registry)

    with (
        Harbor("memory://", registry=registry, middleware=[AsyncOnly([])]) as harbor,
        pytest.raises(MiddlewareError, match=r"AsyncOnly has `arun` alone.* task 'work' is a `def`"),
    ):
        harbor.run_until_idle()


# --- what is refused where it is given


class AsyncRun(Middleware):
    async def run(self, attempt: Attempt) -> None:  # type: ignore[override] # pyright: ignore[reportIncompatibleMethodOverride]
        pass


class AsyncEnqueue(Middleware):
    async def enqueue(self, jobs: object) -> AsyncIterator[None]:  # type: ignore[override] # pyright: ignore[reportIncompatibleMethodOverride]
        yield


class PlainArun(Middleware):
    async def arun(self, attempt: Attempt) -> None:  # type: ignore[override] # pyright: ignore[reportIncompatibleMethodOverride]
        pass


class Misspelt(Middleware):
    def on_run(self, attempt: Attempt) -> Iterator[None]:
        yield


@pytest.mark.parametrize("give", ["harbor", "task"])
@pytest.mark.parametrize(
    ("wrong", "error", "told"),
    [
        ([Note], OptionError, r"expected an object, not the class; write Note\(\)"),
        ([object()], OptionError, "derived from taskharbor.middleware.Middleware"),
        (Note("", []), OptionError, "expected a list of middleware"),
        (7, OptionError, "expected a list of middleware"),
        ([AsyncRun()], MiddlewareError, "`AsyncRun.run` is an `async def`.*`async def arun`"),
        ([AsyncEnqueue()], MiddlewareError, "`AsyncEnqueue.enqueue` is an `async def`"),
        ([PlainArun()], MiddlewareError, "`PlainArun.arun` is no async generator"),
        ([Misspelt()], MiddlewareError, "Misspelt overrides none of.*did you mean 'run' for 'on_run'"),
    ],
    ids=["class", "object", "single", "number", "async-run", "async-enqueue", "plain-arun", "misspelt"],
)
def test_what_is_no_middleware_is_refused_where_it_is_given(
    give: str, wrong: object, error: type[Exception], told: str
) -> None:
    layers: Iterable[Middleware] = untyped(wrong)

    def given() -> object:
        if give == "harbor":
            return Harbor("memory://", middleware=layers)
        return declare_async(lambda value: value, Registry(), middleware=layers)

    with pytest.raises(error, match=told):
        given()


# --- where it is used


def test_a_harbor_on_another_store_has_the_same_layers() -> None:
    notes, registry = list[str](), Registry()
    work = declare_sync(lambda value: value, registry)

    with Harbor("memory://", registry=registry, middleware=[Note("layer", notes)]).at("memory://") as other:
        work.enqueue(1)
        other.run_until_idle()

    assert notes == ["layer in", "layer out"]


def test_a_base_method_may_be_called_by_one_that_overrides_it() -> None:
    class Polite(Middleware):
        def run(self, attempt: Attempt) -> Iterator[None]:
            yield from super().run(attempt)

    registry = Registry()
    work = declare_sync(lambda value: value, registry)

    with Harbor("memory://", registry=registry, middleware=[Polite()]) as harbor:
        job = work.enqueue(5)
        harbor.run_until_idle()

        assert 5 == job.result()


def test_a_layer_sees_what_the_handler_sees_of_its_job() -> None:
    registry, seen = Registry(), list[object]()

    def look(attempt: Attempt) -> Iterator[None]:
        seen.append(attempt.context)
        yield

    @task(registry=registry)
    def work(ctx: Context) -> None:
        seen.append(ctx)

    with Harbor("memory://", registry=registry, middleware=[Around(look)]) as harbor:
        work.enqueue()
        harbor.run_until_idle()

    assert seen[0] is seen[1]


@task(registry=CHILD, run="process", retry=ONCE)
def divide(value: int) -> int:
    return 10 // value


@task(registry=CHILD, run="process", retry=ONCE)
def turn_away(value: int) -> int:
    raise Reject(f"no {value}")


def test_layers_are_around_a_handler_in_a_child_process() -> None:
    seen = list[str]()

    def look(attempt: Attempt) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            seen.append(f"{attempt.arguments['value']} {type(error).__name__}: {error}")
            raise
        attempt.replace_result(untyped(attempt.result) * 10)

    with Harbor("memory://", registry=CHILD, middleware=[Around(look)]) as harbor:
        good, bad, rejected = divide.enqueue(5), divide.enqueue(0), turn_away.enqueue(3)
        harbor.run_until_idle(handler_processes=1)

        assert 20 == good.result()
        with pytest.raises(JobFailed) as failed:
            bad.result()
        assert harbor.look(rejected.id).reason == "no 3"
    assert sorted(seen) == [
        "0 ChildFailed: ZeroDivisionError: integer division or modulo by zero",
        "3 Reject: no 3",
    ]
    # What passes through is told as it was in the child.
    assert failed.value.error_type == "ZeroDivisionError"
    assert "in divide" in failed.value.remote_traceback


def test_a_layer_may_catch_what_was_raised_in_a_child_process() -> None:
    def forgive(attempt: Attempt) -> Iterator[None]:
        try:
            yield
        except Exception:  # noqa: BLE001
            attempt.replace_result(0)

    with Harbor("memory://", registry=CHILD, middleware=[Around(forgive)]) as harbor:
        job = divide.enqueue(0)
        harbor.run_until_idle(handler_processes=1)

        assert 0 == job.result()
