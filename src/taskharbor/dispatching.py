"""What a harbor does for tasks, for handles and for those who send: the `Dispatcher` protocol, and many calls at once.

By way of a sender, a follower and the harbor's connections, which it is given.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

from taskharbor.call import (
    Call,
    FlowCall,
    JobHandle,
    Sent,
    Signature,
    enter,
    handles,
    leave,
    refuse_on_loop,
    sendables,
)
from taskharbor.codec import CodecBook
from taskharbor.connections import Connections
from taskharbor.driver import Store
from taskharbor.flow import Sequel
from taskharbor.flows import Flows
from taskharbor.following import Follower
from taskharbor.job import JobRecord
from taskharbor.sending import Sender

T = TypeVar("T")
R = TypeVar("R")


class Dispatching(ABC):
    """The half of a harbor that tasks and handles know."""

    def __init__(self, connections: Connections, sender: Sender, follower: Follower) -> None:
        self._connections = connections
        self._sender = sender
        self._follower = follower

    @property
    @abstractmethod
    def codecs(self) -> CodecBook:
        """Return the wire formats it can read."""

    @property
    @abstractmethod
    def flows(self) -> Flows:
        """Return what can be done with stored flows by hand."""

    # --- sending

    def enqueue_many(
        self, signatures: Iterable[Signature[R]], *, check: bool | None = None
    ) -> list[JobHandle[R]]:
        """Store many calls in one transaction, all or none, and return their handles in order.

        Args:
            signatures: calls made by `task.s(...)`, of any tasks.
            check: False skips the decoding of each payload, for arguments known to be right; None does as the harbor.

        Raises:
            PayloadError: arguments do not fit a signature; nothing was stored.
            PayloadTooLarge: one call's are larger than a job carries (16 MiB, encoded); nothing was stored.
            DuplicateJob: a key is taken and `on_conflict="raise"` was asked; nothing was stored.
            KeyConflict: a key is taken by a job with other arguments; nothing was stored.
            BlockingCallError: on a running event loop; use `aenqueue_many`.
        """
        refuse_on_loop("harbor.enqueue_many()", "harbor.aenqueue_many(...)")
        calls = sendables(signatures)
        return handles(self, calls, self._sender.send(calls, check=check))

    async def aenqueue_many(
        self, signatures: Iterable[Signature[R]], *, check: bool | None = None
    ) -> list[JobHandle[R]]:
        """Store many calls in one transaction; the async form of `enqueue_many`."""
        calls = sendables(signatures)
        return handles(self, calls, await self._sender.asend(calls, check=check))

    @contextmanager
    def using(self, connection: object) -> Generator[None]:
        """Send the enqueues of a block through your own transaction: your rows and the jobs, together or not at all.

            with connection, harbor.using(connection):      # yours, to the harbor's own database
                connection.execute("INSERT INTO orders ...")
                send_receipt.enqueue(order)

        This is the current harbor of the block, and all that it enqueues there goes that way: `enqueue` and `aenqueue`
        of tasks, `enqueue_many` and `aenqueue_many`. Blocks nest, and the inner one wins.
        The block is this context's own: asyncio tasks begun in it belong to it too until it ends, and send by the
        ordinary way afterwards; await them inside the block.
        The transaction is yours: you begin it, commit it or roll it back, after the block.

        All else goes by the harbor's own connections. So others see a job, and its handle's `status()`, `result()`
        and `cancel()` find it, only once the transaction has been committed. Middleware around the enqueue is told when
        it is written, before that.

        On SQLite it takes sqlite3 connections; on PostgreSQL those of psycopg, SQLAlchemy 2, Django and asyncpg.
        `docs/how-to/enqueue-in-a-transaction.md` shows each.

        Raises:
            UnsupportedError: the store cannot join transactions.
            UsageError: it is no connection to this harbor's store; or the block ends while an enqueue is under way
                in a task or thread begun in it. At an enqueue: there is no transaction to join.
        """
        with self._sender.using(connection):
            # Else a task would go to whichever harbor was current before: to another store, and stored at once.
            token = enter(self)
            try:
                yield
            finally:
                with contextlib.suppress(ValueError):  # the block ends in another context than it began in
                    leave(token)

    def send(self, calls: Sequence[Call | FlowCall]) -> Sequence[Sent]:
        """Store calls as jobs, and flows; see `Dispatcher`."""
        return self._sender.send(calls)

    async def asend(self, calls: Sequence[Call | FlowCall]) -> Sequence[Sent]:
        """Store calls as jobs, and flows; see `Dispatcher`."""
        return await self._sender.asend(calls)

    def sequel(self, calls: Sequence[Call | FlowCall]) -> Sequel:
        """Return calls and flows as they would be stored; see `Dispatcher`."""
        return self._sender.sequel(calls)

    # --- what tasks and handles ask

    def look(self, job_id: str) -> JobRecord:
        """Return what the store knows of a job; raises `JobNotFound`."""
        return self._follower.look(job_id)

    async def alook(self, job_id: str) -> JobRecord:
        """Return what the store knows of a job; raises `JobNotFound`."""
        return await self._follower.alook(job_id)

    def cancel(self, job_id: str, reason: str) -> bool:
        """Ask for a cancel; return False if the job had ended already. Raises `JobNotFound`."""
        return self._follower.cancel(job_id, reason)

    async def acancel(self, job_id: str, reason: str) -> bool:
        """Ask for a cancel; return False if the job had ended already. Raises `JobNotFound`."""
        return await self._follower.acancel(job_id, reason)

    def await_end(self, job_id: str, timeout: timedelta | None) -> JobRecord:
        """Block until the job is terminal; raises `ResultTimeout`, `JobNotFound`."""
        return self._follower.await_end(job_id, timeout)

    async def aawait_end(self, job_id: str, timeout: timedelta | None) -> JobRecord:
        """Wait until the job is terminal; raises `ResultTimeout`, `JobNotFound`."""
        return await self._follower.aawait_end(job_id, timeout)

    def ask(self, work: Callable[[Store], Awaitable[T]]) -> T:
        """Return what `work` returns, run with a store, blocking."""
        return self._connections.ask(work)

    async def aask(self, work: Callable[[Store], Awaitable[T]]) -> T:
        """Return what `work` returns, run with this event loop's store."""
        return await self._connections.aask(work)
