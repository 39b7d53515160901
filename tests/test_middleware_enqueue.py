"""Layers around enqueues: what they see, add and refuse, by every way a job can come into the store."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from types import FrameType

import pytest

from taskharbor import (
    Context,
    DuplicateJob,
    Harbor,
    JobFailed,
    KeyConflict,
    MiddlewareError,
    PayloadError,
    Registry,
    Retry,
    chain,
    chord,
    departure,
    each,
    group,
    sending,
    task,
)
from taskharbor.call import running_job
from taskharbor.flow import FlowFailure
from taskharbor.middleware import Middleware, Outgoing
from tests.fixtures.support import untyped
from tests.support.work import TroubledDriver, eventually, states

Steps = Callable[[Sequence[Outgoing]], Iterator[None]]


class Around(Middleware):
    """Runs a generator function given to it."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    def enqueue(self, jobs: Sequence[Outgoing]) -> Iterator[None]:
        return self._steps(jobs)


class Mark(Middleware):
    """Adds its name to the metadata, and notes when it is gone in and out of."""

    def __init__(self, name: str, notes: list[str] | None = None) -> None:
        self._name = name
        self._notes = [] if notes is None else notes

    def enqueue(self, jobs: Sequence[Outgoing]) -> Iterator[None]:
        self._notes.append(f"{self._name} in {len(jobs)}")
        for job in jobs:
            job.meta[self._name] = "yes"
        yield
        self._notes.append(f"{self._name} out")


REGISTRY = Registry()


@task(registry=REGISTRY, queue="ink")
def double(value: int) -> int:
    return value * 2


@task(registry=REGISTRY)
async def numbers(count: int) -> list[int]:
    return list(range(count))


@task(registry=REGISTRY)
async def tell(ctx: Context, value: list[int] | None = None) -> dict[str, str]:
    return dict(ctx.meta)


@task(registry=REGISTRY)
def tell_of(ctx: Context, value: int) -> dict[str, str]:
    return dict(ctx.meta)


@task(registry=REGISTRY)
def gather_up(told: list[dict[str, str]]) -> list[dict[str, str]]:
    return told


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'jobs.db'}"


def harbor_with(*layers: Middleware, url: str = "memory://") -> Harbor:
    return Harbor(url, registry=REGISTRY, middleware=layers)


def test_a_layer_sees_each_job_of_a_batch_before_and_after_it_is_stored() -> None:
    before, after = list[object](), list[object]()

    def look(jobs: Sequence[Outgoing]) -> Iterator[None]:
        for job in jobs:
            before.append((job.task, job.queue, dict(job.arguments), job.meta, job.flow, job.created))
        yield
        after.extend((job.job_id, job.created) for job in jobs)

    with harbor_with(Around(look)) as harbor:
        first, second = harbor.enqueue_many(
            [double.s(1), double.options(queue="fast", meta={"a": "b"}).s(2)],
        )

    assert before == [
        (double.name, "ink", {"value": 1}, {}, False, None),
        (double.name, "fast", {"value": 2}, {"a": "b"}, False, None),
    ]
    assert after == [(first.id, True), (second.id, True)]


@pytest.mark.parametrize("name", ["task", "queue", "job_id", "flow", "arguments", "created"])
def test_a_layer_adds_metadata_and_changes_nothing_else(name: str) -> None:
    def change(jobs: Sequence[Outgoing]) -> Iterator[None]:
        setattr(jobs[0], name, "other")
        yield

    with harbor_with(Around(change)) as harbor:
        with pytest.raises(AttributeError, match=name):
            double.enqueue(1)

        assert [] == list(harbor.jobs.find())


