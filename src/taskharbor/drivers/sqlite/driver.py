"""The SQLite driver as a whole: opening stores on one file, migrating it, waking those who wait."""

from __future__ import annotations

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

from taskharbor.clock import Clock, SystemClock
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
from taskharbor.drivers.sqlite.connection import open_connection
from taskharbor.drivers.sqlite.joining import JoinedConnection, check_connection
from taskharbor.drivers.sqlite.place import Place, from_url
from taskharbor.drivers.sqlite.routine import Routine
from taskharbor.drivers.sqlite.rows import Step
from taskharbor.drivers.sqlite.store import BlockingSqliteStore, SqliteStore
from taskharbor.drivers.sqlite.transaction import Ask, Transactions
from taskharbor.errors import SchemaError

T = TypeVar("T")


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
        if schema_missing(self.schema_version()):
            self.migrate()
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
        return schema.MIGRATIONS

    def schema_version(self) -> SchemaVersion:
        """Return where the file's tables stand. Makes the file if there is none."""
        return self._once(schema.version, writes=False)

    def migrate(self) -> Sequence[Migration]:
        """Bring the tables to the version wanted, and return what was run."""
        return self._once(schema.migrate, writes=True)

    def _once(self, verb: Callable[[Step, Request], Routine[T]], *, writes: bool) -> T:
        """Run one routine on a connection opened for it."""
        transactions = self._connect_raw()
        try:
            return _ask(transactions, verb, writes=writes)
        finally:
            transactions.close()

    def _open(self) -> tuple[Transactions, Callable[[], None]]:
        transactions = self._connect_raw()
        try:
            stands = _ask(transactions, schema.version, writes=False)
            try:
                schema.refuse_newer(stands)
            except SchemaError as error:
                raise SchemaError(f"{self._place.path}: {error}") from None
            if schema_missing(stands):
                _ask(transactions, schema.migrate, writes=True)
        except BaseException:
            transactions.close()
            raise
        return transactions, transactions.close

    def _connect_raw(self) -> Transactions:
        """Open a connection, whatever its tables."""
        return Transactions(open_connection(self._place), self._place, self._clock, self._bell)


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
