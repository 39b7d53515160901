"""Reserves from lines on PostgreSQL, step by step: who holds what while whom reserves, and how the lines are read."""

from __future__ import annotations

import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from psycopg.errors import SerializationFailure

from taskharbor.driver import JobCancel, LimitSet
from taskharbor.drivers.postgres.control import job_cancel
from taskharbor.drivers.postgres.limit import limit_set
from taskharbor.drivers.postgres.routine import quoted
from taskharbor.job import Delivery
from taskharbor_conformance.bench import TASK, new_job, success
from taskharbor_conformance.scopes import OTHER, at_most, of_keys, of_task
from tests.support.postgres_place import shared_schema
from tests.support.postgres_walk import Meeting, Party, Taker, meeting
from tests.support.work import eventually
from tests.test_postgres_plans import OPTIONS, STATISTICS, Explainer, Store, check

SMALL, LARGE = 10_000, 100_000
WAITS = (
    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%rules%FOR UPDATE%'"
)


@pytest.fixture
def there() -> Generator[Meeting]:
    with meeting(shared_schema()) as met:
        yield met


def limit(there: Meeting, count: int, *, each: bool = False) -> None:
    party = there.party()
    party.begin()
    party.verb(limit_set, LimitSet(scope=of_keys() if each else of_task(), terms=at_most(count)))
    party.commit()


def put_in_lines(there: Meeting, *partitions: str) -> list[str]:
    return there.party().put(*(new_job(partition=partition) for partition in partitions))


def take(worker: Taker, count: int = 100) -> list[Delivery]:
    """Reserve from lines, in the transaction that was begun."""
    return list(worker.ask(worker.walker.walk_lines(worker.step, worker.request(count))).deliveries)


def take_whole(worker: Taker, count: int = 100) -> list[Delivery]:
    worker.begin()
    try:
        return take(worker, count)
    finally:
        worker.commit()


def waits_for_the_lock(party: Party) -> bool:
    return bool(party.do(WAITS)[0][0])


# --- the lock


def test_who_reserves_while_another_does_sees_what_that_one_has_taken(there: Meeting) -> None:
    limit(there, 3)
    put_in_lines(there, *"aabbc")
    first, second, watcher = there.taker(), there.taker(), there.party()
    first.begin()
    assert len(take(first)) == 3  # 1. not committed
    with ThreadPoolExecutor(1) as pool:
        later = pool.submit(take_whole, second)  # 2.
        eventually(lambda: waits_for_the_lock(watcher))
        first.commit()  # 3.

        assert [] == later.result(20)


def test_who_is_killed_while_he_reserves_leaves_nothing_behind(there: Meeting) -> None:
    limit(there, 3)
    put_in_lines(there, *"aabbc")
    first, second = there.taker(), there.taker()
    first.begin()
    take(first)
    there.party().do(f"SELECT pg_terminate_backend({first.connection.info.backend_pid})")

    assert len(take_whole(second)) == 3


def test_several_at_once_never_lease_more_than_a_limit_allows(there: Meeting) -> None:
    limit(there, 2, each=True)
    put_in_lines(there, *"abc" * 40)
    workers = [there.taker() for _ in range(3)]
    most = "SELECT max(n) FROM (SELECT count(*) AS n FROM job WHERE token IS NOT NULL GROUP BY part) p"

    def work(worker: Taker) -> tuple[int, int]:
        done = seen = 0
        for _ in range(15):
            taken = take_whole(worker, 4)
            seen = max(seen, worker.do(most)[0][0] or 0)
            done += len(taken)
            for delivery in taken:
                worker.settle(success(delivery))
        return done, seen

    with ThreadPoolExecutor(len(workers)) as pool:
        found = list(pool.map(work, workers))

    assert sum(done for done, _ in found) == len({*there.party().do("SELECT id FROM history")})
    assert {seen for _, seen in found} <= {1, 2}


# --- what happens to a job between the look and the lease


def test_a_job_that_is_cancelled_after_it_was_found_is_left(there: Meeting) -> None:
    limit(there, 3)
    ids = put_in_lines(there, *"abc")
    worker, other = there.taker(), there.party()
    worker.just_before("FOR UPDATE SKIP LOCKED", lambda: other.verb(job_cancel, JobCancel(ids=ids[:1])))

    assert sorted(ids[1:]) == sorted(delivery.id for delivery in take_whole(worker))


