"""Calls that every type checker must accept, with the types they must reveal. Never run.

`tests/test_typing.py` runs mypy, basedpyright, pyrefly and ty over it; `refused_calls.py` is its counterpart.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, ParamSpec, TypeVar, assert_type
from uuid import UUID

from tests.typing.tasks import (
    Address,
    Colour,
    Deps,
    Page,
    Point,
    Receipt,
    Thumb,
    UserId,
    add,
    attempts,
    count,
    crop,
    delayed,
    everything,
    fetch,
    heartbeat,
    keyword_only,
    label,
    mixed,
    negate,
    note,
    parse,
    positional_only,
    rated,
    registry,
    report,
    resize,
    send_email,
    send_letter,
    send_telegram,
    show,
    styled,
    tagged,
    tick,
    total,
)

from taskharbor import (
    AsyncTask,
    Bound,
    Codec,
    Context,
    Flow,
    FlowHandle,
    Harbor,
    JobHandle,
    JobStatus,
    JsonCodec,
    Link,
    MsgpackCodec,
    Reject,
    Retry,
    RetryLater,
    Signature,
    Snooze,
    SyncTask,
    Task,
    TaskHarborError,
    Worker,
    WorkerCounts,
    WorkerThread,
    register_type,
    task,
)
from taskharbor.driver import Driver

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")
B = TypeVar("B")


# --- what @task makes: def gives SyncTask, async def AsyncTask, whatever its form ------------------------


def forms() -> None:
    assert_type(label, SyncTask[[int], str])
    assert_type(delayed, AsyncTask[[int], str])
    assert_type(heartbeat, AsyncTask[[], None])
    # The context is not among the parameters.
    assert_type(attempts, AsyncTask[[], int])
    assert_type(tick, SyncTask[[int], int])
    # @task is a function like any other.
    assert_type(task(plain), SyncTask[[int], str])
    assert_type(task(queue="low")(plain), SyncTask[[int], str])
    assert_type(task(with_context), AsyncTask[[int], str])
    assert_type(task(queue="low")(with_context), AsyncTask[[int], str])


def plain(x: int, /) -> str:
    return str(x)


async def with_context(ctx: Context[Deps], x: int, /) -> str:
    return ctx.deps.root * x


def families(
    named: Task[[int], str],
    bound: Bound[[int], str],
    sync: SyncTask[[int], str],
    run_async: AsyncTask[[], int],
) -> None:
    """A task is a Task, and a Bound."""
    families(label, label, label, attempts)
    families(delayed, delayed.options(queue="low"), sync, run_async)
    families(named, named, label, attempts)


def decorate_inside() -> None:
    """Tasks may be declared anywhere; one decorator serves many."""
    low = task(queue="low", keep_result=False)

    @low
    async def one(x: int) -> str:
        return str(x)

    @low
    def two(ctx: Context[Deps], x: int) -> str:
        return ctx.deps.root * x

    assert_type(one.s(1), Signature[str])
    assert_type(two.s(x=1), Signature[str])


# --- calling a task calls the function -------------------------------------------------------------------


async def calls() -> None:
    assert_type(add(1, 2), int)
    assert_type(add(x=1, y=2), int)
    assert_type(negate(1), int)
    assert_type(label(1), str)
    assert_type(resize(1), Thumb)
    assert_type(resize(image_id=1, width=2), Thumb)
    assert_type(tick(1), int)
    note("text")
    assert_type(await send_email("a@b.c"), Receipt)
    assert_type(await send_email(to="a@b.c", subject="hi"), Receipt)
    assert_type(await send_letter("a@b.c"), Receipt)
    assert_type(await send_telegram("a@b.c", words=3), Receipt)
    assert_type(await crop(1, width=2), Thumb)
    assert_type(await attempts(), int)
    assert_type(await delayed(1), str)
    await heartbeat()
    coroutine: Coroutine[Any, Any, Receipt] = send_email("a@b.c")
    assert_type(await coroutine, Receipt)


# --- .fn is the bare function, context and all -----------------------------------------------------------


async def bare(ctx: Context[Deps]) -> None:
    assert_type(resize.fn(ctx, 1, width=2), Thumb)
    assert_type(add.fn(1, 2), int)
    assert_type(await crop.fn(ctx, 1, width=2), Thumb)
    assert_type(await attempts.fn(Context.detached(None)), int)
    assert_type(add.fn, Callable[..., int])
    assert_type(send_email.fn, Callable[..., Coroutine[Any, Any, Receipt]])
    assert_type(Context.detached(Deps()), Context[Deps])


# --- enqueue and aenqueue take what the function takes, and keep what it returns -------------------------


async def enqueues() -> None:
    assert_type(send_email.enqueue("a@b.c"), JobHandle[Receipt])
    assert_type(send_email.enqueue(to="a@b.c", subject="hi"), JobHandle[Receipt])
    assert_type(add.enqueue(1, y=2), JobHandle[int])
    assert_type(resize.enqueue(1), JobHandle[Thumb])
    assert_type(resize.enqueue(image_id=1, width=2), JobHandle[Thumb])
    assert_type(note.enqueue("text"), JobHandle[None])
    assert_type(attempts.enqueue(), JobHandle[int])
    assert_type(heartbeat.enqueue(), JobHandle[None])
    assert_type(await send_email.aenqueue("a@b.c"), JobHandle[Receipt])
    assert_type(await send_telegram.aenqueue("a@b.c", words=3), JobHandle[Receipt])
    assert_type(await crop.aenqueue(1, width=2), JobHandle[Thumb])
    assert_type(await label.aenqueue(1), JobHandle[str])


# --- every kind of parameter -----------------------------------------------------------------------------


def parameters() -> None:
    assert_type(positional_only.enqueue(1), JobHandle[int])
    assert_type(positional_only.enqueue(1, 2), JobHandle[int])
    assert_type(keyword_only.enqueue(name="a"), JobHandle[str])
    assert_type(keyword_only.enqueue(name="a", loud=True), JobHandle[str])
    assert_type(mixed.enqueue(1, "b"), JobHandle[str])
    assert_type(mixed.enqueue(1, b="b", c=1.0), JobHandle[str])
    assert_type(total.enqueue(), JobHandle[int])
    assert_type(total.enqueue(1, 2, 3), JobHandle[int])
    assert_type(total.enqueue(*[1, 2, 3]), JobHandle[int])
    assert_type(tagged.enqueue("a", "b", "c", d=1.0, e=2), JobHandle[dict[str, float]])
    assert_type(styled.enqueue("a", width=1, title="b"), JobHandle[str])
    assert_type(rated.enqueue(5), JobHandle[int])
    assert_type(rated.enqueue(stars=5, bonus=1), JobHandle[int])
    sent = everything.enqueue(
        Receipt("r"),
        Address("street"),
        {"id": 1},
        Point(1, 2),
        Colour.RED,
        "fast",
        datetime.now(UTC),
        timedelta(seconds=1),
        UUID(int=0),
        Decimal(1),
        b"",
        None,
        user=UserId(1),
        later=[{"a": Receipt("r")}],
    )
    assert_type(sent, JobHandle[tuple[int, str]])
    assert_type(sent.result(), tuple[int, str])


# --- s makes a typed call, sent later --------------------------------------------------------------------


async def signatures() -> None:
    assert_type(send_email.s("a@b.c"), Signature[Receipt])
    assert_type(resize.s(1, width=2), Signature[Thumb])
    assert_type(heartbeat.s(), Signature[None])
    assert_type(add.s(1, y=2).enqueue(), JobHandle[int])
    assert_type(await add.s(1, y=2).aenqueue(), JobHandle[int])
    assert_type(crop.s(1, width=2).enqueue().result(), Thumb)
    assert_type([add.s(i, i) for i in range(3)], list[Signature[int]])


# --- options never erase types ---------------------------------------------------------------------------


async def options() -> None:
    assert_type(label.options(queue="low"), Bound[[int], str])
    assert_type(send_email.options(queue="low").enqueue("a@b.c"), JobHandle[Receipt])
    assert_type(await send_email.options(priority=0).aenqueue(to="a@b.c"), JobHandle[Receipt])
    assert_type(resize.options(run_in=timedelta(minutes=1)).s(1), Signature[Thumb])
    assert_type(label.options(queue="low").options(key="k"), Bound[[int], str])
    assert_type(label.options(queue="low").options(key="k").enqueue(1), JobHandle[str])
    all_of_them = crop.options(
        queue="low",
        priority=9,
        run_at=datetime.now(UTC),
        key="k",
        key_ttl=timedelta(hours=1),
        on_conflict="raise",
        retry=Retry(max_attempts=1),
        timeout=None,
        meta={"trace": "1"},
    )
    assert_type(all_of_them.enqueue(1, width=2), JobHandle[Thumb])
    assert_type(crop.options(on_conflict="existing", timeout=timedelta(1)).s(1, width=2), Signature[Thumb])


# --- handles ---------------------------------------------------------------------------------------------


async def handles(wait: timedelta) -> None:
    job = resize.handle("0192")
    assert_type(job, JobHandle[Thumb])
    assert_type(job.id, str)
    assert_type(job.created, bool)
    assert_type(job.result(), Thumb)
    assert_type(job.result(timeout=wait), Thumb)
    assert_type(job.result(wait).width, int)
    assert_type(job.status(), JobStatus)
    assert_type(job.wait(wait), JobStatus)
    assert_type(job.cancel(), bool)
    assert_type(job.cancel("not wanted"), bool)
    assert_type(await job.aresult(), Thumb)
    assert_type(await job.aresult(timeout=wait), Thumb)
    assert_type(await job.astatus(), JobStatus)
    assert_type(await job.await_(), JobStatus)
    assert_type(await job.acancel(reason="not wanted"), bool)
    assert_type(send_email.enqueue("a@b.c").result(), Receipt)
    assert_type(await (await send_email.aenqueue("a@b.c")).aresult(), Receipt)
    # An async task's result is no coroutine.
    assert_type(delayed.handle("0192").result(), str)


def facts() -> None:
    assert_type(send_email.name, str)
    assert_type(send_email.aliases, tuple[str, ...])
    assert_type(send_email.schema(), dict[str, object])


# --- covariance: where a wider result is wanted, a narrower one fits -------------------------------------


def wider(job: JobHandle[object], signature: Signature[int | str], many: Sequence[Signature[object]]) -> None:
    wider(send_email.enqueue("a@b.c"), add.s(1, 2), [add.s(1, 2), label.s(1)])
    wider(resize.handle("0192"), label.s(1), [heartbeat.s()])


def flows(flow: Flow[int], handle: FlowHandle[int]) -> None:
    """A flow is a signature, its handle a job handle."""
    wider(flow.enqueue(), flow, [flow])
    wider(handle, flow, [])
    assert_type(flow.enqueue(), FlowHandle[int])
    assert_type(handle.result(), int)


# --- links: a task whose first parameter fits and whose others have defaults -----------------------------


def links(page: Link[bytes, Page], size: Link[Page, int], text: Link[int, str]) -> None:
    links(parse, count, show)
    links(parse.options(queue="low"), count.options(priority=1), show.options(key="k"))
    links(parse, count, label)
    links(parse, count, delayed)
    # `*values` takes one value; a context is no first parameter; other parameters with defaults do no harm.
    assert_type(follow(add.s(1, 2), total), Signature[int])
    assert_type(follow(add.s(1, 2), resize), Signature[Thumb])
    assert_type(follow(fetch.s("u"), parse), Signature[Page])
    assert_type(follow(fetch.s("u"), parse.options(queue="low")), Signature[Page])
    assert_type(follow(follow(fetch.s("u"), parse), count), Signature[int])


def wider_links(narrow: Link[bool, object], exact: Link[int, str], page: Link[list[Page], object]) -> None:
    """A link that takes more than it must, or gives less than it may, fits."""
    wider_links(exact, exact, page)
    wider_links(show, show, report)
    assert_type(page.s([]), Signature[object])


def follow(first: Signature[A], link: Link[A, B]) -> Signature[B]:
    raise NotImplementedError


# --- a harbor: many calls at once, and workers -------------------------------------------------------------


@asynccontextmanager
async def deps() -> AsyncGenerator[Deps]:
    yield Deps()


@contextmanager
def blocking_deps() -> Generator[Deps]:
    yield Deps()


def harbors(driver: Driver) -> list[Harbor]:
    return [
        Harbor(),
        Harbor("memory://"),
        Harbor(url="memory://", registry=registry, codec=MsgpackCodec(), deps=deps),
        Harbor(driver, codecs=[JsonCodec()], deps=blocking_deps, check=False),
    ]


async def many(harbor: Harbor, numbers: Sequence[int]) -> None:
    assert_type(harbor.enqueue_many([add.s(1, 2), negate.s(1)]), list[JobHandle[int]])
    assert_type(harbor.enqueue_many(label.s(n) for n in numbers), list[JobHandle[str]])
    assert_type(
        harbor.enqueue_many({resize.options(key=str(n)).s(n) for n in numbers}), list[JobHandle[Thumb]]
    )
    assert_type(harbor.enqueue_many([add.s(1, 2)], check=False), list[JobHandle[int]])
    assert_type(await harbor.aenqueue_many([send_email.s("a@b.c")]), list[JobHandle[Receipt]])
    assert_type([job.result() for job in harbor.enqueue_many([add.s(1, 2)])], list[int])
    # Of any tasks: then of what they have in common.
    mixed_jobs: Sequence[JobHandle[int | str]] = harbor.enqueue_many([add.s(1, 2), label.s(1)])
    await tell(mixed_jobs)


async def tell(jobs: Sequence[JobHandle[object]]) -> None:
    for job in jobs:
        print(await job.aresult())


async def workers() -> None:
    async with Harbor("memory://") as harbor, harbor.worker(queues=["mail"], concurrency=5) as worker:
        assert_type(harbor, Harbor)
        assert_type(worker, Worker)
        assert_type(await harbor.arun_until_idle(), WorkerCounts)


def blocking_workers() -> None:
    with Harbor("memory://") as harbor, harbor.worker_thread(lease=timedelta(seconds=10)) as thread:
        assert_type(harbor, Harbor)
        assert_type(thread, WorkerThread)
    assert_type(harbor.install(), Harbor)
    assert_type(harbor.run_until_idle(), WorkerCounts)
    assert_type(harbor.run_until_idle(within=timedelta(minutes=1), concurrency=1), WorkerCounts)
    harbor.close()


# --- users may write generic helpers over tasks ----------------------------------------------------------


def twice(target: Bound[P, R], *args: P.args, **kwargs: P.kwargs) -> list[JobHandle[R]]:
    return [target.enqueue(*args, **kwargs), target.options(priority=9).enqueue(*args, **kwargs)]


def results(signatures: Sequence[Signature[R]]) -> list[R]:
    return [signature.enqueue().result() for signature in signatures]


def helpers() -> None:
    assert_type(twice(add, 1, y=2), list[JobHandle[int]])
    assert_type(twice(send_email.options(queue="low"), "a@b.c", subject="hi"), list[JobHandle[Receipt]])
    assert_type(results([add.s(1, 2), negate.s(1)]), list[int])


# --- words -----------------------------------------------------------------------------------------------


class Money:
    def __init__(self, cents: int) -> None:
        self.cents = cents


def words() -> None:
    on: Mapping[type[BaseException], Retry] = {OSError: Retry.never, ValueError: Retry(max_attempts=2)}
    retry = Retry(
        max_attempts=3, base=timedelta(seconds=2), factor=1.5, cap=timedelta(1), jitter=False, on=on
    )
    assert_type(retry.max_attempts, int)
    assert_type(Retry(on={OSError: Retry.never}), Retry)
    assert_type(Retry.never, Retry)
    codecs: list[Codec] = [JsonCodec(), MsgpackCodec()]
    assert_type(codecs[0].decoder(Receipt)(b""), Receipt)
    register_type(Money, wire=int, encode=lambda money: money.cents, decode=Money)


def verdicts() -> list[TaskHarborError]:
    return [
        RetryLater(timedelta(seconds=10), "busy"),
        RetryLater(after=timedelta(seconds=10)),
        Snooze(for_=timedelta(hours=1)),
        Reject("never"),
    ]
