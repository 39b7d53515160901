"""Lines in SQLite, beyond what the suite asks of every driver: what a walk reads, and other processes."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Protocol

import pytest

from taskharbor.driver import LimitSet
from taskharbor.limit import LimitTerms, RateTerms, Scope, ScopeKind
from taskharbor_conformance.bench import HOUR, LEASE, TASK, Bench, Doorbell, success
from tests.support.sqlite import OtherProgram, ask_file, connections_noted, driver_on, with_bench
from tests.test_sqlite_plans import Watch, plan

KEYS = Scope(ScopeKind.KEYS, TASK)
WHOLE = Scope(ScopeKind.TASK, TASK)
SMALL, LARGE = 300, 20_000

# Of ten lines each is as long as the store is large; beside them stands one job in each of as many lines.
_FILL = """WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?)
    INSERT INTO taskharbor_job (id, task, queue, options, priority, lane, due, guarded, run_at, enqueued_at, payload,
        part) SELECT printf('01000000-0000-7000-8000-%012d', i), ?, 'default', 1, 5, 6, i, 0, i, i, x'00',
        CASE WHEN i % 2 THEN 'giant-' || (i % 20) ELSE printf('small-%06d', i) END FROM n"""
_OPTIONS = (
    '{"codec":"json","fingerprint":1,"retry":{"max_attempts":5},"key_ttl":"P1D","retain":"P1D",'
    '"keep_result":true}'
)


def filled(path: Path, count: int) -> Path:
    """Make a store with so many jobs in lines."""
    driver_on(path).migrate()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO taskharbor_options (id, retain, text) VALUES (1, 1, ?)", (_OPTIONS,))
        connection.execute(_FILL, (count, TASK))
    return path


async def set_limit(bench: Bench, scope: Scope, terms: LimitTerms) -> None:
    """Set a limit by hand."""
    await bench.store.limit_set(LimitSet(scope=scope, terms=terms, now=bench.now))


# --- what a walk reads


class Verb(Protocol):
    """Something done on a bench, from some point on watched."""

    __name__: str

    async def __call__(self, bench: Bench, watch: Watch) -> None:
        """Do it."""
        ...


async def in_turn(bench: Bench, watch: Watch) -> None:
    await bench.take(20)
    watch.begin()
    assert 20 == len(await bench.take(20))


async def one_at_a_time(bench: Bench, watch: Watch) -> None:
    await set_limit(bench, KEYS, LimitTerms(max_running=1))
    await bench.take(20)
    watch.begin()
    assert 20 == len(await bench.take(20))


async def at_a_rate(bench: Bench, watch: Watch) -> None:
    await set_limit(bench, KEYS, LimitTerms(rate=RateTerms(1, HOUR)))
    await bench.take(20)
    watch.begin()
    assert 20 == len(await bench.take(20))


async def held_back_by_the_task(bench: Bench, watch: Watch) -> None:
    await set_limit(bench, WHOLE, LimitTerms(max_running=20))
    await bench.take(20)
    watch.begin()
    assert [] == await bench.take(20)


async def into_one_free_slot(bench: Bench, watch: Watch) -> None:
    await bench.take(20)
    watch.begin()
    assert 1 == len(await bench.take(20, partitioned_limit=1))


@pytest.mark.parametrize(
    "verb",
    [in_turn, one_at_a_time, at_a_rate, held_back_by_the_task, into_one_free_slot],
    ids=lambda verb: verb.__name__,
)
def test_what_a_reserve_from_lines_reads_does_not_grow_with_how_many_wait(verb: Verb, tmp_path: Path) -> None:
    seen: dict[int, Watch] = {}
    for count in (SMALL, LARGE):
        path = filled(tmp_path / f"{count}.db", count)
        with connections_noted() as connections:
            watch = seen[count] = Watch(connections)
            with_bench(path, partial(verb, watch=watch))
    bad = [
        (step, statement)
        for statement in seen[LARGE].statements
        if statement.startswith(("SELECT", "WITH", "UPDATE", "INSERT"))
        for step in plan(tmp_path / f"{LARGE}.db", statement)
        if re.match(r"SCAN (taskharbor_job|j\b)", step)
    ]

    assert [] == bad
    assert any("taskharbor_job_line" in statement for statement in seen[LARGE].statements)
    # Counted in steps of SQLite's virtual machine, so that it depends on no machine's speed.
    assert seen[LARGE].steps <= seen[SMALL].steps * 1.5 + 500


def test_a_plain_queue_does_not_count_what_runs_under_limits_of_others(tmp_path: Path) -> None:
    async def work(bench: Bench, watch: Watch) -> None:
        await set_limit(bench, WHOLE, LimitTerms(max_running=2))
        await bench.enqueue(queue="limited")
        await bench.take_one(queues={"limited": 1})
        await bench.enqueue(task="other")
        watch.begin()
        await bench.take_one()

    with connections_noted() as connections:
        watch = Watch(connections)
        with_bench(tmp_path / "jobs.db", lambda bench: work(bench, watch))

    assert [] == [statement for statement in watch.statements if "count(*)" in statement]


def test_a_store_without_lines_does_not_look_for_any(tmp_path: Path) -> None:
    async def work(bench: Bench, watch: Watch) -> None:
        for _ in range(3):
            await bench.enqueue()
        await bench.take(1)
        watch.begin()
        await bench.settle(success(await bench.take_one()))

    with connections_noted() as connections:
        watch = Watch(connections)
        with_bench(tmp_path / "jobs.db", lambda bench: work(bench, watch))
    tables = {"taskharbor_turn", "taskharbor_arrival", "taskharbor_hold"}

    assert [] == [statement for statement in watch.statements if any(table in statement for table in tables)]


# --- other processes

_TAKES_TWO = """
from datetime import timedelta
from tests.support.sqlite import with_bench
async def work(bench):
    say(len(await bench.take(2, lease=timedelta(seconds=30))))
    wait()
