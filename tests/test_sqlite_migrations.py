"""The tables: made once, by whoever comes first, whole or not at all, beside whatever else is in the file."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from taskharbor.clock import from_micros
from taskharbor.driver import LimitSet, Migration, SchemaVersion
from taskharbor.drivers.sqlite import schema
from taskharbor.errors import SchemaError, StoreError
from taskharbor.job import JobState
from taskharbor.limit import LimitTerms, Scope, ScopeKind
from taskharbor_conformance.bench import DAY, TASK, Bench
from taskharbor_conformance.timetables import create, new_schedule, tick
from tests.support.sqlite import (
    OtherProgram,
    ask_file,
    driver_on,
    producing,
    put,
    put_some,
    stored,
    with_bench,
)

WANTED = schema.MIGRATIONS[-1].number


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.db"


def tables(path: Path) -> list[object]:
    """Return the names of all tables in a file."""
    return [
        row[0] for row in ask_file(path, "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
    ]


def schema_of(path: Path) -> list[tuple[object, ...]]:
    """Return everything that a file's schema holds."""
    return list(ask_file(path, "SELECT type, name, sql FROM sqlite_schema ORDER BY name"))


def test_a_fresh_file_is_migrated_from_zero(path: Path) -> None:
    driver = driver_on(path)
    before = driver.schema_version()

    run = driver.migrate()

    assert (SchemaVersion(0, WANTED), SchemaVersion(WANTED, WANTED)) == (before, driver.schema_version())
    assert list(schema.MIGRATIONS) == list(run)


def test_migrating_again_runs_nothing_and_changes_nothing(path: Path) -> None:
    driver = driver_on(path)
    driver.migrate()
    put_some(path, 3)
    before = schema_of(path)

    assert [] == list(driver.migrate())
    assert before == schema_of(path)
    assert 3 == len(stored(path))


def test_opening_a_store_migrates(path: Path) -> None:
    with producing(path):
        pass

    assert SchemaVersion(WANTED, WANTED) == driver_on(path).schema_version()


def test_asking_for_the_version_makes_no_file_and_no_tables(path: Path) -> None:
    version = driver_on(path).schema_version()
    there = os.listdir(path.parent)
    ask_file(path, "CREATE TABLE mine (x)")
    before = schema_of(path)
    mode = ask_file(path, "PRAGMA journal_mode")

    assert version == driver_on(path).schema_version() == SchemaVersion(0, WANTED)
    assert [] == there
    assert before == schema_of(path)
    assert mode == ask_file(path, "PRAGMA journal_mode")


def test_the_version_table_says_what_was_run_and_when(path: Path) -> None:
    driver_on(path).migrate()

    rows = ask_file(path, "SELECT number, name, run_at FROM taskharbor_migration ORDER BY number")

    assert [(each.number, each.name) for each in schema.MIGRATIONS] == [row[:2] for row in rows]
    modified = os.stat(path).st_mtime
    for row in rows:
        assert isinstance(row[2], int)
        assert abs(from_micros(row[2]).timestamp() - modified) < 3600


def test_tables_of_an_application_are_left_as_they_are(path: Path) -> None:
    ask_file(path, "CREATE TABLE orders (id INTEGER PRIMARY KEY, what TEXT)")
    ask_file(path, "CREATE INDEX by_what ON orders (what)")
    ask_file(path, "INSERT INTO orders (what) VALUES ('tea'), ('cake')")
    ask_file(path, "PRAGMA user_version = 42")
    ask_file(path, "PRAGMA application_id = 7")
    before = schema_of(path)

    put_some(path)

    assert before == [row for row in schema_of(path) if "taskharbor" not in str(row[1])]
    assert [("tea",), ("cake",)] == ask_file(path, "SELECT what FROM orders")
    assert ([(42,)], [(7,)]) == (
        ask_file(path, "PRAGMA user_version"),
        ask_file(path, "PRAGMA application_id"),
    )


def test_every_table_of_ours_is_named_so(path: Path) -> None:
    driver_on(path).migrate()

    assert [] == [
        row[1] for row in schema_of(path) if not str(row[1]).startswith(("taskharbor_", "sqlite_auto"))
    ]


