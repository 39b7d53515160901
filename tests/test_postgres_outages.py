"""Troubles of a server under load: workers and producers go on by themselves when it does, and no job is lost.

Two workers and a producer of their own processes work on while the server is troubled. After each trouble all of them
have to go on; then nothing that was confirmed may be lost, nothing run twice, nobody charged with a crash, and nothing
said beyond a few lines.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
from collections.abc import Callable, Generator
from contextlib import suppress
from pathlib import Path

import pytest

pytest.importorskip("psycopg", reason="needs the extra `postgres`")

import psycopg

from taskharbor.drivers.postgres.embedded import Server
from tests.support.chaos_load import SOON, Load, load_on
from tests.support.disks import filled, small_disk
from tests.support.postgres import make_server
from tests.support.postgres_ground import Ground

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="needs POSIX signals, and /proc to see who spins"),
    pytest.mark.timeout(300),
]

FEW_LINES = 60
"""What two workers may log of one trouble."""
SPINNING = 0.5
"""The share of a processor beyond which a worker does not wait for the server, but hammers at it."""

Trouble = Callable[[Load], object]


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    with make_server(max_connections="40", superuser_reserved_connections="0") as made:
        yield made


@pytest.fixture(scope="module")
def load(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Generator[Load]:
    # A pool so small that verbs wait for one another.
    with load_on(server, tmp_path_factory.mktemp("load"), options="&pool_size=2") as made:
        yield made


# --- troubles


def restart(load: Load) -> None:
    load.server.restart()


def restart_at_once(load: Load) -> None:
    load.server.restart("immediate")


def kill(load: Load) -> None:
    load.server.kill()
    load.server.start()


def kill_backends(load: Load) -> None:
    """Cut a connection of ours again and again, so that each verb is hit sooner or later."""
    chance = random.Random(4)
    with load.ground.connect() as connection:
        for _ in range(20):
            rows = load.ground.do_on(
                connection,
                "SELECT pid FROM pg_stat_activity WHERE application_name = 'taskharbor' ORDER BY 1",
            )
            if rows:
                load.ground.do_on(connection, "SELECT pg_terminate_backend(%s)", chance.choice(rows)[0])
            load.await_some()


def hold_transactions(load: Load) -> None:
    """One that reads, and sees all that has been since; and one that writes."""
    with load.ground.connect() as reader, load.ground.connect() as writer:
        load.ground.do_on(reader, "BEGIN ISOLATION LEVEL REPEATABLE READ")
        load.ground.do_on(reader, "SELECT count(*) FROM job")
        load.ground.do_on(writer, "BEGIN")
        load.ground.do_on(writer, "INSERT INTO pause VALUES ('elsewhere', now(), '', '')")
        load.await_progress()
        writer.rollback()
        reader.rollback()


def set_for_all(name: str, value: str) -> Trouble:
    def trouble(load: Load) -> None:
        load.ground.do(f"ALTER SYSTEM SET {name} = '{value}'")
        load.ground.do("SELECT pg_reload_conf()")
        load.await_refusal()
        load.ground.do(f"ALTER SYSTEM RESET {name}")
        load.ground.do("SELECT pg_reload_conf()")

    return trouble


def set_for_new_sessions(name: str, value: str) -> Trouble:
    """As a role's or a database's settings come: who was there before does not notice, and the others keep them."""

    def trouble(load: Load) -> None:
        load.ground.do(f"ALTER DATABASE postgres SET {name} = '{value}'")
        load.ground.cut()
        load.await_refusal()
        load.ground.do(f"ALTER DATABASE postgres RESET {name}")

    return trouble


def isolate(load: Load) -> None:
    """Nobody is refused for long: ours choose their isolation themselves."""
    load.ground.do("ALTER SYSTEM SET default_transaction_isolation = 'serializable'")
    load.ground.do("SELECT pg_reload_conf()")
    load.await_progress()
    load.ground.do("ALTER SYSTEM RESET default_transaction_isolation")
    load.ground.do("SELECT pg_reload_conf()")


def take_all_connections(load: Load) -> None:
    others: list[psycopg.Connection[tuple[object, ...]]] = []
    load.send(signal.SIGSTOP)  # or they would be quicker to come back than we are to take their places
    load.ground.cut()
    with suppress(psycopg.OperationalError):
        while True:
            others.append(load.ground.connect())
    load.send(signal.SIGCONT)
    load.await_refusal()
    for other in others:
        other.close()


TROUBLES: dict[str, Trouble] = {
    "restart": restart,
    "immediate restart": restart_at_once,
    "killed server": kill,
    "killed backends": kill_backends,
    "held transactions": hold_transactions,
    "read-only server": set_for_all("default_transaction_read_only", "on"),
    "read-only database": set_for_new_sessions("default_transaction_read_only", "on"),
    "no time for statements": set_for_new_sessions("statement_timeout", "1ms"),
    "serializable": isolate,
    "no connections left": take_all_connections,
}


QUICK = {"immediate restart", "killed backends", "read-only database", "no connections left"}
"""The others are like one of these, or tried on one store in `test_postgres_failures`."""


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(trouble, id=name, marks=[] if name in QUICK else [pytest.mark.slow])
        for name, trouble in TROUBLES.items()
    ],
)
def test_after_a_trouble_all_goes_on_and_nothing_is_lost_or_doubled(load: Load, trouble: Trouble) -> None:
    load.new_log()
    load.await_progress()

    trouble(load)
    load.await_progress()

    asked = load.settle_accounts()
    assert max(each.seconds for each in asked) < SOON
    logged = load.new_log()
    assert len(logged) < FEW_LINES, "\n".join(logged)


def test_while_the_server_is_down_workers_wait(load: Load) -> None:
    """They ask now and then, and neither spin nor fill the log."""
    load.new_log()
    load.server.stop()
    load.await_failures(20)

    with load.cpu() as shares:
        load.await_failures(100)
    load.server.start()
    load.await_progress()

    load.settle_accounts()
    assert max(shares) < SPINNING
    logged = load.new_log()
    assert len(logged) < FEW_LINES, "\n".join(logged)


@pytest.mark.slow
def test_a_disk_that_is_full_for_a_while(server: Server, tmp_path: Path) -> None:
    """The tables' disk: each of the worker's verbs is refused, until there is room."""
    owner = (server.folder / "data").stat().st_uid
    with small_disk(server.folder / "small", owner=owner, megabytes=16) as disk:
        other = Ground(server.conninfo)
        other.do(f"CREATE TABLESPACE small LOCATION '{disk}'")
        other.do("ALTER DATABASE postgres SET default_tablespace = 'small'")
        with load_on(server, tmp_path) as load:
            other.do("ALTER DATABASE postgres RESET default_tablespace")
            with filled(disk):
                load.await_refusal()
            load.await_progress()
            load.settle_accounts()
        load.ground.remove()
        other.do("DROP TABLESPACE small")
        other.remove()


@pytest.mark.slow
def test_a_full_disk_that_ends_the_server(tmp_path: Path) -> None:
    """The log's disk: the server panics, and cannot recover before there is room."""
    with make_server(max_wal_size="32MB", min_wal_size="32MB", max_connections="40") as server:
        owner = (server.folder / "data").stat().st_uid
        server.stop()
        with small_disk(server.folder / "small", owner=owner, megabytes=64) as disk:
            log = server.folder / "data/pg_wal"
            shutil.copytree(log, disk / "pg_wal")
            for path in (disk / "pg_wal", *(disk / "pg_wal").rglob("*")):
                os.chown(path, owner, owner)
            (disk / "pg_wal").chmod(0o700)
            shutil.rmtree(log)
            log.symlink_to(disk / "pg_wal")
            server.start()
            with load_on(server, tmp_path) as load:
                with filled(disk):
                    load.await_refusal()
                server.start()
                load.await_progress()
                load.settle_accounts()
            server.stop()
