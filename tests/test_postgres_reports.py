"""What running jobs told, in PostgreSQL's own tables: how much is kept, whose word counts, and when it goes."""

from __future__ import annotations

from collections.abc import Generator
from datetime import UTC, datetime, timedelta

import msgspec
import psycopg
import pytest

from taskharbor.driver import JobDelete, JobGet, JobReport, SchemaVersion
from taskharbor.drivers.postgres import PostgresDriver, schema
from taskharbor.drivers.postgres.control import job_delete
from taskharbor.drivers.postgres.look import job_get
from taskharbor.drivers.postgres.report import job_report, prune_reports
from taskharbor.drivers.postgres.routine import quoted
from taskharbor.job import Delivery, JobRecord
from taskharbor.report import LOG_LIMIT, LogLine, Progress, Report
from taskharbor_conformance.bench import burial, failure, new_job, success
from tests.support.postgres import new_schema_name, server
from tests.support.postgres_place import shared_schema
from tests.support.postgres_walk import Meeting, Party, Taker, meeting

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
AGES = timedelta(days=400)


@pytest.fixture
def here() -> Generator[Meeting]:
    with meeting(shared_schema()) as here:
        yield here


@pytest.fixture
def worker(here: Meeting) -> Taker:
    return here.taker()


def running(worker: Taker, count: int = 1, retain: timedelta = DAY) -> list[Delivery]:
    worker.put(*(new_job(retain=retain) for _ in range(count)))
    return list(worker.reserve(count).deliveries)


def report(delivery: Delivery, done: float = 1, lines: range = range(1, 3)) -> Report:
    return Report(
        job_id=delivery.id,
        token=delivery.token,
        progress=Progress(done=done, at=NOW),
        lines=tuple(
            LogLine(fence=delivery.fence, number=number, attempt=1, at=NOW, text=f"line {number}")
            for number in lines
        ),
    )


def tell(party: Party, *reports: Report) -> list[bool]:
    return list(party.verb(job_report, JobReport(reports=reports)))


def record(party: Party, job_id: str) -> JobRecord:
    (found,) = party.verb(job_get, JobGet(ids=[job_id]))
    assert found is not None
    return found


def stored(here: Meeting) -> tuple[set[str], set[str]]:
    """Return the jobs of which reports are stored, and lines."""
    reports = here.schema.ask("SELECT job_id::text FROM report")
    lines = here.schema.ask("SELECT DISTINCT job_id::text FROM line")
    return {row[0] for row in reports}, {row[0] for row in lines}


def prune(worker: Taker, after: timedelta, limit: int = 1000) -> bool:
    ((now,),) = worker.do("SELECT clock_timestamp()")
    return worker.ask(prune_reports(worker.step._replace(now=(now + after).isoformat()), limit))


def test_a_jobs_log_does_not_grow_beyond_its_last_lines_and_a_report(here: Meeting, worker: Taker) -> None:
    (delivery,) = running(worker)

    for begin in range(1, 1000, 90):
        tell(worker, report(delivery, lines=range(begin, begin + 90)))

    ((count,),) = here.schema.ask("SELECT count(*) FROM line")
    assert LOG_LIMIT <= count <= LOG_LIMIT + 90
    assert list(range(1081 - LOG_LIMIT, 1081)) == [line.number for line in record(worker, delivery.id).log]


def test_the_log_of_a_job_that_says_a_little_in_each_of_many_deliveries_does_not_grow_either(
    here: Meeting, worker: Taker
) -> None:
    (delivery,) = running(worker)

    for fence in range(1, 31):
        again = msgspec.structs.replace(delivery, fence=fence)
        for number in range(1, 11):
            tell(worker, report(again, lines=range(number, number + 1)))

    ((count,),) = here.schema.ask("SELECT count(*) FROM line")
    assert LOG_LIMIT <= count <= LOG_LIMIT + 10


def test_a_report_that_comes_late_does_not_take_the_place_of_a_later_deliverys(
    here: Meeting, worker: Taker
) -> None:
    (delivery,) = running(worker)
    here.schema.ask(
        "INSERT INTO report (job_id, fence, done, note, at, look_at) VALUES (%s, 2, 7, '', now(), now())",
        (delivery.id,),
    )  # by who has reserved it since this one's statement has begun

    tell(worker, report(delivery, done=3))

    told = record(worker, delivery.id).progress
    assert told is not None
    assert 7 == told.done


def test_a_report_waits_for_nobody_who_has_its_job_locked(here: Meeting, worker: Taker) -> None:
    (delivery,) = running(worker)
    other = here.party()
    other.begin()
    other.lock([delivery.id])
    worker.do("SET lock_timeout = '1ms'")

    assert [True] == tell(worker, report(delivery))


def test_what_was_told_is_removed_with_the_job_by_a_delete(here: Meeting, worker: Taker) -> None:
    ended, kept, idle = running(worker, 3)
    tell(worker, *map(report, (ended, kept, idle)))
    worker.settle(success(ended), failure(idle))

    worker.verb(job_delete, JobDelete(ids=[ended.id, kept.id, idle.id]))

    assert ({kept.id}, {kept.id}) == stored(here)  # which runs


def test_a_prune_removes_what_was_told_of_jobs_that_are_gone_and_nothing_else(
    here: Meeting, worker: Taker
) -> None:
    live, dead, kept, gone = running(worker, 4)
    tell(worker, *map(report, (live, dead, kept, gone)))
    worker.settle(burial(dead), success(kept), success(gone))
    here.schema.ask("DELETE FROM history WHERE id = %s", (gone.id,))  # as a TRUNCATE of its partition does

    early = prune(worker, timedelta(hours=1)), stored(here)
    late = prune(worker, AGES), stored(here)
    again = prune(worker, AGES)

    four, three = {live.id, dead.id, kept.id, gone.id}, {live.id, dead.id, kept.id}
    assert (False, (four, four)) == early  # none can be gone before its retention ends
    assert (False, (three, three)) == late
    assert not again


def test_a_prune_looks_at_a_number_of_reports_and_not_at_the_same_ones_again(
    here: Meeting, worker: Taker
) -> None:
    tell(worker, *map(report, running(worker, 5)))
    due = "SELECT count(*) FROM report WHERE look_at <= clock_timestamp() + %s"

    steps = [prune(worker, AGES, limit=2) for _ in range(3)]

    assert [True, True, False] == steps
    assert [(0,)] == here.schema.ask(due, (AGES,))


# --- tables of the release before


@pytest.fixture
def name() -> Generator[str]:
    """Give a schema of the release before."""
    name = new_schema_name()
    PostgresDriver(url(name)).migrate(3)
    yield name
    with psycopg.connect(server().conninfo, autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA {quoted(name)} CASCADE".encode())


def url(name: str) -> str:
    return f"{server().conninfo}&schema={name}"


def test_tables_are_added_beside_whoever_works_on_the_others(name: str) -> None:
    working = "INSERT INTO pause VALUES ('q', now(), '', ''); LOCK TABLE job, history, lease, key, worker IN {} MODE"
    with psycopg.connect(server().conninfo) as connection:
        connection.execute(f"SET search_path = {quoted(name)}".encode())
        connection.execute(working.format("ROW EXCLUSIVE").encode())

        run = PostgresDriver(url(name)).migrate(5)

        assert [4, 5] == [migration.number for migration in run]
        connection.rollback()
    PostgresDriver(url(name)).migrate()
    assert SchemaVersion(schema.WANTED, schema.WANTED) == PostgresDriver(url(name)).schema_version()
