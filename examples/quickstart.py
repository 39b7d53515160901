"""TaskHarbor in one file: import a table in jobs, some of which fail. `make demo` runs it.

118 chemical elements are imported in chunks of eight, a job each, by a worker beside the program. Three things go
wrong, as they do:

1.  The source hangs up on some chunks. They fail, and are tried again by themselves.
2.  One row has a typing error. Trying again would not help, so its job ends as a dead letter: kept, with what it was
    asked to do and why it failed, until a person decides.
3.  That person is us: we look at it, repair the row, and requeue the job.

The program exits with 1 if anything is not as it should be.
"""

import csv
import logging
import sqlite3
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, nullcontext
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from rich.console import Console
from rich.highlighter import NullHighlighter
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from taskharbor import Context, Harbor, JobFailed, JobHandle, JobState, Retry, task

DATA = Path(__file__).with_name("data") / "elements.csv"
CHUNK = 8
PATIENCE = timedelta(seconds=20)


# --- The types. What goes into a job and what comes out are plain typed values; msgspec Structs, here.


class Element(msgspec.Struct, frozen=True):
    """One row of the file."""

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
    time.sleep(0.25)  # The source is slow. This is a plain `def`, so it runs in a thread and blocks nobody.
    if ctx.attempt == 1 and first % (4 * CHUNK) == 1:
        raise ConnectionError("the source hung up")
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


# --- The program.


def main(console: Console) -> None:
    """Run the demo."""
    with TemporaryDirectory() as folder:
        files = Files(Path(folder) / "elements.csv", Path(folder) / "elements.db")
        # Printed tables give [223] for francium, in brackets. Somebody typed that in, and lost one of them.
        original = DATA.read_text(encoding="utf-8")
        files.source.write_text(original.replace("Francium,,", "Francium,[223,"), encoding="utf-8")
        with closing(sqlite3.connect(files.target)) as db:
            db.execute(
                "CREATE TABLE element (number INTEGER PRIMARY KEY, symbol TEXT, name TEXT, atomic_mass REAL, "
                "discovered INTEGER, phase TEXT)"
            )

        # The store is this process's memory, so nothing has to be installed or started. `deps` is entered once by
        # each worker, and closed when it stops.
        harbor = Harbor("memory://", deps=lambda: nullcontext(files))
        # `with harbor` makes it the one that tasks send through; the worker runs in a thread of its own.
        with harbor, harbor.worker_thread(concurrency=4) as beside:
            chunks = [(first, min(first + CHUNK - 1, 118)) for first in range(1, 119, CHUNK)]
            # `.s(...)` is a typed call not yet sent. Many are stored in one transaction, all or none.
            handles = harbor.enqueue_many(import_chunk.s(first, last) for first, last in chunks)
            console.print(f"Enqueued {len(handles)} jobs of task {import_chunk.name!r}.")

            watch(harbor, handles, console)
            retried = [handle.status() for handle in handles if len(handle.status().errors) > 0]
            hung_up = [status for status in retried if status.state is JobState.SUCCEEDED]
            check(len(hung_up) == 4, f"expected 4 chunks to succeed when tried again, not {len(hung_up)}")
            console.print(
                f"{len(hung_up)} chunks failed first ({hung_up[0].errors[0].type}) and succeeded when tried again."
            )

            dead = show_dead_letter(harbor, console)

            console.print("\nRepairing the row, and requeueing the job ...")
            files.source.write_text(original, encoding="utf-8")
            harbor.jobs.requeue([dead], by="the demo", reason="the row was repaired")
            imported = import_chunk.handle(dead).result(timeout=PATIENCE)  # typed: an Imported
            console.print(
                f"Requeued job {dead} succeeded: {imported.rows} rows, attempt {imported.attempt}.\n"
            )

            # Each result comes back as the type that the task declares.
            results = [handle.result(timeout=PATIENCE) for handle in handles]
        # Leaving the block drained the worker: nothing is leased, nothing is lost.
        summarize(files.target, results, beside.worker.counts.settled, console)


