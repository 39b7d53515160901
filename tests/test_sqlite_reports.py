"""Reports, the feed and filters in a file: brought there by migration 3, beside older processes, after a restore."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from taskharbor.driver import (
    EventAppend,
    EventPage,
    EventRead,
    EventWatch,
    HistoryPrune,
    JobFind,
    SchemaVersion,
)
from taskharbor.drivers.sqlite import schema
from taskharbor.errors import OptionError
from taskharbor.event import JobEvent, JobRequeued
from taskharbor.job import new_job_id
from taskharbor_conformance.bench import DAY, HOUR, Bench
from tests.support.sqlite import ask_file, driver_on, put_some, with_bench

_OPTIONS = """INSERT OR IGNORE INTO taskharbor_options (id, retain, text) VALUES (1, 1,
    '{"codec":"json","fingerprint":1,"retry":{"max_attempts":5},"key_ttl":"P1D","retain":"P1D","keep_result":true}')"""
_BURIED_BEFORE = """INSERT INTO taskharbor_dead (id, task, queue, options, priority, run_at, enqueued_at, finished_at,
        attempt, deliveries, crashes, guarded, stray, payload, reason, errors)
    VALUES (?, 'task', 'default', 1, 5, 1, 1, 1, 1, 1, 0, 0, 0, x'00', 'rejected',
        '[{"attempt":1,"type":"First","message":"early"}, {"attempt":2,"type":"app.Broken","message":"Too late"}]')"""
"""As the release before migration 3 does it."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


def bury_as_before(path: Path) -> str:
    """Store a dead letter as a process of the release before would, and return its id."""
    job_id = new_job_id()
    ask_file(path, _OPTIONS)
    ask_file(path, _BURIED_BEFORE, (job_id,))
    return job_id


async def found(bench: Bench) -> list[list[str]]:
    """Return the ids of the jobs found by the last error, by its message, and by the error before."""
    filters = (
        JobFind(error="Broken", now=bench.now),
        JobFind(text="TOO", now=bench.now),
        JobFind(error="First"),
    )
    return [[record.id for record in await bench.store.job_find(one)] for one in filters]


# --- migration 3


def test_a_file_of_version_2_is_brought_up_to_date_with_its_jobs(path: Path) -> None:
    driver_on(path).migrate(2)
    job_id = bury_as_before(path)

    run = driver_on(path).migrate()

    assert [3, 4, 5] == [migration.number for migration in run]
    assert SchemaVersion(schema.WANTED, schema.WANTED) == driver_on(path).schema_version()
    assert [[job_id], [job_id], []] == with_bench(path, found)


def test_a_job_that_an_older_process_buries_meanwhile_is_found_by_its_error_too(path: Path) -> None:
    put_some(path)

    job_id = bury_as_before(path)

    assert [[job_id], [job_id], []] == with_bench(path, found)


# --- cursors


def requeued(bench: Bench) -> JobEvent:
    return JobRequeued(id=new_job_id(), at=bench.now, job_id=new_job_id(), task="task", queue="default")


async def told(bench: Bench, count: int) -> str:
    """Append so many events, and return the cursor after them."""
    cursor = (await bench.store.event_watch(EventWatch(reader="reader", ttl=DAY))).cursor
    await bench.store.event_append(EventAppend(events=[requeued(bench) for _ in range(count)]))
    return (await bench.store.event_read(EventRead(after=cursor))).cursor


def read(path: Path, after: str) -> EventPage:
    """Read on from a cursor."""

    async def once(bench: Bench) -> EventPage:
        return await bench.store.event_read(EventRead(after=after))

    return with_bench(path, once)


def test_whoever_has_a_cursor_of_a_file_that_was_made_anew_is_told_that_he_missed_something(
    path: Path, tmp_path: Path
) -> None:
    cursor = with_bench(path, lambda bench: told(bench, 2))
    other = tmp_path / "other.db"
    with_bench(other, lambda bench: told(bench, 3))

    page = read(other, cursor)

    assert (3, True) == (len(page.events), page.missed)
    assert (0, False) == (len(read(other, page.cursor).events), read(other, page.cursor).missed)


def test_whoever_has_a_cursor_of_what_a_restored_backup_does_not_know_is_told_so(
    path: Path, tmp_path: Path
) -> None:
    with_bench(path, lambda bench: told(bench, 2))
    backup = Path(shutil.copy(path, tmp_path / "backup.db"))
    later = with_bench(path, lambda bench: told(bench, 3))

    page = read(backup, later)

    assert (2, True) == (len(page.events), page.missed)


def test_an_event_of_a_kind_that_a_later_release_has_added_is_passed_over(path: Path) -> None:
    with_bench(path, lambda bench: told(bench, 3))
    ask_file(path, """UPDATE taskharbor_event SET event = '{"event":"teleported"}' WHERE number = 2""")

    page = read(path, "")

    assert 2 == len(page.events)
    assert 0 == len(read(path, page.cursor).events)


def test_a_cursor_of_another_driver_is_refused_by_name(path: Path) -> None:
    put_some(path)

    with pytest.raises(OptionError, match=r"'memory:1:1' is no cursor of a feed of the driver 'sqlite'"):
        read(path, "memory:1:1")


def test_a_watch_that_ended_leaves_no_row_behind_a_prune(path: Path) -> None:
    async def watch_and_prune(bench: Bench) -> None:
        await bench.store.event_watch(EventWatch(reader="gone", ttl=timedelta(0), now=bench.now))
        await bench.store.event_watch(EventWatch(reader="looks", ttl=2 * HOUR, now=bench.now))
        await bench.store.history_prune(HistoryPrune(now=bench.now + HOUR))

    with_bench(path, watch_and_prune)

    assert [("looks",)] == ask_file(path, "SELECT reader FROM taskharbor_watch")
