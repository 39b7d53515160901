"""The application of the demo: where its jobs are, and the task that imports chemical elements.

`quickstart.py` drives it. A worker of its own finds it by this file: `taskharbor --app examples/elements.py worker`.
Run by itself it prints the task's JSON Schema.
"""

import csv
import sqlite3
import time
from collections import Counter
from collections.abc import Generator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

import msgspec

from taskharbor import Context, Harbor, Retry, task

# --- The types. What goes into a job and what comes out are plain typed values; msgspec Structs, here.


class Element(msgspec.Struct, frozen=True):
    """One row of the source."""

    number: int
    symbol: str
    name: str
    atomic_mass: float | None
    discovered: int | None
    phase: str


class Imported(msgspec.Struct, frozen=True):
    """What one job reports."""

    rows: int
    phases: dict[str, int]
    attempt: int


class Files(msgspec.Struct, frozen=True):
    """What handlers need and no payload should carry: the worker's dependencies."""

    source: Path
    target: Path


# --- The harbor: where the jobs are, and what each worker builds once for its handlers.


@contextmanager
def files() -> Generator[Files]:
    """Give the handlers their files, in the worker's directory."""
    found = Files(Path("elements.csv"), Path("elements.db"))
    with closing(sqlite3.connect(found.target)) as db, db:
        db.execute(
            "CREATE TABLE IF NOT EXISTS element (number INTEGER PRIMARY KEY, symbol TEXT, name TEXT, "
            "atomic_mass REAL, discovered INTEGER, phase TEXT)"
        )
    yield found


# Nothing is opened before the first call. Who works elsewhere says so: `harbor.at(URL)`, or `--url URL`.
harbor = Harbor("sqlite:///jobs.db", deps=files)


# --- The task. Its signature is the whole definition: `ctx` is injected by the worker, the rest is the payload.


@task(
    queue="import",
    retry=Retry(
        max_attempts=3,
        base=timedelta(milliseconds=400),
        jitter=False,  # So that the demo is the same each time. Leave it on in real life: it spreads the load.
        on={ValueError: Retry.never},  # A bad row stays bad.
    ),
)
def import_chunk(ctx: Context[Files], first: int, last: int) -> Imported:
    """Import the elements with atomic numbers from `first` to `last`."""
    elements = read_elements(ctx.deps.source, first, last)
    await_source(ctx, first)
    # A job may run more than once: a worker can die after the insert and before that is known. So write in a way
    # that gives the same rows the second time.
    with closing(sqlite3.connect(ctx.deps.target)) as db, db:
        db.executemany("INSERT OR REPLACE INTO element VALUES (?, ?, ?, ?, ?, ?)", map(as_row, elements))
    return Imported(len(elements), Counter(element.phase for element in elements), ctx.attempt)


def read_elements(source: Path, first: int, last: int) -> list[Element]:
    """Return some rows of the file, typed. Raises ValueError for a row that cannot be read."""
    with source.open(encoding="utf-8", newline="") as file:
        return [as_element(row) for row in csv.DictReader(file) if first <= int(row["number"]) <= last]


def as_element(row: dict[str, str]) -> Element:
    """Return a row, typed."""
    mass, year = row["atomic_mass"], row["discovered"]
    try:
        atomic_mass = float(mass) if mass else None
    except ValueError:
        raise ValueError(f"row {row['number']} ({row['name']}): atomic_mass {mass!r} is no number") from None
    return Element(
        int(row["number"]), row["symbol"], row["name"], atomic_mass, int(year) if year else None, row["phase"]
    )


def as_row(element: Element) -> tuple[object, ...]:
    """Return what is inserted."""
    return msgspec.structs.astuple(element)


# --- The troubles. The source is slow, and at the first attempt on some chunks it fails.

HANGS_UP_BELOW = 33
SILENT_FROM = 89


def await_source(ctx: Context[Files], first: int) -> None:
    """Wait for the source's answer. This is a plain `def`, so it runs in a thread and blocks nobody else."""
    time.sleep(0.25)
    if ctx.attempt == 1 and first < HANGS_UP_BELOW:
        raise ConnectionError("the source hung up")
    if ctx.attempt == 1 and first >= SILENT_FROM:
        # No answer, and no timeout was set, as so often. (`@task(timeout=...)` would be one.)
        for _ in range(1200):
            time.sleep(0.05)
            ctx.raise_if_cancelled()
        raise TimeoutError("the source did not answer for a minute")


if __name__ == "__main__":
    print(msgspec.json.format(msgspec.json.encode(import_chunk.schema())).decode())