with_bench(path, work)
"""


def test_what_a_killed_process_had_leased_counts_until_it_is_reclaimed(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"

    async def work(bench: Bench) -> tuple[int, int, int]:
        await set_limit(bench, KEYS, LimitTerms(max_running=3))
        for _ in range(9):
            await bench.enqueue(partition="acme")
        with OtherProgram(path, _TAKES_TWO) as other:
            assert "2" == other.hear()
        beside = len(await bench.take())  # it is dead now, and its leases stand
        bench.advance(timedelta(minutes=10))
        late = len(await bench.take())
        await bench.reclaim()
        return beside, late, len(await bench.take())

    assert (1, 0, 3) == with_bench(path, work)


def test_limits_set_by_another_process_hold_at_once(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"

    async def work(bench: Bench) -> tuple[int, int, int]:
        for _ in range(9):
            await bench.enqueue()
        first = len(await bench.take(2))
        beside = driver_on(path)
        async with bench.beside(beside) as other:
            await set_limit(other, WHOLE, LimitTerms(max_running=3))
            second = len(await bench.take())
            await set_limit(other, WHOLE, LimitTerms())
        beside.close()
        return first, second, len(await bench.take())

    assert (2, 1, 6) == with_bench(path, work)


def test_room_behind_a_limit_wakes_workers_of_other_queues(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        await set_limit(bench, WHOLE, LimitTerms(max_running=1))
        await bench.enqueue(queue="default")
        await bench.enqueue(queue="slow")
        (taken,) = await bench.take(queues=["default", "slow"], limit=1)
        waiting = "slow" if taken.queue == "default" else "default"
        bell = Doorbell()
        subscription = bench.driver.watch_queues([waiting], bell)
        await bench.settle(success(taken))
        await bell.wait()
        subscription.close()
        assert 1 == len(await bench.take(queues=[waiting]))

    with_bench(tmp_path / "jobs.db", work)


# --- what an idle worker is told


def test_an_idle_look_tells_when_a_rate_lets_the_next_one_through_and_writes_nothing(tmp_path: Path) -> None:
    async def work(bench: Bench) -> tuple[timedelta | None, timedelta | None, int]:
        await set_limit(bench, WHOLE, LimitTerms(rate=RateTerms(1, HOUR)))
        for _ in range(3):
            await bench.enqueue()
        await bench.take()
        first = (await bench.reserve()).next_due_in
        bench.advance(LEASE)
        statements: list[str] = []
        connections[-1].set_trace_callback(statements.append)
        second = (await bench.reserve()).next_due_in
        return first, second, statements.count("BEGIN IMMEDIATE")

    with connections_noted() as connections:
        first, second, writes = with_bench(tmp_path / "jobs.db", work)

    assert (HOUR, HOUR - LEASE, 0) == (first, second, writes)


def test_jobs_of_a_task_that_comes_to_be_governed_stand_in_its_line(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"

    async def work(bench: Bench) -> tuple[list[str], list[str], list[str]]:
        before = [await bench.enqueue() for _ in range(3)]
        await set_limit(bench, WHOLE, LimitTerms(max_running=2))
        after = [await bench.enqueue() for _ in range(3)]
        first = await bench.take()
        await bench.settle(*map(success, first))
        return [*before, *after], [delivery.id for delivery in first], await bench.take_ids()

    ids, first, second = with_bench(path, work)

    assert (ids[:2], ids[2:4]) == (first, second)
    assert [("",)] == ask_file(path, "SELECT DISTINCT part FROM taskharbor_job WHERE token IS NOT NULL")
