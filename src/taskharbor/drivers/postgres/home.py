"""Whether a connection leads to the database that the jobs are in, and sees their tables there."""

from __future__ import annotations

import threading
import weakref
from contextlib import suppress
from typing import NamedTuple

import psycopg
from psycopg.rows import TupleRow

from taskharbor.drivers.postgres.carry import carry
from taskharbor.drivers.postgres.connection import open_connection
from taskharbor.drivers.postgres.place import Place
from taskharbor.drivers.postgres.refusal import store_error
from taskharbor.drivers.postgres.routine import Query, Routine
from taskharbor.drivers.postgres.rows import micros_of
from taskharbor.errors import SchemaError, StoreUnavailable, UnusableStoreError, UsageError

# From the catalog: asking for a table by name fails where the schema may not be used, and would end a transaction.
_WHERE = f"""SELECT current_database()::text, {micros_of("pg_postmaster_start_time()")}::text,
    coalesce(host(inet_server_addr()) || ':' || inet_server_port(), 'a local socket'),
    EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = $1::text AND c.relname = 'job')::text"""


class Whereabouts(NamedTuple):
    """Where a connection leads."""

    database: str
    started: str
    """When its server was started, in microseconds: no two servers have it in common."""
    address: str
    has_tables: bool


def whereabouts(schema: str) -> Routine[Whereabouts]:
    """Return where a connection leads. It fails in no transaction that is well."""
    ((database, started, address, has_tables),) = yield Query(_WHERE, (schema,))
    return Whereabouts(database, started, address, has_tables == "true")


class Home:
    """Where one driver's jobs are, and which connections of others are known to lead there. For any thread."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._here: Whereabouts | None = None
        self._known: weakref.WeakSet[object] = weakref.WeakSet()
        self._lock = threading.Lock()

    def knows(self, connection: object) -> bool:
        """Return whether a connection was found to lead here: it does so for as long as it lives."""
        return connection in self._known

    def receive(self, connection: object, found: Whereabouts) -> None:
        """Take note of where a connection leads. Blocking: it may connect, to see where we are.

        Raises:
            UsageError: it leads elsewhere.
            SchemaError: it leads here, and the tables are gone.
        """
        with self._lock:
            # After a restart the server is the same, and began anew.
            if self._here is None or not _same(self._here, found):
                self._here = self._look()
            if not _same(self._here, found):
                raise UsageError(
                    f"harbor.using(): the connection leads to the database {found.database!r} on {found.address}, and "
                    f"the harbor's jobs are in {self._place.name}{_another_server(self._here, found)}; jobs and rows "
                    "can share a transaction only in one database"
                )
            if not found.has_tables:
                raise SchemaError(
                    f"{self._place.name} has no tables of TaskHarbor's in the schema {self._place.schema!r} any more; "
                    "run `taskharbor migrate`, which makes them, or says what was dropped"
                )
            self._known.add(connection)

    def _look(self) -> Whereabouts:
        return _where_is(self._place)


def open_listening(place: Place) -> psycopg.Connection[TupleRow]:
    """Open the connection that hears wake-ups: past the pooler, if there is a way.

    Raises:
        StoreUnavailable: the server cannot be reached now.
        UnusableStoreError: it refuses us; or that way leads to another database, where no wake-up is ever sent.
    """
    listening = place.listening
    connection = open_connection(listening)
    try:
        # While the pooler is away nothing can be compared, and what does arrive is welcome.
        with suppress(StoreUnavailable):
            if place.listen:
                _compare(place, _where_is(place), _ask(connection, listening))
    except BaseException:
        connection.close()
        raise
    return connection


def _compare(place: Place, here: Whereabouts, there: Whereabouts) -> None:
    if not _same(here, there):
        raise UnusableStoreError(
            f"?listen= leads to the database {there.database!r} on {there.address}, and the jobs are in {place.name}"
            f"{_another_server(here, there)}; nothing is ever heard there, so correct the URL"
        )


def _where_is(place: Place) -> Whereabouts:
    with open_connection(place) as connection:
        return _ask(connection, place)


def _ask(connection: psycopg.Connection[TupleRow], place: Place) -> Whereabouts:
    try:
        cursor = psycopg.RawCursor(connection)
        return carry(cursor, whereabouts(place.schema), place.schema, prepare=False)
    except psycopg.Error as error:
        raise store_error(error, place) from error


def _same(here: Whereabouts, there: Whereabouts) -> bool:
    return (here.database, here.started) == (there.database, there.started)


def _another_server(here: Whereabouts, there: Whereabouts) -> str:
    return ", on another server" if here.database == there.database else ""
