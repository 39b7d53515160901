"""No room left: the caller is told, nothing half-written stays, and all goes on when there is room again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import pytest

from taskharbor import Harbor, Registry, task
from taskharbor.driver import SchemaVersion
from taskharbor.errors import StoreUnavailable
from taskharbor.job import JobState
from taskharbor_conformance.bench import HOUR, Bench, new_job, success
from tests.support.sqlite import (
    ask_file,
    connections_noted,
    driver_on,
    producing,
    put,
    put_some,
    stored,
    with_bench,
)
from tests.support.work import await_event, eventually, running, states

FULL = "there is no room to write to {}"
NOTHING = "the disk is full, or the file has reached its max_page_count; nothing of this step was written"
BIG = bytes(1 << 20)


def no_room(connections: Sequence[sqlite3.Connection]) -> None:
    """Let the file not grow beyond what it is, for these connections."""
    for connection in connections:
        with contextlib.suppress(sqlite3.ProgrammingError):  # it was closed
            connection.execute("PRAGMA max_page_count = 1")  # never below what there is


def room(connections: Sequence[sqlite3.Connection]) -> None:
    """Let the file grow again."""
    for connection in connections:
        with contextlib.suppress(sqlite3.ProgrammingError):  # it was closed
            connection.execute("PRAGMA max_page_count = 1000000")


# --- by SQLite's own limit


def test_an_enqueue_that_finds_no_room_stores_nothing_of_its_batch(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    ids = put_some(path, 3)

    with connections_noted() as connections, producing(path) as store:
        no_room(connections)
        with pytest.raises(StoreUnavailable) as refused:
            put(store, *(new_job() for _ in range(2000)))
        left = stored(path)
        room(connections)
        put(store)

    assert FULL.format(path) in str(refused.value)
    assert NOTHING in str(refused.value)
    assert ids == left
    assert 4 == len(stored(path))


def test_what_is_asked_again_is_stored_once(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    put_some(path)
    jobs = [new_job(payload=BIG, key=str(number)) for number in range(5)]

    with connections_noted() as connections, producing(path) as store:
        no_room(connections)
        with pytest.raises(StoreUnavailable):
            put(store, *jobs)
        room(connections)
        first = [answer.status for answer in put(store, *jobs)]
        second = [answer.status for answer in put(store, *jobs)]

    assert (["created"] * 5, ["existing"] * 5) == (first, second)
    assert 6 == len(stored(path))


def test_a_migration_that_finds_no_room_is_taken_back_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "jobs.db"
    driver = driver_on(path)
    connect: Callable[..., sqlite3.Connection] = sqlite3.connect

    def small(*args: object, **settings: object) -> sqlite3.Connection:
        connection = connect(*args, **settings)
        connection.execute("PRAGMA max_page_count = 5")
        return connection

    with monkeypatch.context() as patched:
        patched.setattr(sqlite3, "connect", small)
        with pytest.raises(StoreUnavailable, match="there is no room"):
            driver.migrate()
        with pytest.raises(StoreUnavailable, match="there is no room"), driver.connect_blocking():
            pass
    tables = ask_file(path, "SELECT name FROM sqlite_schema")

    assert ([], SchemaVersion(0, driver.migrations[-1].number)) == (tables, driver.schema_version())
    assert 1 == len(put_some(path))


# --- by a disk


class Disk:
    """A small file system: the log alone may take 16 MB of it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "jobs.db"
        self._filler = folder / "filler"

    def fill(self) -> None:
        """Leave no room on it."""
        with self._filler.open("ab", buffering=0) as file:
            for size in (1 << 20, 4096):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    pass

    def empty(self) -> None:
        """Give the room back."""
        self._filler.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Generator[Disk]:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    yield Disk(tmp_path)
    os.sync()
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def test_a_full_disk_refuses_an_enqueue_and_takes_it_when_there_is_room(disk: Disk) -> None:
    with producing(disk.path) as store:
        put(store)
        disk.fill()
        with pytest.raises(StoreUnavailable, match=f"no room to write to {disk.path}"):
            put(store, *(new_job(payload=bytes(1 << 16)) for _ in range(40)))
        disk.empty()
        put(store)

    assert 2 == len(stored(disk.path))


def test_a_worker_s_verbs_on_a_full_disk_leave_the_jobs_as_they_were(disk: Disk) -> None:
    put_some(disk.path, 200)

    async def work(bench: Bench) -> tuple[list[JobState | None], list[str]]:
        bench.advance(HOUR)
        disk.fill()
        with pytest.raises(StoreUnavailable, match="no room"):
            await bench.take()
        assert [] == await bench.find_ids(JobState.RUNNING)
        disk.empty()
        taken = await bench.take()
        disk.fill()
        with pytest.raises(StoreUnavailable, match="no room"):
            await bench.settle(*(success(delivery, bytes(2000)) for delivery in taken))
        assert 200 == len(await bench.find_ids(JobState.RUNNING))
        disk.empty()
        return await bench.settle(*map(success, taken)), await bench.find_ids(JobState.SUCCEEDED)

    states, succeeded = with_bench(disk.path, work)

    assert ([JobState.SUCCEEDED] * 200, 200) == (states, len(succeeded))
    assert [(0,)] == ask_file(disk.path, "SELECT count(*) FROM taskharbor_lease")


def test_a_store_that_cannot_even_be_made_for_want_of_room_is_unavailable_and_not_broken(disk: Disk) -> None:
    disk.fill()
    with pytest.raises(StoreUnavailable) as refused, producing(disk.path):
        pass
    disk.empty()

    put_some(disk.path)

    assert str(disk.path) in str(refused.value)
    assert 1 == len(stored(disk.path))


def test_a_store_that_was_closed_can_be_opened_on_a_full_disk_or_is_unavailable(disk: Disk) -> None:
    ids = put_some(disk.path, 5)
    disk.fill()

    with pytest.raises(StoreUnavailable), producing(disk.path) as store:
        put(store, new_job(payload=BIG))
    disk.empty()

    assert ids == stored(disk.path)


registry = Registry()
done: list[int] = []
gate = threading.Event()


@task(registry=registry)
async def note(number: int, filler: str) -> str:
    await asyncio.to_thread(await_event, gate)
    done.append(number)
    return filler


def test_a_worker_goes_on_when_there_is_room_again_and_runs_every_job_once(
    disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    done.clear()
    gate.clear()
    caplog.set_level(logging.INFO, "taskharbor")
    with Harbor(driver_on(disk.path), registry=registry) as harbor:
        harbor.enqueue_many([note.s(number, "x" * 2000) for number in range(300)])
        with harbor.worker_thread(concurrency=5):
            eventually(lambda: len(running(harbor)) > 0, "the worker takes jobs")
            disk.fill()
            gate.set()
            eventually(lambda: "there is no room" in caplog.text, "the worker meets the full disk")
            disk.empty()
            eventually(lambda: {"succeeded": 300} == states(harbor), "all have succeeded")

    assert list(range(300)) == sorted(done)
