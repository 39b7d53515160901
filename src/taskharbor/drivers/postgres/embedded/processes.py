"""Processes of one server: which they are, whether they live, and how to end them at once."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Self

import msgspec

from taskharbor.errors import StoreUnavailable

_PROC: Final = Path("/proc")
_SERVERS: Final = re.compile(r"(?:^|/)(?:postgres|sh)(?:[:\s]|$)")
"""What the command line of a server's process has: its program, a title that it gave itself, or the shell before it."""
_PAUSE_SECONDS: Final = 0.01
_LOOKS: Final = 100
_KERNEL_THREAD: Final = 0x200000
"""PF_KTHREAD among the flags in /proc/PID/stat (proc(5)): it has no command line, ever."""


class Postmaster(msgspec.Struct, frozen=True):
    """What `postmaster.pid` says (PostgreSQL's miscadmin.h, LOCK_FILE_LINE_*)."""

    pid: int
    port: int
    socket_folder: Path
    listens: bool
    """It has a TCP port, too: the same number."""
    ready: bool
    """It takes connections; false while it starts, recovers or stops."""

    @classmethod
    def read(cls, data: Path) -> Self | None:
        """Return what stands in a cluster's file; None without one, or while it is being written."""
        try:
            text = (data / "postmaster.pid").read_text(encoding="utf-8", errors="surrogateescape")
            pid, _, _, port, where, listens, *more = text.split("\n")
            ready = len(more) > 1 and more[1].strip() == "ready"
            # The folder may have been moved, or be reached by another path than the one who started it took.
            near = data.parent / "socket"
            folder = near if (near / _socket_name(int(port))).is_socket() else Path(where)
            return cls(int(pid), int(port), folder, bool(listens), ready)
        except (OSError, ValueError):
            return None

    @property
    def socket(self) -> Path:
        """The socket to connect to."""
        return self.socket_folder / _socket_name(self.port)

    def answers(self) -> bool:
        """Return whether somebody listens at the socket: a file left behind does not."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            try:
                probe.connect(str(self.socket))
            except BlockingIOError:  # its queue is full of others
                return True
            except OSError:
                return False
            return True


def _socket_name(port: int) -> str:
    return f".s.PGSQL.{port}"


def processes(name: str) -> list[int]:
    """Return the living processes of the server with this cluster name, the postmaster among them."""
    return [pid for pid, command in _commands() if _is_server(command, name)]


def lives(pid: int, name: str) -> bool:
    """Return whether a process lives and is one of this server."""
    if _PROC.joinpath("self").exists():
        return _is_server(_command(_PROC / str(pid)), name)
    return pid in processes(name)


def exists(pid: int) -> bool:
    """Return whether PostgreSQL would take this number for a living process, dead but unburied ones too."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def kill_all(name: str, *, patience_seconds: float) -> None:
    """Kill every process of a server, and wait until they are gone."""

    def none_left() -> bool:
        # A postmaster may have forked meanwhile, so look again.
        left = processes(name)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left

    wait_until(none_left, f"the killed processes of {name} to end", patience_seconds=patience_seconds)


def wait_until(happened: Callable[[], bool], what: str, *, patience_seconds: float) -> None:
    """Wait for what a foreign process does and gives no signal of.

    Raises:
        StoreUnavailable: it did not within that time.
    """
    end = time.monotonic() + patience_seconds
    while not happened():
        if time.monotonic() > end:
            raise StoreUnavailable(f"waited {patience_seconds:.0f} s in vain for {what}")
        time.sleep(_PAUSE_SECONDS)


def _is_server(command: str, name: str) -> bool:
    return name in command and _SERVERS.search(command) is not None


def _command(process: Path) -> str:
    """Return a command line as /proc has it, "" for what has ended."""
    for _ in range(_LOOKS):
        try:
            command = process.joinpath("cmdline").read_bytes()
            if command:
                return command.replace(b"\0", b" ").decode(errors="replace")
            state, *rest = (
                process.joinpath("stat")
                .read_text(encoding="utf-8", errors="replace")
                .rpartition(")")[2]
                .split()
            )
        except OSError:
            return ""
        if state in "ZX" or int(rest[5]) & _KERNEL_THREAD:
            return ""
        time.sleep(_PAUSE_SECONDS)  # just now it becomes another program, or ends
    return ""


def _commands() -> Iterator[tuple[int, str]]:
    if _PROC.joinpath("self").exists():
        for entry in os.listdir(_PROC):
            if entry.isdecimal():
                yield int(entry), _command(_PROC / entry)
        return
    ps = ["ps", "-A", "-ww", "-o", "pid=,args="]
    # S603: a fixed command line, and no shell.
    listed = subprocess.run(ps, check=True, capture_output=True, text=True, errors="replace")  # noqa: S603
    for line in listed.stdout.splitlines():
        pid, _, command = line.strip().partition(" ")
        yield int(pid), command.strip()
