"""How fast a worker is after a trouble, beside how fast it was before: nothing of it may stay."""

from __future__ import annotations

import logging
import random
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

pytest.importorskip("psycopg", reason="needs the extra `postgres`")

from taskharbor.drivers.postgres.embedded import Server
from tests.support.chaos import Chaos
from tests.support.chaos_app import nothing
from tests.support.chaos_stores import PostgresChaos
from tests.support.postgres import make_server
from tests.support.postgres_ground import Ground
from tests.support.work import eventually

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals"),
    pytest.mark.slow,
    pytest.mark.timeout(600),
]

CHUNK, ENOUGH_JOBS, MOST_JOBS = 5_000, 120_000, 140_000
"""Jobs of one call; what is left at least while it is measured; and what it begins with."""
MEASURED_SECONDS = 4.0
LEAST = 0.6
"""Of what it was before; 0.9 on a machine that does nothing else."""

logger = logging.getLogger(__name__)


class Drain:
    """A worker that does nothing as fast as it can."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self.ground = Ground(server.conninfo)
        self.chaos = Chaos(folder, PostgresChaos(self.ground))
        self.fill()
        self.worker = self.chaos.start_worker(lease="30s")
        self.measured()  # until it is warm

    def fill(self) -> None:
        """See to it that there is enough to do."""
        while self.left() < MOST_JOBS:
            self.chaos.harbor.enqueue_many((nothing.s(number) for number in range(CHUNK)), check=False)

    def left(self) -> int:
        """Return how many jobs are still to be done."""
        return self.ground.count("job")

    def measured(self) -> float:
        """Return how many jobs it does in a second."""
        if self.left() < ENOUGH_JOBS:
            self.fill()
        self.go_on()
        left, began = self.left(), time.monotonic()
        time.sleep(MEASURED_SECONDS)
        return (left - self.left()) / (time.monotonic() - began)

    def go_on(self) -> None:
        """Wait until it has gone on for a while."""
        left = self.left()
        eventually(lambda: self.left() < left - 1000, "progress")


@pytest.fixture(scope="module")
def drain(tmp_path_factory: pytest.TempPathFactory) -> Generator[Drain]:
    with make_server(fsync=True, max_wal_size="4GB", shared_buffers="256MB") as server:
        made = Drain(server, tmp_path_factory.mktemp("drain"))
        yield made
        made.chaos.close()


def restart(drain: Drain) -> None:
    drain.server.restart()


def restart_at_once(drain: Drain) -> None:
    drain.server.restart("immediate")


def kill(drain: Drain) -> None:
    drain.server.kill()
    drain.server.start()


def kill_a_backend_each_second(drain: Drain) -> None:
    chance = random.Random(5)
    for _ in range(6):
        drain.ground.do("SELECT pg_terminate_backend(%s)", chance.choice(drain.ground.backends()))
        time.sleep(1)


def hold_transactions(drain: Drain) -> None:
    with drain.ground.connect() as reader, drain.ground.connect() as writer:
        drain.ground.do_on(reader, "BEGIN ISOLATION LEVEL REPEATABLE READ")
        drain.ground.do_on(reader, "SELECT count(*) FROM job")
        drain.ground.do_on(writer, "BEGIN")
        drain.ground.do_on(writer, "INSERT INTO pause VALUES ('elsewhere', now(), '', '')")
        drain.go_on()
        time.sleep(3)
        reader.rollback()
        writer.rollback()


def make_read_only(drain: Drain) -> None:
    for value in ("on", "off"):
        drain.ground.do(f"ALTER SYSTEM SET default_transaction_read_only = '{value}'")
        drain.ground.do("SELECT pg_reload_conf()")
        time.sleep(1)


@pytest.mark.parametrize(
    "trouble",
    [restart, restart_at_once, kill, kill_a_backend_each_second, hold_transactions, make_read_only],
)
def test_a_worker_is_as_fast_as_it_was(drain: Drain, trouble: Callable[[Drain], None]) -> None:
    before = drain.measured()

    trouble(drain)
    after = drain.measured()

    logger.info(
        "%s: %.0f jobs a second before, %.0f after: %.2f", trouble.__name__, before, after, after / before
    )
    assert after > before * LEAST
