"""A thread that notices what has gone on for too long, without being told of all that has not."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from taskharbor.call import sheltered

T = TypeVar("T")

_LOOK_SECONDS = 1.0
"""How long the thread sleeps at most, so that it does not outlive what it watches by long."""
_LINGER_SECONDS = 1.0
"""How long it waits for more to watch before it ends."""


_watches: WeakSet[Watch[Any]] = WeakSet()


class Watch(Generic[T]):
    """Calls `late` once for each thing that is not discarded within a time of its being added.

    An exception of `late` ends the thread; the next that is added starts another. A forked child begins anew.

    All have the same time, so they come to be late in the order in which they were added: the thread sleeps until the
    first that is there may be late (or for a second), and looks again. `add` wakes it only if there was nothing.

    Jobs' threads call `add` and `discard`, and may be interrupted between any two steps; so what those two do is done
    by single steps of the interpreter, or where no interrupt lands.
    """

    def __init__(self, after_seconds: float, late: Callable[[T], None]) -> None:
        """Prepare it; there is no thread before there is something to watch."""
        self._after = after_seconds
        self._late = late
        self._due: dict[int, tuple[float, T]]
        """When each will be late, on the monotonic clock, in that order."""
        self._idle: bool
        """The thread waits for something to come, or there is none."""
        self._begin()
        _watches.add(self)

    def _begin(self) -> None:
        """Watch nothing, without a thread: when it is made, and in a forked child, which has none of the threads."""
        self._due = {}
        self._idle = True
        self._come = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, thing: T) -> None:
        """Watch something from now on."""
        self._due[id(thing)] = time.monotonic() + self._after, thing
        # After that, and not before: the thread says that it is idle, and then looks whether something came.
        if self._idle:
            self._wake()

    def discard(self, thing: T) -> None:
        """Watch it no longer."""
        self._due.pop(id(thing), None)

    def _wake(self) -> None:
        with sheltered(), self._lock:
            self._idle = False
            self._come.set()
            if self._thread is None:
                thread = threading.Thread(target=self._watch, name="taskharbor-watch", daemon=True)
                try:
                    thread.start()
                except (
                    RuntimeError
                ):  # no more threads to be had, or the interpreter ends: the job goes unwatched
                    self._idle = True
                else:
                    self._thread = thread

    def _watch(self) -> None:
        try:
            self._look()
        except BaseException:
            with self._lock:  # the next that is added starts another
                self._thread = None
                self._idle = True
            raise

    def _look(self) -> None:
        while True:
            first = next(iter(list(self._due.values())), None)
            if first is None:
                if self._nothing_came():
                    return
                continue
            due, thing = first
            left = due - time.monotonic()
            if left > 0:
                time.sleep(min(left, _LOOK_SECONDS))
            elif self._due.pop(id(thing), None) is not None:
                self._late(thing)

    def _nothing_came(self) -> bool:
        """Wait for something to come; return True if the thread may end."""
        self._come.clear()
        self._idle = True
        if self._due or self._come.wait(_LINGER_SECONDS):
            self._idle = False
            return False
        with self._lock:
            if self._come.is_set() or self._due:
                self._idle = False
                return False
            self._thread = None
            return True


def _begin_in_child() -> None:
    for watch in list(_watches):
        watch._begin()  # pyright: ignore[reportPrivateUsage]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)
