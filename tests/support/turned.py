"""Processes that may lead and fire schedules, on a clock that somebody else turns, to be killed at random.

`python -m tests.support.turned URL CLOCK` forks one for each line it reads, a number of seconds by which that process's
own clock is wrong, and answers with its pid. The store's clock is eight bytes of the file CLOCK.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import signal
import struct
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import cast

import msgspec

from taskharbor.clock import from_micros, micros
from taskharbor.driver import Driver, Store
from taskharbor.driver.request import Request
from taskharbor.drivers import open_driver
from taskharbor.upkeep import Leading, leading
from taskharbor.upkeep.leadership import Leadership
from tests.support.skewed import skew

_TTL = timedelta(seconds=0.3)
_LOOK_SECONDS = 0.02


class Hands:
    """The clock that all processes of a test read, and one turns."""

    def __init__(self, path: Path, start: datetime | None = None) -> None:
        if start is not None:
            path.write_bytes(struct.pack("q", micros(start)))
        with path.open("r+b") as file:
            self._bytes = mmap.mmap(file.fileno(), 8)

    def now(self) -> datetime:
        return from_micros(int.from_bytes(self._bytes[:8], sys.byteorder, signed=True))

    def turn(self, to: datetime) -> None:
        self._bytes[:8] = struct.pack("q", micros(to))

    def close(self) -> None:
        self._bytes.close()


class TurnedStore:
    """A store that is told what time it is with each request."""

    def __init__(self, store: Store, hands: Hands) -> None:
        self._store = store
        self._hands = hands

    def __getattr__(self, name: str) -> Callable[[Request], Awaitable[object]]:
        verb = cast("Callable[[Request], Awaitable[object]]", getattr(self._store, name))
        return lambda request: verb(msgspec.structs.replace(request, now=self._hands.now()))


class TurnedDriver:
    """A driver of such stores."""

    def __init__(self, driver: Driver, hands: Hands) -> None:
        self._driver = driver
        self._hands = hands

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[Store]:
        async with self._driver.connect() as store:
            yield cast("Store", cast("object", TurnedStore(store, self._hands)))


def turned(driver: Driver, hands: Hands) -> Callable[[], AbstractAsyncContextManager[Store]]:
    """Return what opens stores that go by that clock."""
    return TurnedDriver(driver, hands).connect


async def _lead(url: str, hands: Hands) -> None:
    driver = cast("Driver", cast("object", TurnedDriver(open_driver(url), hands)))
    worker = f"worker-{os.getpid()}"
    async with driver.connect() as store:
        await Leading(driver, worker=worker, leadership=Leadership(worker, ttl=_TTL)).run(store)


def _main(url: str, clock: Path) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # whoever is killed is gone at once
    children: list[int] = []
    try:
        for line in sys.stdin:
            pid = os.fork()
            if pid == 0:
                skew(float(line))
                leading.__dict__["_LOOK_SECONDS"] = _LOOK_SECONDS
                asyncio.run(_lead(url, Hands(clock)))
                os._exit(0)
            children.append(pid)
            print(pid, flush=True)
    finally:
        for pid in children:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]))
