"""The stores that chaos is let loose on: a SQLite file, and a schema of the session's PostgreSQL."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

from tests.support.sqlite import ask_file

if TYPE_CHECKING:
    from tests.support.postgres_ground import Ground

MICROS = 1_000_000

SQLITE, POSTGRES = "sqlite", "postgresql"
STORES = [SQLITE, POSTGRES]


class ChaosStore(Protocol):
    """What a test wants to know of a store, behind the library's back."""

    url: str

    def count(self, table: str) -> int:
        """Return how many rows a table has."""
        ...

    def ids(self, *tables: str) -> set[str]:
        """Return the ids of the jobs in some tables."""
        ...

    def lease_left(self) -> float:
        """Return for how many seconds the one lease is still valid."""
        ...

    def nobody_writes(self) -> bool:
        """Return whether nobody is in a transaction that holds locks, now that nobody but one process is at work."""
        ...

    def check(self) -> None:
        """Check that the store is whole, and its leases and jobs agree."""
        ...


# Of leases and jobs that do not agree; and of jobs that are in two places.
_DISAGREE = (
    """SELECT l.token, l.remaining, count(j.id) FROM {lease} l LEFT JOIN {job} j ON j.token = l.token
        GROUP BY l.token, l.remaining HAVING l.remaining <> count(j.id)""",
    "SELECT id FROM {job} WHERE token IS NOT NULL AND token NOT IN (SELECT token FROM {lease})",
    "SELECT id FROM ({all}) a GROUP BY id HAVING count(*) > 1",
)


class SqliteChaos:
    """A SQLite file."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "jobs.db"
        self.url = f"sqlite:///{self.path}"

    def count(self, table: str) -> int:
        ((rows,),) = ask_file(self.path, f"SELECT count(*) FROM taskharbor_{table}")
        assert isinstance(rows, int)
        return rows

    def ids(self, *tables: str) -> set[str]:
        return {str(job_id) for (job_id,) in ask_file(self.path, _all(*tables, prefix="taskharbor_"))}

    def lease_left(self) -> float:
        ((expires_at,),) = ask_file(self.path, "SELECT expires_at FROM taskharbor_lease")
        assert isinstance(expires_at, int)
        return expires_at / MICROS - time.time()

    def nobody_writes(self) -> bool:
        with closing(sqlite3.connect(self.path, isolation_level=None, timeout=0)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return False
            return True

    def check(self) -> None:
        assert [("ok",)] == ask_file(self.path, "PRAGMA integrity_check")
        everywhere = _all("job", "history", "dead", prefix="taskharbor_")
        for query in _DISAGREE:
            assert [] == ask_file(
                self.path, query.format(lease="taskharbor_lease", job="taskharbor_job", all=everywhere)
            )


class PostgresChaos:
    """A schema on a PostgreSQL server."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.url = ground.url

    def count(self, table: str) -> int:
        return self.ground.count(table)

    def ids(self, *tables: str) -> set[str]:
        return {str(job_id) for (job_id,) in self.ground.do(_all(*tables))}

    def lease_left(self) -> float:
        ((seconds,),) = self.ground.do("SELECT date_part('epoch', expires_at - clock_timestamp()) FROM lease")
        return float(seconds)

    def nobody_writes(self) -> bool:
        return self.ground.idle_in_transaction() == 0

    def check(self) -> None:
        for query in _DISAGREE:
            assert [] == self.ground.do(query.format(lease="lease", job="job", all=_all("job", "history")))


def _all(*tables: str, prefix: str = "") -> str:
    return " UNION ALL ".join(f"SELECT id FROM {prefix}{table}" for table in tables)


@contextmanager
def chaos_store(kind: str, folder: Path) -> Generator[ChaosStore]:
    """Return a new store of a kind; `folder` is for its files, if it has any."""
    if kind == SQLITE:
        yield SqliteChaos(folder)
        return
    pytest.importorskip("psycopg", reason="needs the extra `postgres`")
    from tests.support.postgres import server
    from tests.support.postgres_ground import Ground

    ground = Ground(server().conninfo)
    yield PostgresChaos(ground)
    ground.remove()
