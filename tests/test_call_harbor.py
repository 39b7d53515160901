"""Calling tasks through a harbor: which one is current, what is stored, and what an enqueue refuses."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any

import pytest

import taskharbor
from taskharbor import (
    BlockingCallError,
    Context,
    DeadlockError,
    DriverURLError,
    DuplicateJob,
    JobCancelled,
    JobHandle,
    JobNotFound,
    JobState,
    JobStatus,
    KeyConflict,
    MsgpackCodec,
    NoHarborError,
    OptionError,
    PayloadError,
    Registry,
    ResultNotKept,
    ResultTimeout,
    Signature,
    UnknownTaskError,
    UsageError,
    task,
)
from taskharbor.call import install, running_job
from taskharbor.driver import CancelStatus, DeleteStatus, RequeueStatus
from taskharbor.drivers.memory import MemoryDriver
from tests.fixtures.support import fork, untyped

opened: list[taskharbor.Harbor] = []


class Harbor(taskharbor.Harbor):
    """A harbor that is closed at the end of the test that made it."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        opened.append(self)


registry = Registry()


@task(registry=registry)
def add(x: int, y: int = 0) -> int:
    return x + y


@task(registry=registry)
async def shout(text: str) -> str:
    return text.upper()


@task(registry=registry, keep_result=False)
def quiet(x: int) -> int:
    return x


@pytest.fixture
def harbor() -> Iterator[Harbor]:
    with Harbor("memory://", registry=registry) as current:
        yield current


@pytest.fixture(autouse=True)
def _nothing_installed() -> Iterator[None]:
    install(None)
    yield
    install(None)
    while opened:
        opened.pop().close()


class Running:
    """Stands in for the run of a job by a worker."""

    def __init__(self, context: Context[Any]) -> None:
        self.context = context
        self.job_id = context.job_id

    def shelter(self) -> AbstractContextManager[None]:
        return nullcontext()


