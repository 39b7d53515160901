"""The tables in PostgreSQL: made once and whole, changed beside running workers; and who may make and use them."""

from __future__ import annotations

import asyncio
import re
import secrets
import shutil
import subprocess
import threading
from collections.abc import Awaitable, Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest
from psycopg.rows import TupleRow

from taskharbor import Harbor, Registry, task
from taskharbor.audit import Act
from taskharbor.driver import (
    CancelStatus,
    EnqueueStatus,
    EventAppend,
    EventRead,
    EventUnwatch,
    EventWatch,
    HistoryPrune,
    JobCount,
    JobReport,
    LimitDeclare,
    Migration,
    SchemaVersion,
    StatisticsRead,
    StatisticsWrite,
    WorkerForget,
    WorkerList,
)
from taskharbor.drivers.postgres import PostgresDriver, migrating, schema
from taskharbor.drivers.postgres.bell.awaiting import mark
from taskharbor.drivers.postgres.routine import quoted
from taskharbor.errors import SchemaError, StoreError, StoreUnavailable, UnusableStoreError
from taskharbor.event import Ending, JobRequeued, Tally
from taskharbor.flow import FlowState
from taskharbor.job import Delivery, JobState, new_job_id
from taskharbor.limit import LimitTerms, Scope, ScopeKind
from taskharbor.report import LogLine, Progress, Report
from taskharbor_conformance.bench import (
    DAY,
    HOUR,
    NOW,
    UNKNOWN,
    Bench,
    burial,
    failure,
    new_job,
    release,
    snooze,
    stray,
    success,
)
from taskharbor_conformance.graphs import chord, failure_template, ids_of
from tests.fixtures.support import untyped
from tests.support.postgres import PG15, new_schema_name, server
from tests.support.postgres_ground import put
from tests.support.work import ENOUGH, await_event, eventually

Connection = psycopg.Connection[TupleRow]
WANTED = schema.WANTED


class Site:
    """A schema's name in a database, with nothing of ours in it yet."""

    def __init__(self, conninfo: str, name: str) -> None:
        self.conninfo = conninfo
        self.name = name

    def url(self, role: str = "", **session: str) -> str:
        """Return the site's URL, as some role uses it, in sessions with such settings."""
        settings = {"role": role, **session} if role else session
        options = "%20".join(f"-c%20{name}%3D{value}" for name, value in settings.items())
        return f"{self.conninfo}{'&' if '?' in self.conninfo else '?'}schema={self.name}&options={options}"

    def driver(self, role: str = "", **session: str) -> PostgresDriver:
        return PostgresDriver(self.url(role, **session))

    def connect(self, role: str = "") -> Connection:
        return psycopg.connect(
            PostgresDriver(self.url(role)).place.conninfo, autocommit=True, application_name="another program"
        )

    def do(self, statement: str, *params: object) -> list[TupleRow]:
        """Run a statement as another program would, `{s}` in it being the schema, and return its rows."""
        with self.connect() as connection:
            done = connection.execute(statement.replace("{s}", quoted(self.name)).encode(), params or None)
            return done.fetchall() if done.description else []

    def catalog(self) -> dict[str, list[TupleRow]]:
        """Return all that the server knows of what is in the schema, ids and times aside."""
        return {
            what: self.do(statement, *([self.name] * statement.count("%s")))
            for what, statement in CATALOG.items()
        }

    def version(self) -> SchemaVersion:
        return self.driver().schema_version()


CATALOG = {
    "relations": """SELECT relname, relkind, reloptions, relispartition, pg_get_expr(relpartbound, c.oid)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s ORDER BY 1""",
    "columns": """SELECT c.relname, attname, format_type(atttypid, atttypmod), attnotnull, attstorage, attidentity,
        pg_get_expr(adbin, adrelid) FROM pg_attribute a LEFT JOIN pg_attrdef d ON adrelid = attrelid AND adnum = attnum,
        pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = %s AND attrelid = c.oid AND attnum > 0 ORDER BY 1, attnum""",
    "indexes": "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = %s ORDER BY 1, 2",
    "constraints": """SELECT c.relname, conname, pg_get_constraintdef(k.oid) FROM pg_constraint k,
        pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = %s AND conrelid = c.oid ORDER BY 1, 2""",
    "migrations": "SELECT number, name FROM {s}.migration ORDER BY 1",
    "slots": "SELECT slot, day FROM {s}.slot ORDER BY 1",
}


