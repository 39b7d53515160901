"""A lone job: how long from its enqueue to its result, with nothing else to do."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from statistics import quantiles

from benchmarks.fixtures import fresh_url, noop, on_own_loop, open_harbor, registry
from benchmarks.measure import Figures, Measure, Settings, Theme
from taskharbor import Harbor

_TRIPS = 500


@contextmanager
def theme(settings: Settings) -> Generator[Theme]:
    """Open the theme."""

    def through_thread() -> Figures:
        with open_harbor(settings) as harbor, harbor.worker_thread():
            times: list[float] = []
            for n in range(_TRIPS):
                began = time.perf_counter()
                noop.enqueue("user@example.com", n).result()
                times.append(time.perf_counter() - began)
        return _figures("thread", times)

    async def main() -> Figures:
        times: list[float] = []
        with fresh_url(settings) as url:
            async with Harbor(url, registry=registry) as harbor, harbor.worker():
                for n in range(_TRIPS):
                    began = time.perf_counter()
                    job = await noop.aenqueue("user@example.com", n)
                    await job.aresult()
                    times.append(time.perf_counter() - began)
        return _figures("loop", times)

    yield Theme(
        name="latency",
        subjects=[through_thread, lambda: on_own_loop(main)],
        measures=[
            Measure(
                name=f"lone job to its result, {told}, {point}",
                unit="ms",
                ours=f"{where} {point}",
                better="less",
            )
            for where, told in (("thread", "through worker_thread"), ("loop", "in one loop"))
            for point in ("p50", "p99")
        ],
    )


def _figures(where: str, seconds: Sequence[float]) -> Figures:
    points = quantiles(seconds, n=100)
    return {f"{where} p50": points[49] * 1000, f"{where} p99": points[98] * 1000}
