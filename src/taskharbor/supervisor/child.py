"""One started process: its session, its lifeline, its end. POSIX only."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from taskharbor.supervisor.exits import Exit
from taskharbor.supervisor.lifeline import LIFELINE_VARIABLE, PROCESS_VARIABLE, READY

if sys.platform == "win32":
    raise ImportError("a supervised process needs POSIX sessions and signals")


class Child:
    """A process, from its start until it is reaped."""

    def __init__(self, command: Sequence[str], number: int) -> None:
        """Start `command` as process `number`.

        Raises:
            OSError: the system cannot start it.
        """
        self.lifeline, theirs = socket.socketpair()
        try:
            self.lifeline.setblocking(False)
            environment = {
                **os.environ,
                PROCESS_VARIABLE: str(number),
                LIFELINE_VARIABLE: str(theirs.fileno()),
            }
            self._process = subprocess.Popen(  # noqa: S603 - the caller's own command, and no shell
                list(command),
                stdin=subprocess.DEVNULL,
                env=environment,
                # All else is closed by it, the lifelines of the other processes among them.
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        except BaseException:
            self.lifeline.close()
            raise
        finally:
            theirs.close()
        self.pid = self._process.pid
        self.started = time.monotonic()
        self.speaks = True
        """Something may yet come over its lifeline."""
        self.ready = False
        """It has said that it works."""
        self.asked = False
        """It was told to end."""
        self.killed = False
        """It was killed, as it would not end."""
        self.kill_at: float | None = None
        """When patience ends, on the monotonic clock."""
        self.sent = set[int]()
        """The signals that it was sent."""

    def lived(self) -> float:
        """Return for how many seconds it has lived."""
        return time.monotonic() - self.started

    def drain(self, patience: float) -> None:
        """Tell it to end when its work is done; after so many seconds it will be killed. Told once only."""
        if not self.asked:
            self.asked = True
            self.kill_at = time.monotonic() + patience
            self.send(signal.SIGTERM)

    def halt(self, patience: float) -> None:
        """Tell it to end now; after so many seconds it will be killed."""
        self.asked = True
        latest = time.monotonic() + patience
        self.kill_at = latest if self.kill_at is None else min(self.kill_at, latest)
        self.send(signal.SIGINT)

    def kill(self) -> None:
        """End it without asking."""
        self.asked = self.killed = True
        self.kill_at = None
        self.send(signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """Send a signal. Nobody else can be hit by it: until it is reaped, the process keeps its id."""
        self.sent.add(number)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def hear(self) -> bool:
        """Read the lifeline, and return whether the process has said just now that it works."""
        try:
            said = self.lifeline.recv(len(READY))
        except BlockingIOError:
            return False
        except OSError:
            said = b""
        self.speaks = False
        self.ready = said == READY
        return self.ready

    def wait(self) -> None:
        """Block until it has ended, and kill it when its time is over. For when nobody listens to signals any more."""
        try:
            self._process.wait(None if self.kill_at is None else max(self.kill_at - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()
        self.ended(self._process.returncode)

    def reap(self) -> int | None:
        """Return its exit code, or minus the signal it died of; None while it lives."""
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:  # somebody else in this program has waited for it
            return self.ended(1)
        return self.ended(os.waitstatus_to_exitcode(status)) if pid else None

    def ended(self, code: int) -> int:
        """Note that it was reaped and return its code. What it left running without an end of its own is killed.

        Such as the processes of `run="process"` handlers: their jobs will run again, and must not run twice at once.
        """
        self._process.returncode = code  # Popen has not seen it, and would warn
        if self.speaks:
            self.hear()  # its last word counts
        self.lifeline.close()
        if code not in (Exit.OK, Exit.RECYCLE):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        return code
