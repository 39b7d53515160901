"""`harbor.using(connection)` on SQLite: the caller's rows and the jobs are committed together, or not at all."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from taskharbor import (
    DuplicateJob,
    Harbor,
    JobNotFound,
    JobState,
    KeyConflict,
    PayloadError,
    Registry,
    Signature,
    UsageError,
    task,
)
from tests.fixtures.support import untyped
from tests.support.work import ENOUGH

registry = Registry()


@task(registry=registry)
def note(number: int) -> int:
    return number


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The file that the caller's rows and the jobs are in."""
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE orders (number INTEGER)")
        connection.commit()
    return path


@pytest.fixture
def harbor(file: Path) -> Iterator[Harbor]:
    with Harbor(f"sqlite:///{file}", registry=registry) as current:
        yield current


@pytest.fixture
def connection(file: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(file)) as opened:
        yield opened


def order(connection: sqlite3.Connection, number: int) -> None:
    connection.execute("INSERT INTO orders VALUES (?)", (number,))


def orders(file: Path) -> list[int]:
    """Return the orders that others see."""
    with closing(sqlite3.connect(file)) as other:
        return [number for (number,) in other.execute("SELECT number FROM orders ORDER BY number")]


def jobs(harbor: Harbor) -> list[object]:
    """Return the numbers of the jobs that others see."""
    return [harbor.arguments_of(job)["number"] for job in harbor.jobs.find()]


def test_rows_and_jobs_are_committed_together(
    harbor: Harbor, connection: sqlite3.Connection, file: Path
) -> None:
    with connection, harbor.using(connection):
        order(connection, 1)
        handle = note.enqueue(1)
        harbor.enqueue_many([note.s(2), note.s(3)])

        assert ([], []) == (orders(file), jobs(harbor))
        with pytest.raises(JobNotFound):
            handle.status()

    assert ([1], [1, 2, 3]) == (orders(file), jobs(harbor))
    assert handle.status().state is JobState.READY