def test_layers_run_from_the_harbors_first_to_each_tasks_last_and_back() -> None:
    notes, registry = list[str](), Registry()

    @task(registry=registry, middleware=[Mark("c", notes), Mark("d", notes)])
    def special() -> None: ...

    @task(registry=registry)
    def plain() -> None: ...

    with Harbor("memory://", registry=registry, middleware=[Mark("a", notes), Mark("b", notes)]) as harbor:
        jobs = harbor.enqueue_many([special.s(), plain.s(), special.s()])
        metas = [harbor.look(job.id).meta for job in jobs]

    assert notes == ["a in 3", "b in 3", "c in 2", "d in 2", "d out", "c out", "b out", "a out"]
    assert [sorted(meta) for meta in metas] == [["a", "b", "c", "d"], ["a", "b"], ["a", "b", "c", "d"]]


def test_a_tasks_own_layers_need_none_of_the_harbors() -> None:
    registry = Registry()

    @task(registry=registry, middleware=[Mark("own")])
    def special() -> None: ...

    with Harbor("memory://", registry=registry) as harbor:
        assert {"own": "yes"} == harbor.look(special.enqueue().id).meta


def test_async_enqueues_go_through_the_same_layers() -> None:
    asyncio.run(enqueue_on_a_loop())


async def enqueue_on_a_loop() -> None:
    async with harbor_with(Mark("a")) as harbor:
        job = await double.aenqueue(1)
        [bulk] = await harbor.aenqueue_many([double.s(2)])

        assert {"a": "yes"} == (await harbor.alook(job.id)).meta == (await harbor.alook(bulk.id)).meta


def test_metadata_that_a_caller_gave_is_kept_and_never_changed_at_his_side() -> None:
    options = double.options(meta={"mine": "1"})

    with harbor_with(Mark("a")) as harbor:
        first = options.enqueue(1)
        assert {"mine": "1", "a": "yes"} == harbor.look(first.id).meta

    with harbor_with() as harbor:
        assert {"mine": "1"} == harbor.look(options.enqueue(1).id).meta


def test_what_a_layer_does_to_the_metadata_afterwards_changes_no_stored_job() -> None:
    def late(jobs: Sequence[Outgoing]) -> Iterator[None]:
        yield
        for job in jobs:
            job.meta["late"] = "yes"

    with harbor_with(Around(late)) as harbor:
        assert {} == harbor.look(double.enqueue(1).id).meta


@pytest.mark.parametrize("wrong", [{"a": 1}, {1: "a"}, "text", {"nul": "\x00"}], ids=str)
def test_metadata_that_is_not_text_to_text_refuses_the_batch(url: str, wrong: object) -> None:
    def spoil(jobs: Sequence[Outgoing]) -> Iterator[None]:
        jobs[-1].meta = untyped(wrong)
        yield

    with harbor_with(Around(spoil), url=url) as harbor:
        with pytest.raises(MiddlewareError, match=r"what middleware \(Around\) left as metadata"):
            harbor.enqueue_many([double.s(1), double.s(2)])
        assert [] == list(harbor.jobs.find())


# --- refusing, and what goes wrong


class Refused(Exception):
    """Raised by a layer."""


def test_an_exception_before_the_yield_refuses_the_whole_batch(url: str) -> None:
    notes = list[str]()

    def outside(jobs: Sequence[Outgoing]) -> Iterator[None]:
        try:
            yield
        except Refused:
            notes.append("outside was told")
            raise

    def refuse(jobs: Sequence[Outgoing]) -> Iterator[None]:
        if any(job.arguments["value"] == 13 for job in jobs):
            raise Refused
        yield

    with harbor_with(Around(outside), Around(refuse), url=url) as harbor:
        with pytest.raises(Refused):
            harbor.enqueue_many([double.s(12), double.s(13)])
        assert [] == list(harbor.jobs.find())

        double.enqueue(14)
        assert 1 == len(list(harbor.jobs.find()))
    assert notes == ["outside was told"]


