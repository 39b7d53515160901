"""A worker process with nothing to do: what it takes of the processor, and of memory."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager

from benchmarks.fixtures import fresh_url, registry
from benchmarks.measure import Figures, Floor, Measure, Settings, Theme
from benchmarks.workers import processor_seconds, resident_mib, workers
from taskharbor import Harbor

_STARTED_SECONDS = 2.0
_IDLE_SECONDS = 20.0


@contextmanager
def theme(settings: Settings) -> Generator[Theme]:
    """Open the theme."""

    def idling() -> Figures:
        with (
            fresh_url(settings) as url,
            Harbor(url, registry=registry) as harbor,
            workers(harbor, url) as (pid,),
        ):
            time.sleep(_STARTED_SECONDS)  # what a start costs is not what idling costs
            wall, cpu = time.monotonic(), processor_seconds(pid)
            time.sleep(_IDLE_SECONDS)
            share = (processor_seconds(pid) - cpu) / (time.monotonic() - wall)
            return {"cpu": share * 100, "rss": resident_mib(pid)}

    yield Theme(
        name="idle",
        subjects=[idling],
        measures=[
            Measure(
                name="idle worker process, CPU",
                unit="%",
                ours="cpu",
                better="less",
                floor=Floor(bound=1, of="figure", at_least=False),
            ),
            Measure(name="idle worker process, memory", unit="MiB", ours="rss", better="less"),
        ],
        warm_up=False,
        rounds=2,
    )
