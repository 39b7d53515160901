"""An embedded PostgreSQL with many users: started by the first, stopped by the last, found again after crashes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.fixtures.support import fork

if sys.platform == "win32":
    pytest.skip("needs POSIX", allow_module_level=True)

import fcntl

import psycopg

from taskharbor.drivers.postgres.embedded import Server
from taskharbor.drivers.postgres.embedded.account import account_for
from taskharbor.drivers.postgres.embedded.processes import Postmaster, processes
from tests.support.embedded import ask, cleaned, do, made, server_in, user, users
from tests.support.led import lives
from tests.support.postgres import new_folder, package_binaries
from tests.support.work import eventually


@pytest.fixture
def folder() -> Generator[Path]:
    with made() as folder:
        yield folder


@pytest.fixture
def fresh() -> Generator[Path]:
    """Where no folder is yet."""
    folder = new_folder()
    with cleaned(folder):
        yield folder


def cluster_name(server: Server) -> str:
    return server._cluster.name  # pyright: ignore[reportPrivateUsage]


# --- several users


def test_a_second_process_uses_the_server_of_the_first_and_the_last_one_stops_it(folder: Path) -> None:
    server = server_in(folder)
    server.start()
    pid = server.pid
    with user(folder) as other:
        assert str(pid) == other.hear()

        server.stop()

        assert server.running
        other.say()
        assert "left" == other.hear()
        assert not lives(pid)


def test_two_servers_of_one_process_are_two_users(folder: Path) -> None:
    first, second = server_in(folder), server_in(folder)
    first.start()
    second.start()

    first.stop()

    assert second.running
    second.stop()
    assert not second.running


def test_a_folder_reached_by_another_path_has_the_same_server(folder: Path) -> None:
    link = new_folder()
    link.symlink_to(folder)
    first, second = server_in(folder), server_in(link)

    same = first.start() == second.start()
    first.stop()
    stayed = second.running
    second.stop()
    link.unlink()

    assert (True, True) == (same, stayed)
    assert not first.running


def test_a_folder_that_is_moved_while_its_server_runs_keeps_it(folder: Path) -> None:
    first = server_in(folder)
    first.start()
    pid = first.pid
    elsewhere = new_folder()
    folder.rename(elsewhere)

    with cleaned(elsewhere):
        second = server_in(elsewhere)
        told = ask(second.start(), "select 1")
        same = second.pid == pid
        first.stop()
        stayed = second.running
        second.stop()

        assert (1, True, True) == (told, same, stayed)
        assert not lives(pid)


def test_many_processes_that_start_it_at_once_start_one(fresh: Path) -> None:
    with users(fresh, 4) as others:
        pids = {other.hear() for other in others}

        assert 1 == len(pids)
        for other in others:
            other.say()
        assert ["left"] * 4 == [other.hear() for other in others]
    assert not server_in(fresh).running


def test_a_killed_user_leaves_it_running_and_the_next_one_finds_it(folder: Path) -> None:
    with user(folder) as other:
        pid = int(other.hear())
        other.kill()
    assert lives(pid)

    server = server_in(folder)
    server.start()

    assert pid == server.pid
    server.stop()
    assert not lives(pid)


def test_a_user_that_ends_without_a_word_leaves_too(folder: Path) -> None:
    with user(folder, "server.start(); say(server.pid); hear()") as other:
        pid = int(other.hear())
        other.say()
        assert 0 == other.end()

    assert not lives(pid)


def test_an_interrupt_at_the_terminal_is_not_for_the_server(folder: Path) -> None:
    program = """
