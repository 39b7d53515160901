"""Tables of the release before flows, with jobs in them: nothing of these changes, and flows run beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Generator

import psycopg
import pytest

from taskharbor.driver import SchemaVersion
from taskharbor.drivers.postgres import PostgresDriver, schema
from taskharbor.drivers.postgres.routine import quoted
from taskharbor.drivers.postgres.rows import OptionsBook
from taskharbor.flow import FlowState
from taskharbor.job import JobState
from taskharbor_conformance.bench import Bench, new_job, success
from taskharbor_conformance.graphs import chain, ids_of
from tests.support.postgres import new_schema_name, server

OPTIONS = OptionsBook().text(new_job())
AGO = "now() - interval '1 hour'"
# As the release before has written them.
COLUMNS = "id, task, queue, options, priority, run_at, enqueued_at, retain, payload, deliveries, attempt"
VALUES = f"""%s::uuid, 'mail.send', 'default', '{OPTIONS}', 5, {AGO}, {AGO}, 86400000000, '\\x5b5d', 1, 1"""
LIVE = f"INSERT INTO job ({COLUMNS}, due, lane, token) VALUES ({VALUES}, {AGO}, 2, %s)"
LEASED = """INSERT INTO lease (token, worker, expires_at, duration, jobs, remaining)
    VALUES (%s, 'worker-0', now() + interval '1 day', 1, ARRAY[%s::uuid], 1)"""
ENDED = f"""INSERT INTO history ({COLUMNS}, slot, finished_at, expires_at, state)
    VALUES ({VALUES}, -1, now(), 'infinity', 'dead')"""
KEPT = f"{COLUMNS}, due, lane, token, errors, xmin, ctid"
READY, RUNNING, DEAD = (f"01000000-0000-7000-8000-00000000000{number}" for number in range(3))
TOKEN = 77


@pytest.fixture
def name() -> Generator[str]:
    """Give a schema of the release before, with a job that is ready, one that runs, and a dead one."""
    name = new_schema_name()
    PostgresDriver(url(name)).migrate(1)
    do(name, LIVE, READY, None)
    do(name, LIVE, RUNNING, TOKEN)
    do(name, LEASED, TOKEN, RUNNING)
    do(name, ENDED, DEAD)
    yield name
    do(name, f"DROP SCHEMA {quoted(name)} CASCADE")


def url(name: str) -> str:
    return f"{server().conninfo}&schema={name}"


def do(name: str, statement: str, *params: object) -> list[tuple[object, ...]]:
    with psycopg.connect(server().conninfo, autocommit=True) as connection:
        connection.execute(f"SET search_path = {quoted(name)}".encode())
        done = connection.execute(statement.encode(), params or None)
        return done.fetchall() if done.description else []


def test_no_row_is_written_anew(name: str) -> None:
    before = do(name, f"SELECT {KEPT} FROM job ORDER BY id")

    run = PostgresDriver(url(name)).migrate()

    assert list(range(2, schema.WANTED + 1)) == [migration.number for migration in run]
    assert SchemaVersion(schema.WANTED, schema.WANTED) == PostgresDriver(url(name)).schema_version()
    assert before == do(name, f"SELECT {KEPT} FROM job ORDER BY id")


def test_jobs_of_the_release_before_go_on_and_flows_beside_them(name: str) -> None:
    driver = PostgresDriver(url(name))
    driver.migrate()

    async def work() -> None:
        async with Bench(driver, lambda: driver) as bench:
            (ready,) = await bench.take()
            assert (READY, None) == (ready.id, ready.step)
            running = success(ready)
            await bench.settle(running)
            await bench.settle(type(running)(RUNNING, TOKEN, running.kind, b"1", "json", charge=True))
            await bench.requeue(DEAD)
            flow = await bench.enqueue_flow(chain(new_job(), new_job()))
            await bench.settle(*map(success, await bench.take()))
            await bench.finish(flow.id)
            states = await bench.states(READY, RUNNING, DEAD, *ids_of(flow))
            assert [JobState.SUCCEEDED] * 5 == states
            assert FlowState.SUCCEEDED is await bench.flow_state(flow.id)
            record = await bench.record(DEAD)
            assert (None, 0, ()) == (record.flow, record.waits, record.edges)

    try:
        asyncio.run(work())
    finally:
        driver.close()
