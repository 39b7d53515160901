"""One connection: opened with every check and setting it needs, and its errors read."""

from __future__ import annotations

import ctypes
import logging
import os
import sqlite3
import sys
import time
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import quote

from taskharbor.drivers.sqlite.place import Place
from taskharbor.errors import SchemaError, StoreError, StoreUnavailable, TaskHarborError, UnusableStoreError

T = TypeVar("T")

logger = logging.getLogger("taskharbor.sqlite")

LEAST_VERSION = (3, 38, 0)
"""JSON by the `->>` operator; RETURNING, UPDATE FROM and row values are older."""

_PASSING = frozenset(
    {
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    }
)
"""Errors that come from outside, and may go again."""

_AGAIN_SECONDS = 0.002

_SETTINGS = (
    # A commit is on the disk when it is answered: in WAL mode FULL syncs the log at each commit, NORMAL does not
    # (https://www.sqlite.org/pragma.html#pragma_synchronous).
    "PRAGMA synchronous = FULL",
    # On macOS alone: fsync() there leaves data in the drive's own cache.
    "PRAGMA fullfsync = ON",
    "PRAGMA checkpoint_fullfsync = ON",
    "PRAGMA cache_size = -16384",
    "PRAGMA temp_store = MEMORY",
    # The log is folded back by `checkpoint`, and cut back to 64 MB after a burst.
    "PRAGMA wal_autocheckpoint = 0",
    "PRAGMA journal_size_limit = 67108864",
    # Waiting for the lock is ours (`transaction`): SQLite's own handler sleeps for longer and longer.
    "PRAGMA busy_timeout = 0",
)


def check_version(version: tuple[int, int, int] | None = None) -> None:
    """Check that Python's SQLite is new enough.

    Raises:
        UnusableStoreError: it is not; says what to do.
    """
    version = sqlite3.sqlite_version_info if version is None else version
    if version < LEAST_VERSION:
        has, needs = (".".join(map(str, numbers)) for numbers in (version, LEAST_VERSION))
        raise UnusableStoreError(
            f"this Python ({sys.executable}) is linked to SQLite {has}, and the driver needs {needs} (2022) or newer; "
            "use a Python that brings its own, such as uv's or conda's, or a newer distribution"
        )


