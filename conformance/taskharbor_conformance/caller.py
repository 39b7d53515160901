"""An application with rows of its own in the jobs' place: what a factory gives beside the driver if that can join its
transactions, and how cases ask it.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from datetime import datetime
from typing import Protocol, TypeAlias, TypeVar, runtime_checkable

from taskharbor.driver import Driver, Enqueued, JobEnqueue, Joined, TransactionalDriver
from taskharbor.flow import NewFlow
from taskharbor.job import NewJob

T = TypeVar("T")


class Caller(Protocol):
    """A connection of an application's own, and a table of numbers beside the jobs. Blocking, whatever it is of.

    The suite makes and asks it in one thread, which runs no event loop.
    """

    @property
    def given(self) -> object:
        """Return what goes into `harbor.using`."""
        ...

    def begin(self) -> None:
        """Begin a transaction; nothing where the application's library does so by itself."""
        ...

    def commit(self) -> None:
        """End the transaction; its rows are there from now on."""
        ...

    def rollback(self) -> None:
        """End the transaction; its rows were never there."""
        ...

    def savepoint(self) -> None:
        """Set a savepoint."""
        ...

    def rollback_to_savepoint(self) -> None:
        """Take back what came after the last savepoint; the transaction goes on."""
        ...

    def add_row(self, number: int, /) -> None:
        """Write a row in the transaction."""
        ...

    def rows(self) -> Sequence[int]:
        """Return the rows that others see, sorted; not by this connection."""
        ...


@runtime_checkable
class AwaitedCaller(Caller, Protocol):
    """One whose connection is for event loops."""

    def run(self, work: Awaitable[T], /) -> T:
        """Wait for something on the connection's own event loop, in the context of whoever asks."""
        ...


OpenCaller: TypeAlias = Callable[[], AbstractContextManager[Caller]]
"""Connects an application to a place; leaving the block rolls back what it has not committed, and disconnects it."""


class PlaceWithCallers:
    """What a factory yields for a driver that joins transactions: it opens drivers, and connects applications."""

    def __init__(self, open_driver: Callable[[], Driver], open_caller: OpenCaller) -> None:
        """Take a function that opens a driver on the place, and one that connects an application to it."""
        self._open_driver = open_driver
        self.open_caller = open_caller

    def __call__(self) -> Driver:
        """Open one more driver on the place."""
        return self._open_driver()


class Application:
    """A caller as cases ask it: awaited, and with its transactions joined."""

    def __init__(
        self,
        caller: Caller,
        driver: TransactionalDriver,
        threads: ThreadPoolExecutor,
        now: Callable[[], datetime],
    ) -> None:
        self.caller = caller
        self._driver = driver
        self._threads = threads
        self._now = now
        self._joined: Joined | None = None

    async def run(self, work: Callable[[], T]) -> T:
        """Return what `work` returns in the caller's thread."""
        return await _run(self._threads, work)

    async def join(self) -> None:
        """Begin a block, as `harbor.using` does."""
        self._joined = await self.run(lambda: self._driver.join(self.caller.given))

    async def leave(self) -> None:
        """End the block; nothing if none is open."""
        joined, self._joined = self._joined, None
        if joined is not None:
            await self.run(joined.leave)

    async def begin(self) -> None:
        """Begin a transaction."""
        await self.run(self.caller.begin)

    async def commit(self) -> None:
        """Commit it."""
        await self.run(self.caller.commit)

    async def rollback(self) -> None:
        """Roll it back."""
        await self.run(self.caller.rollback)

    async def savepoint(self) -> None:
        """Set a savepoint in it."""
        await self.run(self.caller.savepoint)

    async def rollback_to_savepoint(self) -> None:
        """Take back what came after the savepoint."""
        await self.run(self.caller.rollback_to_savepoint)

    async def add_row(self, number: int) -> None:
        """Write a row in it."""
        await self.run(lambda: self.caller.add_row(number))

    async def rows(self) -> list[int]:
        """Return the rows that others see."""
        return list(await self.run(self.caller.rows))

    async def enqueue_all(self, *jobs: NewJob, all_or_none: bool = False) -> list[Enqueued]:
        """Store jobs in the transaction, in the form that the connection is for, and return the answers."""
        answers = await self._enqueue(JobEnqueue(jobs=jobs, all_or_none=all_or_none, now=self._now()))
        assert len(jobs) == len(answers), "job_enqueue: one answer a job"
        return answers

    async def enqueue_flows(self, *flows: NewFlow) -> list[Enqueued]:
        """Store flows in the transaction, and return the answers."""
        answers = await self._enqueue(JobEnqueue(jobs=(), flows=flows, now=self._now()))
        assert len(flows) == len(answers), "job_enqueue: one answer a flow"
        return answers

    async def _enqueue(self, request: JobEnqueue) -> list[Enqueued]:
        joined, caller = self.joined, self.caller
        if isinstance(caller, AwaitedCaller):
            return list(await self.run(lambda: caller.run(joined.ajob_enqueue(request))))
        return list(await self.run(lambda: joined.job_enqueue(request)))

    @property
    def joined(self) -> Joined:
        """Return the way into the caller's transaction."""
        assert self._joined is not None, "a block is open while the case enqueues"
        return self._joined


@asynccontextmanager
async def connected(
    open_caller: OpenCaller, driver: TransactionalDriver, now: Callable[[], datetime]
) -> AsyncGenerator[Application]:
    """Connect an application in a thread of its own, a block begun; both are gone at the end."""
    with ThreadPoolExecutor(1, "caller") as threads:
        stack = ExitStack()
        caller = await _run(threads, lambda: stack.enter_context(open_caller()))
        application = Application(caller, driver, threads, now)
        try:
            await application.join()
            yield application
            await application.leave()
        finally:
            await _run(threads, stack.close)


async def _run(threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    context = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(threads, lambda: context.run(work))
