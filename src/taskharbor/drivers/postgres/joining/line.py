"""A connection that is the caller's, and what we send over it: statements of ours, read as we read them.

Whatever goes wrong in a statement, its routine hears of it: it may have something to undo.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

import psycopg
from psycopg.adapt import AdaptersMap
from psycopg.rows import tuple_row
from psycopg.types.numeric import Int2BinaryLoader, Int4BinaryLoader, Int8BinaryLoader
from psycopg.types.string import BytesBinaryDumper, StrDumperUnknown, TextBinaryLoader

from taskharbor.drivers.postgres.joining.failure import Fate
from taskharbor.drivers.postgres.routine import Query, Routine, Row
from taskharbor.drivers.postgres.schema import renamed

T = TypeVar("T")


class AnyLine(Protocol):
    """A connection with a transaction on it, or about to have one."""

    @property
    def connection(self) -> object:
        """Return the driver's own."""
        ...

    @property
    def fate(self) -> Fate:
        """Return what became of the transaction after the last statement."""
        ...


class Line(AnyLine, Protocol):
    """A blocking one."""

    def execute(self, query: Query, /) -> list[Row]:
        """Return a statement's rows.

        Raises:
            psycopg.Error: it failed.
        """
        ...


class AwaitedLine(AnyLine, Protocol):
    """One for event loops."""

    async def execute(self, query: Query, /) -> list[Row]:
        """Return a statement's rows; the async form of `Line.execute`."""
        ...


class PsycopgLine:
    """A blocking connection of psycopg's."""

    def __init__(self, connection: psycopg.Connection[Any], schema: str) -> None:
        self.connection = connection
        self.fate = Fate.OPEN
        self._schema = schema
        self._cursor = psycopg.RawCursor(connection, row_factory=tuple_row)
        _read_as_we_do(self._cursor.adapters)

    def execute(self, query: Query) -> list[Row]:
        cursor = self._cursor
        try:
            cursor.execute(_text(query, self._schema), query.params, binary=True)
        except psycopg.Error as error:
            self.fate = _fate(error, self.connection)
            raise
        self.fate = Fate.OPEN
        return cursor.fetchall() if cursor.description else []


class AwaitedPsycopgLine:
    """A connection of psycopg's for event loops."""

    def __init__(self, connection: psycopg.AsyncConnection[Any], schema: str) -> None:
        self.connection = connection
        self.fate = Fate.OPEN
        self._schema = schema
        self._cursor = psycopg.AsyncRawCursor(connection, row_factory=tuple_row)
        _read_as_we_do(self._cursor.adapters)

    async def execute(self, query: Query) -> list[Row]:
        cursor = self._cursor
        try:
            await cursor.execute(_text(query, self._schema), query.params, binary=True)
        except psycopg.Error as error:
            self.fate = _fate(error, self.connection)
            raise
        self.fate = Fate.OPEN
        return await cursor.fetchall() if cursor.description else []


def run(execute: Callable[[Query], list[Row]], routine: Routine[T]) -> T:
    """Run a routine and return its answer."""
    try:
        query = next(routine)
        while True:
            try:
                rows = execute(query)
            except BaseException as error:  # noqa: BLE001 - the routine raises it again
                query = routine.throw(error)
            else:
                query = routine.send(rows)
    except StopIteration as end:
        answer: T = end.value
        return answer


async def arun(execute: Callable[[Query], Awaitable[list[Row]]], routine: Routine[T]) -> T:
    """Run a routine and return its answer; the async form of `run`."""
    try:
        query = next(routine)
        while True:
            try:
                rows = await execute(query)
            except BaseException as error:  # noqa: BLE001 - the routine raises it again
                query = routine.throw(error)
            else:
                query = routine.send(rows)
    except StopIteration as end:
        answer: T = end.value
        return answer


def _fate(error: psycopg.Error, connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> Fate:
    if connection.closed or error.diag.severity_nonlocalized in ("FATAL", "PANIC"):
        return Fate.LOST
    # Without a state it was not the server that refused: the statement was never sent.
    return Fate.OPEN if error.sqlstate is None else Fate.ABORTED


class _TextLoader(TextBinaryLoader):
    """Text is text, where the connection's encoding is SQL_ASCII, too."""

    def load(self, data: Any) -> bytes | str:
        text = super().load(data)
        return text if isinstance(text, str) else text.decode(errors="replace")


def _read_as_we_do(adapters: AdaptersMap) -> None:
    """Have what our statements take and return be read plainly, whatever the caller has registered."""
    adapters.register_dumper(str, StrDumperUnknown)
    adapters.register_dumper(bytes, BytesBinaryDumper)
    adapters.register_loader("text", _TextLoader)
    adapters.register_loader("int2", Int2BinaryLoader)
    adapters.register_loader("int4", Int4BinaryLoader)
    adapters.register_loader("int8", Int8BinaryLoader)


def _text(query: Query, schema: str) -> bytes:
    return renamed(query.sql, schema).encode()
