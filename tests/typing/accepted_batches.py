"""Batch handlers as users write them; every type checker accepts them, and what is told by `assert_type`. Never run.

`tests/test_typing.py` runs mypy, basedpyright, pyrefly and ty over it; `refused_batches.py` is its counterpart.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from typing import Any, assert_type

import msgspec
from tests.typing.tasks import Deps

from taskharbor import (
    Batch,
    BatchContext,
    Bound,
    Context,
    Flow,
    Harbor,
    JobHandle,
    Registry,
    Retry,
    Signature,
    Task,
    chain,
    each,
    group,
    task,
)


class Document(msgspec.Struct):
    text: str


# --- every form: with and without a context, async and not, None and a list -----------------------------------


@task(batch=Batch(size=100, wait=timedelta(milliseconds=50)))
def store(documents: list[Document]) -> None: ...


@task(batch=Batch())
async def astore(documents: Sequence[Document]) -> None: ...


@task(batch=Batch(10), queue="index", retry=Retry(max_attempts=3), registry=Registry())
def index(documents: list[Document]) -> list[int | Exception]:
    return [ValueError("empty") if not document.text else 1 for document in documents]


@task(batch=Batch())
async def aindex(documents: list[Document]) -> list[int | Exception]:
    return [len(document.text) for document in documents]


@task(batch=Batch())
def embed(ctx: BatchContext, texts: list[str]) -> Sequence[list[float] | Exception]:
    assert_type(ctx.deps, None)
    assert_type(ctx.worker, str)
    assert_type(ctx.cancelled, bool)
    for job in ctx.jobs:
        job.progress(1, 1)
    return [[0.0] for _ in texts]


@task(batch=Batch())
async def fetch(ctx: BatchContext[Deps], numbers: list[int]) -> list[Document | Exception]:
    assert_type(ctx.deps, Deps)
    assert_type(ctx.jobs, Sequence[Context[Deps]])
    ctx.jobs[0].enqueue_on_success(index.s(Document("")))
    ctx.raise_if_cancelled()
    return [Document(ctx.deps.root) for _ in numbers]


@task(batch=Batch())
async def note(ctx: BatchContext[Deps], numbers: list[int]) -> None: ...


@task(batch=Batch())
def count(words: list[str]) -> list[int]:
    return [len(word) for word in words]


@task(batch=Batch())
def find(words: list[str]) -> list[str | None | Exception]:
    return [word or None for word in words]


@task(batch=Batch())
def check(words: list[str]) -> list[None | Exception]:
    return [ValueError(word) if word else None for word in words]


# --- a job carries one payload, and comes to one result -------------------------------------------------------


async def uses() -> None:
    assert_type(store.enqueue(Document("")), JobHandle[None])
    assert_type(await astore.aenqueue(Document("")), JobHandle[None])
    assert_type(index.enqueue(Document("")).result(), int)
    assert_type(aindex.s(Document("")), Signature[int])
    assert_type(embed.enqueue("a").result(), list[float])
    assert_type(await (await fetch.aenqueue(1)).aresult(), Document)
    assert_type(note.enqueue(1).result(), None)
    assert_type(count.enqueue("a").result(), int)
    assert_type(find.enqueue("a").result(), str | None)
    assert_type(check.enqueue("a").result(), None)
    assert_type(index.options(priority=1), Bound[[Document], int])
    assert_type(index.options(run_in=timedelta(1)).enqueue(Document("")), JobHandle[int])
    assert_type(index.handle("id"), JobHandle[int])
    as_tasks: list[Task[[Document], int]] = [index, aindex]
    with Harbor("memory://") as harbor:
        assert_type(harbor.enqueue_many(index.s(Document("")) for _ in range(3)), list[JobHandle[int]])
    del as_tasks


def flows() -> None:
    assert_type(chain(fetch.s(1), index), Flow[int])
    assert_type(fetch.s(1).then(index), Flow[int])
    assert_type(group(count.s("a"), count.s("b")), Flow[list[int]])

    @task
    def words() -> list[str]:
        return []

    assert_type(chain(words.s(), each(count)), Flow[list[int]])


# --- called by hand -------------------------------------------------------------------------------------------


async def by_hand() -> None:
    assert_type(index([Document("")]), Sequence[int | Exception] | None)
    assert_type(await aindex([Document("")]), Sequence[int | Exception] | None)
    assert_type(index.fn, Callable[..., Sequence[int | Exception] | None])
    assert_type(aindex.fn, Callable[..., Coroutine[Any, Any, Sequence[int | Exception] | None]])
    assert_type(BatchContext.detached(Deps(), 2), BatchContext[Deps])
    index.fn(BatchContext.detached(None, 2), [Document("")])
