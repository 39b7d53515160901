"""Jobs that somebody waits for: their rows are marked, so that whoever ends them rings."""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator
from uuid import uuid4

import pytest

pytest.importorskip("psycopg", reason="needs the extra `postgres`")

from taskharbor.drivers.postgres.bell.awaiting import mark
from tests.support.postgres import server
from tests.support.postgres_bell import LISTENER, SENDER, Connection, Counter, Place, watching
from tests.support.work import await_event, eventually


@pytest.fixture
def place() -> Generator[Place]:
    made = Place(server().conninfo)
    yield made
    made.close()
    made.remove()


def test_a_job_that_somebody_waits_for_is_marked_and_no_other(place: Place) -> None:
    first, second, other = place.new_job(), place.new_job(), place.new_job()

    remove = place.bell().subscribe_jobs([first, second], Counter())

    eventually(lambda: place.marked(first) and place.marked(second), "they are marked")
    assert not place.marked(other)
    remove()


def test_the_mark_is_set_once_one_listens_and_not_before(place: Place) -> None:
    gate, job_id = threading.Event(), place.new_job()

    def open_late() -> Connection:
        await_event(gate)
        return place.connect(LISTENER)

    bell = place.bell(listener=open_late)
    with watching(place, place.bell()) as woken:
        remove = bell.subscribe_jobs([job_id], Counter())
        bell.ring(["default"], [])  # goes the same way, and later
        woken.wait_beyond(0)
        before = place.marked(job_id)
        gate.set()
        eventually(lambda: place.marked(job_id), "it is marked")
        remove()

    assert not before


def test_who_waits_for_a_job_that_goes_on_is_not_woken(place: Place) -> None:
    woken, bell = Counter(), place.bell()
    with watching(place, bell):
        job_id = place.new_job()
        remove = bell.subscribe_jobs([job_id], woken)
        eventually(lambda: place.marked(job_id), "it is marked")
        remove()

        assert 0 == woken.count


ABSENT = "01a20248-65ab-7800-87a5-f631b6416901"


@pytest.mark.parametrize("job_id", [ABSENT, "", "x", "4711", ABSENT.upper(), "{", "'; --"])
def test_who_waits_for_a_job_that_is_not_there_is_woken(place: Place, job_id: str) -> None:
    woken = Counter()

    remove = place.bell().subscribe_jobs([job_id], woken)

    woken.wait_beyond(0)
    remove()


def test_a_job_that_is_not_there_keeps_no_other_from_being_marked(place: Place) -> None:
    woken, job_id = Counter(), place.new_job()

    remove = place.bell().subscribe_jobs(["no id", str(uuid4()), job_id], woken)

    eventually(lambda: place.marked(job_id), "it is marked")
    woken.wait_beyond(0)
    remove()


def test_two_who_wait_for_one_job_are_both_served(place: Place) -> None:
    first, second = Counter(), Counter()
    job_id = place.new_job()
    bells = place.bell(), place.bell()

    removes = [
        bell.subscribe_jobs([job_id], woken) for bell, woken in zip(bells, (first, second), strict=True)
    ]
    eventually(lambda: place.marked(job_id), "it is marked")
    for bell in bells:  # each has been answered by now, or will be: the row is marked for both
        with watching(place, bell):
            pass
    before = first.count, second.count
    place.bell().ring([], [job_id])

    first.wait_beyond(before[0])
    second.wait_beyond(before[1])
    for remove in removes:
        remove()


def test_very_many_jobs_are_all_marked(place: Place) -> None:
    place.do("INSERT INTO {job} (id, due) SELECT gen_random_uuid(), 'infinity' FROM generate_series(1, 3500)")
    ids = [str(job_id) for (job_id,) in place.do("SELECT id FROM {job}")]

    remove = place.bell().subscribe_jobs(ids, Counter())

    eventually(lambda: not place.do("SELECT FROM {job} WHERE NOT awaited LIMIT 1"), "all are marked")
    remove()


@pytest.mark.parametrize(
    ("due", "token"), [("1 hour", None), ("-1 hour", None), ("-1 hour", 1), ("0", 1)], ids=str
)
def test_jobs_are_marked_whether_they_wait_or_run(place: Place, due: str, token: int | None) -> None:
    job_id = place.new_job(due=due, token=token)

    remove = place.bell().subscribe_jobs([job_id], Counter())

    eventually(lambda: place.marked(job_id), "it is marked")
    remove()


def test_a_job_that_a_worker_has_just_taken_is_marked_at_once(place: Place) -> None:
    job_id = place.new_job(due="0")

    with place.connect() as connection:
        assert ([], []) == mark(connection, place.schema, [job_id])

    assert place.marked(job_id)


def test_a_job_that_has_just_become_due_is_left_to_the_workers_and_marked_later(place: Place) -> None:
    """A reserve would pass over the locked row of the very job that it was woken for."""
    with place.connect() as connection:

        def left_alone() -> bool:  # a slow machine may look too late at the first one
            fresh = place.new_job(due="0", token=None)
            return mark(connection, place.schema, [fresh]).held == [fresh]

        eventually(left_alone, "a job is left alone")
    fresh = place.new_job(due="0", token=None)
    remove = place.bell().subscribe_jobs([fresh], Counter())

    eventually(lambda: place.marked(fresh), "it is marked after all")
    remove()


# --- rows that somebody holds


def test_a_held_row_keeps_no_other_from_being_marked_and_is_marked_when_it_is_free(place: Place) -> None:
    held, free = place.new_job(), place.new_job()

    with place.connect() as holder, holder.transaction():
        place.do_on(holder, "SELECT FROM {job} WHERE id = %s FOR UPDATE", held)
        remove = place.bell().subscribe_jobs([held, free], Counter())
        eventually(lambda: place.marked(free), "the free one is marked")
        assert not place.marked(held)

    eventually(lambda: place.marked(held), "the held one is marked, too")
    remove()


