"""Middleware as users write and use it; every type checker accepts it, and what is told by `assert_type`. Never run.

`tests/test_typing.py` runs mypy, basedpyright, pyrefly and ty over it; `refused_middleware.py` is its counterpart.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from datetime import timedelta
from typing import assert_type

import msgspec
from tests.typing.tasks import Deps
from typing_extensions import override

from taskharbor import Context, Harbor, JobHandle, task
from taskharbor.middleware import (
    Attempt,
    ContextVariables,
    JobFields,
    JobLogging,
    Middleware,
    Outgoing,
    SlowJobs,
    TypedVariable,
)


class User(msgspec.Struct):
    name: str


request_id: ContextVar[str] = ContextVar("request_id")
tenant: ContextVar[str | None] = ContextVar("tenant", default=None)
user: ContextVar[User] = ContextVar("user")


# --- a middleware overrides what it needs, as an iterator or as the generator that it is ---------------------


class RunOnly(Middleware):
    @override
    def run(self, attempt: Attempt) -> Iterator[None]:
        assert_type(attempt.context, Context[object])
        assert_type(attempt.arguments, Mapping[str, object])
        assert_type(attempt.worker, str)
        yield
        assert_type(attempt.result, object)
        assert_type(attempt.has_result, bool)
        attempt.replace_result([attempt.result])


class EnqueueOnly(Middleware):
    @override
    def enqueue(self, jobs: Sequence[Outgoing]) -> Generator[None]:
        for job in jobs:
            job.meta["by"] = job.task + job.queue + job.job_id
            assert_type(job.arguments, Mapping[str, object])
            assert_type(job.flow, bool)
        yield
        assert_type([job.created for job in jobs], list[bool | None])


class Both(EnqueueOnly):
    def __init__(self, limit: int) -> None:
        self.limit = limit

    @override
    def run(self, attempt: Attempt) -> Generator[None, None, None]:
        yield from super().run(attempt)


class Awaits(Middleware):
    @override
    async def arun(self, attempt: Attempt) -> AsyncIterator[None]:
        yield


class AwaitsToo(RunOnly):
    @override
    async def arun(self, attempt: Attempt) -> AsyncGenerator[None]:
        yield


class Wider(Middleware):
    @override
    def run(self, attempt: object) -> Iterator[None]:
        yield

    @override
    def enqueue(self, jobs: Iterable[Outgoing], quiet: bool = False) -> Iterator[None]:
        yield


# --- it is given to a harbor and to tasks, whose types stay what they were -----------------------------------

LAYERS = [RunOnly(), EnqueueOnly(), Both(3), Awaits(), Wider()]


@task(middleware=[RunOnly(), Both(3)])
def label(x: int) -> str:
    return str(x)


@task(queue="a", middleware=(AwaitsToo(),))
async def fetch(ctx: Context[Deps], url: str, *, tries: int = 1) -> bytes:
    return url.encode()


@task(middleware=(layer for layer in LAYERS))
async def later(x: int) -> None: ...


async def uses() -> None:
    harbor = Harbor("memory://", middleware=LAYERS)
    Harbor("memory://", middleware=())
    Harbor("memory://", middleware=iter(LAYERS))
    assert_type(label(1), str)
    assert_type(label.enqueue(x=1), JobHandle[str])
    assert_type(later.enqueue(1), JobHandle[None])
    assert_type(await fetch.enqueue("u", tries=2).aresult(), bytes)
    assert_type(harbor.at("memory://"), Harbor)


# --- what is shipped -----------------------------------------------------------------------------------------

SHIPPED: list[Middleware] = [
    JobLogging(),
    JobLogging("jobs", level=logging.DEBUG),
    JobLogging(logging.getLogger("jobs")),
    ContextVariables(request_id, tenant, TypedVariable(user, User)),
    ContextVariables(request_id, prefix="trace."),
    SlowJobs(timedelta(seconds=10)),
    SlowJobs(after=timedelta(seconds=10), level=logging.ERROR),
]
logging.getLogger().addFilter(JobFields())
logging.getLogger().addFilter(JobFields(outside="-"))