def in_thread(work: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result(timeout=30)


def count(harbor: Harbor) -> int:
    return len(harbor.jobs.find(limit=10_000))


# --- which harbor is current


def test_without_a_harbor_the_error_says_how_to_open_one() -> None:
    with pytest.raises(NoHarborError) as caught:
        add.enqueue(1)

    told = str(caught.value)
    assert f"task {add.name!r} was used while no harbor was current" in told
    assert "with Harbor(...) as harbor:" in told
    assert "async with" in told
    assert "harbor.install()" in told


@pytest.mark.parametrize(
    "use",
    [
        lambda: add.enqueue(1),
        lambda: asyncio.run(add.aenqueue(1)),
        lambda: add.s(1).enqueue(),
        lambda: asyncio.run(add.s(1).aenqueue()),
        lambda: add.options(queue="q").enqueue(1),
        lambda: add.handle("x"),
    ],
    ids=["enqueue", "aenqueue", "s.enqueue", "s.aenqueue", "options", "handle"],
)
def test_every_way_to_use_a_task_asks_for_a_harbor(use: Callable[[], object]) -> None:
    with pytest.raises(NoHarborError):
        use()


def test_declaring_calling_and_making_signatures_need_no_harbor() -> None:
    assert 3 == add(1, 2)
    assert isinstance(add.s(1), Signature)
    assert add.schema()


def test_with_makes_a_harbor_current_until_the_end_of_the_block() -> None:
    with Harbor("memory://") as harbor:
        assert add.enqueue(1).created
        assert 1 == count(harbor)
    with pytest.raises(NoHarborError):
        add.enqueue(1)


def test_the_innermost_with_counts() -> None:
    with Harbor("memory://") as outer:
        with Harbor("memory://") as inner:
            add.enqueue(1)
        add.enqueue(2)
        add.enqueue(3)

        assert (2, 1) == (count(outer), count(inner))


def test_an_error_in_the_block_restores_what_was_current() -> None:
    with Harbor("memory://") as outer:
        with pytest.raises(ZeroDivisionError), Harbor("memory://"):
            raise ZeroDivisionError
        add.enqueue(1)

        assert 1 == count(outer)


def test_one_harbor_may_be_entered_twice() -> None:
    harbor = Harbor("memory://")
    with harbor:
        with harbor:
            add.enqueue(1)
        add.enqueue(2)

        assert 2 == count(harbor)
    with pytest.raises(NoHarborError):
        add.enqueue(3)


def test_an_installed_harbor_is_current_in_every_thread() -> None:
    harbor = Harbor("memory://").install()

    in_thread(lambda: add.enqueue(1))
    contextvars.Context().run(add.enqueue, 2)

    assert 2 == count(harbor)
    harbor.close()
    with pytest.raises(NoHarborError):
        add.enqueue(3)


def test_with_comes_before_what_is_installed() -> None:
    installed = Harbor("memory://").install()
    with Harbor("memory://") as inner:
        add.enqueue(1)
    add.enqueue(2)

    assert (1, 1) == (count(installed), count(inner))


def test_installing_another_replaces_the_first_and_closing_the_first_leaves_it() -> None:
    first = Harbor("memory://").install()
    second = Harbor("memory://").install()

    first.close()
    add.enqueue(1)

    assert (0, 1) == (count(first), count(second))


def test_a_thread_does_not_see_the_with_of_another(harbor: Harbor) -> None:
    with pytest.raises(NoHarborError, match="A thread does not see the `with` of another"):
        in_thread(lambda: add.enqueue(1))


def test_threads_within_one_harbor_at_once_each_leave_their_own_block() -> None:
    harbor = Harbor("memory://")
    both_in, first_out = threading.Barrier(2), threading.Event()

    def first() -> bool:
        with harbor:
            both_in.wait(10)
        try:
            add.enqueue(1)
        except NoHarborError:
            return True
        finally:
            first_out.set()
        return False

    def second() -> bool:
        with harbor:
            both_in.wait(10)
            first_out.wait(10)
            add.enqueue(2)
        try:
            add.enqueue(3)
        except NoHarborError:
            return True
        return False

    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(first), pool.submit(second)]

        assert [True, True] == [answer.result(timeout=30) for answer in answers]


def test_asyncio_tasks_within_one_harbor_at_once_each_leave_their_own_block() -> None:
    async def main() -> None:
        harbor = Harbor("memory://")
        inside, first_out = asyncio.Event(), asyncio.Event()

        async def first() -> None:
            async with harbor:
                await inside.wait()
            with pytest.raises(NoHarborError):
                await add.aenqueue(1)
            first_out.set()

        async def second() -> None:
            async with harbor:
                inside.set()
                await first_out.wait()
                await add.aenqueue(2)
            with pytest.raises(NoHarborError):
                await add.aenqueue(3)

        await asyncio.gather(first(), second())

    asyncio.run(main())


def test_async_with_makes_a_harbor_current_in_its_task_and_those_it_starts() -> None:
    async def main() -> int:
        async with Harbor("memory://") as harbor:
            await asyncio.gather(*(add.aenqueue(n) for n in range(3)))
            return len(await harbor.jobs.afind())

    assert 3 == asyncio.run(main())


def test_many_threads_share_one_harbor() -> None:
    harbor = Harbor("memory://").install()

    with ThreadPoolExecutor(8) as pool:
        handles = list(pool.map(add.enqueue, range(400)))

    assert 400 == len({handle.id for handle in handles}) == count(harbor)


def test_a_harbor_serves_one_event_loop_after_another() -> None:
    harbor = Harbor("memory://").install()

    for number in range(3):
        asyncio.run(add.aenqueue(number))

    assert 3 == count(harbor)


