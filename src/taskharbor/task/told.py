"""What one handler tells while it runs, until somebody hands it on: the latest progress, and lines for the job's log.

Written by the handler from any of its threads, and read by the worker from others. There is no lock: every step by
itself is one that threads can do at once.
"""

from __future__ import annotations

import itertools
import sys
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime

from taskharbor.errors import OptionError
from taskharbor.job import Delivery
from taskharbor.outcome import bounded
from taskharbor.report import LINE_LIMIT, LOG_LIMIT, NOTE_LIMIT, LogLine, Progress, Report

_MOST_LINES = LOG_LIMIT - 1
"""Lines that wait at most: with the one that says how many were left out they are what is kept of a job's log."""
_MOST_LEFT_OUT = 60
"""Characters that the words about what was left out take at most."""


class Told:
    """What was told since it was last taken: bounded, so that a flood of lines costs no memory."""

    __slots__ = ("_delivery", "_hear", "_lines", "_noted", "_numbers", "_progress", "_taken", "announced")

    def __init__(self, delivery: Delivery, hear: Callable[[Told], None]) -> None:
        """Make it for one delivery; `hear` is called, in whatever thread, when there is something to take again."""
        self._delivery = delivery
        self._hear = hear
        self._progress: Progress | None = None
        self._lines: deque[LogLine] = deque(maxlen=_MOST_LINES)
        self._numbers = itertools.count(1)
        self._taken = 0
        """The greatest number that was taken."""
        self._noted = False
        """Somebody was told that there is something to take."""
        self.announced: Progress | None = None
        """The latest progress that listeners were told of; kept here by who tells them."""

    def note(self, progress: Progress) -> None:
        """Note how far the handler is; it takes the place of what it said before."""
        self._progress = progress
        self._tell()

    def write(self, text: str, at: datetime | None = None) -> LogLine:
        """Add a line, and return it."""
        line = LogLine(
            fence=self._delivery.fence,
            number=next(self._numbers),
            attempt=self._delivery.attempt,
            at=at or datetime.now(UTC),
            text=text,
        )
        self._lines.append(line)
        self._tell()
        return line

    def take_over(self, report: Report) -> None:
        """Tell what the handler told in a child process."""
        if report.progress is not None:
            self.note(report.progress)
        for line in report.lines:
            self.write(line.text, line.at)

    def take(self) -> Report | None:
        """Return what was told since it was last taken; None if that is nothing. For one thread at a time."""
        # Cleared first: what is told from here on is told of again.
        self._noted = False
        progress, self._progress = self._progress, None
        lines: list[LogLine] = []
        while self._lines:
            lines.append(self._lines.popleft())
        if progress is None and not lines:
            return None
        lines.sort(key=_number)  # two threads may have drawn their numbers in another order than they wrote
        if lines:
            before, self._taken = self._taken, max(self._taken, lines[-1].number)
            missing = lines[0].number - before - 1
            if missing > 0 and len(lines) >= _MOST_LINES:
                lines.insert(0, _left_out(lines[0], missing))
        return Report(
            job_id=self._delivery.id, token=self._delivery.token, progress=progress, lines=tuple(lines)
        )

    def give_back(self, report: Report) -> None:
        """Put back what could not be handed on, unless something newer has taken its place."""
        if self._progress is None:
            self._progress = report.progress
        room = _MOST_LINES - len(self._lines)
        if room > 0:
            self._lines.extendleft(reversed(report.lines[-room:]))

    def _tell(self) -> None:
        if not self._noted:
            self._noted = True
            self._hear(self)


def checked_progress(done: object, total: object, note: object) -> Progress:
    """Return a progress as it is kept.

    Raises:
        OptionError: a number that is none, or below zero; a note that is no text.
    """
    return Progress(
        done=_amount(done, "done"),
        total=None if total is None else _amount(total, "total"),
        note=_clipped(note, NOTE_LIMIT, "ctx.progress(note=...)"),
        at=datetime.now(UTC),
    )


def checked_line(text: object) -> str:
    """Return the text of a line as it is kept.

    Raises:
        OptionError: it is no text.
    """
    return _clipped(text, LINE_LIMIT, "ctx.log(...)")


def _number(line: LogLine) -> int:
    return line.number


def _left_out(first: LogLine, count: int) -> LogLine:
    # Under the number of the last of them, which nobody will store any more.
    return LogLine(
        fence=first.fence,
        number=first.number - 1,
        attempt=first.attempt,
        at=first.at,
        text=f"[{count} lines left out: more than {_MOST_LINES} at a time]",
    )


def _amount(given: object, what: str) -> float:
    if isinstance(given, (int, float)) and not isinstance(given, bool) and 0 <= given <= sys.float_info.max:
        return float(given)
    shown = repr(given) if isinstance(given, (bool, float)) else f"a {type(given).__qualname__}"
    raise OptionError(f"ctx.progress({what}=...): expected a number from 0 up, got {shown}")


def _clipped(given: object, limit: int, what: str) -> str:
    if not isinstance(given, str):
        raise OptionError(f"{what}: expected text, got a {type(given).__qualname__}")
    if len(given) <= limit and given.isascii() and "\x00" not in given:
        return given
    text = bounded(given, limit)
    return text if len(text) <= limit else bounded(given, limit - _MOST_LEFT_OUT)
