"""The middleware that comes with the library: job logging, context variables, slow-job warnings."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextvars import ContextVar, copy_context
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from taskharbor import (
    Context,
    Harbor,
    JobInterrupt,
    OptionError,
    Registry,
    Reject,
    Retry,
    RetryLater,
    Snooze,
    chain,
    each,
    task,
)
from taskharbor.middleware import (
    Attempt,
    ContextVariables,
    JobFields,
    JobLogging,
    Middleware,
    SlowJobs,
    TypedVariable,
)
from taskharbor.middleware.watching import Watch
from tests.fixtures.support import untyped
from tests.support.work import (
    ENOUGH,
    HOUR,
    MS,
    aeventually,
    await_event,
    eventually,
    spin,
    threads_named,
)

ONCE = Retry(max_attempts=1)


class Kept(logging.Handler):
    """Keeps records, and says when one of some text has come."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def having(self, text: str) -> list[logging.LogRecord]:
        return [record for record in self.records if text in record.getMessage()]

    def fields(self, *names: str) -> list[tuple[object, ...]]:
        return [tuple(record.__dict__.get(name) for name in names) for record in self.records]


@contextlib.contextmanager
def kept(name: str) -> Generator[Kept]:
    """Return what a logger is told in a block."""
    logger, handler = logging.getLogger(name), Kept()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


# --- JobLogging

REGISTRY = Registry()


@task(registry=REGISTRY, name="end", retry=ONCE)
def end_sync(how: str) -> str:
    match how:
        case "value":
            raise ValueError(how)
        case "snooze":
            raise Snooze(HOUR)
        case "reject":
            raise Reject("secret")
        case "later":
            raise RetryLater(HOUR)
        case _:
            return "secret result"


@task(registry=REGISTRY, name="aend", retry=ONCE)
async def end_async(how: str) -> str:
    return end_sync.fn(how)


@pytest.mark.parametrize("work", [end_sync, end_async], ids=["def", "async-def"])
@pytest.mark.parametrize(
    ("how", "outcome", "error", "level"),
    [
        ("well", "succeeded", None, logging.INFO),
        ("value", "failed", "ValueError", logging.WARNING),
        ("snooze", "snoozed", "Snooze", logging.INFO),
        ("reject", "rejected", "Reject", logging.WARNING),
        ("later", "retry_later", "RetryLater", logging.INFO),
    ],
)
def test_each_attempts_start_and_end_are_logged_with_fields(
    work: Any, how: str, outcome: str, error: str | None, level: int
) -> None:
    with (
        kept("taskharbor.jobs") as log,
        Harbor("memory://", registry=REGISTRY, middleware=[JobLogging()]) as harbor,
    ):
        job = work.options(queue="logged").enqueue(how)
        harbor.run_until_idle(queues=["logged"])

    start, end = log.records
    common = ("job_id", "task", "queue", "attempt", "max_attempts", "flow_id")
    assert log.fields(*common) == [(job.id, work.name, "logged", 1, 1, None)] * 2
    assert start.levelno == logging.INFO
    assert (end.levelno, end.__dict__["outcome"], end.__dict__["error_type"]) == (level, outcome, error)
    assert 0 <= end.__dict__["duration_seconds"] < ENOUGH.total_seconds()
    assert ":" in end.__dict__["worker"]
    assert "secret" not in start.getMessage() + end.getMessage()
    # Where it was logged from would be a line of ours in every record.
    assert end.exc_info is None


def test_an_attempt_that_was_stopped_is_logged_as_stopped() -> None:
    registry = Registry()

    @task(registry=registry, retry=ONCE, timeout=30 * MS)
    async def stay() -> None:
        await asyncio.Event().wait()

    @task(registry=registry, retry=ONCE, timeout=30 * MS)
    def stay_in_thread() -> None:
        spin()

    layer = JobLogging("mine", level=logging.INFO)
    with kept("mine") as log, Harbor("memory://", registry=registry, middleware=[layer]) as harbor:
        stay.enqueue()
        stay_in_thread.enqueue()
        harbor.run_until_idle()

    ends = {record.__dict__["task"]: record for record in log.records if "outcome" in record.__dict__}
    assert {name: (end.__dict__["outcome"], end.__dict__["error_type"]) for name, end in ends.items()} == {
        stay.name: ("stopped", "CancelledError"),
        stay_in_thread.name: ("stopped", "JobInterrupt"),
    }


