"""The SQLite driver keeps the contract."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from taskharbor.drivers.sqlite import SqliteDriver
from taskharbor_conformance import OpenDriver, conformance_test
from tests.support.sqlite_caller import with_callers


@contextmanager
def make_place() -> Generator[OpenDriver]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "jobs.db"
        yield with_callers(path, lambda: SqliteDriver(path))


test_conformance = conformance_test(make_place)
