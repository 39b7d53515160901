"""What is sent when, and what a notice says: decisions, without any server."""

from __future__ import annotations

import json
from math import inf
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("psycopg", reason="needs the extra `postgres`")

from taskharbor.drivers.postgres.bell.agenda import (
    ASK_WINDOW,
    ECHO_WINDOW,
    MOST_ASKED,
    MOST_NAMES,
    RING_WINDOW,
    Agenda,
    Work,
)
from taskharbor.drivers.postgres.bell.notice import Notice, for_everybody, payloads, read
from tests.fixtures.support import steady

NOW = 1000.0


def rings(queues: list[str], jobs: list[str] | None = None) -> Work:
    return Work(queues, jobs or [], everybody=False, asked=[], echoes=[])


def asks(ids: list[str]) -> Work:
    return Work([], [], everybody=False, asked=ids, echoes=[])


def rung(agenda: Agenda, queue: str = "q", now: float = NOW) -> Agenda:
    """Return the agenda after a queue was rung and sent."""
    agenda.ring([queue], [], now)
    assert rings([queue]) == agenda.take(now)
    return agenda


# --- rings


def test_nothing_is_due_where_nothing_happened() -> None:
    assert (inf, None) == (Agenda().due_at(), Agenda().take(NOW))


def test_the_first_ring_is_due_at_once() -> None:
    agenda = Agenda()

    agenda.ring(["q"], ["1"], NOW)

    assert rings(["q"], ["1"]) == agenda.take(NOW)
    assert inf == agenda.due_at()


def test_further_rings_within_the_window_are_due_once_when_it_ends() -> None:
    agenda = rung(Agenda())

    for step in range(1, 5):
        agenda.ring(["q"], [], NOW + step / 1000)

    assert NOW + RING_WINDOW == agenda.due_at()
    assert agenda.take(NOW + RING_WINDOW - 0.001) is None
    assert rings(["q"]) == agenda.take(NOW + RING_WINDOW)
    assert agenda.take(NOW + 1) is None


def test_a_ring_after_the_window_is_due_at_once() -> None:
    agenda = rung(Agenda())

    agenda.ring(["q"], [], NOW + 1)

    assert rings(["q"]) == agenda.take(NOW + 1)


def test_one_queues_window_holds_up_no_other_queue() -> None:
    agenda = rung(Agenda())

    agenda.ring(["q", "other"], [], NOW)

    assert rings(["other"]) == agenda.take(NOW)
    assert rings(["q"]) == agenda.take(NOW + RING_WINDOW)


def test_jobs_that_end_within_the_window_go_together() -> None:
    agenda = Agenda()
    agenda.ring([], ["1"], NOW)
    assert rings([], ["1"]) == agenda.take(NOW)

    agenda.ring([], ["2"], NOW)
    agenda.ring([], ["3", "2"], NOW)

    assert agenda.take(NOW) is None
    assert rings([], ["2", "3"]) == agenda.take(NOW + RING_WINDOW)


def test_rings_that_could_not_be_sent_wait_with_all_that_come_meanwhile() -> None:
    agenda = Agenda()
    agenda.ring(["q"], ["1"], NOW)
    work = agenda.take(NOW)
    assert work is not None

    agenda.ring_again(work, NOW + 5)
    agenda.ring(["other"], ["2"], NOW + 1)

    assert agenda.take(NOW + 4.9) is None
    again = agenda.take(NOW + 5)
    assert again is not None
    assert ({"q", "other"}, {"1", "2"}) == (set(again.queues), set(again.jobs))


def test_more_than_can_be_kept_becomes_a_ring_for_everybody() -> None:
    agenda = Agenda()

    agenda.ring(["q"], map(str, range(MOST_NAMES)), NOW)

    assert Work([], [], everybody=True, asked=[], echoes=[]) == agenda.take(NOW)
    assert inf == agenda.due_at()


def test_a_ring_for_everybody_that_could_not_be_sent_stays_one() -> None:
    agenda = Agenda()

    agenda.ring_again(Work([], [], everybody=True, asked=[], echoes=[]), NOW + 5)

    assert NOW + 5 == agenda.due_at()
    assert Work([], [], everybody=True, asked=[], echoes=[]) == agenda.take(NOW + 5)


def echoes(queues: list[str]) -> Work:
    return Work([], [], everybody=False, asked=[], echoes=queues)


def test_an_echo_is_due_a_little_later_with_all_that_were_asked_for_meanwhile() -> None:
    agenda = Agenda()

    agenda.echo(["q"], NOW)
    agenda.echo(["q", "other"], NOW + ECHO_WINDOW / 2)

    assert agenda.take(NOW + ECHO_WINDOW / 2) is None
    assert NOW + ECHO_WINDOW == agenda.due_at()
    assert echoes(["q", "other"]) == agenda.take(NOW + ECHO_WINDOW)
    assert inf == agenda.due_at()


def test_an_echo_does_not_delay_a_ring() -> None:
    agenda = Agenda()

    agenda.echo(["q"], NOW)
    agenda.ring(["q"], [], NOW)

    assert rings(["q"]) == agenda.take(NOW)
    assert echoes(["q"]) == agenda.take(NOW + ECHO_WINDOW)


def test_an_echo_that_could_not_be_sent_is_tried_again() -> None:
    agenda = Agenda()

    agenda.ring_again(echoes(["q"]), NOW + 5)

    assert NOW + 5 == agenda.due_at()
    assert echoes(["q"]) == agenda.take(NOW + 5)