def test_the_step_of_a_flow_is_logged_with_the_flows_id() -> None:
    registry = Registry()

    @task(registry=registry)
    def begin() -> int:
        return 1

    @task(registry=registry)
    async def go_on(value: int) -> int:
        return value

    with (
        kept("taskharbor.jobs") as log,
        Harbor("memory://", registry=registry, middleware=[JobLogging()]) as harbor,
    ):
        flow = chain(begin.s(), go_on).enqueue()
        harbor.run_until_idle()

    assert log.fields("flow_id") == [(flow.id,)] * 4


def test_records_logged_inside_handlers_have_the_jobs_fields() -> None:
    """In threads, on the loop, in tasks that a handler starts, and in what it sends to a thread."""
    registry, logger = Registry(), logging.getLogger("application")

    @task(registry=registry)
    def in_thread() -> None:
        logger.info("thread")

    @task(registry=registry)
    async def on_loop() -> None:
        logger.info("loop")
        await asyncio.create_task(child())
        await asyncio.to_thread(logger.info, "to_thread")

    async def child() -> None:
        logger.info("child")

    with kept("application") as log, Harbor("memory://", registry=registry) as harbor:
        log.addFilter(JobFields(outside="-"))
        one, other = in_thread.enqueue(), on_loop.enqueue()
        logger.info("before", extra={"queue": "mine"})
        harbor.run_until_idle()

    told = {record.getMessage(): record.__dict__ for record in log.records}
    assert {text: fields["job_id"] for text, fields in told.items()} == {
        "before": "-",
        "thread": one.id,
        "loop": other.id,
        "child": other.id,
        "to_thread": other.id,
    }
    assert (told["thread"]["task"], told["thread"]["attempt"]) == (in_thread.name, 1)
    assert (told["before"]["queue"], told["before"]["task"]) == ("mine", "-")


# --- ContextVariables


class User(msgspec.Struct):
    name: str
    groups: list[str]


request_id: ContextVar[str] = ContextVar("request_id")
tenant: ContextVar[str | None] = ContextVar("tenant", default=None)
user: ContextVar[User] = ContextVar("user")
CARRIED = ContextVariables(request_id, tenant, TypedVariable(user, User))
ADA = User("Ada", ["admin"])

Held = tuple[str, str | None, User | None]


def held() -> Held:
    return request_id.get(""), tenant.get(), user.get(None)


VARIABLES = Registry()


@task(registry=VARIABLES)
def held_in_thread(value: int = 0) -> Held:
    return held()


@task(registry=VARIABLES)
async def held_on_loop(value: int = 0) -> Held:
    return held()


@task(registry=VARIABLES)
async def numbers() -> list[int]:
    return [1, 2]


@pytest.fixture
def variables() -> Iterator[None]:
    tokens = request_id.set("r-1"), user.set(ADA)
    yield
    request_id.reset(tokens[0])
    user.reset(tokens[1])


def carrying(url: str = "memory://") -> Harbor:
    return Harbor(url, registry=VARIABLES, middleware=[CARRIED])


@pytest.mark.usefixtures("variables")
def test_handlers_see_what_context_variables_held_where_the_job_was_enqueued() -> None:
    with carrying() as harbor:
        jobs = [held_in_thread.enqueue(), held_on_loop.enqueue()]
        token = request_id.set("another")
        harbor.run_until_idle()
        request_id.reset(token)

        assert [("r-1", None, ADA)] * 2 == [job.result() for job in jobs]
        meta = harbor.look(jobs[0].id).meta
    assert meta == {"context.request_id": "r-1", "context.user": '{"name":"Ada","groups":["admin"]}'}


