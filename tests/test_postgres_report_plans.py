"""How PostgreSQL keeps reports, events and counters: by which index, and how much it reads, whatever it believes."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest

from taskharbor.driver import (
    EventAppend,
    EventRead,
    EventWatch,
    JobDelete,
    JobGet,
    JobReport,
    LeaseExtend,
    StatisticsRead,
    StatisticsWrite,
)
from taskharbor.drivers.postgres.control import job_delete
from taskharbor.drivers.postgres.event import event_append, event_read, event_watch, prune_events
from taskharbor.drivers.postgres.lease import lease_extend
from taskharbor.drivers.postgres.look import job_get
from taskharbor.drivers.postgres.report import job_report, prune_reports
from taskharbor.drivers.postgres.routine import Routine, quoted
from taskharbor.drivers.postgres.statistics import prune_statistics, statistics_read, statistics_write
from taskharbor.drivers.postgres.step import Step
from taskharbor.event import Ending, JobProgressed, Tally
from taskharbor.job import Delivery, new_job_id
from taskharbor.report import LogLine, Progress, Report
from tests.test_postgres_plans import BATCH, LARGE, SMALL, STATISTICS, Explainer, Plan, Store, check

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
TABLES = ("report", "line", "event", "tally", "watcher")
LATER = NOW + timedelta(days=2)
FIRST = [f"02000000-0000-7000-8000-{number * 20:012}" for number in range(BATCH)]
"""Dead letters that have reported."""
# Every job has told something, and half of the reports are to be looked at, where the most are of jobs that are gone.
_FILL = (
    """INSERT INTO report (job_id, fence, done, note, at, look_at)
        SELECT ('0' || 1 + i % 3 || '000000-0000-7000-8000-' || lpad(i::text, 12, '0'))::uuid, 1, i, '', '{now}',
        timestamptz '{now}' + CASE WHEN i % 2 = 0 THEN interval '1 day' ELSE interval '9 days' END
        FROM generate_series(0, {count} - 1) i""",
    """INSERT INTO line (job_id, fence, number, attempt, at, text)
        SELECT ('0' || 1 + i % 3 || '000000-0000-7000-8000-' || lpad(i::text, 12, '0'))::uuid, 1, n, 1, '{now}', 'said'
        FROM generate_series(0, {count} - 1) i, generate_series(1, CASE WHEN i < 2000 THEN 20 ELSE 1 END) n""",
    """INSERT INTO event (seq, id, kept_at, body)
        SELECT i, ('04000000-0000-7000-8000-' || lpad(i::text, 12, '0'))::uuid, '{now}', '\\x00'
        FROM generate_series(1, {count}) i""",
    "UPDATE feed SET last = {count}",
    """INSERT INTO tally (minute, queue, task, ending, worker, count, ran)
        SELECT timestamptz '{now}' - i / 100 * interval '3 hours', 'default', 'task-' || i / 10 % 10, 'succeeded',
        'worker-' || i % 10, 1, 1 FROM generate_series(0, {count} - 1) i""",
    "INSERT INTO watcher SELECT 'reader-' || i, timestamptz '{now}' FROM generate_series(1, 50) i",
)
_FORGET_US = f"""DELETE FROM pg_statistic WHERE starelid IN (SELECT oid FROM pg_class
        WHERE relnamespace = '{{}}'::regnamespace AND relname IN {TABLES});
    UPDATE pg_class SET reltuples = 2 WHERE relnamespace = '{{}}'::regnamespace AND relname IN {TABLES}"""
"""As of a moment when nobody had told anything."""
SIZES = [
    pytest.param(SMALL, id="10k"),
    pytest.param(LARGE, id="200k", marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
]


def fill(store: Store, count: int) -> None:
    for statement in _FILL:
        store.schema.ask(statement.format(now=NOW.isoformat(), count=count).replace("%", "%%"), ())


@pytest.fixture(scope="module", params=SIZES)
def store(request: pytest.FixtureRequest) -> Generator[Store]:
    with ExitStack() as stack:
        store = Store(request.param, stack)
        fill(store, request.param)
        yield store


@pytest.fixture(scope="module", params=list(STATISTICS))
def known(request: pytest.FixtureRequest, store: Store) -> Store:
    """Return the store with something that the planner knows of it."""
    for statement in STATISTICS[request.param]:
        store.schema.ask(statement.replace("{}", quoted(store.schema.name)))
    if request.param == "statistics of a moment without jobs":
        store.schema.ask(_FORGET_US.replace("{}", quoted(store.schema.name)))
    return store


@pytest.fixture
def worker(known: Store) -> Generator[Explainer]:
    """Return somebody in a transaction that is rolled back at the end."""
    explainer = known.explainer()
    explainer.begin()
    yield explainer
    explainer.roll_back()
    explainer.connection.close()


def check_told(plan: Plan, *, batch: int = BATCH, rows: float = 8, pages: float = 120) -> None:
    """Check as for any statement, and that our tables are entered by their indexes, too."""
    check(plan, batch=batch, rows=rows, pages=pages)
    for table in TABLES:
        for node in plan.on(table):
            read = node["Actual Loops"] * (node["Actual Rows"] + node.get("Rows Removed by Filter", 0))
            assert node["Node Type"] != "Seq Scan" or read == 0, plan
            assert node["Node Type"] == "ModifyTable" or read <= rows * batch + 50, plan


def taken(worker: Explainer) -> list[Delivery]:
    deliveries = list(worker.reserve(BATCH).deliveries)
    assert len(deliveries) == BATCH
    return deliveries


def report(delivery: Delivery, *, lines: int = 2) -> Report:
    return Report(
        job_id=delivery.id,
        token=delivery.token,
        progress=Progress(done=1, at=NOW),
        lines=tuple(
            LogLine(fence=delivery.fence, number=number, attempt=1, at=NOW, text="said")
            for number in range(1, lines + 1)
        ),
    )


def progressed() -> JobProgressed:
    return JobProgressed(
        id=new_job_id(),
        at=NOW,
        job_id=new_job_id(),
        task="mail.send",
        queue="default",
        worker="w",
        attempt=1,
        progress=Progress(done=1, at=NOW),
    )


def later(worker: Explainer) -> Step:
    return worker.step._replace(now=LATER.isoformat())


def pruned(worker: Explainer, pruning: Routine[bool]) -> Plan:
    """Prune, and return the plan of the last statement of it."""
    with worker.explaining() as plans:
        more = worker.ask(pruning)

    assert more
    return plans[-1]


def test_reports_are_found_by_their_jobs(worker: Explainer) -> None:
    deliveries = taken(worker)
    for _ in range(2):
        with worker.explaining() as plans:
            request = JobReport(reports=[report(delivery) for delivery in deliveries])
            assert [True] * BATCH == worker.verb(job_report, request)

        (plan,) = plans
        check_told(plan)
        assert {"job_pkey"} == plan.indexes("job")


def test_lines_beyond_the_last_ones_are_removed_by_their_index(worker: Explainer) -> None:
    deliveries = taken(worker)[:5]
    worker.verb(job_report, JobReport(reports=[report(delivery, lines=200) for delivery in deliveries]))
    more = [report(delivery, lines=300) for delivery in deliveries]
    worker.verb(job_report, JobReport(reports=more))
    with worker.explaining() as plans:
        worker.verb(job_report, JobReport(reports=[report(delivery, lines=50) for delivery in deliveries]))

    (plan,) = plans
    check_told(plan, batch=5 * 200)


def test_a_look_up_tells_what_few_jobs_told(worker: Explainer) -> None:
    with worker.explaining() as plans:
        records = worker.verb(job_get, JobGet(ids=FIRST))

    assert any(record is not None and record.progress is not None for record in records)
    check_told(plans[0], rows=25)


def test_a_heartbeat_sees_by_an_index_whether_anybody_watches(worker: Explainer) -> None:
    with worker.explaining() as plans:
        answer = worker.ask(
            lease_extend(later(worker), LeaseExtend(worker="w", leases=[], lease=timedelta(seconds=30)))
        )

    assert not answer.watched
    (plan,) = plans
    check_told(plan, batch=1)
    assert plan.pages <= 30


def test_events_that_nobody_watches_cost_a_look(worker: Explainer) -> None:
    with worker.explaining() as plans:
        request = EventAppend(events=[progressed() for _ in range(BATCH)])
        assert not worker.ask(event_append(later(worker), request))

    (plan,) = plans
    check_told(plan, batch=1)
    assert plan.pages <= 10


def test_events_are_kept_and_read_by_their_numbers(worker: Explainer) -> None:
    cursor = worker.verb(event_watch, EventWatch(reader="reader", ttl=timedelta(minutes=1))).cursor
    with worker.explaining() as plans:
        assert worker.verb(event_append, EventAppend(events=[progressed() for _ in range(BATCH)]))
        page = worker.verb(event_read, EventRead(after=cursor, limit=BATCH))

    assert (BATCH, False) == (len(page.events), page.missed)
    for plan in plans:
        check_told(plan)


def test_counters_are_written_and_read_by_their_minutes(worker: Explainer) -> None:
    tallies = [
        Tally(minute=NOW, queue="default", task=f"task-{number}", ending=Ending.SUCCEEDED, count=1)
        for number in range(BATCH)
    ]
    with worker.explaining() as plans:
        worker.verb(statistics_write, StatisticsWrite(worker="worker-1", tallies=tallies))
        worker.verb(statistics_write, StatisticsWrite(worker="worker-1", tallies=tallies))
        sums = worker.verb(statistics_read, StatisticsRead(since=NOW))

    assert BATCH == len(sums)
    for plan in plans:
        check_told(plan)


def test_what_is_told_of_jobs_goes_with_them_by_their_ids(worker: Explainer) -> None:
    with worker.explaining() as plans:
        worker.verb(job_delete, JobDelete(ids=FIRST))

    for plan in plans:
        check_told(plan, rows=25)


def test_a_prune_of_reports_looks_for_their_jobs_by_id(worker: Explainer) -> None:
    plan = pruned(worker, prune_reports(later(worker), BATCH))

    check_told(plan, rows=30, pages=250)


def test_a_prune_of_events_and_counters_begins_at_the_oldest(worker: Explainer) -> None:
    check_told(pruned(worker, prune_events(later(worker), BATCH)))
    check_told(pruned(worker, prune_statistics(later(worker), BATCH)))
