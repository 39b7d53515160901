"""What reports, the feed, counters and filters cost in SQLite: the same whatever has been kept, and no payload read."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from taskharbor.clock import from_micros
from taskharbor.driver import (
    EventAppend,
    EventRead,
    EventWatch,
    HistoryPrune,
    JobCount,
    JobFilter,
    JobFind,
    JobReport,
    StatisticsRead,
    StatisticsWrite,
)
from taskharbor.event import Ending, JobRequeued, Tally
from taskharbor.job import new_job_id
from taskharbor.report import LogLine, Progress, Report
from taskharbor_conformance.bench import HOUR, Bench, new_job
from tests.support.sqlite import driver_on, with_bench
from tests.test_sqlite_plans import Verb, Watch, plan, watched

SMALL, LARGE = 300, 100_000
OURS = "job|history|dead|progress|log|event|tally"
FAR = 4_000_000_000_000_000
"""Microseconds: beyond any time that is asked for here."""

_NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?) "
_FILL = (
    """INSERT INTO taskharbor_progress (job_id, progress) SELECT printf('01000000-0000-7000-8000-%012d', i),
        '{"done":1.0,"total":2.0,"note":"","at":"2026-01-01T00:00:00Z"}' FROM n""",
    """INSERT INTO taskharbor_log (job_id, fence, number, attempt, at, text)
        SELECT printf('01000000-0000-7000-8000-%012d', i / 200), 1, 1 + i % 200, 1, 1, 'a line' FROM n""",
    f"""INSERT INTO taskharbor_event (number, id, at, event) SELECT i + 1, 'id-' || i, {FAR},
        '{{"event":"requeued","id":"x","at":"2026-01-01T00:00:00Z","job_id":"x","task":"t","queue":"q"}}' FROM n""",
    "UPDATE taskharbor_feed SET last = ?",
    f"""INSERT INTO taskharbor_tally (minute, queue, task, ending, worker, count, ran)
        SELECT {FAR} + 60000000 * (i / 10), 'q', 'task-' || (i % 10), 'dead', 'w', 1, 1 FROM n""",
    # Every 50th has failed with something else.
    f"""INSERT INTO taskharbor_dead (id, task, queue, options, priority, run_at, enqueued_at, finished_at, attempt,
        deliveries, crashes, guarded, stray, payload, reason, errors)
        SELECT printf('03000000-0000-7000-8000-%012d', i), 'task-' || (i % 50), 'default', 1, 5, i, {FAR} + i,
        {FAR} + i, 1, 1, 0, 0, 0, x'00', 'attempts used up', json_array(json_object('attempt', 1, 'type',
        iif(i % 50, 'app.Broken', 'app.Refused'), 'message', 'on ' || i)) FROM n""",
)


def filled(path: Path, count: int) -> Path:
    """Make a store in which so much has been told, and so many jobs are dead letters."""
    driver_on(path).migrate()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "INSERT INTO taskharbor_options (id, retain, text) VALUES (1, 1, ?)",
            (
                '{"codec":"json","fingerprint":1,"retry":{"max_attempts":5},"key_ttl":"P1D","retain":"P1D","keep_result":true}',
            ),
        )
        for statement in _FILL:
            connection.execute(statement if "FROM n" not in statement else _NUMBERS + statement, (count,))
    return path


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a small store and a large one, to which each test adds a little."""
    folder = tmp_path_factory.mktemp("stores")
    return {"small": filled(folder / "small.db", SMALL), "large": filled(folder / "large.db", LARGE)}


async def report(bench: Bench, watch: Watch) -> None:
    await bench.enqueue_all(*(new_job() for _ in range(10)))
    taken = await bench.take(10)
    watch.begin()
    stored = await bench.store.job_report(
        JobReport(
            reports=[
                Report(
                    job_id=one.id,
                    token=one.token,
                    progress=Progress(done=1, at=bench.now),
                    lines=tuple(
                        LogLine(fence=1, number=number, attempt=1, at=bench.now, text="line")
                        for number in range(1, 21)
                    ),
                )
                for one in taken
            ]
        )
    )
    assert [True] * 10 == list(stored)


async def look_up(bench: Bench, watch: Watch) -> None:
    jobs = await bench.enqueue_all(*(new_job() for _ in range(10)))
    await bench.take(10)
    watch.begin()
    assert None not in await bench.get(*(one.job_id for one in jobs))


async def append(bench: Bench, watch: Watch) -> None:
    await bench.store.event_watch(EventWatch(reader="reader", ttl=HOUR, now=bench.now))
    events = [JobRequeued(id=new_job_id(), at=bench.now, job_id="x", task="t", queue="q") for _ in range(20)]
    watch.begin()
    assert await bench.store.event_append(EventAppend(events=events, now=bench.now))


async def follow(bench: Bench, watch: Watch) -> None:
    cursor = (await bench.store.event_watch(EventWatch(reader="reader", ttl=HOUR, now=bench.now))).cursor
    watch.begin()
    assert [] == list((await bench.store.event_read(EventRead(after=cursor))).events)
    assert 50 == len((await bench.store.event_read(EventRead(after="", limit=50))).events)