@pytest.fixture
def site() -> Generator[Site]:
    site = Site(server().conninfo, new_schema_name())
    yield site
    site.do("DROP SCHEMA IF EXISTS {s} CASCADE")


@pytest.fixture(scope="module")
def used() -> Generator[Site]:
    """A site with tables, for tests that leave them as they are."""
    site = Site(server().conninfo, new_schema_name())
    site.driver().migrate()
    yield site
    site.do("DROP SCHEMA {s} CASCADE")


ADDS = Migration(
    WANTED + 1,
    "a column, a table, an index",
    (
        "ALTER TABLE taskharbor.job ADD COLUMN later text",
        "ALTER TABLE taskharbor.history ADD COLUMN later text",
        "ALTER TABLE taskharbor.lease ADD COLUMN later integer NOT NULL DEFAULT 7",
        "CREATE TABLE taskharbor.later (id uuid PRIMARY KEY, said text NOT NULL DEFAULT 'it''s; -- $1')",
        "CREATE INDEX later_said ON taskharbor.later (said)",
    ),
)
ADDS_MORE = Migration(WANTED + 2, "another table", ("CREATE TABLE taskharbor.latest (id uuid PRIMARY KEY)",))


@contextmanager
def release_with(*later: Migration) -> Generator[None]:
    """Be a later release, with migrations that this one does not know."""
    known, wanted = schema.MIGRATIONS, schema.WANTED
    try:
        for module in map(untyped, (schema, migrating)):
            module.MIGRATIONS = (*known, *later)
            module.WANTED = wanted + len(later)
        yield
    finally:
        for module in map(untyped, (schema, migrating)):
            module.MIGRATIONS = known
            module.WANTED = wanted


@pytest.fixture
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrating, "_PATIENCE", "SET LOCAL lock_timeout = '50ms'")
    monkeypatch.setattr(migrating, "_TRIES", 3)
    monkeypatch.setattr(migrating, "_PAUSE_SECONDS", 0.01)


# --- once, and whole


def test_a_fresh_schema_is_migrated_from_zero(site: Site) -> None:
    before = site.version()

    run = site.driver().migrate()

    assert (SchemaVersion(0, WANTED), SchemaVersion(WANTED, WANTED)) == (before, site.version())
    assert list(range(1, WANTED + 1)) == [migration.number for migration in run]


def test_migrating_again_runs_nothing_and_changes_nothing(site: Site) -> None:
    site.driver().migrate()
    before = site.catalog()

    assert [] == list(site.driver().migrate())
    assert before == site.catalog()


def test_asking_for_the_version_makes_nothing(site: Site) -> None:
    assert SchemaVersion(0, WANTED) == site.version()
    assert [(False,)] == site.do("SELECT to_regnamespace(%s) IS NOT NULL", site.name)


def test_the_version_table_says_what_was_run_and_when(used: Site) -> None:
    rows = used.do("SELECT number, name, run_at > now() - interval '1 hour' FROM {s}.migration ORDER BY 1")

    assert [(each.number, each.name, True) for each in schema.MIGRATIONS] == rows


@pytest.mark.parametrize(
    "session", [{}, {"default_transaction_isolation": "serializable"}], ids=["", "serializable"]
)
def test_eight_who_migrate_at_once_make_the_tables_once(site: Site, session: dict[str, str]) -> None:
    together = threading.Barrier(8)

    def migrate() -> Sequence[Migration]:
        driver = site.driver(**session)
        together.wait(ENOUGH.total_seconds())
        try:
            run = driver.migrate()
            with driver.connect_blocking() as store:
                put(store)
            return run
        finally:
            driver.close()

    with ThreadPoolExecutor(8) as threads:
        run = [each.result() for each in [threads.submit(migrate) for _ in range(8)]]

    assert WANTED == sum(map(len, run))
    assert [(8,)] == site.do("SELECT count(*) FROM {s}.job")


