"""The server under test: started for each theme in a folder of its own, or one that the environment names.

Commits are durable, as in production; memory is what a small server has.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

from benchmarks.measure import Settings
from taskharbor.drivers.postgres import open_driver
from taskharbor.drivers.postgres.embedded import Server, find_binaries

VARIABLE = "TASKHARBOR_BENCH_POSTGRES"
"""Holds the URL of a server to measure instead; schemas `bench_...` are made in it, and removed."""
SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "max_connections": "100",
}
"""Of the servers that are started here."""


class Bench:
    """One server, asked by a connection that does nothing else."""

    def __init__(self, conninfo: str, connection: psycopg.Connection[TupleRow]) -> None:
        """Use a server that is up."""
        self.conninfo = conninfo
        self._connection = connection
        (words,) = self.rows("SELECT current_setting('data_directory') || '/postmaster.pid'")
        self._postmaster = _first_number(Path(words[0]))

    def rows(
        self, query: str, params: Sequence[object] | Mapping[str, object] | None = None
    ) -> Sequence[TupleRow]:
        """Return the rows of a statement; none where it gives none."""
        cursor = self._connection.execute(query.encode(), params)
        return cursor.fetchall() if cursor.description else []

    @contextmanager
    def schema(self) -> Generator[str]:
        """Give the URL of a schema with empty tables in it, removed at the end."""
        with self.named_schema() as name:
            url = self.url(name)
            driver = open_driver(url)
            driver.migrate()
            driver.close()
            yield url

    @contextmanager
    def named_schema(self) -> Generator[str]:
        """Give the name of a schema that will be removed; nobody has made it."""
        name = f"bench_{secrets.token_hex(4)}"
        try:
            yield name
        finally:
            self._connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(name)))

    def url(self, schema: str) -> str:
        """Return the URL of a schema."""
        return f"{self.conninfo}{'&' if '?' in self.conninfo else '?'}schema={schema}"

    def steady(self, *tables: str) -> None:
        """Bring tables and log to where a server at work has them: analyzed, nothing left to write."""
        for table in tables:
            self._connection.execute(f"VACUUM ANALYZE {table}".encode())
        self._connection.execute("CHECKPOINT")

    def cpu_seconds(self) -> float:
        """Return the processor time of all the server's processes, those that have ended included; 0 if unknown."""
        if self._postmaster is None:
            return 0.0
        return _cpu_seconds(self._postmaster)


def clock_of(settings: Settings, bench: Bench) -> Callable[[], float]:
    """Return the clock to time by: the wall's, or the processor time of this process and of the server's together."""
    if settings.clock == "wall":
        return time.perf_counter
    return lambda: time.process_time() + bench.cpu_seconds()


def server_version(settings: Settings) -> str:
    """Return which PostgreSQL is measured."""
    named = os.environ.get(VARIABLE, "")
    if named:
        with psycopg.connect(named) as connection:
            return connection.info.parameter_status("server_version") or ""
    postgres = (settings.binaries or find_binaries()) / "postgres"
    return subprocess.check_output([postgres, "--version"], text=True).split()[2]


def schema_of(url: str) -> str:
    """Return the schema in a URL of ours."""
    return url.rpartition("schema=")[2]


@contextmanager
def bench_server(settings: Settings, **more: str) -> Generator[Bench]:
    """Give a server of the theme's own, gone at the end; or the one that the environment names.

    Args:
        settings: which PostgreSQL, and on which disk.
        more: settings of PostgreSQL.
    """
    named = os.environ.get(VARIABLE, "")
    if named:
        with psycopg.connect(named, autocommit=True) as connection:
            yield Bench(named, connection)
        return
    folder = Path(tempfile.mkdtemp(prefix="taskharbor-bench-", dir=_disk(settings))).resolve()
    folder.chmod(0o711)  # as root we are not who runs it
    server = Server(folder / "server", binaries=settings.binaries, settings={**SETTINGS, **more})
    try:
        conninfo = server.start()
        with psycopg.connect(conninfo, autocommit=True) as connection:
            yield Bench(conninfo, connection)
    finally:
        server.stop()
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _disk(settings: Settings) -> str:
    """Return a folder on a disk: where temporary files are, unless that is memory."""
    if settings.directory is not None:
        return settings.directory
    found = tempfile.gettempdir()
    return "/var/tmp" if _in_memory(found) else found  # noqa: S108 - a folder of our own is made there


def _in_memory(folder: str) -> bool:
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    except OSError:  # no Linux
        return False
    path = os.path.realpath(folder)
    under = [mount for mount in mounts if os.path.commonpath([path, mount[1]]) == mount[1]]
    return bool(under) and max(under, key=lambda mount: len(mount[1]))[2] == "tmpfs"


def _first_number(file: Path) -> int | None:
    try:
        return int(file.read_text(encoding="utf-8").split()[0])
    except (OSError, ValueError):  # on another machine, or not ours to read
        return None


def _cpu_seconds(postmaster: int) -> float:
    while True:
        before = _spent(postmaster)
        found = {pid: _spent(pid) for pid in _children(postmaster)}
        if before == _spent(postmaster) and None not in found.values():  # or some have ended in between
            ticks = sum(before or ()) + sum(sum(spent[:2]) for spent in found.values() if spent is not None)
            return ticks / os.sysconf("SC_CLK_TCK")


def _spent(pid: int) -> tuple[int, ...] | None:
    """Return ticks of its own in user and system mode, and of its children that have ended; None if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return None
    return tuple(map(int, fields[11:15]))


def _children(parent: int) -> list[int]:
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text(encoding="ascii").rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[1]) == parent:
            found.append(int(folder.name))
    return found
