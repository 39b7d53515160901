"""How PostgreSQL carries out what flows add: by which index, and how much it reads for it, whatever it believes."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack

import pytest

from taskharbor.driver import FlowCancel, FlowGet, JobEnqueue, JobFind, JobRequeue, JobSettle
from taskharbor.drivers.postgres.control import job_requeue
from taskharbor.drivers.postgres.enqueue import job_enqueue
from taskharbor.drivers.postgres.flow import flow_cancel, flow_get
from taskharbor.drivers.postgres.look import job_find
from taskharbor.drivers.postgres.routine import quoted
from taskharbor.drivers.postgres.settle import job_settle, job_settle_together
from taskharbor.flow import NewFlow
from taskharbor.job import Delivery
from taskharbor_conformance.bench import burial, new_job, success
from taskharbor_conformance.graphs import chain, chord, failure_template
from tests.test_postgres_plans import BATCH, OPTIONS, SMALL, STATISTICS, Explainer, Plan, Store, check


def _uuid(kind: int, number: str) -> str:
    return f"('0{kind}000000-0000-7000-8000-' || lpad(({number})::text, 12, '0'))::uuid"


# Flows of ten steps: five have ended, one of those is a dead letter; four are ready, and the last one waits.
_FILL = (
    f"""INSERT INTO flow (id, name, state, retain, absorbing, enqueued_at, expires_at)
        SELECT {_uuid(3, "i * 10 + 9")}, 'flow', 'failed', 86400000000, false, clock_timestamp(), NULL
        FROM generate_series(0, {SMALL // 10} - 1) i""",
    f"""INSERT INTO job (id, task, queue, options, priority, lane, due, run_at, enqueued_at, retain, payload, flow,
        waits, edges, holes)
        SELECT {_uuid(3, "i")}, 'mail.send', 'steps', '{OPTIONS}', 5, CASE WHEN i % 10 = 9 THEN 3 ELSE 2 END,
        clock_timestamp(), clock_timestamp(), clock_timestamp(), 86400000000, '\\x5b5d', {_uuid(3, "i / 10 * 10 + 9")},
        CASE WHEN i % 10 = 9 THEN 5 ELSE 0 END, NULL, CASE WHEN i % 10 = 9 THEN '[["values",0,true,false]]'::json END
        FROM generate_series(0, {SMALL} - 1) i WHERE i % 10 > 4""",
    f"""INSERT INTO history (slot, id, task, queue, options, priority, run_at, enqueued_at, retain, attempt, deliveries,
        payload, finished_at, expires_at, state, flow, waits)
        SELECT CASE WHEN i % 10 = 0 THEN -1 ELSE i % 20 END, {_uuid(3, "i")}, 'mail.send', 'default', '{OPTIONS}', 5,
        clock_timestamp(), clock_timestamp(), 86400000000, 1, 1, '\\x5b5d', clock_timestamp(),
        clock_timestamp() + interval '7 days', CASE WHEN i % 10 = 0 THEN 'dead' ELSE 'succeeded' END,
        {_uuid(3, "i / 10 * 10 + 9")}, 0 FROM generate_series(0, {SMALL} - 1) i WHERE i % 10 <= 4""",
    f"""INSERT INTO input (job_id, slot, idx, codec, value)
        SELECT {_uuid(3, "i / 10 * 10 + 9")}, 0, i % 10, 'json', '\\x5b5d'
        FROM generate_series(0, {SMALL} - 1) i WHERE i % 10 BETWEEN 1 AND 4""",
)
_FORGET_FLOWS = """DELETE FROM pg_statistic WHERE starelid IN
    (SELECT oid FROM pg_class WHERE relnamespace = '{}'::regnamespace AND relname IN ('input', 'flow'));
    UPDATE pg_class SET reltuples = 2 WHERE relnamespace = '{}'::regnamespace AND relname IN ('input', 'flow')"""
"""As of a moment when no flow was under way."""


def fill(store: Store) -> None:
    for statement in _FILL:
        store.schema.ask(statement.replace("%", "%%"), ())


@pytest.fixture(scope="module")
def store() -> Generator[Store]:
    with ExitStack() as stack:
        store = Store(SMALL, stack)
        fill(store)
        yield store


@pytest.fixture(scope="module", params=list(STATISTICS))
def known(request: pytest.FixtureRequest, store: Store) -> Store:
    """Return the store with something that the planner knows of it."""
    for statement in STATISTICS[request.param]:
        store.schema.ask(statement.replace("{}", quoted(store.schema.name)))
    if request.param == "statistics of a moment without jobs":
        store.schema.ask(_FORGET_FLOWS.replace("{}", quoted(store.schema.name)))
    return store


@pytest.fixture
def worker(known: Store) -> Generator[Explainer]:
    """Return somebody in a transaction that is rolled back at the end."""
    explainer = known.explainer()
    explainer.begin()
    yield explainer
    explainer.roll_back()
    explainer.connection.close()


def check_flow(plan: Plan, *, batch: int = BATCH, rows: float = 8, pages: float = 120) -> None:
    """Check as for any statement, and that the tables of flows are entered by their indexes, too."""
    check(plan, batch=batch, rows=rows, pages=pages)
    for table in ("input", "flow"):
        for node in plan.on(table):
            read = node["Actual Loops"] * (node["Actual Rows"] + node.get("Rows Removed by Filter", 0))
            assert node["Node Type"] != "Seq Scan" or read == 0, plan
            assert node["Node Type"] == "ModifyTable" or read <= rows * batch + 50, plan


def put(worker: Explainer, *flows: NewFlow) -> None:
    worker.verb(job_enqueue, JobEnqueue(jobs=(), flows=flows))


def taken(worker: Explainer, count: int = BATCH) -> list[Delivery]:
    deliveries = list(worker.reserve(count, queues={"mine": count}).deliveries)
    assert len(deliveries) == count
    return deliveries


def members(worker: Explainer) -> list[Delivery]:
    """Reserve the members of a chord."""
    put(worker, chord([new_job(queue="mine") for _ in range(BATCH)], new_job(queue="mine")))
    return taken(worker)


def chained(worker: Explainer, count: int = BATCH) -> list[Delivery]:
    """Reserve the first steps of many chains."""
    put(worker, *(chain(*(new_job(queue="mine") for _ in range(3))) for _ in range(count)))
    return taken(worker, count)


def settled(worker: Explainer, deliveries: list[Delivery]) -> Plan:
    """Settle successes, and return the plan of the one statement that this is."""
    with worker.explaining() as plans:
        worker.verb(job_settle, JobSettle(settlements=[success(delivery) for delivery in deliveries]))
    (plan,) = plans
    return plan


def test_members_of_one_chord_are_settled_in_proportion(worker: Explainer) -> None:
    plan = settled(worker, members(worker))

    check_flow(plan)
    assert plan.indexes("job") == {"job_pkey"}
    assert plan.indexes("input") <= {"input_pkey"}


def test_a_chords_callback_is_settled_in_proportion_to_its_inputs(worker: Explainer) -> None:
    settled(worker, members(worker))
    with worker.explaining() as plans:
        callbacks = taken(worker, 1)
    plan = settled(worker, callbacks)

    check_flow(plans[-1], pages=40)
    assert "taskharbor" not in plans[-1].sql or "input" in plans[-1].sql
    check_flow(plan)


def test_steps_of_many_chains_are_settled_in_proportion(worker: Explainer) -> None:
    chained(worker)
    worker.roll_back()
    worker.begin()
    first = chained(worker)
    plan = settled(worker, first)
    second = settled(worker, taken(worker))
    last = settled(worker, taken(worker))

    for one in (plan, second, last):
        check_flow(one)
        assert one.indexes("job") <= {"job_pkey"}
        assert one.indexes("flow") <= {"flow_pkey"}


def test_steps_that_fall_are_found_by_their_ids(worker: Explainer) -> None:
    deliveries = members(worker)
    with worker.explaining() as plans:
        request = JobSettle(settlements=[burial(delivery) for delivery in deliveries])
        worker.verb(job_settle_together, request)

    for plan in plans:
        check_flow(plan)


def test_failures_that_are_absorbed_go_on_in_proportion(worker: Explainer) -> None:
    put(worker, chord([new_job(queue="mine") for _ in range(BATCH)], tolerant=True))
    deliveries = taken(worker)
    with worker.explaining() as plans:
        request = JobSettle(settlements=[burial(delivery) for delivery in deliveries])
        worker.verb(job_settle_together, request)

    for plan in plans:
        check_flow(plan)


def test_a_flow_is_cancelled_by_its_own_index(worker: Explainer) -> None:
    flow = "03000000-0000-7000-8000-000000000019"
    with worker.explaining() as plans:
        worker.verb(flow_cancel, FlowCancel(ids=[flow]))

    for plan in plans:
        check_flow(plan, batch=10)


def test_a_flow_is_looked_up_by_its_own_index(worker: Explainer) -> None:
    flow = "03000000-0000-7000-8000-000000000019"
    with worker.explaining() as plans:
        (found,) = worker.verb(flow_get, FlowGet(ids=[flow]))
        steps = worker.verb(job_find, JobFind(flow=flow, limit=1000))

    assert found is not None
    assert (10, 10) == (sum(found.steps.values()), len(steps))
    for plan in plans:
        check_flow(plan, batch=10)


def test_a_requeue_resumes_a_flow_by_its_own_index(worker: Explainer) -> None:
    with worker.explaining() as plans:
        worker.verb(job_requeue, JobRequeue(ids=["03000000-0000-7000-8000-000000000010"]))

    for plan in plans:
        check_flow(plan, batch=10)


def test_an_enqueue_of_flows_reads_nothing_of_others(worker: Explainer) -> None:
    put(worker, chain())
    with worker.explaining() as plans:
        put(worker, *(chain(new_job(key=f"f-{number}"), new_job()) for number in range(BATCH)))

    for plan in plans:
        check_flow(plan, batch=2 * BATCH)


def verbs(worker: Explainer) -> None:
    """Carry out what is hot."""
    settled(worker, members(worker))
    settled(worker, taken(worker, 1))
    settled(worker, chained(worker))
    deliveries = taken(worker)
    request = JobSettle(settlements=[burial(delivery) for delivery in deliveries])
    worker.verb(job_settle_together, request)
    put(worker, chord([new_job(queue="mine")], on_failure=failure_template("mine")))


def test_plans_made_while_the_tables_are_empty_are_good_when_they_are_full() -> None:
    with ExitStack() as stack:
        store = Store(0, stack)
        worker = store.explainer()
        worker.begin()
        verbs(worker)
        worker.roll_back()
        store.fill(0, SMALL)
        fill(store)
        worker.begin()
        for plan in (
            settled(worker, members(worker)),
            settled(worker, taken(worker, 1)),
            settled(worker, chained(worker)),
            settled(worker, taken(worker)),
        ):
            check_flow(plan)
        worker.roll_back()
