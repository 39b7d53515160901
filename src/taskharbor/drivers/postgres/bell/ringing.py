"""The thread that sends: rings, and which jobs are awaited. It is there while there is something to send.

What it sends needs no session: it may go through a pooler, transaction by transaction.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from math import inf
from typing import TypeAlias, TypeVar

import psycopg
from psycopg.rows import TupleRow

from taskharbor.drivers.postgres.bell.agenda import Agenda, Work
from taskharbor.drivers.postgres.bell.awaiting import mark
from taskharbor.drivers.postgres.bell.notice import ANYBODY, for_everybody, payloads
from taskharbor.drivers.postgres.bell.outage import Outage

T = TypeVar("T")
Connection: TypeAlias = psycopg.Connection[TupleRow]

logger = logging.getLogger("taskharbor.postgres")

_IDLE_SECONDS = 30.0
"""How long the connection is kept for the next ring."""
_CLOSE_SECONDS = 2.0
# Nothing is lost with a ring, so its commit need not wait for the disk.
_NOTIFY = "SELECT set_config('synchronous_commit', 'off', true), pg_notify(%s, %s)"


class Ringing:
    """One process's sending. From any thread; nobody waits for it."""

    def __init__(
        self,
        open_sender: Callable[[], Connection],
        channel: str,
        schema: str,
        sender: str,
        *,
        awaited: Callable[[Iterable[str]], list[str]],
        gone: Callable[[Sequence[str]], None],
    ) -> None:
        """Prepare it.

        Args:
            open_sender: opens a connection in autocommit mode.
            channel: what others listen on.
            schema: where the jobs are.
            sender: our name in what is sent.
            awaited: returns those of the jobs that somebody still waits for.
            gone: is told of jobs that were to be marked as awaited, and are not there.
        """
        self._line = _Line(open_sender)
        self._channel = channel
        self._schema = schema
        self._sender = sender
        self._awaited = awaited
        self._gone = gone
        self._changed = threading.Condition()
        self._agenda = Agenda()
        self._thread: threading.Thread | None = None
        self._ended = True
        self._closing = False
        self._rings = Outage("wake-ups cannot be sent to other processes", "wake-ups are sent again")
        self._marks = Outage("jobs cannot be marked as awaited", "jobs are marked as awaited again")

    def ring(self, queues: Iterable[str], jobs: Iterable[str]) -> None:
        """Wake whoever waits for these in other processes. Returns at once."""
        with self._changed:
            due_at = self._agenda.due_at()
            self._agenda.ring(queues, jobs, time.monotonic())
            self._hurry(due_at)

    def echo(self, queues: Iterable[str]) -> None:
        """Wake whoever waits for these, here too, a little later. Returns at once."""
        with self._changed:
            due_at = self._agenda.due_at()
            self._agenda.echo(queues, time.monotonic())
            self._hurry(due_at)

    def ask(self, ids: Iterable[str]) -> None:
        """Have these jobs rung for when they end, and tell `gone` of those that have ended. Returns at once."""
        ids = list(ids)
        if not ids:
            return
        with self._changed:
            due_at = self._agenda.due_at()
            self._agenda.ask(ids)
            self._hurry(due_at)

    def close(self) -> None:
        """Send what waits, end the thread, close the connection; give up after two seconds. Idempotent."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_CLOSE_SECONDS)

    def _hurry(self, due_at: float) -> None:
        """See to it that a thread is awake when the next thing is due; `due_at` is what it knows of."""
        if self._ended and not self._closing:
            thread = threading.Thread(target=self._main, name="taskharbor-bell-ringing", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # the interpreter is shutting down
                logger.info("no wake-ups are sent: %s", error)
                return
            self._thread, self._ended = thread, False
        elif self._agenda.due_at() < due_at:
            self._changed.notify_all()

    def _main(self) -> None:
        try:
            while (work := self._next()) is not None:
                self._carry_out(work)
        finally:
            self._line.close()

    def _next(self) -> Work | None:
        """Wait for the next work; None ends the thread."""
        idle_at = time.monotonic() + _IDLE_SECONDS
        with self._changed:
            while True:
                now = time.monotonic()
                work = self._agenda.take_rings(now) if self._closing else self._agenda.take(now)
                if work is not None:
                    return work
                due_at = self._agenda.due_at()
                if self._closing or (due_at == inf and now >= idle_at):
                    self._ended = True
                    return None
                self._changed.wait((idle_at if due_at == inf else due_at) - now)

    def _carry_out(self, work: Work) -> None:
        # Whatever goes wrong, here or in what was handed to us, the thread goes on.
        try:
            self._ring(work)
        except Exception as error:  # noqa: BLE001 - logged as what it is
            again_at = time.monotonic() + self._rings.failed(error)
            with self._changed:
                if not self._closing:
                    self._agenda.ring_again(work, again_at)
        try:
            self._ask(work.asked)
        except Exception as error:  # noqa: BLE001 - logged as what it is
            again_at = time.monotonic() + self._marks.failed(error)
            with self._changed:
                self._agenda.ask_again(work.asked, again_at)

    def _ring(self, work: Work) -> None:
        if work.everybody:
            texts = [for_everybody(self._sender)]
        else:
            texts = payloads(self._sender, work.queues, work.jobs) if work.queues or work.jobs else []
            texts += payloads(ANYBODY, work.echoes, ()) if work.echoes else []
        if not texts:
            return

        def notify(connection: Connection) -> None:
            for text in texts:
                connection.execute(_NOTIFY, (self._channel, text))

        self._line.run(notify)
        self._rings.over()

    def _ask(self, asked: list[str]) -> None:
        if not asked:
            return
        ids = self._awaited(asked)
        gone, held = self._line.run(partial(mark, schema=self._schema, ids=ids)) if ids else ((), ())
        self._marks.over()
        with self._changed:
            self._agenda.answered(asked, held, time.monotonic())
        if gone:
            self._gone(gone)


class _Line:
    """A connection, opened when it is used. For one thread."""

    def __init__(self, open_: Callable[[], Connection]) -> None:
        self._open = open_
        self._connection: Connection | None = None

    def run(self, work: Callable[[Connection], T]) -> T:
        """Return what `work` returns; it is called twice if the connection was cut since it was last used."""
        kept = self._connection
        if kept is not None:
            try:
                return work(kept)
            except psycopg.OperationalError:
                self.close()
            except BaseException:
                self.close()
                raise
        self._connection = self._open()
        try:
            return work(self._connection)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                connection.close()
