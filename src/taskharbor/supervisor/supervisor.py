"""The question as it is asked: keep so many processes of this command running."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import timedelta

from taskharbor.errors import OptionError, UnsupportedError


def supervise(
    command: Sequence[str],
    *,
    processes: int,
    grace: timedelta,
    until_idle: bool,
    halt: timedelta = timedelta(seconds=5),
) -> int:
    """Keep `processes` processes of `command` running until told to stop, and return an exit code (see `Exit`).

    Each is told its number, from 1, by `TASKHARBOR_PROCESS`, and its lifeline by `TASKHARBOR_LIFELINE`. One that ends
    is started again: at once at first or after recycling itself, else after a growing wait of up to 30 s; not if it was
    told to end from afar (`Exit.ORDERED`). If none has
    ever come up and one ends with `Exit.USAGE` or `Exit.DEPLOYMENT`, all end with that code.

    Signals: SIGTERM or SIGINT drains all, another one halts them; what has not ended when its time is over is killed.
    SIGHUP replaces one process after the other, and ends when the terminal has gone away. SIGUSR1 is passed on.

    Args:
        command: program and arguments; no shell.
        processes: how many, at least 1.
        grace: how long a drained process may take for its running jobs.
        until_idle: a process that ends with 0 has found nothing left to do, and is not started again; when all have,
            this returns.
        halt: how long a halted process may take to cancel them; it is given a multiple of that before it is killed.

    Raises:
        OptionError: no command, or less than one process.
        UsageError: called outside the main thread.
        DeploymentError: the command cannot be started.
        UnsupportedError: on Windows, which has none of these signals.
    """
    if isinstance(command, str) or not command:
        raise OptionError(f"command={command!r}: expected a list, the program and its arguments")
    if isinstance(processes, bool) or processes < 1:
        raise OptionError(f"processes={processes!r}: expected a whole number of at least 1")
    if sys.platform == "win32":
        raise UnsupportedError(
            f"processes={processes}: several processes are led by POSIX signals, which Windows does not have; start "
            "so many workers of one process each, by a service manager or in as many windows"
        )
    # Here, not above: on Windows that room cannot even be entered.
    from taskharbor.supervisor.loop import Supervisor

    return Supervisor(command, processes, grace, halt, until_idle=until_idle).run()
