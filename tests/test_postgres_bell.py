"""Wake-ups by LISTEN and NOTIFY: who is woken, how often, and what it costs those who wait for nothing."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Generator
from uuid import uuid4

import pytest

pytest.importorskip("psycopg", reason="needs the extra `postgres`")

from taskharbor.drivers.postgres.bell import Bell
from taskharbor.drivers.postgres.bell.agenda import RING_WINDOW
from taskharbor.drivers.postgres.bell.notice import ANYBODY, payloads
from tests.fixtures.support import ROOT, run_python
from tests.support.postgres import server
from tests.support.postgres_bell import (
    LISTENER,
    SENDER,
    THREADS,
    Connection,
    Counter,
    Place,
    await_heard,
    await_hearing,
    notices,
    overhearing,
    watching,
)
from tests.support.work import await_event, eventually, threads_named

RINGING, LISTENING = "taskharbor-bell-ringing", "taskharbor-bell-listening"


@pytest.fixture
def place() -> Generator[Place]:
    made = Place(server().conninfo)
    yield made
    made.close()
    made.remove()


# --- who is woken


def test_a_ring_wakes_who_watches_that_queue_with_another_bell(place: Place) -> None:
    with watching(place, place.bell(), "mail", "video") as woken:
        place.bell().ring(["mail"], [])

        woken.wait_beyond(0)


def test_a_ring_wakes_nobody_who_watches_another_queue(place: Place) -> None:
    bell = place.bell()
    with watching(place, bell, "video") as video, watching(place, bell, "mail") as mail:
        place.bell().ring(["mail"], [])
        mail.wait_beyond(0)
        await_heard(place, bell)

        assert 0 == video.count


def test_a_ring_wakes_who_waits_for_that_job_with_another_bell(place: Place) -> None:
    bell, job_id, woken = place.bell(), place.new_job(), Counter()
    remove = bell.subscribe_jobs([job_id], woken)
    eventually(lambda: place.marked(job_id), "the job is marked")
    before = woken.count

    place.bell().ring([], [job_id])

    woken.wait_beyond(before)
    remove()


def test_who_watches_is_woken_once_it_listens_as_something_may_have_been_missed(place: Place) -> None:
    woken = Counter()

    remove = place.bell().subscribe_queues(["default"], woken)

    woken.wait_beyond(0)
    remove()


def test_who_watches_two_queues_that_are_rung_together_is_woken_once(place: Place) -> None:
    bell = place.bell()
    with watching(place, bell, "mail", "video") as woken:
        with watching(place, place.bell(), "video") as elsewhere:
            bell.ring(["mail", "video"], [])
            elsewhere.wait_beyond(0)

        assert 1 == woken.count


def test_ones_own_ring_wakes_without_the_server(place: Place) -> None:
    def unreachable() -> Connection:
        raise OSError("no network")

    bell, woken = place.bell(sender=unreachable, listener=unreachable), Counter()
    queue, job = bell.subscribe_queues(["default"], woken), bell.subscribe_jobs([str(uuid4())], woken)

    bell.ring(["default"], [])

    assert 1 == woken.count
    queue()
    job()


def test_ones_own_ring_wakes_once_and_not_again_when_it_comes_back(place: Place) -> None:
    bell = place.bell()
    with watching(place, bell) as woken, watching(place, place.bell()) as elsewhere:
        bell.ring(["default"], [])
        elsewhere.wait_beyond(0)
        await_heard(place, bell)

        assert 1 == woken.count


def test_who_has_gone_is_not_woken_and_the_others_are(place: Place) -> None:
    bell = place.bell()
    with watching(place, bell) as staying:
        with watching(place, bell) as going:
            pass
        going.count = 0
        place.bell().ring(["default"], [])
        staying.wait_beyond(0)

        assert 0 == going.count


def test_everybody_can_be_woken(place: Place) -> None:
    bell, job = place.bell(), Counter()
    with watching(place, bell) as queue:
        remove = bell.subscribe_jobs([str(uuid4())], job)
        before = job.count
        bell.wake_everybody()
        remove()

        assert 1 == queue.count
        job.wait_beyond(before)


def test_of_transactions_at_once_one_tells_and_the_bell_itself_repeats_it(place: Place) -> None:
    bell = place.bell()

    with watching(place, bell) as here, watching(place, place.bell()) as elsewhere:
        told = [bell.announce(["default"], by=number) for number in (1, 2, 1)]
        for woken in (here, elsewhere):
            woken.wait_beyond(0)

    notice = payloads(ANYBODY, ["default"], [])
    assert [notice, [], notice] == told


def test_many_queues_and_jobs_in_one_ring_wake_all(place: Place) -> None:
    bell = place.bell()
    queues = [f"a queue with some name {number}" for number in range(1500)]
    jobs = [str(uuid4()) for _ in range(1500)]

    with (
        watching(place, bell, queues[0]) as first,
        watching(place, bell, queues[-1]) as last,
        overhearing(place) as overheard,
    ):
        place.bell().ring(queues, jobs)
        first.wait_beyond(0)
        last.wait_beyond(0)
        texts: list[str] = []

        def told() -> set[str]:
            texts.extend(overheard())
            return {job for notice in notices(texts) for job in notice.jobs or ()}

        eventually(lambda: set(jobs) == told(), "all jobs are told of")


@pytest.mark.parametrize("payload", ["", "hello", "{}", '["me",[1],[2]]', '["x",null,null]', "[" * 3000])
def test_what_somebody_else_says_on_the_channel_does_no_harm(place: Place, payload: str) -> None:
    with watching(place, place.bell()) as woken:
        place.notify(payload)
        woken.wait_beyond(0)

        before = woken.count
        place.bell().ring(["default"], [])
        woken.wait_beyond(before)


def test_a_channel_with_a_name_too_long_for_the_server_is_no_hindrance(place: Place) -> None:
    def bell(channel: str) -> Bell:
        made = Bell(place.opener(LISTENER), place.opener(SENDER), channel, place.schema)
        place.bells.append(made)
        return made

    ours, others = (f"{place.schema}-{'ü' * 40}-{end}" for end in ("ours", "others"))
    woken, not_woken = Counter(), Counter()
    waiting, elsewhere = bell(ours), bell(others)
    waiting.subscribe_queues(["default"], woken)
    elsewhere.subscribe_queues(["default"], not_woken)
    woken.wait_beyond(0)  # they listen
    not_woken.wait_beyond(0)
    before = woken.count
    bell(ours).ring(["default"], [])

    woken.wait_beyond(before)
    assert 1 == not_woken.count


# --- how often


def test_many_rings_are_sent_as_few_and_the_last_one_is_not_lost(place: Place) -> None:
    bell = place.bell()
    with overhearing(place) as overheard:
        began = time.monotonic()
        for number in range(2000):
            bell.ring(["default"], [f"job-{number}"])
        bell.close()
        took = time.monotonic() - began
        said = list(notices(overheard()))

    # The last one goes when the bell is closed, ahead of its time.
    assert len([notice for notice in said if notice.queues]) <= took / RING_WINDOW + 2
    jobs = [job for notice in said for job in notice.jobs or ()]
    assert [f"job-{number}" for number in range(2000)] == jobs


def test_a_ring_is_sent_before_its_window_ends_only_once(place: Place) -> None:
    bell = place.bell()
    with overhearing(place) as overheard:
        texts: list[str] = []

        def count() -> int:
            texts.extend(overheard())
            return len(texts)

        bell.ring(["default"], [])
        eventually(lambda: count() == 1, "the first is sent at once")
        bell.ring(["default"], [])
        eventually(lambda: count() == 2, "the second is sent by itself")


# --- what it costs


def test_a_process_that_only_rings_does_not_listen_and_keeps_its_connection(place: Place) -> None:
    bell = place.bell()
    with overhearing(place) as overheard:
        for _ in range(3):
            bell.ring(["default"], [])
            eventually(lambda: bool(overheard()), "it is sent")

    assert [SENDER] == place.opened


def test_a_process_that_only_waits_for_queues_does_not_send(place: Place) -> None:
    with watching(place, place.bell()):
        pass

    assert [LISTENER] == place.opened


def test_a_bell_that_is_not_used_costs_nothing(place: Place) -> None:
    bell = place.bell()

    bell.ring([], [])
    bell.wake_everybody()
    bell.subscribe_queues([], Counter())()

    assert [] == place.opened
    assert [] == threads_named(THREADS)


def test_a_sender_that_is_not_used_is_closed_and_opened_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskharbor.drivers.postgres.bell.ringing._IDLE_SECONDS", 0.01)
    bell = place.bell()
    with watching(place, place.bell()) as woken:
        for before in range(2):
            bell.ring(["default"], [])
            woken.wait_beyond(before)
            eventually(lambda: not threads_named(RINGING), "its thread ends")
            eventually(lambda: not place.backends(SENDER), "its connection is closed")


def test_one_stops_listening_when_nobody_waits_any_more_and_begins_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskharbor.drivers.postgres.bell.listening._LINGER_SECONDS", 0.01)
    monkeypatch.setattr("taskharbor.drivers.postgres.bell.listening._CHECK_SECONDS", 0.01)
    bell = place.bell()
    for _ in range(2):
        with watching(place, bell) as woken:
            place.bell().ring(["default"], [])
            woken.wait_beyond(0)
        eventually(lambda: not threads_named(LISTENING), "its thread ends")
        eventually(lambda: not place.backends(LISTENER), "its connection is closed")


def test_who_asks_for_one_result_after_another_does_not_connect_each_time(place: Place) -> None:
    bell = place.bell()
    for _ in range(5):
        with watching(place, bell):
            pass

    assert [LISTENER] == place.opened


def test_a_ring_returns_while_the_connection_is_not_there_yet(place: Place) -> None:
    gate = threading.Event()

    def slow() -> Connection:
        await_event(gate)
        return place.connect()

    bell = place.bell(sender=slow)
    with watching(place, place.bell()) as woken:
        bell.ring(["default"], [])  # would wait for the gate for ever
        gate.set()
        woken.wait_beyond(0)


# --- callbacks


def test_a_callback_that_fails_hinders_neither_the_others_nor_the_ring(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("this loop is closed")

    bell, other = place.bell(), place.bell()
    failing = bell.subscribe_queues(["default"], fail)
    with watching(place, bell) as woken:
        bell.ring(["default"], [])
        other.ring(["default"], [])
        woken.wait_beyond(1)
        before = woken.count
        other.ring(["default"], [])  # its thread goes on
        woken.wait_beyond(before)
    failing()

    assert "a wake-up could not be delivered" in caplog.text


def test_callbacks_that_are_equal_or_cannot_be_hashed_are_kept_apart(place: Place) -> None:
    calls: list[str] = []

    class Odd:  # noqa: PLW1641 - equal to all, and not hashable
        def __eq__(self, other: object) -> bool:
            return True

        def __call__(self) -> None:
            calls.append("woken")

    bell = place.bell()
    first, second = bell.subscribe_queues(["q"], Odd()), bell.subscribe_queues(["q"], Odd())
    await_hearing(place, bell)
    calls.clear()
    first()
    first()  # idempotent
    bell.ring(["q"], [])
    second()

    assert ["woken"] == calls


def test_a_callback_may_close_the_bell(place: Place) -> None:
    bell, closed = place.bell(), threading.Event()

    def close() -> None:
        bell.close()
        closed.set()

    bell.subscribe_queues(["default"], close)

    await_event(closed)
    eventually(lambda: not threads_named(THREADS), "the threads end")
    eventually(lambda: not place.backends(LISTENER), "the connection is closed")


def test_a_callback_may_watch_more_and_ring(place: Place) -> None:
    bell, done = place.bell(), threading.Event()

    def change() -> None:
        bell.subscribe_queues(["more"], lambda: None)()
        bell.ring(["other"], [])
        done.set()

    with watching(place, place.bell(), "other") as woken:
        remove = bell.subscribe_queues(["default"], change)
        await_event(done)
        woken.wait_beyond(0)
        remove()


def test_threads_that_watch_ring_and_leave_at_once_all_get_through(place: Place) -> None:
    waiting, ringing = place.bell(), place.bell()
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(20):
                counter = Counter()
                remove = waiting.subscribe_queues([f"queue-{number}"], counter)
                await_hearing(place, waiting)
                before = counter.count
                ringing.ring([f"queue-{number}"], [])
                counter.wait_beyond(before)
                remove()
        except BaseException as error:  # noqa: BLE001 - shown below
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [] == failed


# --- beginning and end


def test_closing_sends_what_was_rung_and_leaves_nothing(place: Place) -> None:
    bell = place.bell()
    with overhearing(place) as overheard:
        remove = bell.subscribe_queues(["default"], Counter())
        bell.ring(["default"], [])
        bell.ring(["default"], ["x"])
        bell.close()
        bell.close()

        said = list(notices(overheard()))

    assert ["x"] == [job for notice in said for job in notice.jobs or ()]
    assert [] == threads_named(THREADS)
    eventually(lambda: not place.backends(LISTENER) + place.backends(SENDER), "the connections are closed")
    remove()


def test_a_closed_bell_can_be_used_anew(place: Place) -> None:
    bell, other = place.bell(), place.bell()
    for _ in range(2):
        with watching(place, bell) as woken:
            other.ring(["default"], [])
            woken.wait_beyond(0)
        bell.close()
        other.close()


def test_closing_gives_up_on_a_connection_that_cannot_be_opened(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ringing", "listening"):
        monkeypatch.setattr(f"taskharbor.drivers.postgres.bell.{name}._CLOSE_SECONDS", 0.01)
    gate = threading.Event()

    def stuck() -> Connection:
        await_event(gate)
        return place.connect(LISTENER)

    bell = place.bell(listener=stuck, sender=stuck)
    bell.subscribe_queues(["default"], Counter())
    bell.ring(["default"], [])
    eventually(lambda: len(threads_named(THREADS)) == 2, "both threads are there")

    bell.close()  # would wait for the gate for ever

    gate.set()
    eventually(lambda: not threads_named(THREADS), "the threads end by themselves")
    eventually(lambda: not place.backends(LISTENER), "what they opened is closed")


PROGRAM = """
import sys
import psycopg
from taskharbor.drivers.postgres.bell import Bell
conninfo, schema = sys.argv[1:]
def open_():
    return psycopg.connect(conninfo, autocommit=True)
