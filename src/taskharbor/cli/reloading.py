"""Keeps one worker process running, and starts it afresh when files change. Needs watchfiles, and POSIX signals.

        change               ended
    running ----> draining --------> running
       |                                ^
       | ends by itself                 | change
       `----------> waiting ------------'

The first Ctrl-C or SIGTERM drains the worker and ends all; the second cancels what runs. A change while it drains needs
nothing: the process that comes next has not read its source yet.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import FrameType

from watchfiles import Change, DefaultFilter, watch

from taskharbor.cli.output import note
from taskharbor.cli.values import told_duration
from taskharbor.supervisor.child import Child
from taskharbor.supervisor.exits import Exit

_LOOK_MS = 100
"""How often the worker is looked after."""
_DEBOUNCE_MS = 300
"""An editor writes several files, and each in several steps: they are one change."""
_SUFFIXES = (".py", ".toml", ".env")
_LATER = 10.0
"""Seconds beyond its grace after which a worker that does not end is killed."""
_TOLD = 3


def reload_on_change(command: Sequence[str], paths: Sequence[Path], grace: timedelta) -> int:
    """Run `command` until told to stop, afresh after each change below `paths`; return its last exit code."""
    _say(f"watching {', '.join(map(str, paths))} for changes of {', '.join('*' + end for end in _SUFFIXES)}")
    loop = _Loop(command, paths, grace)
    with _heard(loop.stop):
        # The first round comes without a change, once watching has begun: what changes from now on is seen.
        for changes in watch(
            *paths,
            watch_filter=_Source(),
            debounce=_DEBOUNCE_MS,
            rust_timeout=_LOOK_MS,
            yield_on_timeout=True,
            raise_interrupt=True,
        ):
            if not loop.step({Path(path) for _, path in changes}):
                break
    return loop.code


class _Source(DefaultFilter):
    """Source and settings; nothing in folders such as .git, .venv and __pycache__."""

    def __call__(self, change: Change, path: str) -> bool:
        return path.endswith(_SUFFIXES) and super().__call__(change, path)


class _Loop:
    """The worker that runs, if one does, and what is to come."""

    def __init__(self, command: Sequence[str], paths: Sequence[Path], grace: timedelta) -> None:
        self._command = command
        self._paths = paths
        self._grace = grace
        self._child: Child | None = None
        self._begun = False
        self._told_to_stop = 0
        self._heeded = 0
        self.code: int = Exit.OK
        """With which the last worker ended."""

    def step(self, changed: Iterable[Path]) -> bool:
        """Do what is to be done now, and return whether there will be more to do."""
        self._heed()
        self._look_after_worker()
        if self._told_to_stop:
            return self._child is not None
        told = _told(changed, self._paths)
        if self._child is None:
            if told or not self._begun:
                self._start(told)
        elif told and not self._child.asked:
            _say(f"{told} changed: the worker drains, for {told_duration(self._grace)} at most")
            self._child.drain(self._patience)
        return True

    def stop(self) -> None:
        """Have the worker ended: once drains it, twice cancels what runs. For signal handlers: it only takes note."""
        self._told_to_stop += 1

    def _heed(self) -> None:
        """Do what a signal asked for."""
        while self._heeded < self._told_to_stop:
            self._heeded += 1
            if self._child is None:
                return
            if self._heeded == 1:
                _say("told to stop: the worker drains; once more cancels what runs")
                self._child.drain(self._patience)
            else:
                _say("told again to stop: the worker cancels what runs")
                self._child.halt(_LATER)

    @property
    def _patience(self) -> float:
        return self._grace.total_seconds() + _LATER

    def _start(self, told: str) -> None:
        if told:
            _say(f"{told} changed: starting the worker")
        self._begun = True
        self._child = Child(self._command, 1)

    def _look_after_worker(self) -> None:
        child = self._child
        if child is None:
            return
        if child.speaks and child.hear():
            _say(f"the worker is ready (pid {child.pid})")
        if child.kill_at is not None and time.monotonic() >= child.kill_at:
            _say("the worker does not end, and is killed; its jobs run again when their leases are over")
            child.kill()
        code = child.reap()
        if code is None:
            return
        self._child, self.code = None, code
        if self._told_to_stop:
            return
        if child.asked:
            _say("the worker has ended; starting it afresh")
            self._start("")
        else:
            _say(f"the worker ended by itself, with {code}; it starts again with the next change")


def _told(changed: Iterable[Path], below: Sequence[Path]) -> str:
    """Return which files these are, as people name them: a few, and how many more."""
    names = sorted(
        {
            next((str(one.relative_to(root)) for root in below if one.is_relative_to(root)), str(one))
            for one in changed
        }
    )
    more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
    return ", ".join(names[:_TOLD]) + more


def _say(text: str) -> None:
    note(f"dev: {text}")


@contextmanager
def _heard(stop: Callable[[], None]) -> Generator[None]:
    """Call `stop` at each SIGINT and SIGTERM; afterwards they are heard as before."""

    def hear(_number: int, _frame: FrameType | None) -> None:
        stop()

    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
