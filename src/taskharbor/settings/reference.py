"""Writes the table of docs/reference/settings.md, from the settings themselves.

    python -m taskharbor.settings.reference docs/reference/settings.md

What stands above the mark in that page is written by hand. A test compares the rest with what is written here.
"""

from __future__ import annotations

import sys
from pathlib import Path

from taskharbor.settings.declared import (
    LISTS,
    NAMES,
    NUMBERED,
    Settings,
    kind_of,
    meaning_of,
    table_of,
    variable_of,
)
from taskharbor.settings.loading import told

MARK = (
    "<!-- What follows is written by: python -m taskharbor.settings.reference docs/reference/settings.md -->"
)


def generated() -> str:
    """Return what follows the mark: a row a setting, those at the top of the file first."""
    parts: list[str] = []
    for table in ("", "worker"):
        names = [name for name in NAMES if table_of(name) == table]
        parts.append(f"## In `[{table}]`\n" if table else "## At the top\n")
        parts.append("| key | variable | default | value | meaning |\n| --- | --- | --- | --- | --- |")
        parts.extend(map(_row, names))
        parts.append("")
    return "\n".join(parts)


def page(text: str) -> str:
    """Return a page with what follows its mark written anew."""
    return f"{text.partition(MARK)[0]}{MARK}\n\n{generated()}"


def _row(name: str) -> str:
    default = told(name, getattr(Settings(), name))
    shown = f"`{default}`" if default else ""
    kind = kind_of(name) + (" (in a variable: with commas)" if name in LISTS else "")
    kind += "; in the file a table, `{mail = 3}`" if name in NUMBERED else ""
    return f"| `{name}` | `{variable_of(name)}` | {shown} | {kind} | {meaning_of(name)} |"


def _main() -> None:
    path = Path(sys.argv[1])
    path.write_text(page(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    _main()
