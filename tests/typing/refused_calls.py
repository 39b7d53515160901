"""Calls that every type checker must refuse: one a line, each marked `# E`. Nothing else here is wrong. Never run.

`tests/test_typing.py` runs mypy, basedpyright, pyrefly and ty over it; `accepted.py` is its counterpart. Where a
rule of style would speak first (an awaitable never awaited), the line is written so that it cannot.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from taskharbor import (
    AsyncTask,
    Bound,
    Context,
    Flow,
    FlowHandle,
    Harbor,
    JsonCodec,
    JobHandle,
    Link,
    Reject,
    Retry,
    RetryLater,
    Signature,
    Snooze,
    SyncTask,
    Task,
    Worker,
    WorkerThread,
    register_type,
    task,
)
from tests.typing.tasks import (
    Deps,
    Page,
    Receipt,
    Thumb,
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
    merge,
    mixed,
    negate,
    note,
    parse,
    positional_only,
    rated,
    report,
    resize,
    send_email,
    send_letter,
    send_telegram,
    show,
    styled,
    sum_up,
    tagged,
    tick,
    total,
)


# --- enqueue ---------------------------------------------------------------------------------------------


def enqueue() -> None:
    send_email.enqueue(1)  # E
    send_email.enqueue(to=1)  # E
    send_email.enqueue("a@b.c", 2)  # E
    send_email.enqueue("a@b.c", subject=None)  # E
    send_email.enqueue()  # E
    send_email.enqueue(subject="hi")  # E
    send_email.enqueue("a@b.c", "hi", "more")  # E
    send_email.enqueue("a@b.c", to="c@d.e")  # E
    send_email.enqueue("a@b.c", subjekt="hi")  # E
    send_email.enqueue("a@b.c", queue="mail")  # E
    send_letter.enqueue(b"a@b.c")  # E
    send_telegram.enqueue("a@b.c", 3)  # E
    send_telegram.enqueue("a@b.c", words="3")  # E
    add.enqueue(1)  # E
    add.enqueue(1, "2")  # E
    add.enqueue(1, 2, 3)  # E
    add.enqueue(1.5, 2)  # E
    negate.enqueue(None)  # E
    note.enqueue()  # E
    attempts.enqueue(1)  # E
    heartbeat.enqueue(None)  # E


# --- aenqueue --------------------------------------------------------------------------------------------


async def aenqueue() -> None:
    await send_email.aenqueue(1)  # E
    await send_email.aenqueue()  # E
    await send_email.aenqueue("a@b.c", "hi", "more")  # E
    await send_email.aenqueue("a@b.c", subjekt="hi")  # E
    await add.aenqueue("1", 2)  # E
    await crop.aenqueue(1)  # E
    await crop.aenqueue(1, width="2")  # E


# --- s ---------------------------------------------------------------------------------------------------


def signatures() -> None:
    send_email.s(1)  # E
    send_email.s()  # E
    send_email.s("a@b.c", "hi", "more")  # E
    send_email.s("a@b.c", subjekt="hi")  # E
    resize.s("1")  # E
    resize.s(1, widht=2)  # E
    parse.s("text")  # E
    sum_up.s(["1"])  # E


# --- calls -----------------------------------------------------------------------------------------------


async def calls() -> None:
    add(1)  # E
    add(1, "2")  # E
    add(1, 2, z=3)  # E
    resize(width=2)  # E
    await send_email(1)  # E
    await send_email()  # E
    await send_email("a@b.c", subjekt="hi")  # E
    await crop(1, 2)  # E
    # A plain function's call is not awaited, a coroutine function's is.
    await add(1, 2)  # E
    await resize(1)  # E
    await label.enqueue(1)  # E
    await label.s(1)  # E
    receipt: Receipt = send_email("a@b.c")  # E
    size: int = len(delayed(1))  # E
    shown: str = send_email("a@b.c").id  # E
    job: JobHandle[str] = label.aenqueue(1)  # E
    # A task is called or enqueued, never passed for its result.
    number: int = add  # E
    text: Receipt = await send_email  # E


# --- the context is injected, never passed ---------------------------------------------------------------


async def contexts(ctx: Context[Deps], plain: Context) -> None:
    resize.enqueue(ctx, 1)  # E
    resize.enqueue(ctx=ctx, image_id=1)  # E
    resize.s(ctx, 1)  # E
    resize(ctx, 1)  # E
    resize.options(queue="low").enqueue(ctx, 1)  # E
    await crop.aenqueue(ctx, 1, width=2)  # E
    await crop(ctx, 1, width=2)  # E
    attempts.enqueue(plain)  # E
    note.enqueue(plain, "text")  # E
    tick.s(plain, 1)  # E
    # Dependencies have one type.
    other: Context[str] = ctx  # E
    root: int = ctx.deps.root  # E
    none: str = plain.deps  # E


# --- kinds of parameters ---------------------------------------------------------------------------------


def parameters() -> None:
    label.enqueue(x=1)  # E
    positional_only.enqueue(1, y=2)  # E
    positional_only.s(x=1)  # E
    tick.enqueue(times=1)  # E
    crop.enqueue(image_id=1, width=2)  # E
    keyword_only.enqueue("a")  # E
    keyword_only.enqueue(loud=True)  # E
    mixed.enqueue(1, "b", 0.5)  # E
    mixed.enqueue(a=1, b="b")  # E
    total.enqueue("1")  # E
    total.enqueue(1, 2, "3")  # E
    total.enqueue(values=1)  # E
    tagged.enqueue("a", 1)  # E
    tagged.enqueue("a", b="c")  # E
    styled.enqueue("a", width="1")  # E
    styled.enqueue("a", height=1)  # E
    rated.enqueue("5")  # E
    everything.enqueue()  # E


# --- options: a call's arguments and a task's ------------------------------------------------------------


async def options() -> None:
    send_email.options(queue="low").enqueue(1)  # E
    send_email.options(queue="low").enqueue()  # E
    await send_email.options(queue="low").aenqueue("a@b.c", subjekt="hi")  # E
    send_email.options(queue="low").s("a@b.c", "hi", "more")  # E
    send_email.options(queue="low").options(priority=1).enqueue(1)  # E
    label.options(queue="low").enqueue(x=1)  # E
    add.options(queue=1)  # E
    add.options(priority="high")  # E
    add.options(run_at=timedelta(seconds=1))  # E
    add.options(run_in=10)  # E
    add.options(key=1)  # E
    add.options(key_ttl=3600)  # E
    add.options(on_conflict="ignore")  # E
    add.options(retry=3)  # E
    add.options(timeout=30)  # E
    add.options(meta={"trace": 1})  # E
    add.options(queu="low")  # E
    add.options("low")  # E
    add.options(queue=None)  # E
    # A bound task is only for sending.
    add.options(queue="low")(1, 2)  # E
    add.options(queue="low").handle("0192")  # E


# --- wrong result types ----------------------------------------------------------------------------------


async def results(wait: timedelta) -> None:
    job: JobHandle[str] = add.enqueue(1, 2)  # E
    later: JobHandle[str] = await send_email.aenqueue("a@b.c")  # E
    signature: Signature[str] = add.s(1, 2)  # E
    found: JobHandle[Receipt] = resize.handle("0192")  # E
    text: str = add.enqueue(1, 2).result()  # E
    thumb: Thumb = await send_email.handle("0192").aresult()  # E
    number: int = label(1)  # E
    receipt: Receipt = await fetch("u")  # E
    nothing: int = note.enqueue("text").result()  # E
    narrower: JobHandle[bool] = add.enqueue(1, 2)  # E
    many: list[Signature[str]] = [label.s(1), add.s(1, 2)]  # E
    resize.handle(1)  # E
    resize.handle("0192").result(timeout=10)  # E
    resize.handle("0192").cancel(None)  # E
    resize.handle("0192").result().height  # E
    resize.fn(1, 2).height  # E


def flows(flow: Flow[int], handle: FlowHandle[int], job: JobHandle[int], signature: Signature[int]) -> None:
    text: FlowHandle[str] = flow.enqueue()  # E
    strings: Flow[str] = flow  # E
    whole: Flow[int] = signature  # E
    steps: FlowHandle[int] = job  # E
    one: FlowHandle[int] = add.enqueue(1, 2)  # E


# --- wrong tasks where a task is wanted ------------------------------------------------------------------


def wants_sync(target: SyncTask[[int], str]) -> None: ...


def wants_async(target: AsyncTask[[int], str]) -> None: ...


def wants_task(target: Task[[int], str]) -> None: ...


def wants_bound(target: Bound[[int], str]) -> None: ...


def kinds() -> None:
    wants_sync(delayed)  # E
    wants_async(label)  # E
    wants_task(label.options(queue="low"))  # E
    wants_task(negate)  # E
    wants_bound(add)  # E
    wants_bound(positional_only)  # E
    wants_bound(label.fn)  # E


# --- links: the first parameter must take the value, the others must have defaults -----------------------


def wants_link(link: Link[bytes, Page]) -> None: ...


def wants_number_link(link: Link[int, object]) -> None: ...


def links(page: Link[bytes, Page]) -> None:
    wants_link(fetch)  # E
    wants_link(count)  # E
    wants_link(fetch.options(queue="low"))  # E
    wants_link(parse.s(b""))  # E
    wants_link(parse.fn)  # E
    wants_number_link(add)  # E
    wants_number_link(keyword_only)  # E
    wants_number_link(heartbeat)  # E
    wants_number_link(crop)  # E
    wants_number_link(send_email)  # E
    wants_number_link(report)  # E
    wants_number_link(merge)  # E
    narrower: Link[object, Page] = page  # E
    shown: Link[int, int] = show  # E


# --- a harbor --------------------------------------------------------------------------------------------


def deps() -> Deps:
    return Deps()


async def harbors(harbor: Harbor) -> None:
    Harbor(1)  # E
    Harbor("memory://", codec="json")  # E
    Harbor("memory://", codecs=JsonCodec())  # E
    Harbor("memory://", registry={})  # E
    Harbor("memory://", deps=Deps())  # E
    Harbor("memory://", deps=deps)  # E
    Harbor("memory://", dependencies=None)  # E
    harbor.enqueue_many(add.s(1, 2))  # E
    harbor.enqueue_many([add])  # E
    harbor.enqueue_many([add.enqueue(1, 2)])  # E
    harbor.enqueue_many([add(1, 2)])  # E
    harbor.enqueue_many([add.s("1", 2)])  # E
    harbor.enqueue_many([add.s(1, 2)], queue="low")  # E
    jobs: list[JobHandle[str]] = harbor.enqueue_many([add.s(1, 2)])  # E
    later: list[JobHandle[str]] = await harbor.aenqueue_many([add.s(1, 2)])  # E
    found: list[JobHandle[int]] = harbor.aenqueue_many([add.s(1, 2)])  # E
    await harbor.enqueue_many([add.s(1, 2)])  # E
    worker: Worker = harbor.worker_thread()  # E
    thread: WorkerThread = harbor.worker()  # E
    harbor.worker(queues=1)  # E
    harbor.worker(concurrency="5")  # E
    harbor.worker(lease=10)  # E
    harbor.worker(5)  # E
    harbor.worker(concurency=5)  # E
    harbor.worker_thread(gracee=timedelta(1))  # E
    harbor.run_until_idle(wihtin=timedelta(1))  # E
    await harbor.arun_until_idle(queue=["mail"])  # E
    harbor.worker_thread(grace="30s")  # E
    harbor.run_until_idle(within=60)  # E
    harbor.run_until_idle(timedelta(1))  # E
    with harbor.worker(): pass  # E


# --- the decorator and the words -------------------------------------------------------------------------


def plain(x: int) -> str:
    return str(x)


def declarations() -> None:
    task(queue=1)  # E
    task(priority="high")  # E
    task(retry=5)  # E
    task(timeout=30)  # E
    task(run="thread")  # E
    task(queu="mail")  # E
    task("mail")  # E
    task(aliases=1)  # E
    task(keep_result="no")  # E
    task(codec="json")  # E
    task(plain, queue="low")  # E
    task(1)  # E
    task()(1)  # E
    strings: SyncTask[[str], str] = task(plain)  # E
    Retry(3)  # E
    Retry(max_attempts="3")  # E
    Retry(base=1)  # E
    Retry(on={OSError: 3})  # E
    Retry(on={"OSError": Retry.never})  # E
    Retry(attempts=3)  # E
    RetryLater(10)  # E
    RetryLater()  # E
    Snooze(60)  # E
    Reject()  # E
    Context.detached(None, attempt="1")  # E
    register_type(Deps, wire=str, encode=len, decode=Deps)  # E
    register_type(Deps, wire=int, encode=repr, decode=make)  # E


def make(root: int) -> Deps:
    return Deps()


# A decorator keeps what it decorates: its misuse shows at the call.
right: Callable[[int], str] = task(retry=Retry(max_attempts=2))(plain)
wrong: Callable[[str], str] = task(retry=Retry(max_attempts=2))(plain)  # E
