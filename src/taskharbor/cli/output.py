"""What is printed: lines for people, JSON lines for programs, progress and questions on standard error.

Whatever comes out of a store may hold control characters, which a terminal would obey. They are shown as escapes.

A reader may go away (`| head`). Whoever only looks then ends, quietly and well: it was read as far as anybody wanted.
Whoever changes something goes on `to_the_end`, since half of what was asked was asked by nobody.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime

import msgspec
import typer

from taskharbor.cli.exits import Exit
from taskharbor.codec.hooks import enc_hook
from taskharbor.errors import OptionError

_encoder = msgspec.json.Encoder(enc_hook=enc_hook)


class ReaderGone(Exception):
    """Nobody reads standard output any more."""


class _Unheard(msgspec.Struct):
    """What kept standard output from being printed, while something is done to its end."""

    why: OSError | None = None


_unheard: ContextVar[_Unheard | None] = ContextVar("taskharbor_cli_unheard", default=None)


@contextmanager
def to_the_end() -> Generator[None]:
    """Go on although nobody reads what is printed; say so on standard error afterwards.

    Raises:
        Exit: with 1, if not all could be printed.
    """
    unheard = _Unheard()
    token = _unheard.set(unheard)
    try:
        yield
    finally:
        _unheard.reset(token)
        if unheard.why is not None:
            note(f"Not all of it could be printed ({unheard.why.strerror}); the work went on without.")
    if unheard.why is not None:
        raise typer.Exit(Exit.FAILED)


def echo(text: str | bytes) -> None:
    """Print a line as it is.

    Raises:
        ReaderGone: nobody reads it, and nothing is done `to_the_end`.
    """
    try:
        typer.echo(text)
    except OSError as error:
        unheard = _unheard.get()
        if unheard is None and not isinstance(error, BrokenPipeError):
            raise
        hush()
        if unheard is None:
            raise ReaderGone from error
        unheard.why = error


def hush() -> None:
    """Let what is printed from now on go nowhere, with what is left in the buffer."""
    with suppress(OSError, ValueError):  # no file at all, as in tests
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def json_line(value: object) -> None:
    """Print one value as one line of JSON; times as ISO 8601, bytes as base64."""
    echo(_encoder.encode(value))


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
    echo(plain(text))


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
