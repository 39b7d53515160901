"""Sync handlers: threads that take runs from one shared line.

Waking a thread for every job would cost more than a short job itself, and many awake threads fight over the
interpreter's lock. So one or two threads work through the line; a *spotter* looks every millisecond, while there is a
backlog, whether those at work are stuck in their jobs (blocked in I/O, most likely), and wakes as many more as are
stuck: 1, 2, 4, up to the limit within milliseconds. The thought is that of Go's scheduler, which hands a processor on
when its thread sits in a system call (https://go.dev/src/runtime/proc.go, sysmon).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextvars import Context as ContextVars
from typing import TypeAlias

from taskharbor.call import running_job
from taskharbor.errors import JobInterrupt
from taskharbor.worker.batch_run import AnyRun
from taskharbor.worker.interrupts import Target

_BUSY = 2
"""So many threads, not stuck, are enough to work through the line."""
_TICK_SECONDS = 0.001

Execute: TypeAlias = Callable[[AnyRun], None]


class _Thread(Target):
    """One thread of the pool, and what it is doing."""

    __slots__ = ("ending", "gate", "since")

    def __init__(self) -> None:
        super().__init__()
        self.ending: AnyRun | None = None
        """The run whose end is still to be told."""
        self.gate = threading.Semaphore(0)
        """Where it waits while there is nothing to do."""
        self.since = 0.0
        """When its run began, on the monotonic clock."""


class Threads:
    """The pool: `submit` puts a run in the line, one of the threads executes it."""

    def __init__(self, limit: int, execute: Execute, on_end: Execute, base: ContextVars) -> None:
        """Make an empty pool.

        Args:
            limit: how many threads at most.
            execute: runs the handler and sets the run's outcome; may be cut short by `JobInterrupt`.
            on_end: told of each run once, in its thread, when no interrupt can reach it any more.
            base: context variables that every handler sees.
        """
        self._limit = limit
        self._execute = execute
        self._on_end = on_end
        self._base = base
        self._line: deque[AnyRun] = deque()
        self._all: list[_Thread] = []
        self._idle: list[_Thread] = []
        self._backlog = threading.Event()
        self._spotter: threading.Thread | None = None
        self._closed = False

    def submit(self, run: AnyRun) -> None:
        """Put a run in the line. Called from the event loop's thread only."""
        self._line.append(run)
        if len(self._all) - len(self._idle) < _BUSY:
            self._wake_one()
        elif not self._backlog.is_set():
            if self._spotter is None:
                self._spotter = threading.Thread(target=self._spot, name="taskharbor-spotter", daemon=True)
                self._spotter.start()
            self._backlog.set()

    def close(self) -> None:
        """Let idle threads end, and each other one when its job does. Does not wait for them."""
        self._closed = True
        self._backlog.set()
        for _ in self._all:
            self._wake_one()

    def _wake_one(self) -> bool:
        try:
            thread = self._idle.pop()
        except IndexError:
            if self._closed or len(self._all) >= self._limit:
                return False
            thread = _Thread()
            thread.thread = threading.Thread(
                target=self._main,
                args=(thread,),
                name=f"taskharbor-handler-{len(self._all) + 1}",
                daemon=True,
            )
            try:
                thread.thread.start()
            except RuntimeError:
                if not self._all:
                    raise
                return False  # no more threads to be had: those there are take what is in the line
            self._all.append(thread)
            return True
        thread.gate.release()
        return True

    def _main(self, me: _Thread) -> None:
        while True:
            try:
                self._live(me)
                return
            except JobInterrupt:  # a second one, just where the first was caught
                continue

    def _live(self, me: _Thread) -> None:
        while True:
            # An interrupt may land at any bytecode from the start of a run to the end of `settle_down`, the jump back
            # to the head of a loop included: so the inner loop stands inside of the `try`.
            try:
                self._finish(me)  # what an interrupt has cut short
                while self._step(me):
                    self._finish(me)
                return
            except JobInterrupt:
                pass

    def _finish(self, me: _Thread) -> None:
        run = me.ending
        if run is not None:
            me.settle_down()
            # From here on no interrupt can come, so the end is told exactly once.
            me.ending = None
            self._on_end(run)

    def _step(self, me: _Thread) -> bool:
        try:
            run = self._line.popleft()
        except IndexError:
            if self._closed:
                return False
            self._idle.append(me)
            # Between the two steps above a run may have come whose submitter saw nobody idle.
            if not (self._line and self._unidle(me)):
                me.gate.acquire()
            return True
        me.ending = run
        me.since = time.monotonic()
        me.run = run
        if (
            not run.plan.in_process
        ):  # those are stopped by killing the child, not by interrupting who waits for it
            run.interrupt = me
        self._base.copy().run(_in_job, self._execute, run)
        return True

    def _unidle(self, me: _Thread) -> bool:
        try:
            self._idle.remove(me)
        except ValueError:  # somebody is waking this thread already
            return False
        return True

    def _spot(self) -> None:
        while not self._closed:
            self._backlog.wait()
            while not self._closed and self._line:
                time.sleep(_TICK_SECONDS)
                before = time.monotonic() - _TICK_SECONDS
                stuck = sum(1 for t in self._all if t.run is not None and t.since < before)
                busy = len(self._all) - len(self._idle)
                if busy - stuck < _BUSY:
                    for _ in range(min(max(stuck, 1), len(self._line))):
                        if not self._wake_one():
                            break
            self._backlog.clear()
            if self._line:  # came after the last look; its submitter still saw the event set
                self._backlog.set()


def _in_job(execute: Execute, run: AnyRun) -> None:
    running_job.set(run)
    execute(run)
