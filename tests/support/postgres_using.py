"""Callers of every kind whose transaction a harbor can join, with one face: blocking, whatever they are of.

What they do is their library's own: its ways to begin, to commit and to roll back.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest
import sqlalchemy
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from taskharbor import Harbor, JobHandle, Registry, Signature, task
from taskharbor.drivers.postgres import PostgresDriver
from taskharbor_conformance import DriverFactory, OpenDriver, PlaceWithCallers
from tests.fixtures.support import untyped
from tests.support.postgres_place import SharedSchema, shared_schema

T = TypeVar("T")

registry = Registry()


@task(registry=registry)
def note(number: int) -> int:
    return number


class Caller(ABC):
    """An application's connection."""

    name: str
    blocking = True
    schema: SharedSchema
    """Where its table of orders is."""
    given: object
    """What goes into `harbor.using`."""

    @abstractmethod
    def execute(self, sql: str) -> None:
        """Send a statement."""

    def begin(self) -> None:
        """Begin a transaction, where the library does not do that by itself."""
        return

    @abstractmethod
    def commit(self) -> None: ...

    @abstractmethod
    def rollback(self) -> None: ...

    @abstractmethod
    def close(self) -> None: ...

    def enqueue(self, harbor: Harbor, *calls: Signature[T]) -> list[JobHandle[T]]:
        """Enqueue in the form that the connection is for."""
        return harbor.enqueue_many(calls)

    def add_row(self, number: int) -> None:
        """Write an order, a row of the application's own."""
        self.execute(f'INSERT INTO "{self.schema.name}".orders VALUES ({number})')

    def rows(self) -> list[int]:
        """Return the orders that others see."""
        return orders(self.schema)

    def savepoint(self) -> None:
        self.execute("SAVEPOINT theirs")

    def rollback_to_savepoint(self) -> None:
        self.execute("ROLLBACK TO SAVEPOINT theirs")


class Awaited(Caller):
    """One for event loops, with a loop of its own. What it runs sees the context of whoever runs it."""

    blocking = False

    def __init__(self) -> None:
        self._runner = asyncio.Runner()

    def run(self, work: Awaitable[T]) -> T:
        async def main() -> T:
            return await work

        return self._runner.run(main(), context=contextvars.copy_context())

    def enqueue(self, harbor: Harbor, *calls: Signature[T]) -> list[JobHandle[T]]:
        return self.run(harbor.aenqueue_many(calls))

    @abstractmethod
    def end(self) -> Coroutine[Any, Any, None]:
        """Close the connection."""

    def close(self) -> None:
        self.run(self.end())
        self._runner.close()


class OfPsycopg(Caller):
    name = "psycopg"

    def __init__(self, conninfo: str) -> None:
        self.given = self.connection = psycopg.connect(conninfo)

    def execute(self, sql: str) -> None:
        self.connection.execute(sql.encode())

    def commit(self) -> None:
        self.connection.commit()

    def rollback(self) -> None:
        self.connection.rollback()

    def close(self) -> None:
        self.connection.close()


class OfPsycopgInAutocommit(OfPsycopg):
    name = "psycopg-autocommit"

    def __init__(self, conninfo: str) -> None:
        super().__init__(conninfo)
        self.connection.autocommit = True

    def begin(self) -> None:
        self.execute("BEGIN")


class OfPsycopgAsync(Awaited):
    name = "psycopg-async"

    def __init__(self, conninfo: str) -> None:
        super().__init__()
        self.given = self.connection = self.run(psycopg.AsyncConnection.connect(conninfo))

    def execute(self, sql: str) -> None:
        self.run(self.connection.execute(sql.encode()))

    def commit(self) -> None:
        self.run(self.connection.commit())

    def rollback(self) -> None:
        self.run(self.connection.rollback())

    async def end(self) -> None:
        await self.connection.close()


