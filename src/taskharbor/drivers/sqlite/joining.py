"""Enqueue in a transaction of the caller's own: `with harbor.using(connection):`."""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from taskharbor.clock import Clock, micros
from taskharbor.driver import Enqueued, JobEnqueue
from taskharbor.drivers.sqlite.bell import Bell
from taskharbor.drivers.sqlite.connection import is_busy, store_error
from taskharbor.drivers.sqlite.enqueue import job_enqueue
from taskharbor.drivers.sqlite.place import Place
from taskharbor.drivers.sqlite.routine import Wakes
from taskharbor.drivers.sqlite.rows import OptionsBook, Step
from taskharbor.drivers.sqlite.transaction import carry
from taskharbor.errors import StoreUnavailable, UsageError

_SAVEPOINT = "taskharbor"


def check_connection(connection: object, place: Place) -> sqlite3.Connection:
    """Return the connection if jobs can be stored through it.

    Raises:
        UsageError: it is none of sqlite3's, or is open on another file.
    """
    if not isinstance(connection, sqlite3.Connection):
        raise UsageError(
            f"harbor.using() on SQLite takes a sqlite3.Connection; got a {type(connection).__qualname__}"
        )
    try:
        with _text_as_text(connection):
            found = _cursor(connection).execute("PRAGMA database_list").fetchall()
    except sqlite3.ProgrammingError as error:
        raise UsageError(f"harbor.using(): the connection cannot be used here: {error}") from error
    path = next((file for _, name, file in found if name == "main"), "")
    if not path or not os.path.exists(place.path) or not os.path.samefile(path, place.path):
        raise UsageError(
            f"harbor.using(): the connection is open on {path or 'a database in memory'}, and the harbor's jobs are in "
            f"{place.path}; jobs and rows can share a transaction only in one file"
        )
    return connection


class JoinedConnection:
    """A caller's connection, with whatever transaction is open on it."""

    def __init__(self, connection: sqlite3.Connection, place: Place, clock: Clock, bell: Bell) -> None:
        self._connection = connection
        self._place = place
        self._clock = clock
        self._bell = bell
        self._book = OptionsBook()
        self._wakes = Wakes()
        self._turn = _turn_on(connection)

    def job_enqueue(self, request: JobEnqueue) -> Sequence[Enqueued]:
        """Store jobs in the caller's transaction, begun here if none is open, and return one answer each."""
        try:
            with (
                self._turn.lock
            ):  # a connection shared by threads, each in its own `using`, has one transaction
                self._begin()
                return self._within_savepoint(request)
        except sqlite3.ProgrammingError as error:  # another thread's, or closed
            raise UsageError(f"harbor.using(): the connection cannot be used here: {error}") from error
        except sqlite3.Error as error:
            if is_busy(error) and self._connection.in_transaction:
                raise StoreUnavailable(
                    f"the transaction on {self._place.path} began by reading, and another has written since, or "
                    "writes now, so that it cannot write any more; roll back, and begin with BEGIN IMMEDIATE"
                ) from error
            raise store_error(error, self._place) from error

    async def ajob_enqueue(self, request: JobEnqueue) -> Sequence[Enqueued]:
        """Store jobs in the caller's transaction; sqlite3's connections block, in this form too."""
        return self.job_enqueue(request)

    def leave(self) -> None:
        """Wake workers if the transaction has been committed; after a later commit they notice by themselves."""
        try:
            is_open = self._connection.in_transaction
        except sqlite3.ProgrammingError:  # closed in the block: it may have been committed before
            is_open = False
        if not is_open:
            self._bell.ring(self._wakes)
        self._wakes = Wakes()

    def _begin(self) -> None:
        if self._connection.in_transaction:
            return
        if self._connection.isolation_level is None or getattr(self._connection, "autocommit", None) is True:
            raise UsageError(
                "harbor.using(): the connection is in autocommit mode and no transaction is open, so there is nothing "
                'to join; begin one first: connection.execute("BEGIN IMMEDIATE")'
            )
        # As sqlite3 itself does before a caller's INSERT; and with the lock, or reading first could make writing fail.
        _cursor(self._connection).execute("BEGIN IMMEDIATE")

    def _within_savepoint(self, request: JobEnqueue) -> Sequence[Enqueued]:
        cursor = _cursor(self._connection)
        with _text_as_text(self._connection):
            cursor.execute(f"SAVEPOINT {_SAVEPOINT}")
            try:
                now = micros(self._clock.now() if request.now is None else request.now)
                return carry(cursor, job_enqueue(Step(now, self._book, self._wakes), request))
            except BaseException:
                if self._connection.in_transaction:  # SQLite ends it by itself after some errors
                    cursor.execute(f"ROLLBACK TO {_SAVEPOINT}")
                raise
            finally:
                if self._connection.in_transaction:
                    cursor.execute(f"RELEASE {_SAVEPOINT}")


class _Turn:
    """Whose turn it is on one connection."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


# By the connection's identity: it cannot be referred to weakly, and lives as long as those who joined it.
_turns: weakref.WeakValueDictionary[int, _Turn] = weakref.WeakValueDictionary()
_turns_lock = threading.Lock()


def _turn_on(connection: sqlite3.Connection) -> _Turn:
    """Return what all who join this connection share. It goes with the last of them."""
    with _turns_lock:
        turn = _turns.get(id(connection))
        if turn is None:
            turn = _turns[id(connection)] = _Turn()
        return turn


@contextmanager
def _text_as_text(connection: sqlite3.Connection) -> Generator[None]:
    """Read text as text, whatever the caller reads it as."""
    factory, connection.text_factory = connection.text_factory, str
    try:
        yield
    finally:
        connection.text_factory = factory


def _cursor(connection: sqlite3.Connection) -> sqlite3.Cursor:
    cursor = connection.cursor()
    cursor.row_factory = None
    return cursor
