"""Sync handlers: threads that take runs from one shared line, and stop one job without stopping another.

Waking a thread for every job would cost more than a short job itself, and many awake threads fight over the
interpreter's lock. So one or two threads work through the line; a *spotter* looks every millisecond, while there is a
backlog, whether those at work are stuck in their jobs (blocked in I/O, most likely), and wakes as many more as are
stuck: 1, 2, 4, up to the limit within milliseconds. The thought is that of Go's scheduler, which hands a processor on
when its thread sits in a system call (https://go.dev/src/runtime/proc.go, sysmon).

Interrupting. `PyThreadState_SetAsyncExc` raises in a thread at its next bytecode, whatever it does by then, so sender
and target keep to a protocol that the interpreter's lock makes sound:
    sender:  sets `interrupting`; if the thread is still at this run, sends and notes `sent`; clears `interrupting`
    target:  after the run sets `run = None`, waits out `interrupting`, and lets what was sent land here and now
After that no interrupt can reach the thread's next job. The target takes no lock, since an exception may land between
any two of its steps and would leave the lock held.
"""

from __future__ import annotations

import _weakrefset
import logging
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import Context as ContextVars
from pathlib import Path
from types import TracebackType
from typing import TypeAlias

from taskharbor.call import running_job
from taskharbor.errors import JobInterrupt
from taskharbor.worker.run import Run

_BUSY = 2
"""So many threads, not stuck, are enough to work through the line."""
_TICK_SECONDS = 0.001
_AGAIN_SECONDS = 0.2
_LOOK_AGAIN_SECONDS = 0.5
_TURNS = range(3)
_DEPTH = 8
"""Frames to look at, from the innermost."""
_DELICATE = frozenset(
    {
        logging.__file__,
        str(Path(logging.__file__).with_name("handlers.py")),
        weakref.__file__,
        _weakrefset.__file__,
    }
    | {"<frozen importlib._bootstrap>", "<frozen importlib._bootstrap_external>"}
)
_LOCKING = frozenset({"__enter__", "__exit__", "acquire", "release", "_acquire_restore", "_release_save"})

Execute: TypeAlias = Callable[[Run], None]


class _Thread:
    """One thread of the pool, and what it is doing."""

    __slots__ = (
        "deferred",
        "ending",
        "gate",
        "interrupting",
        "run",
        "sent",
        "sent_at",
        "sheltered",
        "since",
        "thread",
    )

    def __init__(self) -> None:
        self.ending: Run | None = None
        """The run whose end is still to be told."""
        self.gate = threading.Semaphore(0)
        self.run: Run | None = None
        self.since = 0.0
        self.interrupting = False
        self.sent = False
        self.sent_at = -_AGAIN_SECONDS
        self.sheltered = 0
        self.deferred = False
        self.thread: threading.Thread | None = None

    def interrupt(self, run: Run, *, again: bool = False) -> None:
        """Raise `JobInterrupt` in the thread if it is still at this run."""
        with _sending:
            self.interrupting = True
            ident = None if self.thread is None else self.thread.ident
            now = time.monotonic()
            # Not two at once: the second would land where the first is dealt with. A handler may have swallowed one
            # that was sent long ago.
            if self.run is not run or ident is None:
                pass
            elif self.sheltered:
                self.deferred = True
            elif _in_delicate_code(ident):
                self._try_again(run)
            elif now - self.sent_at > _AGAIN_SECONDS:
                self.sent = True
                self.sent_at = now
                _send(ident)
                if not again:
                    self._look_again(run)
            self.interrupting = False

    def _look_again(self, run: Run) -> None:
        """Send one more, once, if the first was swallowed where nobody meant to.

        A finalizer or a weak reference's callback may run at any moment, and exceptions in those are ignored. A handler
        that is cleaning up after an interrupt is left alone.
        """

        def look() -> None:
            ident = None if self.thread is None else self.thread.ident
            if self.run is run and ident is not None and not _is_handling_interrupt(ident):
                self.interrupt(run, again=True)

        timer = threading.Timer(_LOOK_AGAIN_SECONDS, look)
        timer.daemon = True
        timer.start()

    def _try_again(self, run: Run) -> None:
        timer = threading.Timer(_TICK_SECONDS * 5, self.interrupt, (run,))
        timer.daemon = True
        timer.start()

    def shelter(self) -> AbstractContextManager[None]:
        """Return a block in which no interrupt lands; one that comes meanwhile is raised at its end."""
        return _Shelter(self)

    def settle_down(self) -> None:
        """Leave the run behind, an interrupt on its way included. Cut short by one, it is called again.

        An interrupt cannot be taken back: CPython 3.11 and 3.12 would go on looking for it, in every thread, for good.
        So another is sent, which takes the place of one still on its way, and lands in the loop below.
        """
        self.run = None
        while self.interrupting:
            time.sleep(0)
        if self.sent:
            try:
                _send(threading.get_ident())
                while True:
                    pass
            except JobInterrupt:
                pass
            self.sent = False
            self.sent_at = -_AGAIN_SECONDS
        self.sheltered = 0
        self.deferred = False


class _Shelter:
    """A block of the target's own code that is not to be cut in half."""

    def __init__(self, thread: _Thread) -> None:
        self._thread = thread

    def __enter__(self) -> None:
        thread = self._thread
        thread.sheltered += 1
        try:
            while thread.interrupting:
                time.sleep(0)
            for _ in _TURNS:  # one that was sent before lands here, at the latest
                pass
        except JobInterrupt:
            thread.sheltered -= 1
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        thread = self._thread
        thread.sheltered -= 1
        while thread.interrupting:  # it may be just about to leave word
            time.sleep(0)
        if thread.deferred and not thread.sheltered and error is None:
            thread.deferred = False
            raise JobInterrupt("the job was asked to stop while it wrote to the store")


_sending = threading.Lock()


def _in_delicate_code(ident: int) -> bool:
    """Return whether a thread is inside code that would leave a lock of everybody's held if it were cut short.

    Those of `logging`, of `threading`'s conditions and of the import system are taken and released in pure Python.
    Not a proof against it, for the thread may enter such code between this look and the interrupt; but nearly.
    """
    frame = sys._current_frames().get(ident)  # pyright: ignore[reportPrivateUsage]
    for _ in range(_DEPTH):
        if frame is None:
            return False
        code = frame.f_code
        if code.co_filename in _DELICATE or (
            code.co_filename == threading.__file__ and code.co_name in _LOCKING
        ):
            return True
        frame = frame.f_back
    return False


def _is_handling_interrupt(ident: int) -> bool:
    """Return whether a thread is in an `except` or `finally` that a `JobInterrupt` led to."""
    # 3.11 gives (type, value, traceback), later ones the exception.
    found: object = sys._current_exceptions().get(ident)  # pyright: ignore[reportPrivateUsage]
    error: object = found[1] if isinstance(found, tuple) else found
    while isinstance(error, BaseException):
        if isinstance(error, JobInterrupt):
            return True
        error = error.__context__
    return False


def _send(ident: int) -> None:
    import ctypes  # slow to import, and most programs never stop a thread

    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(JobInterrupt))


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
        self._line: deque[Run] = deque()
        self._all: list[_Thread] = []
        self._idle: list[_Thread] = []
        self._backlog = threading.Event()
        self._spotter: threading.Thread | None = None
        self._closed = False

    def submit(self, run: Run) -> None:
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


def _in_job(execute: Execute, run: Run) -> None:
    running_job.set(run)
    execute(run)
