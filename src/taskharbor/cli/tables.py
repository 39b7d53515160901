"""Tables for people: a line each; on a terminal folded to its width.

Where the columns do not fit beside each other, the first one, an id or a name that people copy, gets a line of its own,
and the others stand folded beneath it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from taskharbor.cli.output import echo, plain

if TYPE_CHECKING:
    from rich.console import RenderableType

_STYLES = {
    "dead": "red",
    "failed": "red",
    "cancelled": "yellow",
    "succeeded": "green",
    "running": "cyan",
    "parked": "yellow",
    "retrying": "yellow",
}
"""What states look like on a terminal."""
# Beyond so many rows nobody reads them folded, and measuring each takes long.
_MANY = 500
_SHORT = 20
"""Up to so many characters a text stays whole beside the others;"""
_SHORTER = 10
"""and so many beneath its id."""
_GAP = 2


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under headers, if there are any: a line each; on a terminal with long texts folded to its width."""
    shown = [[plain(cell) for cell in row] for row in rows]
    if sys.stdout.isatty() and len(rows) <= _MANY:
        from rich.console import Console

        console = Console(highlight=False, markup=False)
        parts = _folded(headers, shown, console.width)
        if parts is not None:
            for part in parts:
                console.print(part)
            return
    for text in _lines(headers, shown):
        echo(text)


def folded(headers: Sequence[str], rows: Sequence[Sequence[str]], columns: int) -> Sequence[RenderableType]:
    """Return a table as `table` prints it on a terminal of so many columns, for pictures that change."""
    from rich.text import Text

    shown = [[plain(cell) for cell in row] for row in rows]
    parts = _folded(headers, shown, columns)
    return [Text(text, overflow="fold") for text in _lines(headers, shown)] if parts is None else parts


def styled(parts: Iterable[tuple[str, str]]) -> None:
    """Print a line of parts, each a text and the state that it looks like on a terminal, or "" for none."""
    shown = [(plain(text), _STYLES.get(state, "")) for text, state in parts]
    if not sys.stdout.isatty():
        echo("".join(text for text, _ in shown).rstrip())
        return
    from rich.console import Console
    from rich.text import Text

    Console(highlight=False, markup=False).print(Text.assemble(*shown), soft_wrap=True)


def width() -> int | None:
    """Return how many characters a line of the terminal has; None where there is none."""
    return _terminal_width() if sys.stdout.isatty() else None


def _terminal_width() -> int:
    from rich.console import Console

    return Console().width


def _shrunk(widths: Sequence[int], room: int, least: int) -> Sequence[int] | None:
    """Return widths that fit into so much room, the longest shortened first; None if one would be below `least`."""
    shrunk = [min(width, room) for width in widths]
    while sum(shrunk) + _GAP * len(shrunk) > room:
        longest = max(shrunk, default=0)
        if longest <= least:
            return None
        shrunk[shrunk.index(longest)] -= 1
    return shrunk


def _lines(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield a line for each row, however long."""
    everything = [*([headers] if headers else []), *rows]
    widths = _widths(everything)
    for row in everything:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _widths(rows: Sequence[Sequence[str]]) -> Sequence[int]:
    return [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]


def _folded(
    headers: Sequence[str], rows: Sequence[Sequence[str]], columns: int
) -> Sequence[RenderableType] | None:
    """Return a table that fits into so many columns; None if it cannot be made to."""
    widths = _widths([*([headers] if headers else []), *rows])
    if not widths:
        return []
    beside = _shrunk(widths[1:], columns - widths[0] - _GAP, _SHORT)
    if beside is not None:
        return [_grid(headers, rows, [widths[0], *beside])]
    beneath = _shrunk(widths[1:], columns - _GAP, _SHORTER)
    if beneath is not None and widths[0] <= columns:
        return _stacked(headers, rows, beneath)
    return None


def _stacked(
    headers: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int]
) -> Sequence[RenderableType]:
    """Return the first cell of each row on a line of its own, and the others beneath it, in columns of these widths."""
    parts: list[RenderableType] = []
    for number, row in enumerate([headers, *rows] if headers else rows):
        style = "bold" if headers and not number else ""
        parts.append(_grid([], [row[:1]], [len(row[0])], style))
        parts.append(_grid([], [row[1:]], widths, style, indent=_GAP))
    return parts


def _grid(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    widths: Sequence[int],
    style: str = "",
    indent: int = 0,
) -> RenderableType:
    """Return a table whose columns have these widths; what is longer is folded."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    grid = Table(
        box=None, padding=(0, _GAP, 0, 0), show_header=bool(headers), header_style="bold", style=style
    )
    for number, width in enumerate(widths):
        grid.add_column(headers[number] if headers else "", width=width, overflow="fold")
    for row in rows:
        grid.add_row(*(Text(cell, style=_STYLES.get(cell, style)) for cell in row))
    return Padding(grid, (0, 0, 0, indent), expand=False)
