"""Wake-ups: by named pipes beside the file, by looking for commits where there are none, and nothing left behind."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from unittest import mock

import pytest

from taskharbor import Harbor, Registry, task
from taskharbor.clock import ManualClock
from taskharbor.drivers.sqlite import SqliteDriver
from taskharbor.drivers.sqlite.bell import Bell
from taskharbor_conformance.bench import new_job
from tests.fixtures.support import fork, untyped
from tests.support.sqlite import (
    OtherProgram,
    as_nobody,
    ask_file,
    driver_on,
    producing,
    put,
    put_some,
    stored,
)
from tests.support.work import ENOUGH, await_event, eventually, threads_named

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")

PRODUCER = """
from tests.support.sqlite import new_job, producing, put
with producing(path) as store:
    say()
    for queue in iter(wait, "end"):
        put(store, new_job(queue=queue))
        say("stored")
"""
WAITER = """
from tests.support.sqlite import driver_on
driver = driver_on(path)
subscription = driver.watch_queues(["default"], lambda: say("woken"))
say()
wait()
driver.close()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "jobs.db"
    driver_on(file).migrate()
    return file


@pytest.fixture
def driver(path: Path) -> Generator[SqliteDriver]:
    opened = driver_on(path)
    yield opened
    opened.close()
    eventually(lambda: not threads_named("taskharbor-bell"), "the bell's thread ends")


@pytest.fixture
def by_pipe_alone() -> Generator[None]:
    """Let nobody in this process look for commits: what wakes has come through a pipe, or from this process."""
    with mock.patch("taskharbor.drivers.sqlite.bell._DataVersion.changed", return_value=False):
        yield


@pytest.fixture
def by_looking_alone() -> Generator[None]:
    """Let there be no named pipes, as on Windows and on some file systems."""
    with mock.patch.object(os, "mkfifo", side_effect=PermissionError("no pipes on this file system")):
        yield


@contextmanager
def woken(driver: SqliteDriver, *queues: str) -> Generator[threading.Event]:
    """Return an event that is set when one of these queues is woken."""
    event = threading.Event()
    subscription = driver.watch_queues(queues or ("default",), event.set)
    try:
        yield event
    finally:
        subscription.close()


def pipes(path: Path) -> list[str]:
    """Return the names of the pipes of those who wait."""
    try:
        return sorted(os.listdir(f"{path}-wake"))
    except FileNotFoundError:
        return []


# --- across processes


@pytest.mark.usefixtures("by_pipe_alone")
def test_an_enqueue_in_another_process_wakes_through_the_pipe(path: Path, driver: SqliteDriver) -> None:
    with OtherProgram(path, PRODUCER) as other, woken(driver) as event:
        other.hear()
        other.tell("default")
        await_event(event)


@pytest.mark.usefixtures("by_looking_alone")
def test_an_enqueue_in_another_process_wakes_without_any_pipe(path: Path, driver: SqliteDriver) -> None:
    with OtherProgram(path, PRODUCER) as other, woken(driver) as event:
        other.hear()

        def put_one() -> bool:  # the first look has nothing to compare with
            other.tell("default")
            other.hear()
            return event.is_set()

        eventually(put_one, "a commit is noticed")

    assert [] == pipes(path)


@pytest.mark.usefixtures("by_pipe_alone")
def test_only_those_who_watch_the_queue_are_woken_through_the_pipe(path: Path, driver: SqliteDriver) -> None:
    with (
        OtherProgram(path, PRODUCER) as other,
        woken(driver, "mail") as mail,
        woken(driver, "video") as video,
    ):
        other.hear()
        other.tell("mail")
        await_event(mail)
        mail_alone = not video.is_set()
        other.tell("video")
        await_event(video)

    assert mail_alone


@pytest.mark.usefixtures("by_pipe_alone")
def test_every_process_that_waits_is_woken(path: Path, driver: SqliteDriver) -> None:
    with OtherProgram(path, WAITER) as first, OtherProgram(path, WAITER) as second, woken(driver) as event:
        first.hear()
        second.hear()
        put_some(path)

        await_event(event)
        assert ("woken", "woken") == (first.hear(), second.hear())


@pytest.mark.usefixtures("by_pipe_alone")
def test_the_pipe_is_found_by_another_name_of_the_file(
    path: Path, driver: SqliteDriver, tmp_path: Path
) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(path)

    with OtherProgram(link, PRODUCER) as other, woken(driver) as event:
        other.hear()
        other.tell("default")
        await_event(event)


def test_a_commit_that_rings_no_bell_is_noticed(path: Path, driver: SqliteDriver) -> None:
    with woken(driver) as event, closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE mine (x)")

        def write() -> bool:
            connection.execute("INSERT INTO mine VALUES (1)")
            return event.is_set()

        eventually(write, "a commit is noticed")


