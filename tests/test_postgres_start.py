"""Workers that are started before their server can be used: they wait for it, and go on by themselves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("psycopg", reason="needs the extra `postgres`")

from taskharbor import Harbor, Registry, task
from taskharbor.drivers.postgres.embedded import Server
from tests.fixtures.support import SOURCES
from tests.support.postgres import make_server
from tests.support.postgres_ground import Ground
from tests.support.work import ENOUGH, eventually

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")

APPLICATION = """
from taskharbor import Harbor, task

@task(name="add")
async def add(a: int, b: int) -> int:
    return a + b

harbor = Harbor("memory://")
"""
WAITS = "the store cannot be reached; the worker starts when it can: "

registry = Registry()


@task(name="add", registry=registry)
async def add(a: int, b: int) -> int:
    return a + b


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    with make_server() as made:
        yield made


@pytest.fixture
def ground(server: Server) -> Generator[Ground]:
    server.start()
    made = Ground(server.conninfo)
    yield made
    made.remove()


class Worker:
    """`taskharbor worker` in a process of its own."""

    def __init__(self, folder: Path, url: str, processes: int) -> None:
        (folder / "sums.py").write_text(APPLICATION, encoding="utf-8")
        self._log = folder / "log"
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("TASKHARBOR_")
        }
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "taskharbor.cli", "worker", "--app", "sums:harbor", "--url", url),
                    *("--processes", str(processes)),
                ],
                cwd=folder,
                env={**environment, "PYTHONPATH": str(SOURCES)},
                stderr=log,
            )

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def told(self, text: str, times: int = 1) -> None:
        """Wait until it has logged something so often."""
        eventually(lambda: self.log().count(text) == times, f"{text!r} in {self.log()}")

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(ENOUGH.total_seconds())


@contextmanager
def worker(folder: Path, url: str, processes: int = 1) -> Generator[Worker]:
    made = Worker(folder, url, processes)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait()


def sum_of(ground: Ground) -> int:
    """Return what a worker makes of a job."""
    with Harbor(ground.driver(), registry=registry):
        return add.enqueue(2, 3).result(ENOUGH)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_worker_started_before_its_server_works_once_that_is_there(
    ground: Ground, server: Server, tmp_path: Path, processes: int
) -> None:
    server.kill()
    with worker(tmp_path, ground.url, processes) as started:
        started.told(WAITS, processes)
        server.start()

        assert 5 == sum_of(ground)
        started.told("the store can be reached now", processes)
        assert 0 == started.end()
        assert processes == started.log().count(WAITS)


def test_a_worker_on_a_read_only_server_works_once_that_takes_writes(ground: Ground, tmp_path: Path) -> None:
    ground.do("ALTER DATABASE postgres SET default_transaction_read_only = on")
    with worker(tmp_path, ground.url) as started:
        started.told(WAITS)
        assert "read-only" in started.log()
        ground.do("ALTER DATABASE postgres RESET default_transaction_read_only")

        assert 5 == sum_of(ground)
        assert 0 == started.end()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("processes", [1, 2])
def test_a_worker_that_waits_for_its_server_ends_when_it_is_told_to(
    ground: Ground, server: Server, tmp_path: Path, number: signal.Signals, processes: int
) -> None:
    server.kill()
    with worker(tmp_path, ground.url, processes) as started:
        started.told(WAITS, processes)

        assert 0 == started.end(number), started.log()
    server.start()