class OfSqlalchemy(Caller):
    name = "sqlalchemy"

    def __init__(self, conninfo: str) -> None:
        self.engine = sqlalchemy.create_engine(sqlalchemy_url(conninfo, "psycopg"))
        self.given = self.connection = self.make()

    def make(self) -> sqlalchemy.Connection | Session:
        return self.engine.connect()

    def execute(self, sql: str) -> None:
        self.connection.execute(sqlalchemy.text(sql))

    def commit(self) -> None:
        self.connection.commit()

    def rollback(self) -> None:
        self.connection.rollback()

    def close(self) -> None:
        self.connection.close()
        self.engine.dispose()


class OfSqlalchemySession(OfSqlalchemy):
    name = "sqlalchemy-session"

    def make(self) -> Session:
        return Session(self.engine)


class OfSqlalchemyAsync(Awaited):
    name = "sqlalchemy-async"
    driver = "psycopg"

    def __init__(self, conninfo: str) -> None:
        super().__init__()
        self.engine = create_async_engine(sqlalchemy_url(conninfo, self.driver))
        self.connection = self.engine.connect()
        self.given = self.run(self.connection.start())

    def execute(self, sql: str) -> None:
        self.run(self.connection.execute(sqlalchemy.text(sql)))

    def commit(self) -> None:
        self.run(self.connection.commit())

    def rollback(self) -> None:
        self.run(self.connection.rollback())

    async def end(self) -> None:
        await self.connection.close()
        await self.engine.dispose()


class OfSqlalchemyAsyncOverAsyncpg(OfSqlalchemyAsync):
    name = "sqlalchemy-asyncpg"
    driver = "asyncpg"


class OfSqlalchemyAsyncSession(Awaited):
    name = "sqlalchemy-async-session"
    driver = "psycopg"

    def __init__(self, conninfo: str) -> None:
        super().__init__()
        self.engine = create_async_engine(sqlalchemy_url(conninfo, self.driver))
        self.given = self.session = AsyncSession(self.engine)

    def execute(self, sql: str) -> None:
        self.run(self.session.execute(sqlalchemy.text(sql)))

    def commit(self) -> None:
        self.run(self.session.commit())

    def rollback(self) -> None:
        self.run(self.session.rollback())

    async def end(self) -> None:
        await self.session.close()
        await self.engine.dispose()


class OfSqlalchemyAsyncSessionOverAsyncpg(OfSqlalchemyAsyncSession):
    name = "sqlalchemy-asyncpg-session"
    driver = "asyncpg"


class OfAsyncpg(Awaited):
    name = "asyncpg"

    def __init__(self, conninfo: str) -> None:
        super().__init__()
        self.given = self.connection = self.run(untyped(import_module("asyncpg")).connect(conninfo))

    def execute(self, sql: str) -> None:
        self.run(self.connection.execute(sql))

    def begin(self) -> None:
        self._transaction = self.connection.transaction()
        self.run(self._transaction.start())

    def commit(self) -> None:
        self.run(self._transaction.commit())

    def rollback(self) -> None:
        self.run(self._transaction.rollback())

    async def end(self) -> None:
        await self.connection.close()


class OfAsyncpgPool(OfAsyncpg):
    name = "asyncpg-pool"

    def __init__(self, conninfo: str) -> None:
        Awaited.__init__(self)
        self.given = self.connection = self.run(self._acquire(conninfo))

    async def _acquire(self, conninfo: str) -> Any:
        self._pool = await untyped(import_module("asyncpg")).create_pool(conninfo, min_size=1)
        return await self._pool.acquire()

    async def end(self) -> None:
        await self._pool.release(self.connection)
        await self._pool.close()


