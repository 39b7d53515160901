"""`harbor.feed(...)`: what happens to jobs in the workers of all processes, read from the store."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Self

from taskharbor.call import refuse_on_loop
from taskharbor.call.options import check_duration, check_sought
from taskharbor.control.asking import Asks
from taskharbor.driver import EventPage, EventRead, EventUnwatch, EventWatch, Store
from taskharbor.errors import OptionError, StoreUnavailable
from taskharbor.event import JobEvent
from taskharbor.job import new_token

KEEP = timedelta(minutes=5)
_SHORTEST = timedelta(seconds=10)
_PAGE = 500
_FIRST_SECONDS = 0.25
_LONGEST_SECONDS = 2.0
_GROWTH = 1.5


class Feed:
    """Events of all workers, in one order, to be read on from where one was. Made by `harbor.feed(...)`.

        with harbor.feed(reader="dashboard", after=saved) as feed:
            for event in feed:                  # or `async for`, in `async with`
                show(event)
                saved = feed.cursor

    Each event is given once. Iterating waits for more, asking the store every quarter of a second up to every two, and
    ends when the feed is closed. If the store cannot be reached, `StoreUnavailable` is raised, and iterating can be
    taken up again. For one reader at a time; only `close` may be called from elsewhere.
    """

    def __init__(
        self,
        asks: Asks,
        *,
        reader: str,
        after: str | None,
        keep: timedelta,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Made by the harbor; asks nothing yet."""
        self._asks = asks
        self._named = bool(reader)
        self._reader = reader or f"{socket.gethostname()}:{os.getpid()}:{new_token():016x}"
        self._keep = keep
        self._monotonic = monotonic
        self._cursor = after
        self._place = after
        """After what was read; ahead of the cursor while not all of it was taken."""
        self._events = deque[JobEvent]()
        self._watched_at: float | None = None
        self._missed = False
        self._wait = _FIRST_SECONDS
        self._closed = threading.Event()
        self._wake: Callable[[], None] | None = None

    def __repr__(self) -> str:
        return f"<Feed for {self._reader}{', closed' if self._closed.is_set() else ''}>"

    @property
    def cursor(self) -> str | None:
        """Return where to read on from later, as `harbor.feed(after=...)`; None before it was first read.

        Events are read in pages: it moves on when the one after the last of a page is asked for. So who resumes from it
        may be given some events again, which have the same `id`, and misses none.
        """
        return self._cursor

    @property
    def missed(self) -> bool:
        """Return whether events may have been missed: removed before they were read, or not kept for a while."""
        return self._missed

    def get(self, timeout: timedelta | None = None) -> JobEvent | None:
        """Wait for the next event, and return it; None if the feed is closed, or none comes in time.

        Args:
            timeout: how long to wait; None waits for ever, zero looks once.

        Raises:
            StoreUnavailable: the store cannot be reached now.
            OptionError: what was given as `after` is no cursor of this store.
            BlockingCallError: on a running event loop; use `aget`.
        """
        refuse_on_loop("Feed.get()", "feed.aget(...)")
        deadline = self._deadline(timeout)
        while not self._closed.is_set():
            if self._events:
                return self._events.popleft()
            self._asks.ask(self._read)
            if not self._events:
                wait = self._pause(deadline)
                if wait is None:
                    return None
                self._closed.wait(wait)
        return None

    async def aget(self, timeout: timedelta | None = None) -> JobEvent | None:
        """Wait for the next event, and return it; the async form of `get`."""
        deadline = self._deadline(timeout)
        while not self._closed.is_set():
            if self._events:
                return self._events.popleft()
            await self._asks.aask(self._read)
            if not self._events:
                wait = self._pause(deadline)
                if wait is None:
                    return None
                await self._sleep(wait)
        return None

    def close(self) -> None:
        """Read no more, and let a reader that waits go. Idempotent.

        Events are kept on for a reader with a name, for as long as it asked (`keep`), so that it can come back; for one
        without they are not.
        """
        if not self._end():
            return
        with contextlib.suppress(StoreUnavailable):
            self._asks.ask(self._unwatch)

    async def aclose(self) -> None:
        """Read no more; the async form of `close`."""
        if not self._end():
            return
        with contextlib.suppress(StoreUnavailable):
            await self._asks.aask(self._unwatch)

    def _end(self) -> bool:
        """Note the end, and return whether the store has to be told."""
        first = not self._closed.is_set()
        self._closed.set()
        wake = self._wake
        if wake is not None:
            wake()
        return first and not self._named and self._watched_at is not None

    async def _unwatch(self, store: Store) -> None:
        await store.event_unwatch(EventUnwatch(readers=[self._reader]))

    async def _watch(self, store: Store) -> None:
        """Have events kept from here on; asked again at a third of the time."""
        now = self._monotonic()
        if self._watched_at is not None and now - self._watched_at < self._keep.total_seconds() / 3:
            return
        watched = await store.event_watch(EventWatch(reader=self._reader, ttl=self._keep))
        # A name that was made up just now has never watched; then it matters whether anybody has.
        gone = watched.lapsed if self._named or self._watched_at is not None else watched.unwatched
        self._watched_at = now
        if self._place is None:
            self._cursor = self._place = watched.cursor
        elif (
            self._place and gone
        ):  # who asks for the oldest event kept has read nothing yet, and misses nothing
            self._missed = True

    async def _read(self, store: Store) -> None:
        await self._watch(store)
        # All that was read before has been taken.
        self._cursor = self._place
        page: EventPage = await store.event_read(EventRead(after=self._place or "", limit=_PAGE))
        self._place = page.cursor
        self._missed = self._missed or page.missed
        self._events.extend(page.events)
        self._wait = _FIRST_SECONDS if page.events else min(self._wait * _GROWTH, _LONGEST_SECONDS)
        if not page.events:
            self._cursor = self._place

    def _deadline(self, timeout: timedelta | None) -> float | None:
        if timeout is None:
            return None
        check_duration(timeout, "timeout")
        return self._monotonic() + timeout.total_seconds()

    def _pause(self, deadline: float | None) -> float | None:
        """Return how many seconds to wait before the store is asked again; None if there is no time left."""
        if deadline is None:
            return self._wait
        left = deadline - self._monotonic()
        return min(self._wait, left) if left > 0 else None

    async def _sleep(self, seconds: float) -> None:
        import asyncio

        loop, closed = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has closed
                loop.call_soon_threadsafe(closed.set)

        self._wake = wake
        try:
            if not self._closed.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(closed.wait(), seconds)
        finally:
            self._wake = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> JobEvent:
        event = self.get()
        if event is None:
            raise StopIteration
        return event

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> JobEvent:
        event = await self.aget()
        if event is None:
            raise StopAsyncIteration
        return event

    def __enter__(self) -> Self:
        """Have events kept from now on; the end of the block closes it.

        Raises:
            StoreUnavailable: the store cannot be reached now.
        """
        refuse_on_loop("with harbor.feed()", "async with harbor.feed(...):")
        self._asks.ask(self._watch)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    async def __aenter__(self) -> Self:
        """Have events kept from now on; the end of the block closes it."""
        await self._asks.aask(self._watch)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        await self.aclose()


