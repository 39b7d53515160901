"""Which connections are lent, to whom, and when one is opened or closed: without any server, on made-up connections."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("psycopg", reason="needs the extra `postgres`")

import psycopg
from psycopg.pq import TransactionStatus

from taskharbor.drivers.postgres import lending
from taskharbor.drivers.postgres.lending import Lending
from tests.fixtures.support import untyped

IDLE, OPEN, BROKEN = TransactionStatus.IDLE, TransactionStatus.INTRANS, TransactionStatus.UNKNOWN
LEAVE = None
"""What is offered to one who may open a connection."""
NOTHING: object = "nothing"


class Fake:
    """A connection, and what libpq knows of it."""

    def __init__(self) -> None:
        self.transaction_status = IDLE
        self.said: list[Exception | None] = []
        """What reading its socket comes to, one time after the other; later it is silent."""
        self.finished = False
        self.pgconn = self

    def consume_input(self) -> None:
        error = self.said.pop(0) if self.said else None
        if error is not None:
            raise error

    def finish(self) -> None:
        self.finished = True


class Seat:
    """One who asks for a connection."""

    def __init__(self) -> None:
        self.offered: object = NOTHING

    def offer(self, connection: object) -> None:
        assert self.offered == NOTHING, "offered twice"
        self.offered = connection


class Book:
    """A `Lending`, and short ways to ask it."""

    def __init__(self, size: int) -> None:
        self.lending: Lending[Any] = Lending(size)

    def ask(self) -> Seat:
        seat = Seat()
        self.lending.ask(seat)
        return seat

    def open(self) -> Fake:
        """Ask for a connection, and open one upon it."""
        assert LEAVE is self.ask().offered
        made = Fake()
        self.lending.opened(made)
        return made

    def take(self) -> Fake:
        """Ask for a connection that is free."""
        offered = self.ask().offered
        assert isinstance(offered, Fake)
        return offered

    def give_back(self, *connections: Fake) -> None:
        for connection in connections:
            self.lending.give_back(connection)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be changed."""
    now = [1000.0]
    monkeypatch.setattr(lending, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_one_is_opened_only_when_none_is_free() -> None:
    book = Book(3)
    first = book.open()
    book.give_back(first)

    assert first is book.take()
    assert book.open() is not first
    assert 2 == book.lending.count


def test_the_one_used_last_goes_out_first() -> None:
    book = Book(3)
    made = [book.open() for _ in range(3)]
    book.give_back(*made)

    assert made[::-1] == [book.take() for _ in range(3)]


def test_when_all_are_lent_the_next_ones_are_served_in_order() -> None:
    book = Book(2)
    made = [book.open() for _ in range(2)]
    waiting = [book.ask() for _ in range(3)]
    assert [NOTHING] * 3 == [seat.offered for seat in waiting]

    book.give_back(*made)

    assert [*made, NOTHING] == [seat.offered for seat in waiting]


def test_one_who_waits_may_open_another_when_one_is_lost() -> None:
    book = Book(1)
    made, waiting = book.open(), book.ask()
    made.transaction_status = BROKEN

    book.give_back(made)

    assert (LEAVE, True, 1) == (waiting.offered, made.finished, book.lending.losses)


def test_one_in_a_transaction_is_not_used_again() -> None:
    """Closed, it ends there, whatever it holds."""
    book = Book(1)
    made = book.open()
    made.transaction_status = OPEN

    book.give_back(made)

    assert (True, 0) == (made.finished, book.lending.count)
    assert made is not book.open()


def test_what_was_lost_while_it_was_free_is_not_lent() -> None:
    """The server's farewell is read first, then the end behind it."""
    book = Book(3)
    made = [book.open() for _ in range(3)]
    book.give_back(*made)
    made[2].said = [None, psycopg.OperationalError("the end")]
    made[1].said = [psycopg.OperationalError("the end")]

    assert made[0] is book.take()
    assert ([False, True, True], 2, 1) == (
        [each.finished for each in made], book.lending.losses, book.lending.count
    )  # fmt: skip


def test_who_has_left_the_line_is_not_served() -> None:
    book = Book(1)
    made = book.open()
    first, second = book.ask(), book.ask()

    assert book.lending.leave(untyped(first))
    book.give_back(made)

    assert (NOTHING, made) == (first.offered, second.offered)
    assert not book.lending.leave(untyped(second)), "it was served already"


def test_one_that_could_not_be_opened_is_left_to_the_next_in_line() -> None:
    """Who finds out for himself, instead of waiting for nothing."""
    book = Book(1)
    assert LEAVE is book.ask().offered
    waiting = [book.ask() for _ in range(2)]

    assert not book.lending.not_opened()
    assert [LEAVE, NOTHING] == [seat.offered for seat in waiting]
    assert not book.lending.not_opened()
    assert [LEAVE, LEAVE] == [seat.offered for seat in waiting]


def test_a_server_without_room_is_not_asked_again_while_some_are_lent(clock: list[float]) -> None:
    book = Book(5)
    made = book.open()
    assert LEAVE is book.ask().offered

    assert book.lending.not_opened(full=True), "one may come back"
    waiting = book.ask()
    assert NOTHING == waiting.offered
    book.give_back(made)
    assert made is waiting.offered

    clock[0] += 2.0
    assert LEAVE is book.ask().offered


def test_a_server_without_room_is_asked_again_when_none_is_lent(clock: list[float]) -> None:
    book = Book(5)
    made = book.open()
    assert LEAVE is book.ask().offered
    assert book.lending.not_opened(full=True)
    waiting = book.ask()

    made.transaction_status = BROKEN
    book.give_back(made)

    assert LEAVE is waiting.offered
    assert not book.lending.not_opened(full=True), "none can come back"


def test_one_that_has_had_its_time_is_replaced(clock: list[float]) -> None:
    book = Book(1)
    made = book.open()
    clock[0] += 3601.0

    book.give_back(made)

    assert (True, 0, 0) == (made.finished, book.lending.count, book.lending.losses)


def test_those_that_nobody_needs_are_closed_in_time(clock: list[float]) -> None:
    book = Book(3)
    made = [book.open() for _ in range(3)]
    book.give_back(*made)

    for _ in range(8):
        clock[0] += 100.0
        book.give_back(book.take())

    assert [True, True, False] == [each.finished for each in made]


def test_closing_closes_what_is_free_at_once_and_the_rest_when_it_comes_back() -> None:
    book = Book(2)
    free, lent = book.open(), book.open()
    waiting = book.ask()
    book.give_back(free)
    assert free is waiting.offered
    second = book.ask()
    book.give_back(free)

    book.lending.close()
    assert free is second.offered
    book.give_back(free, lent)

    assert book.lending.closed
    assert ([True, True], 0, 0) == ([free.finished, lent.finished], book.lending.count, book.lending.losses)


def test_closing_sends_away_who_waits_and_who_comes() -> None:
    book = Book(1)
    book.open()
    waiting = book.ask()

    book.lending.close()

    assert [LEAVE, LEAVE] == [waiting.offered, book.ask().offered]
    assert book.lending.closed


def test_any_order_of_events_keeps_the_book() -> None:
    """Never more than the size; nobody waits while one more might be opened, or is free."""
    for seed in range(300):
        chance = random.Random(seed)
        book = Book(chance.randrange(1, 4))
        seats: list[Seat] = []
        lent: list[Fake] = []
        for _ in range(60):
            act = chance.choice(["ask", "ask", "back", "back", "break", "fail", "leave"])
            if act == "ask":
                seats.append(book.ask())
            elif act in ("back", "break") and lent:
                made = lent.pop(chance.randrange(len(lent)))
                made.transaction_status = BROKEN if act == "break" else IDLE
                book.give_back(made)
            elif act == "leave" and seats:
                seat = chance.choice(seats)
                if book.lending.leave(untyped(seat)):
                    seats.remove(seat)
            for seat in list(seats):
                if seat.offered is LEAVE:
                    seats.remove(seat)
                    if act == "fail":
                        book.lending.not_opened()
                    else:
                        made = Fake()
                        book.lending.opened(made)
                        lent.append(made)
                elif isinstance(seat.offered, Fake):
                    seats.remove(seat)
                    lent.append(seat.offered)
            settled = all(seat.offered == NOTHING for seat in seats)
            size = untyped(book.lending)._size
            assert book.lending.count <= size
            if settled and seats:
                assert size == len(lent), "somebody waits for nothing"
