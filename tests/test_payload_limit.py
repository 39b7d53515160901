"""How large arguments and results may be: the same on every store, and told where it can still be helped."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from taskharbor import (
    Harbor,
    JobFailed,
    JobState,
    MsgpackCodec,
    PayloadError,
    PayloadTooLarge,
    Registry,
    Retry,
    Task,
    UsageError,
    task,
)
from taskharbor.job import PAYLOAD_LIMIT
from tests.support.work import ENOUGH, states

registry = Registry()
ROOM = PAYLOAD_LIMIT - len('{"text":""}')
"""Characters that fit with what stands around them."""
ROOM_FOR_RESULT = PAYLOAD_LIMIT - len('""')


@task(name="papers.echo", registry=registry)
async def echo(text: str) -> str:
    return text


@task(name="papers.long", registry=registry, retry=Retry(max_attempts=5))
async def long(size: int) -> str:
    return "x" * size


@task(name="papers.long-in-a-thread", registry=registry)
def long_in_a_thread(size: int) -> str:
    return "x" * size


@task(name="papers.long-in-a-process", registry=registry, run="process")
def long_in_a_process(size: int) -> str:
    return "x" * size


@task(name="papers.not-kept", registry=registry, keep_result=False)
async def not_kept(size: int) -> str:
    return "x" * size


@task(name="papers.passes-on", registry=registry, retry=Retry.never)
async def passes_on(size: int) -> None:
    await echo.aenqueue("x" * size)


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'jobs.db'}"


# --- arguments


def test_arguments_and_results_at_the_limit_come_back_whole(url: str) -> None:
    with Harbor(url, registry=registry) as harbor:
        job, other = echo.enqueue("x" * ROOM), long.enqueue(ROOM_FOR_RESULT)
        harbor.run_until_idle()

        assert "x" * ROOM == job.result(ENOUGH)
        assert "x" * ROOM_FOR_RESULT == other.result(ENOUGH)


def test_larger_arguments_are_refused_by_every_way_to_enqueue(url: str) -> None:
    text = "x" * (ROOM + 1)

    async def asynchronously(harbor: Harbor) -> None:
        with pytest.raises(PayloadTooLarge):
            await echo.aenqueue(text)
        with pytest.raises(PayloadTooLarge):
            await harbor.aenqueue_many([echo.s("small"), echo.s(text)])
        await harbor.aclose()

    with Harbor(url, registry=registry) as harbor:
        with pytest.raises(PayloadTooLarge):
            echo.enqueue(text)
        with pytest.raises(PayloadTooLarge):
            echo.s(text).enqueue()
        with pytest.raises(PayloadTooLarge):
            echo.options(key="once", on_conflict="raise").enqueue(text)
        with pytest.raises(PayloadTooLarge):
            harbor.enqueue_many([echo.s("small"), echo.s(text), echo.s("small")])
        with pytest.raises(PayloadTooLarge):
            harbor.enqueue_many([echo.s(text)], check=False)
        asyncio.run(asynchronously(harbor))

        assert {} == states(harbor)
        assert echo.options(key="once", on_conflict="raise").enqueue("small").created


def test_within_a_transaction_the_refusal_leaves_it_usable(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    with Harbor(f"sqlite:///{path}", registry=registry) as harbor:
        echo.enqueue("makes the file")
        with closing(sqlite3.connect(path)) as connection, connection, harbor.using(connection):
            connection.execute("BEGIN")
            with pytest.raises(PayloadTooLarge):
                echo.enqueue("x" * (ROOM + 1))
            echo.enqueue("small")

        assert {"ready": 2} == states(harbor)


def test_the_refusal_says_which_task_how_large_how_large_it_may_be_and_what_to_do() -> None:
    with Harbor("memory://", registry=registry), pytest.raises(PayloadTooLarge) as refused:
        echo.enqueue("x" * (ROOM + 1))

    assert (
        "the arguments of task 'papers.echo' take 16,777,217 bytes as json, and a job carries at most 16,777,216; "
        "keep what is large elsewhere (a file, an object store, a table of your own), and pass the key that finds it"
    ) == str(refused.value)
    assert ("papers.echo", PAYLOAD_LIMIT + 1, PAYLOAD_LIMIT) == (
        refused.value.task,
        refused.value.size,
        refused.value.limit,
    )
    assert isinstance(refused.value, PayloadError)
    assert isinstance(refused.value, UsageError)


def test_what_counts_is_the_encoded_size() -> None:
    with Harbor("memory://", registry=registry, codec=MsgpackCodec()):
        assert echo.enqueue("x" * ROOM).created
    with Harbor("memory://", registry=registry), pytest.raises(PayloadTooLarge):
        echo.enqueue("\n" * (ROOM // 2 + 1))


# --- results


@pytest.mark.parametrize(
    "work", [long, long_in_a_thread, long_in_a_process], ids=["loop", "thread", "process"]
)
def test_a_larger_result_makes_a_dead_letter_at_once(work: Task[[int], str], url: str) -> None:
    """It ran, and would return the same again."""
    with Harbor(url, registry=registry) as harbor:
        job = work.enqueue(ROOM_FOR_RESULT + 1)
        harbor.run_until_idle()

        assert (JobState.DEAD, 1) == (job.status().state, job.status().attempt)
        with pytest.raises(JobFailed) as failed:
            job.result(ENOUGH)
    assert ("its result is too large to keep", "taskharbor.errors.PayloadTooLarge") == (
        failed.value.reason,
        failed.value.error_type,
    )
    assert (
        f"the result of task {work.name!r} takes 16,777,217 bytes as json, and at most 16,777,216 are kept; keep what "
        "is large elsewhere (a file, an object store, a table of your own), and return the key that finds it"
    ) == failed.value.error_message


def test_a_result_that_is_not_kept_may_be_larger() -> None:
    with Harbor("memory://", registry=registry) as harbor:
        job = not_kept.enqueue(ROOM_FOR_RESULT + 1)
        harbor.run_until_idle()

        assert JobState.SUCCEEDED is job.status().state


def test_a_handler_that_enqueues_too_much_fails_like_any_other() -> None:
    """It is no result of its own: its retry policy decides."""
    with Harbor("memory://", registry=registry) as harbor:
        job = passes_on.enqueue(ROOM + 1)
        harbor.run_until_idle()

        with pytest.raises(JobFailed) as failed:
            job.result(ENOUGH)
    assert ("not to be retried", "taskharbor.errors.PayloadTooLarge") == (
        failed.value.reason,
        failed.value.error_type,
    )
