"""What the verbs cost on a large store: how each statement is carried out, how many there are, how much they read."""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from taskharbor.driver import AgedTake, EnqueueStatus, HistoryPrune
from taskharbor.job import Delivery, JobState, KeyRule, OnConflict
from taskharbor.settlement import Settlement
from taskharbor_conformance.bench import (
    DAY,
    HOUR,
    SECOND,
    Bench,
    burial,
    cancellation,
    failure,
    new_job,
    release,
    stray,
    success,
)
from tests.support.sqlite import ask_file, connections_noted, driver_on, with_bench

SMALL, LARGE = 300, 100_000
BIG_TABLES = "job|history|dead|key"

_NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?) "
_FILL = (
    """INSERT INTO taskharbor_stray (id, task, refused_by)
        SELECT i + 1, 'task-' || i, '["build-' || i || '"]' FROM n WHERE i < 200""",
    # Many are scheduled, many wait in one lane, some have strayed.
    """INSERT INTO taskharbor_job (id, task, queue, options, priority, lane, due, guarded, stray, run_at, enqueued_at,
        payload, key, digest) SELECT printf('01000000-0000-7000-8000-%012d', i), 'task-' || (i % 50),
        CASE WHEN i % 3 THEN 'default' ELSE 'queue-' || (i % 20) END, 1, CASE WHEN i % 2 THEN 5 ELSE i % 10 END,
        CASE WHEN i % 50 = 0 THEN 0 ELSE 2 END, CASE WHEN i % 4 THEN i ELSE 4000000000000000 + i END, i % 7 = 0,
        CASE WHEN i % 10 = 0 THEN 1 + i % 200 ELSE 0 END, i, i, x'00', 'key-' || i, x'00' FROM n""",
    """INSERT INTO taskharbor_history (id, task, queue, options, priority, run_at, enqueued_at, finished_at, attempt,
        deliveries, crashes, guarded, stray, payload, state, expires_at)
        SELECT printf('02000000-0000-7000-8000-%012d', i), 'task-' || (i % 50), 'default', 1, 5, i, i, i, 1, 1, 0,
        0, 0, x'00', CASE WHEN i % 5 THEN 'succeeded' ELSE 'cancelled' END, 4000000000000000 + i FROM n""",
    """INSERT INTO taskharbor_dead (id, task, queue, options, priority, run_at, enqueued_at, finished_at, attempt,
        deliveries, crashes, guarded, stray, payload)
        SELECT printf('03000000-0000-7000-8000-%012d', i), 'task-' || (i % 50), 'default', 1, 5, i, i, i, 1, 1, 0,
        0, 0, x'00' FROM n""",
    """INSERT INTO taskharbor_key (task, name, job_id, digest, ttl, expires_at)
        SELECT 'task-' || (i % 50), 'key-' || i, printf('01000000-0000-7000-8000-%012d', i), x'00', 1,
        CASE WHEN i % 2 THEN NULL ELSE 4000000000000000 + i END FROM n""",
)


def filled(path: Path, count: int) -> Path:
    """Make a store with so many jobs in each table."""
    driver_on(path).migrate()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "INSERT INTO taskharbor_options (id, retain, text) VALUES (1, 1, ?)",
            (
                '{"codec":"json","fingerprint":1,"retry":{"max_attempts":5},"key_ttl":"P1D","retain":"P1D","keep_result":true}',
            ),
        )
        for statement in _FILL:
            connection.execute(_NUMBERS + statement, (count,))
    return path


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a small store, and a large one before and after ANALYZE."""
    folder = tmp_path_factory.mktemp("stores")
    made = {"small": filled(folder / "small.db", SMALL), "large": filled(folder / "large.db", LARGE)}
    made["analyzed"] = folder / "analyzed.db"
    shutil.copy(made["large"], made["analyzed"])
    ask_file(made["analyzed"], "ANALYZE")
    return made


@pytest.fixture
def store(stores: dict[str, Path], request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a copy of one of them, to be written to."""
    return Path(shutil.copy(stores[request.param], tmp_path / "jobs.db"))


