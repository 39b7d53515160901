"""What is printed: lines for people, JSON lines for programs, progress and questions on standard error.

Whatever comes out of a store may hold control characters, which a terminal would obey. They are shown as escapes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime

import msgspec
import typer

from taskharbor.codec.hooks import enc_hook
from taskharbor.errors import OptionError

_encoder = msgspec.json.Encoder(enc_hook=enc_hook)


def json_line(value: object) -> None:
    """Print one value as one line of JSON; times as ISO 8601, bytes as base64."""
    typer.echo(_encoder.encode(value))


def json_text(value: object) -> bytes:
    """Return one value as JSON, as `json_line` would print it."""
    return _encoder.encode(value)


def plain(text: str, *, lines: bool = False) -> str:
    """Return text with its control characters escaped; `lines` leaves line ends and tabs."""
    kept = "\n\t" if lines else ""
    return "".join(
        character
        if character.isprintable() or character in kept
        else character.encode("unicode_escape").decode()
        for character in text
    )


def line(text: str = "") -> None:
    """Print a line for people."""
    typer.echo(plain(text))


def note(text: str) -> None:
    """Print a remark on standard error, out of the way of what is piped on."""
    typer.echo(plain(text), err=True)


def told_time(at: datetime | None) -> str:
    """Return an instant for people: UTC, to the second."""
    return "" if at is None else at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


@contextmanager
def progress(label: str, total: int | None) -> Generator[Callable[[int], None]]:
    """Show a bar on standard error, if that is a terminal, and give what moves it on."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # What is printed meanwhile goes above the bar, unless it goes elsewhere.
    bar = Progress(*columns, console=Console(stderr=True), redirect_stdout=sys.stdout.isatty())
    with bar:
        running = bar.add_task(label, total=total)
        yield lambda steps: bar.advance(running, steps)


def confirm(question: str, *, yes: bool) -> None:
    """Ask before what changes much.

    Raises:
        OptionError: nobody is there to answer, and `--yes` was not given.
        Exit: the answer was no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise OptionError(f"{question} Nobody is there to answer (no terminal); give --yes if so")
    # Not by typer.confirm: with err=True it still sends a space to standard output, which may be a file.
    typer.echo(f"{question} [y/N] ", err=True, nl=False)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise typer.Exit(1)
