"""The PostgreSQL driver as a whole: opening stores on one database, migrating it, waking those who wait."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from datetime import timedelta
from typing import TypeVar

import msgspec
import psycopg

from taskharbor.driver import (
    Capability,
    Joined,
    Migration,
    ProducerStore,
    SchemaVersion,
    Store,
    Subscription,
    Wake,
)
from taskharbor.drivers.postgres import migrating, schema
from taskharbor.drivers.postgres.bell import Bell
from taskharbor.drivers.postgres.carry import carry
from taskharbor.drivers.postgres.connection import check_version, open_connection
from taskharbor.drivers.postgres.desk import AsyncDesk, BlockingDesk, Shared
from taskharbor.drivers.postgres.embedded import Server, open_embedded_folder
from taskharbor.drivers.postgres.home import open_listening
from taskharbor.drivers.postgres.joining import join
from taskharbor.drivers.postgres.place import Place, from_url, with_settings
from taskharbor.drivers.postgres.refusal import store_error
from taskharbor.drivers.postgres.routine import Routine, Wakes
from taskharbor.drivers.postgres.store import BlockingPostgresStore, PostgresStore
from taskharbor.drivers.postgres.whole import whole_version

T = TypeVar("T")

_SCHEME = "postgresql"
EMBEDDED = f"{_SCHEME}+embedded"


def open_driver(url: str) -> PostgresDriver:
    """Return a driver for `postgresql://...` or `postgresql+embedded:///folder`. Connects to nothing yet.

    Raises:
        DriverURLError: the URL names no database.
        MissingExtraError: there is no PostgreSQL to embed.
    """
    if url.partition("://")[0].lower() != EMBEDDED:
        return PostgresDriver(from_url(url))
    found = open_embedded_folder(url)
    place = with_settings(url, Place(conninfo="", migrate=True), found.query)
    return PostgresDriver(place, Server(found.folder))


class PostgresDriver:
    """Jobs in a PostgreSQL database (13 and newer), in tables of its own.

    Safe to use from any thread and event loop.
    """

    def __init__(self, place: str | Place, server: Server | None = None) -> None:
        """Prepare a store in this database; connects to nothing yet.

        Args:
            place: a URL, or a place.
            server: is started at first use, tells how to connect, and is left when the driver is closed.
        """
        self._place = from_url(place) if isinstance(place, str) else place
        self._server = server
        self.name = _SCHEME if server is None else EMBEDDED
        self._made: Shared | None = None
        self._pid = 0
        self._bell = Bell(
            lambda: open_listening(self._ready()),
            lambda: open_connection(self._ready()),
            f"taskharbor.{self._place.schema}",
            self._place.schema,
        )

    capabilities = frozenset(Capability)
    poll_interval = timedelta(seconds=1)

    @property
    def place(self) -> Place:
        """Return the database, and how it is used."""
        return self._place

    @property
    def where(self) -> str:
        """Return which database that is, and the schema in it, in words and without the password."""
        return f"{self._place.name}, schema {self._place.schema!r}"

    @property
    def path(self) -> str | None:
        """Return the folder of a server that is ours to start."""
        return None if self._server is None else str(self._server.folder)

    def connect(self) -> AbstractAsyncContextManager[Store]:
        """Open a store for the running event loop."""
        return self._connect()

    @asynccontextmanager
    async def _connect(self) -> AsyncGenerator[Store]:
        # In a thread: a server may have to be started, or tables to be made.
        import asyncio

        shared = await asyncio.to_thread(self._shared)
        desk = AsyncDesk(shared)
        store = PostgresStore(desk)
        try:
            yield store
        finally:
            await store.close()
            desk.close()

    def connect_blocking(self) -> AbstractContextManager[ProducerStore]:
        """Open a blocking store."""
        return self._connect_blocking()

    @contextmanager
    def _connect_blocking(self) -> Generator[ProducerStore]:
        desk = BlockingDesk(self._shared())
        try:
            yield BlockingPostgresStore(desk)
        finally:
            desk.close()

    def join(self, connection: object) -> Joined:
        """Return the way into a connection's transaction; see `Harbor.using`."""
        return join(connection, self._shared())

    def watch_queues(self, queues: Sequence[str], wake: Wake) -> Subscription:
        """Wake when jobs of these queues may have become due."""
        return _Subscription(self._bell.subscribe_queues(queues, wake))

    def watch_jobs(self, ids: Sequence[str], wake: Wake) -> Subscription:
        """Wake when one of these jobs may have reached a terminal state."""
        return _Subscription(self._bell.subscribe_jobs(ids, wake))

    def close(self) -> None:
        """End the threads that hear and send wake-ups. Idempotent."""
        self._bell.close()
        self._made = None
        if self._server is not None:
            self._server.stop()

    # --- migrations

    @property
    def migrations(self) -> Sequence[Migration]:
        """Return every migration this release knows, in order, as it reads for this schema."""
        return migrating.migrations(self._place.schema)

    @property
    def server(self) -> str:
        """Return what stores the jobs, with its version, as it says itself; asks it."""
        with _opened(self._ready()) as connection:
            return f"PostgreSQL {connection.info.parameter_status('server_version')}"

    def schema_version(self) -> SchemaVersion:
        """Return where the database's tables stand, changing nothing: no folder is made where there is none."""
        if self._server is not None and not (self._server.folder / "data").exists():
            return SchemaVersion(0, schema.WANTED)
        return self._ask(whole_version(self._place))

    def migrate(self, to: int | None = None) -> Sequence[Migration]:
        """Bring the tables to the version wanted, or to `to`, and return what was run."""
        place = self._ready()
        with _opened(place) as connection:
            return migrating.migrate(connection, place, to=to)

    def _ask(self, routine: Routine[T]) -> T:
        place = self._ready()
        with _opened(place) as connection:
            return carry(psycopg.RawCursor(connection), routine, place.schema, prepare=False)

    def _ready(self) -> Place:
        """Return the place, its server started if that is ours to do."""
        if self._server is None:
            return self._place
        return msgspec.structs.replace(self._place, conninfo=self._server.start())

    def _shared(self) -> Shared:
        """Return what all stores share; made when first asked for, once the tables are known to be good."""
        if (
            self._made is None or self._pid != os.getpid()
        ):  # a forked child uses the server on its own account
            place = self._ready()
            with _opened(place) as connection:
                check_version(connection, place)
                stands = carry(
                    psycopg.RawCursor(connection), whole_version(place), place.schema, prepare=False
                )
                if stands.present < stands.wanted and place.migrate:
                    migrating.migrate(connection, place)
                else:
                    migrating.refuse_older(stands, place)
                migrating.refuse_newer(stands, place)
            self._made = Shared(place, self._ring, self._bell.channel, self._bell.announce)
            self._pid = os.getpid()
        return self._made

    def _ring(self, wakes: Wakes) -> None:
        self._bell.ring(wakes.queues, wakes.jobs)


@contextmanager
def _opened(place: Place) -> Generator[psycopg.Connection[tuple[object, ...]]]:
    try:
        with open_connection(place) as connection:
            yield connection
    except psycopg.Error as error:
        raise store_error(error, place) from error


class _Subscription:
    def __init__(self, remove: Callable[[], None]) -> None:
        self._remove = remove

    def close(self) -> None:
        """End the subscription."""
        self._remove()
