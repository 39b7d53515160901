"""TaskHarbor across processes: a producer, its workers, and one SQLite file between them. `make demo` runs it.

118 chemical elements are imported in chunks of eight, a job each. The application is `elements.py`. This program
enqueues its jobs and looks on; `taskharbor worker`, a process of its own, runs them. Three things go wrong, as they
do:

1.  The source hangs up on some chunks. They fail, and are tried again by themselves.
2.  The source falls silent, and the worker hangs with it. We kill it: `kill -9`. Its leases expire, and the next worker
    runs what it held. Nothing is lost.
3.  One row has a typing error. Trying again would not help, so its job ends as a dead letter: kept, with what it was
    asked to do and why it failed, until a person decides. That person is us: we look at it, repair the row, and
    requeue the job.

Each line that begins with `$` is run as it stands, and followed by what it prints. The program exits with 1 if anything
is not as it should be.
"""

import argparse
import shlex
import shutil
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from tempfile import mkdtemp

import elements
from demo.shell import TASKHARBOR, Shell, WorkerProcess
from elements import HANGS_UP_BELOW, SILENT_FROM, Imported, import_chunk
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from taskharbor import Harbor, JobFailed, JobHandle, JobRecord, JobState

APP = Path(elements.__file__).resolve()
DATA = APP.with_name("data") / "elements.csv"
CHUNKS = [(first, min(first + 7, 118)) for first in range(1, 119, 8)]
SILENT = [number for number, (first, _) in enumerate(CHUNKS) if first >= SILENT_FROM]
PATIENCE = timedelta(seconds=30)
# A killed worker's jobs stay leased: for 30 s by default, which is long for who looks on.
WORKER = ("--concurrency=4", "--lease=1s")


def main(folder: Path, console: Console) -> None:
    """Run the demo."""
    # Printed tables give [223] for francium, in brackets. Somebody typed that in, and lost one of them.
    original = DATA.read_text(encoding="utf-8")
    source = folder / "elements.csv"
    source.write_text(original.replace("Francium,,", "Francium,[223,"), encoding="utf-8")

    shell = Shell(folder, APP, console)
    # `with harbor` makes it the one that tasks send through. Whoever opens the file first creates its tables.
    with elements.harbor.at(f"sqlite:///{folder / 'jobs.db'}") as harbor:
        with shell.worker("worker 1", *WORKER) as worker:
            # `.s(...)` is a typed call not yet sent. Many are stored in one transaction, all or none.
            handles = harbor.enqueue_many(import_chunk.s(first, last) for first, last in CHUNKS)
            console.print(f"Enqueued {len(handles)} jobs of task {import_chunk.name!r}.")
            silent = {handles[number].id for number in SILENT}
            follow(harbor, worker, console, lambda jobs: hangs(jobs, silent))
            console.print("\nThe source has fallen silent, and the worker hangs with it:")
            shell.run("jobs", "list", "--state=running")
            worker.end(signal.SIGKILL)

        console.print(
            "\nNothing is lost. Those jobs stay leased for a second; then the next worker takes them."
        )
        with shell.worker("worker 2", *WORKER) as worker:
            follow(harbor, worker, console, have_ended)
            tell_what_was_repeated(harbor, handles, console)

            dead = find_dead_letter(harbor, console)
            shell.run("dlq", "list")
            shell.run("jobs", "show", dead)

            console.print("\nRepairing the row ...")
            source.write_text(original, encoding="utf-8")
            shell.run("dlq", "requeue", dead, "--reason", "the row was repaired")
            imported = import_chunk.handle(dead).result(timeout=PATIENCE)  # typed: an Imported
            console.print(f"Requeued job {dead} succeeded: {imported.rows} rows.")

            # Each result comes back as the type that the task declares.
            results = [handle.result(timeout=PATIENCE) for handle in handles]
            console.print("\nThe worker is told to end. It would first finish what it has begun:")
            code = worker.end(signal.SIGTERM)
            check(code == 0, f"expected the worker to drain and to end with 0, not {code}")
            console.print(f"It ended with exit code {code}.\n")
        states = states_of(harbor.jobs.find())
        check(
            states == {JobState.SUCCEEDED: len(CHUNKS)}, f"expected each job to have succeeded, not {states}"
        )
    summarize(folder / "elements.db", results, console)
    console.print("All as it should be.", style="bold green")


# --- Looking on.