def test_closing_twice_does_no_harm_and_the_harbor_can_be_used_again() -> None:
    harbor = Harbor("memory://")
    harbor.close()
    harbor.close()

    async def main() -> None:
        await harbor.aclose()
        await harbor.aclose()

    asyncio.run(main())
    with harbor:
        assert add.enqueue(1).created


def test_closing_a_harbor_ends_its_thread() -> None:
    before = set(threading.enumerate())
    with Harbor("memory://") as harbor:
        harbor.jobs.find()  # goes over the bridge
        during = {thread.name for thread in set(threading.enumerate()) - before}

    assert {"taskharbor-bridge"} == during
    assert set() == set(threading.enumerate()) - before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_after_a_fork_the_child_has_connections_of_its_own() -> None:
    with Harbor("memory://") as harbor:
        harbor.jobs.find()
        child = fork()
        if child == 0:  # pragma: no cover - the other process
            try:
                assert add.enqueue(1).created
                assert 1 == len(harbor.jobs.find())
                harbor.close()
            except BaseException:  # noqa: BLE001
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)

        assert 0 == status
        assert 0 == count(harbor)


def test_a_harbor_tells_its_parts() -> None:
    harbor = Harbor("memory://", registry=registry, codec=MsgpackCodec())

    assert ("memory", "<Harbor on memory>") == (harbor.driver.name, repr(harbor))
    assert registry is harbor.registry
    assert {"json", "msgpack"} <= set(harbor.codecs.names())
    assert add.definition is harbor.task(add.name)
    with pytest.raises(UnknownTaskError, match="did you mean"):
        harbor.task(add.name + "x")


def test_at_gives_the_same_harbor_on_another_store() -> None:
    class Packed(MsgpackCodec):
        name = "packed"

    original = Harbor("memory://", registry=registry, codecs=[Packed()], codec=MsgpackCodec(), check=False)

    other = original.at(MemoryDriver())
    opened.append(other)

    assert (registry, original.codecs.names()) == (other.registry, other.codecs.names())
    with original:
        add.enqueue(1)
        with other:
            handle = add.enqueue(untyped("two"))  # not checked there either

        assert "msgpack" == other.jobs.get(handle.id).codec
        assert [1, 1] == [count(original), len(other.jobs.find())]


def test_at_hands_on_the_dependencies() -> None:
    @contextmanager
    def deps() -> Generator[str]:
        yield "db"

    own = Registry()

    @task(registry=own)
    def read(ctx: Context[str]) -> str:
        return ctx.deps

    other = Harbor("memory://", registry=own, deps=deps).at("memory://")
    with other:
        job = read.enqueue()
        other.run_until_idle()

        assert "db" == job.result()


def test_at_refuses_a_url_that_no_driver_understands() -> None:
    with pytest.raises(DriverURLError, match="no driver answers to memroy://"):
        Harbor("memory://").at("memroy://")


# --- enqueue


def test_an_enqueue_answers_with_a_handle_on_the_stored_job(harbor: Harbor) -> None:
    handle = add.enqueue(1, y=2)
    job = harbor.jobs.get(handle.id)

    assert isinstance(handle, JobHandle)
    assert handle.created is True
    assert f"<JobHandle {handle.id} of {add.name}>" == repr(handle)
    assert (add.name, b'{"x":1,"y":2}', "json", JobState.READY) == (
        job.task,
        job.payload,
        job.codec,
        job.state,
    )


def test_the_async_form_does_the_same() -> None:
    async def main() -> tuple[bool, JobState, bytes]:
        async with Harbor("memory://") as harbor:
            handle = await add.options(priority=1).aenqueue(1, y=2)
            status = await handle.astatus()
            return handle.created, status.state, (await harbor.jobs.aget(handle.id)).payload

    assert (True, JobState.READY, b'{"x":1,"y":2}') == asyncio.run(main())


