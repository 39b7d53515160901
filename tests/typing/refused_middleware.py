"""Middleware as every type checker must refuse it: one a line, each marked `# E`. Nothing else here is wrong. Never run.

`tests/test_typing.py` runs mypy, basedpyright, pyrefly and ty over it; `accepted_middleware.py` is its counterpart.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextvars import ContextVar
from datetime import timedelta

from typing_extensions import override

from taskharbor import Harbor, task
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


class Sound(Middleware):
    @override
    def run(self, attempt: Attempt) -> Iterator[None]:
        yield


# --- methods that are not what is called -----------------------------------------------------------------


class TakesText(Middleware):
    @override
    def run(self, attempt: str) -> Iterator[None]:  # E
        yield


class TakesNothing(Middleware):
    @override
    def run(self) -> Iterator[None]:  # E
        yield


class TakesMore(Middleware):
    @override
    def run(self, attempt: Attempt, call: object) -> Iterator[None]:  # E
        yield


class GivesNothing(Middleware):
    @override
    def run(self, attempt: Attempt) -> None:  # E
        return


class GivesText(Middleware):
    @override
    def run(self, attempt: Attempt) -> Iterator[str]:  # E
        yield ""


class AwaitsInRun(Middleware):
    @override
    async def run(self, attempt: Attempt) -> AsyncIterator[None]:  # E
        yield


class TakesOne(Middleware):
    @override
    def enqueue(self, jobs: Outgoing) -> Iterator[None]:  # E
        yield


class TakesAttempt(Middleware):
    @override
    def enqueue(self, jobs: Attempt) -> Iterator[None]:  # E
        yield


class GivesJobs(Middleware):
    @override
    def enqueue(self, jobs: Sequence[Outgoing]) -> Sequence[Outgoing]:  # E
        return jobs


class AwaitsInEnqueue(Middleware):
    @override
    async def enqueue(self, jobs: Sequence[Outgoing]) -> AsyncIterator[None]:  # E
        yield


class PlainArun(Middleware):
    @override
    def arun(self, attempt: Attempt) -> Iterator[None]:  # E
        yield


class AwaitedArun(Middleware):
    @override
    async def arun(self, attempt: Attempt) -> None:  # E
        return


# --- what an attempt and an outgoing job are not -----------------------------------------------------------


class Meddles(Middleware):
    @override
    def run(self, attempt: Attempt) -> Iterator[None]:
        number: int = attempt.result  # E
        attempt.arguments["x"] = 1  # E
        attempt.result = 2  # E
        attempt.has_result = True  # E
        attempt.replace_result()  # E
        attempt.job_id  # E
        yield

    @override
    def enqueue(self, jobs: Sequence[Outgoing]) -> Iterator[None]:
        jobs[0].meta["x"] = 1  # E
        jobs[0].arguments["x"] = 1  # E
        jobs[0] = jobs[1]  # E
        jobs.clear()  # E
        sure: bool = jobs[0].created  # E
        yield


# --- where middleware is wanted ------------------------------------------------------------------------------


def wants(text: ContextVar[int]) -> None:
    Harbor("memory://", middleware=Sound())  # E
    Harbor("memory://", middleware=[Sound])  # E
    Harbor("memory://", middleware=["logging"])  # E
    Harbor("memory://", middleware=[Sound(), print])  # E
    Harbor("memory://", middleware=None)  # E
    task(middleware=Sound())  # E
    task(middleware=[Sound])  # E
    task(middleware=[Sound().run])  # E


# --- what is shipped -----------------------------------------------------------------------------------------


def shipped(number: ContextVar[int]) -> None:
    ContextVariables(number)  # E
    ContextVariables("request_id")  # E
    ContextVariables(prefix=None)  # E
    TypedVariable(number, str)  # E
    TypedVariable(number)  # E
    SlowJobs(10)  # E
    SlowJobs()  # E
    SlowJobs(timedelta(seconds=1), level="WARNING")  # E
    JobLogging(level="INFO")  # E
    JobLogging(print)  # E
    JobFields("-")  # E