def test_rows_and_jobs_are_rolled_back_together(
    harbor: Harbor, connection: sqlite3.Connection, file: Path
) -> None:
    def fail() -> None:
        with connection, harbor.using(connection):
            order(connection, 1)
            note.enqueue(1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    assert ([], []) == (orders(file), jobs(harbor))


def test_a_job_enqueued_before_any_row_begins_the_transaction(
    harbor: Harbor, connection: sqlite3.Connection, file: Path
) -> None:
    with harbor.using(connection):
        note.enqueue(1)
        order(connection, 1)
    assert connection.in_transaction
    connection.rollback()

    assert ([], []) == (orders(file), jobs(harbor))


ONE_WITH_KEY = note.options(key="k", on_conflict="raise")


@pytest.mark.parametrize(
    ("error", "call"),
    [
        (DuplicateJob, lambda: ONE_WITH_KEY.s(1)),
        (KeyConflict, lambda: ONE_WITH_KEY.s(2)),
        (PayloadError, lambda: note.s(untyped("two"))),
    ],
    ids=["duplicate", "conflict", "payload"],
)
def test_a_refused_enqueue_leaves_the_callers_rows_and_the_jobs_before_it(
    harbor: Harbor,
    connection: sqlite3.Connection,
    file: Path,
    error: type[Exception],
    call: Callable[[], Signature[int]],
) -> None:
    with connection, harbor.using(connection):
        order(connection, 1)
        ONE_WITH_KEY.enqueue(1)
        with pytest.raises(error):
            harbor.enqueue_many([note.s(7), call()])
        order(connection, 2)

    assert ([1, 2], [1]) == (orders(file), jobs(harbor))


def test_a_key_taken_in_the_same_transaction_returns_the_job_that_has_it(
    harbor: Harbor, connection: sqlite3.Connection
) -> None:
    bound = note.options(key="k")
    with connection, harbor.using(connection):
        first, again = bound.enqueue(1), bound.enqueue(1)

    assert (True, False, first.id) == (first.created, again.created, again.id)
    assert [1] == jobs(harbor)


def test_the_async_form_and_its_child_tasks_go_the_same_way(file: Path) -> None:
    async def main() -> tuple[list[int], list[object], list[object]]:
        async with Harbor(f"sqlite:///{file}", registry=registry) as harbor:
            with closing(sqlite3.connect(file)) as connection:
                ended = asyncio.Event()

                async def outlive() -> None:
                    await ended.wait()
                    await note.aenqueue(4)

                with harbor.using(connection):
                    order(connection, 1)
                    await asyncio.gather(*(note.aenqueue(number) for number in (1, 2, 3)))
                    child = asyncio.create_task(outlive())
                connection.rollback()
                rolled_back = [job.id for job in await harbor.jobs.afind()]
                ended.set()
                await child
            left = [harbor.arguments_of(job)["number"] for job in await harbor.jobs.afind()]
        return orders(file), list(rolled_back), left

    rows, rolled_back, left = asyncio.run(main())

    assert ([], [], [4]) == (rows, rolled_back, left)


def test_a_worker_runs_what_was_committed(harbor: Harbor, connection: sqlite3.Connection) -> None:
    with harbor.worker_thread():
        with connection, harbor.using(connection):
            job = note.enqueue(1)

        assert 1 == job.result(ENOUGH)


def test_the_transaction_of_autocommit_is_begun_by_the_caller(harbor: Harbor, file: Path) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as connection, harbor.using(connection):
        with pytest.raises(UsageError, match=r'begin one first: connection\.execute\("BEGIN IMMEDIATE"\)'):
            note.enqueue(1)
        connection.execute("BEGIN IMMEDIATE")
        note.enqueue(2)
        connection.execute("COMMIT")

    assert [2] == jobs(harbor)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sqlite3 has the attribute since Python 3.12")
def test_a_connection_that_always_has_a_transaction_open_is_joined(harbor: Harbor, file: Path) -> None:
    with closing(untyped(sqlite3).connect(file, autocommit=False)) as connection:
        with harbor.using(connection):
            order(connection, 1)
            note.enqueue(1)
        connection.commit()

    assert ([1], [1]) == (orders(file), jobs(harbor))


@pytest.mark.parametrize("reads_text", [str, bytes])
def test_how_the_caller_reads_rows_changes_nothing(
    harbor: Harbor, connection: sqlite3.Connection, reads_text: type
) -> None:
    connection.row_factory = sqlite3.Row
    connection.text_factory = reads_text
    with connection, harbor.using(connection):
        first, again = (note.options(key="k").enqueue(1) for _ in range(2))

    assert first.id == again.id
    assert (sqlite3.Row, reads_text) == (connection.row_factory, connection.text_factory)


@pytest.mark.parametrize("name", ["other.db", ":memory:"])
def test_a_connection_to_another_file_is_refused_and_both_are_named(
    harbor: Harbor, file: Path, tmp_path: Path, name: str
) -> None:
    wrong = tmp_path / name if name != ":memory:" else name
    with (
        closing(sqlite3.connect(wrong)) as connection,
        pytest.raises(UsageError) as caught,
        harbor.using(connection),
    ):
        pytest.fail("the block was entered")

    told = str(caught.value)
    assert str(file) in told
    assert (str(wrong) if name != ":memory:" else "a database in memory") in told


def test_the_same_file_by_another_name_is_the_same(harbor: Harbor, file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(file)
    with closing(sqlite3.connect(link)) as connection, connection, harbor.using(connection):
        note.enqueue(1)

    assert [1] == jobs(harbor)


def test_what_is_no_sqlite3_connection_is_refused_by_its_type(harbor: Harbor, file: Path) -> None:
    with (
        pytest.raises(UsageError, match=r"takes a sqlite3\.Connection; got a (Posix|Windows)Path"),
        harbor.using(file),
    ):
        pytest.fail("the block was entered")


def test_a_closed_connection_is_refused(harbor: Harbor, connection: sqlite3.Connection) -> None:
    connection.close()
    with pytest.raises(UsageError, match="closed database"), harbor.using(connection):
        pytest.fail("the block was entered")


def test_a_connection_of_another_thread_is_refused(file: Path) -> None:
    async def main() -> None:
        async with Harbor(f"sqlite:///{file}", registry=registry) as harbor:
            with closing(sqlite3.connect(file)) as connection, harbor.using(connection):
                with pytest.raises(UsageError, match="thread"):
                    await asyncio.to_thread(note.enqueue, 1)
                connection.rollback()
            assert [] == await harbor.jobs.afind()

    asyncio.run(main())
