"""The command line: `taskharbor COMMAND`, an outer door that nothing inside imports."""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from taskharbor.drivers import available_drivers

__all__ = ["app", "main"]

# Locals in a traceback may hold payloads, which do not belong on a terminal or in a log.
app = typer.Typer(
    name="taskharbor",
    help="Background jobs and simple durable workflows on the database you already run.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)


class Info(msgspec.Struct, frozen=True, kw_only=True):
    """What a bug report needs to know about an installation."""

    taskharbor: str
    python: str
    platform: str
    msgspec: str
    drivers: dict[str, str]


def main() -> None:
    """Run the command line; the console script `taskharbor` starts here."""
    app()


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"taskharbor {_installed_version()}")
        raise typer.Exit


@app.callback()
def common(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Take the options that stand before every command."""


@app.command()
def info(
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Show versions and the installed drivers, as a bug report needs them."""
    found = Info(
        taskharbor=_installed_version(),
        python=platform.python_version(),
        platform=platform.platform(),
        msgspec=version("msgspec"),
        drivers=dict(sorted(available_drivers().items())),
    )
    if as_json:
        typer.echo(msgspec.json.encode(found))
        return
    table = Table.grid(padding=(0, 2))
    table.add_row("TaskHarbor", found.taskharbor)
    table.add_row("Python", found.python)
    table.add_row("Platform", found.platform)
    table.add_row("msgspec", found.msgspec)
    for scheme, origin in found.drivers.items():
        table.add_row(f"{scheme}://", origin)
    Console(highlight=False, markup=False).print(table)


def _installed_version() -> str:
    try:
        return version("taskharbor")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "unknown (not installed)"
