"""Whose a connection is, and so which way leads into its transaction."""

from __future__ import annotations

from taskharbor.driver import Joined
from taskharbor.drivers.postgres.desk import Shared
from taskharbor.drivers.postgres.joining.joined import AwaitedJoined, BlockingJoined
from taskharbor.drivers.postgres.joining.of_asyncpg import Asyncpg, is_asyncpg
from taskharbor.drivers.postgres.joining.of_psycopg import (
    AwaitedPsycopg,
    BlockingPsycopg,
    is_awaited,
    is_blocking,
)
from taskharbor.errors import UsageError

_SQLALCHEMY = {"sqlalchemy.engine.base.Connection", "sqlalchemy.orm.session.Session"}
_SQLALCHEMY_ASYNC = {
    "sqlalchemy.ext.asyncio.engine.AsyncConnection",
    "sqlalchemy.ext.asyncio.session.AsyncSession",
}
_SQLALCHEMY_SCOPED = {
    "sqlalchemy.orm.scoping.scoped_session",
    "sqlalchemy.ext.asyncio.scoping.async_scoped_session",
}
_DJANGO = {"django.db.backends.base.base.BaseDatabaseWrapper", "django.utils.connection.ConnectionProxy"}


def join(connection: object, shared: Shared) -> Joined:
    """Return the way into a connection's transaction. Sends nothing yet.

    Raises:
        UsageError: it is no connection of a kind that is known here.
    """
    place = shared.place
    if is_blocking(connection):
        return BlockingJoined(BlockingPsycopg(connection, place), shared)
    if is_awaited(connection):
        return AwaitedJoined(AwaitedPsycopg(connection, place), shared)
    if is_asyncpg(connection):
        return AwaitedJoined(Asyncpg(connection, place), shared)
    names = {f"{base.__module__}.{base.__qualname__}" for base in type(connection).__mro__}
    if names & _SQLALCHEMY_SCOPED and callable(connection):
        return join(connection(), shared)  # the session of this thread, or of this task
    if names & (_SQLALCHEMY | _SQLALCHEMY_ASYNC):
        from taskharbor.drivers.postgres.joining.of_sqlalchemy import AwaitedSqlalchemy, BlockingSqlalchemy

        if names & _SQLALCHEMY:
            return BlockingJoined(BlockingSqlalchemy(connection, place), shared)
        return AwaitedJoined(AwaitedSqlalchemy(connection, place), shared)
    if names & _DJANGO:
        from taskharbor.drivers.postgres.joining.of_django import Django

        return BlockingJoined(Django(connection, place), shared)
    raise _refusal(connection, names)


def _refusal(connection: object, names: set[str]) -> UsageError:
    what = f"{type(connection).__module__}.{type(connection).__qualname__}".removeprefix("builtins.")
    if "psycopg2.extensions.connection" in names:
        return UsageError(
            "harbor.using(): this is a connection of psycopg2, and TaskHarbor speaks through psycopg 3; connect with "
            "`import psycopg`"
        )
    return UsageError(
        "harbor.using() on PostgreSQL takes a connection of psycopg 3 or asyncpg, a connection or session of "
        f"SQLAlchemy's, or Django's `django.db.connection`; got a {what}"
    )