def test_a_variable_without_a_value_does_not_travel() -> None:
    with carrying() as harbor:
        job = held_in_thread.enqueue()
        harbor.run_until_idle()

        assert ("", None, None) == job.result()
        assert {} == harbor.look(job.id).meta


@pytest.mark.usefixtures("variables")
def test_context_variables_reach_every_step_of_a_flow(tmp_path: Path) -> None:
    with carrying(f"sqlite:///{tmp_path / 'jobs.db'}") as harbor:
        flow = chain(numbers.s(), each(held_in_thread)).enqueue()
        harbor.run_until_idle()

        assert [("r-1", None, ADA)] * 2 == flow.result()


@pytest.mark.usefixtures("variables")
def test_context_variables_go_on_to_the_jobs_that_a_handler_enqueues() -> None:
    registry, seen = Registry(), list[Held]()

    @task(registry=registry, retry=Retry(max_attempts=2, base=timedelta(0)))
    def begin(ctx: Context) -> None:
        seen.append(held())
        if ctx.attempt == 1:
            raise ValueError
        note.enqueue()
        ctx.enqueue_on_success(note.s())

    @task(registry=registry)
    async def note() -> None:
        seen.append(held())

    with Harbor("memory://", registry=registry, middleware=[CARRIED]) as harbor:
        begin.enqueue()
        with_nothing = threading.Thread(target=harbor.run_until_idle)  # in which no variable has a value
        with_nothing.start()
        with_nothing.join()

    assert seen == [("r-1", None, ADA)] * 4


@pytest.mark.usefixtures("variables")
def test_what_a_call_says_of_a_variable_by_hand_comes_first() -> None:
    with carrying() as harbor:
        job = held_in_thread.options(meta={"context.request_id": "mine"}).enqueue()
        harbor.run_until_idle()

        assert ("mine", None, ADA) == job.result()


class Outside(Middleware):
    """Notes what the variables hold outside of the layer that carries them."""

    def __init__(self) -> None:
        self.seen: list[Held] = []

    def run(self, attempt: Attempt) -> Iterator[None]:
        self.seen.append(held())
        yield
        self.seen.append(held())


@pytest.mark.parametrize("work", [held_in_thread, held_on_loop], ids=["def", "async-def"])
def test_after_the_handler_the_variables_are_as_they_were_before(work: Any) -> None:
    outside = Outside()

    with Harbor("memory://", registry=VARIABLES, middleware=[outside, CARRIED]) as harbor:
        job = work.options(meta={"context.request_id": "r-2", "context.tenant": "t-1"}).enqueue()
        harbor.run_until_idle()

        assert ("r-2", "t-1", None) == job.result()
    assert outside.seen == [("", None, None)] * 2


@pytest.mark.parametrize("work", [held_in_thread, held_on_loop], ids=["def", "async-def"])
def test_metadata_that_cannot_be_read_is_logged_and_fails_no_job(work: Any) -> None:
    meta = {"context.user": '{"name": "secret"', "context.tenant": "t-1"}

    with kept("taskharbor.middleware") as log, carrying() as harbor:
        job = work.options(meta=meta).enqueue()
        harbor.run_until_idle()

        assert ("", "t-1", None) == job.result()
    [told] = log.records
    assert f"the metadata 'context.user' of job {job.id}" in told.getMessage()
    assert "secret" not in told.getMessage()


@pytest.mark.parametrize("value", ["secret \x00", "secret \ud800", 5], ids=["nul", "surrogate", "number"])
def test_a_value_that_metadata_cannot_hold_is_left_out_and_logged(value: Any) -> None:
    token = tenant.set(value)

    with kept("taskharbor.middleware") as log, carrying() as harbor:
        job = held_in_thread.enqueue()
        tenant.reset(token)

        assert {} == harbor.look(job.id).meta
    [told] = log.records
    assert "the context variable 'tenant' has a value that cannot be carried" in told.getMessage()
    assert "secret" not in told.getMessage()


