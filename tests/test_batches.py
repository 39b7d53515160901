"""Batch handlers: what each job comes to by what one call for many of them returns, raises or tells."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import nullcontext
from contextvars import ContextVar
from datetime import timedelta

import msgspec
import pytest
from typing_extensions import override

from taskharbor import (
    Batch,
    BatchContext,
    Context,
    Harbor,
    JobFailed,
    JobHandle,
    OptionError,
    Registry,
    Reject,
    Retry,
    RetryLater,
    Snooze,
    TaskDefinitionError,
    UsageError,
    chain,
    each,
    group,
    task,
)
from taskharbor.errors import TaskHarborError
from taskharbor.middleware import Attempt, ContextVariables, JobFields, Middleware
from taskharbor.testing import InlineHarbor
from tests.support.work import HOUR, SECOND

AT_ONCE = Retry(max_attempts=3, base=timedelta(0))
BY_FOUR = Batch(size=4, wait=HOUR)


class Document(msgspec.Struct, frozen=True):
    text: str


def states(handles: Sequence[JobHandle[object]]) -> list[str]:
    return [handle.status().state.value for handle in handles]


# --- what is gathered


def test_payloads_come_in_lists_of_the_size_in_order_and_each_job_has_its_own_result() -> None:
    registry, calls = Registry(), list[list[str]]()

    @task(batch=BY_FOUR, registry=registry)
    def measure(documents: list[Document]) -> list[int | Exception]:
        calls.append([document.text for document in documents])
        return [len(document.text) for document in documents]

    with InlineHarbor(registry=registry) as harbor:
        handles = [measure.enqueue(Document("x" * number)) for number in range(10)]
        counts = harbor.drain()

        assert ["", "x", "xx", "xxx"] == calls[0]
        assert [4, 4, 2] == [len(call) for call in calls]
        assert list(range(10)) == [handle.result() for handle in handles]
        assert {"succeeded": 10} == counts.settled


def test_none_is_a_success_of_all_and_async_handlers_are_batched_alike() -> None:
    registry, calls = Registry(), list[int]()

    @task(batch=BY_FOUR, registry=registry)
    async def note(numbers: Sequence[int]) -> None:
        calls.append(sum(numbers))

    with InlineHarbor(registry=registry) as harbor:
        handles = [note.enqueue(number) for number in (1, 2, 3)]
        harbor.drain()

        assert [6] == calls
        assert [None] * 3 == [handle.result() for handle in handles]


def test_two_tasks_gather_apart_and_jobs_of_different_timeouts_too() -> None:
    registry, calls = Registry(), list[tuple[str, list[int]]]()

    @task(batch=BY_FOUR, registry=registry)
    def one(numbers: list[int]) -> None:
        calls.append(("one", numbers))

    @task(batch=BY_FOUR, registry=registry)
    def two(numbers: list[int]) -> None:
        calls.append(("two", numbers))

    with Harbor("memory://", registry=registry) as harbor:
        one.enqueue(1)
        two.enqueue(2)
        one.options(timeout=SECOND).enqueue(3)
        one.enqueue(4)
        harbor.run_until_idle()

        assert [("one", [1, 4]), ("one", [3]), ("two", [2])] == sorted(calls)


# --- what goes wrong


def test_an_exception_in_the_list_fails_its_job_alone_which_is_tried_again_alone() -> None:
    registry, calls = Registry(), list[list[int]]()

    @task(batch=BY_FOUR, retry=AT_ONCE, registry=registry)
    def halve(numbers: list[int]) -> list[int | Exception]:
        calls.append(numbers)
        return [ValueError(f"{number} is odd") if number % 2 else number // 2 for number in numbers]

    with InlineHarbor(registry=registry) as harbor:
        handles = [halve.enqueue(number) for number in (2, 3, 4)]
        harbor.drain()

        assert [[2, 3, 4], [3], [3]] == calls
        assert [1, 2] == [handles[0].result(), handles[2].result()]
        with pytest.raises(JobFailed, match="3 is odd"):
            handles[1].result()


@pytest.mark.parametrize("in_thread", [True, False], ids=["def", "async def"])
def test_an_exception_raised_fails_all_and_each_is_tried_again_alone(in_thread: bool) -> None:
    """So what one has spoilt is spoilt for its neighbours once."""
    registry, calls = Registry(), list[list[int]]()

    def work(numbers: list[int]) -> None:
        calls.append(numbers)
        if 3 in numbers:
            raise ValueError("three")

    async def awork(numbers: list[int]) -> None:
        work(numbers)

    declared = task(batch=BY_FOUR, retry=AT_ONCE, registry=registry, name="work")
    batched = declared(work) if in_thread else declared(awork)
    with InlineHarbor(registry=registry) as harbor:
        handles = [batched.enqueue(number) for number in (2, 3, 4)]
        harbor.drain()

        assert [2, 3, 4] == calls[0]
        assert [[2], [3], [3], [4]] == sorted(calls[1:])
        assert ["succeeded", "dead", "succeeded"] == states(handles)
        assert [2, 3, 2] == [handle.status().attempt for handle in handles]


def test_verdicts_in_the_list_are_those_of_their_jobs() -> None:
    registry = Registry()

    @task(batch=BY_FOUR, registry=registry)
    def decide(numbers: list[int]) -> list[int | Exception]:
        return [Snooze(HOUR), Reject("never"), RetryLater(HOUR), 7]

    with InlineHarbor(registry=registry) as harbor:
        handles = [decide.enqueue(number) for number in range(4)]
        harbor.drain()

        assert ["scheduled", "dead", "retrying", "succeeded"] == states(handles)
        assert [0, 1, 1, 1] == [handle.status().attempt for handle in handles]
        assert "never" == harbor.look(handles[1].id).reason


def test_a_list_of_another_length_fails_all_and_says_so() -> None:
    registry = Registry()

    @task(batch=BY_FOUR, retry=Retry(max_attempts=1), registry=registry)
    def lossy(numbers: list[int]) -> list[int | Exception]:
        return [number for number in numbers if number]

    with InlineHarbor(registry=registry) as harbor:
        handles = [lossy.enqueue(number) for number in (0, 1, 2)]
        harbor.drain()

        assert ["dead"] * 3 == states(handles)
        with pytest.raises(JobFailed, match="returned 2 elements for 3 jobs"):
            handles[2].result()


@pytest.mark.parametrize("in_thread", [True, False], ids=["def", "async def"])
def test_a_list_that_lies_about_its_length_is_as_long_as_it_is(in_thread: bool) -> None:
    """Nothing that a handler returns costs the worker a slot, or its jobs their end."""
    registry = Registry()

    class Liar(list[int | Exception]):
        @override
        def __len__(self) -> int:
            return 3

    def lossy(numbers: list[int]) -> list[int | Exception]:
        return Liar([1, 2])

    async def alossy(numbers: list[int]) -> list[int | Exception]:
        return Liar([1, 2])

    declared = task(batch=BY_FOUR, retry=Retry(max_attempts=1), registry=registry, name="lossy")
    batched = declared(lossy) if in_thread else declared(alossy)
    with Harbor("memory://", registry=registry) as harbor:
        handles = harbor.enqueue_many([batched.s(number) for number in range(3)])
        harbor.run_until_idle(concurrency=1)

        assert ["dead"] * 3 == states(handles)
        with pytest.raises(JobFailed, match="returned 2 elements for 3 jobs"):
            handles[2].result()


def test_an_exception_class_in_the_list_is_no_exception_and_says_so() -> None:
    registry = Registry()

    @task(batch=BY_FOUR, registry=registry)
    def wrong(numbers: list[int]) -> list[int | Exception]:
        return [ValueError if number == 2 else number for number in numbers]  # type: ignore[misc] # pyright: ignore[reportReturnType]

    with InlineHarbor(registry=registry) as harbor:
        handles = [wrong.enqueue(number) for number in (1, 2, 3)]
        harbor.drain()

        assert ["succeeded", "dead", "succeeded"] == states(handles)
        with pytest.raises(
            JobFailed, match=r"is an exception class; return an instance, as ValueError\(...\)"
        ):
            handles[1].result()


def test_a_result_of_another_type_fails_its_job_alone() -> None:
    registry = Registry()

    @task(batch=BY_FOUR, registry=registry)
    def wrong(numbers: list[int]) -> list[int | Exception]:
        return ["text" if number == 2 else number for number in numbers]  # type: ignore[misc] # pyright: ignore[reportReturnType]

    with InlineHarbor(registry=registry) as harbor:
        handles = [wrong.enqueue(number) for number in (1, 2, 3)]
        harbor.drain()

        assert ["succeeded", "dead", "succeeded"] == states(handles)


def test_what_is_no_list_fails_all_at_once() -> None:
    registry = Registry()

    @task(batch=BY_FOUR, registry=registry)
    def wrong(numbers: list[int]) -> list[int | Exception]:
        return {1: 1}  # type: ignore[return-value] # pyright: ignore[reportReturnType]

    with InlineHarbor(registry=registry) as harbor:
        handles = [wrong.enqueue(number) for number in (1, 2)]
        harbor.drain()

        assert ["dead", "dead"] == states(handles)
        assert "returned a dict" in harbor.look(handles[0].id).errors[0].message


def test_a_payload_that_cannot_be_read_stands_apart_and_the_others_run() -> None:
    """It was written by a build whose task takes something else, and is parked for that one."""
    theirs, ours = Registry(), Registry()

    @task(name="work", registry=theirs)
    def written(numbers: str) -> None: ...

    @task(name="work", batch=BY_FOUR, registry=ours)
    def work(numbers: list[int]) -> list[int | Exception]:
        return [number + 1 for number in numbers]

    with InlineHarbor(registry=ours) as harbor:
        handles = [work.enqueue(1), written.enqueue("one"), work.enqueue(2)]
        harbor.drain()

        assert ["succeeded", "parked", "succeeded"] == states(handles)
        assert [2, 3] == [handles[0].result(), handles[2].result()]


# --- the context


def test_each_job_has_a_context_of_its_own() -> None:
    registry = Registry()

    @task(registry=registry)
    def after(text: str) -> str:
        return text

    @task(batch=BY_FOUR, registry=registry)
    async def work(ctx: BatchContext[str], numbers: list[int]) -> list[str | Exception]:
        assert "<BatchContext of 2 jobs" in repr(ctx)
        for job, number in zip(ctx.jobs, numbers, strict=True):
            job.progress(number, 10)
            job.log(f"it is {number}")
            job.enqueue_on_success(after.s(f"{ctx.deps} {number}"))
        return [
            ValueError("two") if number == 2 else job.meta["of"]
            for job, number in zip(ctx.jobs, numbers, strict=True)
        ]

    with InlineHarbor(registry=registry, deps=lambda: nullcontext("deps")) as harbor:
        first = work.options(meta={"of": "ann"}).enqueue(1)
        second = work.enqueue(2)
        harbor.drain()

        assert "ann" == first.result()
        assert ["it is 1"] == [line.text for line in first.log()]
        told = harbor.look(second.id).progress
        assert told is not None
        assert (2, 10) == (told.done, told.total)
        assert ["deps 1"] == [handle.result() for handle in map(after.handle, _ids(harbor, "after"))], (
            "only a success brings more with it"
        )


def _ids(harbor: InlineHarbor, task_name: str) -> list[str]:
    return [record.id for record in harbor.records() if record.task.endswith(task_name)]


def test_a_batch_handler_is_called_by_hand_with_a_detached_context() -> None:
    @task(batch=BY_FOUR, registry=Registry())
    def work(ctx: BatchContext[str], numbers: list[int]) -> list[str | Exception]:
        for job in ctx.jobs:
            job.progress(1)
        return [ctx.deps * number for number in numbers]

    ctx = BatchContext.detached("ab", 2)

    assert ["ab", "abab"] == work.fn(ctx, [1, 2])
    assert [1, 1] == [len(job.reports) for job in ctx.jobs]
    with pytest.raises(UsageError, match=r"BatchContext\.detached"):
        work([1, 2])


def test_a_batch_task_is_called_as_the_function_that_it_is() -> None:
    @task(batch=BY_FOUR, registry=Registry())
    def work(numbers: list[int]) -> list[int | Exception]:
        return [number + 1 for number in numbers]

    assert [2, 3] == work([1, 2])


# --- middleware


class Noting(Middleware):
    """Notes what it is around, and what comes of it."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name, self.notes = name, notes

    @override
    def run(self, attempt: Attempt) -> Iterator[None]:
        number = attempt.arguments["numbers"]
        self.notes.append(f"{self.name} {number}")
        try:
            yield
        except ValueError as error:
            self.notes.append(f"{self.name} {number}: {error}")
            raise
        self.notes.append(f"{self.name} {number} = {attempt.result}")


