"""The SQLite driver as a whole: opening stores on one file, migrating it, waking those who wait."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import msgspec

from taskharbor.clock import Clock, SystemClock, micros
from taskharbor.driver import (
    Capability,
    Joined,
    Migration,
    ProducerStore,
    Request,
    SchemaVersion,
    Store,
    Subscription,
    Wake,
)
from taskharbor.drivers.sqlite import schema
from taskharbor.drivers.sqlite.bell import JOBS, QUEUES, Bell
from taskharbor.drivers.sqlite.connection import close, open_watch, patiently, store_error
from taskharbor.drivers.sqlite.joining import JoinedConnection, check_connection
from taskharbor.drivers.sqlite.place import Place, from_url
from taskharbor.drivers.sqlite.routine import Routine, Wakes
from taskharbor.drivers.sqlite.rows import OptionsBook, Step
from taskharbor.drivers.sqlite.store import BlockingSqliteStore, SqliteStore
from taskharbor.drivers.sqlite.transaction import Ask, Transactions, carry
from taskharbor.errors import SchemaError, StoreUnavailable, UsageError

T = TypeVar("T")

_BRIEFLY = 0.1
"""Seconds."""


def open_driver(url: str) -> SqliteDriver:
    """Return a driver for `sqlite:///relative.db` or `sqlite:////absolute.db`. Opens nothing yet.

    Raises:
        DriverURLError: the URL names no file.
    """
    return SqliteDriver(from_url(url))


class SqliteDriver:
    """A store in one file, shared by every process of this machine that opens it. Migrated when first opened.

    Safe to use from any thread and event loop.
    """

    def __init__(self, path: str | Path | Place, clock: Clock | None = None) -> None:
        """Prepare a store in this file; opens nothing yet. `clock` is by default the machine's."""
        if not isinstance(path, Place):
            path = Place(str(Path(path).absolute()))
        self._place = path
        self._clock = clock or SystemClock()
        self._bell = Bell(path)
        self._clock.on_turn(self._bell.wake_everybody)

    name = "sqlite"
    capabilities = frozenset(Capability)
    # The bell notices by itself what nobody rang for; this is for the turn of the machine's clock, and for bugs.
    poll_interval = timedelta(seconds=1)

    @property
    def path(self) -> str:
        """Return the file's absolute path."""
        return self._place.path

    def connect(self) -> AbstractAsyncContextManager[Store]:
        """Open a store for the running event loop."""
        return self._connect()

    @asynccontextmanager
    async def _connect(self) -> AsyncGenerator[Store]:
        store = SqliteStore(self._open)
        await store.open()
        try:
            yield store
        finally:
            await store.close()

    def connect_blocking(self) -> AbstractContextManager[ProducerStore]:
        """Open a blocking store."""
        return self._connect_blocking()

    @contextmanager
    def _connect_blocking(self) -> Generator[ProducerStore]:
        transactions, end = self._open()
        try:
            yield BlockingSqliteStore(transactions)
        finally:
            end()

    def join(self, connection: object) -> Joined:
        """Return the way into a sqlite3 connection's transaction; see `Harbor.using`."""
        joined = check_connection(connection, self._place)
        if schema_missing(self._checked(self.schema_version())):
            try:
                # An open transaction may be one that writes: we would wait for it, and it for us.
                patience = _BRIEFLY if joined.in_transaction else self._place.busy_timeout
                SqliteDriver(
                    msgspec.structs.replace(self._place, busy_timeout=patience), self._clock
                ).migrate()
            except StoreUnavailable as error:
                if not joined.in_transaction:
                    raise
                raise UsageError(
                    f"harbor.using(): {self._place.path} has no tables for jobs yet, and none can be made while this "
                    "transaction is open; run `taskharbor migrate` once, when you deploy"
                ) from error
        return JoinedConnection(joined, self._place, self._clock, self._bell)

    def watch_queues(self, queues: Sequence[str], wake: Wake) -> Subscription:
        """Wake when jobs of these queues may have become due."""
        return _Subscription(self._bell.subscribe(QUEUES, list(queues), wake))

    def watch_jobs(self, ids: Sequence[str], wake: Wake) -> Subscription:
        """Wake when one of these jobs may have reached a terminal state."""
        return _Subscription(self._bell.subscribe(JOBS, list(ids), wake))

    def close(self) -> None:
        """End the thread that hears wake-ups. Idempotent."""
        self._bell.close()

    # --- migrations

    @property
    def migrations(self) -> Sequence[Migration]:
        """Return every migration this release knows, in order."""
        return schema.scripts()

    @property
    def server(self) -> str:
        """Return what stores the jobs, with its version."""
        return f"SQLite {sqlite3.sqlite_version}"

    def schema_version(self) -> SchemaVersion:
        """Return where the file's tables stand, changing nothing: no file is made where there is none."""
        self._place.check()
        if not os.path.exists(self._place.path):
            return SchemaVersion(0, schema.WANTED)
        try:
            connection = open_watch(self._place)
        except sqlite3.Error as error:
            raise store_error(error, self._place, opening=True) from error
        try:
            step = Step(micros(self._clock.now()), OptionsBook(), Wakes())
            return patiently(self._place, lambda: carry(connection.cursor(), schema.version(step, Request())))
        except sqlite3.Error as error:
            raise store_error(error, self._place, opening=True) from error
        finally:
            close(connection)

    def migrate(self, to: int | None = None) -> Sequence[Migration]:
        """Bring the tables to the version wanted, or only to `to`, and return what was run."""
        wanted = schema.checked_version(to)
        self._checked(self.schema_version())
        transactions = self._connect_raw()
        try:
            return _ask(
                transactions, lambda step, request: schema.migrate(step, request, wanted), writes=True
            )
        finally:
            transactions.close()

    def _open(self) -> tuple[Transactions, Callable[[], None]]:
        transactions = self._connect_raw()
        try:
            stands = _ask(transactions, schema.version, writes=False)
            if schema_missing(self._checked(stands)):
                _ask(transactions, schema.migrate, writes=True)
        except BaseException:
            transactions.close()
            raise
        return transactions, transactions.close

    def _checked(self, stands: SchemaVersion) -> SchemaVersion:
        """Return it, if this release can work with it."""
        try:
            schema.refuse_newer(stands)
        except SchemaError as error:
            raise SchemaError(f"{self._place.path}: {error}") from None
        return stands

    def _connect_raw(self) -> Transactions:
        """Open a connection, whatever its tables."""
        return Transactions(self._place, self._clock, self._bell)


def schema_missing(stands: SchemaVersion) -> bool:
    """Return whether there is something to migrate."""
    return stands.present < stands.wanted


def _ask(transactions: Transactions, verb: Callable[[Step, Request], Routine[T]], *, writes: bool) -> T:
    ask = Ask(verb, Request(), writes=writes)
    transactions.run([ask])
    return ask.result()


class _Subscription:
    def __init__(self, remove: Callable[[], None]) -> None:
        self._remove = remove

    def close(self) -> None:
        """End the subscription."""
        self._remove()