def open_connection(place: Place) -> sqlite3.Connection:
    """Open a connection: in autocommit mode, for one thread at a time, with statements that fail at once on a lock.

    Raises:
        StoreUnavailable: the file is locked for longer than the place's `busy_timeout`.
        UnusableStoreError: the file cannot be used; says why.
    """
    check_version()
    place.check()
    fresh = not os.path.exists(place.path)
    try:
        connection = sqlite3.connect(
            place.path,
            timeout=0,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
    except sqlite3.Error as error:
        raise store_error(error, place, opening=True) from error
    _opened.add(connection)
    try:
        patiently(place, lambda: _prepare(connection, place, fresh=fresh))
    except sqlite3.Error as error:
        close(connection)
        raise store_error(error, place, opening=True) from error
    except BaseException:
        close(connection)
        raise
    return connection


def patiently(place: Place, act: Callable[[], T]) -> T:
    """Do something outside of transactions again while somebody else holds a lock, for the place's `busy_timeout`.

    SQLite's own handler does not wait for each: of several who open a fresh file, one alone turns it to WAL.
    """
    deadline = time.monotonic() + place.busy_timeout
    while True:
        try:
            return act()
        except sqlite3.Error as error:
            if not is_busy(error) or time.monotonic() >= deadline:
                raise
        time.sleep(_AGAIN_SECONDS)


def _prepare(connection: sqlite3.Connection, place: Place, *, fresh: bool) -> None:
    (encoding,) = connection.execute("PRAGMA encoding").fetchone()
    if encoding != "UTF-8":
        raise UnusableStoreError(
            f"{place.path} stores text as {encoding}; the driver needs UTF-8, which only a new file can have"
        )
    if fresh and sys.platform != "win32":
        _shut_out_others(connection, place)
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise UnusableStoreError(
            f"{place.path} cannot be put into WAL mode (it stays in {mode!r}): the file system under it gives no "
            "shared memory; use a local disk"
        )
    for setting in _SETTINGS:
        connection.execute(setting)


def _shut_out_others(connection: sqlite3.Connection, place: Place) -> None:
    """Keep payloads from other users: a new file is for its owner and group. Its log takes its mode over."""
    connection.execute("PRAGMA user_version").fetchone()  # makes the file
    mode = os.stat(place.path).st_mode
    # Only one process makes the file; opening it by other means than SQLite's would drop SQLite's locks.
    os.chmod(place.path, mode & 0o770)


def open_watch(place: Place) -> sqlite3.Connection:
    """Open a connection that only watches a file which is there; raises `sqlite3.Error` if it is not."""
    connection = sqlite3.connect(
        f"file:{quote(place.path)}?mode=rw",
        uri=True,
        timeout=0,
        isolation_level=None,
        check_same_thread=False,
    )
    _opened.add(connection)
    return connection


def close(connection: sqlite3.Connection) -> None:
    """Close a connection. Idempotent."""
    _opened.discard(connection)
    connection.close()


def is_busy(error: sqlite3.Error) -> bool:
    """Return whether somebody else holds a lock, so that the same may be tried again."""
    return _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def is_full(error: sqlite3.Error) -> bool:
    """Return whether there was no room to write."""
    return _code(error) == sqlite3.SQLITE_FULL


def store_error(error: sqlite3.Error, place: Place, *, opening: bool = False) -> TaskHarborError:
    """Return what an error of SQLite's means to the caller: try again later, or mend the deployment."""
    code, path, said = _code(error), place.path, f"SQLite says: {error}"
    if is_busy(error):
        return StoreUnavailable(
            f"{path} has been locked by another program for {place.busy_timeout:g} s ({said}); a transaction left "
            "open, perhaps in a shell. Jobs are written once it ends; ?busy_timeout=SECONDS in the URL waits longer"
        )
    if code == sqlite3.SQLITE_FULL or _extended(error) == sqlite3.SQLITE_IOERR_SHMSIZE:
        return StoreUnavailable(
            f"there is no room to write to {path} ({said}): the disk is full, or the file has reached its "
            "max_page_count; nothing of this step was written"
        )
    if code == sqlite3.SQLITE_TOOBIG:
        return StoreError(
            f"a job is larger than SQLite takes, a thousand million bytes ({said}); store the data elsewhere, and pass "
            "where it is"
        )
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return UnusableStoreError(
            f"{path} is damaged, or is no SQLite database ({said}); restore it from a backup, or save what can be "
            "read with `sqlite3 FILE .recover`"
        )
    if code == sqlite3.SQLITE_READONLY and (opening or _extended(error) == sqlite3.SQLITE_READONLY_DBMOVED):
        return UnusableStoreError(f"{path} cannot be written to ({said})")
    if code == sqlite3.SQLITE_CANTOPEN and opening:
        return UnusableStoreError(
            f"{path} cannot be opened ({said}); see that the directory is there and that this user may write in it"
        )
    # "no such table: taskharbor_job", "no such column: k.digest", "table taskharbor_key has no column named ttl"
    if code == sqlite3.SQLITE_ERROR and ("taskharbor_" in str(error) or "no such " in str(error)):
        return SchemaError(
            f"the tables in {path} are not as this release left them ({said}); see `taskharbor migrate`"
        )
    if opening and code not in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PROTOCOL):
        return UnusableStoreError(f"{path} cannot be used ({said})")
    if code in _PASSING:
        return StoreUnavailable(f"{path} cannot be used now ({said})")
    return StoreError(f"{path}: {said}; this is a bug in the driver, please report it")


def _code(error: sqlite3.Error) -> int:
    return _extended(error) & 0xFF


def _extended(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0) or 0)


# A forked child must neither use nor close its parent's connections: closing could end the parent's locks and fold its
# log away (https://www.sqlite.org/howtocorrupt.html, section 2.6). So there they are kept for ever.
_opened: set[sqlite3.Connection] = set()


def _abandon() -> None:
    for connection in list(_opened):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
    _opened.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon)
