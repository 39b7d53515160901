"""A CSV file into a table: split, import the parts side by side, summarise. With what goes wrong on the way.

    split -> each(import_part) -> summarise

How many parts there are is known when `split` has counted the rows; `each` makes their jobs then. The data are the
world's 312 time zones. Four things go wrong, as they do:

1.  Two rows have coordinates that cannot be read. They are left out, and reported.
2.  The source hangs up on two parts. They fail, and are tried again by themselves.
3.  In one part stands a line of another encoding. Trying again would not help, so its job ends as a dead letter and the
    flow is `failed`: `summarise` waits. The task that was named by `on_failure` is told.
4.  We repair the line and requeue what is dead. The flow goes on from there: what was imported is not imported again.
"""

import csv
import re
import sqlite3
from collections import Counter
from collections.abc import Generator
from contextlib import closing, contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from taskharbor import (
    Context,
    FlowFailed,
    FlowFailure,
    FlowHandle,
    Harbor,
    JobState,
    Retry,
    chain,
    each,
    task,
)

DATA = Path(__file__).resolve().parent / "data" / "zones.csv"
ROWS = 50
"""In one part."""
HANGS_UP = (51, 201)
"""The parts on which the source fails first."""
PATIENCE = timedelta(seconds=30)

# --- What goes into the jobs and comes out. The rows themselves do not: they are in the file, and then in the table.


class Part(msgspec.Struct, frozen=True):
    """Some rows of a file."""

    source: str
    first: int
    """From 1, the header not counted."""
    last: int


class Imported(msgspec.Struct, frozen=True):
    """What came of a part."""

    rows: int
    left_out: list[str]
    regions: dict[str, int]


class Summary(msgspec.Struct, frozen=True):
    """What came of it all."""

    parts: int
    rows: int
    left_out: list[str]
    regions: dict[str, int]


# --- The tasks. The table's path is the worker's affair: a dependency, not a payload.


@task(name="zones.split")
def split(source: str, rows: int = ROWS) -> list[Part]:
    """Return the parts of a file. It looks at the number of lines alone."""
    count = Path(source).read_bytes().count(b"\n") - 1
    return [Part(source, first, min(first + rows - 1, count)) for first in range(1, count + 1, rows)]


@task(
    name="zones.import_part",
    retry=Retry(max_attempts=3, base=timedelta(milliseconds=100), on={UnicodeDecodeError: Retry.never}),
)
def import_part(ctx: Context[Path], part: Part) -> Imported:
    """Import a part. A second time gives the same rows: a worker can die when it has written, before that is known."""
    if ctx.attempt == 1 and part.first in HANGS_UP:
        raise ConnectionError("the source hung up")  # so that there is something to be seen
    good: list[tuple[str, str, float, float]] = []
    left_out: list[str] = []
    for row in read(part):
        try:
            good.append((row["zone"], row["countries"], *degrees(row["coordinates"])))
        except ValueError as error:
            left_out.append(f"{row['zone']}: {error}")
    with opened(ctx.deps) as db:
        db.executemany("INSERT OR REPLACE INTO zone VALUES (?, ?, ?, ?)", good)
    return Imported(len(good), left_out, Counter(zone.partition("/")[0] for zone, *_ in good))


@task(name="zones.summarise")
def summarise(parts: list[Imported]) -> Summary:
    """Add the parts up. They come in the order of the file, whichever was done first."""
    regions: Counter[str] = Counter()
    for part in parts:
        regions.update(part.regions)
    return Summary(
        len(parts),
        sum(part.rows for part in parts),
        [line for part in parts for line in part.left_out],
        regions,
    )


@task(name="zones.report")
def report(ctx: Context[Path], failure: FlowFailure) -> str:
    """Tell somebody. Here a table has to do; a mail or a ticket would be sent in the same way."""
    text = f"{failure.name} of {failure.meta['file']}: {failure.task} came to {failure.error_type}"
    with opened(ctx.deps) as db:
        db.execute("INSERT INTO report VALUES (?)", (text,))
    return text


# A chain of tasks is enqueued like its first task, any number of times: import_file.enqueue("zones.csv").
import_file = chain(split, each(import_part), summarise)


