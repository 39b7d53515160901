"""`taskharbor schema`: what the application's tasks accept, written down, and compared with what they did before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from taskharbor.cli.exits import Exit
from taskharbor.cli.listing import JsonOption
from taskharbor.cli.output import echo, json_line, json_text, line, note, plain
from taskharbor.cli.target import AppOption, UrlOption, opened
from taskharbor.codec import found_codec
from taskharbor.errors import OptionError
from taskharbor.evolution.compatibility import Finding, Level, compared
from taskharbor.evolution.dump import Dump, dump_of, read_dump
from taskharbor.harbor import Harbor

commands = typer.Typer(
    no_args_is_help=True, help="Write down what tasks accept, and check a new version against it."
)

_BAD = (Level.BREAKS, Level.UNSURE)


@commands.command("dump")
def dump(
    ctx: typer.Context,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write to a file, not to standard output."),
    ] = None,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """Write the arguments and results of all tasks as JSON, the same on every run. Touches no store."""
    with opened(ctx, tasks="schema dump") as harbor:
        written = _text(dump_of(harbor.registry, harbor.codec.name))
    if output is None:
        echo(plain(written.decode().rstrip("\n"), lines=True))
        return
    try:
        output.write_bytes(written)
    except OSError as error:
        raise OptionError(f"the dump cannot be written to {output}: {error.strerror}") from error
    note(f"Wrote {output}.")


@commands.command("check")
def check(
    ctx: typer.Context,
    old: Annotated[
        Path, typer.Argument(metavar="OLD.json", help="What `schema dump` wrote of the version that runs.")
    ],
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Fail on warnings, too, such as of results that cannot be read back."),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show what is new or wider, too, and breaks nothing.")
    ] = False,
    as_json: JsonOption = False,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """Fail (exit 1) if stored jobs, or those of producers still running, would not survive this version. For CI.

    Touches no store.
    """
    try:
        before = read_dump(old.read_bytes())
    except OSError as error:
        raise OptionError(f"{old} cannot be read: {error.strerror}") from error
    except OptionError as error:
        raise OptionError(f"{old}: {error}") from error
    with opened(ctx, tasks="schema check") as harbor:
        try:
            found = _compared(harbor, before)
        except OptionError as error:
            raise OptionError(f"{old}: {error}") from error
    if as_json:
        for one in found:
            json_line(one)
    else:
        _show(found, verbose=verbose)
    failing = (*_BAD, Level.WARNING) if strict else _BAD
    if any(one.level in failing for one in found):
        raise typer.Exit(Exit.FAILED)


def _compared(harbor: Harbor, before: Dump) -> list[Finding]:
    def can_read(task: str, codec: str) -> bool:
        return found_codec(codec, harbor.task(task).codec, harbor.codecs) is not None

    return compared(before, dump_of(harbor.registry, harbor.codec.name), can_read)


def _text(dump: Dump) -> bytes:
    return msgspec.json.format(json_text(dump), indent=2) + b"\n"


def _show(found: list[Finding], *, verbose: bool) -> None:
    shown = found if verbose else [one for one in found if one.level is not Level.NOTE]
    for one in shown:
        place = f" at {one.path}" if one.path else ""
        line(f"{one.level}: task {one.task!r}{place}: {one.message}")
    bad = sum(one.level in _BAD for one in found)
    if bad:
        note(f"{bad} {'finding' if bad == 1 else 'findings'} that stored jobs may not survive.")
    elif any(one.level is Level.WARNING for one in found):
        note("Stored jobs survive this version; see the warnings.")
    else:
        note("Stored jobs survive this version.")
