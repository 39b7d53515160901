"""`harbor.using(connection)` on SQLite: jobs in the caller's own transaction, whatever state the connection is in.

What all drivers promise of it is tried by the conformance suite.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from unittest import mock

import pytest

from taskharbor import Harbor, Registry, UsageError, task
from taskharbor.driver import JobEnqueue
from taskharbor.drivers.sqlite import SqliteDriver
from taskharbor.errors import SchemaError, StoreUnavailable, UnusableStoreError
from taskharbor_conformance.bench import new_job
from tests.fixtures.support import untyped
from tests.support.sqlite import ask_file, driver_on, lock_held, put_some, stored
from tests.support.work import ENOUGH, await_event

registry = Registry()


@task(registry=registry)
def ship(order: int) -> int:
    return order


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a file with jobs' tables and one of the application's own."""
    file = tmp_path / "app.db"
    driver_on(file).migrate()
    ask_file(file, "CREATE TABLE orders (id INTEGER PRIMARY KEY)")
    return file


@pytest.fixture
def harbor(path: Path) -> Generator[Harbor]:
    with Harbor(driver_on(path), registry=registry) as current:
        yield current


@pytest.fixture
def connection(path: Path) -> Generator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, timeout=0.05)) as opened:
        yield opened


def orders(path: Path) -> list[object]:
    return [row[0] for row in ask_file(path, "SELECT id FROM orders ORDER BY id")]


def add_order(connection: sqlite3.Connection, number: int = 1) -> None:
    connection.execute("INSERT INTO orders (id) VALUES (?)", (number,))


# --- together or not at all


def test_it_may_be_awaited(harbor: Harbor, path: Path, connection: sqlite3.Connection) -> None:
    async def main() -> None:
        with connection, harbor.using(connection):
            add_order(connection)
            await ship.aenqueue(1)

    asyncio.run(main())

    assert (1, [1]) == (len(stored(path)), orders(path))


def test_savepoints_of_the_caller_are_kept(
    harbor: Harbor, path: Path, connection: sqlite3.Connection
) -> None:
    with connection, harbor.using(connection):
        add_order(connection, 1)
        connection.execute("SAVEPOINT taskharbor")  # of the same name as the driver's own
        kept = ship.enqueue(1)
        connection.execute("SAVEPOINT inner")
        add_order(connection, 2)
        ship.enqueue(2)
        connection.execute("ROLLBACK TO inner")
        add_order(connection, 3)
        connection.execute("RELEASE taskharbor")

    assert ([kept.id], [1, 3]) == (stored(path), orders(path))


def test_an_error_in_the_middle_takes_the_jobs_back_and_leaves_the_rows(
    harbor: Harbor, path: Path, connection: sqlite3.Connection
) -> None:
    ask_file(path, "CREATE TABLE log (x)")
    ask_file(
        path,
        "CREATE TRIGGER second BEFORE INSERT ON taskharbor_job WHEN (SELECT count(*) FROM taskharbor_job) > 0 "
        "BEGIN SELECT raise(ABORT, 'one is enough'); END",
    )

    with connection, harbor.using(connection):
        add_order(connection)
        with pytest.raises(Exception, match="one is enough"):
            harbor.enqueue_many([ship.s(number) for number in range(3)])

    assert ([], [1]) == (stored(path), orders(path))


