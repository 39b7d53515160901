"""Tables for people: a line each, on a terminal with long texts folded to its width."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from taskharbor.cli.output import plain

_STYLES = {
    "dead": "red",
    "cancelled": "yellow",
    "succeeded": "green",
    "running": "cyan",
    "parked": "yellow",
    "retrying": "yellow",
}
# Beyond so many rows nobody reads them folded, and measuring each takes long.
_MANY = 500
_SHORT = 20


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under headers, if there are any: a line each; on a terminal with long texts folded to its width."""
    shown = [[plain(cell) for cell in row] for row in rows]
    everything = [*([headers] if headers else []), *shown]
    widths = [max(len(cell) for cell in column) for column in zip(*everything, strict=True)]
    if sys.stdout.isatty() and len(rows) <= _MANY and _fits(widths):
        _fold(headers, shown, widths)
        return
    for row in everything:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _folds(number: int, width: int) -> bool:
    """Return whether a column may be folded: not the ids, which stand first and are copied, and nothing short."""
    return bool(number) and width > _SHORT


def _fits(widths: Sequence[int]) -> bool:
    """Return whether a terminal is wide enough for a table; on others it is the lines that are folded."""
    from rich.console import Console

    least = sum(_SHORT if _folds(number, width) else width for number, width in enumerate(widths))
    return least + 2 * len(widths) <= Console().width


def _fold(headers: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, padding=(0, 2, 0, 0), show_header=bool(headers), header_style="bold")
    for number, width in enumerate(widths):
        grid.add_column(
            headers[number] if headers else "", no_wrap=not _folds(number, width), overflow="fold"
        )
    for row in rows:
        grid.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    Console(highlight=False, markup=False).print(grid)