bell = Bell(open_, open_, schema, schema)
"""


@pytest.mark.parametrize("end", ["", "sys.exit()", "bell.close()"])
def test_a_program_that_ends_right_after_its_ring_is_heard(place: Place, end: str) -> None:
    with watching(place, place.bell()) as woken:
        run_python(
            *("-W", "error", "-c", f"{PROGRAM}\nbell.ring(['default'], [])\n{end}"),
            *(place.conninfo, place.schema),
            paths=[ROOT],
        )

        woken.wait_beyond(0)


@pytest.mark.skipif(sys.platform == "win32", reason="no sockets of that kind")
def test_a_program_that_waits_is_woken_by_another_process(place: Place) -> None:
    program = f"""{PROGRAM}
import threading
woken = threading.Event()
bell.subscribe_queues(["default"], woken.set)
assert woken.wait(20)  # it listens
woken.clear()
with open_() as connection:
    connection.execute("SELECT pg_notify(%s, %s)", (schema + "_up", ""))
assert woken.wait(20)
print("woken")
"""
    said: list[str] = []

    def wait() -> None:
        said.append(run_python("-W", "error", "-c", program, place.conninfo, place.schema, paths=[ROOT]))

    with place.connect() as connection:
        connection.execute(f"LISTEN {place.schema}_up".encode())
        process = threading.Thread(target=wait)
        process.start()
        assert list(connection.notifies(timeout=20, stop_after=1))
        place.bell().ring(["default"], [])
        process.join()

    assert ["woken\n"] == said
