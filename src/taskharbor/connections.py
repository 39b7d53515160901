"""The open connections of a harbor: one store for each event loop, one for blocking producers, and the bridge.

Each is opened when first asked for. After a fork all of them are abandoned, never closed: the parent still uses them.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from typing import TYPE_CHECKING, TypeVar

from taskharbor.bridge import Bridge, BridgedProducer
from taskharbor.call import sheltered
from taskharbor.driver import BlockingDriver, Capability, Driver, ProducerStore, Store

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")


class Connections:
    """Reaches one driver's store from any thread and any event loop."""

    def __init__(self, driver: Driver) -> None:
        """Connects to nothing yet."""
        self._driver = driver
        self._pid = 0
        self._lock = threading.Lock()
        self._stores: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[Store, AsyncExitStack]]
        self._blocking: tuple[ProducerStore, ExitStack] | None
        self._bridge: Bridge
        self._forget()

    def ask(self, work: Callable[[Store], Awaitable[T]]) -> T:
        """Return what `work` returns, run with a store, blocking.

        Raises:
            StoreUnavailable: the store cannot be reached.
        """
        self._notice_fork()
        with sheltered():
            return self._bridge.call(work)

    async def aask(self, work: Callable[[Store], Awaitable[T]]) -> T:
        """Return what `work` returns, run with this event loop's store.

        Raises:
            StoreUnavailable: the store cannot be reached.
        """
        return await work(await self.store())

    async def store(self) -> Store:
        """Return the store of the running event loop."""
        import asyncio

        self._notice_fork()
        loop = asyncio.get_running_loop()
        opened = self._stores.get(loop)
        if opened is None:
            stack = AsyncExitStack()
            store = await stack.enter_async_context(self._driver.connect())
            opened = self._stores.setdefault(loop, (store, stack))
            if opened[1] is not stack:  # another task of this loop was quicker
                await stack.aclose()
        return opened[0]

    def producer(self) -> ProducerStore:
        """Return the blocking store: the driver's own face, or a bridge to the async one."""
        self._notice_fork()
        opened = self._blocking
        if opened is not None:
            return opened[0]
        with self._lock:
            if self._blocking is None:
                stack = ExitStack()
                if Capability.BLOCKING in self._driver.capabilities and isinstance(
                    self._driver, BlockingDriver
                ):
                    store = stack.enter_context(self._driver.connect_blocking())
                else:
                    store = BridgedProducer(self._bridge)
                self._blocking = (store, stack)
            return self._blocking[0]

    async def close_store(self) -> None:
        """Close the store of the running event loop, if one was opened."""
        import asyncio

        self._notice_fork()
        with self._lock:
            opened = self._stores.pop(asyncio.get_running_loop(), None)
        if opened is not None:
            await opened[1].aclose()

    def close(self) -> None:
        """Close all but the stores of event loops: each of those is closed on its own loop. Idempotent."""
        if self._notice_fork():
            return
        self._bridge.close()
        with self._lock:
            blocking, self._blocking = self._blocking, None
        if blocking is not None:
            blocking[1].close()
        self._driver.close()

    async def aclose(self) -> None:
        """Close this event loop's store and all that `close` closes. Idempotent."""
        from taskharbor.worker import in_own_thread

        if self._notice_fork():
            return
        await self.close_store()
        await in_own_thread(self.close)  # it waits for calls under way on the bridge

    def _notice_fork(self) -> bool:
        """Return whether this is a child forked since they were last used; then begin anew."""
        if self._pid == os.getpid():
            return False
        self._forget()
        return True

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._stores = weakref.WeakKeyDictionary()
        self._blocking = None
        self._bridge = Bridge(self._driver)
