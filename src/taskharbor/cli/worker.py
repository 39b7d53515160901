"""`taskharbor worker`: its options, over what the environment and the settings' file say. `launching` does the rest."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, TypeVar

import typer

from taskharbor.cli.launching import Orders, launch
from taskharbor.cli.logs import LogFormat, LogLevel
from taskharbor.cli.logs import log_level as as_level
from taskharbor.cli.target import AppOption, UrlOption, target_of
from taskharbor.cli.values import duration, listed, numbers, size, told_duration
from taskharbor.errors import OptionError
from taskharbor.settings import load_settings

T = TypeVar("T")

_SHORTEST = timedelta(milliseconds=100)


def worker(
    ctx: typer.Context,
    queues: Annotated[
        list[str] | None,
        typer.Option(
            "--queues",
            "--queue",
            "-q",
            metavar="NAMES",
            envvar="TASKHARBOR_QUEUES",
            help="Queues to serve; with commas, or repeated.",
            show_default="default, and every queue that a task or a schedule declares",
        ),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            "--concurrency",
            "-c",
            metavar="N",
            min=1,
            envvar="TASKHARBOR_CONCURRENCY",
            help="How many handlers may run at once in each process.",
            show_default="50",
        ),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            "--processes",
            "-p",
            metavar="N",
            min=1,
            envvar="TASKHARBOR_PROCESSES",
            help="How many worker processes; above 1 a supervisor starts them and keeps them alive.",
            show_default="1",
        ),
    ] = None,
    handler_processes: Annotated[
        int | None,
        typer.Option(
            "--handler-processes",
            metavar="N",
            min=1,
            envvar="TASKHARBOR_HANDLER_PROCESSES",
            help="How many processes of each worker run the handlers of run='process' tasks.",
            show_default="2",
        ),
    ] = None,
    lease: Annotated[
        timedelta | None,
        typer.Option(
            "--lease",
            metavar="DURATION",
            parser=duration,
            envvar="TASKHARBOR_LEASE",
            help="How long jobs are kept from others without a sign of life.",
            show_default="30s",
        ),
    ] = None,
    grace: Annotated[
        timedelta | None,
        typer.Option(
            "--grace",
            metavar="DURATION",
            parser=duration,
            envvar="TASKHARBOR_GRACE",
            help="How long a stop waits for running handlers before it cancels them.",
            show_default="30s",
        ),
    ] = None,
    halt: Annotated[
        timedelta | None,
        typer.Option(
            "--halt",
            metavar="DURATION",
            parser=duration,
            envvar="TASKHARBOR_HALT",
            help="How long a stop then waits for cancelled handlers to end.",
            show_default="5s",
        ),
    ] = None,
    prefetch: Annotated[
        int | None,
        typer.Option(
            "--prefetch",
            metavar="N",
            min=0,
            envvar="TASKHARBOR_PREFETCH",
            help="Jobs to hold unstarted, beyond the free slots.",
            show_default="a tenth of a second's work",
        ),
    ] = None,
    weights: Annotated[
        dict[str, int] | None,
        typer.Option(
            "--weights",
            metavar="QUEUE=N,...",
            parser=numbers,
            envvar="TASKHARBOR_WEIGHTS",
            help="Shares of what is started, by queue; queues that are not named have 1.",
            show_default="priorities order the jobs of all queues together",
        ),
    ] = None,
    reserved: Annotated[
        dict[str, int] | None,
        typer.Option(
            "--reserve",
            metavar="QUEUE=N,...",
            parser=numbers,
            envvar="TASKHARBOR_RESERVED",
            help="Slots of each process that only this queue's jobs may take.",
            show_default="none",
        ),
    ] = None,
    aging: Annotated[
        timedelta | None,
        typer.Option(
            "--aging",
            metavar="DURATION",
            parser=duration,
            envvar="TASKHARBOR_AGING",
            help="Take some jobs that have been due for longer than this before those of a higher priority.",
            show_default="never",
        ),
    ] = None,
    aging_share: Annotated[
        float | None,
        typer.Option(
            "--aging-share",
            metavar="SHARE",
            envvar="TASKHARBOR_AGING_SHARE",
            help="Which part of what is taken those are, with --aging; above 0, at most 1.",
            show_default="0.1",
        ),
    ] = None,
    stall: Annotated[
        timedelta | None,
        typer.Option(
            "--stall",
            metavar="DURATION",
            parser=duration,
            envvar="TASKHARBOR_STALL",
            help="An event loop blocked for so long ends its process, after all stacks were written to standard error.",
            show_default="1m",
        ),
    ] = None,
    max_jobs: Annotated[
        int | None,
        typer.Option(
            "--max-jobs",
            metavar="N",
            min=1,
            envvar="TASKHARBOR_MAX_JOBS",
            help="Recycle a process after at least so many jobs: it drains, and a fresh one takes its place.",
            show_default="never",
        ),
    ] = None,
    max_memory: Annotated[
        int | None,
        typer.Option(
            "--max-memory",
            metavar="SIZE",
            parser=size,
            envvar="TASKHARBOR_MAX_MEMORY",
            help="Recycle a process that has grown beyond so much memory: 512M, 2G.",
            show_default="never",
        ),
    ] = None,
    until_idle: Annotated[
        bool,
        typer.Option(
            "--until-idle",
            help="Stop when nothing runs here and nothing is due; tell what is left. Declares no schedules.",
        ),
    ] = False,
    within: Annotated[
        timedelta | None,
        typer.Option(
            "--within",
            metavar="DURATION",
            parser=duration,
            help="With --until-idle: wait for jobs that are due within so long, too.",
            show_default="0s",
        ),
    ] = None,
    log_level: Annotated[
        LogLevel | None,
        typer.Option(
            "--log-level",
            metavar="LEVEL",
            parser=as_level,
            envvar="TASKHARBOR_LOG_LEVEL",
            help="debug, info, warning or error.",
            show_default="info",
        ),
    ] = None,
    log_format: Annotated[
        LogFormat | None,
        typer.Option(
            "--log-format",
            metavar="FORMAT",
            envvar="TASKHARBOR_LOG_FORMAT",
            help="text or json.",
            show_default="text",
        ),
    ] = None,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """Run jobs until told to stop. The first SIGTERM or Ctrl-C drains, the second cancels what runs."""
    if within is not None and not until_idle:
        raise OptionError("--within goes with --until-idle")
    for name, value in (("--lease", lease), ("--stall", stall)):
        if value is not None and value < _SHORTEST:
            raise OptionError(f"{name} {told_duration(value)}: expected at least {told_duration(_SHORTEST)}")
    loaded = load_settings(
        {
            "queues": _queues(queues) if queues else None,
            "concurrency": concurrency,
            "processes": processes,
            "handler_processes": handler_processes,
            "lease": lease,
            "grace": grace,
            "halt": halt,
            "prefetch": prefetch,
            "weights": weights,
            "reserved": reserved,
            "aging": aging,
            "aging_share": aging_share,
            "stall": stall,
            "max_jobs": max_jobs,
            "max_memory": max_memory,
            "log_level": log_level,
            "log_format": log_format,
        }
    )
    settings = loaded.settings
    if loaded.given("aging_share") and settings.aging is None:
        raise OptionError("--aging-share (TASKHARBOR_AGING_SHARE, aging_share) goes with --aging")

    def told(name: str, value: T) -> T | None:  # a worker has its own defaults
        return value if loaded.given(name) else None

    orders = Orders(
        target=target_of(ctx),
        queues=None if settings.queues is None else list(settings.queues),
        concurrency=told("concurrency", settings.concurrency),
        handler_processes=told("handler_processes", settings.handler_processes),
        lease=told("lease", settings.lease),
        grace=told("grace", settings.grace),
        halt=told("halt", settings.halt),
        prefetch=settings.prefetch,
        weights=settings.weights,
        reserved=settings.reserved,
        aging=settings.aging,
        aging_share=told("aging_share", settings.aging_share),
        stall=told("stall", settings.stall),
        max_jobs=settings.max_jobs,
        max_memory=settings.max_memory,
        until_idle=until_idle,
        within=within or timedelta(0),
        log_level=LogLevel(settings.log_level),
        log_format=LogFormat(settings.log_format),
    )
    raise typer.Exit(launch(orders, settings.processes))


def _queues(given: Sequence[str]) -> list[str]:
    names = list(listed(given))
    if not names:
        raise OptionError(f"--queues {','.join(given)!r}: expected one or more names, such as mail,default")
    twice = [name for number, name in enumerate(names) if name in names[:number]]
    if twice:
        raise OptionError(f"--queues: {twice[0]!r} is named twice")
    return names
