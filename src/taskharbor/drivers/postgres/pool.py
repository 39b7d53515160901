"""The pools of connections: one for each event loop, one for blocking producers.

Whoever needs a connection and finds none free opens it himself. So the first who asks after an outage tries at once,
each is told why his could not be opened, and no thread or task tries behind anybody's back. Those are the reasons why
this is not psycopg_pool, where one waits for the attempts of others, made ever more rarely (ADR 0013).
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeAlias

import psycopg
from psycopg.rows import TupleRow

from taskharbor.drivers.postgres.connection import settings
from taskharbor.drivers.postgres.lending import Lending
from taskharbor.drivers.postgres.place import Place
from taskharbor.drivers.postgres.refusal import is_full, none_free, store_error
from taskharbor.errors import StoreUnavailable

Connection: TypeAlias = psycopg.Connection[TupleRow]
AsyncConnection: TypeAlias = psycopg.AsyncConnection[TupleRow]

_WAIT_SECONDS = 10.0
"""For a connection to come free."""


class Pool:
    """Connections for any thread."""

    def __init__(self, place: Place) -> None:
        """Connects to nothing yet."""
        self._place = place
        self._lending: Lending[Connection] = Lending(place.pool_size)
        self._lock = threading.RLock()  # a signal's handler may enqueue while its thread is in here
        self._pid = os.getpid()

    @contextmanager
    def connection(self) -> Generator[Connection]:
        """Lend a connection, in autocommit mode, for a block.

        Raises:
            StoreUnavailable: none can be opened, or none came free in time.
            UnusableStoreError: the server refuses us.
        """
        connection = self._take()
        try:
            yield connection
        finally:
            with self._lock:
                self._lending.give_back(connection)

    def close(self) -> None:
        """Close all connections, those in use when they come back. Idempotent."""
        if self._pid == os.getpid():  # a forked child's copy of the lock may be one that was held
            with self._lock:
                self._lending.close()

    def _take(self) -> Connection:
        until = time.monotonic() + _WAIT_SECONDS
        while True:
            seat = _Seat()
            with self._lock:
                self._lending.ask(seat)
            connection = self._wait(seat, until)
            if connection is None:
                _check_open(self._lending)
                connection = self._open()
            if connection is not None:
                return connection

    def _wait(self, seat: _Seat, until: float) -> Connection | None:
        try:
            return seat.offers.get(timeout=max(until - time.monotonic(), 0))
        except BaseException as error:
            with self._lock:
                if not self._lending.leave(seat):
                    _turn_down(self._lending, seat.offers.get_nowait())
            if isinstance(error, queue.Empty):
                raise none_free(self._place, self._lending.count) from None
            raise

    def _open(self) -> Connection | None:
        """Open one; return None if it should be asked for another that comes free."""
        try:
            connection = _Pooled.connect(self._place.conninfo, **settings(self._place))
        except BaseException as error:
            with self._lock:
                one_may_come = self._lending.not_opened(full=is_full(error))
            if one_may_come:
                return None
            if isinstance(error, psycopg.Error):
                raise store_error(error, self._place) from error
            raise
        with self._lock:
            self._lending.opened(connection)
        return connection


class AsyncPool:
    """Connections for one event loop."""

    def __init__(self, place: Place) -> None:
        """Connects to nothing yet."""
        self._place = place
        self._lending: Lending[AsyncConnection] = Lending(place.pool_size)

    @property
    def losses(self) -> int:
        """Return how many connections were lost so far, or dropped since they were in no state to be used again."""
        return self._lending.losses

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[AsyncConnection]:
        """Lend a connection; the async form of `Pool.connection`."""
        connection = await self._take()
        try:
            yield connection
        finally:
            self._lending.give_back(connection)

    def close(self) -> None:
        """Close all connections, those in use when they come back. Idempotent."""
        self._lending.close()

    async def _take(self) -> AsyncConnection:
        until = time.monotonic() + _WAIT_SECONDS
        while True:
            seat = _AsyncSeat()
            self._lending.ask(seat)
            connection = await self._wait(seat, until)
            if connection is None:
                _check_open(self._lending)
                connection = await self._open()
            if connection is not None:
                return connection

    async def _wait(self, seat: _AsyncSeat, until: float) -> AsyncConnection | None:
        offered = seat.offered
        if not offered.done():
            try:
                await asyncio.wait([offered], timeout=max(until - time.monotonic(), 0))
            except BaseException:
                if not self._lending.leave(seat):
                    _turn_down(self._lending, offered.result())
                raise
            if self._lending.leave(seat):
                raise none_free(self._place, self._lending.count)
        return offered.result()

    async def _open(self) -> AsyncConnection | None:
        try:
            connection = await _AsyncPooled.connect(self._place.conninfo, **settings(self._place))
        except BaseException as error:
            if self._lending.not_opened(full=is_full(error)):
                return None
            if isinstance(error, psycopg.Error):
                raise store_error(error, self._place) from error
            raise
        self._lending.opened(connection)
        return connection


class _Seat:
    def __init__(self) -> None:
        self.offers: queue.SimpleQueue[Connection | None] = queue.SimpleQueue()
        self.offer = self.offers.put


class _AsyncSeat:
    def __init__(self) -> None:
        self.offered: asyncio.Future[AsyncConnection | None] = asyncio.get_running_loop().create_future()
        self.offer = self.offered.set_result


class _Pooled(psycopg.Connection[TupleRow]):
    def __del__(self, *_: Any) -> None:
        """Say nothing: a pool's connections may end with the program, still open."""


class _AsyncPooled(psycopg.AsyncConnection[TupleRow]):
    def __del__(self, *_: Any) -> None:
        """Say nothing: a pool's connections may end with the program, still open."""


def _check_open(lending: Lending[Any]) -> None:
    if lending.closed:
        raise StoreUnavailable("this store is closed")


def _turn_down(lending: Lending[Any], offered: Any) -> None:
    if offered is None:
        lending.not_opened()
    else:
        lending.give_back(offered)
