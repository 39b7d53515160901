"""An application's own sqlite3 connection to the jobs' file, as the conformance suite asks for one."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

from taskharbor_conformance import OpenDriver, PlaceWithCallers


class SqliteCaller:
    """An application that lets sqlite3 begin its transactions."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.given = sqlite3.connect(path)
        self.given.execute("CREATE TABLE IF NOT EXISTS numbers (number INTEGER)")

    def begin(self) -> None:
        return

    def commit(self) -> None:
        self.given.commit()

    def rollback(self) -> None:
        self.given.rollback()

    def savepoint(self) -> None:
        self.given.execute("SAVEPOINT theirs")

    def rollback_to_savepoint(self) -> None:
        self.given.execute("ROLLBACK TO theirs")

    def add_row(self, number: int) -> None:
        self.given.execute("INSERT INTO numbers VALUES (?)", (number,))

    def rows(self) -> list[int]:
        with closing(sqlite3.connect(self._path)) as other:
            return [number for (number,) in other.execute("SELECT number FROM numbers ORDER BY number")]


def with_callers(path: Path, open_driver: OpenDriver) -> PlaceWithCallers:
    """Return a file as a place that applications connect to."""

    @contextmanager
    def open_caller() -> Generator[SqliteCaller]:
        caller = SqliteCaller(path)
        with closing(caller.given):
            yield caller

    return PlaceWithCallers(open_driver, open_caller)
