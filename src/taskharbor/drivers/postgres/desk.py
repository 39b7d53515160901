"""Asking: a verb's routine on a connection of a pool, again where the server's answer allows it, wake-ups after."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Protocol, TypeVar

import psycopg
from psycopg.errors import LockNotAvailable, QueryCanceled, SerializationFailure

from taskharbor.driver import Request
from taskharbor.drivers.postgres.audit import is_audited, with_entry
from taskharbor.drivers.postgres.carry import acarry, carry
from taskharbor.drivers.postgres.home import Home
from taskharbor.drivers.postgres.place import Place
from taskharbor.drivers.postgres.pool import AsyncConnection, AsyncPool, Connection, Pool
from taskharbor.drivers.postgres.refusal import is_broken, may_repeat, store_error
from taskharbor.drivers.postgres.routine import Routine, Wakes
from taskharbor.drivers.postgres.rows import OptionsBook, instant
from taskharbor.drivers.postgres.slots import Slots
from taskharbor.drivers.postgres.step import Step
from taskharbor.errors import StoreError, StoreUnavailable

Q = TypeVar("Q", bound=Request)
T = TypeVar("T")

_BEGIN = """BEGIN ISOLATION LEVEL READ COMMITTED;
SET LOCAL idle_in_transaction_session_timeout = '30s'"""
"""Our statements look again at what others have changed meanwhile. And a machine that vanishes, or a process that is
stopped, within a transaction must not keep its locks until the server's TCP finds out."""

_IN_THE_WAY = (LockNotAvailable, QueryCanceled)
"""The session is as it was."""

logger = logging.getLogger("taskharbor.postgres")


class Ring(Protocol):
    """Tells those concerned what was committed."""

    def __call__(self, wakes: Wakes, /) -> None:
        """Wake them. Returns at once."""
        ...


class Announce(Protocol):
    """Says what a caller's transaction is to tell of jobs that it stores."""

    def __call__(self, queues: Iterable[str], by: int, /) -> list[str]:
        """Return what to NOTIFY on a connection, told by a number. Returns at once, and never fails."""
        ...


class Shared:
    """What all stores of one driver have in common."""

    def __init__(self, place: Place, ring: Ring, channel: str, announce: Announce) -> None:
        self.place = place
        self.ring = ring
        self.channel = channel
        """What a NOTIFY names, for those who cannot ring."""
        self.announce = announce
        self.home = Home(place)
        self.book = OptionsBook()
        self.slots = Slots()
        self.chooses_isolation = False
        """Whether single statements need a BEGIN, too, since the server's default is not READ COMMITTED."""

    def step(self, request: Request, *, repeated: bool = False) -> Step:
        """Return what a routine works with."""
        return Step(instant(request.now), self.book, self.slots, Wakes(), repeated)

    def choose_isolation(self) -> None:
        """Begin every transaction as READ COMMITTED from now on."""
        if not self.chooses_isolation:
            self.chooses_isolation = True
            logger.info(
                "%s: default_transaction_isolation is not 'read committed': from now on each statement begins a "
                "transaction that is, which costs two round trips more",
                self.place.name,
            )