@pytest.mark.parametrize("name", ["0-a_b", "select", "-"])
def test_any_name_that_a_url_may_have_is_the_schemas(name: str) -> None:
    other = Site(server().conninfo, name)
    other.do("DROP SCHEMA IF EXISTS {s} CASCADE")
    try:
        other.driver().migrate()
        driver = other.driver()
        with driver.connect_blocking() as store:
            ids = put(store)
        driver.close()
        assert ids == [str(row[0]) for row in other.do("SELECT id FROM {s}.job")]
    finally:
        other.do("DROP SCHEMA IF EXISTS {s} CASCADE")


def test_two_schemas_in_one_database_do_not_see_each_other(site: Site, used: Site) -> None:
    site.driver().migrate()
    first, second = site.driver(), used.driver()
    with first.connect_blocking() as store, second.connect_blocking() as other:
        ids, others = put(store), put(other)
    first.close()
    second.close()

    assert ([(ids[0],)], [(others[0],)]) == (
        site.do("SELECT id::text FROM {s}.job"),
        used.do("DELETE FROM {s}.job RETURNING id::text"),
    )


def test_tables_of_an_application_are_left_as_they_are(site: Site) -> None:
    site.do("CREATE SCHEMA {s}")
    site.do("CREATE TABLE {s}.orders (id integer PRIMARY KEY)")

    site.driver().migrate()

    assert [] == site.do("SELECT id FROM {s}.orders")
    assert SchemaVersion(WANTED, WANTED) == site.version()


def test_a_table_of_the_applications_in_the_way_is_told_and_nothing_is_made(site: Site) -> None:
    site.do("CREATE SCHEMA {s}")
    site.do("CREATE TABLE {s}.job (mine text)")

    with pytest.raises(SchemaError) as refused:
        site.driver().migrate()

    assert "has something in it that is none of TaskHarbor's" in str(refused.value)
    assert 'relation "job" already exists' in str(refused.value)
    assert "?schema=NAME" in str(refused.value)
    assert [("job",)] == site.do(
        "SELECT relname::text FROM pg_class WHERE relnamespace = '{s}'::regnamespace"
    )


def test_a_migration_that_fails_midway_leaves_the_version_before(site: Site) -> None:
    broken = Migration(WANTED + 2, "broken", ("CREATE TABLE taskharbor.new (x integer)", "CREATE nonsense"))
    with release_with(ADDS, broken):
        with pytest.raises(StoreError, match="syntax error"):
            site.driver().migrate()
        assert SchemaVersion(WANTED + 1, WANTED + 2) == site.version()

    assert [(None,)] == site.do("SELECT to_regclass('{s}.new')")


# --- to a version


def test_one_can_stop_at_a_version_and_go_on_later(site: Site) -> None:
    with release_with(ADDS, ADDS_MORE):
        run = [
            [migration.number for migration in site.driver().migrate(to)]
            for to in (WANTED, WANTED, WANTED + 1, WANTED, None, None)
        ]

    assert [list(range(1, WANTED + 1)), [], [WANTED + 1], [], [WANTED + 2], []] == run


@pytest.mark.parametrize("to", [0, -1, WANTED + 1])
def test_a_version_that_is_not_known_is_refused_and_nothing_is_made(site: Site, to: int) -> None:
    with pytest.raises(SchemaError, match=f"there is no version {to} of the tables: this release knows"):
        site.driver().migrate(to)

    assert SchemaVersion(0, WANTED) == site.version()


# --- by hand


def script_of(site: Site) -> str:
    """Return what `taskharbor migrate --sql` prints, all of it."""
    return "\n".join(
        ";\n".join(["BEGIN", *migration.statements, "COMMIT;"]) for migration in site.driver().migrations
    )


