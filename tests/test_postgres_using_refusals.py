"""`harbor.using(connection)` on PostgreSQL: transactions that are not there, connections that cannot be used."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from importlib import import_module
from unittest import mock

import psycopg
import pytest
import sqlalchemy
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from taskharbor import Harbor, UsageError
from taskharbor.drivers.postgres import PostgresDriver
from taskharbor.drivers.postgres.home import Home, Whereabouts
from taskharbor.drivers.postgres.routine import Query, Routine
from taskharbor.errors import SchemaError, StoreUnavailable
from tests.fixtures.support import untyped
from tests.support.postgres import make_server, new_schema_name
from tests.support.postgres_place import SharedSchema
from tests.support.postgres_using import (
    Awaited,
    Caller,
    OfAsyncpg,
    OfAsyncpgPool,
    OfDjango,
    OfPsycopg,
    OfPsycopgAsync,
    OfPsycopgInAutocommit,
    OfSqlalchemy,
    OfSqlalchemyAsync,
    OfSqlalchemyAsyncOverAsyncpg,
    OfSqlalchemyAsyncSession,
    OfSqlalchemySession,
    by,
    calling,
    django_database,
    jobs,
    note,
    orders,
    registry,
    schema_with_orders,
    sqlalchemy_url,
)

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


# --- without a transaction


@pytest.mark.parametrize(
    ("caller", "begin"),
    [
        (OfPsycopgInAutocommit, "with connection.transaction():"),
        (OfAsyncpg, "async with connection.transaction():"),
        (OfAsyncpgPool, "async with connection.transaction():"),
        (OfDjango, "with transaction.atomic():"),
    ],
    indirect=["caller"],
    ids=lambda value: getattr(value, "name", ""),
)
def test_without_a_transaction_it_is_refused_and_how_to_begin_one_told(
    harbor: Harbor, caller: Caller, begin: str
) -> None:
    with harbor.using(caller.given), pytest.raises(UsageError) as refused:
        caller.enqueue(harbor, note.s(1))

    assert "no transaction is open, so there is nothing to join; begin one first: " + begin in str(
        refused.value
    )
    assert [] == jobs(harbor)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_engine_in_autocommit_mode_is_refused(
    harbor: Harbor, schema: SharedSchema, asynchronous: bool
) -> None:
    async def ask() -> None:
        for driver in ("psycopg", "asyncpg"):
            engine = create_async_engine(
                sqlalchemy_url(schema.conninfo, driver), isolation_level="AUTOCOMMIT"
            )
            async with AsyncSession(engine) as session:
                with (
                    harbor.using(session),
                    pytest.raises(UsageError, match="another isolation level than AUTO"),
                ):
                    await note.aenqueue(1)
            await engine.dispose()

    if asynchronous:
        asyncio.run(ask())
    else:
        engine = sqlalchemy.create_engine(
            sqlalchemy_url(schema.conninfo, "psycopg"), isolation_level="AUTOCOMMIT"
        )
        with (
            engine.connect() as connection,
            harbor.using(connection),
            pytest.raises(UsageError, match="another isolation level than AUTOCOMMIT"),
        ):
            note.enqueue(1)
        engine.dispose()

    assert [] == jobs(harbor)


@EACH_LIBRARY
def test_a_transaction_in_which_a_statement_failed_is_refused_until_it_is_rolled_back(
    harbor: Harbor, schema: SharedSchema, caller: Caller
) -> None:
    with harbor.using(caller.given):
        caller.begin()
        caller.add_row(1)
        caller.savepoint()
        with pytest.raises(Exception, match="division by zero"):
            caller.execute("SELECT 1 / 0")
        with pytest.raises(UsageError, match="a statement failed in this transaction before"):
            caller.enqueue(harbor, note.s(1))
        caller.rollback_to_savepoint()
        caller.enqueue(harbor, note.s(2))
        caller.commit()

    assert ([1], [2]) == (orders(schema), jobs(harbor))


# --- connections that cannot be used


@by(OfPsycopgAsync, OfSqlalchemyAsyncSession, OfAsyncpg)
def test_a_blocking_enqueue_over_a_connection_for_loops_is_refused_and_the_other_form_named(
    harbor: Harbor, caller: Caller
) -> None:
    caller.begin()
    with (
        harbor.using(caller.given),
        pytest.raises(UsageError, match=r"is for event loops.*write `await task\.aenqueue"),
    ):
        note.enqueue(1)
    caller.rollback()


def test_an_awaited_enqueue_over_a_blocking_connection_works(harbor: Harbor, schema: SharedSchema) -> None:
    async def main() -> None:
        with psycopg.connect(schema.conninfo) as connection, harbor.using(connection):
            await note.aenqueue(1)

    asyncio.run(main())

    assert [1] == jobs(harbor)


@by(OfPsycopg, OfSqlalchemyAsync, OfAsyncpg)
def test_a_connection_to_another_database_is_refused_and_both_are_named(
    harbor: Harbor, schema: SharedSchema, caller: Caller
) -> None:
    found = Whereabouts("elsewhere", "1", "10.0.0.1:5432", has_tables=True)
    with mock.patch("taskharbor.drivers.postgres.joining.joined.whereabouts", return_value=_answer(found)):
        caller.begin()
        with harbor.using(caller.given), pytest.raises(UsageError) as refused:
            caller.enqueue(harbor, note.s(1))
        caller.rollback()

    database = conninfo_to_dict(schema.conninfo)["dbname"]
    assert (
        "the connection leads to the database 'elsewhere' on 10.0.0.1:5432, and the harbor's jobs are in"
        in str(refused.value)
    )
    assert f"the database {database!r} on " in str(refused.value)


def _answer(found: Whereabouts) -> Routine[Whereabouts]:
    yield Query("SELECT 1")
    return found


def test_another_database_of_the_same_server_is_told_apart(harbor: Harbor, schema: SharedSchema) -> None:
    with (
        psycopg.connect(schema.conninfo, dbname="template1") as connection,
        harbor.using(connection),
        pytest.raises(UsageError, match="leads to the database 'template1'"),
    ):
        note.enqueue(1)


@pytest.mark.slow
def test_another_server_is_told_apart_and_the_same_one_known_after_a_restart() -> None:
    with make_server() as mine, make_server() as other:
        driver = PostgresDriver(f"{mine.start()}&schema={new_schema_name()}")
        driver.migrate()
        with Harbor(driver, registry=registry) as harbor:
            for _ in range(2):
                with psycopg.connect(mine.start()) as connection, harbor.using(connection):
                    note.enqueue(1)
                with (
                    psycopg.connect(other.start()) as connection,
                    harbor.using(connection),
                    pytest.raises(UsageError, match="on another server; jobs and rows can share"),
                ):
                    note.enqueue(2)
                mine.restart()
            assert [1, 1] == jobs(harbor)


def test_where_the_harbor_is_is_looked_up_anew_after_a_restart(schema: SharedSchema) -> None:
    home = Home(schema.place)
    with psycopg.connect(schema.conninfo) as connection:
        here = home_of(schema)
        with mock.patch.object(Home, "_look", side_effect=[here._replace(started="1"), here]) as look:
            with pytest.raises(UsageError, match="on another server"):
                home.receive(connection, here)
            home.receive(connection, here)

        assert (2, True) == (look.call_count, home.knows(connection))


def home_of(schema: SharedSchema) -> Whereabouts:
    found: Whereabouts = untyped(Home(schema.place))._look()
    return found


def test_a_place_without_tables_is_told_before_anything_is_asked(schema: SharedSchema) -> None:
    driver = PostgresDriver(f"{schema.conninfo}&schema={new_schema_name()}")
    with (
        Harbor(driver, registry=registry) as harbor,
        psycopg.connect(schema.conninfo) as connection,
        pytest.raises(SchemaError, match="run `taskharbor migrate`"),
        harbor.using(connection),
    ):
        pytest.fail("the block was entered")


def test_tables_that_have_gone_are_told_and_leave_the_transaction_as_it_was(schema: SharedSchema) -> None:
    gone = new_schema_name()
    driver = PostgresDriver(f"{schema.conninfo}&schema={gone}")
    driver.migrate()
    with (
        Harbor(driver, registry=registry) as harbor,
        psycopg.connect(schema.conninfo) as connection,
        harbor.using(connection),
    ):
        schema.ask(f"DROP SCHEMA {gone} CASCADE")
        connection.execute("SELECT 1")
        with pytest.raises(SchemaError, match=r"has no tables of TaskHarbor's in the schema .* any more"):
            note.enqueue(1)
        connection.execute("SELECT 1")


def refusal(harbor: Harbor, thing: object) -> str:
    """Return why something is refused at the beginning of a block."""
    with pytest.raises(UsageError) as refused, harbor.using(thing):
        pytest.fail("the block was entered")
    return str(refused.value)


@pytest.mark.parametrize(
    ("thing", "name"),
    [
        pytest.param(thing, type(thing).__name__, id=type(thing).__name__)
        for thing in (None, "postgresql:///", object())
    ],
)
def test_what_is_no_connection_is_refused(harbor: Harbor, thing: object, name: str) -> None:
    told = refusal(harbor, thing)

    assert told.startswith("harbor.using() on PostgreSQL takes a connection of psycopg 3 or asyncpg")
    assert told.endswith(f"got a {name}")


def test_what_only_leads_to_connections_is_refused(harbor: Harbor, schema: SharedSchema) -> None:
    engine = sqlalchemy.create_engine(sqlalchemy_url(schema.conninfo, "psycopg"))
    with psycopg.connect(schema.conninfo) as connection:
        assert refusal(harbor, engine).endswith("got a sqlalchemy.engine.base.Engine")
        assert refusal(harbor, connection.cursor()).endswith("got a psycopg.Cursor")


def test_connections_to_other_engines_are_refused(harbor: Harbor, schema: SharedSchema) -> None:
    database = django_database(schema.conninfo)
    engine = sqlalchemy.create_engine("sqlite://")
    with closing(sqlite3.connect(":memory:")) as sqlite:
        assert refusal(harbor, sqlite).endswith("got a sqlite3.Connection")
    with (
        engine.connect() as connection,
        harbor.using(connection),
        pytest.raises(
            UsageError, match="SQLAlchemy's connection leads to sqlite, and the harbor's jobs are in"
        ),
    ):
        note.enqueue(1)
    assert "Django's connection leads to sqlite" in refusal(harbor, database.connections["other"])
    engine.dispose()


def test_psycopg2_is_refused_and_what_to_use_told(harbor: Harbor, schema: SharedSchema) -> None:
    theirs = type("connection", (), {"__module__": "psycopg2.extensions"})()
    assert "a connection of psycopg2, and TaskHarbor speaks through psycopg 3" in refusal(harbor, theirs)

    database = django_database(schema.conninfo)
    with (
        mock.patch.object(database.connections["default"], "connection", theirs),
        mock.patch.object(database.connections["default"], "ensure_connection"),
        harbor.using(database.connection),
        pytest.raises(
            UsageError, match="Django connects by psycopg2, and TaskHarbor speaks through psycopg 3"
        ),
    ):
        note.enqueue(1)

    engine = sqlalchemy.create_engine(sqlalchemy_url(schema.conninfo, "psycopg"))
    with (
        engine.connect() as connection,
        mock.patch("taskharbor.drivers.postgres.joining.of_sqlalchemy.is_blocking", return_value=False),
        harbor.using(connection),
        pytest.raises(UsageError, match=r"make the engine with postgresql\+psycopg://"),
    ):
        note.enqueue(1)
    engine.dispose()


@by(OfPsycopg, OfPsycopgAsync, OfSqlalchemy, OfSqlalchemyAsync, OfAsyncpg)
def test_a_closed_connection_is_refused(harbor: Harbor, caller: Caller) -> None:
    given = untyped(caller).connection
    if isinstance(caller, Awaited):
        caller.run(given.close())
    else:
        given.close()

    with harbor.using(given), pytest.raises(UsageError, match=r"cannot be used here: .*(is )?closed"):
        caller.enqueue(harbor, note.s(1))


def test_a_connection_given_back_to_its_pool_is_refused(harbor: Harbor, schema: SharedSchema) -> None:
    async def main() -> None:
        pool = await untyped(import_module("asyncpg")).create_pool(schema.conninfo, min_size=1)
        connection = await pool.acquire()
        await pool.release(connection)
        with harbor.using(connection), pytest.raises(UsageError, match="released back to the pool"):
            await note.aenqueue(1)
        await pool.close()

    asyncio.run(main())


def test_pipeline_mode_is_refused(harbor: Harbor, schema: SharedSchema) -> None:
    with psycopg.connect(schema.conninfo) as connection, harbor.using(connection):
        with connection.pipeline(), pytest.raises(UsageError, match="it is in pipeline mode; enqueue before"):
            note.enqueue(1)
        note.enqueue(2)

    assert [2] == jobs(harbor)


def test_a_connection_of_djangos_belongs_to_its_thread(harbor: Harbor, schema: SharedSchema) -> None:
    with calling(OfDjango, schema) as caller, harbor.using(caller.given):
        caller.begin()

        async def enqueue_in_a_thread() -> None:
            await asyncio.to_thread(note.enqueue, 1)

        with pytest.raises(UsageError, match="created in a thread can only be used in that same thread"):
            asyncio.run(enqueue_in_a_thread())
        caller.rollback()

    assert [] == jobs(harbor)


@by(OfPsycopg, OfPsycopgAsync, OfSqlalchemyAsyncOverAsyncpg, OfDjango, OfAsyncpg)
def test_a_connection_that_was_lost_is_told_as_such(
    harbor: Harbor, schema: SharedSchema, caller: Caller
) -> None:
    with harbor.using(caller.given):
        caller.begin()
        caller.add_row(1)
        schema.ask(
            "SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity WHERE state = 'idle in transaction'"
        )
        with pytest.raises(StoreUnavailable, match="was lost, and its transaction with it"):
            caller.enqueue(harbor, note.s(1))
        with pytest.raises((StoreUnavailable, UsageError), match=r"was lost|closed|reconnect"):
            caller.enqueue(harbor, note.s(1))
        with pytest.raises(Exception):  # noqa: B017, PT011 - each library's own
            caller.execute("SELECT 1")
        if isinstance(caller, OfDjango):  # its one connection is for the next test, too
            caller.rollback()

    assert ([], []) == (orders(schema), jobs(harbor))
