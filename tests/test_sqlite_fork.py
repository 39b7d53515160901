"""Processes that fork while a store is open, as servers do that load the application first."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from taskharbor import Harbor, Registry, task
from taskharbor.drivers.sqlite.forks import Steady
from taskharbor.errors import UnusableStoreError
from tests.fixtures.support import fork
from tests.support.sqlite import OtherProgram, ask_file, connections_noted, driver_on, producing, put, stored
from tests.support.work import ENOUGH, await_event

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

registry = Registry()


@task(registry=registry)
def note(number: int) -> int:
    return number


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "jobs.db"
    driver_on(file).migrate()
    return file


@pytest.fixture
def harbor(path: Path) -> Generator[Harbor]:
    with Harbor(driver_on(path), registry=registry) as current:
        yield current


def begun_child(work: Callable[[], object]) -> int:
    """Fork a child that does some work and ends at once; return its process id."""
    child = fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return child


def in_a_child(work: Callable[[], object]) -> int:
    """Run something in a forked child and return its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(begun_child(work), 0)[1])


def is_locked(path: Path) -> bool:
    """Return whether another program finds the file's lock for writing taken."""
    program = """
try:
    sqlite3.connect(path, isolation_level=None, timeout=0).execute("BEGIN IMMEDIATE")
    say("free")
except sqlite3.OperationalError as error:
    say(error)
"""
    with OtherProgram(path, program) as other:
        return other.hear() == "database is locked"


def test_a_child_enqueues_through_the_harbor_of_its_parent_and_so_does_the_parent(
    harbor: Harbor, path: Path
) -> None:
    note.enqueue(0)

    code = in_a_child(lambda: note.enqueue(1))
    note.enqueue(2)

    assert 0 == code
    assert 3 == len(stored(path))


def test_a_child_that_drops_everything_closes_none_of_its_parents_connections(path: Path) -> None:
    def child() -> None:
        connections.clear()
        gc.collect()

    with connections_noted() as connections, producing(path) as store:
        put(store)
        connections[0].execute("BEGIN IMMEDIATE")
        code = in_a_child(child)
        locked = is_locked(path)
        connections[0].execute("COMMIT")
        put(store)

    assert (0, True) == (code, locked)
    assert 2 == len(stored(path))


def test_a_child_that_opens_and_closes_the_file_leaves_the_parents_lock(path: Path) -> None:
    def child() -> None:
        with producing(path, busy_timeout=0):
            pass

    with connections_noted() as connections, producing(path) as store:
        put(store)
        connections[0].execute("BEGIN IMMEDIATE")
        code = in_a_child(child)
        locked = is_locked(path)
        connections[0].execute("COMMIT")

    assert (0, True) == (code, locked)


def test_a_child_that_ends_in_the_ordinary_way_leaves_the_parents_lock(path: Path) -> None:
    program = """
from tests.support.sqlite import connections_noted, producing, put
with connections_noted() as connections, producing(path) as store:
    put(store)
    connections[0].execute("BEGIN IMMEDIATE")
    child = os.fork()
    if not child:
        sys.exit(0)  # interpreter's end and all
    say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    wait()
    connections[0].execute("COMMIT")
    put(store)
"""
    with OtherProgram(path, program) as other:
        code = other.hear()
        locked = is_locked(path)
        other.tell()
        other.end()

    assert ("0", True) == (code, locked)
    assert 2 == len(stored(path))


def test_children_of_children_enqueue_too(harbor: Harbor, path: Path) -> None:
    note.enqueue(0)

    def child() -> None:
        note.enqueue(1)
        assert 0 == in_a_child(lambda: note.enqueue(2))
        note.enqueue(3)

    assert 0 == in_a_child(child)
    assert 4 == len(stored(path))


def test_many_children_write_at_once_and_lose_nothing(harbor: Harbor, path: Path) -> None:
    note.enqueue(0)

    def child() -> None:
        for number in range(20):
            note.enqueue(number)

    children = [begun_child(child) for _ in range(4)]
    for number in range(20):
        note.enqueue(number)
    codes = [os.waitstatus_to_exitcode(os.waitpid(each, 0)[1]) for each in children]

    assert [0] * 4 == codes
    assert 101 == len(stored(path))
    assert [("ok",)] == ask_file(path, "PRAGMA integrity_check")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/locks")
def test_a_connection_that_a_child_opens_holds_locks_of_its_own(path: Path) -> None:
    """SQLite thinks that this process holds its locks already; they were its parent's, and the child needs its own.

    Without them another process that closes the file takes itself for the last one, and removes the log that the child
    goes on writing to.
    """

    def child() -> None:
        with producing(path) as own:
            put(own)
            held = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
            inode = str(path.stat().st_ino)
            assert [line for line in held if line[4] == str(os.getpid()) and line[5].endswith(f":{inode}")]

    with producing(path) as store:
        put(store)
        code = in_a_child(child)

    assert 0 == code


def test_a_job_that_a_child_enqueues_after_all_others_have_closed_is_not_lost(path: Path) -> None:
    go_on, told = os.pipe()
    opened, ready = os.pipe()

    def child() -> None:
        with producing(path) as own:
            put(own)
            os.write(ready, b"x")
            os.read(go_on, 1)
            put(own)

    with producing(path) as store:
        put(store)
        pid = begun_child(child)
        os.read(opened, 1)
    with OtherProgram(
        path, "sqlite3.connect(path).execute('SELECT count(*) FROM taskharbor_job').fetchone()"
    ) as other:
        other.end()
    os.write(told, b"x")
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    for end in (go_on, told, opened, ready):
        os.close(end)

    assert 0 == code
    assert 3 == len(stored(path))


def test_a_fork_waits_for_the_transaction_of_another_thread_and_the_child_can_write(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, go_on = threading.Event(), threading.Event()
    step_aside = Steady.step_aside

    def wait_inside() -> int:
        inside.set()
        await_event(go_on)
        return 1

    def step_aside_and_tell(steady: Steady) -> bool:
        go_on.set()
        return step_aside(steady)

    def child() -> None:
        with producing(path) as own:
            put(own)

    monkeypatch.setattr(Steady, "step_aside", step_aside_and_tell)
    with connections_noted() as connections, producing(path) as store, ThreadPoolExecutor(1) as threads:
        connections[-1].create_function("wait_inside", 0, wait_inside)
        connections[-1].execute(
            "CREATE TEMP TRIGGER t BEFORE INSERT ON main.taskharbor_job BEGIN SELECT wait_inside(); END"
        )
        asked = threads.submit(put, store)
        await_event(inside)
        code = in_a_child(child)
        asked.result()
        put(store)

    assert 0 == code
    assert 3 == len(stored(path))


def test_a_worker_goes_on_after_its_process_forked(harbor: Harbor) -> None:
    with harbor.worker_thread():
        for number in range(5):
            assert 0 == in_a_child(lambda: None)
            assert number == note.enqueue(number).result(timeout=ENOUGH)


def test_a_file_replaced_before_it_is_opened_again_is_refused(path: Path, tmp_path: Path) -> None:
    driver_on(tmp_path / "other.db").migrate()

    with producing(path) as store:
        put(store)
        assert 0 == in_a_child(lambda: None)
        os.replace(tmp_path / "other.db", path)

        with pytest.raises(UnusableStoreError, match="was removed or replaced while it was open"):
            put(store)
        assert [] == stored(path)
