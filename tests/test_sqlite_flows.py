"""Flows in SQLite: files from before there were any, what an advance costs whatever the store and the flow hold."""

from __future__ import annotations

import random
import re
import shutil
import sqlite3
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from taskharbor.driver import (
    CancelStatus,
    EnqueueStatus,
    FlowFind,
    FlowGet,
    HistoryPrune,
    JobFind,
    RequeueStatus,
)
from taskharbor.drivers.sqlite.rows import BATCH_BYTES, INLINE_BYTES
from taskharbor.flow import FlowState, NewFlow, Sequel
from taskharbor.job import Delivery, JobState, NewJob, new_job_id
from taskharbor.settlement import Settled, SettleKind, Settlement, SettleStatus
from taskharbor.step import Edge, Step
from taskharbor_conformance.bench import DAY, HOUR, Bench, burial, new_job, success
from taskharbor_conformance.graphs import VALUES, chord, failure_template, ids_of, new_step, values_of
from tests.support.sqlite import ask_file, driver_on, with_bench
from tests.test_sqlite_plans import LARGE, SMALL, Verb, Watch, filled, plan, watched

MEMBERS = 10_000
BATCH = 500


class Endless(Iterable[NewJob]):
    """The steps of a chord of so many members, made as they are read: there is no list of them."""

    def __init__(self, members: int) -> None:
        self.members = members
        self.flow = new_job_id()

    def __iter__(self) -> Iterator[NewJob]:
        """Read them from the first."""
        for index in range(self.members):
            yield new_step(new_job(), Step(flow=self.flow, edges=(Edge(self.flow, 0, index),)))
        yield new_step(new_job(id=self.flow), Step(flow=self.flow, waits=self.members, holes=(VALUES,)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


# --- files of version 1

_OPTIONS = (
    '{"codec":"json","fingerprint":1,"retry":{"max_attempts":5},"key_ttl":"P1D","retain":"P1D",'
    '"keep_result":true}'
)
_VERSION_1 = (
    f"INSERT INTO taskharbor_options (id, retain, text) VALUES (1, 86400000000, '{_OPTIONS}')",
    """INSERT INTO taskharbor_job (id, task, queue, options, priority, lane, due, guarded, run_at, enqueued_at, payload,
        token) VALUES ('ready', 'test.task', 'default', 1, 5, 2, 1, 0, 1, 1, x'5b5d', NULL),
        ('leased', 'test.task', 'default', 1, 5, 2, 1, 0, 1, 1, x'5b5d', 7)""",
    """INSERT INTO taskharbor_lease (token, worker, expires_at, duration, jobs, remaining)
        VALUES (7, 'worker', 4000000000000000, 30000000, '["leased"]', 1)""",
    """INSERT INTO taskharbor_history (id, task, queue, options, priority, run_at, enqueued_at, finished_at, attempt,
        deliveries, crashes, guarded, stray, settled, payload, state, expires_at, result, result_codec) VALUES
        ('done', 'test.task', 'default', 1, 5, 1, 1, 2, 1, 1, 0, 0, 0, 6, x'5b5d', 'succeeded', 4000000000000000,
        x'31', 'json')""",
    """INSERT INTO taskharbor_dead (id, task, queue, options, priority, run_at, enqueued_at, finished_at, attempt,
        deliveries, crashes, guarded, stray, payload, reason)
        VALUES ('dead', 'test.task', 'default', 1, 5, 1, 1, 2, 5, 5, 0, 0, 0, x'5b5d', 'attempts used up')""",
)


@pytest.fixture
def version_1(path: Path) -> Path:
    """Return a file as the first release wrote it: a job in each of its tables, one of them leased."""
    driver_on(path).migrate(1)
    for statement in _VERSION_1:
        ask_file(path, statement)
    return path


def test_jobs_of_a_file_from_before_flows_are_all_there_and_go_on(version_1: Path) -> None:
    async def work(bench: Bench) -> tuple[list[JobState], list[Settled], RequeueStatus, list[str]]:
        records = await bench.get("ready", "leased", "done", "dead")
        states = [record.state for record in records if record is not None]
        assert [(None, 0, ())] * 4 == [(r.flow, r.waits, r.edges) for r in records if r is not None]
        settled = await bench.answers(
            Settlement("leased", 7, SettleKind.SUCCEED, b"1", "json", charge=True),
            Settlement("done", 6, SettleKind.SUCCEED, b"1", "json", charge=True),
        )
        (requeued,) = await bench.requeue("dead")
        return states, settled, requeued, sorted(await bench.take_ids())

    states, settled, requeued, taken = with_bench(version_1, work)

    assert [JobState.READY, JobState.RUNNING, JobState.SUCCEEDED, JobState.DEAD] == states
    assert [SettleStatus.SETTLED, SettleStatus.ALREADY] == [answer.status for answer in settled]
    assert RequeueStatus.REQUEUED == requeued
    assert ["dead", "ready"] == taken


def test_a_file_from_before_flows_takes_flows(version_1: Path) -> None:
    async def work(bench: Bench) -> FlowState:
        flow = await bench.enqueue_flow(chord(3))
        for _ in range(2):
            await bench.settle(*map(success, await bench.take()))
        return await bench.flow_state(flow.id)

    assert FlowState.SUCCEEDED == with_bench(version_1, work)


def test_the_second_migration_is_run_alone_on_a_file_that_has_the_first(version_1: Path) -> None:
    before = ask_file(version_1, "SELECT id, payload FROM taskharbor_job ORDER BY id")

    run = driver_on(version_1).migrate(2)

    assert [2] == [migration.number for migration in run]
    assert before == ask_file(version_1, "SELECT id, payload FROM taskharbor_job ORDER BY id")
    assert [("ok",)] == ask_file(version_1, "PRAGMA integrity_check")


# --- rows of flows


def test_a_flow_is_kept_as_long_as_its_last_step(path: Path) -> None:
    async def work(bench: Bench) -> list[str]:
        members = [new_job(retain=DAY) for _ in range(2)]
        flow = await bench.enqueue_flow(chord(members, new_job(retain=HOUR)))
        kept = await bench.enqueue_flow(chord([new_job()], new_job(retain=3 * HOUR)))
        await bench.cancel_flows(flow.id, kept.id)
        bench.advance(2 * HOUR)
        await bench.store.history_prune(HistoryPrune(now=bench.now))
        assert None not in await bench.get(*(job.id for job in members))
        return [*await bench.find_flows(), kept.id]

    left, kept = with_bench(path, work)

    assert kept == left


def test_the_key_of_a_step_that_is_cancelled_with_its_flow_is_free_after_its_time(path: Path) -> None:
    async def work(bench: Bench) -> list[EnqueueStatus]:
        flow = await bench.enqueue_flow(chord([new_job(key="k", key_ttl=HOUR)]))
        await bench.cancel_flows(flow.id)
        again = [new_job(key="k"), new_job(key="k")]
        (before,) = await bench.enqueue_all(again[0])
        bench.advance(2 * HOUR)
        (after,) = await bench.enqueue_all(again[1])
        return [before.status, after.status]

    assert [EnqueueStatus.EXISTING, EnqueueStatus.CREATED] == with_bench(path, work)


# --- large flows


def test_a_chord_of_ten_thousand_members_ends_with_all_results_in_order(path: Path) -> None:
    async def work(bench: Bench) -> tuple[list[int], Delivery, FlowState]:
        flow = await bench.enqueue_flow(chord(MEMBERS))
        waits: list[int] = []
        for _ in range(MEMBERS // BATCH):
            taken = await bench.take(BATCH)
            random.Random(1).shuffle(taken)
            await bench.settle(*(success(one, one.id.encode()) for one in taken))
            waits.append((await bench.record(flow.id)).waits)
        callback = await bench.take_one()
        await bench.settle(success(callback))
        return waits, callback, await bench.flow_state(flow.id)

    waits, callback, state = with_bench(path, work)

    assert list(range(MEMBERS - BATCH, -1, -BATCH)) == waits
    assert callback.step is not None
    values = [one.value or b"" for one in callback.step.inputs]
    assert list(range(MEMBERS)) == [one.index for one in callback.step.inputs]
    assert MEMBERS == len(values)
    assert sorted(values) == values  # ids were given out in the order of the members
    assert FlowState.SUCCEEDED == state
    assert [(0,)] == ask_file(path, "SELECT count(*) FROM taskharbor_input")


def test_a_producer_needs_no_more_memory_for_a_larger_flow(path: Path) -> None:
    async def peak(bench: Bench, members: int) -> int:
        steps = Endless(members)
        tracemalloc.start()
        try:
            await bench.enqueue_flow(NewFlow(id=steps.flow, steps=steps))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    async def work(bench: Bench) -> tuple[int, int]:
        await peak(bench, 4_000)  # caches fill once
        return await peak(bench, 4_000), await peak(bench, 16_000)

    small, large = with_bench(path, work)

    assert large < small * 1.5


def test_results_of_any_size_come_in_as_they_were(path: Path) -> None:
    sizes = [0, 1, INLINE_BYTES, INLINE_BYTES + 1, 0, 3 << 20, BATCH_BYTES + 1, INLINE_BYTES - 1, 7]
    values = [random.Random(size).randbytes(size) for size in sizes]
    # More small ones than are read at once, and one that was not kept.
    results = [*values, None, *(bytes([number]) * 60_000 for number in range(256)), b"last", b"last"]

    async def work(bench: Bench) -> Delivery:
        await bench.enqueue_flow(chord(len(results)))
        taken = sorted(await bench.take(), key=lambda one: one.id)
        await bench.settle(*(success(one, result) for one, result in zip(taken, results, strict=True)))
        return await bench.take_one()

    step = with_bench(path, work).step

    assert step is not None
    assert results == [one.value for one in step.inputs]


# --- what it costs

_FILL_FLOWS = (
    # Waiting steps among other jobs, more than any verb should look at.
    """INSERT INTO taskharbor_job (id, task, queue, options, priority, lane, due, guarded, run_at, enqueued_at, payload,
        flow, step, waits) SELECT printf('04000000-0000-7000-8000-%012d', i), 'task-' || (i % 50),
        CASE WHEN i % 3 THEN 'default' ELSE 'queue-' || (i % 20) END, 1, i % 10, 3, i, 0, i, i, x'00',
        printf('04000000-0000-7000-8000-%012d', i / 10), '[[],[],[["value",0,false,false]],null]', 1 FROM n""",
    """INSERT INTO taskharbor_input (job_id, slot, idx, codec, value, failed)
        SELECT printf('04000000-0000-7000-8000-%012d', i), 0, 0, 'json', x'00', 0 FROM n""",
    """INSERT INTO taskharbor_flow (id, name, meta, state, reason, enqueued_at, retain, absorbing, expires_at)
        SELECT printf('04000000-0000-7000-8000-%012d', i), '', '{}',
        CASE WHEN i % 2 THEN 'running' ELSE 'succeeded' END, '', i, 1, 0,
        CASE WHEN i % 2 THEN NULL ELSE 4000000000000000 + i END FROM n""",
    """INSERT INTO taskharbor_history (id, task, queue, options, priority, run_at, enqueued_at, finished_at, attempt,
        deliveries, crashes, guarded, stray, payload, state, expires_at, flow, step)
        SELECT printf('05000000-0000-7000-8000-%012d', i), 'task-' || (i % 50), 'default', 1, 5, i, i, i, 1, 1, 0,
        0, 0, x'00', 'succeeded', 4000000000000000 + i, printf('05000000-0000-7000-8000-%012d', i / 10),
        '[[],[],[],null]' FROM n""",
    """INSERT INTO taskharbor_dead (id, task, queue, options, priority, run_at, enqueued_at, finished_at, attempt,
        deliveries, crashes, guarded, stray, payload, flow, step)
        SELECT printf('06000000-0000-7000-8000-%012d', i), 'task-' || (i % 50), 'default', 1, 5, i, i, i, 1, 1, 0,
        0, 0, x'00', printf('06000000-0000-7000-8000-%012d', i / 10), '[[],[],[],null]' FROM n""",
)
_NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?) "


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a small store, and a large one before and after ANALYZE."""
    folder = tmp_path_factory.mktemp("stores")
    made: dict[str, Path] = {}
    for name, count in (("small", SMALL), ("large", LARGE)):
        made[name] = filled(folder / f"{name}.db", count)
        with closing(sqlite3.connect(made[name])) as connection, connection:
            for statement in _FILL_FLOWS:
                connection.execute(_NUMBERS + statement, (count,))
    made["analyzed"] = folder / "analyzed.db"
    shutil.copy(made["large"], made["analyzed"])
    ask_file(made["analyzed"], "ANALYZE")
    return made


# One that costs the same wherever it is: its jobs go before all others, from a queue of their own.
def ahead(flow: NewFlow) -> NewFlow:
    steps = [msgspec.structs.replace(job, queue="ahead", priority=0) for job in flow.steps]
    return msgspec.structs.replace(flow, steps=steps)


async def begun(bench: Bench, flow: NewFlow) -> list[Delivery]:
    """Store a flow, and take those of its steps that wait for nothing."""
    await bench.enqueue_flow(ahead(flow))
    return await bench.take(20, queues=["ahead"])


async def enqueue(bench: Bench, watch: Watch) -> None:
    watch.begin()
    await bench.enqueue_flow(chord(25))


async def reserve_past_those_that_wait(bench: Bench, watch: Watch) -> None:
    tasks = frozenset(f"task-{number}" for number in range(30))
    watch.begin()
    assert 20 == len(await bench.take(20, queues=["default", "queue-3"], tasks=tasks))


async def reserve_with_inputs(bench: Bench, watch: Watch) -> None:
    await bench.settle(*map(success, await begun(bench, chord(20))))
    watch.begin()
    (callback,) = await bench.take(20, queues=["ahead"])
    assert 20 == len(values_of(callback))


async def advance(bench: Bench, watch: Watch) -> None:
    taken = await begun(bench, chord(20))
    watch.begin()
    await bench.settle(*map(success, taken[:10]))
    await bench.settle(*map(success, taken[10:]))


async def advance_to_the_end(bench: Bench, watch: Watch) -> None:
    taken = await begun(bench, chord(1, tolerant=True))
    watch.begin()
    await bench.settle(*map(success, taken))
    await bench.settle(*map(success, await bench.take(1, queues=["ahead"])))


async def fail(bench: Bench, watch: Watch) -> None:
    taken = await begun(bench, chord(20, on_failure=failure_template()))
    watch.begin()
    await bench.settle(*map(burial, taken[:10]))


async def fail_and_be_absorbed(bench: Bench, watch: Watch) -> None:
    taken = await begun(bench, chord(20, tolerant=True))
    watch.begin()
    await bench.settle(*map(burial, taken))


async def grow(bench: Bench, watch: Watch) -> None:
    flow = chord(2)
    taken = await begun(bench, flow)
    more = new_step(new_job(), Step(flow=flow.id, edges=(Edge(flow.id, 0, 2),)))
    sequel = Sequel(jobs=(new_job(),), flows=(chord(2),), steps=(more,), waits={flow.id: 1})
    watch.begin()
    await bench.settle(success(taken[0], sequel=sequel), success(taken[1]))


async def reclaim(bench: Bench, watch: Watch) -> None:
    taken = await begun(bench, chord(3))
    await bench.cancel(taken[0].id)
    bench.advance(HOUR)
    watch.begin()
    assert 3 == len(await bench.reclaim())


async def cancel_one(bench: Bench, watch: Watch) -> None:
    flow = await bench.enqueue_flow(ahead(chord(5)))
    watch.begin()
    await bench.cancel(ids_of(flow)[0])


async def cancel_whole(bench: Bench, watch: Watch) -> None:
    flow = chord(5)
    await begun(bench, flow)
    watch.begin()
    assert [CancelStatus.REQUESTED] == await bench.cancel_flows(flow.id)


async def requeue(bench: Bench, watch: Watch) -> None:
    taken = await begun(bench, chord(5))
    await bench.settle(*map(burial, taken))
    watch.begin()
    assert [RequeueStatus.REQUEUED] * 5 == await bench.requeue(*(one.id for one in taken))


async def delete(bench: Bench, watch: Watch) -> None:
    watch.begin()
    await bench.delete(*(f"0{table}000000-0000-7000-8000-{3:012}" for table in (4, 5, 6)))


async def look(bench: Bench, watch: Watch) -> None:
    flows = [f"0{table}000000-0000-7000-8000-{3:012}" for table in (4, 5, 6)]
    watch.begin()
    for flow in flows:
        await bench.store.flow_get(FlowGet(ids=[flow], now=bench.now))
        assert 10 == len(await bench.store.job_find(JobFind(flow=flow, now=bench.now)))


async def prune(bench: Bench, watch: Watch) -> None:
    await bench.cancel_flows((await bench.enqueue_flow(ahead(chord(3)))).id)
    bench.advance(365 * DAY)
    watch.begin()
    assert 4 == (await bench.store.history_prune(HistoryPrune(limit=5, now=bench.now))).jobs


async def look_for_flows(bench: Bench, watch: Watch) -> None:
    watch.begin()
    assert 20 == len(await bench.store.flow_find(FlowFind(limit=20, newest_first=True, now=bench.now)))


VERBS: list[Verb] = [
    enqueue,
    reserve_past_those_that_wait,
    reserve_with_inputs,
    advance,
    advance_to_the_end,
    fail,
    fail_and_be_absorbed,
    grow,
    reclaim,
    cancel_one,
    cancel_whole,
    requeue,
    delete,
    look,
    prune,
]


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.__name__)
@pytest.mark.parametrize("name", ["large", "analyzed"])
def test_no_statement_of_a_flow_scans_a_large_table_or_sorts_one(
    verb: Verb, name: str, stores: dict[str, Path], path: Path
) -> None:
    shutil.copy(stores[name], path)

    bad = [
        (step, statement[:300])
        for statement in watched(path, verb).statements
        for step in plan(path, statement)
        if re.match(r"SCAN (taskharbor_(job|history|dead|key|input|flow)|[ijk]\b)", step)
        # Leases are few; and what is counted by state is one flow's.
        or ("TEMP B-TREE" in step and not re.search("taskharbor_lease|GROUP BY", statement))
    ]

    assert [] == bad


@pytest.mark.parametrize("verb", [*VERBS, look_for_flows], ids=lambda verb: verb.__name__)
@pytest.mark.parametrize("name", ["large", "analyzed"])
def test_the_work_of_a_flows_verb_does_not_grow_with_the_store(
    verb: Verb, name: str, stores: dict[str, Path], tmp_path: Path
) -> None:
    small, large = (
        watched(Path(shutil.copy(stores[each], tmp_path / f"{each}.db")), verb) for each in ("small", name)
    )

    assert len(large.statements) <= len(small.statements)
    # Counted in steps of SQLite's virtual machine, so that it depends on no machine's speed.
    assert large.steps <= small.steps * 1.5 + 500


@pytest.mark.parametrize("end", [success, burial], ids=["success", "burial"])
def test_an_advance_costs_the_same_whatever_the_size_of_the_flow(
    end: Callable[[Delivery], Settlement], tmp_path: Path
) -> None:
    def settling(members: int) -> Watch:
        async def work(bench: Bench, watch: Watch) -> None:
            await bench.enqueue_flow(chord(members, on_failure=failure_template()))
            taken = await bench.take(10)
            watch.begin()
            await bench.settle(*map(end, taken))

        return watched(tmp_path / f"{members}.db", work)

    small, large = settling(20), settling(5_000)

    assert len(large.statements) == len(small.statements)
    assert large.steps <= small.steps * 1.2


def test_jobs_of_no_flow_are_settled_without_a_look_at_flows(path: Path) -> None:
    async def work(bench: Bench, watch: Watch) -> None:
        await bench.enqueue_flow(chord(3))  # others are there
        await bench.enqueue_all(*(new_job(queue="plain") for _ in range(10)))
        watch.begin()
        await bench.settle(*map(success, await bench.take(queues=["plain"])))

    statements = watched(path, work).statements

    assert [] == [each for each in statements if re.search(r"taskharbor_(flow|input)|step ->", each)]
