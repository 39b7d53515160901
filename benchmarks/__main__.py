"""The command line of the benchmarks: `python -m benchmarks --driver memory`."""

from __future__ import annotations

import argparse
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import codec, depth, drain, enqueue, latency, process, runner, threads
from benchmarks.measure import Clock, Line, Settings, ThemeOf
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
    },
    "sqlite": {
        "drain": sqlite_drain.theme,
        "enqueue": sqlite_enqueue.theme,
        "latency": latency.theme,
        "pickup": pickup.theme,
        "processes": processes.theme,
        "idle": idle.theme,
        "depth": sqlite_depth.theme,
    },
}
"""The themes that make sense for each driver, in order."""
LARGE = {("sqlite", "depth")}
"""Those that take minutes and some gigabytes: run when asked for by name."""


def main() -> None:
    """Run the benchmarks that were asked for and print what they found."""
    parser = _parser()
    arguments = parser.parse_args(namespace=_Arguments())
    settings = Settings(
        driver=arguments.driver,
        jobs=arguments.jobs,
        rounds=arguments.rounds,
        clock=arguments.clock,
        best=arguments.best,
        directory=arguments.directory,
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
                lines += runner.run(theme, settings, partial(progress.advance, shown))
    if arguments.json:
        print_json(lines)
    else:
        print_table(lines, settings)


class _Arguments(argparse.Namespace):
    driver: str
    jobs: int
    rounds: int
    clock: Clock
    best: bool
    directory: str | None
    only: list[str]
    json: bool


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="The benchmarks of TaskHarbor.")
    parser.add_argument("--driver", choices=sorted(THEMES_OF), default="memory", help="the store to measure")
    parser.add_argument("--jobs", type=_positive, default=20_000, help="jobs in one run of a subject")
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
        "--only", action="append", default=[], metavar="NAME", help=f"one theme, may be repeated: {_themes()}"
    )
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
