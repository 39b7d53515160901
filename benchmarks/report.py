"""Telling the results: a table for people, JSON lines for programs."""

from __future__ import annotations

import os
import platform
import sqlite3
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.measure import Line, Settings
from benchmarks.postgres.server import server_version

WIDTH = 132
"""Of the table where no terminal sets it."""


def print_json(lines: Sequence[Line]) -> None:
    """Print one JSON object a line, on standard output."""
    for line in lines:
        print(msgspec.json.encode(line).decode())


def print_table(lines: Sequence[Line], settings: Settings) -> None:
    """Print the table, and how many floors were met, on standard output."""
    # Piped into a file, the table keeps its columns whole.
    Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH).print(table(lines, settings))


def table(lines: Sequence[Line], settings: Settings) -> Table:
    """Return the table."""
    made = Table(
        title=f"TaskHarbor on {settings.driver}: {machine(settings)}",
        caption=_caption(settings, lines),
    )
    made.add_column("measure")
    for heading in ("ours", "ceiling", "ratio", "spread", "floor"):
        made.add_column(heading, justify="right")
    made.add_column("met")
    theme = ""
    for line in lines:
        if theme and line.theme != theme:
            made.add_section()
        theme = line.theme
        made.add_row(
            line.name,
            f"{_number(line.ours)} {line.unit}",
            "" if line.ceiling is None else _number(line.ceiling),
            "" if line.ratio is None else f"{line.ratio:.2f}",
            f"{_number(line.lowest)} - {_number(line.highest)}",
            line.floor or "",
            "" if line.met is None else ("[green]yes" if line.met else "[bold red]MISSED"),
        )
    return made


def machine(settings: Settings) -> str:
    """Return what the figures depend on most."""
    try:
        loop = f"uvloop {version('uvloop')}"
    except PackageNotFoundError:
        loop = "asyncio's own loop"
    store = ""
    if settings.driver == "sqlite":
        store = f", SQLite {sqlite3.sqlite_version}"
    elif settings.driver == "postgres":
        store = f", PostgreSQL {server_version(settings)}"
    return f"{os.cpu_count()} CPUs, {platform.system()}, Python {platform.python_version()}, {loop}{store}"


def _caption(settings: Settings, lines: Sequence[Line]) -> str:
    promised = [line for line in lines if line.met is not None]
    missed = [line.name for line in promised if not line.met]
    verdict = (
        "no floors here" if not promised else f"{len(promised) - len(missed)} of {len(promised)} floors met"
    )
    which = "the best" if settings.best else "medians"
    return (
        f"{settings.jobs} jobs a run, {which} of {settings.rounds} rounds, {settings.clock} clock; {verdict}"
        f"{'; missed: ' + ', '.join(missed) if missed else ''}"
    )


def _number(value: float) -> str:
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}"
