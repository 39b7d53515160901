"""Deployments that cannot work: each way in says what was refused, where, and what to do; the command line, too."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Generator
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

pytest.importorskip("psycopg", reason="needs the extra `postgres`")

import psycopg
from psycopg import errors as sqlstates

from taskharbor.cli.exits import Exit
from taskharbor.driver import JobGet
from taskharbor.drivers.postgres import Place, open_driver
from taskharbor.drivers.postgres import connection as connecting
from taskharbor.drivers.postgres.embedded import Server
from taskharbor.drivers.postgres.refusal import store_error
from taskharbor.errors import (
    SchemaError,
    StoreError,
    StoreUnavailable,
    TaskHarborError,
    UnusableStoreError,
)
from taskharbor_conformance.bench import new_job
from tests.fixtures.cli import Ended, Shop, shops
from tests.fixtures.support import run_python
from tests.support.postgres import make_server
from tests.support.postgres_ground import Ground, put
from tests.support.postgres_place import shared_schema

SECRET = "s3cr3t"


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    with make_server(listen_addresses="127.0.0.1") as made:
        yield made


@pytest.fixture(scope="module")
def ground(server: Server) -> Generator[Ground]:
    made = Ground(server.conninfo)
    made.do(f"CREATE ROLE guest LOGIN PASSWORD '{SECRET}'")
    made.do(f"CREATE ROLE ghost NOLOGIN PASSWORD '{SECRET}'")
    made.do("CREATE DATABASE closed")
    made.do("REVOKE CONNECT ON DATABASE closed FROM PUBLIC")
    yield made
    made.remove()


def by_tcp(server: Server, *, user: str = "guest", password: str = SECRET, database: str = "postgres") -> str:
    """Return a URL over TCP, where a password is asked for."""
    port = urlsplit(server.tcp_conninfo).port
    return f"postgresql://{user}:{quote(password)}@127.0.0.1:{port}/{database}"


def refusal(url: str) -> TaskHarborError:
    """Return why a store cannot be used; every way in must say the same."""
    driver = open_driver(url)
    told: list[TaskHarborError] = []

    async def on_loop() -> None:
        async with driver.connect():
            pass

    def blocking() -> None:
        with driver.connect_blocking():
            pass

    for way in (
        blocking,
        lambda: asyncio.run(on_loop()),
        driver.migrate,
        driver.schema_version,
    ):
        with pytest.raises(TaskHarborError) as refused:
            way()
        told.append(refused.value)
    assert {(type(told[0]), str(told[0]))} == {(type(each), str(each)) for each in told}
    assert SECRET not in str(told[0])
    assert isinstance(told[0].__cause__, psycopg.Error)
    return told[0]


# Who comes, and what he is told beside the place.
REFUSED = {
    "wrong password": (
        {"password": "wrong"},
        r'password authentication failed for user "guest"\); correct the URL, or what the server allows',
    ),
    "no password": ({"password": ""}, r"no password supplied\); correct the URL"),
    "no such role": ({"user": "nobody_here"}, r'password authentication failed for user "nobody_here"'),
    "no login": ({"user": "ghost"}, r'role "ghost" is not permitted to log in'),
    "no such database": (
        {"database": "nowhere"},
        r'database "nowhere" does not exist\); create it \(createdb NAME\), or correct the URL',
    ),
    "not in this database": (
        {"database": "closed"},
        r'permission denied for database "closed".*; grant the role its rights',
    ),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_who_may_not_come_in(server: Server, ground: Ground, case: tuple[dict[str, str], str]) -> None:
    who, told = case

    error = refusal(by_tcp(server, **who))

    assert isinstance(error, UnusableStoreError)
    assert str(error).startswith(f"the database {who.get('database', 'postgres')!r} on 127.0.0.1:")
    assert "cannot be used as it is (PostgreSQL says:" in str(error)
    assert re.search(told, str(error)), str(error)


def test_a_server_that_is_not_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        port = taken.getsockname()[1]
        error = refusal(f"postgresql://guest:{SECRET}@127.0.0.1:{port}/jobs")

    assert isinstance(error, StoreUnavailable)
    assert re.fullmatch(
        rf"the database 'jobs' on 127\.0\.0\.1:{port} cannot be used now \(PostgreSQL says: .*Connection refused.*\); "
        "ask again when it is back; workers do that by themselves",
        str(error),
    )


WRONG = {
    "sslmode=x": 'invalid sslmode value: "x"',
    "target_session_attrs=x": 'invalid target_session_attrs value: "x"',
    "keepalives=99999999999999": 'invalid integer value "99999999999999" for connection option "keepalives"',
    "port=1,2&host=a,b,c": "could not match 2 port numbers to 3 hosts",
    "hostaddr=nowhere": 'could not parse network address "nowhere"',
    "service=none_here": 'definition of service "none_here" not found',
    "options=-c%20nonsense%3D1": 'unrecognized configuration parameter "nonsense"',
    "options=-c%20work_mem%3Dx": 'invalid value for parameter "work_mem": "x"',
    "sslmode=require": "server does not support SSL, but SSL was required",
}


@pytest.mark.parametrize("query", WRONG)
def test_settings_that_cannot_be_are_to_be_corrected_and_not_tried_again(
    server: Server, ground: Ground, query: str
) -> None:
    error = refusal(f"{by_tcp(server)}?{query}")

    assert isinstance(error, UnusableStoreError)
    assert WRONG[query] in str(error)
    assert "); correct them in the URL, or in libpq's environment variables (PGSSLMODE" in str(error)


def test_a_variable_of_the_environment_that_cannot_be(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGSSLMODE", "x")

    error = refusal(by_tcp(server))

    assert isinstance(error, UnusableStoreError)
    assert "PGSSLMODE" in str(error)


def test_a_host_that_is_not_there() -> None:
    error = refusal(f"postgresql://guest:{SECRET}@no.such.host.invalid/jobs")

    assert isinstance(error, StoreUnavailable)
    assert "no.such.host.invalid" in str(error)


def test_a_server_that_is_too_old(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "LEAST_VERSION", 990000)

    with (
        pytest.raises(UnusableStoreError, match=r"is PostgreSQL \d+, and TaskHarbor needs 99 or newer"),
        ground.producing(),
    ):
        pass


def test_rights_taken_away_while_it_is_open(server: Server, ground: Ground) -> None:
    """They are missed at the verb that needs them, and used again at once when they are back."""
    rights = f"SCHEMA {ground.schema}", f"ALL TABLES IN SCHEMA {ground.schema}"
    for what in rights:
        ground.do(f"GRANT ALL ON {what} TO guest")
    driver = open_driver(f"{by_tcp(server)}?schema={ground.schema}")
    with driver.connect_blocking() as store:
        put(store)
        ground.do(f"REVOKE ALL ON {rights[0]} FROM guest")
        with pytest.raises(
            UnusableStoreError, match=f"permission denied for schema {ground.schema}.*grant the role"
        ):
            put(store)
        ground.do(f"GRANT ALL ON {rights[0]} TO guest")
        put(store)
    driver.close()

    assert 2 == ground.count("job")
    ground.empty()
    for what in rights:
        ground.do(f"REVOKE ALL ON {what} FROM guest")


def test_tables_dropped_while_it_is_open(server: Server) -> None:
    own = Ground(server.conninfo)
    with own.producing() as store:
        put(store)
        own.remove()

        with pytest.raises(
            SchemaError, match=f"no tables of TaskHarbor's in the schema '{own.schema}'.*taskharbor migrate"
        ):
            put(store)
        with pytest.raises(SchemaError):
            store.job_get(JobGet(ids=["00000000-0000-7000-8000-000000000000"]))


PLACE = Place(conninfo="host=here dbname=jobs")
MEANINGS = [
    (sqlstates.InvalidSqlStatementName, UnusableStoreError, "put ?prepare=off in the URL"),
    (sqlstates.DuplicatePreparedStatement, UnusableStoreError, "put ?prepare=off in the URL"),
    (sqlstates.LockNotAvailable, StoreUnavailable, "lock_timeout passed"),
    (sqlstates.DiskFull, StoreUnavailable, "its disk is full: make room; nothing was written"),
    (sqlstates.OutOfMemory, StoreUnavailable, "ask again when it is back"),
    (sqlstates.AdminShutdown, StoreUnavailable, "ask again when it is back"),
    (sqlstates.IdleInTransactionSessionTimeout, StoreUnavailable, "ask again when it is back"),
    (sqlstates.SerializationFailure, StoreUnavailable, "ask again when it is back"),
    (sqlstates.DatatypeMismatch, StoreError, "this is a bug in the driver, please report it"),
    (psycopg.DataError, StoreError, "does not take this: said"),
]


@pytest.mark.parametrize(("error", "meant", "advice"), MEANINGS, ids=[case[0].__name__ for case in MEANINGS])
def test_what_an_error_of_the_server_means(
    error: type[psycopg.Error], meant: type[TaskHarborError], advice: str
) -> None:
    told = store_error(error("said\n  twice"), PLACE)

    assert meant is type(told)
    assert str(told).startswith("the database 'jobs' on here")
    assert "said twice" in str(told)
    assert advice in str(told)


def test_a_publication_of_all_tables_does_no_harm() -> None:
    """PostgreSQL refuses to delete from a published table that has no primary key."""
    schema = shared_schema()
    keyless = schema.ask(
        """SELECT c.relname FROM pg_class c WHERE c.relnamespace = %s::regnamespace AND c.relkind IN ('r', 'p')
            AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)""",
        (schema.name,),
    )

    assert [] == keyless


QUOTING = [
    f"no\nLINE 1: SELECT '{SECRET}'\n       ^",
    f"no\nDETAIL:  Failing row contains ({SECRET}).",
    f"no\nHINT:  Perhaps\nCONTEXT:  {SECRET}",
]


@pytest.mark.parametrize("said", QUOTING)
def test_statements_and_rows_that_the_server_quotes_are_not_told(said: str) -> None:
    """As asyncpg's are told, which have no parts."""
    for error in (sqlstates.CheckViolation, sqlstates.UndefinedTable, sqlstates.InvalidTextRepresentation):
        told = str(store_error(error(said), PLACE))

        assert "no" in told
        assert not re.search(rf"{SECRET}|LINE|DETAIL|HINT|CONTEXT|\^", told)


