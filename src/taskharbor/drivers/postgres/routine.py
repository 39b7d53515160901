"""A routine: one verb's statements and decisions, written once, without saying how or on which connection they are run.

It yields a `Query` and receives the rows; what it returns is the verb's answer. Runners pass the database's errors in,
so that a routine can use `try`. (The shape is that of psycopg's `generators.py`.)

Statements name the schema `taskharbor`; a runner puts the real name there. Every parameter travels as text, or as
bytes, and is cast where it is used: so a statement has one plan whatever the sizes of the numbers in it, and the same
text is understood by psycopg, which would guess types from values, and by asyncpg, which asks the server for them.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

T = TypeVar("T")

Cell: TypeAlias = str | bytes | None


class Query(NamedTuple):
    """One statement and its parameters, `$1` and so on."""

    sql: str
    params: Sequence[Cell] = ()


# At this border a cell may be anything; routines turn it into what it is at once.
Row: TypeAlias = tuple[Any, ...]
Routine: TypeAlias = Generator[Query, list[Row], T]


class Wakes:
    """Whom a routine's changes concern, once they are committed."""

    __slots__ = ("jobs", "queues")

    def __init__(self) -> None:
        self.queues: set[str] = set()
        self.jobs: list[str] = []

    def __bool__(self) -> bool:
        return bool(self.queues or self.jobs)


def quoted(name: str) -> str:
    """Return an identifier as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def plain_array(values: Iterable[object]) -> str:
    """Return an array's text, of values that need no quotes there: numbers, ids, words of our own."""
    return "{" + ",".join(map(str, values)) + "}"


def nullable_array(values: Iterable[object | None]) -> str:
    """Return an array's text, of values that need no quotes there, or are None."""
    return "{" + ",".join(["NULL" if value is None else str(value) for value in values]) + "}"


def text_array(values: Iterable[str | None]) -> str:
    """Return an array's text, of any texts."""
    values = list(values)
    written = {
        value: "NULL" if value is None else _quoted(value) for value in set(values)
    }  # most are the same
    return "{" + ",".join([written[value] for value in values]) + "}"


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