def watch(harbor: Harbor, handles: Sequence[JobHandle[Imported]], console: Console) -> None:
    """Show how the jobs go, until each has ended."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("importing", total=len(handles), note="")
        ended, deadline = 0, time.monotonic() + PATIENCE.total_seconds()
        while ended < len(handles):
            check(time.monotonic() < deadline, f"{len(handles) - ended} jobs had not ended after {PATIENCE}")
            states = {counted.state: counted.count for counted in harbor.jobs.count()}
            ended = states.get(JobState.SUCCEEDED, 0) + states.get(JobState.DEAD, 0)
            note = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
            progress.update(bar, completed=ended, note=note)
            time.sleep(0.05)


def show_dead_letter(harbor: Harbor, console: Console) -> str:
    """Show the one dead letter, and return its id."""
    (record,) = harbor.jobs.find(states={JobState.DEAD})
    (error,) = record.errors
    console.print("\n1 dead letter:", style="bold red")
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("job", record.id)
    # The payload is stored as bytes; its task knows how to read them.
    table.add_row("payload", str(harbor.arguments_of(record)))
    table.add_row("why", f"{record.reason}, after attempt {record.attempt} of {record.max_attempts}")
    table.add_row("error", f"{error.type}: {error.message}")
    table.add_row("traceback", "\n".join(error.traceback.splitlines()[-3:]))
    console.print(table)

    # Whoever waits for its result is told the same.
    try:
        import_chunk.handle(record.id).result(timeout=PATIENCE)
    except JobFailed as failed:
        check(failed.error_type == "ValueError", f"expected a ValueError, not {failed.error_type}")
    else:
        check(False, "the chunk with the bad row succeeded")
    return record.id


def summarize(target: Path, results: Sequence[Imported], settled: dict[str, int], console: Console) -> None:
    """Show what was imported and what the worker did, and check both."""
    with closing(sqlite3.connect(target)) as db:
        (rows,) = db.execute("SELECT count(*) FROM element").fetchone()
        heaviest, mass = db.execute(
            "SELECT name, atomic_mass FROM element ORDER BY atomic_mass DESC LIMIT 1"
        ).fetchone()
        first, year = db.execute(
            "SELECT name, discovered FROM element WHERE discovered ORDER BY discovered LIMIT 1"
        ).fetchone()
    phases: Counter[str] = Counter()
    for result in results:
        phases.update(result.phases)

    table = Table("imported", "", title_justify="left")
    table.add_row("elements", str(rows))
    for phase, count in phases.most_common():
        table.add_row(f"  {phase}", str(count))
    table.add_row("heaviest standard atomic weight", f"{heaviest}, {mass}")
    table.add_row("earliest year of discovery", f"{first}, {year}")
    table.add_section()
    table.add_row("attempts of the worker", str(sum(settled.values())))
    for state, count in sorted(settled.items()):
        table.add_row(f"  ended {state}", str(count))
    console.print(table)

    check(rows == 118, f"expected 118 elements, not {rows}")
    check(phases == {"solid": 84, "unknown": 21, "gas": 11, "liquid": 2}, f"unexpected phases: {phases}")
    check(settled == {"succeeded": 15, "retrying": 4, "dead": 1}, f"unexpected outcomes: {settled}")
    console.print("All as it should be.", style="bold green")


def check(good: bool, otherwise: str) -> None:
    """End the program if something is not as it should be."""
    if not good:
        raise SystemExit(f"the demo went wrong: {otherwise}")


if __name__ == "__main__":
    # Error texts may hold brackets, which rich would take for its markup.
    terminal = Console(markup=False, highlight=False)
    # The worker tells what it does through `logging`; here it is written above the progress bar.
    handler = RichHandler(console=terminal, show_time=False, show_path=False, highlighter=NullHighlighter())
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    main(terminal)