def test_what_is_rung_is_taken_before_it_is_due_when_one_closes() -> None:
    agenda = rung(Agenda())
    agenda.ring(["q"], ["1"], NOW)
    agenda.ask(["2"])

    assert rings(["q"], ["1"]) == agenda.take_rings(NOW)
    assert agenda.take_rings(NOW) is None


@steady
@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 0.05)), max_size=60))
def test_no_ring_is_lost_and_none_comes_twice_within_a_window(steps: list[tuple[str, float]]) -> None:
    """Rung at any times, each queue is sent after its last ring, and never twice within a window."""
    agenda, now = Agenda(), NOW
    sent: dict[str, float] = {}
    unsent: set[str] = set()

    def send_due(until: float) -> None:
        while (due := agenda.due_at()) <= until:
            work = agenda.take(due)
            assert work is not None
            for queue in work.queues:
                assert due >= sent.get(queue, -inf) + RING_WINDOW
                sent[queue] = due
                unsent.discard(queue)

    for queue, pause in steps:
        now += pause
        send_due(now)
        agenda.ring([queue], [], now)
        unsent.add(queue)
    send_due(now + RING_WINDOW)

    assert set() == unsent
    assert inf == agenda.due_at()


# --- jobs to be marked


def test_jobs_asked_for_within_a_few_milliseconds_go_together() -> None:
    agenda = Agenda()
    agenda.ask(["1"])
    assert asks(["1"]) == agenda.take(NOW)

    agenda.ask(["2"])
    agenda.ask(["3"])

    assert agenda.take(NOW) is None
    assert asks(["2", "3"]) == agenda.take(NOW + ASK_WINDOW)


def test_very_many_jobs_go_in_bounded_batches_one_after_the_other() -> None:
    agenda = Agenda()
    ids = [str(number) for number in range(2 * MOST_ASKED + 1)]

    agenda.ask(ids)
    batches = [agenda.take(NOW) for _ in range(3)]

    assert [asks(ids[:MOST_ASKED]), asks(ids[MOST_ASKED:-1]), asks(ids[-1:])] == batches


def test_a_job_whose_row_is_held_is_asked_for_again_soon_and_then_later() -> None:
    agenda = Agenda()
    agenda.ask(["held", "free"])
    assert asks(["held", "free"]) == agenda.take(NOW)

    pauses: list[float] = []
    now = NOW
    for _ in range(20):
        agenda.answered(["held", "free"], ["held"], now)
        pauses.append(agenda.due_at() - now)
        now = agenda.due_at() + ASK_WINDOW
        assert asks(["held"]) == agenda.take(now)

    assert pauses == sorted(pauses)
    assert pauses[0] <= 0.01
    assert pytest.approx(0.5) == pauses[-1]


def test_a_job_that_is_held_anew_is_asked_for_soon() -> None:
    agenda = Agenda()
    for _ in range(5):
        agenda.answered(["1"], ["1"], NOW)
    agenda.take(NOW + 10)
    agenda.answered(["1"], [], NOW + 10)

    agenda.answered(["1"], ["1"], NOW + 20)

    assert agenda.due_at() <= NOW + 20.01


def test_jobs_that_could_not_be_asked_for_hold_up_no_ring() -> None:
    agenda = Agenda()
    agenda.ask_again(["1"], NOW + 5)
    agenda.ring(["q"], [], NOW)

    assert rings(["q"]) == agenda.take(NOW)
    assert agenda.take(NOW + 4.9) is None
    assert asks(["1"]) == agenda.take(NOW + 5)


def test_rings_that_could_not_be_sent_hold_up_no_job_to_be_marked() -> None:
    agenda = Agenda()
    agenda.ring_again(rings(["q"]), NOW + 5)
    agenda.ask(["1"])

    assert asks(["1"]) == agenda.take(NOW)
    assert rings(["q"]) == agenda.take(NOW + 5)


# --- what a notice says


def test_a_notice_says_who_rang_for_what() -> None:
    (text,) = payloads("me", ["q", "ü\x00☃"], ["1"])

    assert text.isascii()
    assert Notice("me", ["q", "ü\x00☃"], ["1"]) == read(text.encode())


@pytest.mark.parametrize("count", [1, 150, 3000])
def test_many_names_are_divided_so_that_each_payload_is_accepted(count: int) -> None:
    queues = [f"a queue of some name {number}" for number in range(count)]
    jobs = [str(uuid4()) for _ in range(count)]

    texts = payloads("me", queues, jobs)

    said = [notice for text in texts if (notice := read(text.encode())) is not None]
    assert len(texts) == len(said)
    assert all(len(text.encode()) < 8000 for text in texts)
    assert queues == [name for notice in said for name in notice.queues or ()]
    assert jobs == [name for notice in said for name in notice.jobs or ()]


def test_a_name_that_fits_into_no_payload_wakes_everybody_and_leaves_the_others() -> None:
    texts = payloads("me", ["short", "x" * 8000], [])

    assert [Notice("me", ["short"], []), Notice("me", None, None)] == [read(text.encode()) for text in texts]


def test_a_notice_for_everybody_names_nothing() -> None:
    assert Notice("me", None, None) == read(for_everybody("me").encode())


@pytest.mark.parametrize(
    "payload",
    [b"", b"hello", b"{}", b"[]", b"[1]", b'["me",[1],[]]', b'["me",[],', b'["me","q",[]]', b"\xff\xfe"],
)
def test_what_is_none_of_ours_is_told_apart(payload: bytes) -> None:
    assert read(payload) is None


def test_a_later_release_may_say_more() -> None:
    assert Notice("me", ["q"], []) == read(json.dumps(["me", ["q"], [], {"more": 1}]).encode())