def test_jobs_enqueued_in_a_row_keep_their_order(harbor: Harbor) -> None:
    ids = [add.enqueue(n).id for n in range(50)]

    assert ids == sorted(ids) == [job.id for job in harbor.jobs.find()]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_many_are_stored_in_order_and_of_any_task(*, asynchronous: bool) -> None:
    calls = [add.s(1), shout.s("a"), add.options(queue="q").s(2)]
    with Harbor("memory://") as harbor:
        handles = (
            asyncio.run(harbor.aenqueue_many(untyped(calls)))
            if asynchronous
            else harbor.enqueue_many(untyped(calls))
        )
        jobs = [harbor.jobs.get(handle.id) for handle in handles]

    assert [add.name, shout.name, add.name] == [job.task for job in jobs]
    assert ["default", "default", "q"] == [job.queue for job in jobs]
    assert [True] * 3 == [handle.created for handle in handles]


def test_many_may_be_none_and_any_iterable(harbor: Harbor) -> None:
    assert [] == harbor.enqueue_many(list[Signature[int]]())
    assert [] == asyncio.run(harbor.aenqueue_many(list[Signature[int]]()))
    assert 5 == len(harbor.enqueue_many(add.s(n) for n in range(5)))


def test_one_misfit_among_many_stores_none(harbor: Harbor) -> None:
    with pytest.raises(PayloadError, match=r"at \$\.x"):
        harbor.enqueue_many([add.s(1), add.s(untyped("2")), add.s(3)])

    assert 0 == count(harbor)


def test_one_conflict_among_many_stores_none(harbor: Harbor) -> None:
    held = add.options(key="k").enqueue(1)

    with pytest.raises(KeyConflict) as caught:
        harbor.enqueue_many([add.s(5), add.options(key="k").s(2), add.s(6)])

    assert (held.id, "k", add.name) == (caught.value.job_id, caught.value.key, caught.value.task)
    assert 1 == count(harbor)


def test_one_duplicate_among_many_stores_none_if_asked_to_be_told(harbor: Harbor) -> None:
    held = add.options(key="k").enqueue(1)

    with pytest.raises(DuplicateJob) as caught:
        harbor.enqueue_many([add.s(5), add.options(key="k", on_conflict="raise").s(1)])

    assert held.id == caught.value.job_id
    assert 1 == count(harbor)


def test_one_key_twice_in_one_batch_is_one_job(harbor: Harbor) -> None:
    one, other = harbor.enqueue_many([add.options(key="k").s(1)] * 2)

    assert (one.id, True, False) == (other.id, one.created, other.created)


def test_the_check_can_be_left_out_for_trusted_bulk(harbor: Harbor) -> None:
    (handle,) = harbor.enqueue_many([add.s(untyped("1"))], check=False)

    assert b'{"x":"1","y":0}' == harbor.jobs.get(handle.id).payload


def test_a_harbor_may_leave_the_check_out_and_a_call_ask_for_it() -> None:
    with Harbor("memory://", check=False) as harbor:
        assert add.enqueue(untyped("1")).created
        with pytest.raises(PayloadError):
            harbor.enqueue_many([add.s(untyped("1"))], check=True)


def test_what_has_no_codec_is_refused_even_without_the_check() -> None:
    with Harbor("memory://", check=False), pytest.raises(PayloadError, match=r"have no codec|nothing that"):
        add.enqueue(untyped(object()))


def test_a_call_of_the_wrong_shape_shows_the_signature(harbor: Harbor) -> None:
    for args, kwargs, told in (
        ((), {}, "missing a required argument: 'x'"),
        ((1, 2, 3), {}, "too many positional arguments"),
        ((1,), {"z": 3}, "unexpected keyword argument 'z'"),
        ((1,), {"x": 3}, "multiple values for argument 'x'"),
    ):
        with pytest.raises(PayloadError, match=told) as caught:
            untyped(add).enqueue(*args, **kwargs)
        assert f"its signature is {add.name}(x: int, y: int = 0) -> int" in str(caught.value)
        assert add.name == caught.value.task