def test_a_worker_in_this_process_takes_what_another_process_enqueues(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SqliteDriver, "poll_interval", timedelta(hours=1))
    registry = Registry()
    ran = threading.Event()

    @task(registry=registry, name="note")
    def note() -> None:
        ran.set()

    program = """
from taskharbor import Harbor, Registry, task
from tests.support.sqlite import driver_on
registry = Registry()
@task(registry=registry, name="note")
def note() -> None: ...
with Harbor(driver_on(path), registry=registry):
    say()
    wait()
    note.enqueue()
"""
    with OtherProgram(path, program) as other:
        other.hear()
        with Harbor(driver_on(path), registry=registry) as harbor, harbor.worker_thread():
            note.enqueue().result(timeout=ENOUGH)  # it is up, and idle from now on
            ran.clear()
            other.tell()
            await_event(ran)
        other.end()


# --- what may be in the way


def test_the_pipes_of_a_waiter_that_was_killed_are_removed_by_the_next_who_rings(path: Path) -> None:
    with OtherProgram(path, WAITER) as waiter:
        waiter.hear()
        before = pipes(path)
        waiter.process.send_signal(signal.SIGKILL)
        waiter.process.wait()
        put_some(path)

    assert 1 == len(before)
    assert [] == pipes(path)


def test_a_pipe_that_died_after_it_was_rung_is_removed_too(path: Path) -> None:
    with producing(path) as store, OtherProgram(path, WAITER) as waiter:
        waiter.hear()
        put(store)
        waiter.hear()
        waiter.process.send_signal(signal.SIGKILL)
        waiter.process.wait()
        put(store)

        assert [] == pipes(path)


def test_a_pipe_that_is_full_holds_nobody_up(path: Path) -> None:
    folder = Path(f"{path}-wake")
    folder.mkdir()
    os.mkfifo(folder / "q1-full")
    reader = os.open(folder / "q1-full", os.O_RDWR | os.O_NONBLOCK)
    filled = 0
    try:
        while True:
            filled += os.write(reader, bytes(4096))
    except BlockingIOError:
        pass

    put_some(path, 3)
    there = pipes(path)
    os.close(reader)

    assert filled
    assert ["q1-full"] == there
    assert 3 == len(stored(path))


def test_a_folder_of_another_users_waiters_does_not_hinder_an_enqueue(driver: SqliteDriver) -> None:
    path = Path(driver.path)
    # Before it is opened, since what SQLite makes beside it has the same mode.
    os.chmod(path, 0o666)  # noqa: S103 - another user has to write to it
    with woken(driver) as event:
        for place, mode in ((path.parent, 0o777), (f"{path}-wake", 0o700)):
            os.chmod(place, mode)
        for folder in path.parent.parents:
            if folder.stat().st_uid == os.getuid() and folder.name.startswith(("pytest", "popen")):
                os.chmod(folder, 0o755)  # noqa: S103 - another user has to reach it

        told = as_nobody(path, "with producing(path) as store:\n    put(store)\n    print('stored')")

        assert "stored\n" == told
        await_event(event)


def test_a_thing_in_the_folder_that_is_no_pipe_is_left_alone(path: Path) -> None:
    folder = Path(f"{path}-wake")
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")

    with producing(path) as store:
        put(store)

    assert "mine" == (folder / "notes.txt").read_text()


def test_a_folder_that_cannot_be_made_is_done_without(path: Path, driver: SqliteDriver) -> None:
    Path(f"{path}-wake").write_text("in the way")

    with OtherProgram(path, PRODUCER) as other, woken(driver) as event:
        other.hear()

        def put_one() -> bool:
            other.tell("default")
            other.hear()
            return event.is_set()

        eventually(put_one, "a commit is noticed")


