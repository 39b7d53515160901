"""Tables or columns that somebody dropped: all who come are told which, and what to do, and are sent in no circle."""

from __future__ import annotations

import asyncio
from collections.abc import Generator

import pytest

pytest.importorskip("psycopg", reason="needs the extra `postgres`")

from taskharbor.driver import Migration
from taskharbor.drivers.postgres import schema
from taskharbor.drivers.postgres.schema import WANTED
from taskharbor.drivers.postgres.whole import tables
from taskharbor.errors import SchemaError
from tests.support.postgres import server
from tests.support.postgres_ground import Ground, put

COLUMNS = """SELECT c.relname::text, a.attname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
WHERE n.nspname = current_schema AND c.relkind IN ('r', 'p') AND NOT c.relispartition ORDER BY 1, a.attnum"""

PARTITIONS = """SELECT relname::text FROM pg_class
WHERE relispartition AND relkind = 'r' AND relnamespace = current_schema::regnamespace"""


@pytest.fixture
def ground() -> Generator[Ground]:
    made = Ground(server().conninfo)
    yield made
    made.remove()


def told(ground: Ground) -> str:
    """Return what is said to whoever comes; it must be the same."""
    driver = ground.driver()

    async def on_loop() -> None:
        async with driver.connect():
            pass

    def blocking() -> None:
        with driver.connect_blocking():
            pass

    said: set[str] = set()
    for way in (blocking, lambda: asyncio.run(on_loop()), driver.migrate, driver.schema_version):
        with pytest.raises(SchemaError) as refused:
            way()
        said.add(str(refused.value))
    driver.close()
    (one,) = said
    return one


def test_what_the_migrations_make_is_read_from_them(ground: Ground) -> None:
    made: dict[str, list[str]] = {}
    for table, column in ground.do(COLUMNS):
        made.setdefault(table, []).append(column)
    assert made.pop("migration")
    made |= {partition: [] for (partition,) in ground.do(PARTITIONS)}

    assert made == tables(WANTED)


def test_changes_of_later_migrations_are_read_too(monkeypatch: pytest.MonkeyPatch) -> None:
    later = Migration(
        WANTED + 1,
        "more",
        (
            "ALTER TABLE taskharbor.lease ADD COLUMN later integer NOT NULL DEFAULT 7",
            "ALTER TABLE taskharbor.lease ADD CONSTRAINT some CHECK (later > 0)",
            "ALTER TABLE taskharbor.lease DROP COLUMN IF EXISTS remaining",
            "ALTER TABLE taskharbor.slot DROP CONSTRAINT slot_day_key",
            "CREATE TABLE taskharbor.latest (id uuid PRIMARY KEY, said text DEFAULT 'a', UNIQUE (id, said))",
            "DROP TABLE taskharbor.pause",
        ),
    )
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, later))

    now, then = tables(WANTED), tables(WANTED + 1)

    assert [*(name for name in now["lease"] if name != "remaining"), "later"] == then["lease"]
    assert (["slot", "day"], ["id", "said"]) == (then["slot"], then["latest"])
    assert set(now) - {"pause"} | {"latest"} == set(then)


@pytest.mark.parametrize(
    ("trouble", "lacks"),
    [
        ("DROP TABLE job, stray", "lacks the table job, the table stray: dropped by somebody"),
        ("DROP TABLE history_07", "lacks the table history_07: dropped"),
        ("ALTER TABLE job DROP COLUMN lane", "lacks the column job.lane: dropped"),
        ("DROP TABLE history", "lacks the table history, the table history_dead, the table history_long,"),
        ("DROP TABLE history", "the table history_05, and 31 more: dropped"),
    ],
)
def test_what_was_dropped_is_told(ground: Ground, trouble: str, lacks: str) -> None:
    ground.do(trouble)

    said = told(ground)

    assert said.startswith(f"the schema {ground.schema!r} of the database 'postgres' on ")
    assert f"says that it is at version {WANTED}, and lacks the " in said
    assert lacks in said
    assert "restore them from a backup" in said
    assert f'DROP SCHEMA "{ground.schema}" CASCADE, and run `taskharbor migrate`' in said


def test_dropped_while_it_is_open(ground: Ground) -> None:
    with ground.producing() as store:
        put(store)
        ground.do("DROP TABLE job")
        with pytest.raises(SchemaError) as refused:
            put(store)

    assert "run `taskharbor migrate`, which makes them, or says what was dropped" in str(refused.value)
    assert "lacks the table job:" in told(ground)


def test_without_the_versions_the_tables_in_the_way_are_told(ground: Ground) -> None:
    ground.do("DELETE FROM migration")

    with pytest.raises(SchemaError) as refused:
        ground.driver().migrate()

    assert "(If all tables there are TaskHarbor's: the rows of its table `migration`" in str(refused.value)
