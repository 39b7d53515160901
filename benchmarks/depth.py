"""Depth: what a long queue, and a long list of jobs scheduled ahead, cost each job that is drained."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta

from benchmarks.fixtures import IN_FLIGHT, on_own_loop, open_harbor, registry
from benchmarks.measure import Clock, Figures, Measure, Settings, Theme
from taskharbor import Harbor, task

_DRAINED = 10_000
"""Jobs timed in each round; as many are put in again, so that the depth stays."""
_DEEP = 200_000


class _Goal:
    """Counts handlers down, and tells when the last of a round has run."""

    def __init__(self) -> None:
        self.left = 0
        self.reached = asyncio.Event()

    def set(self, jobs: int) -> None:
        self.left = jobs
        self.reached = asyncio.Event()

    def count(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.reached.set()


_goal = _Goal()


@task(registry=registry)
async def counted(to: str, n: int) -> int:
    """Do nothing but count."""
    _goal.count()
    return n


@contextmanager
def theme(settings: Settings) -> Generator[Theme]:
    """Open the theme: its three stores are filled once and kept."""
    with open_harbor(settings) as short, open_harbor(settings) as deep, open_harbor(settings) as ahead:
        _fill(deep, _DEEP - _DRAINED)
        # At a higher priority than what is due, so that every reserve meets them first.
        later = counted.options(priority=0, run_in=timedelta(days=30))
        ahead.enqueue_many([later.s("user@example.com", n) for n in range(_DEEP)])
        yield Theme(
            name="depth",
            subjects=[
                _subject(settings, "short", short),
                _subject(settings, "deep", deep),
                _subject(settings, "ahead", ahead),
            ],
            measures=[
                Measure(
                    name=f"drain with {_DEEP:,} queued : {_DRAINED:,}",
                    unit="jobs/s",
                    ours="deep",
                    ceiling="short",
                ),
                Measure(
                    name=f"drain with {_DEEP:,} scheduled ahead : none",
                    unit="jobs/s",
                    ours="ahead",
                    ceiling="short",
                ),
            ],
        )


def _fill(harbor: Harbor, jobs: int) -> None:
    harbor.enqueue_many([counted.s("user@example.com", n) for n in range(jobs)])


def _subject(settings: Settings, name: str, harbor: Harbor) -> Callable[[], Figures]:
    def run() -> Figures:
        _fill(harbor, _DRAINED)
        return {name: drain_some(harbor, _DRAINED, settings.clock)}

    return run


def drain_some(harbor: Harbor, jobs: int, clock: Clock) -> float:
    """Work until so many of the jobs there are have run, and return jobs a second. They have to be `counted`."""

    async def drain() -> float:
        _goal.set(jobs)
        now = time.perf_counter if clock == "wall" else time.process_time
        began = now()
        async with harbor.worker(concurrency=IN_FLIGHT):
            await _goal.reached.wait()
            return jobs / (now() - began)

    return on_own_loop(drain)