def send(source: Path) -> FlowHandle[Summary]:
    """Enqueue an import."""
    flow = import_file.configure(name="import", meta={"file": source.name}, on_failure=report)
    return flow.enqueue(str(source))


# --- Reading and writing.


def read(part: Part) -> list[dict[str, str]]:
    """Return the rows of a part. Raises UnicodeDecodeError for bytes that are no UTF-8."""
    lines = Path(part.source).read_bytes().split(b"\n")
    text = b"\n".join([lines[0], *lines[part.first : part.last + 1]]).decode("utf-8")
    return list(csv.DictReader(text.splitlines()))


def degrees(coordinates: str) -> tuple[float, float]:
    """Return latitude and longitude of ±DDMM±DDDMM or ±DDMMSS±DDDMMSS (ISO 6709)."""
    found = re.fullmatch(r"([+-])(\d\d)(\d\d)(\d\d)?([+-])(\d{3})(\d\d)(\d\d)?", coordinates)
    if found is None:
        raise ValueError(f"{coordinates!r} are no coordinates")
    parts = found.groups("0")
    latitude, longitude = (
        float(f"{sign}1") * (int(whole) + int(minutes) / 60 + int(seconds) / 3600)
        for sign, whole, minutes, seconds in (parts[:4], parts[4:])
    )
    return round(latitude, 4), round(longitude, 4)


@contextmanager
def opened(path: Path) -> Generator[sqlite3.Connection]:
    """Give a connection to the table, whose changes are kept if the block is left in good order."""
    with closing(sqlite3.connect(path)) as db, db:
        yield db


# --- The program.


def main(folder: Path) -> None:
    """Import a file that has its faults, and repair it on the way."""
    original = DATA.read_bytes()
    source, table = folder / "zones.csv", folder / "zones.db"
    source.write_bytes(
        original.replace(b"+4852+00220", b"48.87 N 2.33 E")  # Paris, by hand
        .replace(b"-3352+15113", b"-3352+1513")  # Sydney, a digit lost
        .replace(b"Greenland", "Grönland".encode("latin-1"))
    )
    with opened(table) as db:
        db.execute("CREATE TABLE zone (name TEXT PRIMARY KEY, countries TEXT, latitude REAL, longitude REAL)")
        db.execute("CREATE TABLE report (text TEXT)")

    with (
        Harbor(f"sqlite:///{folder / 'jobs.db'}", deps=lambda: nullcontext(table)) as harbor,
        harbor.worker_thread(),
    ):
        flow = send(source)
        try:
            flow.result(timeout=PATIENCE)
        except FlowFailed as failed:
            print(f"failed: {failed.task} after {failed.attempts} attempt: {failed.error_type}")
        print(f"the flow is {flow.status().flow}, and its last step {flow.status().state}")
        (told,) = harbor.jobs.find(tasks={report.name})
        print("reported:", report.handle(told.id).result(timeout=PATIENCE))

        source.write_bytes(source.read_bytes().replace("Grönland".encode("latin-1"), b"Greenland"))
        requeued = harbor.flows.retry(flow.id, reason="the line was repaired", by="ada")
        print(f"repaired, and requeued {requeued} step")

        summary = flow.result(timeout=PATIENCE)  # typed: a Summary
        print(f"the flow is {flow.status().flow}: {summary.rows} rows in {summary.parts} parts")
        for line in summary.left_out:
            print("left out:", line)
        print(", ".join(f"{region} {count}" for region, count in Counter(summary.regions).most_common(4)))
        tell_what_was_repeated(flow)

    with opened(table) as db:
        (rows,) = db.execute("SELECT count(*) FROM zone").fetchone()
        north, latitude = db.execute("SELECT name, latitude FROM zone ORDER BY latitude DESC").fetchone()
    print(f"{rows} rows in the table; the northernmost is {north}, at {latitude} degrees")


def tell_what_was_repeated(flow: FlowHandle[Summary]) -> None:
    """Print how many attempts the parts took."""
    steps = [step for step in flow.steps() if step.task == import_part.name]
    assert all(step.state is JobState.SUCCEEDED for step in steps)
    again = sum(step.attempt > 1 for step in steps)
    print(f"{len(steps)} parts, {again} of them at the second attempt")


if __name__ == "__main__":
    with TemporaryDirectory() as place:
        main(Path(place))