def test_processes_that_meet_a_fresh_file_at_once_migrate_it_once(path: Path) -> None:
    program = """
from tests.support.sqlite import driver_on, put
driver = driver_on(path)
say()
wait()
with driver.connect_blocking() as store:
    say(put(store)[0].status)
"""
    others = [OtherProgram(path, program) for _ in range(4)]
    try:
        for other in others:
            other.hear()
        for other in others:
            other.tell()
        said = [other.hear() for other in others]
        for other in others:
            other.end()
    finally:
        for other in others:
            other.__exit__()

    assert ["created"] * 4 == said
    assert 4 == len(stored(path))
    assert [(len(schema.MIGRATIONS),)] == ask_file(path, "SELECT count(*) FROM taskharbor_migration")


def test_a_migration_that_fails_is_taken_back_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = (
        *schema.MIGRATIONS,
        Migration(WANTED + 1, "broken", ("CREATE TABLE taskharbor_new (x)", "CREATE nonsense")),
    )
    put_some(path, 2)
    before = schema_of(path)

    with monkeypatch.context() as patched:
        patched.setattr(schema, "MIGRATIONS", broken)
        patched.setattr(schema, "WANTED", WANTED + 1)
        with pytest.raises(StoreError, match="syntax error"):
            driver_on(path).migrate()
        assert SchemaVersion(WANTED, WANTED + 1) == driver_on(path).schema_version()

    assert before == schema_of(path)
    assert SchemaVersion(WANTED, WANTED) == driver_on(path).schema_version()
    put_some(path)
    assert 3 == len(stored(path))


def test_a_later_migration_is_run_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = put_some(path, 2)
    later = Migration(WANTED + 1, "a mark", ("CREATE TABLE taskharbor_mark (x)",))
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, later))
    monkeypatch.setattr(schema, "WANTED", WANTED + 1)
    driver = driver_on(path)

    assert SchemaVersion(WANTED, WANTED + 1) == driver.schema_version()
    assert [later] == list(driver.migrate())
    assert SchemaVersion(WANTED + 1, WANTED + 1) == driver.schema_version()
    assert ids == stored(path)


def put_some_before(path: Path, version: int, patch: pytest.MonkeyPatch) -> list[str]:
    """Make a file of an earlier version with two jobs in it, as they are stored today but for what came since."""
    with patch.context() as before:
        before.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:version])
        before.setattr(schema, "WANTED", version)
        driver_on(path).migrate()
    newer = path.with_name("newer.db")
    ids = put_some(newer, 2)
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        file.execute("ATTACH ? AS newer", (str(newer),))
        for table in ("taskharbor_options", "taskharbor_job"):
            columns = ", ".join(row[1] for row in file.execute(f"PRAGMA main.table_info({table})"))
            file.execute(f"INSERT INTO main.{table} ({columns}) SELECT {columns} FROM newer.{table}")
    return ids


@pytest.mark.parametrize("version", [3, 4])
def test_a_file_from_before_gets_what_came_since_and_keeps_its_jobs(
    path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    ids = put_some_before(path, version, monkeypatch)

    run = driver_on(path).migrate()

    assert version + 1 == run[0].number
    assert ids == stored(path)

    async def fire_and_limit(bench: Bench) -> None:
        await create(bench, new_schedule())
        fired = await tick(bench)
        assert [*ids, fired] == stored(path)
        one = LimitTerms(max_running=1)
        await bench.store.limit_set(LimitSet(scope=Scope(ScopeKind.TASK, TASK), terms=one, now=bench.now))
        bench.advance(DAY)
        (taken,) = await bench.take_ids()
        left = {*ids, fired} - {taken}
        assert [JobState.PARKED] * 2 == await bench.states(*left)

    with_bench(path, fire_and_limit)


def test_a_process_that_has_the_file_open_goes_on_while_another_migrates(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = Migration(WANTED + 1, "a column", ("ALTER TABLE taskharbor_pause ADD COLUMN more TEXT",))

    with producing(path) as store:
        put(store)
        with monkeypatch.context() as patched:
            patched.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, later))
            patched.setattr(schema, "WANTED", WANTED + 1)
            driver_on(path).migrate()
        put(store)

    assert 2 == len(stored(path))


def test_a_table_of_the_applications_in_the_way_is_told_and_nothing_is_made(path: Path) -> None:
    ask_file(path, "CREATE TABLE taskharbor_job (mine)")

    with pytest.raises(SchemaError) as refused:
        driver_on(path).migrate()

    assert "table taskharbor_job already exists" in str(refused.value)
    assert ["taskharbor_job"] == tables(path)
