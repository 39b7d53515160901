"""A worker process with nothing to do: processor, the server's too, and memory. And what importing takes."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager

from benchmarks.fixtures import registry
from benchmarks.measure import Figures, Floor, Measure, Settings, Theme
from benchmarks.postgres.server import bench_server
from benchmarks.process import import_time
from benchmarks.workers import processor_seconds, resident_mib, workers
from taskharbor import Harbor

_STARTED_SECONDS = 2.0
_IDLE_SECONDS = 20.0


@contextmanager
def theme(settings: Settings) -> Generator[Theme]:
    """Open the theme."""
    with (
        bench_server(settings) as bench,
        import_time("taskharbor") as ours,
        import_time("taskharbor.drivers.postgres") as drivers,
    ):

        def idling() -> Figures:
            with (
                bench.schema() as url,
                Harbor(url, registry=registry) as harbor,
                workers(harbor, url) as (pid,),
            ):
                time.sleep(_STARTED_SECONDS)  # what a start costs is not what idling costs
                began = [time.monotonic(), processor_seconds(pid), bench.cpu_seconds()]
                time.sleep(_IDLE_SECONDS)
                ended = [time.monotonic(), processor_seconds(pid), bench.cpu_seconds()]
                wall, worker, server = (end - begin for begin, end in zip(began, ended, strict=True))
                return {"cpu": worker / wall * 100, "server": server / wall * 100, "rss": resident_mib(pid)}

        yield Theme(
            name="idle",
            subjects=[idling, lambda: {"import": ours()}, lambda: {"driver": drivers()}],
            measures=[
                Measure(
                    name="idle worker process, CPU",
                    unit="%",
                    ours="cpu",
                    better="less",
                    floor=Floor(bound=1, of="figure", at_least=False),
                ),
                Measure(name="the server beside it, CPU", unit="%", ours="server", better="less"),
                Measure(name="idle worker process, memory", unit="MiB", ours="rss", better="less"),
                Measure(
                    name="import taskharbor",
                    unit="ms",
                    ours="import",
                    better="less",
                    floor=Floor(bound=100, of="figure", at_least=False),
                ),
                Measure(
                    name="import of the driver, psycopg with it", unit="ms", ours="driver", better="less"
                ),
            ],
            warm_up=False,
            rounds=2,
        )
