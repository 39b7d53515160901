"""The SQLite driver keeps the contract."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from taskharbor.drivers.sqlite import SqliteDriver
from taskharbor_conformance import OpenDriver, conformance_test


@contextmanager
def make_place() -> Generator[OpenDriver]:
    with TemporaryDirectory() as folder:
        yield lambda: SqliteDriver(Path(folder) / "jobs.db")


test_conformance = conformance_test(make_place)