async def extend_while_somebody_watches(bench: Bench, watch: Watch) -> None:
    await bench.enqueue_all(*(new_job() for _ in range(10)))
    taken = await bench.take(10)
    await bench.store.event_watch(EventWatch(reader="reader", ttl=HOUR, now=bench.now))
    watch.begin()
    assert (await bench.extend(*taken)).watched


async def count_up(bench: Bench, watch: Watch) -> None:
    tallies = [
        Tally(minute=from_micros(FAR), queue="q", task=f"task-{number}", ending=Ending.DEAD, count=2)
        for number in range(10)
    ]
    watch.begin()
    await bench.store.statistics_write(StatisticsWrite(worker="w", tallies=tallies))


async def read_some_minutes(bench: Bench, watch: Watch) -> None:
    since = from_micros(FAR)
    watch.begin()
    read = await bench.store.statistics_read(StatisticsRead(since=since, until=since + HOUR / 12))
    assert 50 == len(read)


async def delete_what_told(bench: Bench, watch: Watch) -> None:
    (job,) = await bench.enqueue_all(new_job())
    watch.begin()
    await bench.delete(job.job_id)


async def prune_where_nothing_is_old(bench: Bench, watch: Watch) -> None:
    watch.begin()
    await bench.store.history_prune(HistoryPrune(now=bench.now))


VERBS: list[Verb] = [
    report,
    look_up,
    append,
    follow,
    extend_while_somebody_watches,
    count_up,
    read_some_minutes,
    delete_what_told,
    prune_where_nothing_is_old,
]
each_verb = pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.__name__)


@each_verb
def test_a_verb_costs_the_same_however_much_was_told(verb: Verb, stores: dict[str, Path]) -> None:
    small, large = watched(stores["small"], verb), watched(stores["large"], verb)

    scans = [
        (step, statement)
        for statement in large.statements
        for step in plan(stores["large"], statement)
        if re.match(rf"SCAN (taskharbor_({OURS})|j\b)", step) or "TEMP B-TREE" in step
    ]
    assert [] == scans
    # Counted in steps of SQLite's virtual machine, so that it depends on no machine's speed.
    assert large.steps <= small.steps * 1.5 + 500
    assert len(large.statements) <= len(small.statements)


FILTERS = {
    "error": JobFilter(error="Refused"),
    "text": JobFilter(text="USED UP"),
    "finished": JobFilter(finished_before=from_micros(FAR + 2000)),
    "enqueued": JobFilter(enqueued_since=from_micros(FAR + 99)),
    "all": JobFilter(
        error="app.Refused",
        text="on",
        finished_since=from_micros(FAR),
        tasks=frozenset({"task-0"}),
        queues=frozenset({"default"}),
    ),
}


def statements(path: Path, wanted: JobFilter) -> Iterator[tuple[str, str]]:
    """Yield each step of a search and of a count, with its statement."""
    fields = {name: getattr(wanted, name) for name in JobFilter.__struct_fields__}

    async def search(bench: Bench, watch: Watch) -> None:
        watch.begin()
        assert await bench.store.job_find(JobFind(**fields))

    async def count(bench: Bench, watch: Watch) -> None:
        watch.begin()
        assert await bench.store.job_count(JobCount(**fields))

    for verb in (search, count):
        for statement in watched(path, verb).statements:
            for step in plan(path, statement):
                yield step, statement


@pytest.mark.parametrize("name", FILTERS)
def test_dead_letters_are_filtered_by_their_index_and_no_row_is_read_before_it_matches(
    name: str, stores: dict[str, Path]
) -> None:
    steps = [step for step, _ in statements(stores["small"], FILTERS[name]) if "taskharbor_dead" in step]

    assert any("COVERING INDEX taskharbor_dead_look" in step for step in steps)
    assert [] == [
        step
        for step in steps
        # What is left is the look-up of those that are returned.
        if "COVERING INDEX taskharbor_dead_look" not in step and "PRIMARY KEY (id=?)" not in step
    ]


@pytest.mark.parametrize("name", ["error", "text", "all"])
def test_of_other_jobs_those_are_looked_at_of_which_an_error_or_a_reason_is_known(
    name: str, stores: dict[str, Path]
) -> None:
    steps = [
        step
        for step, statement in statements(stores["small"], FILTERS[name])
        if re.search("taskharbor_(job|history)", step) and "taskharbor_job" in statement
    ]

    assert [] == [step for step in steps if not re.search("taskharbor_(job|history)_look|PRIMARY KEY", step)]


def test_a_hundred_thousand_dead_letters_are_filtered_page_by_page(stores: dict[str, Path]) -> None:
    async def pages(bench: Bench, watch: Watch) -> int:
        watch.begin()
        seen, after = 0, ""
        while found := await bench.store.job_find(JobFind(error="Refused", after=after, limit=100)):
            seen += len(found)
            after = found[-1].id
        return seen

    async def check(bench: Bench, watch: Watch) -> None:
        assert LARGE // 50 == await pages(bench, watch)

    # All pages together walk the index once: some 20 steps for each entry.
    assert watched(stores["large"], check).steps < 40 * LARGE


def test_the_suite_of_plans_has_its_store(stores: dict[str, Path]) -> None:
    counted = with_bench(stores["large"], lambda bench: bench.store.job_count(JobCount(error="Refused")))

    assert LARGE // 50 == sum(one.count for one in counted)
