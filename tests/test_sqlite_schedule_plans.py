"""What schedules and leadership cost in SQLite: the same however many there are, and nothing while others lead."""

from __future__ import annotations

import re
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from taskharbor.clock import micros
from taskharbor.driver import AHEAD, UPKEEP, DeclareStatus
from taskharbor_conformance.bench import HOUR, Bench
from taskharbor_conformance.leader import take
from taskharbor_conformance.timetables import (
    create,
    declare,
    due,
    find,
    fire,
    firing,
    job_of,
    moved,
    new_schedule,
    pause,
    resume,
    tick,
)
from tests.support.sqlite import with_bench
from tests.test_sqlite_plans import Verb, Watch, plan, watched

SMALL, LARGE = 300, 20_000
SOON = micros(datetime.now(UTC) + 2 * HOUR)
COLUMNS = """application, task, queue, schedule, description, revision, created_at, after_at, due, ended, waiting_tick,
    paused_at, paused_by, reason, last_tick, last_job, fired, missed, overlapped, kept_out, job"""


async def begin(bench: Bench) -> None:
    await create(bench, new_schedule("seed"))
    await declare(bench, *(new_schedule(f"app/{number}") for number in range(20)))


def filled(path: Path, count: int) -> Path:
    """Make a store with so many schedules, of which some are paused and some have ended, all due later."""
    with_bench(path, begin)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            f"""WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?)
            INSERT INTO taskharbor_schedule (name, {COLUMNS})
            SELECT printf('%06d', i), CASE WHEN i % 3 THEN 'app-' || (i % 100) END, task, queue, schedule, description,
            revision, created_at, after_at, ? + i, i % 7 = 0, NULL, CASE WHEN i % 5 THEN NULL ELSE 1 END, '', '', NULL,
            NULL, 0, 0, 0, 0, job FROM n, taskharbor_schedule WHERE name = 'seed'""",
            (count, SOON),
        )
        connection.execute("UPDATE taskharbor_schedule SET due = ? WHERE name NOT GLOB '[0-9]*'", (SOON - 1,))
    return path


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a small store and a large one."""
    folder = tmp_path_factory.mktemp("stores")
    return {"small": filled(folder / "small.db", SMALL), "large": filled(folder / "large.db", LARGE)}


async def look_where_nothing_is_due(bench: Bench, watch: Watch) -> None:
    watch.begin()
    answer = await due(bench)
    assert not answer.due
    assert answer.next_in


async def look_where_many_are_due(bench: Bench, watch: Watch) -> None:
    bench.advance(10 * HOUR)
    watch.begin()
    assert 50 == len((await due(bench, 50)).due)


async def fire_some(bench: Bench, watch: Watch) -> None:
    bench.advance(10 * HOUR)
    moves = [
        firing(each.record, job_of(each.record), after=bench.now, next_at=bench.now + HOUR)
        for each in (await due(bench, 100)).due
    ]
    fence = (await take(bench, "worker", UPKEEP)).fence
    watch.begin()
    assert [True] * 100 == moved(await fire(bench, *moves, fence=fence))


async def pause_and_resume(bench: Bench, watch: Watch) -> None:
    watch.begin()
    await pause(bench, "000001", "000002")
    await resume(bench, "000001", "000002")


async def declare_anew(bench: Bench, watch: Watch) -> None:
    watch.begin()
    answer = await declare(bench, *(new_schedule(f"app/{number}") for number in range(10, 30)))
    assert (10, 10) == (len(answer.added), len(answer.removed))


async def list_a_page(bench: Bench, watch: Watch) -> None:
    watch.begin()
    assert 20 == len(await find(bench, after="000100", limit=20))
    assert 3 == len(await find(bench, "000001", "000002", "seed"))
    assert 20 == len(await find(bench, application="app"))


async def go_on_leading(bench: Bench, watch: Watch) -> None:
    watch.begin()
    await take(bench, "worker", UPKEEP)
    await take(bench, "worker", UPKEEP)


VERBS: list[Verb] = [
    look_where_nothing_is_due,
    look_where_many_are_due,
    fire_some,
    pause_and_resume,
    declare_anew,
    list_a_page,
    go_on_leading,
]


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.__name__)
def test_a_verb_costs_the_same_however_many_schedules_there_are(
    verb: Verb, stores: dict[str, Path], tmp_path: Path
) -> None:
    small, large = (
        watched(Path(shutil.copy(stores[name], tmp_path / f"{name}.db")), verb) for name in ("small", "large")
    )

    scans = [
        (step, statement)
        for statement in large.statements
        for step in plan(stores["large"], statement)
        if re.match(r"SCAN (taskharbor_(schedule|declaration|leader|job)|s\b|j\b)", step)
        or "TEMP B-TREE" in step
    ]
    assert [] == scans
    # Counted in steps of SQLite's virtual machine, so that it depends on no machine's speed.
    assert large.steps <= small.steps * 1.5 + 500
    assert len(large.statements) <= len(small.statements)


def test_firing_five_hundred_takes_a_dozen_statements(tmp_path: Path) -> None:
    async def fire_all(bench: Bench, watch: Watch) -> None:
        await create(bench, *(new_schedule(f"{number:03}") for number in range(500)))
        looked = (await due(bench)).due
        moves = [firing(each.record, job_of(each.record), after=bench.now) for each in looked]
        watch.begin()
        assert [True] * 500 == moved(await fire(bench, *moves, fence=1))

    noted = watched(tmp_path / "jobs.db", fire_all)

    assert len(noted.statements) <= 12


def test_who_only_looks_needs_no_write_lock(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"

    async def prepare(bench: Bench) -> None:
        await declare(bench, new_schedule("app/a"))
        await tick(bench, "app/a")
        await take(bench, "leader", UPKEEP, ttl=AHEAD)

    async def look(bench: Bench) -> tuple[object, ...]:
        looked = await due(bench)
        led = await take(bench, "another", UPKEEP)
        declared = await declare(bench, new_schedule("app/a"))
        return list(looked.due), led.worker, declared.status

    with_bench(path, prepare)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")

        seen = with_bench(path, look, busy_timeout=0.05)

    assert ([], "leader", DeclareStatus.CURRENT) == seen