def test_what_refuses_the_jobs_further_in_is_raised_at_the_yield_and_goes_on() -> None:
    seen = list[str]()

    def swallow(jobs: Sequence[Outgoing]) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001
            seen.append(type(error).__name__)

    with harbor_with(Around(swallow)):
        with pytest.raises(PayloadError) as unfit:
            untyped(double).enqueue("one")
        double.options(key="k").enqueue(1)
        with pytest.raises(KeyConflict):
            double.options(key="k").enqueue(2)
        with pytest.raises(DuplicateJob):
            double.options(key="k", on_conflict="raise").enqueue(1)

    assert seen == ["PayloadError", "KeyConflict", "DuplicateJob"]
    assert unfit.value.__notes__ == [
        "`Around.enqueue` of the middleware caught this; it went on, since nothing was stored"
    ]


def test_a_layer_may_raise_another_error_in_place_of_the_one_further_in() -> None:
    def translate(jobs: Sequence[Outgoing]) -> Iterator[None]:
        try:
            yield
        except PayloadError as error:
            raise Refused from error

    with harbor_with(Around(translate)), pytest.raises(Refused):
        untyped(double).enqueue("one")


def yields_twice(jobs: Sequence[Outgoing]) -> Iterator[None]:
    yield
    yield


def raises_after(jobs: Sequence[Outgoing]) -> Iterator[None]:
    yield
    raise Refused(jobs[0].arguments)


@pytest.mark.parametrize(
    ("steps", "error"),
    [(yields_twice, "MiddlewareError"), (raises_after, "Refused")],
    ids=["twice", "raises"],
)
def test_what_goes_wrong_once_the_jobs_are_stored_is_logged_and_not_raised(
    url: str, steps: Steps, error: str, caplog: pytest.LogCaptureFixture
) -> None:
    notes = list[str]()

    with (
        harbor_with(Mark("outside", notes), Around(steps), url=url) as harbor,
        caplog.at_level(logging.ERROR),
    ):
        job = double.enqueue(4711)

        assert {"outside": "yes"} == harbor.look(job.id).meta
    assert notes == ["outside in 1", "outside out"]
    [logged] = [record for record in caplog.records if record.name == "taskharbor.middleware"]
    assert (
        f"`Around.enqueue` of the middleware raised {error} when its 1 jobs were stored"
        in logged.getMessage()
    )
    assert "4711" not in logged.getMessage()


def test_yielding_twice_for_a_batch_that_was_refused_is_told_of() -> None:
    def twice(jobs: Sequence[Outgoing]) -> Iterator[None]:
        try:
            yield
        except PayloadError:
            yield

    with harbor_with(Around(twice)), pytest.raises(MiddlewareError, match="yielded twice") as told:
        untyped(double).enqueue("one")

    assert isinstance(told.value.__cause__, PayloadError)


def no_generator(_: Sequence[Outgoing]) -> Iterator[None]:
    return iter(())


def no_yield(_: Sequence[Outgoing]) -> Iterator[None]:
    yield from ()


@pytest.mark.parametrize(
    ("steps", "told"), [(no_generator, "returned a tuple_iterator"), (no_yield, "without its `yield`")]
)
def test_a_layer_without_a_yield_refuses_the_batch_and_is_named(steps: Steps, told: str) -> None:
    with harbor_with(Around(steps)) as harbor:
        with pytest.raises(MiddlewareError, match=f"`Around.enqueue` of the middleware.*{told}"):
            double.enqueue(1)
        assert [] == list(harbor.jobs.find())


# --- keys


def test_metadata_makes_no_other_request_of_one_with_the_same_key() -> None:
    counts = iter(range(100))
    outgoing = list[tuple[str, bool | None]]()

    def number(jobs: Sequence[Outgoing]) -> Iterator[None]:
        for job in jobs:
            job.meta["number"] = str(next(counts))
        yield
        outgoing.extend((job.job_id, job.created) for job in jobs)

    with harbor_with(Around(number)) as harbor:
        first, again = (double.options(key="k").enqueue(1) for _ in range(2))
        flow = chain(double.s(1), double)
        flows = [flow.configure(key="f").enqueue() for _ in range(2)]

        assert (again.id, again.created) == (first.id, False)
        assert (flows[1].id, flows[1].created) == (flows[0].id, False)
        assert {"number": "0"} == harbor.look(first.id).meta
    assert outgoing == [(first.id, True), (first.id, False), (flows[0].id, True), (flows[0].id, False)]


