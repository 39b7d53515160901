"""The thread that hears: the life of the listening connection. It is there while somebody waits for something.

LISTEN belongs to a session, so this connection goes to the server itself and through no pooler. It is watched with
select; nothing polls.
"""

from __future__ import annotations

import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from typing import TypeAlias

import psycopg
from psycopg import sql
from psycopg.pq.abc import PGconn
from psycopg.rows import TupleRow

from taskharbor.drivers.postgres.bell.outage import Outage

Connection: TypeAlias = psycopg.Connection[TupleRow]

logger = logging.getLogger("taskharbor.postgres")

_CHECK_SECONDS = 30.0
"""When nothing was heard for so long, the server is asked something."""
_ANSWER_SECONDS = 10.0
_LINGER_SECONDS = 60.0
"""How long one listens on when nobody waits any more: who asks for one result after another shall not reconnect."""
_CLOSE_SECONDS = 2.0


class Listening:
    """One process's hearing. From any thread."""

    def __init__(
        self,
        open_listener: Callable[[], Connection],
        channel: str,
        *,
        needed: Callable[[], bool],
        established: Callable[[bool], None],
        heard: Callable[[Sequence[bytes]], None],
    ) -> None:
        """Prepare it.

        Args:
            open_listener: opens a connection in autocommit mode.
            channel: what to listen on.
            needed: returns whether somebody waits for something.
            established: is told each time that one listens from now on; True if that was lost in between.
            heard: is given the payloads that came.
        """
        self._open = open_listener
        self._channel = channel
        self._needed = needed
        self._established = established
        self._heard = heard
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._nudge: socket.socket | None = None
        """Ends every wait of the thread."""
        self._closing = False
        self._needed_at = 0.0
        self.up = False
        """Whether one listens."""

    def begin(self) -> None:
        """Listen, if one does not yet. Returns at once."""
        with self._lock:
            if self._nudge is not None or self._closing:
                return
            self._needed_at = time.monotonic()
            nudge, nudged = socket.socketpair()
            thread = threading.Thread(
                target=self._main, args=(nudge, nudged), name="taskharbor-bell-listening", daemon=True
            )
            try:
                thread.start()
            except RuntimeError as error:  # the interpreter is shutting down
                logger.info("no wake-ups are heard: %s", error)
                nudge.close()
                nudged.close()
                return
            self._thread, self._nudge = thread, nudge

    def close(self) -> None:
        """End the thread and close the connection; give up after two seconds. Idempotent."""
        with self._lock:
            self._closing = True
            if self._nudge is not None:
                with suppress(OSError):
                    self._nudge.send(b"+")
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_CLOSE_SECONDS)

    def _main(self, nudge: socket.socket, nudged: socket.socket) -> None:
        outage = Outage(
            "wake-ups from other processes do not arrive", "wake-ups from other processes arrive again"
        )
        lost = False
        try:
            while not self._ended():
                try:
                    with closing(self._open()) as connection:
                        if self._closing:  # while it was opened, which can take long
                            continue
                        self._listen(connection)
                        self._established(lost)
                        lost = True
                        outage.over()
                        self._hear(connection.pgconn, nudged)
                # Whatever goes wrong, here or in what was handed to us, the thread goes on.
                except Exception as error:  # noqa: BLE001 - logged as what it is
                    self.up = False
                    if not self._closing:
                        _pause(nudged, outage.failed(error))
        finally:
            with self._lock:  # `close` may be about to send
                nudge.close()
                nudged.close()

    def _wanted(self) -> bool:
        if self._closing:
            return False
        now = time.monotonic()
        if self._needed():
            self._needed_at = now
        return now - self._needed_at < _LINGER_SECONDS

    def _ended(self) -> bool:
        """Return whether the thread is to end; then the next one who needs it begins another."""
        with self._lock:
            if self._wanted():
                return False
            self._nudge = None
            return True

    def _listen(self, connection: Connection) -> None:
        connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self._channel)))
        # Before `established`: who comes to wait in between is told that one listens, or is seen there.
        self.up = True

    def _hear(self, pgconn: PGconn, nudged: socket.socket) -> None:
        """Pass on what comes until nobody wants it.

        Raises:
            psycopg.OperationalError: the connection is lost.
        """
        asked = False
        with selectors.DefaultSelector() as selector:
            selector.register(pgconn.socket, selectors.EVENT_READ)
            selector.register(nudged, selectors.EVENT_READ)
            while self._wanted():
                if selector.select(_ANSWER_SECONDS if asked else _CHECK_SECONDS):
                    pgconn.consume_input()
                    payloads: list[bytes] = []
                    while notification := pgconn.notifies():
                        payloads.append(notification.extra)
                    if payloads:
                        self._heard(payloads)
                    asked = asked and not _answered(pgconn)
                elif asked:
                    raise psycopg.OperationalError(f"the server did not answer for {_ANSWER_SECONDS:g} s")
                else:
                    # Not by `execute`, which would wait as long as TCP does.
                    pgconn.send_query(b"SELECT 1")
                    pgconn.flush()
                    asked = True
        self.up = False


def _answered(pgconn: PGconn) -> bool:
    """Return whether the answer is there, and done with."""
    while not pgconn.is_busy():
        if pgconn.get_result() is None:
            return True
    return False


def _pause(nudged: socket.socket, seconds: float) -> None:
    nudged.settimeout(seconds)
    with suppress(TimeoutError):
        nudged.recv(1)
