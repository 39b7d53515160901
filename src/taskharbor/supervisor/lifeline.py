"""The wire between a supervisor and its process, as the process sees it.

The supervisor passes one end of a socket pair on and keeps the other to itself. When it dies, whatever of, the process
reads the end of the file. The process writes one byte once it works: a rolling restart waits for that.
"""

from __future__ import annotations

import logging
import os
import stat
import sys
from typing import Final, Self

logger = logging.getLogger("taskharbor.supervisor")

LIFELINE_VARIABLE: Final = "TASKHARBOR_LIFELINE"
"""Holds the file descriptor of the process's end."""
PROCESS_VARIABLE: Final = "TASKHARBOR_PROCESS"
"""Holds the process's number, counted from 1."""
READY: Final = b"r"
"""What a process writes once it works."""


class Lifeline:
    """A process's end of its lifeline. Made by `taken`; each process has at most one."""

    def __init__(self, fd: int) -> None:
        """Own a descriptor: no process started from here will hold it."""
        self._fd = fd
        os.set_inheritable(fd, False)
        if sys.platform != "win32":
            os.set_blocking(fd, False)

    @classmethod
    def taken(cls) -> Self | None:
        """Take the lifeline out of the environment, where processes started from here would find it too.

        Returns None without one: the process was not started by a supervisor.
        """
        told = os.environ.pop(LIFELINE_VARIABLE, None)
        if told is None or sys.platform == "win32":
            return None
        try:
            fd = int(told)
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                return cls(fd)
        except (ValueError, OSError):
            pass
        logger.warning(
            "%s=%s names no lifeline of a supervisor; this process will not notice when its parent ends. "
            "Leave that variable to the supervisor",
            LIFELINE_VARIABLE,
            told,
        )
        return None

    def fileno(self) -> int:
        """Return the descriptor, for who waits until it can be read."""
        return self._fd

    def say_ready(self) -> None:
        """Tell the supervisor that this process works now."""
        try:
            os.write(self._fd, READY)
        except OSError:  # it is gone; `is_cut` will say so
            pass

    def is_cut(self) -> bool:
        """Return whether the supervisor is gone. Never blocks."""
        try:
            return os.read(self._fd, 1) == b""
        except BlockingIOError:
            return False
        except OSError:  # reset: it died before it had read that we are ready
            return True

    def close(self) -> None:
        """Let go of the descriptor."""
        os.close(self._fd)