@pytest.mark.parametrize("work", [held_in_thread, held_on_loop], ids=["def", "async-def"])
def test_a_job_that_was_sent_without_a_variable_sees_nothing_of_who_started_the_worker(work: Any) -> None:
    other: ContextVar[str] = ContextVar("other")
    seen = list[str]()

    class Look(Middleware):
        def run(self, attempt: Attempt) -> Iterator[None]:
            seen.append(other.get(""))
            yield

    def start(harbor: Harbor) -> None:
        request_id.set("of the request that started the worker")
        other.set("not carried")
        harbor.run_until_idle()

    with Harbor("memory://", registry=VARIABLES, middleware=[CARRIED, Look()]) as harbor:
        job = work.enqueue()
        copy_context().run(start, harbor)

        assert ("", None, None) == job.result()
    assert seen == ["not carried"]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ((request_id, ContextVar[str]("request_id")), "two variables are named 'request_id'"),
        (("request_id",), "expected a ContextVar of text"),
    ],
    ids=["twice", "text"],
)
def test_what_is_no_variable_and_two_of_one_name_are_refused(wrong: Any, told: str) -> None:
    with pytest.raises(OptionError, match=told):
        ContextVariables(*wrong)


# --- SlowJobs


@pytest.mark.parametrize("colour", ["def", "async-def", "blocked-loop"])
def test_a_slow_job_is_warned_of_while_it_runs_and_told_of_when_it_has_ended(colour: str) -> None:
    registry = Registry()

    with kept("taskharbor.middleware") as log:

        def warned() -> bool:
            return bool(log.having("has been running"))

        async def deeper() -> None:
            await aeventually(warned)

        @task(registry=registry, name="slow")
        def in_thread() -> None:
            eventually(warned)

        @task(registry=registry, name="aslow")
        async def on_loop() -> None:
            await deeper()

        @task(registry=registry, name="blocks")
        async def blocks() -> None:
            eventually(warned)

        work, line = {
            "def": (in_thread, "in in_thread"),
            "async-def": (on_loop, "in deeper"),
            "blocked-loop": (blocks, "in blocks"),
        }[colour]
        with Harbor("memory://", registry=registry, middleware=[SlowJobs(20 * MS)]) as harbor:
            job = work.enqueue()
            harbor.run_until_idle()

    running, ended = log.records
    assert running.getMessage().startswith(
        f"job {job.id} ({work.name}) has been running for more than 20ms; it is at\n"
    )
    assert line in running.__dict__["stack"]
    # From the handler's own frame on.
    assert "/taskharbor/worker/" not in running.__dict__["stack"]
    assert "has ended; it ran for" in ended.getMessage()
    assert ended.__dict__["duration_seconds"] >= 0.02
    assert log.fields("job_id") == [(job.id,)] * 2


def test_quick_jobs_are_not_told_of_and_share_one_thread() -> None:
    registry, at_once = Registry(), list[int]()
    before = {thread.ident for thread in threads_named("taskharbor-watch")}

    @task(registry=registry)
    def quick() -> None:
        now = {thread.ident for thread in threads_named("taskharbor-watch")}
        at_once.append(len(now - before))

    layer = SlowJobs(timedelta(seconds=30))
    with (
        kept("taskharbor.middleware") as log,
        Harbor("memory://", registry=registry, middleware=[layer]) as harbor,
    ):
        harbor.enqueue_many([quick.s() for _ in range(200)])
        harbor.run_until_idle()

    assert log.records == []
    assert max(at_once) in (1, 2)  # one that found nothing to watch for a while ends, while another begins


def test_a_watch_calls_once_for_each_thing_that_stays() -> None:
    late, came = list[str](), threading.Event()

    def note(thing: str) -> None:
        late.append(thing)
        if len(late) == 2:
            came.set()

    watch = Watch[str](0.01, note)
    for thing in ("one", "gone", "two"):
        watch.add(thing)
        if thing == "gone":
            watch.discard(thing)
    await_event(came)

    assert late == ["one", "two"]