# --- the verbs of every second

Verb = Callable[[Bench, "Watch"], Awaitable[object]]


class Watch:
    """Notes the statements and the steps of one connection, once begun."""

    def __init__(self, connections: Sequence[sqlite3.Connection]) -> None:
        self._connections = connections
        self.statements: list[str] = []
        self.steps = 0

    def begin(self) -> None:
        """Begin to note."""
        connection = self._connections[-1]
        connection.set_trace_callback(self.statements.append)
        connection.set_progress_handler(self._step, 1)

    def _step(self) -> int:
        self.steps += 1
        return 0


async def enqueue(bench: Bench, watch: Watch) -> None:
    watch.begin()
    await bench.enqueue_all(
        *(new_job(task="task-1", key=f"key-{number * 2}" if number % 2 else None) for number in range(25))
    )


async def enqueue_unique(bench: Bench, watch: Watch) -> None:
    rule = KeyRule(states=tuple(JobState))
    watch.begin()
    answers = await bench.enqueue_all(
        *(
            new_job(task=f"task-{number}", key=f"key-{number}", digest=b"\0", key_rule=rule)
            for number in range(1, 50, 2)
        )
    )
    assert {EnqueueStatus.EXISTING} == {answer.status for answer in answers}


async def replace(bench: Bench, watch: Watch) -> None:
    watch.begin()
    answers = await bench.enqueue_all(
        *(
            new_job(task=f"task-{number}", key=f"key-{number}", on_conflict=OnConflict.REPLACE)
            for number in range(1, 50, 2)
        )
    )
    assert {EnqueueStatus.REPLACED} == {answer.status for answer in answers}


async def reserve_aged(bench: Bench, watch: Watch) -> None:
    watch.begin()
    aged = AgedTake(HOUR, 5)
    assert 20 == len(await bench.take(20, queues=["default", "queue-3", "queue-6"], aged=aged))


async def reserve(bench: Bench, watch: Watch) -> None:
    watch.begin()
    tasks = frozenset(f"task-{number}" for number in range(30))
    assert 20 == len(await bench.take(20, queues=["default", "queue-3", "queue-6"], tasks=tasks))


async def reserve_where_nothing_is(bench: Bench, watch: Watch) -> None:
    watch.begin()
    assert [] == await bench.take(20, queues=["empty"])


async def extend(bench: Bench, watch: Watch) -> None:
    taken = await bench.take(20)
    await bench.cancel(taken[0].id)
    watch.begin()
    await bench.extend(*taken, started=taken[:10])


async def succeed(bench: Bench, watch: Watch) -> None:
    taken = await bench.take(20)
    watch.begin()
    await bench.settle(*map(success, taken))


async def settle_otherwise(bench: Bench, watch: Watch) -> None:
    taken = await bench.take(20)
    ends: list[Callable[[Delivery], Settlement]] = [failure, burial, cancellation, release, stray]
    watch.begin()
    await bench.settle(*(ends[number % 5](delivery) for number, delivery in enumerate(taken)))


async def reclaim(bench: Bench, watch: Watch) -> None:
    await bench.take(20)
    bench.advance(HOUR)
    watch.begin()
    assert 20 == len(await bench.reclaim())


async def reclaim_where_nothing_has_expired(bench: Bench, watch: Watch) -> None:
    await bench.take(20)
    watch.begin()
    assert [] == await bench.reclaim()


async def prune(bench: Bench, watch: Watch) -> None:
    done = [await bench.enqueue(priority=0, key=str(number)) for number in range(10)]
    await bench.cancel(*done)
    bench.advance(365 * DAY)
    watch.begin()
    pruned = await bench.store.history_prune(HistoryPrune(limit=5, now=bench.now))
    assert (5, 5) == (pruned.jobs, pruned.keys)


async def prune_where_nothing_is_due(bench: Bench, watch: Watch) -> None:
    watch.begin()
    await bench.store.history_prune(HistoryPrune(limit=1000, now=bench.now))


