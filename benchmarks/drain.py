"""Draining: no-op jobs from the store to their results, on the loop and in threads."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from benchmarks.fixtures import bare_speed, drain_speed, noop, noop_in_thread
from benchmarks.measure import Figures, Floor, Measure, Settings, Theme


@contextmanager
def theme(settings: Settings) -> Generator[Theme]:
    """Open the theme."""
    jobs = settings.jobs
    async_calls = [noop.s("user@example.com", n) for n in range(jobs)]
    sync_calls = [noop_in_thread.s("user@example.com", n) for n in range(jobs)]

    def bare() -> Figures:
        return {"bare": bare_speed(jobs, settings.clock)}

    def async_handlers() -> Figures:
        return {"async": drain_speed(settings, async_calls)}

    def sync_handlers() -> Figures:
        return {"sync": drain_speed(settings, sync_calls)}

    yield Theme(
        name="drain",
        subjects=[bare, async_handlers, sync_handlers],
        measures=[
            Measure(
                name="drain, async no-op : bare loop",
                unit="jobs/s",
                ours="async",
                ceiling="bare",
                floor=Floor(bound=0.25, of="ratio"),
            ),
            Measure(
                name="drain, sync no-op in threads : async",
                unit="jobs/s",
                ours="sync",
                ceiling="async",
                floor=Floor(bound=0.3, of="ratio"),
            ),
        ],
    )
