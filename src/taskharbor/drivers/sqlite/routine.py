"""A routine: one verb's statements and decisions, written once, without saying how or where they are run.

It yields a `Query` and receives the rows; what it returns is the verb's answer. Runners pass the database's errors in,
so that a routine can use `try`. (The shape is that of psycopg's `generators.py`.)
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

T = TypeVar("T")

Cell: TypeAlias = str | int | bytes | None


class Query(NamedTuple):
    """One statement and its parameters."""

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
