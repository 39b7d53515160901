"""`harbor.using(connection)` on PostgreSQL: statements that fail, settings of the caller's, several at once."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from unittest import mock

import psycopg
import pytest
import sqlalchemy
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.string import StrDumper, TextLoader
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from taskharbor import Harbor, Registry, UsageError, task
from taskharbor.drivers.postgres import PostgresDriver, batches
from taskharbor.drivers.postgres.joining.line import AwaitedPsycopgLine, PsycopgLine
from taskharbor.drivers.postgres.joining.of_asyncpg import AsyncpgLine
from taskharbor.drivers.postgres.routine import Query
from taskharbor.errors import StoreError, StoreUnavailable, UnusableStoreError
from tests.fixtures.support import untyped
from tests.support.postgres import new_schema_name
from tests.support.postgres_place import SharedSchema
from tests.support.postgres_using import (
    Awaited,
    Caller,
    OfAsyncpg,
    OfDjango,
    OfPsycopg,
    OfPsycopgAsync,
    OfSqlalchemyAsyncOverAsyncpg,
    OfSqlalchemyAsyncSession,
    OfSqlalchemyAsyncSessionOverAsyncpg,
    OfSqlalchemySession,
    by,
    calling,
    jobs,
    note,
    orders,
    registry,
    schema_with_orders,
    sqlalchemy_url,
)
from tests.support.work import ENOUGH, aeventually, await_event, within

EACH_DRIVER = by(OfPsycopg, OfPsycopgAsync, OfAsyncpg)
EACH_LIBRARY = by(
    OfPsycopg, OfPsycopgAsync, OfSqlalchemySession, OfSqlalchemyAsyncOverAsyncpg, OfDjango, OfAsyncpg
)


@pytest.fixture
def schema() -> SharedSchema:
    return schema_with_orders()


@pytest.fixture
def harbor(schema: SharedSchema) -> Iterator[Harbor]:
    with Harbor(PostgresDriver(schema.place), registry=registry) as current:
        yield current


@pytest.fixture
def caller(request: pytest.FixtureRequest, schema: SharedSchema) -> Iterator[Caller]:
    with calling(request.param, schema) as made:
        yield made


# --- statements that fail


@EACH_LIBRARY
def test_what_asks_to_do_it_all_again_reaches_the_caller_as_his_library_tells_it(
    harbor: Harbor, schema: SharedSchema, caller: Caller
) -> None:
    kinds: dict[type[Caller], type[Exception]] = {
        OfPsycopg: psycopg.errors.SerializationFailure,
        OfPsycopgAsync: psycopg.errors.SerializationFailure,
        OfSqlalchemySession: OperationalError,
        OfSqlalchemyAsyncOverAsyncpg: DBAPIError,
        OfDjango: untyped(import_module("django.db")).OperationalError,
        OfAsyncpg: untyped(import_module("asyncpg")).SerializationError,
    }
    caller.begin()
    caller.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    caller.execute(f'SELECT * FROM "{schema.name}".orders')
    first = note.options(key="k").enqueue(1)

    with harbor.using(caller.given), pytest.raises(kinds[type(caller)]) as failed:
        caller.enqueue(harbor, note.options(key="k").s(1))
    caller.rollback()

    assert "could not serialize access" in str(failed.value)
    assert ["harbor.using(): the enqueue is part of this transaction; roll it back, and do it all again"] == (
        failed.value.__notes__
    )
    with harbor.using(caller.given):
        caller.begin()
        (again,) = caller.enqueue(harbor, note.options(key="k").s(1))
        caller.commit()
    assert (first.id, False) == (again.id, again.created)


@EACH_DRIVER
def test_a_read_only_transaction_is_told_as_such(harbor: Harbor, caller: Caller) -> None:
    caller.begin()
    caller.execute("SET TRANSACTION READ ONLY")
    with (
        harbor.using(caller.given),
        pytest.raises(StoreUnavailable, match=r"is read-only, .* it was begun so, or"),
    ):
        caller.enqueue(harbor, note.s(1))
    caller.rollback()


@EACH_DRIVER
def test_a_statement_that_fails_aborts_the_transaction_and_the_error_says_so(
    harbor: Harbor, schema: SharedSchema, caller: Caller
) -> None:
    with psycopg.connect(schema.conninfo) as other:
        with harbor.using(other):
            note.options(key="k").enqueue(1)
        caller.begin()
        caller.add_row(1)
        caller.execute("SET LOCAL lock_timeout = '1ms'")  # the key is another's, who has not committed yet
        with harbor.using(caller.given), pytest.raises(StoreUnavailable) as failed:
            caller.enqueue(harbor, note.options(key="k").s(1))
        with (
            harbor.using(caller.given),
            pytest.raises(UsageError, match="a statement failed in this transaction"),
        ):
            caller.enqueue(harbor, note.s(2))
        caller.rollback()

    assert "lock timeout" in str(failed.value)
    assert str(failed.value).endswith("the transaction takes nothing more now: roll it back")
    assert isinstance(failed.value.__cause__, psycopg.errors.LockNotAvailable)
    assert ([], [1]) == (orders(schema), jobs(harbor))


def test_a_role_that_may_not_is_told_what_it_lacks(harbor: Harbor, schema: SharedSchema) -> None:
    role = new_schema_name()
    schema.ask(f"CREATE ROLE {role}")
    try:
        with psycopg.connect(schema.conninfo) as connection, harbor.using(connection):
            connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
            with pytest.raises(UnusableStoreError, match=r"permission denied.*grant the role its rights"):
                note.enqueue(1)
            connection.rollback()
    finally:
        schema.ask(f"DROP ROLE {role}")


@EACH_DRIVER
def test_an_error_in_the_middle_of_a_large_batch_takes_it_back_and_leaves_the_rows(
    harbor: Harbor, schema: SharedSchema, caller: Caller
) -> None:
    schema.ask("ALTER TABLE job ADD CONSTRAINT few CHECK (payload <> '[3]' AND payload <> '{\"number\":3}')")
    try:
        with mock.patch.object(batches, "ROWS", 2), harbor.using(caller.given):
            caller.begin()
            caller.add_row(1)
            caller.enqueue(harbor, note.s(7))
            with pytest.raises(StoreError, match="few") as failed:
                caller.enqueue(harbor, *(note.s(number) for number in range(5)))
            caller.enqueue(harbor, note.s(8))
            caller.commit()
    finally:
        schema.ask("ALTER TABLE job DROP CONSTRAINT few")

    assert "roll it back" not in str(failed.value)
    assert ([1], [7, 8]) == (orders(schema), jobs(harbor))


@pytest.mark.parametrize(
    ("caller", "line", "interrupt"),
    [
        (OfPsycopg, PsycopgLine, KeyboardInterrupt),
        (OfPsycopgAsync, AwaitedPsycopgLine, asyncio.CancelledError),
        (OfAsyncpg, AsyncpgLine, asyncio.CancelledError),
    ],
    indirect=["caller"],
    ids=["psycopg", "psycopg-async", "asyncpg"],
)
def test_an_interrupt_in_the_middle_of_a_large_batch_takes_it_back_and_leaves_the_rows(
    harbor: Harbor,
    schema: SharedSchema,
    caller: Caller,
    line: type,
    interrupt: type[BaseException],
) -> None:
    inserts = 0
    execute = untyped(line).execute

    def noting(self: object, query: Query) -> object:
        nonlocal inserts
        inserts += "INSERT INTO" in query.sql
        if inserts == 2 and "INSERT INTO" in query.sql:
            raise interrupt
        return execute(self, query)

    caller.begin()
    caller.add_row(1)
    with (
        mock.patch.object(batches, "ROWS", 2),
        mock.patch.object(line, "execute", noting),
        harbor.using(caller.given),
        pytest.raises(interrupt),
    ):
        caller.enqueue(harbor, *(note.s(number) for number in range(5)))
    caller.commit()

    assert (2, [1], []) == (inserts, orders(schema), jobs(harbor))


@by(OfPsycopgAsync, OfSqlalchemyAsyncSession, OfAsyncpg)
def test_a_batch_that_is_cancelled_while_it_waits_is_taken_back_and_leaves_the_rows(
    harbor: Harbor, schema: SharedSchema, caller: Awaited
) -> None:
    async def give_up() -> None:
        waiting = asyncio.create_task(harbor.aenqueue_many([note.s(1), note.options(key="k").s(2)]))
        await aeventually(
            lambda: 1 == len(schema.ask("SELECT pid FROM pg_locks WHERE NOT granted")), "it waits"
        )
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    with psycopg.connect(schema.conninfo) as other, harbor.using(other):
        note.options(key="k").enqueue(1)
        caller.begin()
        caller.add_row(1)
        with harbor.using(caller.given):
            caller.run(give_up())
            caller.enqueue(harbor, note.s(3))
        caller.commit()
        other.rollback()

    assert ([1], [3]) == (orders(schema), jobs(harbor))


# --- whatever the caller has set


class _Loud(TextLoader):
    def load(self, data: object) -> str:
        raise AssertionError("this is the caller's own reading of text")


class _Wrong(StrDumper):
    def dump(self, obj: str) -> bytes:
        raise AssertionError("this is the caller's own writing of text")


@pytest.mark.parametrize("blocking", [True, False])
def test_how_the_caller_reads_and_writes_changes_nothing(
    harbor: Harbor, schema: SharedSchema, blocking: bool
) -> None:
    with calling(OfPsycopg if blocking else OfPsycopgAsync, schema) as caller:
        connection = untyped(caller).connection
        connection.adapters.register_loader("text", _Loud)
        connection.adapters.register_dumper(str, _Wrong)
        connection.row_factory = dict_row
        connection.cursor_factory = psycopg.ClientCursor if blocking else psycopg.AsyncClientCursor
        caller.execute("SET client_encoding = 'SQL_ASCII'")
        caller.execute("SET TimeZone = 'Asia/Kathmandu'")
        caller.execute("SET DateStyle = 'German, DMY'")
        caller.execute("SET search_path = pg_temp")
        caller.execute("SET standard_conforming_strings = off")

        with harbor.using(caller.given):
            (first,) = caller.enqueue(harbor, note.options(key="ключ", run_in=ENOUGH).s(1))
            (again,) = caller.enqueue(harbor, note.options(key="ключ", run_in=ENOUGH).s(1))
            caller.commit()

    assert (first.id, False) == (again.id, again.created)
    assert "ключ" == harbor.look(first.id).key


def test_what_is_prepared_is_the_callers_choice(harbor: Harbor, schema: SharedSchema) -> None:
    prepared: list[int] = []
    for threshold in (None, 0):
        with psycopg.connect(schema.conninfo, prepare_threshold=threshold) as connection:
            with harbor.using(connection):
                note.enqueue(1)
                note.enqueue(2)
            prepared.append(len(connection.execute("SELECT * FROM pg_prepared_statements").fetchall()))

    assert 0 == prepared[0] < prepared[1]


# --- several at once


def test_threads_that_share_a_connection_take_turns_within_its_transaction(
    harbor: Harbor, schema: SharedSchema
) -> None:
    def enqueue_all() -> list[bool]:
        with harbor.using(shared):
            calls = [note.options(key=f"key-{number}").s(number) for number in range(20)]
            created = [harbor.enqueue_many([call])[0].created for call in calls]
            harbor.enqueue_many(calls)  # several statements, with a savepoint
            return created

    with (
        psycopg.connect(schema.conninfo, autocommit=True) as shared,
        shared.transaction(),
        ThreadPoolExecutor(4) as pool,
    ):
        told = [future.result() for future in [pool.submit(enqueue_all) for _ in range(4)]]

    assert [1] * 20 == [sum(created) for created in zip(*told, strict=True)]
    assert 20 == len(jobs(harbor))


@by(OfPsycopgAsync, OfSqlalchemyAsyncSession, OfSqlalchemyAsyncSessionOverAsyncpg, OfAsyncpg)
def test_tasks_that_share_a_connection_take_turns(harbor: Harbor, caller: Awaited) -> None:
    async def enqueue_all() -> None:
        await asyncio.gather(*(note.aenqueue(number) for number in range(10)))

    caller.begin()
    with harbor, harbor.using(caller.given):
        caller.run(enqueue_all())
    caller.commit()

    assert list(range(10)) == sorted(untyped(jobs(harbor)))


def test_a_statement_under_way_hides_no_transaction(harbor: Harbor, schema: SharedSchema) -> None:
    """In autocommit mode, while another task waits for an answer, libpq does not say whether there is one."""

    async def main() -> None:
        async with (
            await psycopg.AsyncConnection.connect(schema.conninfo, autocommit=True) as connection,
            connection.transaction(),
        ):
            with harbor.using(connection):
                await asyncio.gather(connection.execute("SELECT pg_sleep(0.02)"), note.aenqueue(1))
        with harbor.using(
            connection := await psycopg.AsyncConnection.connect(schema.conninfo, autocommit=True)
        ):
            slow = asyncio.create_task(connection.execute("SELECT pg_sleep(0.02)"))
            await asyncio.sleep(0)
            with pytest.raises(UsageError, match="no transaction is open"):
                await note.aenqueue(2)
            await slow
        await connection.close()

    asyncio.run(within(main()))

    assert [1] == jobs(harbor)


def test_asyncpg_says_when_another_statement_is_under_way(harbor: Harbor, schema: SharedSchema) -> None:
    async def main() -> None:
        connection = await untyped(import_module("asyncpg")).connect(schema.conninfo)
        async with connection.transaction():
            with harbor.using(connection):
                slow = asyncio.create_task(connection.execute("SELECT pg_sleep(0.05)"))
                await asyncio.sleep(0)
                with pytest.raises(UsageError, match="another statement is under way on this connection"):
                    await note.aenqueue(1)
                await slow
                await note.aenqueue(2)
        await connection.close()

    asyncio.run(within(main()))

    assert [2] == jobs(harbor)


def test_a_key_met_in_an_open_transaction_keeps_no_worker_from_settling(
    harbor: Harbor, schema: SharedSchema
) -> None:
    first = note.options(key="k").enqueue(1)
    with psycopg.connect(schema.conninfo) as connection, harbor.using(connection):
        again = note.options(key="k").enqueue(1)
        with ThreadPoolExecutor(1) as pool:
            settled = pool.submit(harbor.run_until_idle).result(ENOUGH.total_seconds()).settled

    assert (first.id, {"succeeded": 1}) == (again.id, settled)


@pytest.mark.parametrize("keyed", [False, True], ids=["plain", "keyed"])
def test_serializable_transactions_that_enqueue_side_by_side_do_not_end_each_other(
    harbor: Harbor, schema: SharedSchema, keyed: bool
) -> None:
    note.options(key="one").enqueue(0)
    with psycopg.connect(schema.conninfo, autocommit=True) as looker:
        looker.execute("ANALYZE")  # of so small tables the server would rather read all than seek
    with psycopg.connect(schema.conninfo) as first, psycopg.connect(schema.conninfo) as second:
        for connection in (first, second):
            connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        for number in range(12):  # so often that they come to be prepared statements with a general plan
            for connection in (first, second):
                with harbor.using(connection):
                    (note.options(key=f"{number} of {connection is first}") if keyed else note).enqueue(
                        number
                    )
        first.commit()
        second.commit()

    assert 1 + 24 == len(jobs(harbor))


# --- sessions of this thread, subclasses, and workers


def test_scoped_sessions_are_joined(harbor: Harbor, schema: SharedSchema) -> None:
    engine = sqlalchemy.create_engine(sqlalchemy_url(schema.conninfo, "psycopg"))
    sessions = scoped_session(sessionmaker(engine))
    with harbor.using(sessions):
        note.enqueue(1)
    sessions.commit()
    sessions.remove()
    engine.dispose()

    async def main() -> None:
        engine = create_async_engine(sqlalchemy_url(schema.conninfo, "asyncpg"))
        sessions = async_scoped_session(async_sessionmaker(engine), scopefunc=asyncio.current_task)
        with harbor.using(sessions):
            await note.aenqueue(2)
        await sessions.commit()
        await sessions.remove()
        await engine.dispose()

    asyncio.run(main())

    assert [1, 2] == jobs(harbor)


def test_a_session_that_cannot_tell_its_engine_is_refused_with_its_words(harbor: Harbor) -> None:
    with (
        Session() as session,
        harbor.using(session),
        pytest.raises(UsageError, match="SQLAlchemy says: "),
    ):
        note.enqueue(1)


def test_a_block_before_the_transaction_does_not_begin_one(harbor: Harbor, schema: SharedSchema) -> None:
    with psycopg.connect(schema.conninfo) as connection:
        with harbor.using(connection), connection.transaction():
            note.enqueue(1)

        assert [1] == jobs(harbor)


def test_an_idle_worker_takes_the_job_without_waiting_for_its_poll(
    schema: SharedSchema, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PostgresDriver, "poll_interval", ENOUGH * 1000)
    ran = threading.Event()
    own = Registry()

    @task(registry=own)
    def tell() -> None:
        ran.set()

    with Harbor(PostgresDriver(schema.place), registry=own) as harbor, harbor.worker_thread():
        tell.enqueue().result(timeout=ENOUGH)  # the worker is up, and idle from now on
        ran.clear()
        with psycopg.connect(schema.conninfo) as connection, harbor.using(connection):
            tell.enqueue()
        await_event(ran)


def test_nothing_is_imported_that_the_caller_has_not_imported(schema: SharedSchema) -> None:
    program = f"""
import sys, psycopg
from taskharbor import Harbor, task
from taskharbor.drivers.postgres import Place, PostgresDriver
@task
def note() -> None: ...
driver = PostgresDriver(Place(conninfo={schema.conninfo!r}, schema={schema.name!r}))
with Harbor(driver) as harbor, psycopg.connect({schema.conninfo!r}) as db, harbor.using(db):
    note.enqueue()
print(sorted({{"sqlalchemy", "django", "asyncpg"}} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, encoding="utf-8", timeout=60
    )

    assert "[]" == done.stdout.strip()
