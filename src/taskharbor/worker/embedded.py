"""A worker beside a blocking program: a thread with an event loop of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import Future
from types import TracebackType
from typing import Self

from taskharbor.errors import UsageError
from taskharbor.worker.application import Application
from taskharbor.worker.own_loop import run_in_own_loop
from taskharbor.worker.settings import WorkerSettings
from taskharbor.worker.worker import Worker


class WorkerThread:
    """A worker in a thread, for as long as the `with` block lasts. Made by `harbor.worker_thread(...)`."""

    def __init__(self, application: Application, settings: WorkerSettings) -> None:
        """Prepare it; nothing happens before it is entered."""
        self._application = application
        self._prepared = Worker(application, settings)
        self._ready: Future[tuple[Worker, asyncio.AbstractEventLoop]] = Future()
        self._thread = threading.Thread(target=self._main, name="taskharbor-worker", daemon=True)
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        """Start the worker and return once it reserves.

        Raises:
            LifespanError: the dependencies could not be built, or are not what a task declares.
            StoreUnavailable: the store cannot be reached.
        """
        if self._thread.ident is not None:
            raise UsageError("a worker thread is entered once; ask the harbor for another")
        self._thread.start()
        try:
            self._ready.result()
        except KeyboardInterrupt:  # while it starts: nobody will come to stop it
            self._ready.add_done_callback(lambda ready: ready.exception() or self.halt())
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drain and stop the worker; Ctrl-C meanwhile cancels running handlers."""
        self.drain()
        while self._thread.is_alive():
            try:
                self._thread.join()
            except KeyboardInterrupt:
                self.halt()
        if self._error is not None and error is None:
            raise self._error

    @property
    def worker(self) -> Worker:
        """Return the worker itself; its methods belong to its own loop."""
        return self._entered()[0]

    def drain(self) -> None:
        """Begin to stop: start nothing new, let running handlers finish. Callable from any thread."""
        self._call("drain")

    def halt(self) -> None:
        """Stop without grace: cancel running handlers now. Callable from any thread."""
        self._call("halt")

    def _call(self, what: str) -> None:
        worker, loop = self._entered()
        with contextlib.suppress(RuntimeError):  # the loop has closed: it has stopped already
            loop.call_soon_threadsafe(worker.drain if what == "drain" else worker.halt)

    def _entered(self) -> tuple[Worker, asyncio.AbstractEventLoop]:
        if self._thread.ident is None:
            raise UsageError("a worker thread works inside its `with` block; it has not been entered")
        return self._ready.result()

    def _main(self) -> None:
        try:
            try:
                run_in_own_loop(self._work)
            finally:
                self._prepared.loop_closed()
        except BaseException as error:  # noqa: BLE001 - raised again where the block ends
            if self._ready.done():
                self._error = error
            else:
                self._ready.set_exception(error)

    async def _work(self) -> None:
        worker = self._prepared
        try:
            async with worker:
                self._ready.set_result((worker, asyncio.get_running_loop()))
                await worker.run()
        finally:
            await self._application.on_loop_end()
