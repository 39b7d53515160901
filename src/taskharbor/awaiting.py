"""Waiting until a job or a flow stands as one wishes: woken by the driver, and looking again now and then."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Protocol, TypeVar

from taskharbor.call import WaitLimit
from taskharbor.driver import Driver


class Standing(Protocol):
    """A record that tells how something stands."""

    @property
    def state(self) -> str:
        """Return its state."""
        ...

    @property
    def reason(self) -> str:
        """Return why, where there is a reason."""
        ...


S = TypeVar("S", bound=Standing)


def await_standing(
    driver: Driver, watched: str, timeout: timedelta | None, look: Callable[[], S], over: Callable[[S], bool]
) -> S:
    """Block until a record is as wished, and return it.

    Args:
        driver: wakes those who wait.
        watched: the id of the job, or of the flow.
        timeout: for how long; None for as long as it takes.
        look: returns the record.
        over: whether it is as wished.

    Raises:
        ResultTimeout: it was not in time.
    """
    woken = threading.Event()
    limit = WaitLimit(watched, timeout, driver.poll_interval)
    subscription = driver.watch_jobs([watched], woken.set)
    try:
        while True:
            woken.clear()
            record = look()
            if over(record):
                return record
            woken.wait(limit.next_wait(record.state, record.reason))
    finally:
        subscription.close()


async def aawait_standing(
    driver: Driver,
    watched: str,
    timeout: timedelta | None,
    look: Callable[[], Awaitable[S]],
    over: Callable[[S], bool],
) -> S:
    """Wait until a record is as wished; the async form of `await_standing`."""
    import asyncio

    loop, woken = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has closed
            loop.call_soon_threadsafe(woken.set)

    limit = WaitLimit(watched, timeout, driver.poll_interval)
    subscription = driver.watch_jobs([watched], wake)
    try:
        while True:
            woken.clear()
            record = await look()
            if over(record):
                return record
            wait = limit.next_wait(record.state, record.reason)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(woken.wait(), wait)
    finally:
        subscription.close()
