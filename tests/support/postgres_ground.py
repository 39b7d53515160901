"""A schema of a test's own on some server, with TaskHarbor's tables; looking into it, and making trouble there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta

import msgspec
import psycopg
from psycopg.rows import TupleRow

from taskharbor.driver import JobEnqueue, JobReserve, ProducerStore, QueueTake
from taskharbor.drivers.postgres import Place, PostgresDriver
from taskharbor.job import DEFAULT_QUEUE, NewJob, new_token
from taskharbor_conformance.bench import BUILD, TASK, WORKER, new_job
from tests.fixtures.support import untyped
from tests.support.postgres import new_schema_name
from tests.support.work import ENOUGH, eventually

Connection = psycopg.Connection[TupleRow]

_UNTROUBLED = (
    "-c default_transaction_read_only=off -c statement_timeout=0 -c lock_timeout=0 "
    r"-c default_transaction_isolation=read\ committed"
)
OURS = "taskharbor"
OTHERS = "test"
"""What our connections call themselves."""
MUCH = 1000
"""More jobs than a test has."""


class Ground:
    """A schema with TaskHarbor's tables."""

    def __init__(self, conninfo: str) -> None:
        self.conninfo = conninfo
        self.schema = new_schema_name()
        self.url = f"{conninfo}{'&' if '?' in conninfo else '?'}schema={self.schema}"
        driver = self.driver(migrate=True)
        driver.migrate()
        driver.close()

    def place(self, *, pool_size: int = 10, prepare: bool = True, migrate: bool = False) -> Place:
        return Place(
            conninfo=self.conninfo, schema=self.schema, pool_size=pool_size, prepare=prepare, migrate=migrate
        )

    def driver(self, *, pool_size: int = 10, prepare: bool = True, migrate: bool = False) -> PostgresDriver:
        return PostgresDriver(self.place(pool_size=pool_size, prepare=prepare, migrate=migrate))

    @contextmanager
    def producing(self, *, pool_size: int = 10, prepare: bool = True) -> Generator[ProducerStore]:
        """Open a blocking store."""
        driver = self.driver(pool_size=pool_size, prepare=prepare)
        try:
            with driver.connect_blocking() as store:
                yield store
        finally:
            driver.close()

    def empty(self) -> None:
        """Remove all jobs."""
        self.do(
            "DELETE FROM job; DELETE FROM lease; DELETE FROM history; DELETE FROM key; DELETE FROM worker; "
            "DELETE FROM input; DELETE FROM flow"
        )

    # --- looking into it

    def connect(self) -> Connection:
        """Return another program's connection, in autocommit mode. What troubles us does not trouble it."""
        return psycopg.connect(
            self.conninfo, autocommit=True, application_name=OTHERS, connect_timeout=10, options=_UNTROUBLED
        )

    def do(self, statement: str, *params: object) -> list[TupleRow]:
        """Run a statement as another program would, the schema being the one that it means, and return its rows."""
        with self.connect() as connection:
            return self.do_on(connection, statement, *params)

    def do_on(self, connection: Connection, statement: str, *params: object) -> list[TupleRow]:
        connection.execute("SELECT set_config('search_path', %s, false)", (self.schema,))
        done = connection.execute(untyped(statement), params or None)
        return done.fetchall() if done.description else []

    def ids(self, table: str = "job") -> list[str]:
        """Return the ids of the live jobs, or those in another table, sorted."""
        rows = self.do(f"SELECT {'job_id' if table == 'key' else 'id'}::text FROM {table} ORDER BY 1")
        return [job_id for (job_id,) in rows]

    def count(self, table: str) -> int:
        """Return how many rows a table has."""
        ((rows,),) = self.do(f"SELECT count(*) FROM {table}")
        return int(rows)

    # --- troubling it

    def backends(self) -> list[int]:
        """Return the processes on the server's side of all our connections."""
        return [
            pid for (pid,) in self.do("SELECT pid FROM pg_stat_activity WHERE application_name = %s", OURS)
        ]

    def idle_in_transaction(self) -> int:
        """Return in how many transactions of ours nothing is done."""
        ((count,),) = self.do(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND state LIKE 'idle in%%'",
            OURS,
        )
        return int(count)

    def await_waiting(self, count: int, whose: str = OURS) -> None:
        """Wait until so many statements wait for locks: ours, or those of other programs."""

        eventually(lambda: self.waiting(whose) == count, f"{count} statements wait")

    def waiting(self, whose: str = OURS) -> int:
        """Return how many statements wait for locks."""
        ((count,),) = self.do(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND wait_event_type = 'Lock'",
            whose,
        )
        return int(count)

    def cut(self) -> None:
        """Cut all our connections, and wait until they are gone."""
        cut = set(self.backends())
        self.do("SELECT pg_terminate_backend(pid) FROM unnest(%s) pid", list(cut))
        eventually(lambda: not cut & set(self.backends()), "their end")

    @contextmanager
    def holding(self, statement: str, *params: object) -> Generator[Connection]:
        """Hold the locks of a statement for a block, or until the connection is rolled back."""
        with self.connect() as connection:
            connection.execute("BEGIN")
            self.do_on(connection, statement, *params)
            yield connection
            connection.rollback()

    def remove(self) -> None:
        self.do(f"DROP SCHEMA {self.schema} CASCADE")


# --- short ways to ask


def put(store: ProducerStore, *jobs: NewJob) -> list[str]:
    """Store jobs, one of no particular kind if none is given, and return their ids."""
    return [answer.job_id for answer in store.job_enqueue(JobEnqueue(jobs=jobs or (new_job(),)))]


def a_reserve(limit: int = MUCH, *, lease: timedelta = timedelta(seconds=30), token: int = 0) -> JobReserve:
    """Return a reserve of any job."""
    return JobReserve(
        queues=[QueueTake(DEFAULT_QUEUE, limit)],
        limit=limit,
        lease=lease,
        token=token or new_token(),
        worker=WORKER,
        tasks=frozenset({TASK}),
        build=BUILD,
        guarded_limit=limit,
        solo=True,
    )


class Took(msgspec.Struct):
    """How long something took."""

    seconds: float = 0.0


@contextmanager
def timed() -> Generator[Took]:
    """Measure the block."""
    took = Took()
    began = time.monotonic()
    try:
        yield took
    finally:
        took.seconds = time.monotonic() - began


def in_thread(work: Callable[[], object]) -> threading.Thread:
    """Begin some work in a thread; its errors show as the test's."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def join(thread: threading.Thread) -> None:
    """Wait for a thread that must come to its end."""
    thread.join(ENOUGH.total_seconds())
    assert not thread.is_alive()
