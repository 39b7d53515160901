"""Several worker processes on one file: SQLite lets one of them write at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from benchmarks.fixtures import fresh_folder, noop, registry
from benchmarks.measure import Figures, Measure, Settings, Theme
from benchmarks.sqlite import bare
from benchmarks.workers import workers
from taskharbor import Harbor

_COUNTS = (1, 2, 4)
_LOOK_SECONDS = 0.005
_LEFT = "SELECT EXISTS (SELECT 1 FROM taskharbor_job)"


@contextmanager
def theme(settings: Settings) -> Generator[Theme]:
    """Open the theme."""
    yield Theme(
        name="processes",
        subjects=[_subject(settings, count) for count in _COUNTS],
        measures=[
            Measure(
                name=f"drain by {count} processes : by one",
                unit="jobs/s",
                ours=f"{count}",
                ceiling="1",
            )
            for count in _COUNTS[1:]
        ],
        warm_up=False,
        rounds=3,
    )


def _subject(settings: Settings, count: int) -> Callable[[], Figures]:
    def run() -> Figures:
        with fresh_folder(settings) as folder:
            path = folder / "bench.db"
            url = f"sqlite:///{path}"
            with Harbor(url, registry=registry) as harbor:
                harbor.queues.pause("default")
                harbor.enqueue_many(noop.s("user@example.com", n) for n in range(settings.jobs))
                with workers(harbor, url, count), bare.connected(path) as watch:
                    began = time.monotonic()
                    harbor.queues.resume("default")
                    while watch.execute(_LEFT).fetchone()[0]:
                        time.sleep(_LOOK_SECONDS)
                    return {f"{count}": settings.jobs / (time.monotonic() - began)}

    return run
