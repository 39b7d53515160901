"""The two ways into a caller's transaction: over a blocking connection, and over one for event loops."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Protocol

import psycopg

from taskharbor.driver import Enqueued, JobEnqueue
from taskharbor.drivers.postgres.desk import Shared
from taskharbor.drivers.postgres.home import whereabouts
from taskharbor.drivers.postgres.joining.enqueue import enqueue
from taskharbor.drivers.postgres.joining.failure import Fate, failure
from taskharbor.drivers.postgres.joining.line import AnyLine, AwaitedLine, Line, arun, run
from taskharbor.drivers.postgres.routine import Routine, Wakes
from taskharbor.drivers.postgres.rows import instant
from taskharbor.drivers.postgres.step import Step
from taskharbor.errors import UsageError


class Owner(Protocol):
    """What the library that a connection is of has to say about it."""

    @property
    def given(self) -> object:
        """Return what the caller gave."""
        ...

    def told(self, error: psycopg.Error, /) -> Exception:
        """Return a statement's error as the caller's library would have raised it."""
        ...


class Blocking(Owner, Protocol):
    """A caller's blocking connection."""

    def open(self) -> Line:
        """Return it with a transaction begun, or about to begin at the first statement.

        Raises:
            UsageError: there is none to join, or the connection cannot be used.
            psycopg.Error: a statement failed.
        """
        ...


class Awaited(Owner, Protocol):
    """A caller's connection for event loops."""

    async def open(self) -> AwaitedLine:
        """Return it with a transaction; the async form of `Blocking.open`."""
        ...


class BlockingJoined:
    """A blocking connection, with whatever transaction is open on it."""

    def __init__(self, owner: Blocking, shared: Shared) -> None:
        self._owner = owner
        self._shared = shared
        self._turn = _turn_on(owner.given)

    def job_enqueue(self, request: JobEnqueue) -> Sequence[Enqueued]:
        """Store jobs and flows in the caller's transaction and return one answer each, in order."""
        if not (request.jobs or request.flows):
            return []
        line: Line | None = None
        # Threads may share a connection; an enqueue may be several statements.
        with self._turn.taken():
            try:
                line = self._owner.open()
                self._check(line)
                return run(line.execute, _enqueue(self._shared, request, line))
            except psycopg.Error as error:
                told, failed = self._owner.told(error), error
        raise failure(failed, told, self._shared.place, _fate(line))

    async def ajob_enqueue(self, request: JobEnqueue) -> Sequence[Enqueued]:
        """Store jobs in the caller's transaction; the connection blocks, in this form too."""
        return self.job_enqueue(request)

    def leave(self) -> None:
        """Do nothing: the server wakes workers when it commits."""

    def _check(self, line: Line) -> None:
        home = self._shared.home
        if not home.knows(line.connection):
            home.receive(line.connection, run(line.execute, whereabouts(self._shared.place.schema)))


class AwaitedJoined:
    """A connection for event loops, with whatever transaction is open on it."""

    def __init__(self, owner: Awaited, shared: Shared) -> None:
        self._owner = owner
        self._shared = shared
        self._turn = _turn_on(owner.given)

    def job_enqueue(self, request: JobEnqueue) -> Sequence[Enqueued]:
        """Refuse: such a connection cannot be waited for.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            f"harbor.using(): a {type(self._owner.given).__qualname__} is for event loops, and an enqueue that blocks "
            "cannot go through it; write `await task.aenqueue(...)` in the block"
        )

    async def ajob_enqueue(self, request: JobEnqueue) -> Sequence[Enqueued]:
        """Store jobs and flows in the caller's transaction and return one answer each, in order."""
        if not (request.jobs or request.flows):
            return []
        line: AwaitedLine | None = None
        async with self._turn.of_tasks:
            try:
                line = await self._owner.open()
                await self._check(line)
                return await arun(line.execute, _enqueue(self._shared, request, line))
            except psycopg.Error as error:
                told, failed = self._owner.told(error), error
        raise failure(failed, told, self._shared.place, _fate(line))

    def leave(self) -> None:
        """Do nothing: the server wakes workers when it commits."""

    async def _check(self, line: AwaitedLine) -> None:
        home = self._shared.home
        if not home.knows(line.connection):
            found = await arun(line.execute, whereabouts(self._shared.place.schema))
            await asyncio.to_thread(home.receive, line.connection, found)


def _enqueue(shared: Shared, request: JobEnqueue, line: AnyLine) -> Routine[Sequence[Enqueued]]:
    by = id(line.connection)
    step = Step(instant(request.now), shared.book, shared.slots, Wakes(), joined=True)
    return enqueue(step, request, shared.channel, lambda queues: shared.announce(queues, by))


def _fate(line: AnyLine | None) -> Fate:
    return Fate.OPEN if line is None else line.fate


class _Turn:
    """Whose turn it is on one connection."""

    def __init__(self) -> None:
        self._of_threads = threading.Lock()
        self._holder = 0
        self.of_tasks = asyncio.Lock()

    @contextmanager
    def taken(self) -> Generator[None]:
        """Take this thread's turn, for a block."""
        own = threading.get_ident()
        if self._holder == own:  # it would wait for itself
            raise UsageError(
                "harbor.using(): an enqueue is under way on this connection in this very thread; a signal's handler "
                "cannot take part in it; have it set a flag that the program looks at"
            )
        with self._of_threads:
            self._holder = own
            try:
                yield
            finally:
                self._holder = 0


# By the identity of what was given, which lives as long as those who joined it.
_turns: weakref.WeakValueDictionary[int, _Turn] = weakref.WeakValueDictionary()
_turns_lock = threading.Lock()


def _turn_on(given: object) -> _Turn:
    """Return what all who join this connection share. It goes with the last of them."""
    with _turns_lock:
        turn = _turns.get(id(given))
        if turn is None:
            turn = _turns[id(given)] = _Turn()
        return turn
