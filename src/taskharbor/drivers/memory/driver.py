"""The memory driver as a whole: opening stores, waking those who wait."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from datetime import timedelta

from taskharbor.clock import Clock, SystemClock
from taskharbor.driver import Capability, ProducerStore, Store, Subscription, Wake
from taskharbor.drivers.memory.blocking import BlockingMemoryStore
from taskharbor.drivers.memory.store import MemoryStore
from taskharbor.drivers.memory.tables import Tables, subscribe
from taskharbor.job import NewJob


class MemoryDriver:
    """A store inside this process: the reference for every rule, quick, and gone with the process.

    Each driver object is a store of its own. Safe to use from any thread and event loop.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        """Make an empty store on `clock`, by default the machine's."""
        self._tables = Tables(clock or SystemClock())
        self._tables.clock.on_turn(self._wake_queues)

    name = "memory"
    capabilities = frozenset({Capability.BLOCKING})
    # Wake-ups here are plain calls and do not get lost; this is for the turn of the machine's clock.
    poll_interval = timedelta(seconds=30)

    def connect(self) -> AbstractAsyncContextManager[Store]:
        """Open a store for the running event loop."""
        return self._connect()

    @asynccontextmanager
    async def _connect(self) -> AsyncGenerator[Store]:
        yield MemoryStore(self._tables)

    def connect_blocking(self) -> AbstractContextManager[ProducerStore]:
        """Open a blocking store."""
        return self._connect_blocking()

    @contextmanager
    def _connect_blocking(self) -> Generator[ProducerStore]:
        yield BlockingMemoryStore(self._tables)

    def watch_queues(self, queues: Sequence[str], wake: Wake) -> Subscription:
        """Wake when jobs of these queues may have become due."""
        return _Subscription(subscribe(self._tables, self._tables.queue_watchers, list(queues), wake))

    def watch_jobs(self, ids: Sequence[str], wake: Wake) -> Subscription:
        """Wake when one of these jobs may have reached a terminal state."""
        return _Subscription(subscribe(self._tables, self._tables.job_watchers, list(ids), wake))

    def enqueued(self, job_id: str) -> NewJob | None:
        """Return a job as it was enqueued, for tests; None if it is not kept any more."""
        with self._tables.lock:
            row = self._tables.rows.get(job_id)
            return None if row is None else row.job

    def close(self) -> None:
        """Do nothing: the store goes with the last reference to it."""

    def _wake_queues(self) -> None:
        with self._tables.lock:
            wakes = [wake for watchers in self._tables.queue_watchers.values() for wake in watchers]
        for wake in wakes:
            wake()


class _Subscription:
    def __init__(self, remove: Callable[[], None]) -> None:
        self._remove = remove

    def close(self) -> None:
        """End the subscription."""
        self._remove()
