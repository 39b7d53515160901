"""Running routines: several of them in one transaction, and again while somebody else holds the lock.

A transaction that writes begins with BEGIN IMMEDIATE, so that it waits at its beginning, has the whole file for itself
from then on, and reads nothing that another could still change. Waiting is done here, by asking again every millisecond
or two; SQLite's own busy handler sleeps for up to a tenth of a second.

One commit is one sync of the disk. So whatever has been asked meanwhile goes into the next transaction together, each
caller being answered once that is committed. If one of them fails, each is run by itself.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

from taskharbor.clock import Clock, micros
from taskharbor.driver import Request
from taskharbor.drivers.sqlite.acts import audited
from taskharbor.drivers.sqlite.bell import Bell
from taskharbor.drivers.sqlite.checkpoint import Checkpoints
from taskharbor.drivers.sqlite.connection import is_busy, is_full, open_connection, store_error
from taskharbor.drivers.sqlite.courtesy import Courtesy
from taskharbor.drivers.sqlite.forks import Steady
from taskharbor.drivers.sqlite.place import Place
from taskharbor.drivers.sqlite.routine import Cell, Query, Routine, Row, Wakes
from taskharbor.drivers.sqlite.rows import OptionsBook, Step
from taskharbor.errors import StoreUnavailable, UnusableStoreError

logger = logging.getLogger("taskharbor.sqlite")

Q = TypeVar("Q", bound=Request)
T = TypeVar("T")

_READ, _WRITE = "BEGIN", "BEGIN IMMEDIATE"
_FIRST_WAIT = 0.0002
_LONGEST_WAIT = 0.002


class Ask(Generic[Q, T]):
    """One verb on its way: the routine that carries it out, and then its answer or its error."""

    __slots__ = ("_looks", "_request", "_verb", "answer", "ended", "error", "urgent", "writes")

    def __init__(
        self,
        verb: Callable[[Step, Q], Routine[T]],
        request: Q,
        *,
        writes: bool,
        urgent: bool = False,
        looks: Callable[[Step, Q], Routine[T | None]] | None = None,
    ) -> None:
        """Prepare it.

        Args:
            verb: makes the routine; called again when it has to be run again.
            request: what the verb is asked.
            writes: whether it has to hold the file's lock.
            urgent: whether it may go before others who wait for the lock: it keeps leases.
            looks: makes a routine that may find the answer without writing; None where it has to be written.
        """
        self._verb = verb
        self._request = request
        # An act is written down whatever comes of it.
        self.writes = writes or request.act is not None
        self.urgent = urgent
        self._looks = looks if request.act is None else None
        self.answer: T | None = None
        self.error: BaseException | None = None
        self.ended = False

    def routine(self, book: OptionsBook, clock: Clock, wakes: Wakes) -> Routine[T]:
        """Return the routine, begun at the present instant."""
        now = micros(clock.now() if self._request.now is None else self._request.now)
        verb = self._verb if self._request.act is None else audited(self._verb)
        return verb(Step(now, book, wakes), self._request)

    def looking(self) -> Ask[Q, T | None] | None:
        """Return what may find the answer without writing."""
        return None if self._looks is None else Ask(self._looks, self._request, writes=False)

    def end(self, answer: T) -> None:
        """Keep the answer."""
        self.answer, self.ended = answer, True

    def fail(self, error: BaseException) -> None:
        """Keep the error."""
        self.error, self.ended = error, True

    def result(self) -> T:
        """Return its answer, or raise its error."""
        if self.error is not None:
            raise self.error
        return self.answer  # type: ignore[return-value] # pyright: ignore[reportReturnType] - it has ended


AnyAsk: TypeAlias = Ask[Any, Any]


class Transactions:
    """Runs routines on one connection, for one thread at a time."""

    def __init__(self, place: Place, clock: Clock, bell: Bell) -> None:
        """Open a connection.

        Raises:
            StoreUnavailable: the file is locked for longer than the place's `busy_timeout`.
            UnusableStoreError: the file cannot be used; says why.
        """
        self._place = place
        self._clock = clock
        self._bell = bell
        self._book = OptionsBook()
        self._identity: tuple[int, int] | None = None
        self._connection = Steady(self._open)
        with self._connection:
            self._identity = _identity(place)
        self._courtesy = Courtesy(place.path)
        self._checkpoints = Checkpoints(place)
        self._told_unfolded = False

    def close(self) -> None:
        """Close the connection."""
        self._courtesy.close()
        self._connection.close()

    def _open(self) -> sqlite3.Connection:
        if self._identity is not None:  # once more, after a fork
            self._check_file()
        return open_connection(self._place)

    def run(self, asks: Sequence[AnyAsk]) -> None:
        """Carry out everything asked, giving each its answer or its error."""
        writes = [ask for ask in asks if ask.writes and (len(asks) > 1 or not self._found_by_looking(ask))]
        for ask in asks:
            if not ask.writes:
                self._run_together([ask], _READ)
        if len(writes) == 1 or (writes and not self._run_together(writes, _WRITE, keep=False)):
            for ask in writes:
                self._run_together([ask], _WRITE)

    def tidy(self) -> None:
        """Fold the log back into the file if enough was written since: after what was asked has been answered."""
        if not self._checkpoints.due():
            return
        self._checkpoints.begin()
        try:
            for begin in (_READ, _WRITE):
                self._commit([Ask(self._fold, Request(), writes=begin == _WRITE)], begin)
        except Exception as error:  # noqa: BLE001 - whatever it is, what was asked has been written and answered
            if not self._told_unfolded:  # once, not with every commit while the disk is full
                logger.warning("the log of %s cannot be folded back now: %s", self._place.path, error)
            self._told_unfolded = True
        else:
            self._told_unfolded = False

    def _fold(self, step: Step, request: Request) -> Routine[None]:
        yield Query(
            "SELECT 1 FROM sqlite_schema LIMIT 1"
        )  # now it reads: a transaction begins with its first look
        self._checkpoints.fold()

    def _found_by_looking(self, ask: AnyAsk) -> bool:
        looking = ask.looking()
        if looking is None:
            return False
        self._run_together([looking], _READ)
        if looking.error is not None:
            ask.fail(looking.error)
        elif looking.answer is not None:
            ask.end(looking.answer)
        return ask.ended

    def _run_together(self, asks: Sequence[AnyAsk], begin: str, *, keep: bool = True) -> bool:
        """Run routines in one transaction; return whether each has its answer or its error now.

        `keep=False` leaves them without, if one of them has failed: they will be run one by one.
        """
        try:
            answers, wakes = self._commit(asks, begin)
        except sqlite3.Error as error:
            failure: BaseException = store_error(error, self._place)
            failure.__cause__ = error
            if is_full(error):
                self._checkpoints.hurry()
        except Exception as error:  # noqa: BLE001 - raised again where the answer is awaited
            failure = error
        else:
            for ask, answer in zip(asks, answers, strict=True):
                ask.end(answer)
            self._bell.ring(wakes)
            return True
        if keep or isinstance(failure, StoreUnavailable):
            for ask in asks:
                ask.fail(failure)
            return True
        return False

    def _commit(self, asks: Sequence[AnyAsk], begin: str) -> tuple[list[Any], Wakes]:
        urgent = any(ask.urgent for ask in asks)
        try:
            return self._try_until(time.monotonic() + self._place.busy_timeout, asks, begin, urgent=urgent)
        finally:
            if urgent:
                self._courtesy.waive()

    def _try_until(
        self, deadline: float, asks: Sequence[AnyAsk], begin: str, *, urgent: bool
    ) -> tuple[list[Any], Wakes]:
        wait = _FIRST_WAIT
        while True:
            if urgent:
                self._courtesy.claim()
            elif begin == _WRITE and self._courtesy.somebody_first():
                time.sleep(_FIRST_WAIT)
                continue
            try:
                return self._try(asks, begin)
            except sqlite3.Error as error:
                if not is_busy(error) or time.monotonic() >= deadline:
                    raise
            time.sleep(wait * random.uniform(0.5, 1.0))
            wait = min(wait * 2, _LONGEST_WAIT)

    def _try(self, asks: Sequence[AnyAsk], begin: str) -> tuple[list[Any], Wakes]:
        wakes = Wakes()
        with self._connection as connection:
            try:
                connection.execute(begin)
                self._check_file()
                before = connection.total_changes
                answers = [
                    carry(connection.cursor(), ask.routine(self._book, self._clock, wakes)) for ask in asks
                ]
                connection.execute("COMMIT")
                if begin == _WRITE:
                    self._checkpoints.note(connection.total_changes - before)
            except BaseException:
                if connection.in_transaction:  # SQLite ends it by itself after some errors
                    with contextlib.suppress(sqlite3.Error):
                        connection.execute("ROLLBACK")
                raise
        return answers, wakes

    def _check_file(self) -> None:
        """Check that the file is still the one that was opened: what is written to one that was removed is lost."""
        if _identity(self._place) != self._identity:
            raise UnusableStoreError(
                f"{self._place.path} was removed or replaced while it was open; what is written now would be lost. "
                "Put the file back, if it still exists, and start again"
            )


def carry(cursor: sqlite3.Cursor, routine: Routine[T]) -> T:
    """Run a routine on a cursor, within whatever transaction there is, and return what it returns."""
    try:
        query: Query = next(routine)
        while True:
            try:
                rows: list[Row] = cursor.execute(query.sql, _bound(query)).fetchall()
            except sqlite3.Error as error:
                query = routine.throw(error)
            else:
                query = routine.send(rows)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


def _bound(query: Query) -> Sequence[Cell] | dict[str, Cell]:
    """Return the parameters as sqlite3 wants them: numbered ones are named to it, and from Python 3.14 on must be."""
    if "?1" in query.sql:
        return {str(number): cell for number, cell in enumerate(query.params, 1)}
    return query.params


def _identity(place: Place) -> tuple[int, int] | None:
    try:
        found = os.stat(place.path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
