"""Forks: none of our connections is open while this process forks.

SQLite keeps in its own memory, by file, which locks this process holds. A forked child inherits that memory and none of
the locks. A connection that it then opened would go without; another process that closes the file would take itself for
the last one and remove the log, while the child goes on writing to it, and what it is answered would be lost
(https://www.sqlite.org/howtocorrupt.html, section 2.6).

So before a fork each connection is closed, as soon as nobody uses it, and opened again when it is next used.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable

from taskharbor.drivers.sqlite.connection import close
from taskharbor.errors import StoreUnavailable

_PATIENCE_SECONDS = 5.0
"""How long a fork waits for a transaction to end. A connection still used then is abandoned by the child."""


class Steady:
    """A connection, used in a `with` block by one thread at a time, that is not there while the process forks."""

    def __init__(self, open_: Callable[[], sqlite3.Connection]) -> None:
        """Prepare it; `open_` is called when it is first used, and again after a fork."""
        self._open = open_
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._closed = False
        with _registry:
            _all.add(self)

    def __enter__(self) -> sqlite3.Connection:
        """Return the connection.

        Raises:
            StoreUnavailable: it was closed.
        """
        self._lock.acquire()
        try:
            if self._closed:
                raise StoreUnavailable("this store is closed")
            if self._connection is None:
                self._connection = self._open()
        except BaseException:
            self._lock.release()
            raise
        return self._connection

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def close(self) -> None:
        """Close it for good. Idempotent."""
        with self._lock:
            self._closed = True
            self._put_aside()

    def step_aside(self) -> bool:
        """Close it for a moment; return whether `step_back` has to be called."""
        if not self._lock.acquire(timeout=_PATIENCE_SECONDS):
            return False
        # This very thread may be in a transaction, and fork in a signal's handler.
        if self._connection is not None and not self._connection.in_transaction:
            self._put_aside()
        return True

    def step_back(self) -> None:
        """Let it be used again."""
        self._lock.release()

    def _put_aside(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                close(connection)


_registry = threading.RLock()  # a signal may come, and its handler fork, while it is held
_all: weakref.WeakSet[Steady] = weakref.WeakSet()
_aside: list[Steady] = []


def _before_fork() -> None:
    _registry.acquire()
    _aside.extend(connection for connection in list(_all) if connection.step_aside())


def _after_fork() -> None:
    for connection in _aside:
        connection.step_back()
    _aside.clear()
    _registry.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
