"""The command line of the benchmarks: `python -m benchmarks --driver memory`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import codec, depth, drain, enqueue, latency, process, runner, threads
from benchmarks.measure import Clock, Line, Settings, ThemeOf
from benchmarks.report import print_json, print_table

THEMES: dict[str, ThemeOf] = {
    "drain": drain.theme,
    "threads": threads.theme,
    "enqueue": enqueue.theme,
    "latency": latency.theme,
    "depth": depth.theme,
    "codec": codec.theme,
    "process": process.theme,
}

# A driver joins with the themes that make sense for it; those of its own (held transactions, several
# processes) are modules beside these.
THEMES_OF: dict[str, Sequence[str]] = {"memory": tuple(THEMES)}


def main() -> None:
    """Run the benchmarks that were asked for and print what they found."""
    arguments = _parser().parse_args(namespace=_Arguments())
    settings = Settings(
        driver=arguments.driver, jobs=arguments.jobs, rounds=arguments.rounds, clock=arguments.clock
    )
    names = [name for name in THEMES_OF[settings.driver] if not arguments.only or name in arguments.only]
    lines: list[Line] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for name in names:
            shown = progress.add_task(name, total=None)
            with THEMES[name](settings) as theme:
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
        "--only",
        choices=list(THEMES),
        action="append",
        default=[],
        metavar="NAME",
        help=f"one theme, may be repeated: {', '.join(THEMES)}",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a measure instead of the table")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text}")
    return value


if __name__ == "__main__":
    main()
