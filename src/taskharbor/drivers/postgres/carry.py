"""The runners: a routine's statements, carried to the server over a connection of either colour."""

from __future__ import annotations

from typing import TypeVar

import psycopg
from psycopg.rows import TupleRow

from taskharbor.drivers.postgres.routine import Routine, Row
from taskharbor.drivers.postgres.schema import renamed

T = TypeVar("T")


def carry(
    cursor: psycopg.RawCursor[TupleRow], routine: Routine[T], schema: str, *, prepare: bool | None
) -> T:
    """Run a routine over a blocking connection and return its answer."""
    try:
        query = next(routine)
        while True:
            try:
                cursor.execute(
                    renamed(query.sql, schema).encode(), query.params, prepare=prepare, binary=True
                )
                rows: list[Row] = cursor.fetchall() if cursor.description else []
            except psycopg.Error as error:
                query = routine.throw(error)
            else:
                query = routine.send(rows)
    except StopIteration as end:
        answer: T = end.value
        return answer


async def acarry(
    cursor: psycopg.AsyncRawCursor[TupleRow], routine: Routine[T], schema: str, *, prepare: bool | None
) -> T:
    """Run a routine over an event loop's connection and return its answer."""
    try:
        query = next(routine)
        while True:
            try:
                await cursor.execute(
                    renamed(query.sql, schema).encode(), query.params, prepare=prepare, binary=True
                )
                rows: list[Row] = await cursor.fetchall() if cursor.description else []
            except psycopg.Error as error:
                query = routine.throw(error)
            else:
                query = routine.send(rows)
    except StopIteration as end:
        answer: T = end.value
        return answer
