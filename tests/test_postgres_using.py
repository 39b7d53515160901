"""`harbor.using(connection)` on PostgreSQL: the caller's rows and the jobs are committed together, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg.rows import TupleRow

from taskharbor import DuplicateJob, Harbor, JobNotFound, JobState, KeyConflict, Signature, task
from taskharbor.drivers.postgres import PostgresDriver
from taskharbor.drivers.postgres.bell.notice import ANYBODY
from tests.support.postgres_place import SharedSchema, shared_schema
from tests.support.postgres_using import (
    KINDS,
    Caller,
    OfDjango,
    OfPsycopg,
    OfPsycopgInAutocommit,
    OfSqlalchemyAsyncSessionOverAsyncpg,
    calling,
    jobs,
    note,
    orders,
    registry,
    schema_with_orders,
)


@task(registry=registry, queue="other")
def elsewhere(number: int) -> int:
    return number


@pytest.fixture
def schema() -> SharedSchema:
    """A place for jobs, with a table of the application's own beside them."""
    return schema_with_orders()


@pytest.fixture
def harbor(schema: SharedSchema) -> Iterator[Harbor]:
    with Harbor(PostgresDriver(schema.place), registry=registry) as current:
        yield current


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def anybody(request: pytest.FixtureRequest, schema: SharedSchema) -> Iterator[Caller]:
    with calling(request.param, schema.conninfo) as made:
        yield made


# One of each way to send statements, for what does not depend on more.
@pytest.fixture(params=[OfPsycopg, OfSqlalchemyAsyncSessionOverAsyncpg, OfDjango], ids=lambda kind: kind.name)
def caller(request: pytest.FixtureRequest, schema: SharedSchema) -> Iterator[Caller]:
    with calling(request.param, schema.conninfo) as made:
        yield made


def test_rows_and_jobs_are_committed_together(harbor: Harbor, schema: SharedSchema, anybody: Caller) -> None:
    with harbor.using(anybody.given):
        anybody.begin()
        anybody.order(schema, 1)
        (handle,) = anybody.enqueue(harbor, note.s(1))
        anybody.enqueue(harbor, note.s(2), note.s(3))

        assert ([], []) == (orders(schema), jobs(harbor))
        with pytest.raises(JobNotFound):
            handle.status()
        anybody.commit()

    assert ([1], [1, 2, 3]) == (orders(schema), jobs(harbor))
    assert handle.status().state is JobState.READY


def test_rows_and_jobs_are_rolled_back_together(
    harbor: Harbor, schema: SharedSchema, anybody: Caller
) -> None:
    anybody.begin()
    with harbor.using(anybody.given):
        anybody.order(schema, 1)
        anybody.enqueue(harbor, note.s(1))
    anybody.rollback()

    assert ([], []) == (orders(schema), jobs(harbor))


def test_a_job_may_come_before_the_first_row(harbor: Harbor, schema: SharedSchema, anybody: Caller) -> None:
    with harbor.using(anybody.given):
        anybody.begin()
        anybody.enqueue(harbor, note.s(1))
        anybody.order(schema, 1)
        unseen = orders(schema), jobs(harbor)
        anybody.commit()

        anybody.begin()
        anybody.enqueue(harbor, note.s(2))
        anybody.order(schema, 2)
        anybody.rollback()

    assert ([], []) == unseen
    assert ([1], [1]) == (orders(schema), jobs(harbor))


def test_what_a_savepoint_takes_back_is_gone_with_its_jobs(
    harbor: Harbor, schema: SharedSchema, caller: Caller
) -> None:
    with harbor.using(caller.given):
        caller.begin()
        caller.order(schema, 1)
        caller.enqueue(harbor, note.s(1))
        caller.savepoint()
        caller.order(schema, 2)
        caller.enqueue(harbor, note.s(2))
        caller.rollback_to_savepoint()
        caller.order(schema, 3)
        caller.enqueue(harbor, note.s(3))
        caller.commit()

    assert ([1, 3], [1, 3]) == (orders(schema), jobs(harbor))


ONE_WITH_KEY = note.options(key="k", on_conflict="raise")


@pytest.mark.parametrize(
    ("error", "call"),
    [(DuplicateJob, lambda: ONE_WITH_KEY.s(1)), (KeyConflict, lambda: ONE_WITH_KEY.s(2))],
    ids=["duplicate", "conflict"],
)
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "among-others"])
def test_a_refused_enqueue_leaves_the_callers_rows_and_the_jobs_before_it(
    harbor: Harbor,
    schema: SharedSchema,
    caller: Caller,
    error: type[Exception],
    call: Callable[[], Signature[int]],
    alone: bool,
) -> None:
    with harbor.using(caller.given):
        caller.begin()
        caller.order(schema, 1)
        caller.enqueue(harbor, ONE_WITH_KEY.s(1))
        with pytest.raises(error):
            caller.enqueue(harbor, *([] if alone else [note.s(7)]), call())
        caller.order(schema, 2)
        caller.commit()

    assert ([1, 2], [1]) == (orders(schema), jobs(harbor))