class ANoting(Noting):
    """Does so where it may await."""

    @override
    async def arun(self, attempt: Attempt) -> AsyncIterator[None]:
        for _ in self.run(attempt):
            yield


@pytest.mark.parametrize("in_thread", [True, False], ids=["def", "async def"])
def test_layers_are_around_each_job_with_its_own_end(in_thread: bool) -> None:
    """Gone into in order, left in reverse."""
    registry, notes = Registry(), list[str]()

    def work(numbers: list[int]) -> list[int | Exception]:
        notes.append(f"call {numbers}")
        return [ValueError("two") if number == 2 else number * 10 for number in numbers]

    async def awork(numbers: list[int]) -> list[int | Exception]:
        return work(numbers)

    declared = task(batch=BY_FOUR, registry=registry, middleware=[ANoting("in", notes)], name="work")
    batched = declared(work) if in_thread else declared(awork)
    with Harbor("memory://", registry=registry, middleware=[Noting("out", notes)]) as harbor:
        for number in (1, 2):
            batched.options(retry=Retry(max_attempts=1)).enqueue(number)
        harbor.run_until_idle()

    entering = ["out 1", "in 1", "out 2", "in 2"]
    leaving = ["out 2: two", "in 1 = 10", "out 1 = 10"]
    if in_thread:
        leaving.insert(0, "in 2: two")
    assert [*entering, "call [1, 2]"] == notes[:5]
    assert leaving == [note for note in notes[5:] if in_thread or not note.startswith("in 2")]


