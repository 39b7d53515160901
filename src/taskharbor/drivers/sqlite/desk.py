"""The desk of a store on an event loop: a thread with a connection, which waits for the disk, and the line before it.

Whoever asks is answered, whatever happens at the desk: an error that nobody expected is told as `StoreUnavailable`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Callable
from typing import TypeAlias, TypeVar

from taskharbor.driver import Request
from taskharbor.drivers.sqlite.transaction import AnyAsk, Ask, Transactions
from taskharbor.errors import StoreUnavailable

logger = logging.getLogger("taskharbor.sqlite")

Q = TypeVar("Q", bound=Request)
T = TypeVar("T")

OpenTransactions = Callable[[], tuple[Transactions, Callable[[], None]]]
"""Opens a connection, and returns what runs routines on it, and what closes it."""

_Asked: TypeAlias = tuple[AnyAsk, asyncio.Future[None]]
"""What is asked, and who is told of its end."""
_Entry: TypeAlias = _Asked | None
"""What stands in line. None asks the desk to close."""

_FAILED = "it failed in a way that was not expected, which is in the log; ask again"
_BROKEN = (
    "the thread that talks to the SQLite file ended with an error, which is in the log; open the store again"
)


class Desk:
    """A thread with a connection, and the line before it. What stands in line is carried out together."""

    def __init__(self, open_transactions: OpenTransactions) -> None:
        self._open_transactions = open_transactions
        self._loop = asyncio.get_running_loop()
        self._line: queue.SimpleQueue[_Entry] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = self._loop.create_future()
        self._closing = False
        self._broken = False
        """The thread has ended, and nobody takes from the line any more."""

    async def open(self) -> None:
        opened: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(
            target=self._main, args=(opened,), name="taskharbor-sqlite", daemon=True
        )
        self._thread.start()
        try:
            await asyncio.shield(opened)
        except BaseException:  # cancelled, say, while it waited for a lock: nobody will close this
            self._closing = True
            self._line.put(None)
            opened.cancel()
            raise

    async def ask(self, ask: Ask[Q, T]) -> T:
        if self._closing:
            raise StoreUnavailable("this store is closed")
        done: asyncio.Future[None] = self._loop.create_future()
        self._line.put((ask, done))
        if self._broken:  # looked at after the put: what the thread's end has not found in line is found here
            raise StoreUnavailable(_BROKEN)
        await done
        return ask.result()

    async def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._line.put(None)
        await asyncio.shield(self._closed)

    def _main(self, opened: asyncio.Future[None]) -> None:
        try:
            transactions, close = self._open_transactions()
        except BaseException as error:  # noqa: BLE001 - raised again by whoever opens
            self._tell(_fail, [opened], error)
            self._tell(_end, [self._closed])
            return
        self._tell(_end, [opened])
        try:
            while self._serve(transactions):
                pass
        except BaseException:
            logger.critical("the thread that talks to a SQLite file ended", exc_info=True)
            self._broken = True
            self._answer([entry for entry in self._waiting() if entry is not None], _BROKEN)
        finally:
            try:
                close()
            except BaseException:  # who waits for the end has to hear of it
                logger.exception("a connection to a SQLite file could not be closed")
            self._tell(_end, [self._closed])

    def _serve(self, transactions: Transactions) -> bool:
        """Carry out all that stands in line; return whether to go on."""
        line = [self._line.get(), *self._waiting()]
        asked = [entry for entry in line if entry is not None]
        if asked:
            self._run(transactions, asked)
            self._tidy(transactions)
        return None not in line

    def _run(self, transactions: Transactions, asked: list[_Asked]) -> None:
        """Carry out what was asked, and answer everybody even if that fails in a way that nobody expected."""
        error = _BROKEN
        try:
            transactions.run([ask for ask, _ in asked])
        except Exception:
            logger.exception("what was asked of a SQLite file failed in a way that was not expected")
            error = _FAILED
        finally:
            self._answer(asked, error)

    def _tidy(self, transactions: Transactions) -> None:
        try:
            transactions.tidy()
        except BaseException:  # it can wait; what stands in line cannot
            logger.exception("the log of a SQLite file cannot be folded back now")

    def _waiting(self) -> list[_Entry]:
        """Take all that stands in line."""
        line: list[_Entry] = []
        with contextlib.suppress(queue.Empty):
            while True:
                line.append(self._line.get_nowait())
        return line

    def _answer(self, asked: list[_Asked], error: str) -> None:
        """Wake who asked. Those without an answer are told this error: whether they were carried out is not known."""
        for ask, _ in asked:
            if not ask.ended:
                ask.fail(StoreUnavailable(error))
        self._tell(_end, [done for _, done in asked])

    def _tell(self, what: Callable[..., None], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has closed
            self._loop.call_soon_threadsafe(what, *args)


def _end(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


def _fail(futures: list[asyncio.Future[None]], error: BaseException) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)
