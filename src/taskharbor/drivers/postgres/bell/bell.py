"""Subscriptions of this process, and whom a ring or a notice concerns."""

from __future__ import annotations

import atexit
import logging
import os
import re
import threading
import time
import weakref
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import psycopg
from psycopg.rows import TupleRow

from taskharbor.driver import Wake
from taskharbor.drivers.postgres.bell.listening import Listening
from taskharbor.drivers.postgres.bell.notice import ANYBODY, payloads, read
from taskharbor.drivers.postgres.bell.ringing import Ringing
from taskharbor.drivers.postgres.bell.watchers import Watchers
from taskharbor.job import new_token

Connection: TypeAlias = psycopg.Connection[TupleRow]

logger = logging.getLogger("taskharbor.postgres")

_LONGEST_CHANNEL = 63
_ANNOUNCE_SECONDS = 0.1
"""A NOTIFY makes its transaction wait at the commit for all others that have one, in any database of the server. So one
connection of many tells, and we ourselves repeat it a little later for the others."""
_MOST_ANNOUNCED = 1000
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Bell:
    """One driver's part: its own waiting callbacks, and ringing for those of others. From any thread.

    A process that only rings holds one connection, while it does; one that waits holds a listening one, too.
    """

    def __init__(
        self,
        open_listener: Callable[[], Connection],
        open_sender: Callable[[], Connection],
        channel: str,
        schema: str,
    ) -> None:
        """Prepare it. Nothing is opened before it is used.

        Args:
            open_listener: opens a connection to the server itself, in autocommit mode.
            open_sender: opens a connection in autocommit mode; it may lead through a pooler.
            channel: what NOTIFY and LISTEN name; one that is too long for PostgreSQL is made shorter.
            schema: where the jobs are.
        """
        self._open_listener = open_listener
        self._open_sender = open_sender
        self._channel = _bounded(channel)
        self._schema = schema
        self._abandoned: list[object] = []
        self._forget()
        _bells.add(self)

    def _forget(self) -> None:
        """Begin anew, as a forked child does: it has none of its parent's threads, and its connections are not ours."""
        self._lock = threading.RLock()
        self._name = f"{new_token():016x}"
        self._queues = Watchers()
        self._jobs = Watchers()
        self._listening: Listening | None = None
        self._ringing: Ringing | None = None
        self._announced: dict[str, tuple[float, int]] = {}
        """Until when nobody else tells of a queue, and who does."""

    def _after_fork(self) -> None:
        # Kept, so that nothing of theirs is closed, or complains that it was not.
        self._abandoned.append((self._listening, self._ringing))
        self._forget()

    @property
    def channel(self) -> str:
        """Return what NOTIFY and LISTEN name."""
        return self._channel

    def subscribe_queues(self, queues: Sequence[str], wake: Wake) -> Callable[[], None]:
        """Call `wake` when jobs of these queues may have become due, and return what ends that."""
        remove = self._queues.add(queues, wake)
        self._listen()
        return remove

    def subscribe_jobs(self, ids: Sequence[str], wake: Wake) -> Callable[[], None]:
        """Call `wake` when one of these jobs may have ended, and return what ends that."""
        remove = self._jobs.add(ids, wake)
        known = [job_id for job_id in ids if _ID.fullmatch(job_id)]
        if self._listen():
            self._sender().ask(known)  # else it is done as soon as one listens
        if len(known) < len(ids):
            self._jobs.wake(set(ids) - set(known))  # no such job is there
        return remove

    def ring(self, queues: Iterable[str], jobs: Iterable[str]) -> None:
        """Wake whom a commit concerns, here and elsewhere. Returns at once, and never fails: what is done is done."""
        try:
            queues, jobs = list(queues), list(jobs)
            self._queues.wake(queues)
            self._jobs.wake(jobs)
            if queues or jobs:
                self._sender().ring(queues, jobs)
        except Exception:
            logger.exception("a wake-up could not be sent")

    def announce(self, queues: Iterable[str], by: int) -> list[str]:
        """Return what a caller's transaction is to NOTIFY our channel of. The other queues are rung a little later.

        Never fails.

        Args:
            queues: those that it has stored jobs for.
            by: the number of its connection, which may tell again what it has told: nothing of it may be committed yet.
        """
        now = time.monotonic()
        told: list[str] = []
        with self._lock:
            if len(self._announced) > _MOST_ANNOUNCED:
                self._announced.clear()
            for queue in queues:
                until, teller = self._announced.get(queue, (now, by))
                if until <= now or teller == by:
                    self._announced[queue] = (now + _ANNOUNCE_SECONDS, by)
                    told.append(queue)
        untold = set(queues).difference(told)
        try:
            if untold:
                self._sender().echo(untold)
        except Exception:
            logger.exception("a wake-up could not be sent")
        return payloads(ANYBODY, sorted(told), ()) if told else []

    def wake_everybody(self) -> None:
        """Wake all who wait in this process."""
        self._queues.wake_everybody()
        self._jobs.wake_everybody()

    def close(self) -> None:
        """Send what was rung, end the threads, close the connections. Idempotent; a later use begins anew.

        It takes some seconds at most. A thread that cannot be ended by then, because the network does not answer,
        closes its connection when it does.
        """
        with self._lock:
            listening, self._listening = self._listening, None
            ringing, self._ringing = self._ringing, None
            atexit.unregister(self.close)
        if ringing is not None:
            ringing.close()
        if listening is not None:
            listening.close()

    def _listen(self) -> bool:
        """See to it that one listens; return whether one does already."""
        with self._lock:
            if self._listening is None:
                self._listening = Listening(
                    self._open_listener,
                    self._channel,
                    needed=lambda: bool(self._queues or self._jobs),
                    established=self._established,
                    heard=self._heard,
                )
                atexit.register(self.close)
            listening = self._listening
        if self._queues or self._jobs:
            listening.begin()
        return listening.up

    def _sender(self) -> Ringing:
        with self._lock:
            if self._ringing is None:
                self._ringing = Ringing(
                    self._open_sender,
                    self._channel,
                    self._schema,
                    self._name,
                    awaited=self._jobs.watched,
                    gone=self._jobs.wake,
                )
                # What was rung by a program that then ends shall still be heard.
                atexit.register(self.close)
            return self._ringing

    def _established(self, lost: bool) -> None:
        # Something may have been missed: since one began to wait, or while the connection was lost.
        self._queues.wake_everybody()
        if lost:
            self._jobs.wake_everybody()
        # After a crash of the server marks may be lost, too.
        self._sender().ask(job_id for job_id in self._jobs.names() if _ID.fullmatch(job_id))

    def _heard(self, payloads: Sequence[bytes]) -> None:
        queues: set[str] = set()
        jobs: set[str] = set()
        for payload in payloads:
            notice = read(payload)
            if notice is None or notice.queues is None or notice.jobs is None:
                if notice is None or notice.sender != self._name:
                    self.wake_everybody()
                    return
            elif notice.sender != self._name:  # ours were woken when it was rung
                queues.update(notice.queues)
                jobs.update(notice.jobs)
        self._queues.wake(queues)
        self._jobs.wake(jobs)


def _bounded(channel: str) -> str:
    if len(channel.encode()) <= _LONGEST_CHANNEL:
        return channel
    sum_ = f"{zlib.crc32(channel.encode()):08x}"
    return channel.encode()[: _LONGEST_CHANNEL - len(sum_)].decode(errors="ignore") + sum_


_bells: weakref.WeakSet[Bell] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for bell in list(_bells):
        bell._after_fork()  # pyright: ignore[reportPrivateUsage] - a fork is nobody's call


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
