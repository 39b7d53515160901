"""SQLite stores in a test: opening them, looking into their files, and other programs that use the same file."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar
from unittest import mock

from taskharbor.driver import Enqueued, JobEnqueue, ProducerStore
from taskharbor.drivers.sqlite import SqliteDriver
from taskharbor.drivers.sqlite.place import Place
from taskharbor.job import NewJob
from taskharbor_conformance.bench import Bench, new_job
from tests.fixtures.support import ROOT, SOURCES
from tests.support.work import ENOUGH

T = TypeVar("T")
Cell = str | int | float | bytes | None

PATIENT = ENOUGH.total_seconds()


def driver_on(path: Path | str, *, busy_timeout: float = PATIENT) -> SqliteDriver:
    """Return a driver for a file; it waits for locks as long as a test waits for anything."""
    return SqliteDriver(Place(os.path.abspath(path), busy_timeout=busy_timeout))


@contextmanager
def producing(path: Path | str, *, busy_timeout: float = PATIENT) -> Generator[ProducerStore]:
    """Open a blocking store on a file."""
    driver = driver_on(path, busy_timeout=busy_timeout)
    try:
        with driver.connect_blocking() as store:
            yield store
    finally:
        driver.close()


def put(store: ProducerStore, *jobs: NewJob) -> Sequence[Enqueued]:
    """Store jobs, one of no particular kind if none is given."""
    return store.job_enqueue(JobEnqueue(jobs=jobs or (new_job(),)))


def put_some(path: Path | str, count: int = 1) -> list[str]:
    """Make a store with some jobs in it, all closed again, and return their ids in order."""
    jobs = [new_job() for _ in range(count)]
    with producing(path) as store:
        put(store, *jobs)
    return [job.id for job in jobs]


def with_bench(
    path: Path | str, work: Callable[[Bench], Awaitable[T]], *, busy_timeout: float = PATIENT
) -> T:
    """Return what `work` returns, run on an event loop with a bench on a file."""
    driver = driver_on(path, busy_timeout=busy_timeout)

    async def main() -> T:
        async with Bench(driver, lambda: driver) as bench:
            return await work(bench)

    try:
        return asyncio.run(main())
    finally:
        driver.close()


def ask_file(path: Path | str, sql: str, params: Sequence[Cell] = ()) -> list[tuple[Cell, ...]]:
    """Run one statement on a file, as another program would, and return its rows."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=PATIENT)) as connection:
        return connection.execute(sql, params).fetchall()


def stored(path: Path | str) -> list[str]:
    """Return the ids of the live jobs in a file, sorted."""
    return [str(row[0]) for row in ask_file(path, "SELECT id FROM taskharbor_job ORDER BY id")]


BEGIN = """
import os, sqlite3, sys
def say(word="ready"):
    print(word, flush=True)
def wait():
    return sys.stdin.readline().strip()
path = sys.argv[1]
"""
HOLDS_THE_LOCK = """
connection = sqlite3.connect(path, isolation_level=None, timeout=20)
connection.execute("BEGIN IMMEDIATE")
say()
wait()
connection.execute("COMMIT")
connection.close()
"""


class OtherProgram:
    """A process of its own on the same file: it says a word when it is ready, and goes on when told to."""

    def __init__(self, path: Path | str, code: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", BEGIN + code, str(path)],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(map(str, (SOURCES, ROOT / "conformance", ROOT))),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def hear(self) -> str:
        """Return the next line it says."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the other program ended with {self.process.wait()}"
        return line.strip()

    def tell(self, line: str = "") -> None:
        """Let it go on."""
        stdin = self.process.stdin
        assert stdin is not None
        stdin.write(line + "\n")
        stdin.flush()

    def end(self) -> None:
        """Wait until it has ended by itself, and well."""
        assert self.process.wait(PATIENT) == 0


@contextmanager
def lock_held(path: Path | str) -> Generator[OtherProgram]:
    """Let another program hold the file's lock for writing; telling it something ends its transaction."""
    with OtherProgram(path, HOLDS_THE_LOCK) as other:
        other.hear()
        yield other


def as_nobody(path: Path | str, code: str) -> str:
    """Return what a program says that runs as a user who may do nothing in particular."""
    drop = "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n" if os.getuid() == 0 else ""
    imports = "import taskharbor_conformance\nfrom taskharbor.drivers.sqlite import SqliteDriver\n"
    imports += "from tests.support.sqlite import *\n"
    with OtherProgram(path, imports + drop + code) as other:
        said = other.process.communicate(timeout=PATIENT)[0]
        assert other.process.returncode == 0, said
        return said


@contextmanager
def connections_noted() -> Generator[list[sqlite3.Connection]]:
    """Return a list of the connections that this process opens within the block."""
    opened: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def noting(*args: Any, **settings: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **settings)
        opened.append(connection)
        return connection

    with mock.patch.object(sqlite3, "connect", noting):
        yield opened
