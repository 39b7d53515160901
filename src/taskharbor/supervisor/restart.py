"""When to start a process again, and in which words its end is told: decisions without clock or process."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Container, Iterable

from taskharbor.supervisor.exits import Exit

STEADY_SECONDS = 60.0
"""A process that lived so long has done its work; what it died of is counted anew."""
LONGEST_SECONDS = 30.0
"""No process is waited for longer."""
_FIRST_SECONDS = 0.5

# Worst last. Codes that are none of ours (an application's own `sys.exit`) count as FAILED.
_SEVERITY = (
    Exit.OK,
    Exit.UNFINISHED,
    Exit.UNAVAILABLE,
    Exit.STALLED,
    Exit.FAILED,
    Exit.DEPLOYMENT,
    Exit.USAGE,
)


class Backoff:
    """How long one place stays empty after its process ended: not at all at first, then ever longer."""

    def __init__(self, uniform: Callable[[float, float], float] = random.uniform) -> None:
        """Start with no crash counted."""
        self._uniform = uniform
        self._crashes = 0

    def after_crash(self, lived: float) -> float:
        """Return the seconds to wait after a process that has lived so many seconds.

        0 for the first crash; then half a second, doubled each time up to 30 s, of which the upper half is random, so
        that processes which died together do not come back together.
        """
        if lived >= STEADY_SECONDS:
            self._crashes = 0
        self._crashes += 1
        if self._crashes == 1:
            return 0.0
        # The exponent is bounded too: in a month of crashes it would outgrow what a float holds.
        longest = min(LONGEST_SECONDS, _FIRST_SECONDS * 2.0 ** min(self._crashes - 2, 10))
        return self._uniform(longest / 2, longest)

    def after_recycling(self) -> float:
        """Return 0: a process that recycled itself has worked, so earlier crashes are forgotten."""
        self._crashes = 0
        return 0.0


def is_wrong(code: int) -> bool:
    """Return whether a code says that starting again changes nothing: a wrong command line or deployment."""
    return code in (Exit.USAGE, Exit.DEPLOYMENT)


def final(code: int, *, asked: bool, killed: bool) -> Exit:
    """Return what the end of a process means for the whole, once it is not started again.

    Args:
        code: its exit code, or minus the signal it died of.
        asked: whether it had been told to end.
        killed: whether the supervisor had lost patience with it.
    """
    if killed:
        return Exit.UNFINISHED
    if code in (Exit.RECYCLE, Exit.ORDERED) or (
        asked and code == -signal.SIGTERM
    ):  # told before it could listen
        return Exit.OK
    return Exit(code) if code in _SEVERITY else Exit.FAILED


def worst(codes: Iterable[Exit]) -> Exit:
    """Return the code that says most about what went wrong; OK of none."""
    return max(codes, key=_SEVERITY.index, default=Exit.OK)


def told(code: int, *, sent: Container[int] = (), ready: bool = True) -> str:
    """Return how a process ended, in words that follow `process 1`.

    Args:
        code: its exit code, or minus the signal it died of.
        sent: the signals that the supervisor had sent it: it died of our doing then, and nobody else's.
        ready: whether it had come up.
    """
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:  # real-time signals have no names
            name = f"signal {-code}"
        if -code in sent:
            return f"was ended by our {name}" + ("" if ready else " while it started")
        return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    names = {known.value: known.name.lower() for known in Exit}
    return f"ended with code {code}" + (f" ({names[code]})" if code in names else "")
