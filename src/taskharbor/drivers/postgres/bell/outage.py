"""Outages: how long to wait before another try, and saying once that something fails and once that it works again."""

from __future__ import annotations

import logging
import random
import time

import psycopg

from taskharbor.errors import TaskHarborError

logger = logging.getLogger("taskharbor.postgres")

_FIRST_SECONDS = 0.1
_LONGEST_SECONDS = 5.0
_STEADY_SECONDS = 5.0
"""What has worked for so long begins anew with short waits. What is cut each time at once does not."""


class Outage:
    """The failures of one thing that is tried again until it works. For one thread."""

    def __init__(self, fails: str, works: str) -> None:
        """Prepare it.

        Args:
            fails: what is said when it begins, before the reason.
            works: what is said when it is over.
        """
        self._fails = fails
        self._works = works
        self._on = False
        self._wait = 0.0
        self._over_at = 0.0

    def failed(self, error: Exception) -> float:
        """Note a failure; return how many seconds to wait before the next try."""
        if not self._on:
            self._on = True
            if time.monotonic() - self._over_at >= _STEADY_SECONDS:
                self._wait = 0.0
            logger.warning("%s: %s", self._fails, _reason(error))
        self._wait = min(2 * self._wait or _FIRST_SECONDS, _LONGEST_SECONDS)
        return self._wait * random.uniform(0.5, 1)  # a server that comes back is not asked by all at once

    def over(self) -> None:
        """Note that it works."""
        if self._on:
            self._on = False
            self._over_at = time.monotonic()
            logger.info("%s", self._works)


def _reason(error: Exception) -> str:
    if isinstance(error, (psycopg.OperationalError, TaskHarborError)):
        return " ".join(str(error).split())[:300]
    # Others may quote what they were given, such as a URL with its password.
    return f"{type(error).__module__}.{type(error).__qualname__}"