# --- idempotency keys


def test_a_taken_key_answers_with_the_job_that_holds_it(harbor: Harbor) -> None:
    first = add.options(key="k").enqueue(1)
    second = add.options(key="k").enqueue(1, y=0)

    assert (first.id, True, False) == (second.id, first.created, second.created)
    assert 1 == count(harbor)


def test_keys_of_two_tasks_do_not_meet(harbor: Harbor) -> None:
    assert add.options(key="k").enqueue(1).id != quiet.options(key="k").enqueue(1).id


def test_a_taken_key_with_other_arguments_is_a_conflict(harbor: Harbor) -> None:
    first = add.options(key="k").enqueue(1)

    with pytest.raises(KeyConflict, match="the same key has to mean the same request") as caught:
        add.options(key="k").enqueue(2)

    assert (first.id, "k", add.name) == (caught.value.job_id, caught.value.key, caught.value.task)


def test_a_taken_key_raises_if_asked_to(harbor: Harbor) -> None:
    first = add.options(key="k").enqueue(1)

    with pytest.raises(DuplicateJob, match=f"the key 'k' of task .* is taken by job {first.id}") as caught:
        add.options(key="k", on_conflict="raise").enqueue(1)

    assert first.id == caught.value.job_id


def test_the_same_arguments_in_another_codec_or_order_are_the_same(harbor: Harbor) -> None:
    mine = Registry()

    @task(registry=mine)
    def tag(names: set[str], table: dict[str, int]) -> None: ...

    with Harbor(harbor.driver, codec=MsgpackCodec()):
        first = tag.options(key="k").enqueue({"a", "b", "c", "d"}, {"x": 1, "y": 2})
    second = tag.options(key="k").enqueue({"d", "c", "b", "a"}, {"y": 2, "x": 1})

    assert first.id == second.id


# --- handles


def test_status_tells_where_a_job_stands(harbor: Harbor) -> None:
    status = add.options(run_in=timedelta(hours=1)).enqueue(1).status()

    assert isinstance(status, JobStatus)
    assert (JobState.SCHEDULED, 0, 5) == (status.state, status.attempt, status.max_attempts)
    assert (None, "", ()) == (status.finished_at, status.reason, status.errors)
    assert timedelta(hours=1) == status.run_at - status.enqueued_at


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_job_that_does_not_run_is_cancelled_at_once(*, asynchronous: bool) -> None:
    with Harbor("memory://"):
        handle = add.enqueue(1)

        def cancel() -> bool:
            return asyncio.run(handle.acancel("why")) if asynchronous else handle.cancel("why")

        assert [True, False] == [cancel(), cancel()]
        status = handle.wait()
        assert (JobState.CANCELLED, "why") == (status.state, status.reason)
        with pytest.raises(JobCancelled, match=f"job {handle.id} of task .* was cancelled: why") as caught:
            handle.result()
        assert handle.id == caught.value.job_id


def test_a_handle_can_be_had_from_an_id(harbor: Harbor) -> None:
    handle = add.handle(add.enqueue(1).id)

    assert (False, JobState.READY) == (handle.created, handle.status().state)


def test_an_id_that_nobody_knows_is_not_found(harbor: Harbor) -> None:
    handle = add.handle("no-such-job")

    for ask in (
        handle.status,
        handle.cancel,
        handle.result,
        handle.wait,
        lambda: asyncio.run(handle.astatus()),
        lambda: asyncio.run(handle.acancel()),
        lambda: asyncio.run(handle.aresult()),
        lambda: asyncio.run(handle.await_()),
        lambda: harbor.jobs.get("no-such-job"),
    ):
        with pytest.raises(
            JobNotFound, match=r"no job has the id 'no-such-job': .*retain.* not committed"
        ) as caught:
            ask()
        assert "no-such-job" == caught.value.job_id


