"""Bells in a test: a schema with a small job table, bells on it, and what another program does there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from uuid import uuid4

import msgspec
import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

from taskharbor.drivers.postgres.bell import Bell
from taskharbor.drivers.postgres.bell.notice import Notice, read
from tests.fixtures.support import untyped
from tests.support.postgres import new_schema_name
from tests.support.work import ENOUGH, await_event, eventually, threads_named

Connection = psycopg.Connection[TupleRow]

THREADS = "taskharbor-bell"
LISTENER, SENDER = "listener", "sender"


class Place:
    """A schema with a job table, on some server; its name is the channel, too."""

    def __init__(self, conninfo: str) -> None:
        self.conninfo = conninfo
        self.schema = new_schema_name()
        self.opened: list[str] = []
        """Which connections the bells have opened, in order."""
        self.bells: list[Bell] = []
        self.do("CREATE SCHEMA {schema}")
        self.do(
            "CREATE TABLE {job} (id uuid PRIMARY KEY, awaited boolean NOT NULL DEFAULT false, token bigint,"
            " due timestamptz NOT NULL)"
        )

    def connect(self, name: str = "test") -> Connection:
        return psycopg.connect(
            self.conninfo, autocommit=True, application_name=self._application(name), connect_timeout=10
        )

    def opener(self, name: str) -> Callable[[], Connection]:
        def open_() -> Connection:
            self.opened.append(name)
            return self.connect(name)

        return open_

    def bell(
        self,
        *,
        listener: Callable[[], Connection] | None = None,
        sender: Callable[[], Connection] | None = None,
    ) -> Bell:
        """Return a bell, which is closed when the test ends."""
        bell = Bell(
            listener or self.opener(LISTENER), sender or self.opener(SENDER), self.schema, self.schema
        )
        self.bells.append(bell)
        return bell

    def do(self, statement: str, *params: object) -> list[TupleRow]:
        """Run a statement with `{schema}` and `{job}` in it, on a connection of its own, and return its rows."""
        with self.connect() as connection:
            return self.do_on(connection, statement, *params)

    def do_on(self, connection: Connection, statement: str, *params: object) -> list[TupleRow]:
        names = {"schema": sql.Identifier(self.schema), "job": sql.Identifier(self.schema, "job")}
        done = connection.execute(sql.SQL(untyped(statement)).format(**names), params)
        return done.fetchall() if done.description else []

    def notify(self, payload: str) -> None:
        """Say something on the channel, as anybody may."""
        self.do("SELECT pg_notify(%s, %s)", self.schema, payload)

    def new_job(self, *, due: str = "1 hour", token: int | None = 1) -> str:
        """Return the id of a new row, of a running job if nothing else is said.

        Args:
            due: in what time.
            token: of the lease.
        """
        job_id = str(uuid4())
        self.do(
            "INSERT INTO {job} (id, due, token) VALUES (%s, clock_timestamp() + %s::text::interval, %s)",
            *(job_id, due, token),
        )
        return job_id

    def marked(self, job_id: str) -> bool:
        """Return whether a row is marked."""
        ((awaited,),) = self.do("SELECT awaited FROM {job} WHERE id = %s", job_id)
        return bool(awaited)

    def backends(self, name: str) -> list[int]:
        """Return the process ids of the server's side of some bells' connections."""
        rows = self.do(
            "SELECT pid FROM pg_stat_activity WHERE application_name = %s", self._application(name)
        )
        return [pid for (pid,) in rows]

    def terminate(self, name: str) -> None:
        """Cut the connections of this kind."""
        (pid,) = self.backends(name)
        self.do("SELECT pg_terminate_backend(%s, 20000)", pid)

    def close(self) -> None:
        for bell in self.bells:
            bell.close()
        eventually(lambda: not threads_named(THREADS), "the threads end")

    def remove(self) -> None:
        self.do("DROP SCHEMA {schema} CASCADE")

    def _application(self, name: str) -> str:
        return f"{name}-{self.schema}"


class Counter:
    """A callback that counts its calls."""

    def __init__(self) -> None:
        self.count = 0
        self._called = threading.Condition()

    def __call__(self) -> None:
        with self._called:
            self.count += 1
            self._called.notify_all()

    def wait_beyond(self, count: int) -> None:
        """Wait until it was called more than so often."""
        with self._called:
            assert self._called.wait_for(lambda: self.count > count, ENOUGH.total_seconds()), "never woken"


def await_hearing(place: Place, bell: Bell) -> None:
    """Wait until a bell that somebody watches with hears, and all who watch have been woken for that."""
    inner = untyped(bell)
    eventually(lambda: inner._listening is not None and inner._listening.up, "it listens")
    await_heard(place, bell)
    await_heard(
        place, bell
    )  # what answered the first time may have been the wake-up for listening from now on


def await_heard(place: Place, bell: Bell) -> None:
    """Wait until all that was said on the channel so far has reached a bell."""
    probe = f"probe-{uuid4()}"
    reached = threading.Event()
    remove = bell.subscribe_queues([probe], reached.set)
    place.notify(msgspec.json.encode(Notice("test", [probe], [])).decode())
    await_event(reached)
    remove()


@contextmanager
def watching(place: Place, bell: Bell, *queues: str) -> Generator[Counter]:
    """Return a counter of the wake-ups for some queues, of a bell that hears."""
    counter = Counter()
    remove = bell.subscribe_queues(queues or ("default",), counter)
    await_hearing(place, bell)
    counter.count = 0
    try:
        yield counter
    finally:
        remove()


@contextmanager
def overhearing(place: Place) -> Generator[Callable[[], Sequence[str]]]:
    """Return a function that returns the payloads on the channel since it was last called."""
    with place.connect("overhearing") as connection:
        place.do_on(connection, "LISTEN {schema}")

        def heard() -> list[str]:
            # An answer comes after all that was said before the question.
            place.do_on(connection, "SELECT 1")
            return [notification.payload for notification in connection.notifies(timeout=0)]

        yield heard


def notices(texts: Sequence[str]) -> Iterator[Notice]:
    """Return what payloads say."""
    for text in texts:
        notice = read(text.encode())
        assert notice is not None
        yield notice
