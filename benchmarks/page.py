"""Putting a run's table into a page, in place of the last one: between `<!-- bench: NAME -->` and `<!-- end -->`."""

from __future__ import annotations

import datetime
import io
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.measure import Line, Settings
from benchmarks.report import WIDTH, table

_END = "<!-- end -->"


def put(page: Path, name: str, lines: Sequence[Line], settings: Settings) -> None:
    """Write the table of a run into the place of that name.

    Raises:
        ValueError: the page has no such place.
    """
    text = page.read_text(encoding="utf-8")
    begin = f"<!-- bench: {name} -->"
    before, found, after = text.partition(begin)
    _, ended, rest = after.partition(_END)
    if not (found and ended):
        raise ValueError(f"{page} has no place for this run: expected a line {begin!r}, and later {_END!r}")
    told = io.StringIO()
    Console(file=told, width=WIDTH).print(table(lines, settings))
    body = "\n".join(line.rstrip() for line in told.getvalue().splitlines())
    day = datetime.datetime.now(datetime.UTC).date()
    page.write_text(
        f"{before}{begin}\n```\n{body}\n```\n\nMeasured on {day}.\n{_END}{rest}", encoding="utf-8"
    )