class Answering(Middleware):
    """Answers for some jobs, refuses others, and lets the rest pass."""

    @override
    def run(self, attempt: Attempt) -> Iterator[None]:
        if attempt.arguments["numbers"] == 1:
            attempt.replace_result(100)
            return
        if attempt.arguments["numbers"] == 2:
            raise Reject("not two")
        yield


@pytest.mark.parametrize("in_thread", [True, False], ids=["def", "async def"])
def test_a_job_that_a_layer_answers_or_refuses_is_left_out_of_the_call(in_thread: bool) -> None:
    registry, calls = Registry(), list[list[int]]()

    def work(ctx: BatchContext, numbers: list[int]) -> list[int | Exception]:
        assert len(ctx.jobs) == len(numbers)
        calls.append(numbers)
        return list(numbers)

    async def awork(ctx: BatchContext, numbers: list[int]) -> list[int | Exception]:
        return work(ctx, numbers)

    declared = task(batch=BY_FOUR, registry=registry, name="work", middleware=[Answering()])
    batched = declared(work) if in_thread else declared(awork)
    with InlineHarbor(registry=registry) as harbor:
        handles = [batched.enqueue(number) for number in (0, 1, 2, 3)]
        harbor.drain()

        assert [[0, 3]] == calls
        assert ["succeeded", "succeeded", "dead", "succeeded"] == states(handles)
        assert [0, 100, 3] == [handles[number].result() for number in (0, 1, 3)]


