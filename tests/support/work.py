"""Short ways to run jobs in a test, to wait for what a test waits for, and drivers that misbehave when told to."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from datetime import timedelta
from typing import TypeVar, cast
from unittest import mock

from taskharbor import Harbor, JobRecord, JobState, Worker
from taskharbor.clock import Clock
from taskharbor.driver import Capability, Store, Subscription, Wake
from taskharbor.drivers.memory import MemoryDriver
from taskharbor.errors import StoreUnavailable

T = TypeVar("T")

MS = timedelta(milliseconds=1)
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
ENOUGH = timedelta(seconds=20)
"""How long a test waits for what must come. Far longer than any takes, so that only what never comes fails."""
LEASE = 300 * MS
"""A lease short enough that a heartbeat is never waited for long."""


def eventually(condition: Callable[[], bool], what: str = "the condition") -> None:
    """Wait until something that signals nothing has come true."""
    end = time.monotonic() + ENOUGH.total_seconds()
    while not condition():
        assert time.monotonic() < end, f"{what} never came true"
        time.sleep(0.002)


async def aeventually(condition: Callable[[], bool], what: str = "the condition") -> None:
    """Wait on the loop until something that signals nothing has come true."""
    end = time.monotonic() + ENOUGH.total_seconds()
    while not condition():
        assert time.monotonic() < end, f"{what} never came true"
        await asyncio.sleep(0.002)


def await_event(event: threading.Event) -> None:
    """Wait for an event that must come."""
    assert event.wait(ENOUGH.total_seconds()), "the event never came"


def spin(until: Callable[[], bool] = lambda: False) -> None:
    """Be busy in a handler until interrupted, or `until` says so: bytecode that a `JobInterrupt` can land in."""
    end = time.monotonic() + ENOUGH.total_seconds()
    while time.monotonic() < end and not until():
        time.sleep(0.001)  # so that others get the interpreter; an interrupt lands once it returns


@contextmanager
def drains_noted() -> Generator[threading.Event]:
    """Return an event that is set as soon as some worker has been told to stop."""
    told, drain = threading.Event(), Worker.drain

    def noting(worker: Worker) -> None:
        drain(worker)
        told.set()

    with mock.patch.object(Worker, "drain", noting):
        yield told


async def within(work: Awaitable[T], seconds: float = 20.0) -> T:
    """Return what `work` returns, and fail instead of hanging."""
    return await asyncio.wait_for(work, seconds)


def record(harbor: Harbor, job_id: str) -> JobRecord:
    """Return what the store knows of a job."""
    return harbor.look(job_id)


def running(harbor: Harbor) -> list[str]:
    """Return the ids of all jobs that are leased."""
    return [job.id for job in harbor.jobs.find(states=[JobState.RUNNING], limit=100_000)]


async def arunning(harbor: Harbor) -> list[str]:
    """Return the ids of all jobs that are leased."""
    return [job.id for job in await harbor.jobs.afind(states=[JobState.RUNNING], limit=100_000)]


def states(harbor: Harbor) -> dict[str, int]:
    """Return how many jobs are in each state."""
    counts: dict[str, int] = {}
    for counted in harbor.jobs.count():
        counts[counted.state.value] = counts.get(counted.state.value, 0) + counted.count
    return counts


def threads_named(*prefixes: str) -> list[threading.Thread]:
    """Return the live threads whose names begin with one of these."""
    return [thread for thread in threading.enumerate() if thread.name.startswith(prefixes)]


Trouble = Callable[[str, object], None]
"""Called with a verb and its request; raises what the store should raise."""


class TroubledStore:
    """A store whose verbs fail before they are carried out, or after: then the answer alone is lost."""

    def __init__(self, store: Store, driver: TroubledDriver) -> None:
        self._store = store
        self._driver = driver

    def __getattr__(self, name: str) -> object:
        verb: Callable[[object], Awaitable[object]] = getattr(self._store, name)

        async def ask(request: object) -> object:
            self._driver.asked.append((name, request))
            self._driver.before(name, request)
            gate = self._driver.gates.get(name)
            if gate is not None:
                await gate()
            answer = await verb(request)
            self._driver.after(name, request)
            return answer

        ask.__name__ = name
        return ask


def _no_trouble(verb: str, request: object) -> None:
    """Let it pass."""


class TroubledDriver:
    """An async-only driver over a memory store, with trouble as the test orders it.

    Without orders it stands in for a driver that has no blocking face.
    """

    name = "troubled"
    capabilities: frozenset[Capability] = frozenset()
    poll_interval = timedelta(milliseconds=50)

    def __init__(self, clock: Clock | None = None) -> None:
        self.memory = MemoryDriver(clock)
        self.before: Trouble = _no_trouble
        self.after: Trouble = _no_trouble
        self.gates: dict[str, Callable[[], Awaitable[None]]] = {}
        """Awaited by a verb before it is carried out."""
        self.asked: list[tuple[str, object]] = []

    def connect(self) -> AbstractAsyncContextManager[Store]:
        return self._connect()

    @asynccontextmanager
    async def _connect(self) -> AsyncGenerator[Store]:
        async with self.memory.connect() as store:
            yield cast("Store", cast("object", TroubledStore(store, self)))

    def watch_queues(self, queues: Sequence[str], wake: Wake) -> Subscription:
        return self.memory.watch_queues(queues, wake)

    def watch_jobs(self, ids: Sequence[str], wake: Wake) -> Subscription:
        return self.memory.watch_jobs(ids, wake)

    def close(self) -> None:
        self.memory.close()

    def count(self, verb: str) -> int:
        """Return how often a verb was asked."""
        return sum(1 for name, _ in self.asked if name == verb)


def fails(times: int, *verbs: str) -> Trouble:
    """Return trouble: each of the verbs raises `StoreUnavailable` the first `times` times."""
    left = dict.fromkeys(verbs, times)
    lock = threading.Lock()

    def trouble(verb: str, request: object) -> None:
        with lock:
            if left.get(verb, 0) <= 0:
                return
            left[verb] -= 1
        raise StoreUnavailable(f"the connection was cut at {verb}")

    return trouble


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait on the loop until a question that has to be awaited is answered with yes."""
    end = time.monotonic() + ENOUGH.total_seconds()
    while not await condition():
        assert time.monotonic() < end, "the condition never came true"
        await asyncio.sleep(0.002)


async def until_running(harbor: Harbor, count: int) -> None:
    """Wait until so many jobs are leased."""

    async def so_many() -> bool:
        return len(await arunning(harbor)) == count

    await until(so_many)