def by_psycopg(site: Site, script: str) -> None:
    with site.connect() as connection:
        connection.execute(script.encode())


def by_psql(site: Site, script: str) -> None:
    found = shutil.which("psql") or (PG15 and shutil.which("psql", path=str(PG15)))
    if not found:
        pytest.skip("psql is not installed")
    ended = subprocess.run(
        [found, "--no-psqlrc", "--quiet", PostgresDriver(site.url()).place.conninfo],
        input=script, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "" == ended.stderr.replace("NOTICE", "")


@pytest.mark.parametrize("run", [by_psycopg, by_psql])
def test_the_script_makes_what_migrate_makes(site: Site, run: Callable[[Site, str], None]) -> None:
    with release_with(ADDS, ADDS_MORE):
        run(site, script_of(site))
        by_hand = site.catalog()
        site.do("DROP SCHEMA {s} CASCADE")
        site.driver().migrate()

        assert site.catalog() == by_hand


def test_a_script_that_is_run_again_or_too_soon_changes_nothing(site: Site) -> None:
    with release_with(ADDS, ADDS_MORE):
        *_, second, third = script_of(site).split("COMMIT;\n")
        site.driver().migrate(WANTED)
        before = site.catalog()

        with pytest.raises(psycopg.errors.RaiseException, match=f"this follows migration {WANTED + 1}"):
            by_psycopg(site, third)
        with pytest.raises(psycopg.Error):
            by_psycopg(site, script_of(site))
        assert before == site.catalog()
        by_psycopg(site, second + "COMMIT;")
        with pytest.raises(psycopg.errors.RaiseException, match="and another one was run last"):
            by_psycopg(site, second + "COMMIT;")
        by_psycopg(site, third)

        assert SchemaVersion(WANTED + 2, WANTED + 2) == site.version()


# --- beside others


@pytest.mark.usefixtures("in_a_hurry")
def test_a_table_that_somebody_reads_for_long_is_told_with_who_it_is(used: Site) -> None:
    with used.connect() as reader, release_with(ADDS):
        reader.execute("BEGIN")
        reader.execute(f"TABLE {quoted(used.name)}.job".encode())
        pid = reader.info.backend_pid
        with pytest.raises(StoreUnavailable) as refused:
            used.driver().migrate()

    told = str(refused.value)
    assert f"pid {pid} (role 'taskharbor', application 'another program', idle in transaction, " in told
    assert re.search(r"in a transaction for \d+ s\)", told)
    assert "pg_terminate_backend(pid)" in told
    assert SchemaVersion(WANTED, WANTED) == used.version()


@pytest.mark.usefixtures("in_a_hurry")
def test_who_may_not_see_what_others_do_is_told_who_they_are(site: Site, role: str) -> None:
    site.do(f"CREATE SCHEMA {{s}} AUTHORIZATION {role}")
    site.driver(role).migrate()

    with site.connect() as reader, release_with(ADDS):
        reader.execute("BEGIN")
        reader.execute(f"TABLE {quoted(site.name)}.job".encode())
        pid = reader.info.backend_pid
        with pytest.raises(StoreUnavailable) as refused:
            site.driver(role).migrate()

    assert (
        f"pid {pid} (role 'taskharbor', application 'another program', state not shown to this role)"
        in str(refused.value)
    )


def test_a_short_statement_timeout_is_none_of_its_business(site: Site) -> None:
    slow = Migration(WANTED + 1, "slow", ("SELECT pg_sleep(0.6)",))

    with release_with(slow):
        run = site.driver(statement_timeout="500ms").migrate()

    assert WANTED + 1 == len(run)


def test_while_it_waits_for_a_lock_others_go_on_between_its_tries(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrating, "_PATIENCE", "SET LOCAL lock_timeout = '50ms'")
    waits, goes_on = threading.Event(), threading.Event()

    def pause(seconds: float) -> None:
        waits.set()
        await_event(goes_on)

    monkeypatch.setattr("taskharbor.drivers.postgres.migrating.time.sleep", pause)
    site.driver().migrate()
    driver = site.driver()
    with driver.connect_blocking() as store, site.connect() as reader:
        reader.execute("BEGIN")
        reader.execute(f"TABLE {quoted(site.name)}.job".encode())
        with release_with(ADDS), ThreadPoolExecutor(1) as thread:
            try:
                migrates = thread.submit(lambda: site.driver().migrate())
                await_event(waits)
                put(store)  # behind a lock that is waited for it would wait, too
                reader.execute("ROLLBACK")
            finally:
                goes_on.set()
            run = migrates.result()
    driver.close()

    assert [ADDS.number] == [migration.number for migration in run]


@pytest.mark.usefixtures("in_a_hurry")
def test_a_migrator_that_does_not_come_to_its_end_is_named_too(site: Site) -> None:
    with site.connect() as other:
        other.execute("BEGIN")
        other.execute(
            schema.renamed(
                "SELECT pg_advisory_xact_lock(hashtextextended('taskharbor.migrate', 0))", site.name
            ).encode()
        )
        with pytest.raises(StoreUnavailable, match=f"pid {other.info.backend_pid} "):
            site.driver().migrate()


class Shop:
    """A worker that runs, and a producer that goes on and on, each with a driver of its own."""

    def __init__(self, site: Site) -> None:
        registry = Registry()
        self.ran: list[int] = []
        self.sent = 0
        self._ends = threading.Event()

        @task(name="count", registry=registry)
        async def count(number: int) -> None:
            self.ran.append(number)

        self._count = count
        self._works = Harbor(site.driver(), registry=registry)
        self._sends = Harbor(site.driver(), registry=registry)

    def _produce(self) -> None:
        with self._sends:
            while not self._ends.is_set():
                self._count.enqueue(self.sent)
                self.sent += 1
                self._sends.enqueue_many([self._count.s(self.sent + n) for n in range(20)])
                self.sent += 20

    @contextmanager
    def open(self) -> Generator[None]:
        with self._works, self._works.worker_thread(), ThreadPoolExecutor(1) as thread:
            produced = thread.submit(self._produce)
            try:
                yield
            finally:
                self._ends.set()
            produced.result()
            eventually(lambda: len(self.ran) >= self.sent, "all have run")

    def await_more(self) -> None:
        """Wait until more was sent, and more has run."""
        sent, ran = self.sent, len(self.ran)
        eventually(lambda: self.sent > sent + 100 and len(self.ran) > ran + 100, "it goes on")


def test_workers_of_the_release_before_go_on_while_it_migrates_and_afterwards(site: Site) -> None:
    site.driver().migrate()
    shop = Shop(site)

    with shop.open():
        shop.await_more()
        with release_with(ADDS, ADDS_MORE):
            run = site.driver().migrate()
        shop.await_more()

    assert [WANTED + 1, WANTED + 2] == [migration.number for migration in run]
    assert list(range(shop.sent)) == sorted(shop.ran)
    assert [(shop.sent, shop.sent)] == site.do("SELECT count(*), count(DISTINCT id) FROM {s}.history")


# --- older and newer


def refused_at_start(site: Site) -> str:
    """Return why neither a producer nor a worker begins."""
    driver = site.driver()

    async def connect() -> None:
        async with driver.connect():
            pass

    with pytest.raises(SchemaError) as producer, driver.connect_blocking():
        pass
    with pytest.raises(SchemaError) as worker:
        asyncio.run(connect())
    assert str(producer.value) == str(worker.value)
    return str(worker.value)


def test_without_tables_nobody_begins(site: Site) -> None:
    told = refused_at_start(site)

    assert f"the schema {site.name!r} of the database 'postgres' on " in told
    assert "has no tables of TaskHarbor's yet: run `taskharbor migrate`" in told
    assert SchemaVersion(0, WANTED) == site.version()


def test_a_newer_release_does_not_begin_on_older_tables(used: Site) -> None:
    with release_with(ADDS):
        told = refused_at_start(used)

    assert (
        f"is at version {WANTED}, and this release of TaskHarbor needs {WANTED + 1}: run `taskharbor migrate`"
        in told
    )


def test_an_older_release_does_not_begin_on_newer_tables(site: Site) -> None:
    with release_with(ADDS):
        site.driver().migrate()

    told = refused_at_start(site)
    with pytest.raises(SchemaError) as migrated:
        site.driver().migrate()

    assert f"is at version {WANTED + 1}, and this release of TaskHarbor knows versions up to {WANTED}" in told
    assert "upgrade this one" in told
    assert told == str(migrated.value)


# --- who may


@pytest.fixture
def role(site: Site) -> Generator[str]:
    """A role that may do nothing in particular."""
    if server().own is None:
        pytest.skip("no roles are made on a server that the environment names")
    name = f"role_{secrets.token_hex(4)}"
    site.do(f"CREATE ROLE {name}")
    yield name
    site.do(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


def test_who_may_not_create_a_schema_is_told_what_to_ask_for(site: Site, role: str) -> None:
    with pytest.raises(UnusableStoreError) as refused:
        site.driver(role).migrate()

    assert "permission denied for database postgres" in str(refused.value)
    assert f'CREATE SCHEMA "{site.name}" AUTHORIZATION the_role' in str(refused.value)


@pytest.mark.parametrize("by", ["migrate", "script"])
def test_a_schema_that_was_made_for_a_role_is_enough_for_it(site: Site, role: str, by: str) -> None:
    site.do(f"CREATE SCHEMA {{s}} AUTHORIZATION {role}")

    if by == "migrate":
        site.driver(role).migrate()
    else:
        with site.connect(role) as connection:
            connection.execute(script_of(site).encode())
    driver = site.driver(role)
    with driver.connect_blocking() as store:
        put(store)
    driver.close()

    assert [(role,)] == site.do(
        "SELECT DISTINCT tableowner::text FROM pg_tables WHERE schemaname = %s", site.name
    )


def test_who_may_not_use_the_schema_is_told_so(used: Site, site: Site, role: str) -> None:
    with pytest.raises(UnusableStoreError) as refused:
        used.driver(role).schema_version()

    assert "permission denied for schema" in str(refused.value)
    assert "grant the role its rights on the schema" in str(refused.value)


READERS = """
GRANT USAGE ON SCHEMA {s} TO {role};
GRANT SELECT ON ALL TABLES IN SCHEMA {s} TO {role};
"""
PRODUCERS = """
GRANT USAGE ON SCHEMA {s} TO {role};
GRANT SELECT ON {s}.migration, {s}.slot, {s}.history, {s}.lease, {s}.stray, {s}.worker, {s}.report, {s}.line TO {role};
GRANT SELECT ON {s}.rules, {s}.limit, {s}.hold, {s}.arrival TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON {s}.job, {s}.key TO {role};
"""
CANCELLERS = "GRANT INSERT, UPDATE ON {s}.history TO {role};"
OF_WORKFLOWS = "GRANT SELECT, INSERT, UPDATE, DELETE ON {s}.flow, {s}.input TO {role};"
WORKERS = """
GRANT USAGE ON SCHEMA {s} TO {role};
GRANT SELECT ON ALL TABLES IN SCHEMA {s} TO {role};
GRANT INSERT, UPDATE, DELETE ON {s}.job, {s}.lease, {s}.history, {s}.key, {s}.worker, {s}.flow, {s}.input TO {role};
GRANT INSERT, DELETE ON {s}.stray, {s}.pause TO {role};
GRANT INSERT, UPDATE, DELETE ON {s}.report, {s}.line, {s}.watcher, {s}.event, {s}.tally TO {role};
GRANT UPDATE ON {s}.slot, {s}.feed, {s}.feed_start TO {role};
GRANT UPDATE, DELETE ON {s}.history_long TO {role};
GRANT INSERT, UPDATE, DELETE ON {s}.limit, {s}.turn, {s}.arrival, {s}.audit TO {role};
GRANT UPDATE ON {s}.rules TO {role};
DO $$ BEGIN FOR slot IN 1..36 LOOP
    EXECUTE format('GRANT TRUNCATE ON {s}.%I TO {role}', 'history_' || to_char(slot, 'FM00'));
END LOOP; END $$;
"""


@pytest.fixture
def grant(used: Site, site: Site, role: str) -> Generator[Callable[[str], str]]:
    """A function that grants rights to a role, and returns it."""

    def grant(rights: str) -> str:
        used.do(rights.replace("{role}", role))
        return role

    yield grant
    tables = (
        "job",
        "lease",
        "history",
        "key",
        "flow",
        "input",
        "report",
        "line",
        "watcher",
        "event",
        "tally",
        "limit",
        "arrival",
        "audit",
    )
    used.do("; ".join(f"DELETE FROM {{s}}.{table}" for table in tables))


def with_bench(driver: PostgresDriver, work: Callable[[Bench], Awaitable[None]]) -> None:
    """Work on a driver's store, and close it."""

    async def main() -> None:
        async with Bench(driver, lambda: driver) as bench:
            await work(bench)

    try:
        asyncio.run(main())
    finally:
        driver.close()


async def look_at_all(bench: Bench, *job_ids: str) -> None:
    await bench.get(UNKNOWN, *job_ids)
    await bench.find_ids()
    await bench.find_ids(JobState.RUNNING)
    await bench.find_ids(JobState.DEAD)
    await bench.queue_names()
    await bench.store.worker_list(WorkerList())
    await bench.store.job_count(JobCount())
    await bench.store.event_read(EventRead(after=""))
    await bench.store.statistics_read(StatisticsRead())


async def tell(bench: Bench, delivery: Delivery) -> None:
    """Have a job report, somebody watch and be told, and something be counted."""
    lines = [LogLine(fence=1, number=50, attempt=1, at=bench.now, text="said")]
    told = Report(
        job_id=delivery.id,
        token=delivery.token,
        progress=Progress(done=1, at=bench.now),
        lines=tuple(lines),
    )
    for _ in range(2):
        assert [True] == await bench.store.job_report(JobReport(reports=[told]))
        await bench.store.event_watch(EventWatch(reader="reader", ttl=HOUR))
    requeued = JobRequeued(
        id=new_job_id(), at=bench.now, job_id=delivery.id, task="mail.send", queue="default"
    )
    assert await bench.store.event_append(EventAppend(events=[requeued]))
    await bench.store.event_unwatch(EventUnwatch(readers=["reader"]))
    tally = Tally(minute=bench.now, queue="default", task="mail.send", ending=Ending.SUCCEEDED, count=1)
    for _ in range(2):
        await bench.store.statistics_write(StatisticsWrite(worker="worker", tallies=[tally]))


async def declare_a_limit(bench: Bench) -> None:
    """Have code declare a limit, which marks the leases there are; and another act be written down."""
    limited = {Scope(ScopeKind.TASK, "limited"): LimitTerms(max_running=1)}
    await bench.store.limit_declare(LimitDeclare(limits=limited))
    by_hand = Act(id=new_job_id(), action="prune", by="ann")
    await bench.store.history_prune(HistoryPrune(now=bench.now, rules=True, act=by_hand))


async def run_a_flow(bench: Bench) -> None:
    """Have a member of a chord fail, and the flow resumed and ended; and another one cancelled."""
    flow = await bench.enqueue_flow(chord(2, on_failure=failure_template()))
    one, other, _ = ids_of(flow)
    await bench.finish(one)
    await bench.bury(other)
    await bench.requeue(other)
    await bench.finish(other)
    await bench.finish(flow.id)
    assert FlowState.SUCCEEDED is await bench.flow_state(flow.id)
    await bench.cancel((await bench.enqueue_flow(chord(2))).id)


def test_a_reader_needs_the_right_to_select(used: Site, grant: Callable[[str], str]) -> None:
    with_bench(used.driver(grant(READERS)), look_at_all)


def test_a_producer_needs_little(used: Site, grant: Callable[[str], str]) -> None:
    role = grant(PRODUCERS)
    alone, keyed = new_job(), new_job(key="k")

    async def work(bench: Bench) -> None:
        await bench.enqueue_all(alone)
        again = await bench.enqueue_all(alone, new_job())
        await bench.enqueue_all(keyed, new_job(key="l"))
        refused = await bench.enqueue_all(
            new_job(key="m"), new_job(key="k", digest=b"other"), all_or_none=True
        )
        await bench.get(alone.id)
        with used.connect(role) as connection:
            marked = mark(connection, used.name, [alone.id])
        assert (EnqueueStatus.EXISTING, EnqueueStatus.CONFLICT, []) == (
            again[0].status,
            refused[1].status,
            marked.gone,
        )
        with pytest.raises(UnusableStoreError, match="permission denied"):
            await bench.cancel(alone.id)
        grant(CANCELLERS)
        assert [CancelStatus.CANCELLED] == await bench.cancel(keyed.id)
        assert [CancelStatus.FINISHED] == await bench.cancel(keyed.id)

    with_bench(used.driver(role), work)


def test_who_enqueues_workflows_needs_two_tables_more(used: Site, grant: Callable[[str], str]) -> None:
    role = grant(PRODUCERS)

    async def work(bench: Bench) -> None:
        with pytest.raises(UnusableStoreError, match="permission denied"):
            await bench.enqueue_flow(chord(2))
        grant(OF_WORKFLOWS)
        flow = await bench.enqueue_flow(chord(2, new_job(key="f")))
        assert FlowState.RUNNING is await bench.flow_state(flow.id)
        grant(CANCELLERS)
        assert [CancelStatus.CANCELLED] == await bench.cancel_flows(flow.id)

    with_bench(used.driver(role), work)


def test_a_worker_needs_more(used: Site, grant: Callable[[str], str]) -> None:
    async def work(bench: Bench) -> None:
        await bench.announce()
        await declare_a_limit(bench)
        for number in range(8):
            await bench.enqueue(key=f"k{number}", retain=NOW if number < 4 else 100 * DAY)
        taken = await bench.take()
        await bench.start(*taken)
        await tell(bench, taken[0])
        ended, failed, buried, released, kept, strayed, snoozed, _ = taken
        await bench.settle(
            success(ended),
            success(kept),
            failure(failed),
            burial(buried),
            release(released),
            stray(strayed),
            snooze(snoozed),
        )
        await bench.answers(success(ended))
        await bench.take()
        await bench.lose_workers()
        await bench.cancel(released.id)
        await bench.requeue(buried.id)
        await bench.pause("mail")
        await bench.resume("mail")
        await look_at_all(bench, ended.id)
        await bench.delete(buried.id, released.id)
        await run_a_flow(bench)
        bench.advance(110 * DAY)
        more = True
        while more:
            more = (await bench.store.history_prune(HistoryPrune(now=bench.now))).more
        await bench.store.worker_forget(WorkerForget(workers=["somebody"]))
        assert [None, None] == await bench.get(ended.id, kept.id)

    with_bench(used.driver(grant(WORKERS)), work)


def test_a_worker_that_could_not_keep_retentions_is_told_at_once(
    used: Site, grant: Callable[[str], str]
) -> None:
    role = grant(WORKERS)
    used.do(f"REVOKE TRUNCATE ON {{s}}.history_07 FROM {role}")

    async def work(bench: Bench) -> None:
        with pytest.raises(UnusableStoreError) as refused:
            await bench.store.history_prune(HistoryPrune())
        assert f'the role {role!r} may not TRUNCATE "{used.name}".history_07' in str(refused.value)

    with_bench(used.driver(role), work)