# --- flows, and what is stored with a success


def test_a_flow_is_one_outgoing_whose_metadata_goes_to_every_step(url: str) -> None:
    seen = list[Outgoing]()

    def look(jobs: Sequence[Outgoing]) -> Iterator[None]:
        seen.extend(jobs)
        yield

    with harbor_with(Around(look), Mark("a"), url=url) as harbor:
        flow = (
            chord(group(tell.options(meta={"mine": "1"}).s(), tell.s()), gather_up)
            .configure(name="pair", meta={"flow": "2"})
            .enqueue()
        )
        harbor.run_until_idle()

        assert [{"mine": "1", "a": "yes"}, {"a": "yes"}] == flow.result()
        assert {"flow": "2", "a": "yes"} == harbor.flows.get(flow.id).meta
        assert all(step.meta.get("a") == "yes" for step in harbor.flows.steps(flow.id))
    [one] = seen
    assert (one.flow, one.job_id, one.created, dict(one.arguments)) == (True, flow.id, True, {})
    assert one.task == gather_up.name


def test_a_steps_own_metadata_comes_before_what_a_layer_adds() -> None:
    with harbor_with(Mark("a")) as harbor:
        flow = chain(numbers.s(1), tell.options(meta={"a": "mine"})).enqueue()
        harbor.run_until_idle()

        assert {"a": "mine"} == flow.result()


def test_steps_that_each_makes_later_have_the_metadata_too(url: str) -> None:
    with harbor_with(Mark("a"), url=url) as harbor:
        flow = chain(numbers.s(2), each(chain(double, tell_of)), gather_up).enqueue()
        harbor.run_until_idle()

        assert [{"a": "yes"}, {"a": "yes"}] == flow.result()


def test_the_task_that_is_told_of_a_failed_flow_has_the_metadata_too() -> None:
    registry, told = Registry(), list[dict[str, str]]()

    @task(registry=registry, retry=Retry(max_attempts=1))
    def fail() -> int:
        raise ValueError

    @task(registry=registry)
    def hear(ctx: Context, failure: FlowFailure) -> None:
        told.append(dict(ctx.meta))

    @task(registry=registry)
    def after(value: int) -> int:
        return value

    with Harbor("memory://", registry=registry, middleware=[Mark("a")]) as harbor:
        chain(fail.s(), after).configure(on_failure=hear).enqueue()
        harbor.run_until_idle()

    assert told == [{"a": "yes"}]


def test_what_is_enqueued_with_a_success_goes_through_the_layers(url: str) -> None:
    registry, created, told = Registry(), list[bool | None](), list[dict[str, str]]()

    def look(jobs: Sequence[Outgoing]) -> Iterator[None]:
        yield
        created.extend(job.created for job in jobs)

    @task(registry=registry)
    def hear(ctx: Context) -> None:
        told.append(dict(ctx.meta))

    @task(registry=registry)
    def begin(ctx: Context) -> None:
        ctx.enqueue_on_success(hear.s(), chain(hear.s(), more))

    @task(registry=registry)
    async def more(ctx: Context, value: None) -> None:
        told.append(dict(ctx.meta))

    with Harbor(url, registry=registry, middleware=[Around(look), Mark("a")]) as harbor:
        begin.enqueue()
        harbor.run_until_idle()

    assert told == [{"a": "yes"}] * 3
    assert created == [True, None, None]


def test_a_layer_that_refuses_what_is_to_be_enqueued_with_a_success_fails_the_attempt() -> None:
    registry = Registry()

    def refuse(jobs: Sequence[Outgoing]) -> Iterator[None]:
        if jobs[0].task == "hear":
            raise Refused("not this")
        yield

    @task(registry=registry, name="hear")
    def hear() -> None: ...

    @task(registry=registry, retry=Retry(max_attempts=1))
    def begin(ctx: Context) -> None:
        ctx.enqueue_on_success(hear.s())

    with Harbor("memory://", registry=registry, middleware=[Around(refuse)]) as harbor:
        job = begin.enqueue()
        harbor.run_until_idle()

        with pytest.raises(JobFailed, match="not this"):
            job.result(timeout=timedelta(0))


