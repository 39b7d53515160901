"""Schemas for PostgreSQL tests: one that several tests share, emptied before each, since making one costs a while."""

from __future__ import annotations

import atexit
import functools
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg.rows import TupleRow

from taskharbor.drivers.postgres import Place, PostgresDriver
from taskharbor.drivers.postgres.routine import quoted
from taskharbor_conformance import DriverFactory, OpenDriver
from tests.support.postgres import new_schema_name, server

Connection = psycopg.Connection[TupleRow]

_FILLED_BY_VERBS = (
    "job",
    "lease",
    "history",
    "key",
    "stray",
    "pause",
    "worker",
    "input",
    "flow",
    "report",
    "line",
    "watcher",
    "event",
    "tally",
    "schedule",
    "declaration",
    "leader",
    '"limit"',
    "hold",
    "turn",
    "arrival",
    "audit",
    "retention",
)
_MOVED = "(current_timestamp AT TIME ZONE 'UTC')::date - 1 + slot"


class SharedSchema:
    """A schema with our tables, used by one test after the other."""

    def __init__(self, conninfo: str) -> None:
        """Make it."""
        self.conninfo = conninfo
        self.name = new_schema_name()
        self.place = Place(conninfo=self.conninfo, schema=self.name, migrate=True)
        driver = PostgresDriver(self.place)
        driver.migrate()
        driver.close()
        self._connection = self.connect()

    def close(self) -> None:
        """Let its connection go."""
        self._connection.close()

    def connect(self) -> Connection:
        """Open a connection of one's own that finds our tables without naming the schema."""
        connection = psycopg.connect(self.conninfo, autocommit=True, application_name="taskharbor-test")
        connection.execute(f"SET search_path = {quoted(self.name)}".encode())
        return connection

    def ask(self, sql: str, params: tuple[object, ...] = ()) -> list[TupleRow]:
        """Run one statement, as another program would, and return its rows."""
        cursor = self._connection.execute(sql.encode(), params)
        return cursor.fetchall() if cursor.description else []

    def empty(self) -> None:
        """Remove what tests have left; DELETE, since TRUNCATE writes files anew."""
        self.ask("; ".join(f"DELETE FROM {table}" for table in _FILLED_BY_VERBS))
        self.ask(f"UPDATE slot SET day = {_MOVED} WHERE day <> {_MOVED}")


@functools.cache
def shared_schema(binaries: Path | None = None) -> SharedSchema:
    """Return the session's shared schema on a server."""
    schema = SharedSchema(server(binaries).conninfo)
    atexit.register(schema.close)
    return schema


def emptied_places(binaries: Path | None = None) -> DriverFactory:
    """Return a factory for the conformance suite: its places are all the shared schema, empty each time."""

    @contextmanager
    def make_place() -> Generator[OpenDriver]:
        schema = shared_schema(binaries)
        schema.empty()
        yield lambda: PostgresDriver(schema.place)

    return make_place