def test_of_what_the_server_says_the_message_alone_is_told(ground: Ground) -> None:
    ground.do("ALTER TABLE job ADD CONSTRAINT trouble CHECK (queue <> 'trouble')")
    with ground.producing() as store, pytest.raises(StoreError) as refused:
        put(store, new_job(payload=SECRET.encode(), queue="trouble"))
    ground.do("ALTER TABLE job DROP CONSTRAINT trouble")

    told = str(refused.value)
    assert re.search(r'PostgreSQL says: new row .* violates check constraint "trouble" \(23514\)', told)
    assert not re.search(rf"{SECRET}|{SECRET.encode().hex()}|DETAIL|CONTEXT", told)


CONNECTING = [
    (
        'FATAL:  role "me" does not exist',
        UnusableStoreError,
        "create the role (createuser NAME), or correct the URL",
    ),
    (
        'FATAL:  no pg_hba.conf entry for host "::1"',
        UnusableStoreError,
        "correct the URL, or what the server allows",
    ),
    ("FATAL:  sorry, too many clients already", StoreUnavailable, "raise max_connections"),
    ("FATAL:  remaining connection slots are reserved for roles", StoreUnavailable, "raise max_connections"),
    ("FATAL:  no more connections allowed (max_client_conn)", StoreUnavailable, "lower the pool_size"),
    ("FATAL:  the database system is starting up", StoreUnavailable, "ask again when it is back"),
    ("could not translate host name", StoreUnavailable, "ask again when it is back"),
]


