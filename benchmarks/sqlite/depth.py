"""Depth: whether a job costs the same beside a million queued, a million kept in the history, or scheduled ahead.

A store is filled by copying one real row under other ids: what counts is how large the tables are.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from benchmarks.depth import counted, drain_some
from benchmarks.fixtures import fresh_folder, registry
from benchmarks.measure import Figures, Floor, Measure, Settings, Theme
from benchmarks.sqlite import bare
from taskharbor import Harbor
from taskharbor.job import new_job_id

_SHORT = 10_000
_DEEP = 1_000_000
_DRAINED = 20_000
"""Jobs timed in each round; as many are put in again, so that the depth stays."""
_FLAT = Floor(bound=0.9, of="ratio")


@contextmanager
def theme(settings: Settings) -> Generator[Theme]:
    """Open the theme: its stores are filled once and kept."""
    with fresh_folder(settings) as folder:
        stores = {name: folder / f"{name}.db" for name in ("short", "deep", "ahead")}
        for path in stores.values():
            _begin(path)
        _clone(stores["short"], "taskharbor_job", _SHORT, ("due", "run_at", "enqueued_at"))
        _clone(stores["deep"], "taskharbor_job", _DEEP, ("due", "run_at", "enqueued_at"))
        _clone(stores["deep"], "taskharbor_history", _DEEP, ("finished_at", "expires_at"))
        _clone(stores["ahead"], "taskharbor_job", _SHORT, ("due", "run_at", "enqueued_at"))
        # At a higher priority than what is due, so that every reserve meets them first.
        _clone(
            stores["ahead"], "taskharbor_job", _DEEP, ("due", "run_at"), ahead=timedelta(days=30), priority=0
        )
        yield Theme(
            name="depth",
            subjects=[_subject(settings, name, path) for name, path in stores.items()],
            measures=[
                Measure(
                    name=f"drain with {_DEEP:,} queued and in history : {_SHORT:,}",
                    unit="jobs/s",
                    ours="deep",
                    ceiling="short",
                    floor=_FLAT,
                ),
                Measure(
                    name=f"drain with {_DEEP:,} scheduled ahead : none",
                    unit="jobs/s",
                    ours="ahead",
                    ceiling="short",
                ),
            ],
        )


def _begin(path: Path) -> None:
    """Make a file with one job that has run and one that waits: the rows to copy."""
    with Harbor(f"sqlite:///{path}", registry=registry) as harbor:
        counted.enqueue("user@example.com", 0)
        harbor.run_until_idle()
        counted.enqueue("user@example.com", 0)


def _clone(
    path: Path,
    table: str,
    rows: int,
    instants: Sequence[str],
    *,
    ahead: timedelta = timedelta(0),
    priority: int | None = None,
) -> None:
    """Copy the first row of a table: new ids, and `instants` that follow one another by a microsecond."""
    with bare.connected(path) as connection:
        names = [str(row[1]) for row in connection.execute(f"PRAGMA table_info({table})")]
        changed = {"id": "?1", **{name: f"{name} + ?2" for name in instants}}
        if priority is not None:
            changed["priority"] = str(priority)
        connection.execute(f"CREATE TEMP TABLE model AS SELECT * FROM {table} LIMIT 1")  # noqa: S608
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            f"INSERT INTO {table} ({', '.join(names)}) "  # noqa: S608 - our own names
            f"SELECT {', '.join(changed.get(name, name) for name in names)} FROM model",
            _others(rows, ahead // timedelta(microseconds=1)),
        )
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _others(rows: int, ahead: int) -> Iterator[tuple[str, int]]:
    return ((new_job_id(), ahead + n) for n in range(rows))


def _subject(settings: Settings, name: str, path: Path) -> Callable[[], Figures]:
    def run() -> Figures:
        with Harbor(f"sqlite:///{path}", registry=registry) as harbor:
            harbor.enqueue_many([counted.s("user@example.com", n) for n in range(_DRAINED)])
            return {name: drain_some(harbor, _DRAINED, settings.clock)}

    return run
