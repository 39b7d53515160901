"""Several worker processes on one queue."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from benchmarks.fixtures import noop, registry
from benchmarks.measure import Figures, Floor, Measure, Settings, Theme
from benchmarks.postgres.server import Bench, bench_server, schema_of
from benchmarks.workers import workers
from taskharbor import Harbor

_COUNTS = (1, 2, 4)
_FLOORS = {2: Floor(bound=1, of="ratio")}
_LOOK_SECONDS = 0.01


@contextmanager
def theme(settings: Settings) -> Generator[Theme]:
    """Open the theme."""
    with bench_server(settings) as bench:
        yield Theme(
            name="processes",
            subjects=[_subject(settings, bench, count) for count in _COUNTS],
            measures=[
                Measure(
                    name=f"drain by {count} processes : by one",
                    unit="jobs/s",
                    ours=f"{count}",
                    ceiling="1",
                    floor=_FLOORS.get(count),
                )
                for count in _COUNTS[1:]
            ],
            warm_up=False,
        )


def _subject(settings: Settings, bench: Bench, count: int) -> Callable[[], Figures]:
    def run() -> Figures:
        with bench.schema() as url, Harbor(url, registry=registry) as harbor:
            table = f"{schema_of(url)}.job"
            harbor.queues.pause("default")
            harbor.enqueue_many(noop.s("user@example.com", n) for n in range(settings.jobs))
            bench.steady(table)
            with workers(harbor, url, count):
                began = time.monotonic()
                harbor.queues.resume("default")
                while bench.rows(f"SELECT 1 FROM {table} LIMIT 1"):  # noqa: S608 - our own name
                    time.sleep(_LOOK_SECONDS)
                return {f"{count}": settings.jobs / (time.monotonic() - began)}

    return run
