"""The whole of the command line: global options, commands, and how errors end it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Annotated

import typer
from typer.main import get_command

from taskharbor.cli import (
    audit,
    dlq,
    flows,
    jobs,
    limits,
    queues,
    retention,
    schedules,
    schema,
    tasks,
    workers,
)
from taskharbor.cli.dev import dev
from taskharbor.cli.enqueue import enqueue
from taskharbor.cli.events import events
from taskharbor.cli.exits import Exit, code_of
from taskharbor.cli.info import info, installed_version
from taskharbor.cli.leader import leader
from taskharbor.cli.migrate import migrate
from taskharbor.cli.output import ReaderGone, hush, note
from taskharbor.cli.prune import prune
from taskharbor.cli.stats import stats
from taskharbor.cli.target import CommonApp, UrlOption
from taskharbor.cli.worker import worker
from taskharbor.errors import TaskHarborError

# Locals in a traceback may hold payloads, which do not belong on a terminal or in a log.
app = typer.Typer(
    name="taskharbor",
    help="Background jobs and simple durable workflows on the database you already run.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"taskharbor {installed_version()}")
        raise typer.Exit


@app.callback()
def common(
    _app: CommonApp = None,
    _url: UrlOption = None,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Take the options that stand before every command."""


app.command()(worker)
app.command()(dev)
app.command()(enqueue)
app.add_typer(tasks.commands, name="tasks")
app.add_typer(jobs.commands, name="jobs")
app.add_typer(dlq.commands, name="dlq")
app.add_typer(flows.commands, name="flows")
app.add_typer(queues.commands, name="queues")
app.add_typer(schedules.commands, name="schedules")
app.add_typer(schema.commands, name="schema")
app.add_typer(limits.commands, name="limits")
app.add_typer(retention.commands, name="retention")
app.add_typer(audit.commands, name="audit")
app.add_typer(workers.commands, name="workers")
app.command()(leader)
app.command()(stats)
app.command()(events)
app.command()(prune)
app.command()(migrate)
app.command()(info)


def main() -> None:
    """Run the command line; the console script `taskharbor` starts here."""
    sys.exit(run(sys.argv[1:]))


@cache
def _whole() -> Callable[..., object]:
    """Return all commands put together, which takes a tenth of a second: once, for who runs several in one process."""
    return get_command(app)


def run(arguments: Sequence[str]) -> int:
    """Run the command line with these arguments and return its exit code.

    What TaskHarbor raises on purpose becomes one line on standard error; a bug keeps its traceback.
    """
    try:
        _whole()(list(arguments), prog_name="taskharbor")
    except SystemExit as ended:
        return _flushed(ended.code if isinstance(ended.code, int) else Exit.OK)
    except ReaderGone:  # of what only looks: see `output`
        return Exit.OK
    except TaskHarborError as error:
        note(f"Error: {error}")
        return _flushed(code_of(error))
    return _flushed(Exit.OK)


def _flushed(code: int) -> int:
    """Return the code once all is printed, in silence if nobody reads it any more (`| head`)."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        hush()  # what is left in the buffer would be tried again, and complained about, when the interpreter ends
    return code