class Hears(Middleware):
    """Notes what each batch with the task `work` came to: whether the jobs were created, or what was raised."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def enqueue(self, jobs: Sequence[Outgoing]) -> Iterator[None]:
        if jobs[0].task != "work":
            yield
            return
        try:
            yield
        except BaseException as error:
            self.heard.append(type(error))
            raise
        self.heard.append(jobs[0].created)


def swallow(_: Sequence[Outgoing]) -> Iterator[None]:
    with contextlib.suppress(BaseException):
        yield


def test_an_enqueue_that_is_stored_while_its_handler_is_stopped_is_told_as_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry, hears = Registry(), Hears()

    @task(registry=registry, name="work", queue="later")
    def work() -> None: ...

    @task(registry=registry, retry=Retry(max_attempts=1), timeout=timedelta(milliseconds=50))
    def parent() -> None:
        work.enqueue()

    with Harbor("memory://", registry=registry, middleware=[hears]) as harbor:
        connection: object = untyped(harbor)._connections.producer()
        producer = type(connection)
        write: Callable[[object, object], object] = untyped(producer).job_enqueue

        def answers_when_the_job_was_told_to_stop(store: object, request: object) -> object:
            answer = write(store, request)
            run = untyped(running_job.get())
            if run is not None:
                eventually(lambda: bool(run.interrupt.deferred))
            return answer

        monkeypatch.setattr(producer, "job_enqueue", answers_when_the_job_was_told_to_stop)
        job = parent.enqueue()
        harbor.run_until_idle(queues=["default"])

        assert "taskharbor.errors.JobTimeout" == job.status().errors[-1].type
        assert {"dead": 1, "ready": 1} == states(harbor)
    assert hears.heard == [True]


def test_a_cancelled_enqueue_is_told_as_one_whose_jobs_may_be_stored() -> None:
    async def main() -> asyncio.CancelledError:
        driver, asked = TroubledDriver(), asyncio.Event()

        async def never() -> None:
            asked.set()
            await asyncio.Event().wait()

        driver.gates["job_enqueue"] = never
        async with Harbor(untyped(driver), registry=REGISTRY, middleware=[Around(swallow)]):
            sending = asyncio.create_task(double.aenqueue(1))
            await asked.wait()
            sending.cancel()
            with pytest.raises(asyncio.CancelledError) as cancelled:
                await sending
        return cancelled.value

    [note] = asyncio.run(main()).__notes__

    assert "the jobs may be stored or not" in note


def test_no_layer_is_left_untold_wherever_an_interrupt_lands() -> None:
    """At every bytecode of the way out, as `KeyboardInterrupt` does."""
    hears = Hears()
    registry = Registry()
    ours = {departure.__file__, sending.__file__}
    at, heard = 0, list[tuple[object, bool]]()

    @task(registry=registry, name="work")
    def work() -> None: ...

    with Harbor("memory://", registry=registry, middleware=[hears]) as harbor:
        work.enqueue()
        hears.heard.clear()
        while True:
            at += 1
            left = at

            def trace(frame: FrameType, event: str, arg: object) -> object:
                nonlocal left
                if frame.f_code.co_filename not in ours:
                    return None
                frame.f_trace_opcodes = True
                if event == "opcode":
                    left -= 1
                    if left == 0:
                        raise KeyboardInterrupt
                return trace

            before = states(harbor)
            try:
                sys.settrace(untyped(trace))
                work.enqueue()
            except KeyboardInterrupt:
                pass
            finally:
                sys.settrace(None)
            if left > 0:
                break
            heard += [(one, states(harbor) != before) for one in hears.heard]
            hears.heard.clear()

    assert (True, False) not in heard
    assert {one for one, _ in heard} == {True, KeyboardInterrupt}
