"""Processes that a supervisor leads, and what they tell a test over a named pipe. POSIX, and Linux for `state`."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.fixtures.support import SOURCES
from tests.support.work import ENOUGH

# What each led program begins with. Signals are blocked before it says anything, so none can come too early; `wait`
# takes them one by one.
PREAMBLE = """
import os, signal, subprocess, sys, time
LISTENED = {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP}
signal.pthread_sigmask(signal.SIG_BLOCK, LISTENED)
number, lifeline = os.environ["TASKHARBOR_PROCESS"], int(os.environ["TASKHARBOR_LIFELINE"])
events = os.open(sys.argv[1], os.O_WRONLY)
folder = os.path.dirname(sys.argv[1])

def say(event, *more):
    os.write(events, " ".join(map(str, (event, number, os.getpid(), *more))).encode() + b"\\n")

def ready():
    os.write(lifeline, b"r")
    say("ready")

def wait():
    name = signal.Signals(signal.sigwait(LISTENED)).name
    say(name)
    return name

def wait_for_end():
    try:
        assert os.read(lifeline, 1) == b""
    except ConnectionResetError:  # the parent died before it had read that we are ready
        pass

def once(name):
    try:
        os.close(os.open(os.path.join(folder, name), os.O_CREAT | os.O_EXCL))
        return True
    except FileExistsError:
        return False
"""
SERVES = "ready()\nwhile wait() != 'SIGTERM': pass"
# Tells the test before the supervisor, so that what the supervisor does upon it is told later.
ROLLS = "say('ready')\nos.write(lifeline, b'r')\nwhile wait() != 'SIGTERM': pass"

# Before `supervise` is called a test may put a line of its own: {setup}.
LEADER = """
import logging, os, signal, sys
from datetime import timedelta
logging.basicConfig(level=logging.DEBUG, format="%(levelname)s %(message)s")
import taskharbor.supervisor.loop as loop
from taskharbor.supervisor import supervise
{setup}
sys.exit(supervise(
    [sys.executable, "-I", "-S", "-c", {program!r}, {events!r}], processes={processes}, until_idle={until_idle},
    grace=timedelta({grace}), halt=timedelta(0),
))
"""


def state(pid: int) -> str:
    """Return the state of a process as one letter, Z for a zombie; "" if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def lives(pid: int) -> bool:
    """Return whether a process is there and has not ended."""
    return state(pid) not in ("", "Z")


def children(pid: int) -> list[int]:
    """Return whose parent a process is."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class Event:
    """One line that a led process has written: what, which number, which process, and more."""

    def __init__(self, line: str) -> None:
        self.name, number, pid, *self.more = line.split()
        self.number, self.pid = int(number), int(pid)

    def __repr__(self) -> str:
        return f"<{self.name} {self.number}>"


class Led:
    """A supervisor in a process of its own, and what its processes tell."""

    def __init__(self, folder: Path) -> None:
        self.fifo = folder / "events"
        self._log = folder / "log"
        os.mkfifo(self.fifo)
        # Writing too, so that it never reads the end of the file.
        self._events = os.open(self.fifo, os.O_RDWR)
        self._unread = b""
        self.pids = set[int]()

    def start(
        self,
        program: str,
        *,
        processes: int = 1,
        until_idle: bool = False,
        grace: int = 1,
        setup: str = "",
        before: tuple[str, ...] = (),
        stdin: int | None = None,
    ) -> None:
        """Start to lead processes of a program; with a terminal for `stdin` in a session that it controls."""
        leader = LEADER.format(
            setup=setup,
            program=PREAMBLE + program,
            events=str(self.fifo),
            processes=processes,
            until_idle=until_idle,
            grace=grace,
        )
        if stdin is not None:
            leader = f"import os; os.login_tty({stdin})\n" + leader.replace(
                "level=", f"filename={str(self._log)!r}, level="
            )
        self.run([*before, sys.executable, "-c", leader], fds=[] if stdin is None else [stdin])

    def run(
        self, command: Sequence[str], *, environment: Mapping[str, str] | None = None, fds: Sequence[int] = ()
    ) -> None:
        """Start a supervisor by a command of its own."""
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                env={**os.environ, "PYTHONPATH": str(SOURCES), **(environment or {})},
                stdout=log,
                stderr=log,
                pass_fds=fds,
            )

    def event(self) -> Event:
        """Return the next event, which must come."""
        while b"\n" not in self._unread:
            readable, _, _ = select.select([self._events], [], [], ENOUGH.total_seconds())
            assert readable, f"no event came; the log so far:\n{self.log()}"
            self._unread += os.read(self._events, 4096)
        line, _, self._unread = self._unread.partition(b"\n")
        event = Event(line.decode())
        self.pids.add(event.pid)
        return event

    def expect(self, *names: str) -> list[Event]:
        """Return the next events, which must be these, in any order."""
        came = [self.event() for _ in names]
        assert sorted(names) == sorted(event.name for event in came), self.log()
        return sorted(came, key=lambda event: event.number)

    def send(self, number: signal.Signals) -> None:
        """Send the supervisor a signal."""
        self.process.send_signal(number)

    def end(self) -> int:
        """Return with which code the supervisor ends; nothing that it led may outlive it."""
        code = self.process.wait(ENOUGH.total_seconds())
        assert [pid for pid in self.pids if state(pid)] == []
        return code

    def log(self) -> str:
        """Return what the supervisor has logged."""
        return self._log.read_text()

    def close(self) -> None:
        """Leave nothing behind, whatever the test came to."""
        if hasattr(self, "process"):
            self.process.kill()
            self.process.wait()
        for pid in self.pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        os.close(self._events)
