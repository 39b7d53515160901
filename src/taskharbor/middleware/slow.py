"""A warning for jobs that run longer than they should, while they still do."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Iterator
from datetime import timedelta

from taskharbor.clock import told_duration
from taskharbor.errors import OptionError
from taskharbor.middleware.fields import job_fields
from taskharbor.middleware.standing import Look, here
from taskharbor.middleware.watching import Watch
from taskharbor.task import Attempt, Middleware

logger = logging.getLogger("taskharbor.middleware")


class SlowJobs(Middleware):
    """Warns, once, of each attempt that runs longer than a limit: while it runs, with the lines where it stands, and
    again when it has ended, with how long that took. It ends nothing; `@task(timeout=...)` does.

    The records have the structured fields of `JobLogging`; the first has `stack` as well (text: files, lines and
    functions, no values), the second `duration_seconds`. One thread watches all jobs of this object, and wakes once per
    limit, or second, however many there are: a quick job costs it nothing. It ends when no more come.
    """

    def __init__(self, after: timedelta, *, level: int = logging.WARNING) -> None:
        """Warn of what runs longer than `after`.

        Raises:
            OptionError: that is no duration above zero.
        """
        if not isinstance(after, timedelta) or after <= timedelta(0):
            raise OptionError(f"SlowJobs(after={after!r}): expected a timedelta above 0")
        self._after = after
        self._level = level
        self._watch: Watch[_Slow] = Watch(after.total_seconds(), self._tell)

    def run(self, attempt: Attempt) -> Iterator[None]:
        """Have the attempt watched."""
        slow = _Slow(attempt, here())
        try:
            self._watch.add(slow)
            yield
        finally:
            self._watch.discard(slow)
            if slow.told:
                self._tell_end(slow)

    def _tell(self, slow: _Slow) -> None:
        slow.told = True
        try:
            stack = slow.look()
        except Exception as error:  # noqa: BLE001 - a stack that changes while it is read
            stack = f"  its stack could not be read: {type(error).__name__}\n"
        self._log(
            slow,
            {"stack": stack},
            "job %s (%s) has been running for more than %s; it is at\n%s",
            told_duration(self._after),
            stack.rstrip(),
        )

    def _tell_end(self, slow: _Slow) -> None:
        took = time.monotonic() - slow.begin
        self._log(slow, {"duration_seconds": took}, "job %s (%s) has ended; it ran for %.1f s", took)

    def _log(self, slow: _Slow, more: dict[str, object], text: str, *values: object) -> None:
        fields = slow.fields
        try:
            logger.log(
                self._level,
                text,
                fields["job_id"],
                fields["task"],
                *values,
                extra={**fields, **more},
                stacklevel=2,
            )
        except Exception:  # noqa: BLE001 - a filter of somebody's, say: neither the job nor the watch is the worse for it
            if logging.raiseExceptions:  # as handlers of `logging` do it
                traceback.print_exc()


class _Slow:
    """An attempt that may come to be slow."""

    __slots__ = ("_attempt", "begin", "look", "told")

    def __init__(self, attempt: Attempt, look: Look) -> None:
        self._attempt = attempt
        self.look = look
        self.begin = time.monotonic()
        self.told = False

    @property
    def fields(self) -> dict[str, object]:
        """Return which job it is."""
        return {**job_fields(self._attempt.context), "worker": self._attempt.worker}
