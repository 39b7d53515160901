"""A blocking face for async stores: a thread with an event loop of its own, started when first needed."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

from taskharbor.driver import (
    CancelStatus,
    Driver,
    Enqueued,
    FlowCancel,
    FlowGet,
    JobCancel,
    JobEnqueue,
    JobGet,
    Store,
)
from taskharbor.flow import FlowRecord
from taskharbor.job import JobRecord

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")

_PATIENCE_SECONDS = 10.0


class Bridge:
    """Carries blocking calls over to a store on its own loop. Thread-safe."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._lock = threading.RLock()
        self._idle = threading.Condition(self._lock)
        self._calls = 0
        self._thread: threading.Thread | None = None
        self._ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, Store]] = Future()

    def call(self, work: Callable[[Store], Awaitable[T]]) -> T:
        """Return what `work` returns, run with a store on the bridge's loop.

        Raises:
            StoreUnavailable: the store cannot be reached; the next call tries anew.
        """
        import asyncio  # slow to import, and most producers need no bridge

        with self._idle:
            self._calls += 1
        try:
            loop, _, store = self._open()

            async def carry() -> T:
                return await work(store)

            return asyncio.run_coroutine_threadsafe(carry(), loop).result()
        finally:
            with self._idle:
                self._calls = max(self._calls - 1, 0)
                self._idle.notify_all()

    def close(self) -> None:
        """Wait for the calls under way, close the store and end the thread. Idempotent; a later call opens it again."""
        with self._idle:
            # Not for ever: Ctrl-C in the middle of a call may have kept it from being counted out.
            self._idle.wait_for(lambda: not self._calls, timeout=_PATIENCE_SECONDS)
            self._calls = 0
            thread, self._thread = self._thread, None
            ready = self._ready
        if thread is not None and thread is not threading.current_thread():
            loop, closing, _ = ready.result()
            loop.call_soon_threadsafe(closing.set)
            thread.join()

    def _open(self) -> tuple[asyncio.AbstractEventLoop, asyncio.Event, Store]:
        with self._lock:
            if self._thread is None:
                self._ready = Future()
                self._thread = threading.Thread(
                    target=self._main, args=(self._ready,), name="taskharbor-bridge", daemon=True
                )
                self._thread.start()
            ready = self._ready
        try:
            return ready.result()
        except BaseException:
            with self._lock:
                if self._ready is ready:
                    self._thread = None
            raise

    def _main(self, ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, Store]]) -> None:
        import asyncio

        async def serve() -> None:
            async with self._driver.connect() as store:
                closing = asyncio.Event()
                ready.set_result((asyncio.get_running_loop(), closing, store))
                await closing.wait()

        try:
            asyncio.run(serve())
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)


class BridgedProducer:
    """A producer's store over the bridge, for drivers without a blocking face."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge

    def job_enqueue(self, request: JobEnqueue) -> Sequence[Enqueued]:
        return self._bridge.call(lambda store: store.job_enqueue(request))

    def job_get(self, request: JobGet) -> Sequence[JobRecord | None]:
        return self._bridge.call(lambda store: store.job_get(request))

    def job_cancel(self, request: JobCancel) -> Sequence[CancelStatus]:
        return self._bridge.call(lambda store: store.job_cancel(request))

    def flow_get(self, request: FlowGet) -> Sequence[FlowRecord | None]:
        return self._bridge.call(lambda store: store.flow_get(request))

    def flow_cancel(self, request: FlowCancel) -> Sequence[CancelStatus]:
        return self._bridge.call(lambda store: store.flow_cancel(request))
