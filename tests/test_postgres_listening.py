"""`?listen=`: whether it leads to where the jobs are, and which place is told when it cannot be reached."""

from __future__ import annotations

import logging
import socket
from collections.abc import Generator
from contextlib import contextmanager

import msgspec
import pytest

pytest.importorskip("psycopg", reason="needs the extra `postgres`")

from psycopg.conninfo import make_conninfo

from taskharbor.drivers.postgres import PostgresDriver
from tests.fixtures.support import untyped
from tests.support.postgres import make_server, server
from tests.support.postgres_bell import Counter
from tests.support.postgres_ground import Ground
from tests.support.work import eventually

UNHEARD = "wake-ups from other processes do not arrive"


@pytest.fixture(scope="module")
def ground() -> Generator[Ground]:
    made = Ground(server().conninfo)
    yield made
    made.remove()


@contextmanager
def watching(ground: Ground, listen: str) -> Generator[PostgresDriver]:
    """Have somebody wait for jobs, and hear of them by some way."""
    driver = PostgresDriver(msgspec.structs.replace(ground.place(), listen=listen))
    subscription = driver.watch_queues(["default"], Counter())
    yield driver
    subscription.close()
    driver.close()


def refused(ground: Ground, listen: str, caplog: pytest.LogCaptureFixture) -> str:
    """Return what is logged of a way by which nothing is heard."""
    caplog.set_level(logging.WARNING, "taskharbor")
    with watching(ground, listen) as driver:
        eventually(lambda: UNHEARD in caplog.text, "it is told")
        assert not listens(driver)
    return caplog.text


def listens(driver: PostgresDriver) -> bool:
    listening = untyped(driver)._bell._listening
    return listening is not None and bool(listening.up)


def test_a_way_to_the_same_database_is_listened_on(ground: Ground) -> None:
    listen = make_conninfo(ground.conninfo, application_name="listener")

    with watching(ground, listen) as driver:
        eventually(lambda: listens(driver), "it listens")
        heard = ground.do("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'listener'")

    assert [(1,)] == heard


def test_another_database_is_refused(ground: Ground, caplog: pytest.LogCaptureFixture) -> None:
    told = refused(ground, make_conninfo(ground.conninfo, dbname="template1"), caplog)

    assert "?listen= leads to the database 'template1' on " in told
    assert "and the jobs are in the database 'postgres' on" in told
    assert "so correct the URL" in told


def test_the_same_name_on_another_server_is_refused(ground: Ground, caplog: pytest.LogCaptureFixture) -> None:
    with make_server() as other:
        told = refused(ground, other.conninfo, caplog)

    assert "?listen= leads to the database 'postgres' on a local socket" in told
    assert ", on another server; nothing is ever heard there, so correct the URL" in told


def test_a_way_that_leads_nowhere_is_told_as_itself(ground: Ground, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        port = taken.getsockname()[1]
        told = refused(ground, f"postgresql://app:s3cr3t@127.0.0.1:{port}/shop", caplog)

    assert f"{UNHEARD}: the database 'shop' on 127.0.0.1:{port} cannot be used now" in told
    assert "s3cr3t" not in told


def test_while_the_pooler_is_away_what_can_be_heard_is(ground: Ground) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        pooler = f"postgresql://app@127.0.0.1:{taken.getsockname()[1]}/shop"
        driver = PostgresDriver(
            msgspec.structs.replace(ground.place(), conninfo=pooler, listen=ground.conninfo)
        )
        subscription = driver.watch_queues(["default"], Counter())
        eventually(lambda: listens(driver), "it listens")
        subscription.close()
        driver.close()