def test_a_watch_whose_thread_has_ended_begins_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskharbor.middleware.watching._LINGER_SECONDS", 0.0)
    came = threading.Semaphore(0)
    watch = Watch[object](0.001, lambda _: came.release())

    for _ in range(50):
        watch.add(object())
        assert came.acquire(timeout=ENOUGH.total_seconds())
        time.sleep(0)  # it ends now, or has not yet: both come up

    eventually(lambda: watch._thread is None, "the end of the thread")  # pyright: ignore[reportPrivateUsage]


def test_a_watch_goes_on_after_an_exception_ended_its_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    told, came = list[object](), threading.Event()

    def keep(args: threading.ExceptHookArgs) -> None:
        told.append(args.exc_type)

    monkeypatch.setattr(threading, "excepthook", keep)

    def note(thing: str) -> None:
        if thing == "bad":
            raise ZeroDivisionError
        came.set()

    watch = Watch[str](0.001, note)
    watch.add("bad")
    eventually(lambda: watch._thread is None, "the end of the thread")  # pyright: ignore[reportPrivateUsage]
    watch.add("good")
    await_event(came)

    assert told == [ZeroDivisionError]


class _Bug(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        raise ZeroDivisionError


def test_a_logging_filter_that_raises_fails_no_slow_job_and_ends_no_watch(
    capsys: pytest.CaptureFixture[str],
) -> None:
    registry, bug, layer = Registry(), _Bug(), SlowJobs(MS)
    tells = logging.getLogger("taskharbor.middleware")

    @task(registry=registry, retry=ONCE)
    def slow(until: str) -> bool:
        eventually(
            lambda: until in capsys.readouterr().err if until else bool(log.having("has been running"))
        )
        return True

    with kept(tells.name) as log, Harbor("memory://", registry=registry, middleware=[layer]) as harbor:
        tells.addFilter(bug)
        first = slow.enqueue("ZeroDivisionError")
        harbor.run_until_idle()
        tells.removeFilter(bug)
        second = slow.enqueue("")
        harbor.run_until_idle()

        assert first.result()
        assert second.result()


def test_an_interrupt_as_it_begins_to_watch_leaves_nothing_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, attempt = SlowJobs(HOUR), Attempt(Context.detached(object()), untyped(None), "worker")
    watch = untyped(layer)._watch

    def interrupted() -> None:
        raise JobInterrupt

    monkeypatch.setattr(watch, "_wake", interrupted)
    with pytest.raises(JobInterrupt):
        next(layer.run(attempt))

    assert {} == watch._due


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
def test_a_watch_goes_on_in_a_forked_child() -> None:
    # In a process of its own, since this one has threads.
    program = """
import os, sys, threading
from taskharbor.middleware.watching import Watch
came = threading.Event()
watch = Watch(0.001, lambda thing: came.set())
watch.add("in the parent")
assert came.wait(20)
came.clear()
child = os.fork()
if child == 0:
    watch.add("in the child")
    os._exit(0 if came.wait(20) else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""

    ended = subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=False, timeout=60)

    assert 0 == ended.returncode


def test_what_comes_just_as_the_thread_of_a_watch_would_end_is_watched() -> None:
    came = threading.Event()
    watch = Watch[str](0.001, lambda thing: came.set() if thing == "late" else None)

    class Pause(threading.Event):
        """Lets something come when the wait for it is over."""

        def wait(self, timeout: float | None = None) -> bool:
            watch.add("late")
            self.wait = super().wait  # type: ignore[method-assign]
            return False

    watch._come = Pause()  # pyright: ignore[reportPrivateUsage]
    watch.add("first")

    await_event(came)


@pytest.mark.parametrize("after", [timedelta(0), -MS, 3])
def test_a_limit_that_is_none_is_refused(after: Any) -> None:
    with pytest.raises(OptionError, match="expected a timedelta above 0"):
        SlowJobs(after)
