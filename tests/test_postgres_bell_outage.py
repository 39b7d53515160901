"""Wake-ups when connections are cut, servers go and come back, and processes fork."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator

import pytest

pytest.importorskip("psycopg", reason="needs the extra `postgres`")

from taskharbor.drivers.postgres.bell import Bell
from taskharbor.errors import StoreUnavailable
from tests.fixtures.support import ROOT, fork, run_python, untyped
from tests.support.postgres import make_server, server
from tests.support.postgres_bell import (
    LISTENER,
    SENDER,
    THREADS,
    Connection,
    Counter,
    Place,
    await_hearing,
    overhearing,
    watching,
)
from tests.support.work import eventually, threads_named

LOST = "wake-ups from other processes do not arrive"
BACK = "wake-ups from other processes arrive again"
UNSENT = "wake-ups cannot be sent"


@pytest.fixture
def place() -> Generator[Place]:
    made = Place(server().conninfo)
    yield made
    made.close()
    made.remove()


@pytest.fixture(autouse=True)
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Return what is logged."""
    caplog.set_level(logging.INFO, "taskharbor")
    return caplog


# --- lost connections


def test_a_lost_listener_is_replaced_and_everybody_woken(
    place: Place, told: pytest.LogCaptureFixture
) -> None:
    bell, job = place.bell(), Counter()
    with watching(place, bell) as queue:
        remove = bell.subscribe_jobs([place.new_job()], job)
        place.terminate(LISTENER)

        queue.wait_beyond(0)
        job.wait_beyond(0)
        await_hearing(place, bell)
        before = queue.count
        place.bell().ring(["default"], [])
        queue.wait_beyond(before)
        remove()

    assert (1, 1) == (told.text.count(LOST), told.text.count(BACK))


def test_a_sender_that_was_cut_while_idle_sends_the_next_ring_without_a_word(
    place: Place, told: pytest.LogCaptureFixture
) -> None:
    bell = place.bell()
    with watching(place, place.bell()) as woken:
        bell.ring(["default"], [])
        woken.wait_beyond(0)
        place.terminate(SENDER)
        bell.ring(["default"], [])
        woken.wait_beyond(1)

    assert [] == told.records


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs POSIX signals")
def test_a_server_that_has_fallen_silent_is_noticed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    if server().own is None:
        pytest.skip("this server is not ours to stop")
    monkeypatch.setattr("taskharbor.drivers.postgres.bell.listening._CHECK_SECONDS", 0.1)
    monkeypatch.setattr("taskharbor.drivers.postgres.bell.listening._ANSWER_SECONDS", 1)
    with watching(place, place.bell()) as woken:
        (pid,) = place.backends(LISTENER)
        os.kill(pid, signal.SIGSTOP)
        try:
            woken.wait_beyond(0)
        finally:
            os.kill(pid, signal.SIGCONT)