def test_patience_ends_and_the_job_goes_on(harbor: Harbor) -> None:
    handle = add.enqueue(1)

    for ask in (
        lambda: handle.result(timedelta(milliseconds=10)),
        lambda: handle.wait(timeout=timedelta(0)),
        lambda: handle.result(timedelta(seconds=-1)),
        lambda: asyncio.run(handle.aresult(timedelta(milliseconds=10))),
        lambda: asyncio.run(handle.await_(timedelta(0))),
    ):
        with pytest.raises(
            ResultTimeout, match=f"job {handle.id} had not ended after [0-9a-z]+: it is ready, goes on"
        ) as caught:
            ask()
        assert handle.id == caught.value.job_id
    assert JobState.READY is handle.status().state


@pytest.mark.parametrize("wrong", [5, 0.5, "5s"], ids=repr)
def test_patience_without_a_unit_is_refused(harbor: Harbor, wrong: object) -> None:
    handle = add.enqueue(1)

    for ask in (
        lambda: handle.result(untyped(wrong)),
        lambda: handle.wait(untyped(wrong)),
        lambda: asyncio.run(handle.aresult(untyped(wrong))),
        lambda: asyncio.run(handle.await_(untyped(wrong))),
    ):
        with pytest.raises(OptionError, match=r"timeout=.*timedelta\(seconds=5\)"):
            ask()


def test_waiting_ends_when_the_job_does(harbor: Harbor) -> None:
    handle = add.enqueue(1)
    waiting = threading.Event()

    def wait() -> JobStatus:
        waiting.set()
        return handle.wait(timedelta(seconds=30))

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(wait)
        waiting.wait(10)
        handle.cancel()

        assert JobState.CANCELLED is answer.result(timeout=10).state


def test_a_task_that_keeps_no_result_says_so_without_waiting(harbor: Harbor) -> None:
    handle = quiet.enqueue(1)

    with pytest.raises(ResultNotKept, match=r"keep_result=False.*wait\(\) tells when it has ended"):
        handle.result()
    with pytest.raises(ResultNotKept):
        asyncio.run(handle.aresult())
    harbor.run_until_idle()
    assert JobState.SUCCEEDED is handle.wait().state


def test_a_result_comes_back_typed(harbor: Harbor) -> None:
    sum_, text = add.enqueue(1, 2), shout.enqueue("a")
    harbor.run_until_idle()

    assert (3, "A") == (sum_.result(), text.result())


# --- blocking calls on a running loop


BLOCKING: list[tuple[str, Callable[[Harbor], object]]] = [
    (rf"await {add.name}\.aenqueue\(...\)", lambda _: add.enqueue(1)),
    (rf"await {add.name}\.aenqueue\(...\)", lambda _: add.options(queue="q").enqueue(1)),
    (r"await signature\.aenqueue\(\)", lambda _: add.s(1).enqueue()),
    (r"await harbor\.aenqueue_many\(...\)", lambda harbor: harbor.enqueue_many([add.s(1)])),
    (r"await handle\.aresult\(\)", lambda _: add.handle("x").result()),
    (r"await handle\.await_\(\)", lambda _: add.handle("x").wait()),
    (r"await handle\.astatus\(\)", lambda _: add.handle("x").status()),
    (r"await handle\.acancel\(\)", lambda _: add.handle("x").cancel()),
    (r"await harbor\.arun_until_idle\(...\)", lambda harbor: harbor.run_until_idle()),
    (r"await harbor\.jobs\.aget\(...\)", lambda harbor: harbor.jobs.get("x")),
    (r"await harbor\.jobs\.afind\(...\)", lambda harbor: harbor.jobs.find()),
    (r"await harbor\.jobs\.acount\(...\)", lambda harbor: harbor.jobs.count()),
    (r"await harbor\.jobs\.acancel\(...\)", lambda harbor: harbor.jobs.cancel(["x"])),
    (r"await harbor\.jobs\.arequeue\(...\)", lambda harbor: harbor.jobs.requeue(["x"])),
    (r"await harbor\.jobs\.adelete\(...\)", lambda harbor: harbor.jobs.delete(["x"])),
    (r"await harbor\.queues\.apause\(...\)", lambda harbor: harbor.queues.pause("x")),
    (r"await harbor\.queues\.aresume\(...\)", lambda harbor: harbor.queues.resume("x")),
    (r"await harbor\.queues\.alist\(...\)", lambda harbor: harbor.queues.list()),
]


