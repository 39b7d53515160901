"""Which connections of a pool are free, how many there may be, and who waits for one. It opens and awaits nothing.

A free connection is given to whoever has waited longest. The one used last goes out first, so that those that are not
needed are noticed, and closed. One that was lost while it lay here (the server was restarted, say) is found out when it
is taken, by reading what has come on its socket, and never handed out.

After a fork the child has a copy of each connection's socket. It is cut off there: whatever the child does with what it
inherited, nothing of it reaches the parent's server, and the server notices the parent's end.
"""

from __future__ import annotations

import os
import random
import time
import weakref
from collections import deque
from contextlib import suppress
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import psycopg
from psycopg import pq

AnyConnection: TypeAlias = psycopg.Connection[Any] | psycopg.AsyncConnection[Any]
C = TypeVar("C", bound=AnyConnection)
Offered_contra = TypeVar("Offered_contra", contravariant=True)

_IDLE_SECONDS = 600.0
"""What nobody needed for so long is closed."""
_LIFETIME_SECONDS = 3600.0
"""At most; a new session knows the settings of its role and its database as they are now."""
_FULL_SECONDS = 1.0
"""A server that had no room for one more connection is not asked for more until then, while we have some."""


class Seat(Protocol[Offered_contra]):
    """One who waits in line."""

    def offer(self, connection: Offered_contra | None, /) -> None:
        """Hand over a connection, or None: leave to open one."""
        ...


class Lending(Generic[C]):
    """The book of one pool. For one caller at a time."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._free: list[tuple[C, float]] = []
        """Each with when it was last used; those moments rise."""
        self._ends: dict[C, float] = {}
        """When each that is open, free or lent, has had its time."""
        self._opening = 0
        self._full_until = 0.0
        self._line: deque[Seat[C]] = deque()
        self.closed = False
        self.losses = 0
        """How many were found to be lost, or came back in no state to be used again."""
        _all.add(self)

    @property
    def count(self) -> int:
        """Return how many are open."""
        return len(self._ends)

    def ask(self, seat: Seat[C]) -> None:
        """Offer a free connection that is well, or leave to open one; without either, put the seat in line."""
        while self._free:
            connection, _ = self._free.pop()
            if _is_well(connection):
                seat.offer(connection)
                return
            self.losses += 1
            self._drop(connection)
        if self.closed or self._may_open():
            seat.offer(None)
        else:
            self._line.append(seat)

    def opened(self, connection: C) -> None:
        """Note a new connection, lent to whoever opened it."""
        self._opening -= 1
        self._ends[connection] = time.monotonic() + _LIFETIME_SECONDS * random.uniform(0.9, 1.0)

    def not_opened(self, *, full: bool = False) -> bool:
        """Note that it was not opened after all; return whether one of ours may come free instead.

        Args:
            full: the server had no room for it.
        """
        self._opening -= 1
        if full and self._ends:  # lent, or come back meanwhile
            self._full_until = time.monotonic() + _FULL_SECONDS
            return True
        self._let_open()  # who is next in line finds out for himself
        return False

    def leave(self, seat: Seat[C]) -> bool:
        """Take somebody out of the line; return False if an offer was made before."""
        with suppress(ValueError):
            self._line.remove(seat)
            return True
        return False

    def give_back(self, connection: C) -> None:
        """Take a connection back. One that is not ready for a new transaction is closed, as it may hold one open."""
        if not _is_ready(connection):
            self.losses += 1
        elif not self.closed and time.monotonic() < self._ends[connection]:
            self._lend(connection)
            return
        self._drop(connection)
        self._let_open()

    def close(self) -> None:
        """Close what is free, and each of the others when it comes back; send away who waits."""
        self.closed = True
        while self._free:
            self._drop(self._free.pop()[0])
        while self._line:
            self._line.popleft().offer(None)

    def _lend(self, connection: C) -> None:
        if self._line:
            self._line.popleft().offer(connection)
            return
        now = time.monotonic()
        self._free.append((connection, now))
        if now - self._free[0][1] > _IDLE_SECONDS:
            self._drop(self._free.pop(0)[0])

    @property
    def _lent(self) -> int:
        return len(self._ends) - len(self._free)

    def _may_open(self) -> bool:
        if len(self._ends) + self._opening >= self._size:
            return False
        if self._lent and time.monotonic() < self._full_until:
            return False
        self._opening += 1
        return True

    def _let_open(self) -> None:
        if self._line and self._may_open():
            self._line.popleft().offer(None)

    def _drop(self, connection: C) -> None:
        del self._ends[connection]
        connection.pgconn.finish()

    def cut_off(self) -> None:
        """In a forked child: put nothing in the place of the sockets, and keep the rest as it is for ever."""
        _inherited.append(self)
        nothing = os.open(os.devnull, os.O_RDWR)
        for connection in self._ends:
            with suppress(psycopg.Error, OSError):
                os.dup2(nothing, connection.pgconn.socket, inheritable=False)
        os.close(nothing)


def _is_ready(connection: AnyConnection) -> bool:
    return connection.pgconn.transaction_status == pq.TransactionStatus.IDLE


def _is_well(connection: AnyConnection) -> bool:
    try:
        # Once for what the server said before it left, and once for the end behind it. Neither waits for anything.
        connection.pgconn.consume_input()
        connection.pgconn.consume_input()
    except psycopg.OperationalError:
        return False
    return _is_ready(connection)


_all: weakref.WeakSet[Lending[Any]] = weakref.WeakSet()
_inherited: list[Lending[Any]] = []


def _after_fork() -> None:
    for lending in list(_all):
        lending.cut_off()
    _all.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
