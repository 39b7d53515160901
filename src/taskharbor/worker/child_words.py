"""What a handler in a child process tells of itself (`ctx.progress`, `ctx.log`): on its way to the worker.

A thread of the child sends it, so that the handler never waits, and a flood costs a message now and then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from taskharbor.report import Report
from taskharbor.task.told import Told

_EVERY_SECONDS = 0.25


class ChildWords:
    """Sends what one handler tells, now and then, and the rest at its end."""

    def __init__(self, send: Callable[[Report], None]) -> None:
        """Start nothing yet: most handlers tell nothing. `send` may be called in a thread of its own."""
        self._send = send
        self._told: Told | None = None
        self._news = threading.Event()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def hear(self, told: Told) -> None:
        """Note that there is something to send."""
        self._told = told
        self._news.set()
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._main, name="taskharbor-words", daemon=True)
                self._thread.start()

    def end(self) -> None:
        """Send the rest. The handler has ended; what threads that it left behind tell from now on is lost."""
        if self._thread is not None:
            self._over.set()
            self._news.set()
            self._thread.join()

    def _main(self) -> None:
        while not self._over.is_set():
            self._news.wait()
            self._news.clear()
            self._send_some()
            self._over.wait(_EVERY_SECONDS)
        self._send_some()

    def _send_some(self) -> None:
        report = None if self._told is None else self._told.take()
        if report is not None:
            self._send(report)
