"""Blocking handlers: how many of the slots a worker keeps busy while their threads wait."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from benchmarks.fixtures import IN_FLIGHT, drain_speed, per_second, wait_in_thread
from benchmarks.measure import Figures, Measure, Settings, Theme

_WAITS_MS = (1, 10)


@contextmanager
def theme(settings: Settings) -> Generator[Theme]:
    """Open the theme."""
    yield Theme(
        name="threads",
        subjects=[
            subject
            for wait_ms in _WAITS_MS
            for subject in (_ours(settings, wait_ms), _pool(settings, wait_ms))
        ],
        measures=[
            measure
            for wait_ms in _WAITS_MS
            for measure in (
                Measure(
                    name=f"handlers that block {wait_ms} ms : {IN_FLIGHT} slots / {wait_ms} ms",
                    unit="jobs/s",
                    ours=f"ours {wait_ms}",
                    ceiling=f"ideal {wait_ms}",
                ),
                Measure(
                    name=f"handlers that block {wait_ms} ms : bare thread pool",
                    unit="jobs/s",
                    ours=f"ours {wait_ms}",
                    ceiling=f"pool {wait_ms}",
                ),
            )
        ],
    )


def _jobs(settings: Settings, wait_ms: int) -> int:
    return max(settings.jobs // (2 * wait_ms), 1)


def _ours(settings: Settings, wait_ms: int) -> Callable[[], Figures]:
    calls = [wait_in_thread.s(wait_ms / 1000) for _ in range(_jobs(settings, wait_ms))]

    def run() -> Figures:
        return {
            f"ours {wait_ms}": drain_speed(settings, calls, "wall"),
            f"ideal {wait_ms}": IN_FLIGHT * 1000 / wait_ms,
        }

    return run


def _pool(settings: Settings, wait_ms: int) -> Callable[[], Figures]:
    jobs = _jobs(settings, wait_ms)

    def work() -> None:
        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            for future in [pool.submit(wait_in_thread.fn, wait_ms / 1000) for _ in range(jobs)]:
                future.result()

    def run() -> Figures:
        return {f"pool {wait_ms}": per_second(jobs, work, "wall")}

    return run
