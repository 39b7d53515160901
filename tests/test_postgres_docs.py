"""docs/postgres.md: its SQL, run as it stands there on a server of its own, does what the page says."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from urllib.parse import quote

import pytest

pytest.importorskip("psycopg", reason="needs the extra `postgres`")

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow

from taskharbor import Harbor, Registry, task
from taskharbor.driver import HistoryPrune
from taskharbor.drivers.postgres import Place, PostgresDriver
from taskharbor.drivers.postgres.connection import settings as asked
from tests.fixtures.support import untyped
from tests.support.embedded import server_in
from tests.support.pages import ROOT, blocks_of
from tests.support.postgres import make_server, server

PAGE = ROOT / "docs" / "postgres.md"
ROLES = "CREATE ROLE migrator"
POOLER = "ALTER ROLE app IN DATABASE"
LOOKING = "-- what waits"
MONITOR = "CREATE ROLE monitor"
AFTER = "ON ALL TABLES IN SCHEMA"


def part(beginning: str) -> str:
    """Return the page's only block of SQL with these words."""
    (found,) = [
        block.code for block in blocks_of(PAGE) if block.info.startswith("sql") and beginning in block.code
    ]
    return found


def queries() -> list[str]:
    """Return the page's queries."""
    return [each for each in part(LOOKING).split(";\n") if each.strip()]


def url_of(conninfo: str, role: str) -> str:
    return f"{conninfo}{'&' if '?' in conninfo else '?'}options={quote(f'-c role={role}')}"


@pytest.fixture(scope="module")
def shop() -> Generator[str]:
    """A database set up as the page says, with jobs in every state; returns how to connect."""
    with make_server() as own:
        with psycopg.connect(own.conninfo, autocommit=True) as admin:
            admin.execute("CREATE DATABASE shop")
        conninfo = own.conninfo.replace("/postgres?", "/shop?")
        do(conninfo, part(ROLES))
        PostgresDriver(url_of(conninfo, "migrator")).migrate()
        do(conninfo, part(MONITOR))
        do(conninfo, part(POOLER))
        yield conninfo


def do(conninfo: str, statements: str, role: str = "taskharbor") -> list[TupleRow]:
    with psycopg.connect(make_conninfo(conninfo), autocommit=True) as connection:
        connection.execute(untyped(f"SET ROLE {role}"))
        done = connection.execute(untyped(statements))
        return done.fetchall() if done.description else []


def test_there_is_no_sql_that_nobody_runs() -> None:
    known = [ROLES, POOLER, LOOKING, MONITOR, AFTER]
    blocks = [block.code for block in blocks_of(PAGE) if block.info.startswith("sql")]

    assert [] == [code for code in blocks if not any(each in code for each in known)]


def test_a_worker_has_the_rights_that_it_needs_on_tables_of_later_migrations_too(shop: str) -> None:
    registry = Registry()

    @task(registry=registry)
    def note(text: str) -> str:
        return text

    driver = PostgresDriver(url_of(shop, "app"))
    with Harbor(driver, registry=registry) as harbor:
        harbor.enqueue_many([note.s("a")] * 3)
        done = harbor.run_until_idle()
        harbor.jobs.delete([harbor.jobs.find()[0].id])
        harbor.queues.pause("mail", by="ops", reason="a mistake")

        async def prune() -> None:
            async with driver.connect() as store:
                await store.history_prune(HistoryPrune())

        asyncio.run(prune())
    do(shop, "CREATE TABLE taskharbor.later (id integer)", "migrator")
    do(shop, part(AFTER))

    assert {"succeeded": 3} == done.settled
    assert [] == do(shop, "TRUNCATE taskharbor.later", "app")


def test_the_settings_for_a_pooler_hold_for_the_role(shop: str) -> None:
    ((settings,),) = do(shop, "SELECT setconfig FROM pg_db_role_setting WHERE setrole = 'app'::regrole")
    ours = asked(Place(conninfo=shop))["options"]

    assert ours == " ".join([f"-c {each}" for each in settings])


@pytest.mark.parametrize("query", queries(), ids=lambda query: query.splitlines()[0].lstrip("- "))
def test_its_queries_run_for_who_monitors(shop: str, query: str) -> None:
    if "errors" in query:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            do(shop, query, "monitor")
        do(shop, query)
    else:
        do(shop, query, "monitor")


def test_who_monitors_sees_no_payload(shop: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        do(shop, "SELECT payload FROM taskharbor.job", "monitor")


def test_a_paused_queue_is_shown(shop: str) -> None:
    with Harbor(PostgresDriver(url_of(shop, "app"))) as harbor:
        harbor.queues.pause("slow", by="ops", reason="the printer is out of paper")
    (query,) = [each for each in queries() if "taskharbor.pause" in each]

    shown = {row[:3] for row in do(shop, query, "monitor")}

    assert ("slow", "ops", "the printer is out of paper") in shown


def test_the_way_into_an_embedded_server_is_as_it_says() -> None:
    own = server().own
    if own is None:
        pytest.skip("the environment names a server")
    page = PAGE.read_text(encoding="utf-8")
    lines = (server_in(own.folder).folder / "data" / "postmaster.pid").read_text().splitlines()

    assert 'psql -h "$PWD/devdata/socket" -p 54329 -U taskharbor -d postgres' in page
    assert ("54329", str(own.folder / "socket")) == (lines[3], lines[4])
    with psycopg.connect(
        host=str(own.folder / "socket"), port=54329, user="taskharbor", dbname="postgres"
    ) as connection:
        assert connection.info.dbname == "postgres"
