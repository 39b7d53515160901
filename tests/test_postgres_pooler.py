"""PostgreSQL behind a real PgBouncer that hands connections on after each transaction, and has them forget all."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from unittest import SkipTest, mock
from urllib.parse import quote

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow

from taskharbor import Harbor, Registry, task
from taskharbor.drivers.postgres import PostgresDriver
from taskharbor.drivers.postgres.embedded.account import account_for
from taskharbor.errors import UnusableStoreError
from taskharbor_conformance import Case, DriverFactory, OpenDriver, cases
from tests.support.postgres import new_schema_name, server
from tests.support.postgres_ground import put
from tests.support.postgres_place import SharedSchema, shared_schema
from tests.support.work import ENOUGH, eventually

PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")

pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="PgBouncer is not installed (apt-get install pgbouncer)"
)

FAMILIES = ("enqueue", "reserve", "settle", "lease", "listen")
ROLE = "taskharbor"
# Whatever a session was told is forgotten with each transaction, so that nothing works by chance.
FORGETFUL = "server_reset_query = DISCARD ALL\nserver_reset_query_always = 1"
CONFIGURATION = """
[databases]
* = host={server} port={port}
[pgbouncer]
listen_addr =
listen_port = 6432
unix_socket_dir = {folder}
auth_type = trust
auth_file = {folder}/users
admin_users = {role}
pool_mode = transaction
default_pool_size = 3
max_client_conn = 300
logfile = {folder}/log
{more}
"""
# It goes with whoever started it, whatever became of that one.
RUN = '"$0" "$1" & read -r _; kill $!; wait'


class Bouncer:
    """A PgBouncer between tests and the session's server."""

    def __init__(self, folder: Path) -> None:
        own = server().conninfo
        self._folder = folder
        self._server = own

    @property
    def conninfo(self) -> str:
        """What to connect to, as a URL."""
        return f"postgresql://{ROLE}@/postgres?host={quote(str(self._folder), safe='')}&port=6432"

    def url(self, schema: str, *, prepare: str = "off", listen: bool = True) -> str:
        past = f"&listen={quote(self._server, safe='')}" if listen else ""
        return f"{self.conninfo}&schema={schema}&prepare={prepare}{past}"

    def driver(self, schema: str) -> PostgresDriver:
        return PostgresDriver(self.url(schema))

    def ask(self, question: str) -> list[TupleRow]:
        """Ask on one of the connections that it hands on."""
        with psycopg.connect(self.conninfo, autocommit=True, prepare_threshold=None) as connection:
            return connection.execute(question.encode()).fetchall()


@contextmanager
def bouncing(more: str = "") -> Generator[Bouncer]:
    """Run a PgBouncer for a block."""
    assert PROGRAM is not None
    if server().own is None:
        pytest.skip("it is told to trust everybody, so only in front of a server of our own")
    words = conninfo_to_dict(server().conninfo)
    account = account_for()
    folder = Path(tempfile.mkdtemp(prefix="taskharbor-pool-", dir="/tmp"))  # short, as sockets' names are
    configuration = CONFIGURATION.format(
        server=words["host"], port=words["port"], folder=folder, role=ROLE, more=more
    )
    (folder / "ini").write_text(configuration, encoding="utf-8")
    (folder / "users").write_text(f'"{ROLE}" ""\n', encoding="utf-8")
    for path in (folder, *folder.iterdir()):
        account.give(path)
    process = subprocess.Popen(
        ["/bin/sh", "-c", RUN, PROGRAM, folder / "ini"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        user=account.uid if account.switched else None,
        group=account.gid if account.switched else None,
        extra_groups=[] if account.switched else None,
    )
    try:
        eventually(lambda: _answers(folder / ".s.PGSQL.6432"), "PgBouncer begins")
        yield Bouncer(folder)
    finally:
        process.communicate()
        shutil.rmtree(folder)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as line:
        return line.connect_ex(str(path)) == 0


@pytest.fixture(scope="module")
def bouncer() -> Generator[Bouncer]:
    with bouncing(FORGETFUL) as bouncer:
        yield bouncer


@pytest.fixture
def ground() -> SharedSchema:
    """A schema with nothing in it."""
    schema = shared_schema()
    schema.empty()
    return schema


@pytest.fixture
def places(bouncer: Bouncer, ground: SharedSchema) -> DriverFactory:
    @contextmanager
    def make_place() -> Generator[OpenDriver]:
        yield lambda: bouncer.driver(ground.name)

    return make_place


def chosen() -> Sequence[Case]:
    """Return some cases of each family."""
    return [case for family in FAMILIES for case in cases(family=family)[::12]]


def all_cases() -> Sequence[Case]:
    return [case for family in FAMILIES for case in cases(family=family)]


def try_case(case: Case, places: DriverFactory) -> None:
    try:
        case.run(places)
    except SkipTest as reason:
        pytest.skip(str(reason))


# --- every verb


@pytest.mark.slow
@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in all_cases()])
def test_conformance(case: Case, places: DriverFactory) -> None:
    try_case(case, places)


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in chosen()])
def test_conformance_in_short(case: Case, places: DriverFactory) -> None:
    try_case(case, places)


class Work:
    """A task that notes what it ran, and a harbor with it."""

    def __init__(self, url: str) -> None:
        registry = Registry()
        self.ran: list[int] = []

        @task(name="note", registry=registry)
        async def note(number: int) -> int:
            self.ran.append(number)
            return -number

        self.note = note
        self.harbor = Harbor(url, registry=registry)


