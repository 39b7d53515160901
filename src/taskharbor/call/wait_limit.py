"""How long a producer goes on waiting for a job."""

from __future__ import annotations

import time
from datetime import timedelta

from taskharbor.clock import told_duration
from taskharbor.errors import OptionError, ResultTimeout

_NOTHING = timedelta(0)


class WaitLimit:
    """Counts down a caller's timeout.

    Raises:
        OptionError: the timeout is no timedelta: nobody knows the unit of a bare number.
    """

    def __init__(self, job_id: str, timeout: timedelta | None, poll: timedelta) -> None:
        """Begin to count; `poll` is how long to wait for a wake-up at most before looking again."""
        _check(timeout)
        self._job_id = job_id
        self._timeout = timeout
        self._poll = poll.total_seconds()
        self._end = None if timeout is None else time.monotonic() + timeout.total_seconds()

    def next_wait(self, state: str, reason: str) -> float:
        """Return how long to wait for a wake-up before looking again, in seconds.

        Raises:
            ResultTimeout: the time is over.
        """
        if self._end is None:
            return self._poll
        left = self._end - time.monotonic()
        if left <= 0:
            waited = told_duration(max(self._timeout or _NOTHING, _NOTHING))
            raise ResultTimeout(
                f"job {self._job_id} had not ended after {waited}: it is {state}"
                f"{f' ({reason})' if reason else ''}, goes on, and can be waited for again",
                job_id=self._job_id,
            )
        return min(left, self._poll)


def _check(timeout: object) -> None:
    if timeout is not None and not isinstance(timeout, timedelta):
        raise OptionError(
            f"timeout={timeout!r}: expected a timedelta, for example timedelta(seconds=5), or None"
        )
