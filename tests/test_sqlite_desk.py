"""The desk of a SQLite store answers everybody, whatever happens at it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import pytest

from taskharbor.driver import JobEnqueue, JobGet, Store
from taskharbor.drivers.sqlite.transaction import AnyAsk, Transactions
from taskharbor.errors import StoreUnavailable
from taskharbor_conformance.bench import new_job
from tests.support.sqlite import driver_on, stored
from tests.support.work import await_event, threads_named, within


class Odd(BaseException):
    """What nobody expects: no `Exception` at all."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "jobs.db"
    driver_on(file).migrate()
    return file


async def refused(store: Store) -> str:
    """Return in which words a store says that it is not there."""
    with pytest.raises(StoreUnavailable) as error:
        await within(store.job_get(JobGet(ids=["x"])))
    return str(error.value)


def test_when_its_thread_ends_all_who_stand_in_line_and_come_later_are_told(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody waits for ever, and the store can be closed."""
    begun, go_on = threading.Event(), threading.Event()

    def ends(_transactions: Transactions, _asks: Sequence[AnyAsk]) -> None:
        begun.set()
        await_event(go_on)
        raise Odd

    async def main() -> list[str]:
        async with driver_on(path).connect() as store:
            with mock.patch.object(Transactions, "run", ends):
                first = asyncio.ensure_future(refused(store))
                await asyncio.to_thread(await_event, begun)
                in_line = [asyncio.ensure_future(refused(store)) for _ in range(3)]
                await asyncio.sleep(0)
                go_on.set()
                told = [await asking for asking in (first, *in_line)]
            return [*told, await refused(store)]

    told = asyncio.run(main())

    assert 5 == sum("thread that talks to the SQLite file ended" in said for said in told)
    assert "Odd" in caplog.text
    assert not threads_named("taskharbor-sqlite")


def test_an_error_that_was_not_expected_is_told_and_the_next_who_asks_is_served(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged with its traceback."""

    async def main() -> str:
        async with driver_on(path).connect() as store:
            with mock.patch.object(Transactions, "run", side_effect=ZeroDivisionError):
                told = await refused(store)
            await within(store.job_enqueue(JobEnqueue(jobs=[new_job()])))
        return told

    assert "it failed in a way that was not expected" in asyncio.run(main())
    assert 1 == len(stored(path))
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("error", [OSError("no such folder"), Odd()])
def test_tidying_up_never_ends_the_thread(
    path: Path, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    """What was asked is answered before, and what is asked afterwards as well."""

    async def main() -> None:
        async with driver_on(path).connect() as store:
            with mock.patch.object(Transactions, "tidy", side_effect=error):
                for _ in range(3):
                    await within(store.job_enqueue(JobEnqueue(jobs=[new_job()])))

    asyncio.run(main())

    assert 3 == len(stored(path))
    assert "cannot be folded back now" in caplog.text


def test_a_connection_that_cannot_be_closed_does_not_keep_the_store_from_closing(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    close = Transactions.close

    def fails(transactions: Transactions) -> None:
        close(transactions)
        raise OSError("bad file descriptor")

    async def main() -> None:
        async with driver_on(path).connect():
            pass

    with mock.patch.object(Transactions, "close", fails):
        asyncio.run(asyncio.wait_for(main(), 20))

    assert "bad file descriptor" in caplog.text