def follow(
    harbor: Harbor, worker: WorkerProcess, console: Console, until: Callable[[Sequence[JobRecord]], bool]
) -> None:
    """Show how the jobs go, with a bar if this is a terminal, until they are as wanted."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("importing", total=len(CHUNKS), note="")
        deadline = time.monotonic() + PATIENCE.total_seconds()
        while True:
            jobs = harbor.jobs.find()
            states = states_of(jobs)
            ended = states[JobState.SUCCEEDED] + states[JobState.DEAD]
            note = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
            progress.update(bar, completed=ended, note=note)
            if until(jobs):
                return
            check(worker.runs(), "the worker ended by itself; its log says why")
            check(time.monotonic() < deadline, f"after {PATIENCE} the jobs still were: {note}")
            time.sleep(0.05)


def states_of(jobs: Sequence[JobRecord]) -> Counter[JobState]:
    """Return how many jobs are in which state."""
    return Counter(job.state for job in jobs)


def hangs(jobs: Sequence[JobRecord], silent: set[str]) -> bool:
    """Return whether the worker holds nothing but jobs that get no answer, and the store knows that they began."""
    running = {job.id: job.started for job in jobs if job.state is JobState.RUNNING}
    return running == dict.fromkeys(silent, True)


def have_ended(jobs: Sequence[JobRecord]) -> bool:
    """Return whether every job has ended, well or not."""
    return all(job.state in (JobState.SUCCEEDED, JobState.DEAD) for job in jobs)


def tell_what_was_repeated(harbor: Harbor, handles: Sequence[JobHandle[Imported]], console: Console) -> None:
    """Show which jobs ran twice and why, and check that these are the right ones."""
    failed = {"ConnectionError": 0, "taskharbor.WorkerLost": 0}
    for (first, _), handle in zip(CHUNKS, handles, strict=True):
        status = handle.status()
        if first < HANGS_UP_BELOW:
            expected = ["ConnectionError"]
        else:
            expected = ["taskharbor.WorkerLost"] if first >= SILENT_FROM else []
        found = [error.type for error in status.errors if status.state is JobState.SUCCEEDED]
        check(found == expected, f"chunk {first}: expected errors {expected}, not {found}")
        for kind in found:
            failed[kind] += 1
    hung_up, lost = failed.values()
    console.print(f"{hung_up} chunks failed first (ConnectionError) and succeeded when tried again.")
    console.print(f"{lost} chunks were lost with their worker (WorkerLost) and succeeded in the next one.")


def find_dead_letter(harbor: Harbor, console: Console) -> str:
    """Show the one dead letter, and return its id."""
    (record,) = harbor.jobs.find(states={JobState.DEAD})
    # The payload is stored as bytes; its task knows how to read them.
    console.print(f"\n1 dead letter: job {record.id} of {harbor.arguments_of(record)}", style="bold red")
    # Whoever waits for its result is told why there is none.
    try:
        import_chunk.handle(record.id).result(timeout=PATIENCE)
    except JobFailed as failed:
        check(failed.error_type == "ValueError", f"expected a ValueError, not {failed.error_type}")
    else:
        check(False, "the chunk with the bad row succeeded")
    return record.id


def summarize(target: Path, results: Sequence[Imported], console: Console) -> None:
    """Show what was imported, and check it."""
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
    console.print(table)

    check(rows == 118, f"expected 118 elements, not {rows}")
    check(phases == {"solid": 84, "unknown": 21, "gas": 11, "liquid": 2}, f"unexpected phases: {phases}")


def check(good: bool, otherwise: str) -> None:
    """End the program if something is not as it should be."""
    if not good:
        raise SystemExit(f"the demo went wrong: {otherwise}")


# --- Before and after.


def tell_what_to_try(folder: Path, console: Console, *, kept: bool) -> None:
    """Print where the files are, and commands to copy."""
    if not kept:
        console.print("To look around in its files afterwards: make demo ARGS=--keep")
        return
    script = Path(sys.executable).with_name("taskharbor")
    command = [str(script)] if script.exists() else TASKHARBOR
    here = shlex.quote(str(folder))
    lines = [
        f"cd {here}",
        f"alias taskharbor={shlex.quote(shlex.join(command))}",
        f"export TASKHARBOR_APP={shlex.quote(str(APP))}",
        "taskharbor info",
        "taskharbor tasks",
        "taskharbor jobs list --state=succeeded --limit=3",
        f"taskharbor enqueue {import_chunk.name} first=1 last=8",
        "taskharbor worker --until-idle --within=1m --processes=2",
        f"cd - && rm -r {here}",
    ]
    console.print(
        f"\nThe jobs are in {folder / 'jobs.db'}, the elements in {folder / 'elements.db'}. To try:\n"
    )
    console.print("\n".join(f"    {line}" for line in lines))


def run() -> None:
    """Run the demo in a directory of its own."""
    parser = argparse.ArgumentParser(description="Import 118 elements by jobs, across processes.")
    parser.add_argument("--keep", action="store_true", help="leave the files, to look around in them")
    keep: bool = parser.parse_args().keep
    # As Ctrl-C does by itself: leave by all `finally`, so that no worker is left behind.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
    # What is shown may hold brackets, which rich would take for its markup; and lines to be copied stay whole.
    console = Console(markup=False, highlight=False, soft_wrap=True)
    folder = Path(mkdtemp(prefix="taskharbor-demo-"))
    try:
        main(folder, console)
        tell_what_to_try(folder, console, kept=keep)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    finally:
        if not keep:
            shutil.rmtree(folder)


if __name__ == "__main__":
    run()