def test_context_variables_hold_around_each_job_and_not_in_the_handler() -> None:
    """A batch is many jobs, so none of their values would be right there."""
    who: ContextVar[str] = ContextVar("who", default="nobody")
    registry, seen = Registry(), list[str]()

    class Looking(Middleware):
        @override
        def run(self, attempt: Attempt) -> Iterator[None]:
            yield
            seen.append(who.get())

    @task(batch=BY_FOUR, registry=registry)
    def work(numbers: list[int]) -> None:
        seen.append(who.get())

    with InlineHarbor(registry=registry, middleware=[ContextVariables(who), Looking()]) as harbor:
        for name in ("ann", "bob"):
            token = who.set(name)
            work.enqueue(1)
            who.reset(token)
        harbor.drain()

    assert ["nobody", "bob", "ann"] == seen


def test_records_logged_in_a_batch_handler_name_its_task(caplog: pytest.LogCaptureFixture) -> None:
    registry = Registry()

    @task(batch=BY_FOUR, registry=registry, name="work")
    def work(numbers: list[int]) -> None:
        logging.getLogger("mine").warning("here")

    caplog.handler.addFilter(fields := JobFields(outside="-"))
    with InlineHarbor(registry=registry) as harbor:
        work.enqueue(1)
        harbor.drain()
    caplog.handler.removeFilter(fields)

    (record,) = [record for record in caplog.records if record.name == "mine"]
    assert ("work", "-") == (getattr(record, "task", None), getattr(record, "job_id", None))


