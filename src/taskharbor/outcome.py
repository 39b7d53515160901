"""How an attempt can end: what a handler may raise to say so, and the closed set of outcomes the worker makes of it."""

from __future__ import annotations

import traceback
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias

import msgspec

from taskharbor.errors import OptionError, TaskHarborError
from taskharbor.flow import Sequel
from taskharbor.job import AttemptError
from taskharbor.retry import Retry

_OURS = str(Path(__file__).parent)

_LONGEST = timedelta(days=3650)

MESSAGE_LIMIT = 4_000
"""Characters of an error's text that are kept."""
REASON_LIMIT = 500
"""Characters of a reason that are kept."""
TRACEBACK_LIMIT = 16_000
"""Characters of a traceback that are kept, from its end, where the cause stands."""


class Verdict(TaskHarborError):
    """Base of what a handler raises to decide its own outcome."""


class RetryLater(Verdict):
    """The attempt failed; try again after `after` instead of the policy's backoff. Spends an attempt."""

    def __init__(self, after: timedelta, reason: str = "") -> None:
        self.after = checked_wait(after, "RetryLater(after=...)")
        self.reason = reason
        super().__init__(reason or f"retry asked for after {after}")


class Snooze(Verdict):
    """Not now: run again after `for_`. Spends no attempt and runs no backoff."""

    def __init__(self, for_: timedelta) -> None:
        self.for_ = checked_wait(for_, "Snooze(for_=...)")
        super().__init__(f"snoozed for {for_}")


class Reject(Verdict):
    """Make the job a dead letter at once, whatever attempts are left."""

    def __init__(self, reason: str) -> None:
        self.reason = _words(reason)
        super().__init__(reason)


def _words(value: object) -> str:
    if not isinstance(value, str):
        raise OptionError(f"Reject({value!r}): expected a reason in words")
    return value


def checked_wait(value: timedelta, what: str) -> timedelta:
    """Return a wait that every store can add to its time; a subclass may have set anything."""
    if not isinstance(value, timedelta) or not timedelta(0) <= value <= _LONGEST:
        raise OptionError(f"{what}: expected a timedelta from 0 to {_LONGEST.days} days, got {value!r}")
    return value


class Succeeded(msgspec.Struct, frozen=True, gc=False):
    """The handler returned."""

    result: bytes | None
    """The encoded result, of at most `PAYLOAD_LIMIT` bytes; None when the task keeps none."""
    codec: str = ""
    sequel: Sequel | None = None
    """What is to be stored with it."""


class Failed(msgspec.Struct, frozen=True):
    """The handler raised, timed out, or asked for `RetryLater`."""

    error: AttemptError
    policy: Retry | None = None
    """The `Retry.on` policy for this exception, if one applies; else the job's own numbers decide."""
    after: timedelta | None = None


class Snoozed(msgspec.Struct, frozen=True):
    """The handler raised `Snooze`."""

    for_: timedelta


class Rejected(msgspec.Struct, frozen=True):
    """The job can never succeed: the handler raised `Reject`, or its own build cannot decode it."""

    error: AttemptError
    reason: str


class Cancelled(msgspec.Struct, frozen=True):
    """The attempt ended because a cancel reached it."""

    reason: str = ""


class Released(msgspec.Struct, frozen=True):
    """Handed back: the worker stops, or never got round to it."""

    started: bool = False
    """Its handler had begun; the attempt is given back, unless it was the only one allowed."""


LACKING = "its payload cannot be read here: "
"""Begins the reason of a stray whose codec, or the codec's key, is not here; such a reason quotes no payload."""


class Strayed(msgspec.Struct, frozen=True):
    """This worker's build cannot run it, another may: the task is unknown here, or the payload is foreign (rule 16)."""

    reason: str
    refused_by: str | None = None
    """The build that could not decode it; None when the task is merely unknown here."""


Outcome: TypeAlias = Succeeded | Failed | Snoozed | Rejected | Cancelled | Released | Strayed


def describe(error: BaseException, *, attempt: int, worker: str) -> AttemptError:
    """Return what is kept of an exception: its type, text and traceback, each bounded.

    The traceback begins with the handler's own frame.
    """
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    try:
        message = str(error)
    except BaseException as broken:  # noqa: BLE001 - it may even raise SystemExit, and must not lose the outcome
        message = f"<its __str__ raised {type(broken).__name__}>"
    return AttemptError(
        attempt=attempt,
        type=name,
        message=bounded(message, MESSAGE_LIMIT, from_end=False),
        traceback=bounded(_format(error), TRACEBACK_LIMIT, from_end=True),
        worker=worker,
    )


def _format(error: BaseException) -> str:
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_OURS):
        frames = frames.tb_next
    try:
        # A recursion error holds thousands of frames; the ends are what one reads.
        return "".join(
            traceback.TracebackException(type(error), error, frames, limit=-40, compact=True).format()
        )
    except BaseException as broken:  # noqa: BLE001 - it may even raise SystemExit, and must not lose the outcome
        return f"<the traceback could not be formatted: {type(broken).__name__}>"


def bounded(text: str, limit: int, *, from_end: bool = False) -> str:
    """Return text as any store can keep it: at most so long, without NULs and lone surrogates."""
    # Lone surrogates can be in any exception's text and no store takes them.
    text = text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\x00", "\\x00")
    if len(text) <= limit:
        return text
    left_out = f"[{len(text) - limit} characters left out]"
    return f"{left_out}\n{text[-limit:]}" if from_end else f"{text[:limit]} {left_out}"
