"""`taskharbor jobs watch`: jobs that are named until they end; else what runs now, until Ctrl-C."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from taskharbor.cli.acting import ids_of
from taskharbor.cli.completing import complete_job
from taskharbor.cli.exits import Exit
from taskharbor.cli.filters import UNFINISHED, states_of
from taskharbor.cli.listing import JsonOption
from taskharbor.cli.overview import show_overview
from taskharbor.cli.target import AppOption, UrlOption, opened
from taskharbor.cli.values import duration, narrowing, told_duration
from taskharbor.cli.watching import watch_jobs
from taskharbor.errors import OptionError

_EVERY = timedelta(milliseconds=500)
_SHORTEST = timedelta(milliseconds=10)


def watch(
    ctx: typer.Context,
    ids: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ID...]",
            help="Jobs, by id; - reads ids, or the JSON lines of a listing, from standard input.",
            show_default=False,
            autocompletion=complete_job(*states_of([UNFINISHED])),
        ),
    ] = None,
    queue: Annotated[
        list[str] | None,
        typer.Option(
            "--queue",
            metavar="NAMES",
            help="Without ids: only of these queues; with commas, or repeated.",
            show_default="all",
        ),
    ] = None,
    every: Annotated[
        timedelta | None,
        typer.Option(
            "--every",
            metavar="DURATION",
            parser=duration,
            help="How often to look.",
            show_default=told_duration(_EVERY),
        ),
    ] = None,
    as_json: JsonOption = False,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """Watch jobs: their progress, log and states, until all have ended. Ends with 1 unless all succeeded.

    Without ids: queues, and the jobs that run now, until Ctrl-C.
    """
    pause = _EVERY if every is None else every
    if pause < _SHORTEST:
        raise OptionError(f"--every {told_duration(pause)}: expected at least {told_duration(_SHORTEST)}")
    if ids and queue:
        raise OptionError("jobs watch: --queue goes without ids; ids say which jobs already")
    queues = narrowing("--queue", queue)
    with opened(ctx) as harbor:
        if not ids:
            show_overview(harbor, queues, pause, as_json=as_json)
            return
        code = watch_jobs(harbor, list(dict.fromkeys(ids_of(ids))), pause, as_json=as_json)
    if code is not Exit.OK:
        raise typer.Exit(code)
