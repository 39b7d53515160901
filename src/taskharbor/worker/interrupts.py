"""Interrupting a thread at one job, and never at the next.

`PyThreadState_SetAsyncExc` raises in a thread at its next bytecode, whatever it does by then, so sender and target keep
to a protocol that the interpreter's lock makes sound:
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
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

from taskharbor.errors import JobInterrupt
from taskharbor.worker.work import Work

_AGAIN_SECONDS = 0.2
_DELICATE_AGAIN_SECONDS = 0.005
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


class Target:
    """A thread that can be interrupted, and what it is at."""

    __slots__ = ("deferred", "interrupting", "run", "sent", "sent_at", "sheltered", "thread")

    def __init__(self) -> None:
        self.thread: threading.Thread | None = None
        self.run: Work | None = None
        """The run that an interrupt may be meant for; the thread's own code sets it and takes it away."""
        self.interrupting = False
        """A sender is at it."""
        self.sent = False
        """An interrupt was sent, and may not have landed yet."""
        self.sent_at = -_AGAIN_SECONDS
        self.sheltered = 0
        """How many sheltered blocks it is in."""
        self.deferred = False
        """An interrupt came while it was sheltered."""

    def interrupt(self, run: Work, *, again: bool = False) -> None:
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

    def _look_again(self, run: Work) -> None:
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

    def _try_again(self, run: Work) -> None:
        timer = threading.Timer(_DELICATE_AGAIN_SECONDS, self.interrupt, (run,))
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

    def __init__(self, thread: Target) -> None:
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
