"""Depth: whether a job costs the same beside a million queued, or a million scheduled ahead of it in the order."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from statistics import harmonic_mean

from benchmarks.fixtures import registry
from benchmarks.measure import Figures, Floor, Measure, Plot, Settings, Theme
from benchmarks.postgres.counting import counted, drain_in_stages
from benchmarks.postgres.filling import fill
from benchmarks.postgres.server import Bench, bench_server, clock_of, schema_of
from taskharbor import Harbor

_SHORT = 10_000
_DEEP = 1_000_000
_FLAT = Floor(bound=0.9, of="ratio")
_AHEAD = timedelta(days=30)
_call = counted.options(priority=1)


@contextmanager
def theme(settings: Settings) -> Generator[Theme]:
    """Open the theme: its schemas are filled once and kept."""
    with ExitStack() as stack:
        bench = stack.enter_context(bench_server(settings))
        urls = {name: stack.enter_context(bench.schema()) for name in ("short", "deep", "ahead")}
        for url in urls.values():
            with Harbor(url, registry=registry):
                _call.enqueue("user@example.com", 0)
        fill(bench, schema_of(urls["deep"]), _DEEP)
        fill(bench, schema_of(urls["ahead"]), _DEEP, ahead=_AHEAD, priority=0)
        for name in ("short", "ahead"):
            fill(bench, schema_of(urls[name]), _SHORT)
        yield Theme(
            name="depth",
            subjects=[_subject(settings, bench, name, url) for name, url in urls.items()],
            measures=[
                Measure(
                    name=f"drain with {_DEEP:,} queued : {_SHORT:,}",
                    unit="jobs/s",
                    ours="deep",
                    ceiling="short",
                    floor=_FLAT,
                ),
                Measure(
                    name=f"drain with {_DEEP:,} scheduled ahead at a priority before : none",
                    unit="jobs/s",
                    ours="ahead",
                    ceiling="short",
                    floor=_FLAT,
                ),
            ],
            plots=[
                Plot(
                    name="postgres-depth",
                    title="Draining a queue by what else is in it",
                    y="jobs/s",
                    bars=[
                        (f"{_SHORT:,} queued", "short"),
                        (f"{_DEEP:,} queued", "deep"),
                        (f"{_DEEP:,} scheduled ahead", "ahead"),
                    ],
                )
            ],
        )


def _subject(settings: Settings, bench: Bench, name: str, url: str) -> Callable[[], Figures]:
    """As many jobs are put in as are drained, so that the depth stays."""

    def run() -> Figures:
        with Harbor(url, registry=registry) as harbor:
            harbor.enqueue_many(_call.s("user@example.com", n) for n in range(settings.jobs))
            bench.steady(f"{schema_of(url)}.job")
            return {name: harmonic_mean(drain_in_stages(harbor, settings.jobs, 1, clock_of(settings, bench)))}

    return run