@pytest.mark.parametrize(("instead", "call"), BLOCKING, ids=[row[0] for row in BLOCKING])
def test_a_blocking_call_on_a_running_loop_names_the_async_form(
    harbor: Harbor, instead: str, call: Callable[[Harbor], object]
) -> None:
    async def main() -> None:
        call(harbor)

    with pytest.raises(BlockingCallError, match=f"would block the running event loop; write `{instead}`"):
        asyncio.run(main())
    assert 0 == count(harbor)


def test_a_blocking_call_in_a_thread_beside_the_loop_is_welcome(harbor: Harbor) -> None:
    async def main() -> bool:
        return (await asyncio.to_thread(add.enqueue, 1)).created

    assert asyncio.run(main())


def test_waiting_for_a_result_inside_a_handler_is_refused(harbor: Harbor) -> None:
    handle = add.enqueue(1)
    token = running_job.set(Running(Context.detached(None)))
    try:
        for ask in (
            handle.result,
            handle.wait,
            lambda: asyncio.run(handle.aresult()),
            lambda: asyncio.run(handle.await_()),
        ):
            with pytest.raises(
                DeadlockError, match=r"inside a handler \(job .*\) waits while holding a slot"
            ):
                ask()
        assert JobState.READY is handle.status().state
        assert add.enqueue(2).created
    finally:
        running_job.reset(token)


def test_a_task_called_within_a_handler_gets_the_running_jobs_context() -> None:
    @task(registry=Registry())
    def tell(ctx: Context[str], x: int) -> str:
        return f"{ctx.deps}{x}"

    with pytest.raises(UsageError):
        tell(1)
    token = running_job.set(Running(Context.detached("house")))
    try:
        assert "house1" == tell(1)
    finally:
        running_job.reset(token)


# --- by hand: jobs and queues


def asked(harbor: Harbor, room: str, verb: str, *args: object, asynchronous: bool, **more: object) -> Any:
    """Call `harbor.ROOM.VERB(...)` in one of its two forms."""
    held = getattr(harbor, room)
    if not asynchronous:
        return getattr(held, verb)(*args, **more)
    return asyncio.run(getattr(held, f"a{verb}")(*args, **more))


both = pytest.mark.parametrize("asynchronous", [False, True], ids=["blocking", "async"])


@both
def test_jobs_can_be_found_by_what_they_are(harbor: Harbor, *, asynchronous: bool) -> None:
    one = add.options(key="k").enqueue(1)
    two = add.options(queue="q").enqueue(2)
    three = shout.enqueue("a")
    two.cancel()

    def found(**filters: object) -> list[str]:
        return [job.id for job in asked(harbor, "jobs", "find", asynchronous=asynchronous, **filters)]

    assert [one.id, two.id, three.id] == found()
    assert [one.id] == found(key="k")
    assert (
        [two.id] == found(queues=["q"]) == found(states=[JobState.CANCELLED]) == found(states=["cancelled"])
    )
    assert [three.id] == found(tasks=[shout.name])
    assert [one.id] == found(limit=1)
    assert [two.id] == found(limit=1, after=one.id)
    assert [] == found(tasks=["none"])