def test_a_job_that_comes_into_another_line_after_it_was_found_is_left(there: Meeting) -> None:
    limit(there, 1, each=True)
    ids = put_in_lines(there, *"ab")
    worker, other = there.taker(), there.party()
    # As a replacement does. There is room for one of each key only.
    worker.just_before(
        "FOR UPDATE SKIP LOCKED", lambda: other.do(f"UPDATE job SET part = 'b' WHERE id = '{ids[0]}'")
    )

    assert ids[1:] == [delivery.id for delivery in take_whole(worker)]
    assert [] == take_whole(worker)


def test_a_plain_reserve_takes_nothing_where_jobs_stand_in_lines(there: Meeting) -> None:
    worker = there.taker()
    put_in_lines(there, "a")
    (plain,) = there.party().put(new_job())

    assert [] == worker.reserve().deliveries
    assert worker.walker.has_lines(worker.request())
    assert plain in {delivery.id for delivery in take_whole(worker)}
    assert there.party().do(f"SELECT count(*) FROM job WHERE task = '{TASK}' AND token IS NULL") == [(0,)]


@pytest.mark.parametrize(("look", "passed_by"), [(0.001, 0.05), (2.0, 8.0)])
def test_lines_that_give_nothing_are_passed_by_for_longer_than_the_look_took(
    there: Meeting, monkeypatch: pytest.MonkeyPatch, look: float, passed_by: float
) -> None:
    limit(there, 1)
    worker, now = there.taker(), [100.0]
    put_in_lines(there, "a", "a")
    take_whole(worker)
    there.party().put(*(new_job(task=OTHER) for _ in range(9)))
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    worker.just_before("generate_series(0, 9) p(priority)", lambda: now.__setitem__(0, now[0] + look))

    assert len(take_whole(worker)) == 9
    ended = now[0]
    now[0] = ended + passed_by * 0.9
    assert not worker.walker.has_lines(worker.request())
    now[0] = ended + passed_by * 1.1
    assert worker.walker.has_lines(worker.request())


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_a_plain_reserve_that_may_see_the_store_as_it_was_takes_nothing(there: Meeting, level: str) -> None:
    """A limit that is set while it waits for the lock would not be seen: the desk asks again as READ COMMITTED."""
    worker = there.taker()
    worker.put_some(3)
    worker.reserve(1)
    worker.do(f"SET default_transaction_isolation = '{level}'")

    with pytest.raises(SerializationFailure):
        worker.reserve()
    assert there.party().do("SELECT count(*) FROM job WHERE token IS NOT NULL") == [(1,)]


# --- how lines are read

FILL = f"""INSERT INTO job (id, task, queue, options, priority, lane, due, run_at, enqueued_at, retain, payload, part)
    SELECT ('01000000-0000-7000-8000-' || lpad(i::text, 12, '0'))::uuid, '{OTHER}', 'default', '{OPTIONS}', 5,
    6, clock_timestamp() - interval '1 hour' + i * interval '1 microsecond', clock_timestamp(), clock_timestamp(),
    86400000000, '\\x5b5d', 'key-' || i %% 1000 FROM generate_series(%s::int, %s::int - 1) i"""


class Filled(Store):
    """A schema with jobs in a thousand lines, and in plain lanes as many."""

    def fill(self, begin: int, end: int) -> None:
        super().fill(begin, end)
        self.schema.ask(FILL.replace("01000000", "03000000"), (begin, end))


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(SMALL, id="10k"),
        pytest.param(LARGE, id="100k", marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
    ],
)
def filled(request: pytest.FixtureRequest) -> Generator[Store]:
    with ExitStack() as stack:
        yield Filled(request.param, stack)


@pytest.fixture(params=list(STATISTICS))
def worker(request: pytest.FixtureRequest, filled: Store) -> Generator[Explainer]:
    for statement in STATISTICS[request.param]:
        filled.schema.ask(statement.replace("{}", quoted(filled.schema.name)))
    explainer = filled.explainer()
    explainer.begin()
    yield explainer
    explainer.roll_back()
    explainer.connection.close()


def test_a_reserve_from_lines_reads_what_it_takes(worker: Explainer) -> None:
    worker.verb(limit_set, LimitSet(scope=of_keys(OTHER), terms=at_most(1)))
    take(worker, 1)
    with worker.explaining() as plans:
        taken = take(worker, 50)

    assert len(taken) == 50
    ((leased,),) = worker.do("SELECT sum(remaining)::integer FROM lease")
    for plan in plans:
        # What runs is counted where it is leased.
        check(plan, batch=50 + (leased if "running" in plan.sql else 0))
        if "RECURSIVE" in plan.sql:
            assert plan.indexes("job") == {"job_line"}
