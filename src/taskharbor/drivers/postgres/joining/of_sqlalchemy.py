"""SQLAlchemy's connections and sessions, over psycopg or asyncpg.

Its transactions begin with a statement that is sent through it; so where none is open, one is sent. Ours go over the
driver's own connection, whose transaction it ends. (https://docs.sqlalchemy.org/en/20/core/connections.html)
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import psycopg
from sqlalchemy import Connection, exc, text

from taskharbor.drivers.postgres.joining.failure import unusable
from taskharbor.drivers.postgres.joining.line import AwaitedLine, PsycopgLine
from taskharbor.drivers.postgres.joining.of_asyncpg import (
    AsyncpgConnection,
    as_psycopg,
    is_asyncpg,
    open_asyncpg,
    original,
)
from taskharbor.drivers.postgres.joining.of_psycopg import aopen_line, is_awaited, is_blocking, open_line
from taskharbor.drivers.postgres.place import Place
from taskharbor.errors import UsageError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
    from sqlalchemy.orm import Session

_BEGIN = 'give it another isolation level than AUTOCOMMIT, such as execution_options(isolation_level="READ COMMITTED")'
_NOTHING = text("SELECT 1")


class BlockingSqlalchemy:
    """A `Connection` or a `Session`."""

    def __init__(self, given: object, place: Place) -> None:
        self.given = given
        self._place = place

    def open(self) -> PsycopgLine:
        with _errors_told():
            connection = self._connection()
            driver = connection.connection.driver_connection
            if not is_blocking(driver):
                raise _refusal(connection, self._place, "postgresql+psycopg")
            if not connection.in_transaction():
                connection.execute(_NOTHING)
        return open_line(driver, self._place, _BEGIN)

    def told(self, error: psycopg.Error) -> Exception:
        return _as_sqlalchemy(error)

    def _connection(self) -> Connection:
        if isinstance(self.given, Connection):
            return self.given
        return cast("Session", self.given).connection()


class AwaitedSqlalchemy:
    """An `AsyncConnection` or an `AsyncSession`."""

    def __init__(self, given: object, place: Place) -> None:
        self.given = given
        self._place = place

    async def open(self) -> AwaitedLine:
        with _errors_told():
            connection = await self._connection()
            driver = (await connection.get_raw_connection()).driver_connection
            over_asyncpg = is_asyncpg(driver)
            if not over_asyncpg and not is_awaited(driver):
                known = "postgresql+psycopg or postgresql+asyncpg"
                raise _refusal(connection.sync_connection, self._place, known)
            if not connection.in_transaction() or (
                over_asyncpg and not cast("AsyncpgConnection", driver).is_in_transaction()
            ):
                await connection.execute(_NOTHING)
        if is_awaited(driver):
            return await aopen_line(driver, self._place, _BEGIN)
        return open_asyncpg(cast("AsyncpgConnection", driver), self._place, _BEGIN)

    def told(self, error: psycopg.Error) -> Exception:
        return _as_sqlalchemy(error)

    async def _connection(self) -> AsyncConnection:
        from sqlalchemy.ext.asyncio import AsyncConnection

        if isinstance(self.given, AsyncConnection):
            return self.given
        return await cast("AsyncSession", self.given).connection()


@contextmanager
def _errors_told() -> Generator[None]:
    """Raise SQLAlchemy's errors as psycopg's, or as refusals."""
    try:
        yield
    except exc.DBAPIError as error:
        found = error.orig if isinstance(error.orig, psycopg.Error) else None
        cause = error.orig.__cause__ if error.orig is not None else None
        if found is None and cause is not None:
            found = as_psycopg(cause)
        if found is None:
            raise
        raise found from cause
    except (
        exc.SQLAlchemyError
    ) as error:  # closed, in a failed flush, bound to several engines: it tells itself
        raise unusable(f"SQLAlchemy says: {error}") from error


def _as_sqlalchemy(error: psycopg.Error) -> Exception:
    cause = original(error)
    kind = exc.OperationalError if cause is error else exc.DBAPIError
    return kind("an enqueue of TaskHarbor's", None, cause)


def _refusal(connection: Connection | None, place: Place, known: str) -> UsageError:
    dialect = None if connection is None else connection.dialect
    if dialect is None or dialect.name != "postgresql":
        leads = "no PostgreSQL" if dialect is None else dialect.name
        return UsageError(
            f"harbor.using(): SQLAlchemy's connection leads to {leads}, and the harbor's jobs are in {place.name}"
        )
    return UsageError(
        f"harbor.using(): SQLAlchemy connects by {dialect.driver} here, which TaskHarbor does not speak; make the "
        f"engine with {known}://..."
    )