import os, signal
# Not by an exception: one may be raised where Python can only ignore it.
signal.signal(signal.SIGINT, lambda *_: os.write(1, b"interrupted\\n"))
server.start()
say(server.pid)
hear()
"""
    with user(folder, program) as other:
        pid = int(other.hear())

        os.killpg(other.pid, signal.SIGINT)

        assert "interrupted" == other.hear()
        assert lives(pid)
        assert 1 == ask(server_in(folder).conninfo, "select 1")


def test_a_start_that_is_interrupted_leaves_no_server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = server_in(folder)

    def interrupted() -> Postmaster | None:
        if processes(cluster_name(server)):
            raise KeyboardInterrupt
        return None

    monkeypatch.setattr(server._cluster, "found", interrupted)  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(KeyboardInterrupt):
        server.start()

    assert [] == processes(cluster_name(server))
    monkeypatch.undo()
    assert server_in(folder).start()


def test_a_forked_child_stops_nothing(folder: Path) -> None:
    server = server_in(folder)
    server.start()

    child = fork()
    if child == 0:  # pragma: no cover
        server.stop()
        os._exit(0)
    os.waitpid(child, 0)

    assert server.running
    server.stop()
    assert not server.running


def test_a_forked_child_that_starts_it_is_a_user_of_its_own(folder: Path) -> None:
    server = server_in(folder)
    server.start()
    started, to_parent = os.pipe()
    from_parent, may_end = os.pipe()

    child = fork()
    if child == 0:  # pragma: no cover
        os.close(may_end)
        server.start()
        os.write(to_parent, b".")
        os.read(from_parent, 1)
        server.stop()
        os._exit(0)
    os.close(from_parent)
    os.read(started, 1)
    server.stop()
    stayed = server.running
    os.close(may_end)
    os.waitpid(child, 0)
    for fd in (started, to_parent):
        os.close(fd)

    assert stayed
    assert not server.running


def test_a_child_that_outlives_its_parent_s_use_keeps_nobody_waiting(folder: Path) -> None:
    server = server_in(folder)
    server.start()
    from_parent, may_end = os.pipe()
    child = fork()
    if child == 0:  # pragma: no cover
        os.close(may_end)
        os.read(from_parent, 1)
        os._exit(0)
    os.close(from_parent)

    server.stop()

    assert not server.running
    assert 1 == ask(server_in(folder).start(), "select 1")
    os.close(may_end)
    os.waitpid(child, 0)


def test_threads_may_share_it(folder: Path) -> None:
    server = server_in(folder)
    told: list[str] = []
    threads = [threading.Thread(target=lambda: told.append(server.start())) for _ in range(4)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [server.conninfo] * 4 == told
    server.stop()
    assert not server.running


def test_a_folder_that_was_removed_is_left_without_an_error(folder: Path) -> None:
    server = server_in(folder)
    server.start()
    pid = server.pid
    shutil.rmtree(folder)

    server.stop()

    assert not lives(pid)
    assert not folder.exists()


# --- crashes


def test_a_killed_server_recovers_what_was_committed(fresh: Path) -> None:
    server = Server(fresh, binaries=package_binaries())
    conninfo = server.start()
    do(conninfo, "create table t (n int)", "insert into t values (7)")
    pid = server.pid
    with psycopg.connect(conninfo) as held:
        held.execute("insert into t values (8)")

        server.kill()

        assert not server.running
        assert not lives(pid)
        assert (fresh / "data" / "postmaster.pid").exists()
        with pytest.raises(psycopg.OperationalError):
            held.execute("select 1")

    assert 7 == ask(server.start(), "select sum(n)::int from t")
    assert pid != server.pid
    server.stop()


def test_what_a_killed_postmaster_leaves_behind_does_not_stand_in_the_way(folder: Path) -> None:
    server = server_in(folder)
    conninfo = server.start()
    with psycopg.connect(conninfo, autocommit=True) as held:
        backend = held.info.backend_pid
        # It cannot notice that its postmaster is gone, and keeps the memory that they shared.
        os.kill(backend, signal.SIGSTOP)
        postmaster = server.pid
        os.kill(postmaster, signal.SIGKILL)
        eventually(lambda: not lives(postmaster), "its end")

        conninfo = server.start()

        assert not lives(backend)
    assert 1 == ask(conninfo, "select 1")
    server.stop()


def test_a_number_that_is_somebody_else_s_by_now_is_not_taken_for_the_server(folder: Path) -> None:
    server = server_in(folder)
    server.start()
    pid = server.pid
    server.kill()
    account = account_for(folder / "data")
    other = subprocess.Popen(
        ["sleep", "1000"], user=account.uid if account.switched else None, start_new_session=True
    )
    for name in ("data/postmaster.pid", "socket/.s.PGSQL.54329.lock"):
        text = (folder / name).read_text()
        (folder / name).write_text(text.replace(str(pid), str(other.pid), 1))

    running = server.running
    told = ask(server.start(), "select 1")
    server.stop()
    spared = other.poll() is None
    other.kill()
    other.wait()

    assert (False, 1, True) == (running, told, spared)


def is_starting(folder: Path) -> bool:
    """Return whether somebody is starting or stopping the server of a folder."""
    with (folder / "lock").open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_a_server_that_is_stopping_is_waited_for(folder: Path) -> None:
    server = server_in(folder)
    conninfo = server.start()
    pid = server.pid
    with psycopg.connect(conninfo):
        os.kill(pid, signal.SIGTERM)  # "smart": it ends when its clients have
        eventually(lambda: not server.running, "its stopping")
        starting = threading.Thread(target=server_in(folder).start)
        starting.start()
        eventually(lambda: is_starting(folder), "the start to begin")

        assert lives(pid)

    starting.join()
    assert server.running
    assert pid != server.pid
    server.stop()


def test_without_proc_processes_are_found_as_well(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskharbor.drivers.postgres.embedded.processes._PROC", folder / "no-such-folder")
    server = server_in(folder)
    server.start()
    first, found = server.pid, processes(cluster_name(server))

    server.kill()
    server.start()
    second = server.pid
    server.stop()

    assert first in found
    assert 1 < len(found)
    assert not lives(first)
    assert not lives(second)