def test_a_failure_that_a_test_asks_for_is_that_of_one_job() -> None:
    registry, calls = Registry(), list[list[int]]()

    @task(batch=BY_FOUR, retry=AT_ONCE, registry=registry)
    def work(numbers: list[int]) -> None:
        calls.append(numbers)

    with InlineHarbor(registry=registry) as harbor:
        handles = [work.enqueue(number) for number in (1, 2)]
        harbor.fail_next(work, OSError("gone"))
        harbor.drain()

        assert [[2], [1]] == calls
        assert ["succeeded"] * 2 == states(handles)


# --- flows


def test_steps_of_flows_are_batched_with_all_others() -> None:
    registry, calls = Registry(), list[int]()

    @task(registry=registry)
    def numbers(count: int) -> list[int]:
        return list(range(count))

    @task(batch=Batch(size=100, wait=HOUR), registry=registry)
    def double(each_of: list[int]) -> list[int | Exception]:
        calls.append(len(each_of))
        return [2 * one for one in each_of]

    @task(registry=registry)
    def total(doubled: list[int]) -> int:
        return sum(doubled)

    with InlineHarbor(registry=registry) as harbor:
        fanned = chain(numbers.s(20), each(double), total).enqueue()
        grouped = group(*(double.s(number) for number in range(5))).then(total).enqueue()
        single = chain(double.s(4), double).enqueue()
        harbor.drain()

        assert (380, 20, 16) == (fanned.result(), grouped.result(), single.result())
        assert max(calls) >= 20


# --- the declaration


def test_the_wire_is_that_of_a_plain_task_whose_parameter_has_the_name() -> None:
    """So a task becomes a batch one, or ceases to be one, with old jobs waiting."""
    plain, batched = Registry(), Registry()

    @task(name="index", registry=plain)
    def index(document: Document) -> int:
        return 1

    @task(name="index", batch=BY_FOUR, registry=batched)
    def index_many(document: list[Document]) -> list[int | Exception]:
        return [2] * len(document)

    assert index.definition.fingerprint == index_many.definition.fingerprint
    assert index.schema() == index_many.schema()


def _declared(what: str) -> None:
    names = {
        "task": task,
        "Batch": Batch,
        "BatchContext": BatchContext,
        "Context": Context,
        "Registry": Registry,
        "Document": Document,
    }
    exec(what, names)  # noqa: S102 - what is refused where it is written, line by line


_DOCUMENTS = "documents: list[Document]"


@pytest.mark.parametrize(
    ("declaration", "told"),
    [
        ("def f(document: Document) -> None: ...", "takes a list of what each job carries, and this is Document"),
        ("def f(documents: list) -> None: ...", "takes a list of what each job carries, and this is list"),
        (f"def f({_DOCUMENTS}, n: int) -> None: ...", "has one parameter .* this one has 'documents', 'n'"),
        ("def f() -> None: ...", "has one parameter .* this one has none"),
        (f"def f(*{_DOCUMENTS}) -> None: ...", "is given its list by position"),
        ("def f(documents: list[Document] = []) -> None: ...", "without a default"),
        (f"def f({_DOCUMENTS}) -> int: ...", "each a result or an exception, and this one returns int"),
        (f"def f({_DOCUMENTS}) -> list[int | ValueError]: ...", r"write `\| Exception` instead of ValueError"),
        (f"def f(ctx: Context, {_DOCUMENTS}) -> None: ...", "take a BatchContext, first"),
        (f"def f({_DOCUMENTS}, ctx: BatchContext) -> None: ...", "only injected as the first parameter"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_batch_handler_is_refused_at_its_declaration(declaration: str, told: str) -> None:
    with pytest.raises(TaskDefinitionError, match=told):
        _declared(f"@task(batch=Batch(), registry=Registry())\n{declaration}")


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("Batch(0)", "from 1 to 1000"),
        ("Batch(1001)", "from 1 to 1000"),
        ("Batch(True)", "from 1 to 1000"),
        ("Batch(wait=1)", "a timedelta from 0 to an hour"),
        ("task(batch=10)", "expected a Batch"),
        (
            f"@task(batch=Batch(), run='process', registry=Registry())\ndef f({_DOCUMENTS}) -> None: ...",
            "run='process' hands one job to a process",
        ),
        (
            f"@task(registry=Registry())\ndef f(ctx: BatchContext, {_DOCUMENTS}) -> None: ...",
            "a BatchContext is for batch handlers",
        ),
    ],
)
def test_what_does_not_go_with_batches_is_refused(code: str, told: str) -> None:
    with pytest.raises(TaskHarborError, match=told) as refused:
        _declared(code)
    assert isinstance(refused.value, (OptionError, TaskDefinitionError))
