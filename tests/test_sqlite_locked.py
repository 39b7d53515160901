"""Other programs on the same file: who holds its lock for long, for a moment, or only reads for ever."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from taskharbor.errors import StoreError, StoreUnavailable
from taskharbor.job import NewJob
from taskharbor_conformance.bench import HOUR, Bench, new_job, success
from tests.support.sqlite import (
    OtherProgram,
    ask_file,
    driver_on,
    lock_held,
    producing,
    put,
    put_some,
    stored,
    with_bench,
)
from tests.support.work import await_event

SHORT = 0.05
"""Seconds of patience where the lock does not come free."""


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Return an event that is set once somebody in this process sleeps, as who waits for a lock does."""
    slept, sleep = threading.Event(), time.sleep

    def noting(seconds: float) -> None:
        slept.set()
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", noting)
    return slept


# --- for longer than anybody waits


def test_an_enqueue_that_does_not_get_the_lock_says_who_holds_what_and_for_how_long(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    ids = put_some(path)

    with (
        producing(path, busy_timeout=SHORT) as store,
        lock_held(path),
        pytest.raises(StoreUnavailable) as refused,
    ):
        put(store)

    told = str(refused.value)
    assert told.startswith(
        f"{path} has been locked by another program for 0.05 s (SQLite says: database is locked)"
    )
    assert "Jobs are written once it ends; ?busy_timeout=SECONDS in the URL waits longer" in told
    assert ids == stored(path)


def test_the_same_store_goes_on_once_the_lock_is_free(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"

    with producing(path, busy_timeout=SHORT) as store:
        with lock_held(path) as other:
            with pytest.raises(StoreUnavailable):
                put(store)
            other.tell()
            other.end()
        put(store)

    assert 1 == len(stored(path))


def test_no_verb_loses_or_doubles_anything_by_a_lock(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    put_some(path, 5)

    async def work(bench: Bench) -> None:
        bench.advance(HOUR)
        with lock_held(path), pytest.raises(StoreUnavailable):
            await bench.take()
        taken = await bench.take()
        with lock_held(path):
            with pytest.raises(StoreUnavailable):
                await bench.settle(*map(success, taken))
            with pytest.raises(StoreUnavailable):
                await bench.extend(*taken)
            assert [] == (await bench.reclaim())  # finds by looking that nothing has expired
        await bench.settle(*map(success, taken))

    with_bench(path, work, busy_timeout=SHORT)

    assert ([], [(5,)]) == (stored(path), ask_file(path, "SELECT count(*) FROM taskharbor_history"))


def test_who_only_looks_does_not_wait_for_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    put_some(path, 3)

    async def work(bench: Bench) -> tuple[int, int]:
        with lock_held(path):
            # The bench's clock stands before the jobs are due: there is nothing to reserve.
            return len(await bench.find_ids()), len(await bench.take(queues=["empty"]))

    assert (3, 0) == with_bench(path, work, busy_timeout=SHORT)


def test_opening_a_store_does_not_wait_for_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    put_some(path)

    with lock_held(path), producing(path, busy_timeout=SHORT):
        pass


def test_a_database_of_another_program_that_is_locked_cannot_be_migrated(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    ask_file(path, "CREATE TABLE mine (x)")
    driver = driver_on(path, busy_timeout=SHORT)

    with (
        lock_held(path),
        pytest.raises(StoreUnavailable, match=r"has been locked by another program for 0\.05 s"),
    ):
        driver.migrate()

    assert [("mine",)] == ask_file(path, "SELECT name FROM sqlite_schema")


def test_without_patience_a_lock_is_an_error_at_once(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    put_some(path)

    with producing(path, busy_timeout=0) as store, lock_held(path), pytest.raises(StoreUnavailable):
        put(store)


# --- for a moment


def test_an_enqueue_waits_for_the_lock_and_goes_through(tmp_path: Path, waited: threading.Event) -> None:
    path = tmp_path / "jobs.db"
    put_some(path)

    with ThreadPoolExecutor(1) as threads, producing(path) as store, lock_held(path) as other:
        asked = threads.submit(put, store)
        await_event(waited)
        assert not asked.done()
        other.tell()
        asked.result()

    assert 2 == len(stored(path))


def test_a_worker_waits_for_the_lock_and_goes_through(tmp_path: Path, waited: threading.Event) -> None:
    path = tmp_path / "jobs.db"
    put_some(path, 5)

    def go_on(other: OtherProgram) -> None:
        await_event(waited)
        other.tell()

    async def work(bench: Bench) -> int:
        bench.advance(HOUR)
        with ThreadPoolExecutor(1) as threads, lock_held(path) as other:
            threads.submit(go_on, other)
            return len(await bench.take())

    assert 5 == with_bench(path, work)


def test_many_programs_writing_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    put_some(path)
    program = """
from tests.support.sqlite import producing, put
say()
wait()
with producing(path) as store:
    for number in range(50):
        put(store)
"""
    others = [OtherProgram(path, program) for _ in range(3)]
    try:
        for other in others:
            other.hear()
        for other in others:
            other.tell()
        with producing(path) as store:
            for _ in range(50):
                put(store)
        for other in others:
            other.end()
    finally:
        for other in others:
            other.__exit__()

    assert 201 == len(stored(path))


# --- only reading

READS_FOR_EVER = """
connection = sqlite3.connect(path, isolation_level=None)
connection.execute("BEGIN")
def count():
    say(connection.execute("SELECT count(*) FROM taskharbor_job").fetchone()[0])
count()
wait()
count()
connection.execute("COMMIT")
count()
"""


def test_a_reader_with_an_old_snapshot_stops_nobody_and_sees_nothing_new(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    put_some(path, 10)

    async def work(bench: Bench) -> None:
        bench.advance(HOUR)
        for _ in range(20):
            await bench.enqueue()
        await bench.settle(*map(success, await bench.take(15)))

    with OtherProgram(path, READS_FOR_EVER) as reader:
        before = reader.hear()
        with_bench(path, work)
        reader.tell()
        meanwhile, after = reader.hear(), reader.hear()

    assert ("10", "10", "15") == (before, meanwhile, after)


def test_a_reader_of_a_snapshot_does_not_make_the_log_grow_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    put_some(path, 10)
    limit = 64 << 20

    with producing(path) as store:
        with OtherProgram(path, READS_FOR_EVER) as reader:
            reader.hear()
            for _ in range(3):
                put(store, *_large())
            grown = Path(f"{path}-wal").stat().st_size
            reader.tell()
            reader.end()
        # Two more rounds: the log is copied back, begun anew, and cut down to its limit.
        for _ in range(3):
            put(store, *_large())
            put(store)
        cut = Path(f"{path}-wal").stat().st_size

    assert grown > limit
    assert cut <= limit


def _large() -> list[NewJob]:
    return [new_job(payload=bytes(1 << 20)) for _ in range(30)]


# --- errors that mean something else


def test_an_error_of_ours_is_told_from_one_of_the_machines(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    put_some(path)
    ask_file(
        path,
        "CREATE TRIGGER mine BEFORE INSERT ON taskharbor_job BEGIN SELECT raise(ABORT, 'not today'); END",
    )

    with producing(path) as store, pytest.raises(StoreError) as refused:
        put(store)

    assert not isinstance(refused.value, StoreUnavailable)
    assert f"{path}: SQLite says: not today" in str(refused.value)