async def get(bench: Bench, watch: Watch) -> None:
    watch.begin()
    ids = [f"0{table}000000-0000-7000-8000-{number:012}" for table in (1, 2, 3) for number in range(0, 30, 3)]
    assert None not in await bench.get(*ids)


async def cancel(bench: Bench, watch: Watch) -> None:
    watch.begin()
    await bench.cancel(*(f"01000000-0000-7000-8000-{number:012}" for number in range(5)))


async def requeue(bench: Bench, watch: Watch) -> None:
    watch.begin()
    await bench.requeue(*(f"03000000-0000-7000-8000-{number:012}" for number in range(5)))


async def delete(bench: Bench, watch: Watch) -> None:
    watch.begin()
    await bench.delete(*(f"0{table}000000-0000-7000-8000-{7:012}" for table in (1, 2, 3)))


async def announce(bench: Bench, watch: Watch) -> None:
    watch.begin()
    await bench.announce()
    bench.advance(SECOND)
    await bench.extend()


async def pause_and_resume(bench: Bench, watch: Watch) -> None:
    watch.begin()
    await bench.pause("default")
    await bench.resume("default")


VERBS: list[Verb] = [
    enqueue,
    enqueue_unique,
    replace,
    reserve,
    reserve_aged,
    reserve_where_nothing_is,
    extend,
    succeed,
    settle_otherwise,
    reclaim,
    reclaim_where_nothing_has_expired,
    prune,
    prune_where_nothing_is_due,
    get,
    cancel,
    requeue,
    delete,
    announce,
    pause_and_resume,
]
each_verb = pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.__name__)


def watched(path: Path, verb: Verb) -> Watch:
    """Carry out a verb on a store and return what was noted."""
    with connections_noted() as connections:
        watch = Watch(connections)
        with_bench(path, lambda bench: verb(bench, watch))
    watch.statements = [
        statement
        for statement in watch.statements
        if not statement.startswith(("BEGIN", "COMMIT", "PRAGMA", "--", "SELECT changes()"))
    ]
    assert watch.statements
    return watch


def plan(path: Path, statement: str) -> list[str]:
    """Return the steps by which SQLite carries a statement out."""
    return [str(row[3]) for row in ask_file(path, f"EXPLAIN QUERY PLAN {statement}")]


@each_verb
@pytest.mark.parametrize("store", ["large", "analyzed"], indirect=True)
def test_no_statement_scans_a_large_table_or_sorts_one(verb: Verb, store: Path) -> None:
    bad = [
        (step, statement[:300])
        for statement in watched(store, verb).statements
        for step in plan(store, statement)
        if re.match(rf"SCAN (taskharbor_({BIG_TABLES})|j\b|k\b)", step)
        # Leases are few: one or two for each worker.
        or ("TEMP B-TREE" in step and "taskharbor_lease" not in statement)
    ]

    assert [] == bad


@each_verb
def test_the_number_of_statements_does_not_grow_with_the_store(
    verb: Verb, stores: dict[str, Path], tmp_path: Path
) -> None:
    small, large = (
        watched(Path(shutil.copy(stores[name], tmp_path / f"{name}.db")), verb) for name in ("small", "large")
    )

    assert len(large.statements) <= len(small.statements)


@each_verb
@pytest.mark.parametrize("kind", ["large", "analyzed"])
def test_the_work_of_a_verb_does_not_grow_with_the_store(
    verb: Verb, kind: str, stores: dict[str, Path], tmp_path: Path
) -> None:
    small, large = (
        watched(Path(shutil.copy(stores[name], tmp_path / f"{name}.db")), verb).steps
        for name in ("small", kind)
    )

    # Counted in steps of SQLite's virtual machine, so that it depends on no machine's speed.
    assert large <= small * 1.5 + 500


def test_a_lane_of_many_that_cannot_be_taken_is_not_read(stores: dict[str, Path], tmp_path: Path) -> None:
    async def take_one(bench: Bench, watch: Watch) -> None:
        watch.begin()
        assert 1 == len(await bench.take(1))

    steps = watched(Path(shutil.copy(stores["large"], tmp_path / "jobs.db")), take_one).steps

    assert steps < 5000
