"""Asking: a verb's routine on a connection of a pool, again where the server's answer allows it, wake-ups after."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import psycopg
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from taskharbor.driver import Request
from taskharbor.drivers.postgres.carry import acarry, carry
from taskharbor.drivers.postgres.connection import is_broken, may_repeat, settings, store_error
from taskharbor.drivers.postgres.place import Place
from taskharbor.drivers.postgres.routine import Routine, Wakes
from taskharbor.drivers.postgres.rows import OptionsBook, instant
from taskharbor.drivers.postgres.slots import Slots
from taskharbor.drivers.postgres.step import Step

Q = TypeVar("Q", bound=Request)
T = TypeVar("T")

_WAIT_SECONDS = 10.0
"""For a connection of the pool to come free."""
_RECONNECT_SECONDS = 2.0
"""An attempt to connect is given up, and left to the next one who asks, instead of being repeated ever more rarely."""


class Ring(Protocol):
    """Tells those concerned what was committed."""

    def __call__(self, wakes: Wakes, /) -> None:
        """Wake them. Returns at once."""
        ...


class Shared:
    """What all stores of one driver have in common."""

    def __init__(self, place: Place, ring: Ring) -> None:
        self.place = place
        self.ring = ring
        self.book = OptionsBook()
        self.slots = Slots()

    def step(self, request: Request, *, repeated: bool = False) -> Step:
        """Return what a routine works with."""
        return Step(instant(request.now), self.book, self.slots, Wakes(), repeated)


class AsyncDesk:
    """Takes what is asked on one event loop."""

    def __init__(self, shared: Shared) -> None:
        """Prepare it; `open` connects."""
        self._shared = shared
        self._place = place = shared.place
        self._pool: AsyncConnectionPool[psycopg.AsyncConnection[TupleRow]] = AsyncConnectionPool(
            place.conninfo,
            kwargs={**settings(place), "cursor_factory": psycopg.AsyncRawCursor},
            min_size=0,
            max_size=place.pool_size,
            timeout=_WAIT_SECONDS,
            reconnect_timeout=_RECONNECT_SECONDS,
            open=False,
            name="taskharbor",
        )

    async def open(self) -> None:
        """Begin. Connects when first asked."""
        await self._pool.open()

    async def close(self) -> None:
        """Close all connections. Idempotent."""
        await self._pool.close()

    async def ask(
        self,
        verb: Callable[[Step, Q], Routine[T]],
        request: Q,
        *,
        together: bool = False,
        lost: Callable[[], None] | None = None,
    ) -> T:
        """Return a verb's answer.

        Args:
            verb: its routine.
            request: what is asked.
            together: its statements are to be written together, or not at all.
            lost: called when a connection was lost.

        Raises:
            StoreUnavailable: the server cannot be reached, or does not take it now.
            DeploymentError: it cannot be used.
        """
        before, repeated = 0, False
        while True:
            step = self._shared.step(request, repeated=repeated)
            try:
                answer = await self._ask(verb(step, request), together=together)
            except psycopg.Error as error:
                broken = is_broken(error)
                if broken and lost is not None:
                    lost()
                if not may_repeat(error, before=before):
                    raise store_error(error, self._place) from error
                if broken:  # after a restart of the server, so are the others of the pool
                    await self._pool.check()
                before, repeated = before + 1, repeated or broken
            else:
                if step.wakes:
                    self._shared.ring(step.wakes)
                return answer

    async def _ask(self, routine: Routine[T], *, together: bool) -> T:
        place = self._place
        async with self._pool.connection() as connection:
            cursor = psycopg.AsyncRawCursor(connection)
            if not together:
                return await acarry(cursor, routine, place.schema, prepare=place.prepare)
            async with connection.transaction():
                return await acarry(cursor, routine, place.schema, prepare=place.prepare)


class BlockingDesk:
    """Takes what is asked from any thread."""

    def __init__(self, shared: Shared) -> None:
        """Prepare it; `open` connects."""
        self._shared = shared
        self._place = place = shared.place
        self._pool: ConnectionPool[psycopg.Connection[TupleRow]] = ConnectionPool(
            place.conninfo,
            kwargs={**settings(place), "cursor_factory": psycopg.RawCursor},
            min_size=0,
            max_size=place.pool_size,
            timeout=_WAIT_SECONDS,
            reconnect_timeout=_RECONNECT_SECONDS,
            open=False,
            name="taskharbor",
        )

    def open(self) -> None:
        """Begin. Connects when first asked."""
        self._pool.open()

    def close(self) -> None:
        """Close all connections. Idempotent."""
        self._pool.close()

    def ask(self, verb: Callable[[Step, Q], Routine[T]], request: Q, *, together: bool = False) -> T:
        """Return a verb's answer; the blocking form of `AsyncDesk.ask`."""
        before, repeated = 0, False
        while True:
            step = self._shared.step(request, repeated=repeated)
            try:
                answer = self._ask(verb(step, request), together=together)
            except psycopg.Error as error:
                broken = is_broken(error)
                if not may_repeat(error, before=before):
                    raise store_error(error, self._place) from error
                if broken:
                    self._pool.check()
                before, repeated = before + 1, repeated or broken
            else:
                if step.wakes:
                    self._shared.ring(step.wakes)
                return answer

    def _ask(self, routine: Routine[T], *, together: bool) -> T:
        place = self._place
        with self._pool.connection() as connection:
            cursor = psycopg.RawCursor(connection)
            if not together:
                return carry(cursor, routine, place.schema, prepare=place.prepare)
            with connection.transaction():
                return carry(cursor, routine, place.schema, prepare=place.prepare)
