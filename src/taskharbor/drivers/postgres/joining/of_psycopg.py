"""psycopg's own connections: https://www.psycopg.org/psycopg3/docs/basic/transactions.html."""

from __future__ import annotations

from typing import Any, TypeGuard

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus

from taskharbor.drivers.postgres.joining.failure import aborted_before, lost, no_transaction, unusable
from taskharbor.drivers.postgres.joining.line import AwaitedPsycopgLine, PsycopgLine
from taskharbor.drivers.postgres.place import Place
from taskharbor.drivers.postgres.routine import Query

_NOTHING = Query("SELECT 1")


def is_blocking(connection: object) -> TypeGuard[psycopg.Connection[Any]]:
    """Return whether it is a `psycopg.Connection`."""
    return isinstance(connection, psycopg.Connection)


def is_awaited(connection: object) -> TypeGuard[psycopg.AsyncConnection[Any]]:
    """Return whether it is a `psycopg.AsyncConnection`."""
    return isinstance(connection, psycopg.AsyncConnection)


class BlockingPsycopg:
    """A `psycopg.Connection`."""

    def __init__(self, connection: psycopg.Connection[Any], place: Place) -> None:
        self.given = connection
        self._place = place

    def open(self) -> PsycopgLine:
        return open_line(self.given, self._place, "with connection.transaction():")

    def told(self, error: psycopg.Error) -> Exception:
        return error


class AwaitedPsycopg:
    """A `psycopg.AsyncConnection`."""

    def __init__(self, connection: psycopg.AsyncConnection[Any], place: Place) -> None:
        self.given = connection
        self._place = place

    async def open(self) -> AwaitedPsycopgLine:
        return await aopen_line(self.given, self._place, "async with connection.transaction():")

    def told(self, error: psycopg.Error) -> Exception:
        return error


def open_line(connection: psycopg.Connection[Any], place: Place, begin: str) -> PsycopgLine:
    """Return a connection that has a transaction, or begins one at the first statement.

    Args:
        connection: the caller's.
        place: the harbor's database.
        begin: how the caller begins a transaction, for the message.

    Raises:
        UsageError: it has none and begins none; or it cannot be used.
        StoreUnavailable: it was lost.
    """
    _refuse_unusable(connection, place)
    line = PsycopgLine(connection, place.schema)
    while _is_busy(connection):
        line.execute(_NOTHING)  # waits for its turn, after which the state is known
    _refuse_without_transaction(connection, begin)
    return line


async def aopen_line(
    connection: psycopg.AsyncConnection[Any], place: Place, begin: str
) -> AwaitedPsycopgLine:
    """Return a connection that has a transaction, or begins one; the async form of `open_line`."""
    _refuse_unusable(connection, place)
    line = AwaitedPsycopgLine(connection, place.schema)
    while _is_busy(connection):
        await line.execute(_NOTHING)
    _refuse_without_transaction(connection, begin)
    return line


def _refuse_unusable(connection: psycopg.BaseConnection[Any], place: Place) -> None:
    if connection.broken:
        raise lost(place, "it is broken")
    if connection.closed:
        raise unusable("it is closed")
    if connection.info.pipeline_status != PipelineStatus.OFF:
        raise unusable(
            "it is in pipeline mode; enqueue before `with connection.pipeline():` begins, or after its end"
        )


def _is_busy(connection: psycopg.BaseConnection[Any]) -> bool:
    """Return whether another thread or task has a statement under way, and hides whether there is a transaction."""
    return connection.autocommit and connection.info.transaction_status == TransactionStatus.ACTIVE


def _refuse_without_transaction(connection: psycopg.BaseConnection[Any], begin: str) -> None:
    status = connection.info.transaction_status
    if status == TransactionStatus.INERROR:
        raise aborted_before()
    if connection.autocommit and status == TransactionStatus.IDLE:
        raise no_transaction(begin)
