"""A program whose clock is wrong: `python -m tests.support.skewed SECONDS MODULE ARGUMENTS...` runs a module by it.

It is the clock as the library reads it; nobody else's in the process, and nothing that counts seconds.
"""

from __future__ import annotations

import importlib
import runpy
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta, tzinfo

NAMED_IN = (
    "taskharbor.clock",
    "taskharbor.task.context",
    "taskharbor.worker.register",
    "taskharbor.drivers.postgres.slots",
)
"""Where `datetime.now` is called."""


class SkewedDatetime:
    """Stands where `datetime` stood, and knows another now."""

    def __init__(self, skew: timedelta) -> None:
        self._skew = skew

    def now(self, tz: tzinfo | None = None) -> datetime:
        return datetime.now(tz) + self._skew

    def __getattr__(self, name: str) -> object:
        return getattr(datetime, name)

    def __instancecheck__(self, thing: object) -> bool:
        return isinstance(thing, datetime)


def skew(seconds: float) -> None:
    """Set the library's clock wrong, for the rest of the process."""
    read: Callable[[], float] = time.time
    read_ns: Callable[[], int] = time.time_ns
    time.time = lambda: read() + seconds
    time.time_ns = lambda: read_ns() + int(seconds * 1e9)
    for name in NAMED_IN:
        importlib.import_module(name).__dict__["datetime"] = SkewedDatetime(timedelta(seconds=seconds))


if __name__ == "__main__":
    skew(float(sys.argv[1]))
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
