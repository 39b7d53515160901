"""asyncpg's connections, its pool's too: https://magicstack.github.io/asyncpg/current/."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, cast

import psycopg

from taskharbor.drivers.postgres.joining.failure import Fate, no_transaction, unusable
from taskharbor.drivers.postgres.place import Place
from taskharbor.drivers.postgres.routine import Query, Row
from taskharbor.drivers.postgres.schema import renamed
from taskharbor.errors import UsageError

NAMES = {"asyncpg.connection.Connection", "asyncpg.pool.PoolConnectionProxy"}
"""Of classes: nothing of asyncpg's is imported to tell its connections."""


class AsyncpgConnection(Protocol):
    """What we use of it."""

    def is_closed(self) -> bool:
        """Return whether it is closed."""
        ...

    def is_in_transaction(self) -> bool:
        """Return whether a transaction is open, be it one that failed."""
        ...

    async def fetch(self, query: str, /, *args: object) -> Sequence[Iterable[Any]]:
        """Return a statement's rows."""
        ...


class Asyncpg:
    """A connection of asyncpg's."""

    def __init__(self, connection: object, place: Place) -> None:
        self.given = connection
        self._connection = cast("AsyncpgConnection", connection)
        self._place = place

    async def open(self) -> AsyncpgLine:
        return open_asyncpg(self._connection, self._place, "async with connection.transaction():")

    def told(self, error: psycopg.Error) -> Exception:
        return original(error)


def is_asyncpg(connection: object) -> bool:
    """Return whether it is one of asyncpg's, or of its pool's."""
    return bool(NAMES & {f"{base.__module__}.{base.__qualname__}" for base in type(connection).__mro__})


def open_asyncpg(connection: AsyncpgConnection, place: Place, begin: str) -> AsyncpgLine:
    """Return a connection that has a transaction.

    Raises:
        UsageError: it has none, or cannot be used.
    """
    try:
        closed, ready = connection.is_closed(), connection.is_in_transaction()
    except Exception as error:
        raise unusable(error) from error  # given back to its pool
    if closed:
        raise unusable("it is closed")
    if not ready:
        raise no_transaction(begin)
    return AsyncpgLine(connection, place.schema)


class AsyncpgLine:
    """A connection of asyncpg's, whose errors are told as those of psycopg's with the same meaning."""

    def __init__(self, connection: AsyncpgConnection, schema: str) -> None:
        # A pool hands out another cover each time, around the same connection.
        self.connection: object = getattr(connection, "_con", connection)
        self.fate = Fate.OPEN
        self._asyncpg = connection
        self._schema = schema

    async def execute(self, query: Query) -> list[Row]:
        try:
            rows = await self._asyncpg.fetch(renamed(query.sql, self._schema), *query.params)
        except Exception as error:
            translated = as_psycopg(error)
            if translated is None:
                raise
            self.fate = self._fate_after(translated)
            raise translated from error
        self.fate = Fate.OPEN
        return [tuple(row) for row in rows]

    def _fate_after(self, error: psycopg.Error) -> Fate:
        # Some states say it before asyncpg has noticed that nobody is there any more.
        if self._asyncpg.is_closed() or (error.sqlstate or "08").startswith(("08", "57P0", "25P03", "25P04")):
            return Fate.LOST
        return Fate.ABORTED


def as_psycopg(error: BaseException) -> psycopg.Error | None:
    """Return psycopg's error for one of asyncpg's, or None if it is none of the server's or the connection's.

    Raises:
        UsageError: the connection is used in a way that asyncpg refuses.
    """
    state = getattr(error, "sqlstate", None)
    if isinstance(state, str):
        try:
            kind = psycopg.errors.lookup(state)
        except KeyError:
            kind = psycopg.DatabaseError
        return kind(str(error))
    if any(base.__qualname__ == "InterfaceError" for base in type(error).__mro__):
        if "another operation is in progress" in str(error):
            raise UsageError(
                "harbor.using(): another statement is under way on this connection, and asyncpg takes one at a time; "
                "await it before the enqueue"
            ) from error
        raise unusable(error) from error
    if isinstance(error, OSError):
        return psycopg.OperationalError(str(error) or type(error).__name__)
    return None


def original(error: psycopg.Error) -> Exception:
    """Return asyncpg's error that was told as psycopg's."""
    return error.__cause__ if isinstance(error.__cause__, Exception) else error
