"""When handlers in another process began, through a pipe; and what the times from enqueue to there come to."""

from __future__ import annotations

import os
import random
import select
import time
from collections.abc import Callable
from pathlib import Path
from statistics import quantiles

from benchmarks.app import INSTANT
from benchmarks.measure import Figures

_BETWEEN_SECONDS = (0.005, 0.055)
"""The worker has nothing to do again; and where it looks for commits at intervals, the next comes anywhere in one."""
_LOST_SECONDS = 30.0


class Receiver:
    """Our end of the pipe."""

    def __init__(self, pipe: Path) -> None:
        """Open a pipe that is there."""
        self._pipe = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._pipe)

    def next(self) -> int:
        """Return when the next handler began, by the monotonic clock in nanoseconds."""
        deadline = time.monotonic() + _LOST_SECONDS
        while time.monotonic() < deadline:
            select.select([self._pipe], [], [], _LOST_SECONDS)
            try:
                data = os.read(self._pipe, INSTANT.size)
            except BlockingIOError:
                continue
            if data:
                (instant,) = INSTANT.unpack(data)
                return int(instant)
            time.sleep(0)  # nobody has opened its other end yet
        raise RuntimeError(f"no handler began within {_LOST_SECONDS:g} s")


def lone_jobs(name: str, enqueue: Callable[[], object], receiver: Receiver, jobs: int) -> Figures:
    """Enqueue jobs one at a time, and return milliseconds to the handler, and those of the call: p50 and p99."""
    times: list[float] = []
    calls: list[float] = []
    for _ in range(jobs):
        time.sleep(random.uniform(*_BETWEEN_SECONDS))
        began = time.monotonic_ns()
        enqueue()
        calls.append((time.monotonic_ns() - began) / 1e6)
        times.append((receiver.next() - began) / 1e6)
    return {**_points(name, times), **_points(f"{name} call", calls)}


def _points(name: str, times: list[float]) -> Figures:
    points = quantiles(times, n=100)
    return {f"{name} p50": points[49], f"{name} p99": points[98]}