def test_an_interrupt_in_the_middle_takes_the_jobs_back_and_leaves_the_rows(
    path: Path, connection: sqlite3.Connection
) -> None:
    driver = driver_on(path)
    add_order(connection)
    joined = driver.join(connection)

    with (
        mock.patch("taskharbor.drivers.sqlite.enqueue.duration_micros", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        joined.job_enqueue(JobEnqueue(jobs=[new_job(key="one")]))
    joined.leave()
    connection.commit()

    assert ([], [1]) == (stored(path), orders(path))


def test_no_room_in_the_file_is_told_as_such(
    harbor: Harbor, path: Path, connection: sqlite3.Connection
) -> None:
    connection.execute("PRAGMA max_page_count = 1")

    with harbor.using(connection):
        add_order(connection)
        with pytest.raises(StoreUnavailable, match="there is no room to write to"):
            harbor.enqueue_many([ship.s(number) for number in range(2000)])
    connection.rollback()

    assert ([], []) == (stored(path), orders(path))


# --- the state of the connection


def test_autocommit_without_a_transaction_is_refused_and_how_to_begin_one_told(
    harbor: Harbor, path: Path
) -> None:
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as connection,
        harbor.using(connection),
        pytest.raises(UsageError) as refused,
    ):
        ship.enqueue(1)

    assert (
        "the connection is in autocommit mode and no transaction is open, so there is nothing to join"
        in str(refused.value)
    )
    assert 'begin one first: connection.execute("BEGIN IMMEDIATE")' in str(refused.value)
    assert [] == stored(path)


def test_autocommit_with_a_transaction_begun_by_hand_is_joined(harbor: Harbor, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection, harbor.using(connection):
        connection.execute("BEGIN IMMEDIATE")
        add_order(connection)
        ship.enqueue(1)
        unseen = stored(path)
        connection.execute("COMMIT")

    assert ([], 1) == (unseen, len(stored(path)))


@pytest.mark.parametrize("level", ["DEFERRED", "IMMEDIATE", "EXCLUSIVE"])
def test_every_isolation_level_is_joined(level: str, harbor: Harbor, path: Path) -> None:
    with (
        closing(sqlite3.connect(path, isolation_level=untyped(level))) as connection,
        connection,
        harbor.using(connection),
    ):
        ship.enqueue(1)
        add_order(connection)

    assert (1, [1]) == (len(stored(path)), orders(path))


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sqlite3 has `autocommit` since Python 3.12")
def test_autocommit_false_is_a_transaction_that_is_always_open(harbor: Harbor, path: Path) -> None:
    with closing(untyped(sqlite3).connect(path, autocommit=False)) as connection:
        with harbor.using(connection):
            add_order(connection)
            ship.enqueue(1)
        connection.rollback()
        with harbor.using(connection):
            add_order(connection, 2)
            ship.enqueue(2)
        connection.commit()

    assert (1, [2]) == (len(stored(path)), orders(path))


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sqlite3 has `autocommit` since Python 3.12")
def test_autocommit_true_is_refused(harbor: Harbor, path: Path) -> None:
    with (
        closing(untyped(sqlite3).connect(path, autocommit=True)) as connection,
        harbor.using(connection),
        pytest.raises(UsageError, match="is in autocommit mode"),
    ):
        ship.enqueue(1)


def _as_dict(cursor: sqlite3.Cursor, row: tuple[object, ...]) -> dict[str, object]:
    return {column[0]: cell for column, cell in zip(cursor.description, row, strict=True)}


def _refuse_text(data: bytes) -> str:
    raise AssertionError("this is the caller's own reading of text")


@pytest.mark.parametrize("factory", [sqlite3.Row, _as_dict], ids=["Row", "dict"])
def test_the_callers_row_factory_neither_harms_nor_is_harmed(
    factory: Callable[..., object], harbor: Harbor, path: Path, connection: sqlite3.Connection
) -> None:
    connection.row_factory = factory

    with connection, harbor.using(connection):
        ship.options(key="a").enqueue(1)
        ship.options(key="a").enqueue(1)

    assert factory is connection.row_factory
    assert 1 == len(stored(path))


@pytest.mark.parametrize("factory", [bytes, bytearray, _refuse_text], ids=["bytes", "bytearray", "function"])
def test_the_callers_text_factory_neither_harms_nor_is_harmed(
    factory: Callable[[bytes], object], harbor: Harbor, path: Path, connection: sqlite3.Connection
) -> None:
    connection.text_factory = factory

    with connection, harbor.using(connection):
        ship.options(key="a").enqueue(1)
        ship.options(key="a").enqueue(1)

    assert factory is connection.text_factory
    assert 1 == len(stored(path))


def test_a_connection_in_the_middle_of_reading_is_joined(
    harbor: Harbor, path: Path, connection: sqlite3.Connection
) -> None:
    for number in range(5):
        add_order(connection, number)
    connection.commit()

    with connection, harbor.using(connection):
        for (number,) in connection.execute("SELECT id FROM orders"):
            ship.enqueue(number)

    assert 5 == len(stored(path))


# --- connections that cannot be joined


def refusal(harbor: Harbor, connection: object) -> str:
    """Return why a connection is refused at the beginning of a block."""
    with pytest.raises(UsageError) as refused, harbor.using(connection):
        pass
    return str(refused.value)


@pytest.mark.parametrize("thing", [None, "sqlite:///app.db", object()], ids=["None", "text", "object"])
def test_what_is_no_connection_is_refused(thing: object, harbor: Harbor) -> None:
    assert refusal(harbor, thing).startswith(
        f"harbor.using() on SQLite takes a sqlite3.Connection; got a {type(thing).__qualname__}"
    )


def test_a_cursor_is_refused(harbor: Harbor, connection: sqlite3.Connection) -> None:
    assert "takes a sqlite3.Connection; got a Cursor" in refusal(harbor, connection.cursor())


def test_a_closed_connection_is_refused(harbor: Harbor, connection: sqlite3.Connection) -> None:
    connection.close()

    told = refusal(harbor, connection)

    assert "harbor.using(): the connection cannot be used here: Cannot operate on a closed database." == told


def test_a_connection_of_another_thread_is_refused(harbor: Harbor, connection: sqlite3.Connection) -> None:
    with ThreadPoolExecutor(1) as threads:
        told = threads.submit(refusal, harbor, connection).result()

    assert "harbor.using(): the connection cannot be used here: SQLite objects created in a thread" in told


def test_an_enqueue_of_another_thread_is_refused(
    harbor: Harbor, path: Path, connection: sqlite3.Connection
) -> None:
    async def main() -> None:
        with harbor.using(connection):
            with pytest.raises(UsageError, match="cannot be used here: SQLite objects created in a thread"):
                await asyncio.to_thread(ship.enqueue, 1)
            connection.rollback()

    asyncio.run(main())

    assert [] == stored(path)


def test_a_connection_closed_within_the_block_is_refused(
    harbor: Harbor, connection: sqlite3.Connection
) -> None:
    with harbor.using(connection):
        connection.close()

        with pytest.raises(UsageError, match="cannot be used here: Cannot operate on a closed database"):
            ship.enqueue(1)


def test_a_connection_may_be_closed_before_the_block_ends(
    harbor: Harbor, path: Path, connection: sqlite3.Connection
) -> None:
    with harbor.using(connection):
        ship.enqueue(1)
        connection.commit()
        connection.close()

    assert 1 == len(stored(path))


def test_a_connection_to_another_file_is_refused(harbor: Harbor, path: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        told = refusal(harbor, other)

    assert f"the connection is open on {tmp_path / 'other.db'}, and the harbor's jobs are in {path}" in told
    assert "jobs and rows can share a transaction only in one file" in told


def test_a_database_in_memory_is_refused(harbor: Harbor) -> None:
    with closing(sqlite3.connect(":memory:")) as memory:
        assert "the connection is open on a database in memory" in refusal(harbor, memory)


def test_a_file_that_is_only_attached_is_refused(harbor: Harbor, path: Path) -> None:
    with closing(sqlite3.connect(":memory:")) as memory:
        memory.execute("ATTACH ? AS app", (str(path),))

        assert "the connection is open on a database in memory" in refusal(harbor, memory)


def test_the_same_file_by_another_name_is_joined(harbor: Harbor, path: Path, tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(path)

    with closing(sqlite3.connect(tmp_path / "link.db")) as connection, connection, harbor.using(connection):
        ship.enqueue(1)

    assert 1 == len(stored(path))


def test_a_connection_that_only_reads_is_refused_by_the_enqueue(harbor: Harbor, path: Path) -> None:
    with (
        closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection,
        harbor.using(connection),
        pytest.raises((StoreUnavailable, UnusableStoreError), match="readonly"),
    ):
        ship.enqueue(1)


# --- other writers


def test_a_transaction_that_began_by_reading_and_was_overtaken_is_told_how_to_begin(
    harbor: Harbor, path: Path
) -> None:
    with closing(sqlite3.connect(path, timeout=5, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT * FROM orders").fetchall()
        ask_file(path, "INSERT INTO orders (id) VALUES (7)")

        with harbor.using(connection), pytest.raises(StoreUnavailable) as refused:
            ship.enqueue(1)
        connection.execute("ROLLBACK")
        connection.execute("BEGIN IMMEDIATE")
        with harbor.using(connection):
            ship.enqueue(1)
        connection.execute("COMMIT")

    assert f"the transaction on {path} began by reading, and another has written since" in str(refused.value)
    assert "roll back, and begin with BEGIN IMMEDIATE" in str(refused.value)
    assert 1 == len(stored(path))


def test_a_lock_held_by_another_program_is_told(
    harbor: Harbor, path: Path, connection: sqlite3.Connection
) -> None:
    with (
        lock_held(path),
        harbor.using(connection),
        pytest.raises(StoreUnavailable, match="locked by another program"),
    ):
        ship.enqueue(1)

    assert not connection.in_transaction


# --- the tables


def test_the_tables_are_made_when_the_first_block_begins(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    ask_file(path, "CREATE TABLE orders (id INTEGER PRIMARY KEY)")

    with (
        Harbor(driver_on(path), registry=registry) as harbor,
        closing(sqlite3.connect(path)) as connection,
        connection,
        harbor.using(connection),
    ):
        ship.enqueue(1)

    assert 1 == len(stored(path))


def test_tables_of_a_later_release_are_refused(
    harbor: Harbor, path: Path, connection: sqlite3.Connection
) -> None:
    ask_file(path, "INSERT INTO taskharbor_migration (number, name, run_at) VALUES (99, 'later', 0)")

    with pytest.raises(SchemaError, match="its tables are at version 99"), harbor.using(connection):
        ship.enqueue(1)

    assert [] == stored(path)


def test_a_transaction_that_writes_already_while_there_are_no_tables_is_told_to_migrate_first(
    tmp_path: Path,
) -> None:
    path = tmp_path / "app.db"
    ask_file(path, "PRAGMA journal_mode = WAL")
    ask_file(path, "CREATE TABLE orders (id INTEGER PRIMARY KEY)")
    harbor = Harbor(driver_on(path, busy_timeout=0.05), registry=registry)

    with harbor, closing(sqlite3.connect(path)) as connection, connection:
        add_order(connection)
        with pytest.raises(UsageError) as refused, harbor.using(connection):
            ship.enqueue(1)

    assert f"{path} has no tables for jobs yet, and none can be made while this transaction is open" in str(
        refused.value
    )
    assert "run `taskharbor migrate` once, when you deploy" in str(refused.value)
    assert [1] == orders(path)


# --- wake-ups


def test_an_idle_worker_takes_the_job_without_waiting_for_its_poll(
    path: Path, connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SqliteDriver, "poll_interval", timedelta(hours=1))
    ran = threading.Event()
    own = Registry()

    @task(registry=own)
    def tell() -> None:
        ran.set()

    with Harbor(driver_on(path), registry=own) as harbor, harbor.worker_thread():
        tell.enqueue().result(timeout=ENOUGH)  # the worker is up, and idle from now on
        ran.clear()
        with connection, harbor.using(connection):
            tell.enqueue()
        await_event(ran)


def test_a_commit_within_the_block_rings_at_its_end(path: Path, connection: sqlite3.Connection) -> None:
    driver = driver_on(path)
    woken = threading.Event()
    subscription = driver.watch_queues(["default"], woken.set)
    joined = driver.join(connection)

    # Without the thread that looks for commits: the ring has to come from here.
    with mock.patch("taskharbor.drivers.sqlite.bell._DataVersion.changed", return_value=False):
        joined.job_enqueue(JobEnqueue(jobs=[new_job()]))
        connection.commit()
        woken.clear()
        joined.leave()
        await_event(woken)
    subscription.close()
    driver.close()


def test_a_block_joins_nothing_afterwards(harbor: Harbor, path: Path, connection: sqlite3.Connection) -> None:
    with harbor.using(connection):
        ship.enqueue(1)
    connection.rollback()

    ship.enqueue(2)

    assert 1 == len(stored(path))


def test_what_others_hold_of_the_file_is_unharmed(path: Path, tmp_path: Path) -> None:
    ids = put_some(path, 3)

    with (
        Harbor(driver_on(path), registry=registry) as harbor,
        closing(sqlite3.connect(path)) as connection,
        connection,
        harbor.using(connection),
    ):
        ids.append(ship.enqueue(1).id)

    assert sorted(ids) == stored(path)


def test_threads_that_share_a_connection_take_turns_within_its_transaction(
    harbor: Harbor, path: Path
) -> None:
    """Keys and savepoints are one enqueue's at a time, however many threads enqueue through it."""

    def enqueue_all() -> list[bool]:
        with harbor.using(shared):
            calls = [ship.options(key=f"key-{number}").s(number) for number in range(40)]
            return [harbor.enqueue_many([call])[0].created for call in calls]

    with closing(sqlite3.connect(path, check_same_thread=False)) as shared:
        shared.execute("BEGIN IMMEDIATE")
        with ThreadPoolExecutor(4) as pool:
            told = [future.result() for future in [pool.submit(enqueue_all) for _ in range(4)]]
        shared.commit()

    assert [1] * 40 == [sum(created) for created in zip(*told, strict=True)]
    assert 40 == len(stored(path))


def test_tables_that_cannot_be_made_within_the_callers_transaction_are_asked_for_before(
    tmp_path: Path,
) -> None:
    path = tmp_path / "fresh.db"
    with (
        closing(sqlite3.connect(path)) as connection,
        Harbor(driver_on(path), registry=registry) as harbor,
    ):
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN IMMEDIATE")

        with (
            pytest.raises(UsageError, match=r"no tables for jobs yet.*taskharbor migrate"),
            harbor.using(connection),
        ):
            ship.enqueue(1)
