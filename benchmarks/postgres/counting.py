"""Draining so many jobs of a store and no more, and how fast it went at each stage of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from itertools import pairwise

from benchmarks.fixtures import IN_FLIGHT, on_own_loop, registry
from taskharbor import Harbor, task


class _Goal:
    """Counts handlers, notes the time at the end of each stage, and tells when the last one has run."""

    def __init__(self, jobs: int, stages: int, now: Callable[[], float]) -> None:
        self.ends: list[float] = []
        self._now = now
        self.reached = asyncio.Event()
        self._jobs = jobs
        self._each = max(jobs // stages, 1)
        self._ran = 0

    def count(self) -> None:
        self._ran += 1
        if self._ran % self._each == 0:
            self.ends.append(self._now())
        if self._ran == self._jobs:
            self.reached.set()


_goals = [_Goal(0, 1, time.perf_counter)]
"""What is counted towards is the last one."""


@task(registry=registry)
async def counted(to: str, n: int) -> int:
    """Do nothing but count."""
    _goals[-1].count()
    return n


def drain_in_stages(harbor: Harbor, jobs: int, stages: int, now: Callable[[], float]) -> list[float]:
    """Work until so many jobs, all `counted`, have run; return jobs a second in each stage, by that clock."""

    async def drain() -> list[float]:
        goal = _Goal(jobs, stages, now)
        _goals[:] = [goal]
        began = now()
        async with harbor.worker(concurrency=IN_FLIGHT):
            await goal.reached.wait()
        await harbor.aclose()
        times = [began, *goal.ends[:stages]]
        return [jobs / stages / (end - begin) for begin, end in pairwise(times)]

    return on_own_loop(drain)
