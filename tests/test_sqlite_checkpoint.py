"""The log is folded back into the file while nobody can write, and stays small whatever is written."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from taskharbor.driver import JobEnqueue, ProducerStore
from taskharbor.drivers.sqlite import SqliteDriver, checkpoint
from taskharbor.drivers.sqlite.checkpoint import Checkpoints
from taskharbor_conformance.bench import new_job

MEGABYTE = 1 << 20


def enqueue(store: ProducerStore, jobs: int) -> None:
    store.job_enqueue(JobEnqueue(jobs=[new_job(payload=b"x" * 200) for _ in range(jobs)]))


def log_size(path: Path) -> int:
    return path.with_name(path.name + "-wal").stat().st_size


def test_the_log_of_many_commits_stays_within_its_measure(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"

    with SqliteDriver(path).connect_blocking() as store:
        for _ in range(60):
            enqueue(store, 1000)
        size = log_size(path)

    assert size < 48 * MEGABYTE, "60,000 jobs are far more than that"
    assert path.stat().st_size > 15 * MEGABYTE


def test_large_payloads_are_noticed_by_the_size_of_the_log(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"

    with SqliteDriver(path).connect_blocking() as store:
        for _ in range(30):
            store.job_enqueue(JobEnqueue(jobs=[new_job(payload=b"x" * 8 * MEGABYTE)]))
        size = log_size(path)

    assert size < 96 * MEGABYTE, "they are 240 MB"


def test_nobody_can_write_while_the_log_is_folded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "jobs.db"
    told: list[str] = []
    folds = Checkpoints.fold

    def try_to_write(self: Checkpoints) -> None:
        other = sqlite3.connect(path, timeout=0, isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
            other.execute("CREATE TABLE IF NOT EXISTS theirs (a)")
            other.execute("INSERT INTO theirs VALUES (1)")
            other.execute("COMMIT")
            told.append("written")
        except sqlite3.OperationalError as error:
            told.append(error.sqlite_errorname)
        finally:
            other.close()
        folds(self)

    monkeypatch.setattr(Checkpoints, "fold", try_to_write)
    monkeypatch.setattr(checkpoint, "_DUE_BYTES", MEGABYTE)
    with SqliteDriver(path).connect_blocking() as store:
        for _ in range(10):
            enqueue(store, 1000)

    # The bulk of it while others write, and what they wrote meanwhile while they cannot.
    assert told
    assert ["written", "SQLITE_BUSY"] * (len(told) // 2) == told


def test_the_log_cannot_be_begun_anew_while_it_is_folded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its header holds a number that changes when it is begun anew (SQLite's file format, 4.1)."""
    path = tmp_path / "jobs.db"
    log = tmp_path / "jobs.db-wal"
    seen: list[bool] = []
    folds = Checkpoints.fold

    def salts() -> bytes:
        return log.read_bytes()[16:24]

    def fold_between_commits(self: Checkpoints) -> None:
        other = sqlite3.connect(path, timeout=0, isolation_level=None)
        before = salts()
        folds(self)  # all is folded: the next commit would begin the log anew
        try:
            other.execute("CREATE TABLE IF NOT EXISTS theirs (a)")
        except sqlite3.OperationalError:
            pass
        finally:
            other.close()
        seen.append(before == salts())
        folds(self)

    monkeypatch.setattr(Checkpoints, "fold", fold_between_commits)
    monkeypatch.setattr(checkpoint, "_DUE_BYTES", MEGABYTE)
    with SqliteDriver(path).connect_blocking() as store:
        for _ in range(10):
            enqueue(store, 1000)

    assert seen
    assert all(seen)


def test_a_log_that_was_large_once_is_not_folded_at_every_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "jobs.db"
    count = 0
    folds = Checkpoints.fold

    def counted(self: Checkpoints) -> None:
        nonlocal count
        count += 1
        folds(self)

    monkeypatch.setattr(Checkpoints, "fold", counted)
    with SqliteDriver(path).connect_blocking() as store:
        store.job_enqueue(JobEnqueue(jobs=[new_job(payload=b"x" * 80 * MEGABYTE)]))
        for _ in range(100):
            enqueue(store, 1)

    assert count <= 4


def test_no_connection_of_ours_folds_the_log_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "jobs.db"
    monkeypatch.setattr(checkpoint, "_DUE_BYTES", 1 << 40)
    monkeypatch.setattr(checkpoint, "_LARGE_BYTES", 1 << 40)

    with SqliteDriver(path).connect_blocking() as store:
        enqueue(store, 1)
        before = path.stat().st_size
        for _ in range(20):
            enqueue(store, 1000)

        assert before == path.stat().st_size


def test_a_long_reader_neither_holds_writers_up_nor_loses_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "jobs.db"
    monkeypatch.setattr(checkpoint, "_DUE_BYTES", MEGABYTE)
    with SqliteDriver(path).connect_blocking() as store:
        enqueue(store, 1)
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        seen = reader.execute("SELECT count(*) FROM taskharbor_job").fetchone()

        for _ in range(10):
            enqueue(store, 1000)

        assert (1,) == seen == reader.execute("SELECT count(*) FROM taskharbor_job").fetchone()
        reader.execute("COMMIT")
        assert (10_001,) == reader.execute("SELECT count(*) FROM taskharbor_job").fetchone()
        reader.close()


def test_several_processes_worth_of_connections_leave_a_sound_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "jobs.db"
    monkeypatch.setattr(checkpoint, "_DUE_BYTES", MEGABYTE // 4)

    def produce() -> None:
        with SqliteDriver(path).connect_blocking() as store:
            for _ in range(20):
                enqueue(store, 100)

    threads = [threading.Thread(target=produce) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    db = sqlite3.connect(path)
    assert [("ok",)] == db.execute("PRAGMA integrity_check").fetchall()
    assert [(8000,)] == db.execute("SELECT count(*) FROM taskharbor_job").fetchall()
    db.close()