def test_a_key_taken_in_the_same_transaction_returns_the_job_that_has_it(
    harbor: Harbor, caller: Caller
) -> None:
    bound = note.options(key="k")
    with harbor.using(caller.given):
        caller.begin()
        (first,) = caller.enqueue(harbor, bound.s(1))
        (again,) = caller.enqueue(harbor, bound.s(1))
        caller.commit()

    assert (True, False, first.id) == (first.created, again.created, again.id)
    assert [1] == jobs(harbor)


# --- wake-ups


class Ear:
    """Hears what the server tells on the jobs' channel, and knows when it has heard all."""

    def __init__(self, schema: SharedSchema) -> None:
        self._schema = schema
        self._channel = f"taskharbor.{schema.name}"
        self._connection: psycopg.Connection[TupleRow] = schema.connect()
        self._connection.execute(f'LISTEN "{self._channel}"'.encode())
        self._marks = 0

    def heard(self) -> list[list[str]]:
        """Return the queues of each notice that came of an enqueue in a block, since the last time and until now."""
        self._marks += 1
        mark = f"mark {self._marks}"
        self._schema.ask("SELECT pg_notify(%s, %s)", (self._channel, mark))
        told: list[list[str]] = []
        for notice in self._connection.notifies(timeout=20):
            if notice.payload == mark:
                return told
            sender, queues, _ = json.loads(notice.payload)
            if sender == ANYBODY:  # else it was rung by some harbor
                told.append(queues)
        raise AssertionError("the mark was never heard")

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def ear(schema: SharedSchema) -> Iterator[Ear]:
    made = Ear(schema)
    yield made
    made.close()


def test_the_server_wakes_workers_at_the_commit_and_not_before(
    harbor: Harbor, anybody: Caller, ear: Ear
) -> None:
    anybody.begin()
    with harbor.using(anybody.given):
        anybody.enqueue(harbor, note.s(1), elsewhere.s(1))
        before = ear.heard()
    at_the_end = ear.heard()
    anybody.commit()

    assert ([], [], [["default", "other"]]) == (before, at_the_end, ear.heard())


def test_a_rollback_wakes_nobody(harbor: Harbor, caller: Caller, ear: Ear) -> None:
    caller.begin()
    with harbor.using(caller.given):
        caller.enqueue(harbor, note.s(1))
    caller.rollback()

    assert [] == ear.heard()


def test_a_transaction_wakes_once_however_much_it_enqueued(harbor: Harbor, caller: Caller, ear: Ear) -> None:
    caller.begin()
    for number in range(3):
        with harbor.using(caller.given):
            caller.enqueue(harbor, note.s(number), note.s(number))
    caller.commit()

    assert [["default"]] == ear.heard()


def test_what_comes_after_a_savepoint_was_rolled_back_wakes_all_the_same(
    harbor: Harbor, caller: Caller, ear: Ear
) -> None:
    with harbor.using(caller.given):
        caller.begin()
        caller.execute("SELECT 1")
        caller.savepoint()
        caller.enqueue(harbor, note.s(1))
        caller.rollback_to_savepoint()
        caller.enqueue(harbor, note.s(2))
        caller.commit()

    assert [["default"]] == ear.heard()


def test_each_transaction_of_a_block_wakes(harbor: Harbor, caller: Caller, ear: Ear) -> None:
    told: list[list[list[str]]] = []
    with harbor.using(caller.given):
        for number in range(2):
            caller.begin()
            caller.enqueue(harbor, note.s(number))
            caller.commit()
            told.append(ear.heard())

    assert [[["default"]], [["default"]]] == told


def test_a_refused_enqueue_wakes_nobody(harbor: Harbor, caller: Caller, ear: Ear) -> None:
    note.options(key="k").enqueue(1)

    caller.begin()
    with harbor.using(caller.given), pytest.raises(KeyConflict):
        caller.enqueue(harbor, note.options(key="k").s(2))
    caller.commit()

    assert [] == ear.heard()


def test_a_schema_with_a_long_name_wakes_too() -> None:
    """What NOTIFY names holds 63 bytes, and the schema's name alone may be as long."""
    shared = shared_schema()
    long = shared.name + "x" * (63 - len(shared.name))
    shared.ask(f'ALTER SCHEMA "{shared.name}" RENAME TO "{long}"')
    try:
        driver = PostgresDriver(f"{shared.conninfo}&schema={long}")
        with (
            Harbor(driver, registry=registry) as harbor,
            calling(OfPsycopgInAutocommit, shared.conninfo) as caller,
            harbor.using(caller.given),
        ):
            caller.begin()
            (job,) = caller.enqueue(harbor, note.s(1))
            caller.commit()

            assert job.status().state is JobState.READY
    finally:
        shared.ask(f'ALTER SCHEMA "{long}" RENAME TO "{shared.name}"')
