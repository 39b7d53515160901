"""A listener's end: news are taken by iterating, from any thread and on any event loop."""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Generic, Self

from typing_extensions import TypeVar

from taskharbor.call import refuse_on_loop
from taskharbor.call.options import check_duration
from taskharbor.telemetry.buffer import Buffer
from taskharbor.telemetry.hub import Hub
from taskharbor.telemetry.news import News

T_co = TypeVar("T_co", covariant=True)


class Subscription(Generic[T_co]):
    """What was asked for, as it comes to pass in this process. Made by `harbor.events(...)` and `harbor.results(...)`.

        with harbor.events(kinds=JobDead) as events:
            for event in events:                # or `async for`, in `async with`
                alert(event.task, event.error)

    It listens from when it is made until it is closed, by its block's end, by `close`, or with its harbor; iterating
    then ends once what had come before is taken. Several readers of one subscription share what comes: each is given to
    one of them. What is not taken is kept up to its `size`; `when_full` says what happens then.
    """

    def __init__(self, hub: Hub, buffer: Buffer, read: Callable[[News], T_co], what: str) -> None:
        """Made by the harbor."""
        self._buffer = buffer
        self._read = read
        self._what = what
        self._hub = hub
        hub.add(buffer)
        # One that is forgotten rather than closed must not be filled for ever.
        self._end = weakref.finalize(self, hub.remove, buffer)
        self._end.atexit = False

    def __repr__(self) -> str:
        return f"<Subscription of {self._what}{', closed' if self.closed else ''}>"

    @property
    def dropped(self) -> int:
        """Return how many were dropped, because they came while it was full."""
        return self._buffer.dropped

    @property
    def closed(self) -> bool:
        """Return whether it listens no more. What came before can still be taken."""
        return self._buffer.closed

    def close(self) -> None:
        """Listen no more, and let readers that wait go. Idempotent; callable from any thread."""
        self._end()

    def get(self, timeout: timedelta | None = None) -> T_co | None:
        """Wait for the next one, and return it; None if it is closed, or none comes in time.

        Args:
            timeout: how long to wait; None waits for ever, zero takes what is there.

        Raises:
            BlockingCallError: on a running event loop; use `aget`.
        """
        refuse_on_loop("Subscription.get()", "subscription.aget(...)")
        deadline = _deadline(timeout)
        news = self._take()
        if news is None:
            news = self._wait(deadline)
        return None if news is None else self._read(news)

    def _wait(self, deadline: float | None) -> News | None:
        woken = threading.Event()
        self._buffer.on_news(woken.set)
        try:
            while True:
                woken.clear()
                over = self.closed  # before the look: what came before the end is still taken
                news = self._take()
                if news is not None or over:
                    return news
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return None
                woken.wait(left)
        finally:
            self._buffer.off_news(woken.set)

    async def aget(self, timeout: timedelta | None = None) -> T_co | None:
        """Wait for the next one, and return it; the async form of `get`."""
        deadline = _deadline(timeout)
        news = self._take()
        if news is None:
            news = await self._await(deadline)
        return None if news is None else self._read(news)

    async def _await(self, deadline: float | None) -> News | None:
        import asyncio

        loop, woken = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has closed
                loop.call_soon_threadsafe(woken.set)

        self._buffer.on_news(wake)
        try:
            while True:
                woken.clear()
                over = self.closed
                news = self._take()
                if news is not None or over:
                    return news
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return None
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(woken.wait(), left)
        finally:
            self._buffer.off_news(wake)

    def _take(self) -> News | None:
        news, made_room = self._buffer.take()
        if made_room:
            self._hub.note_room()
        return news

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T_co:
        found = self.get()
        if found is None:
            raise StopIteration
        return found

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T_co:
        found = await self.aget()
        if found is None:
            raise StopAsyncIteration
        return found

    def __enter__(self) -> Self:
        """Return itself; the end of the block closes it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    async def __aenter__(self) -> Self:
        """Return itself; the end of the block closes it."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()


def _deadline(timeout: timedelta | None) -> float | None:
    if timeout is None:
        return None
    check_duration(timeout, "timeout")
    return time.monotonic() + timeout.total_seconds()