class OfDjango(Caller):
    name = "django"

    def __init__(self, conninfo: str) -> None:
        self._django = django_database(conninfo)
        self.given = self._django.connection

    def execute(self, sql: str) -> None:
        with self._django.connection.cursor() as cursor:
            cursor.execute(sql)

    def begin(self) -> None:
        self._block = self._django.transaction.atomic()
        self._block.__enter__()

    def commit(self) -> None:
        self._block.__exit__(None, None, None)

    def rollback(self) -> None:
        self._django.transaction.set_rollback(True)
        self._block.__exit__(None, None, None)

    def close(self) -> None:
        if (
            self._django.connection.in_atomic_block
        ):  # after a failure; the connection is for the next test, too
            self.rollback()
        self._django.connection.close()


KINDS: list[type[Caller]] = [
    OfPsycopg,
    OfPsycopgInAutocommit,
    OfPsycopgAsync,
    OfSqlalchemy,
    OfSqlalchemySession,
    OfSqlalchemyAsync,
    OfSqlalchemyAsyncOverAsyncpg,
    OfSqlalchemyAsyncSession,
    OfSqlalchemyAsyncSessionOverAsyncpg,
    OfDjango,
    OfAsyncpg,
    OfAsyncpgPool,
]


@contextmanager
def calling(kind: Callable[[str], Caller], schema: SharedSchema) -> Generator[Caller]:
    """Return a caller whose orders are in this schema; it is gone at the end."""
    caller = kind(schema.conninfo)
    caller.schema = schema
    try:
        yield caller
    finally:
        caller.close()


def places_of(kind: Callable[[str], Caller], binaries: Path | None = None) -> DriverFactory:
    """Return a factory for the conformance suite: the shared schema, empty each time, and callers of this kind."""

    @contextmanager
    def make_place() -> Generator[OpenDriver]:
        schema = schema_with_orders(binaries)
        yield PlaceWithCallers(lambda: PostgresDriver(schema.place), lambda: calling(kind, schema))

    return make_place


def schema_with_orders(binaries: Path | None = None) -> SharedSchema:
    """Return the shared schema, empty, with a table of the application's own beside the jobs'."""
    shared = shared_schema(binaries)
    shared.empty()
    shared.ask("CREATE TABLE IF NOT EXISTS orders (number integer)")
    shared.ask("DELETE FROM orders")
    return shared


def orders(schema: SharedSchema) -> list[int]:
    """Return the orders that others see."""
    return [number for (number,) in schema.ask("SELECT number FROM orders ORDER BY number")]


def jobs(harbor: Harbor) -> list[object]:
    """Return the numbers of the `note` jobs that others see."""
    return [harbor.arguments_of(job)["number"] for job in harbor.jobs.find()]


def by(*kinds: type[Caller]) -> pytest.MarkDecorator:
    """Run a test with callers of these kinds; its fixture `caller` makes them."""
    return pytest.mark.parametrize("caller", kinds, indirect=True, ids=[kind.name for kind in kinds])


def sqlalchemy_url(conninfo: str, driver: str) -> sqlalchemy.URL:
    """Return how SQLAlchemy names a database."""
    words = conninfo_to_dict(conninfo)
    host, port = str(words["host"]), str(words.get("port", 5432))
    return sqlalchemy.URL.create(
        f"postgresql+{driver}",
        username=_word(words.get("user")),
        password=_word(words.get("password")),
        database=_word(words.get("dbname")),
        query={"host": host, "port": port},
    )


@functools.cache
def django_database(conninfo: str) -> Any:
    """Return `django.db`, Django having been set up with this database. It takes one in a process."""
    words = conninfo_to_dict(conninfo)
    settings = untyped(import_module("django.conf")).settings
    settings.configure(
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": words.get("dbname"),
                "USER": words.get("user"),
                "PASSWORD": words.get("password") or "",
                "HOST": words.get("host"),
                "PORT": words.get("port"),
            },
            "other": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
        },
        USE_TZ=True,
    )
    untyped(import_module("django")).setup()
    return untyped(import_module("django.db"))


def _word(value: object) -> str | None:
    return None if value is None else str(value)