def test_a_waker_that_fails_hinders_neither_the_others_nor_the_enqueue(
    path: Path, driver: SqliteDriver, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("this loop is closed")

    failing = driver.watch_queues(["default"], fail)
    with woken(driver) as event:
        with driver.connect_blocking() as store:
            put(store)  # from this process
            await_event(event)
            event.clear()
        put_some(path)  # as from another one
        await_event(event)
        event.clear()
        put_some(path)  # its thread goes on
        await_event(event)
    failing.close()

    assert "a wake-up could not be delivered" in caplog.text


def test_many_queues_in_one_batch_wake_all(path: Path, driver: SqliteDriver) -> None:
    names = [f"queue-{number}" for number in range(1500)]  # more than one write to a pipe holds
    events = {name: threading.Event() for name in (names[0], names[700], names[-1])}
    subscriptions = [driver.watch_queues([name], event.set) for name, event in events.items()]

    with producing(path) as store:
        put(store, *(new_job(queue=name) for name in names))

    for event in events.values():
        await_event(event)
    for subscription in subscriptions:
        subscription.close()


# --- beginning and end


def test_closing_leaves_no_thread_no_pipe_and_no_folder(path: Path) -> None:
    driver = driver_on(path)
    driver.watch_queues(["default"], lambda: None)
    driver.watch_jobs(["x"], lambda: None)
    assert 2 == len(pipes(path))

    driver.close()
    driver.close()

    assert [] == threads_named("taskharbor-bell")
    assert not Path(f"{path}-wake").exists()


def test_closing_leaves_no_open_file(path: Path) -> None:
    def opened() -> int:
        return len(os.listdir("/proc/self/fd"))

    def use() -> None:
        driver = driver_on(path)
        with woken(driver), driver.connect_blocking() as store:
            put(store)
        driver.close()

    use()
    before = opened()
    for _ in range(5):
        use()

    assert before == opened()


def test_the_pipes_of_others_stay_when_one_closes(path: Path, driver: SqliteDriver) -> None:
    with woken(driver), OtherProgram(path, WAITER) as other:
        other.hear()
        both = pipes(path)
        other.tell()
        other.end()

        assert (2, 1) == (len(both), len(pipes(path)))


def test_a_closed_driver_can_be_watched_anew(path: Path, driver: SqliteDriver) -> None:
    with woken(driver):
        pass
    driver.close()

    with woken(driver) as event:
        put_some(path)
        await_event(event)


def test_a_callback_may_close_the_driver(path: Path) -> None:
    driver = driver_on(path)
    closed = threading.Event()

    def close() -> None:
        driver.close()
        closed.set()

    driver.watch_queues(["default"], close)
    put_some(path)
    await_event(closed)

    eventually(lambda: not threads_named("taskharbor-bell"), "the thread ends")
    assert [] == pipes(path)


def test_a_callback_may_watch_more_and_stop_watching(path: Path, driver: SqliteDriver) -> None:
    done = threading.Event()

    def change() -> None:
        driver.watch_queues(["more"], lambda: None).close()
        done.set()

    subscription = driver.watch_queues(["default"], change)
    put_some(path)
    await_event(done)
    subscription.close()


def test_threads_that_subscribe_and_leave_at_once_all_get_through(path: Path, driver: SqliteDriver) -> None:
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(50):
                with woken(driver, f"queue-{number}") as event, driver.connect_blocking() as store:
                    put(store, new_job(queue=f"queue-{number}"))
                    await_event(event)
        except BaseException as error:  # noqa: BLE001 - shown below
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [] == failed


def test_turning_the_clock_wakes_everybody(path: Path) -> None:
    clock = ManualClock()
    driver = SqliteDriver(path, clock)

    with woken(driver) as event:
        clock.advance(timedelta(hours=1))
        await_event(event)
    driver.close()


# --- forks


def in_a_child(work: Callable[[], object]) -> int:
    """Run something in a forked child and return its exit code."""
    child = fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_forked_child_that_waits_has_a_pipe_of_its_own(path: Path, driver: SqliteDriver) -> None:
    def child() -> None:
        with woken(driver) as event:
            assert 2 == len(pipes(path))
            with OtherProgram(path, PRODUCER) as other:
                other.hear()
                other.tell("default")
                await_event(event)
        driver.close()

    with woken(driver) as event:
        own = pipes(path)
        code = in_a_child(child)
        left = pipes(path)
        await_event(event)

    assert 0 == code
    assert own == left


def test_closing_in_a_forked_child_leaves_the_parents_pipes_and_thread(
    path: Path, driver: SqliteDriver
) -> None:
    with woken(driver) as event:
        before = pipes(path)
        assert 0 == in_a_child(driver.close)
        after = pipes(path)
        put_some(path)
        await_event(event)

    assert before == after


def test_a_lock_held_at_the_fork_does_not_hold_up_the_child(path: Path, driver: SqliteDriver) -> None:
    bell: Bell = untyped(driver)._bell

    def child() -> None:
        driver.close()
        bell.wake_everybody()

    with woken(driver), untyped(bell)._lock:
        code = in_a_child(child)

    assert 0 == code


def test_what_a_forked_child_enqueues_wakes_the_parent(path: Path, driver: SqliteDriver) -> None:
    with woken(driver) as event:
        assert 0 == in_a_child(lambda: put_some(path))
        await_event(event)

    assert [(1,)] == ask_file(path, "SELECT count(*) FROM taskharbor_job")


DIES_OF_BROKEN_PIPES = """
import signal
from tests.support.sqlite import producing, put
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
with producing(path) as store:
    put(store)
    say("rung")
    wait()
    put(store)
    say("rung again")
"""


def test_a_producer_that_dies_of_broken_pipes_survives_a_killed_waiter(path: Path) -> None:
    with OtherProgram(path, WAITER) as waiter, OtherProgram(path, DIES_OF_BROKEN_PIPES) as producer:
        waiter.hear()
        assert "rung" == producer.hear()
        waiter.process.send_signal(signal.SIGKILL)
        waiter.process.wait()

        producer.tell()

        assert "rung again" == producer.hear()
        producer.end()
    assert 2 == len(stored(path))