@pytest.mark.parametrize(("said", "meant", "advice"), CONNECTING)
def test_what_is_said_while_connecting_means(said: str, meant: type[TaskHarborError], advice: str) -> None:
    """There is no SQLSTATE then, only words."""
    told = store_error(psycopg.OperationalError(f"connection failed: {said}"), PLACE)

    assert meant is type(told)
    assert " ".join(said.split()) in str(told)
    assert advice in str(told)


# --- without psycopg


@pytest.mark.parametrize("module", ["psycopg", "psycopg_binary"])
def test_without_psycopg_the_extra_is_named(module: str) -> None:
    """Missing as a whole, or without what does its work."""
    code = f"""
import sys
sys.modules[{module!r}] = None
if {module!r} != "psycopg":
    sys.modules["psycopg_c"] = None
    import ctypes.util
    ctypes.util.find_library = lambda name: None
import taskharbor
try:
    taskharbor.Harbor("postgresql://host/jobs")
except taskharbor.MissingExtraError as error:
    print(error.extra, error)
"""
    said = run_python("-c", code)

    assert said.startswith("postgres postgresql:// needs psycopg")
    assert "pip install 'taskharbor[postgres]'" in said


# --- the command line


@pytest.fixture
def shop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Generator[Shop]:
    monkeypatch.chdir(tmp_path)
    yield from shops(monkeypatch, capsys)


COMMANDS = [
    ("jobs", "list"),
    ("enqueue", "mail.send", "to=a"),
    ("worker", "--until-idle"),
    ("info",),
    ("migrate", "--check"),
    ("migrate",),
]


def ended(shop: Shop, url: str, *command: str) -> Ended:
    return shop.run("--url", url, *command)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_command_line_ends_with_the_deployments_code(
    shop: Shop, server: Server, ground: Ground, command: tuple[str, ...]
) -> None:
    told = ended(shop, by_tcp(server, password="wrong"), *command)

    assert Exit.DEPLOYMENT == told.code, told
    assert "password authentication failed" in told.err
    assert ("wrong" in told.err, "Traceback" in told.err) == (False, False)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_command_line_ends_with_the_code_for_another_try(shop: Shop, command: tuple[str, ...]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"postgresql://guest:{SECRET}@127.0.0.1:{taken.getsockname()[1]}/jobs"
        told = ended(shop, url, *command)

    assert Exit.UNAVAILABLE == told.code, told
    assert "Connection refused" in told.err
    assert (SECRET in told.err, "Traceback" in told.err) == (False, False)


@pytest.mark.parametrize("command", COMMANDS[:3], ids=" ".join)
def test_the_command_line_without_tables(
    shop: Shop, server: Server, ground: Ground, command: tuple[str, ...]
) -> None:
    told = ended(shop, f"{server.conninfo}&schema=none_here", *command)

    assert Exit.DEPLOYMENT == told.code, told
    assert "`taskharbor migrate`" in told.err