class AsyncDesk:
    """Takes what is asked on one event loop."""

    def __init__(self, shared: Shared) -> None:
        """Connects when first asked."""
        self._shared = shared
        self._place = shared.place
        self._pool = AsyncPool(shared.place)
        self._losses = 0

    def close(self) -> None:
        """Close all connections. Idempotent."""
        self._pool.close()

    async def ask(
        self,
        verb: Callable[[Step, Q], Routine[T]],
        request: Q,
        *,
        together: bool = False,
        lost: Callable[[], None] | None = None,
    ) -> T:
        """Return a verb's answer. If it is somebody's act, that is written down in the same transaction.

        Args:
            verb: its routine.
            request: what is asked.
            together: its statements are to be written together, or not at all.
            lost: called when a connection was lost since the last time that it was given.

        Raises:
            StoreUnavailable: the server cannot be reached, or does not take it now.
            DeploymentError: it cannot be used.
        """
        if is_audited(request):
            verb, together = with_entry(verb), True
        attempt = _Attempt(self._shared)
        while True:
            step = attempt.step(request)
            async with self._pool.connection() as connection:
                if lost is not None and self._losses != self._pool.losses:
                    self._losses = self._pool.losses
                    lost()
                try:
                    answer = await self._carry(connection, verb(step, request), together=together)
                except psycopg.Error as error:
                    attempt.failed(error, connection)
                    continue
            if step.wakes:
                self._shared.ring(step.wakes)
            return answer

    async def _carry(self, connection: AsyncConnection, routine: Routine[T], *, together: bool) -> T:
        place = self._place
        cursor = psycopg.AsyncRawCursor(connection)
        if not (together or self._shared.chooses_isolation):
            return await acarry(cursor, routine, place.schema, prepare=place.prepare)
        await cursor.execute(_BEGIN, prepare=False)
        try:
            answer = await acarry(cursor, routine, place.schema, prepare=place.prepare)
        except Exception:
            with suppress(psycopg.Error):
                await cursor.execute("ROLLBACK", prepare=False)
            raise
        await cursor.execute("COMMIT", prepare=False)
        _check_committed(cursor.statusmessage)
        return answer


class BlockingDesk:
    """Takes what is asked from any thread."""

    def __init__(self, shared: Shared) -> None:
        """Connects when first asked."""
        self._shared = shared
        self._place = shared.place
        self._pool = Pool(shared.place)

    def close(self) -> None:
        """Close all connections. Idempotent."""
        self._pool.close()

    def ask(self, verb: Callable[[Step, Q], Routine[T]], request: Q, *, together: bool = False) -> T:
        """Return a verb's answer; the blocking form of `AsyncDesk.ask`."""
        if is_audited(request):
            verb, together = with_entry(verb), True
        attempt = _Attempt(self._shared)
        while True:
            step = attempt.step(request)
            with self._pool.connection() as connection:
                try:
                    answer = self._carry(connection, verb(step, request), together=together)
                except psycopg.Error as error:
                    attempt.failed(error, connection)
                    continue
            if step.wakes:
                self._shared.ring(step.wakes)
            return answer

    def _carry(self, connection: Connection, routine: Routine[T], *, together: bool) -> T:
        place = self._place
        cursor = psycopg.RawCursor(connection)
        if not (together or self._shared.chooses_isolation):
            return carry(cursor, routine, place.schema, prepare=place.prepare)
        cursor.execute(_BEGIN, prepare=False)
        try:
            answer = carry(cursor, routine, place.schema, prepare=place.prepare)
        except Exception:
            with suppress(psycopg.Error):
                cursor.execute("ROLLBACK", prepare=False)
            raise
        cursor.execute("COMMIT", prepare=False)
        _check_committed(cursor.statusmessage)
        return answer


class _Attempt:
    """How often one thing was asked, and what came of it."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._before = 0
        self._repeated = False

    def step(self, request: Request) -> Step:
        """Return what the next attempt works with."""
        return self._shared.step(request, repeated=self._repeated)

    def failed(self, error: psycopg.Error, connection: Connection | AsyncConnection) -> None:
        """Return if it is to be asked again; else raise what the error means to the caller."""
        broken = connection.closed or is_broken(error)
        if not may_repeat(error, broken=broken, before=self._before):
            meant = store_error(error, self._shared.place)
            if isinstance(meant, StoreUnavailable) and not isinstance(error, _IN_THE_WAY):
                # A session keeps the settings that its role or its database had when it began, such as to be read-only.
                connection.pgconn.finish()
            raise meant from error
        if isinstance(error, SerializationFailure):
            self._shared.choose_isolation()
        self._before += 1
        self._repeated = self._repeated or broken


def _check_committed(said: str | None) -> None:
    # The server answers so, without an error, where a statement before had failed.
    if said == "ROLLBACK":
        raise StoreError("it was rolled back; this is a bug in the driver, please report it")
