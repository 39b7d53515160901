"""`taskharbor dev`: a worker that starts afresh when the source changes. For development only."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from taskharbor.cli.logs import LogLevel
from taskharbor.cli.logs import log_level as as_level
from taskharbor.cli.target import AppOption, Target, UrlOption, target_of
from taskharbor.cli.values import duration, told_duration
from taskharbor.errors import DeploymentError, MissingExtraError, OptionError

_GRACE = timedelta(seconds=10)


def dev(
    ctx: typer.Context,
    application: Annotated[
        str,
        typer.Argument(
            metavar="[APP]",
            help="Your application, as `--app` names it: module:harbor, or path/to/app.py.",
            show_default=False,
        ),
    ] = "",
    watch: Annotated[
        list[Path] | None,
        typer.Option(
            "--watch",
            metavar="PATH",
            help="What to watch: files, or folders with all in them; repeatable.",
            show_default="the current folder, and that of the application's file",
        ),
    ] = None,
    queues: Annotated[
        list[str] | None,
        typer.Option(
            "--queues",
            "--queue",
            "-q",
            metavar="NAMES",
            help="As of `worker`.",
            show_default="as of `worker`",
        ),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            "--concurrency", "-c", metavar="N", min=1, help="As of `worker`.", show_default="as of `worker`"
        ),
    ] = None,
    grace: Annotated[
        timedelta | None,
        typer.Option(
            "--grace",
            metavar="DURATION",
            parser=duration,
            help="How long a reload waits for running handlers before it cancels them.",
            show_default=told_duration(_GRACE),
        ),
    ] = None,
    log_level: Annotated[
        LogLevel,
        typer.Option(
            "--log-level",
            metavar="LEVEL",
            parser=as_level,
            help="debug, info, warning or error.",
            show_default="info",
        ),
    ] = LogLevel.INFO,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """Run a worker, and start it afresh whenever the source changes. It drains first: no job is cut off.

    An application that cannot be imported is waited out: the next change is tried. Needs the extra `reload`.
    """
    target = target_of(ctx)
    if application and target.app and application != target.app:
        raise OptionError(f"dev: which application? {application!r} as an argument, {target.app!r} as --app")
    target.app = application or target.app
    app = target.application()
    if not app:
        raise DeploymentError("dev needs your tasks: taskharbor dev app.py, or --app module:harbor")
    place = app if app.endswith(".py") else app.rpartition(":")[0]
    if place.endswith(".py") and not Path(place).is_file():  # a typo: waiting does not mend it
        raise DeploymentError(f"--app {app!r}: there is no file {str(Path(place).absolute())!r}")
    paths = [path.absolute() for path in watch] if watch else list(_folders(app))
    for path in paths:
        if not path.exists():
            raise OptionError(f"--watch {path}: there is nothing there")
    patience = _GRACE if grace is None else grace
    command = _command(target, queues, concurrency, patience, log_level)
    raise typer.Exit(_loop(command, paths, patience))


def _loop(command: list[str], paths: list[Path], grace: timedelta) -> int:
    if sys.platform == "win32":
        raise DeploymentError(
            "dev ends its worker by signals, which Windows has not; run `taskharbor worker` there"
        )
    try:
        from taskharbor.cli.reloading import reload_on_change
    except ModuleNotFoundError as error:
        if error.name != "watchfiles":
            raise
        raise MissingExtraError(
            'dev needs the package watchfiles, to see changes: pip install "taskharbor[reload]"'
        ) from error
    return reload_on_change(command, paths, grace)


def _command(
    target: Target,
    queues: list[str] | None,
    concurrency: int | None,
    grace: timedelta,
    log_level: LogLevel,
) -> list[str]:
    """Return the command line of the worker."""
    said = [f"--grace={told_duration(grace)}", f"--log-level={log_level.value}"]
    if target.app:  # else the worker finds it in the settings, as we did
        said.append(f"--app={target.app}")
    if target.url:
        said.append(f"--url={target.url}")
    if queues:
        said.append(f"--queues={','.join(queues)}")
    if concurrency is not None:
        said.append(f"--concurrency={concurrency}")
    return [sys.executable, "-m", "taskharbor.cli", "worker", *said]


def _folders(app: str) -> Iterator[Path]:
    """Yield the folders that an application is likely to have its source in."""
    here = Path.cwd()
    yield here
    place = app.rpartition(":")[0] or app
    file = Path(place if place.endswith(".py") else app).absolute()
    if file.suffix == ".py" and file.is_file() and not file.is_relative_to(here):
        yield file.parent