def test_a_quiet_connection_is_asked_for_an_answer_and_kept(
    place: Place, monkeypatch: pytest.MonkeyPatch, told: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("taskharbor.drivers.postgres.bell.listening._CHECK_SECONDS", 0.01)
    bell = place.bell()
    with watching(place, bell) as woken:
        pids = place.backends(LISTENER)

        def asked() -> bool:
            rows = place.do("SELECT query FROM pg_stat_activity WHERE pid = %s", *pids)
            return rows == [("SELECT 1",)]

        eventually(asked, "the server was asked")
        place.bell().ring(["default"], [])
        woken.wait_beyond(0)

        assert pids == place.backends(LISTENER)
    assert [] == told.records


def test_an_opener_that_fails_is_tried_again_and_complained_of_once(
    place: Place, told: pytest.LogCaptureFixture
) -> None:
    left = {LISTENER: 3, SENDER: 3}

    def failing(name: str) -> Callable[[], Connection]:
        def open_() -> Connection:
            left[name] -= 1
            if left[name] == 1:
                raise StoreUnavailable("still away")
            if left[name] > 0:
                raise ValueError("postgresql://me:secret@host refused")
            return place.connect(name)

        return open_

    bell = place.bell(listener=failing(LISTENER), sender=failing(SENDER))
    with watching(place, bell) as woken, watching(place, place.bell()) as elsewhere:
        bell.ring(["default"], [])
        elsewhere.wait_beyond(0)
        place.bell().ring(["default"], [])
        woken.wait_beyond(1)
        eventually(lambda: "wake-ups are sent again" in told.text, "it is said that it works")

    assert (1, 1, 1) == (told.text.count(LOST), told.text.count(BACK), told.text.count(UNSENT))
    assert "secret" not in told.text
    assert f"{LOST}: builtins.ValueError" in told.text


def test_an_outage_gives_its_reason(place: Place, told: pytest.LogCaptureFixture) -> None:
    def open_() -> Connection:
        raise StoreUnavailable("the server is shutting down;\n  wait for it")

    place.bell(listener=open_).subscribe_queues(["default"], Counter())

    eventually(lambda: LOST in told.text, "it is complained of")
    assert "do not arrive: the server is shutting down; wait for it" in told.text


# --- a server that goes


def test_a_server_that_restarts_is_found_again(told: pytest.LogCaptureFixture) -> None:
    with make_server() as own:
        place = Place(own.conninfo)
        waiting, ringing, job = place.bell(), place.bell(), Counter()
        with watching(place, waiting) as woken, overhearing(place):
            remove = waiting.subscribe_jobs([place.new_job()], job)
            ringing.ring(["default"], [])
            woken.wait_beyond(0)

            before = woken.count
            own.restart()
            woken.wait_beyond(before)
            await_hearing(place, waiting)
            before = woken.count
            ringing.ring(["default"], [])
            woken.wait_beyond(before)
            remove()
        place.close()

    assert 1 == told.text.count(LOST)
    assert 1 == told.text.count(BACK)


def test_what_is_rung_while_the_server_is_away_is_sent_when_it_is_back(
    told: pytest.LogCaptureFixture,
) -> None:
    with make_server() as own:
        place = Place(own.conninfo)
        ringing = place.bell()
        own.kill()
        for _ in range(3):
            ringing.ring(["default"], ["some-job"])
        eventually(lambda: UNSENT in told.text, "it is complained of")
        own.start()
        with overhearing(place) as overheard:
            texts: list[str] = []

            def sent() -> bool:
                texts.extend(overheard())
                return bool(texts)

            eventually(sent, "it is sent")
        place.close()

    assert '["default"],["some-job"]' in texts[0]
    assert 1 == told.text.count(UNSENT)


def test_closing_while_the_server_is_dead_ends(told: pytest.LogCaptureFixture) -> None:
    with make_server() as own:
        place = Place(own.conninfo)
        bell = place.bell()
        with watching(place, bell):
            bell.ring(["default"], [])
            own.kill()
            bell.ring(["default"], ["x"])
            eventually(lambda: LOST in told.text, "the loss is noticed")
            bell.close()

            assert [] == threads_named(THREADS)


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


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


@forks
def test_a_forked_child_waits_by_a_connection_of_its_own(place: Place) -> None:
    bell, other = place.bell(), place.bell()

    def child() -> None:
        place.opened.clear()
        with watching(place, bell) as woken:
            assert 2 == len(place.backends(LISTENER))
            place.bell().ring(["default"], [])
            woken.wait_beyond(0)
            assert [LISTENER, SENDER] == place.opened
        bell.close()

    with watching(place, bell) as woken:
        pids = place.backends(LISTENER)
        assert 0 == in_a_child(child)
        woken.wait_beyond(0)
        before = woken.count
        other.ring(["default"], [])
        woken.wait_beyond(before)

        eventually(lambda: pids == place.backends(LISTENER), "the child's connection is closed")


@forks
def test_a_forked_child_wakes_none_of_its_parents_callbacks(place: Place) -> None:
    bell = place.bell()
    counter = Counter()
    remove = bell.subscribe_queues(["default"], counter)
    await_hearing(place, bell)

    def child() -> None:
        counter.count = 0
        bell.wake_everybody()
        remove()
        bell.close()
        assert 0 == counter.count

    assert 0 == in_a_child(child)
    remove()


@forks
def test_what_a_forked_child_rings_wakes_the_parent(place: Place) -> None:
    bell = place.bell()

    def child() -> None:
        bell.ring(["default"], [])
        bell.close()

    with watching(place, bell) as woken, watching(place, place.bell()) as elsewhere:
        bell.ring(["default"], [])  # a connection for sending is there, too
        elsewhere.wait_beyond(0)
        before = woken.count
        assert 0 == in_a_child(child)
        woken.wait_beyond(before)

        before = elsewhere.count
        bell.ring(["default"], [])  # and has remained the parent's
        elsewhere.wait_beyond(before)


@forks
def test_locks_held_at_the_fork_do_not_hold_up_the_child(place: Place) -> None:
    bell = place.bell()

    def child() -> None:
        bell.ring(["default"], [])
        bell.subscribe_queues(["default"], lambda: None)()
        bell.close()

    def hold(bell: Bell) -> Generator[None]:
        inner = untyped(bell)
        with inner._lock, inner._queues._lock, inner._ringing._changed, inner._listening._lock:
            yield

    with watching(place, bell):
        bell.ring(["default"], [])
        ready, done = threading.Event(), threading.Event()

        def other_thread() -> None:
            for _ in hold(bell):
                ready.set()
                done.wait()

        holder = threading.Thread(target=other_thread)
        holder.start()
        ready.wait()
        try:
            assert 0 == in_a_child(child)
        finally:
            done.set()
            holder.join()


CHILD_THAT_EXITS = """
import os, sys, threading, warnings
import psycopg
from taskharbor.drivers.postgres.bell import Bell
conninfo, schema = sys.argv[1:]
def open_():
    return psycopg.connect(conninfo, autocommit=True)
bell = Bell(open_, open_, schema, schema)
woken = threading.Event()
bell.subscribe_queues(["default"], woken.set)
assert woken.wait(20)
bell.ring(["default"], [])
warnings.simplefilter("ignore", DeprecationWarning)
child = os.fork()
warnings.simplefilter("error")
if child == 0:
    bell.ring(["other"], [])
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
woken.clear()
with open_() as connection:
    connection.execute("SELECT pg_notify(%s, 'x')", (schema,))
assert woken.wait(20)
bell.close()
print("done")
"""


@forks
@pytest.mark.skipif(sys.platform == "darwin", reason="libpq with Kerberos does not bear forks there")
def test_a_forked_child_that_exits_as_programs_do_leaves_the_parents_connections(place: Place) -> None:
    said = run_python("-W", "error", "-c", CHILD_THAT_EXITS, place.conninfo, place.schema, paths=[ROOT])

    assert "done\n" == said