@pytest.mark.parametrize("jobs", [200, pytest.param(5000, marks=pytest.mark.slow)])
def test_workers_drain_what_producers_send(bouncer: Bouncer, ground: SharedSchema, jobs: int) -> None:
    work = Work(bouncer.url(ground.name))

    with work.harbor, work.harbor.worker_thread(), work.harbor.worker_thread():
        for number in range(jobs // 10):
            work.note.enqueue(number)
        handles = work.harbor.enqueue_many([work.note.s(number) for number in range(jobs // 10, jobs)])
        result = handles[-1].result(timeout=ENOUGH)
        eventually(lambda: len(work.ran) >= jobs, "all have run")

    assert (1 - jobs, list(range(jobs))) == (result, sorted(work.ran))


def test_new_jobs_and_results_are_heard_of_past_it(bouncer: Bouncer, ground: SharedSchema) -> None:
    work = Work(bouncer.url(ground.name))

    # Looking for jobs once an hour would not find them in time.
    with (
        mock.patch.object(PostgresDriver, "poll_interval", timedelta(hours=1)),
        work.harbor,
        work.harbor.worker_thread(),
    ):
        results = [work.note.enqueue(number).result(timeout=ENOUGH) for number in range(5)]

    assert [-number for number in range(5)] == results


def test_without_a_way_past_it_workers_look_for_jobs(bouncer: Bouncer, ground: SharedSchema) -> None:
    sends, works = (Work(bouncer.url(ground.name, listen=False)) for _ in range(2))

    with sends.harbor, works.harbor.worker_thread():
        sends.note.enqueue(1)
        eventually(lambda: works.ran == [1], "it is found")
    works.harbor.close()


def test_tables_are_made_through_it(bouncer: Bouncer) -> None:
    name = new_schema_name()
    driver = bouncer.driver(name)
    try:
        (run, *_), again = driver.migrate(), driver.migrate()
        with driver.connect_blocking() as store:
            ids = put(store)
        driver.close()

        assert (1, [], ids) == (
            run.number, again, [str(job_id) for (job_id,) in bouncer.ask(f"SELECT id FROM {name}.job")]
        )  # fmt: skip
    finally:
        with psycopg.connect(server().conninfo, autocommit=True) as connection:
            connection.execute(f"DROP SCHEMA IF EXISTS {name} CASCADE".encode())


def test_jobs_go_with_a_transaction_of_the_callers(bouncer: Bouncer, ground: SharedSchema) -> None:
    work = Work(bouncer.url(ground.name))

    with work.harbor, psycopg.connect(bouncer.conninfo, prepare_threshold=None) as connection:
        sent: list[str] = []
        for ends in ("COMMIT", "ROLLBACK", "COMMIT"):
            with work.harbor.using(connection):
                connection.execute("SELECT 1")
                sent.append(work.note.enqueue(1).id)
            connection.execute(ends.encode())

    assert [(sent[0],), (sent[2],)] == ground.ask("SELECT id::text FROM job ORDER BY id")


# --- what it would not carry


def test_a_pooler_that_takes_no_settings_for_a_session_is_told_of(
    bouncer: Bouncer, ground: SharedSchema
) -> None:
    driver = PostgresDriver(bouncer.url(ground.name, prepare="on"))

    told = r"takes no settings.*put \?prepare=off in the URL"
    with pytest.raises(UnusableStoreError, match=told), driver.connect_blocking() as store:
        put(store)
    driver.close()


def test_statements_that_were_prepared_are_told_to_be_left_so(ground: SharedSchema) -> None:
    with bouncing(f"{FORGETFUL}\nignore_startup_parameters = options") as bouncer:
        driver = PostgresDriver(bouncer.url(ground.name, prepare="on"))

        with driver.connect_blocking() as store, pytest.raises(UnusableStoreError) as refused:
            any(put(store) == [] for _ in range(20))
        driver.close()

    assert "put ?prepare=off in the URL" in str(refused.value)


LEFT = {
    "settings": "SELECT name, setting FROM pg_settings WHERE source = 'session' AND name NOT IN ({known})",
    "statements": "SELECT statement FROM pg_prepared_statements",
    "channels": "SELECT pg_listening_channels()",
    "tables": "SELECT relname FROM pg_class WHERE relpersistence = 't'",
    "locks": "SELECT locktype FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
    "cursors": "SELECT name FROM pg_cursors WHERE name <> ''",
}
CARRIED = "'client_encoding', 'application_name', 'DateStyle', 'TimeZone', 'standard_conforming_strings'"
"""What PgBouncer itself sets, as each of its clients had it."""


def test_we_leave_nothing_behind_on_the_connections_that_it_hands_on(ground: SharedSchema) -> None:
    with bouncing("default_pool_size = 1\nserver_reset_query =") as bouncer:
        (before,) = bouncer.ask("SELECT pg_backend_pid()")
        for case in [
            case
            for family in ("enqueue", "settle", "lease", "retention", "stray")
            for case in cases(family=family)[:2]
        ]:
            ground.empty()
            case.run(lambda: _place(bouncer, ground))
        (after,) = bouncer.ask("SELECT pg_backend_pid()")
        left = {what: bouncer.ask(question.replace("{known}", CARRIED)) for what, question in LEFT.items()}

    assert {} == {what: found for what, found in left.items() if found}
    assert before == after, "all of that was done on one connection"


@contextmanager
def _place(bouncer: Bouncer, ground: SharedSchema) -> Generator[OpenDriver]:
    yield lambda: bouncer.driver(ground.name)