@both
def test_jobs_can_be_counted(harbor: Harbor, *, asynchronous: bool) -> None:
    add.enqueue(1)
    add.enqueue(2)
    add.options(queue="q").enqueue(3).cancel()

    def counted(**filters: object) -> list[tuple[str, str, str, int]]:
        return [
            (row.queue, row.task, row.state, row.count)
            for row in asked(harbor, "jobs", "count", asynchronous=asynchronous, **filters)
        ]

    assert [("default", add.name, "ready", 2), ("q", add.name, "cancelled", 1)] == counted()
    assert [("q", add.name, "cancelled", 1)] == counted(queues=["q"])
    assert [] == counted(tasks=["none"])


@both
def test_jobs_can_be_cancelled_requeued_and_deleted(harbor: Harbor, *, asynchronous: bool) -> None:
    ids = [add.enqueue(1).id, "missing"]

    def act(verb: str, **more: object) -> list[object]:
        return list(asked(harbor, "jobs", verb, ids, asynchronous=asynchronous, **more))

    assert [RequeueStatus.NOT_DEAD, RequeueStatus.MISSING] == act("requeue")
    assert [CancelStatus.CANCELLED, CancelStatus.MISSING] == act("cancel", reason="why", by="me")
    assert [CancelStatus.FINISHED, CancelStatus.MISSING] == act("cancel")
    assert [RequeueStatus.REQUEUED, RequeueStatus.MISSING] == act("requeue", reason="again", by="me")
    job = asked(harbor, "jobs", "get", ids[0], asynchronous=asynchronous)
    assert [("cancel", "me", "why"), ("requeue", "me", "again")] == [
        (done.verb, done.by, done.reason) for done in job.operations
    ]
    assert [DeleteStatus.DELETED, DeleteStatus.MISSING] == act("delete")
    assert [DeleteStatus.MISSING, DeleteStatus.MISSING] == act("delete")


@both
def test_queues_can_be_paused_listed_and_resumed(harbor: Harbor, *, asynchronous: bool) -> None:
    add.options(queue="a").enqueue(1)

    def listed() -> list[tuple[str, bool, str, str, int]]:
        return [
            (queue.name, queue.paused, queue.reason, queue.paused_by, queue.ready)
            for queue in asked(harbor, "queues", "list", asynchronous=asynchronous)
        ]

    asked(harbor, "queues", "pause", "a", "b", reason="why", by="me", asynchronous=asynchronous)
    assert [("a", True, "why", "me", 1), ("b", True, "why", "me", 0)] == listed()
    asked(harbor, "queues", "resume", "a", "b", "c", asynchronous=asynchronous)
    assert [("a", False, "", "", 1)] == listed()


@both
@pytest.mark.parametrize(
    ("room", "verb", "args", "more", "told"),
    [
        ("jobs", "cancel", ("some-id",), {}, "expected a list"),
        ("jobs", "requeue", ("some-id",), {}, "expected a list"),
        ("jobs", "delete", ("some-id",), {}, "expected a list"),
        ("jobs", "find", (), {"states": "dead"}, "expected a list"),
        ("jobs", "find", (), {"queues": "mail"}, "expected a list"),
        ("jobs", "find", (), {"tasks": "mail"}, "expected a list"),
        ("jobs", "find", (), {"states": ["deadish"]}, "deadish"),
        ("jobs", "find", (), {"limit": 0}, "limit=0"),
        ("jobs", "count", (), {"queues": "mail"}, "expected a list"),
        ("jobs", "count", (), {"tasks": "mail"}, "expected a list"),
        ("queues", "pause", (), {}, "no queue was named"),
        ("queues", "resume", (), {}, "no queue was named"),
    ],
)
def test_what_would_silently_do_nothing_is_refused(
    harbor: Harbor,
    room: str,
    verb: str,
    args: tuple[object, ...],
    more: dict[str, object],
    told: str,
    *,
    asynchronous: bool,
) -> None:
    with pytest.raises(OptionError, match=told):
        asked(harbor, room, verb, *args, asynchronous=asynchronous, **more)
