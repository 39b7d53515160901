"""`harbor.using(connection)` on PostgreSQL: the contract with every kind of connection, and wake-ups."""

from __future__ import annotations

import json
from collections.abc import Iterator

import psycopg
import pytest
from psycopg.rows import TupleRow

from taskharbor import Harbor, JobState, KeyConflict, task
from taskharbor.drivers.postgres import PostgresDriver
from taskharbor.drivers.postgres.bell.notice import ANYBODY
from taskharbor_conformance import Case, cases
from tests.support.postgres_place import SharedSchema, shared_schema
from tests.support.postgres_using import (
    KINDS,
    Caller,
    OfDjango,
    OfPsycopg,
    OfPsycopgInAutocommit,
    OfSqlalchemyAsyncSessionOverAsyncpg,
    calling,
    note,
    places_of,
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
    with calling(request.param, schema) as made:
        yield made


# One of each way to send statements, for what does not depend on more.
@pytest.fixture(params=[OfPsycopg, OfSqlalchemyAsyncSessionOverAsyncpg, OfDjango], ids=lambda kind: kind.name)
def caller(request: pytest.FixtureRequest, schema: SharedSchema) -> Iterator[Caller]:
    with calling(request.param, schema) as made:
        yield made


# --- the contract


BY_EACH = {"a_job_may_come_before_the_first_row"}
"""What every kind tries at once, as their libraries begin and end transactions each in its own way."""
BY_EACH_CLIENT = {
    "a_job_is_stored_as_an_enqueue_without_a_transaction_stores_it",
    "a_large_batch_is_stored_whole_or_not_at_all",
    "an_application_orders_ships_and_corrects_its_mistakes",
    "keys_of_committed_jobs_are_met_in_a_transaction",
    "what_is_refused_leaves_the_transaction_as_it_was",
}
"""What asyncpg tries, too, since it sends values otherwise than psycopg, who tries all."""


def tries(*, at_once: bool) -> list[tuple[type[Caller], Case]]:
    """Return every kind of caller with its cases: those tried at once, or the others."""
    pairs = [(kind, case) for kind in KINDS for case in cases(family="using")]
    chosen = dict.fromkeys(KINDS, BY_EACH)
    chosen[OfPsycopg] = {case.name for _, case in pairs}
    chosen[OfSqlalchemyAsyncSessionOverAsyncpg] = BY_EACH | BY_EACH_CLIENT
    return [(kind, case) for kind, case in pairs if at_once == (case.name in chosen[kind])]


def name(value: type[Caller] | Case) -> str:
    return value.name


@pytest.mark.parametrize(("kind", "case"), tries(at_once=True), ids=name)
def test_conformance(kind: type[Caller], case: Case) -> None:
    case.run(places_of(kind))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "case"), tries(at_once=False), ids=name)
def test_conformance_in_full(kind: type[Caller], case: Case) -> None:
    case.run(places_of(kind))


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
            calling(OfPsycopgInAutocommit, shared) as caller,
            harbor.using(caller.given),
        ):
            caller.begin()
            (job,) = caller.enqueue(harbor, note.s(1))
            caller.commit()

            assert job.status().state is JobState.READY
    finally:
        shared.ask(f'ALTER SCHEMA "{long}" RENAME TO "{shared.name}"')