def test_a_job_that_ends_while_its_row_is_held_wakes_who_came_too_late_for_its_end(place: Place) -> None:
    job_id, other, woken = place.new_job(), place.new_job(), Counter()

    with place.connect() as holder, holder.transaction():
        ((awaited,),) = place.do_on(holder, "DELETE FROM {job} WHERE id = %s RETURNING awaited", job_id)
        remove = place.bell().subscribe_jobs([job_id, other], woken)
        eventually(lambda: place.marked(other), "it has been asked for")
        before = woken.count

    assert not awaited  # so whoever ended it does not ring
    woken.wait_beyond(before)
    remove()


def test_a_row_that_was_changed_meanwhile_is_marked(place: Place) -> None:
    job_id, other = place.new_job(), place.new_job()

    with place.connect() as holder, holder.transaction():
        place.do_on(holder, "UPDATE {job} SET awaited = false WHERE id = %s", job_id)
        remove = place.bell().subscribe_jobs([job_id, other], Counter())
        eventually(lambda: place.marked(other), "it has been asked for")

    eventually(lambda: place.marked(job_id), "it is marked")
    remove()


def test_a_held_job_that_nobody_waits_for_any_more_is_not_marked(place: Place) -> None:
    bell = place.bell()
    held, free, later, last = (place.new_job() for _ in range(4))

    with place.connect() as holder, holder.transaction():
        place.do_on(holder, "SELECT FROM {job} WHERE id = %s FOR UPDATE", held)
        remove = bell.subscribe_jobs([held, free], Counter())
        eventually(lambda: place.marked(free), "the held one has been asked for")
        remove()
        remove = bell.subscribe_jobs([later], Counter())
        # Whatever began before nobody waited any more has ended by then.
        eventually(lambda: place.marked(later), "another is marked")
        remove()
    remove = bell.subscribe_jobs([last], Counter())
    eventually(lambda: place.marked(last), "one is marked after the first is free")

    assert not place.marked(held)
    remove()


def test_who_stopped_waiting_before_one_listens_costs_no_mark(place: Place) -> None:
    gate, job_id, later = threading.Event(), place.new_job(), place.new_job()

    def open_late() -> Connection:
        await_event(gate)
        return place.connect(LISTENER)

    bell = place.bell(listener=open_late)
    bell.subscribe_jobs([job_id], Counter())()
    remove = bell.subscribe_jobs([later], Counter())
    gate.set()
    eventually(lambda: place.marked(later), "the other one is marked")

    assert not place.marked(job_id)
    remove()


def test_marking_waits_for_no_lock(place: Place) -> None:
    bell, held = place.bell(), place.new_job()

    with place.connect() as holder, holder.transaction():
        place.do_on(holder, "SELECT FROM {job} WHERE id = %s FOR UPDATE", held)
        remove = bell.subscribe_jobs([held], Counter())
        with watching(place, place.bell()) as woken:  # rings go on meanwhile
            for before in range(3):
                bell.ring(["default"], [])
                woken.wait_beyond(before)
        remove()


# --- what may be wrong


def test_marks_are_set_anew_when_the_listening_connection_was_lost(place: Place) -> None:
    job_id, woken = place.new_job(), Counter()
    remove = place.bell().subscribe_jobs([job_id], woken)
    eventually(lambda: place.marked(job_id), "it is marked")

    place.do("UPDATE {job} SET awaited = false")  # as a crash of the server may leave it
    place.terminate(LISTENER)

    eventually(lambda: place.marked(job_id), "it is marked again")
    remove()


def test_a_job_that_ended_while_nobody_listened_wakes_who_waits(place: Place) -> None:
    gate = threading.Event()
    gate.set()

    def open_when_told() -> Connection:
        await_event(gate)
        return place.connect(LISTENER)

    job_id, woken = place.new_job(), Counter()
    remove = place.bell(listener=open_when_told).subscribe_jobs([job_id], woken)
    eventually(lambda: place.marked(job_id), "it is marked")
    gate.clear()
    place.terminate(LISTENER)
    before = woken.count
    place.do("DELETE FROM {job}")
    place.bell().ring([], [job_id])
    gate.set()

    woken.wait_beyond(before)
    remove()


def test_marks_that_cannot_be_set_hold_up_no_ring_and_are_complained_of_once(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "taskharbor")
    bell, job_id = place.bell(), place.new_job()
    place.do("ALTER TABLE {job} RENAME TO hidden")

    remove = bell.subscribe_jobs([job_id], Counter())
    eventually(lambda: "cannot be marked" in caplog.text, "it is complained of")
    with watching(place, place.bell()) as woken:
        bell.ring(["default"], [])
        woken.wait_beyond(0)
    place.do("ALTER TABLE {schema}.hidden RENAME TO job")
    eventually(lambda: place.marked(job_id), "it is marked")
    eventually(lambda: "jobs are marked as awaited again" in caplog.text, "it is said that it works")
    remove()

    assert 1 == caplog.text.count("cannot be marked")


def test_a_sender_that_was_cut_while_idle_marks_without_a_word(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    bell, first, second = place.bell(), place.new_job(), place.new_job()
    remove_first = bell.subscribe_jobs([first], Counter())
    eventually(lambda: place.marked(first), "the first is marked")

    place.terminate(SENDER)
    remove_second = bell.subscribe_jobs([second], Counter())

    eventually(lambda: place.marked(second), "the second is marked")
    assert [] == caplog.records
    remove_first()
    remove_second()
