"""The watchdog over a worker's event loop. Its rounds are made by the keeper's thread.

It asks the loop to turn now and then. When that does not happen for `stall`, it names the jobs that ran then, dumps
every thread's stack and, in a process started for the worker, ends the process: its leases expire and others take its
jobs over. In a process of the user's own it says `stalled` instead, until the loop turns again.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import os
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from taskharbor.worker.leases import Leases
from taskharbor.worker.naming import named

logger = logging.getLogger("taskharbor.worker")

STALLED_EXIT_CODE: Final[int] = 75
"""Of a process ended by the watchdog: EX_TEMPFAIL of sysexits.h, 'try again'. The supervisor knows it as
`Exit.STALLED`."""
_LEAST_SECONDS: Final = 0.02


class Watchdog:
    """Watches the loop that it is made on."""

    def __init__(
        self,
        leases: Leases,
        *,
        worker: str,
        stall: timedelta,
        owns_process: bool,
        on_turn: Callable[[], None],
    ) -> None:
        """Make it for the running loop; `on_turn` is called there when it turns again after a stall."""
        self._leases = leases
        self._worker = worker
        self._stall = stall.total_seconds()
        self._owns_process = owns_process
        self._on_turn = on_turn
        self._loop = asyncio.get_running_loop()
        self._last_turn = time.monotonic()
        self._turn_asked = False
        self.every = max(self._stall / 4, _LEAST_SECONDS)
        """Seconds between two rounds."""
        self.stalled = False
        """The loop is blocked; nothing is extended and nothing should be reserved."""

    def look(self) -> None:
        """Make a round: ask the loop to turn, or see whether it has. Called from the keeper's thread."""
        if not self._turn_asked:
            self._turn_asked = True
            self._last_turn = time.monotonic()
            with contextlib.suppress(RuntimeError):  # the loop has closed
                self._loop.call_soon_threadsafe(self._turned)
            return
        blocked = time.monotonic() - self._last_turn
        if blocked < self._stall or self.stalled:
            return
        self.stalled = True
        logger.critical(
            "the event loop of worker %s has been blocked for %.1f s; the stacks of all threads go to standard error. "
            "%s. %s A handler that blocks belongs in a `def` task, which runs in a thread",
            self._worker,
            blocked,
            self._suspects(),
            "The process ends now, and its jobs run again elsewhere."
            if self._owns_process
            else "Until it turns, its leases are not extended, and others may run its jobs.",
        )
        _dump_stacks()
        if self._owns_process:
            os._exit(STALLED_EXIT_CODE)

    def _suspects(self) -> str:
        """Return in words which jobs run at this moment, and which of them the loop is in, if that is known."""
        runs = [run for run in self._leases.runs() if run.started]
        # What a handler has started itself is a task of its own; whose it is cannot be told.
        current = asyncio.current_task(self._loop)
        culprits = [run for run in runs if run.task is not None and run.task is current]
        others = [run for run in runs if run not in culprits]
        if culprits:
            beside = f"; beside it ran {named(others)}" if others else ""
            return f"It is in the handler of {named(culprits)}{beside}"
        return f"These ran: {named(runs)}" if runs else "No handler ran"

    def _turned(self) -> None:
        self._turn_asked = False
        self._last_turn = time.monotonic()
        if self.stalled:
            self.stalled = False
            logger.warning("the event loop of worker %s turns again; it goes on", self._worker)
            self._on_turn()


def _dump_stacks() -> None:
    # faulthandler writes to a file descriptor, even while other threads hold locks; replaced streams may have none.
    with contextlib.suppress(Exception):
        stream = sys.__stderr__
        if stream is not None:
            faulthandler.dump_traceback(stream, all_threads=True)
