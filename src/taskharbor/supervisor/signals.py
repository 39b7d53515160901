"""Signals as bytes in a pipe: they come at any moment, and are acted on at one of our choosing.

Python's own C handler writes the number (`signal.set_wakeup_fd`); nothing happens inside a handler, so none can land
in the middle of starting a process, and none is lost there. The trick is D. J. Bernstein's self-pipe
(https://cr.yp.to/docs/selfpipe.html).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from types import FrameType, TracebackType
from typing import Self

from taskharbor.errors import UsageError

if sys.platform == "win32":
    raise ImportError("what a supervisor hears are POSIX signals")

_Handler = Callable[[int, FrameType | None], object] | int | None


class Signals:
    """Hears the given signals for as long as the `with` block lasts, instead of whatever heard them before."""

    def __init__(self, heard: Iterable[signal.Signals]) -> None:
        """Choose the signals; nothing changes before the block is entered."""
        self._heard = tuple(heard)
        self._before: dict[signal.Signals, _Handler] = {}

    def __enter__(self) -> Self:
        """Begin to hear.

        Raises:
            UsageError: not in the main thread, which alone is given signals.
        """
        if threading.current_thread() is not threading.main_thread():
            raise UsageError(
                "supervise(...) hears signals, and Python gives those to the main thread alone; call it there"
            )
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._reading, False)
        os.set_blocking(self._writing, False)
        self._wakeup_before = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        for number in self._heard:
            self._before[number] = signal.signal(number, _do_nothing)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the signals back to who heard them before."""
        for number, handler in self._before.items():
            # None: it was set by no Python code, and cannot be set again by any.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._reading)
        os.close(self._writing)

    def fileno(self) -> int:
        """Return the descriptor that can be read when a signal has come."""
        return self._reading

    def read(self) -> list[int]:
        """Return the numbers of the signals that have come since, in their order. Never blocks."""
        came = bytearray()
        while True:
            try:
                came += os.read(self._reading, 4096)
            except BlockingIOError:
                return list(came)


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """Let Python's C handler do it: it only writes for signals that have a handler."""


def has_terminal() -> bool:
    """Return whether this process has a controlling terminal."""
    try:
        fd = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    os.close(fd)
    return True