class Feeds:
    """Calling it opens a feed. Made by the harbor, as `harbor.feed`."""

    def __init__(self, asks: Asks) -> None:
        """Made by the harbor."""
        self._asks = asks

    def __call__(self, *, reader: str = "", after: str | None = None, keep: timedelta = KEEP) -> Feed:
        """Return the events of all workers of the store, in whatever process, to be read on from a cursor.

        A store keeps events only while somebody reads them. Workers hear of a reader with their next heartbeat, within
        a third of their lease, and from then on write what happens about twice a second, until `keep` has passed since
        it last asked. What the feed has is what workers tell: not what producers enqueue or requeue.

        Args:
            reader: a name under which it comes back after a restart: events are kept on for `keep` when it is closed.
                Without one they are not.
            after: a cursor that `feed.cursor` gave; "" for the oldest event that is kept; None for from now on.
            keep: for how long events are kept for it after it has last asked; 10 seconds or more.

        Raises:
            OptionError: an option that cannot be.
        """
        given: tuple[object, object] = (reader, after)
        if not isinstance(given[0], str):
            raise OptionError(
                f"reader={reader!r}: expected a name, or nothing for one that will not come back"
            )
        if given[1] is not None and not isinstance(given[1], str):
            raise OptionError(
                f"after={after!r}: expected a cursor, as `feed.cursor` gives it, or '' for the oldest event kept"
            )
        check_sought(reader, "reader")
        check_sought(after or "", "after")
        check_duration(keep, "keep")
        if keep < _SHORTEST:
            raise OptionError(f"keep={keep!r}: expected {_SHORTEST.total_seconds():g} seconds or more")
        return Feed(self._asks, reader=reader, after=after, keep=keep)
