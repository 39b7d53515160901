"""What flows cost in SQLite: the same whatever the store holds, and however large the flow is."""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from taskharbor.driver import CancelStatus, FlowFind, FlowGet, HistoryPrune, JobFind, RequeueStatus
from taskharbor.flow import NewFlow, Sequel
from taskharbor.job import Delivery
from taskharbor.settlement import Settlement
from taskharbor.step import Edge, Step
from taskharbor_conformance.bench import DAY, HOUR, Bench, burial, new_job, success
from taskharbor_conformance.graphs import chord, failure_template, ids_of, new_step, values_of
from tests.support.sqlite import ask_file
from tests.test_sqlite_plans import LARGE, SMALL, Verb, Watch, filled, plan, watched


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


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
