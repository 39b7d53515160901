"""Limits while workers are killed and stopped: what ran at once, and when jobs began, by the store's own times."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

from tests.support import limited
from tests.support.limited import Judged
from tests.support.limited_crowd import rehearse

from benchmarks.fixtures import fresh_folder
from benchmarks.measure import Figures, Floor, Measure, Plot, Settings, Theme
from taskharbor.limit import Scope, ScopeKind

_JOBS = 3000
_POINTS = 120
_SCOPES = {
    "task whole, at most 4": Scope(ScopeKind.TASK, limited.WHOLE),
    "key b, at most 2": Scope(ScopeKind.KEY, limited.EACH, "b"),
    "queue second, at most 7": Scope(ScopeKind.QUEUE, "second"),
}
_SPAN_SECONDS = 1.0
"""Of which the first starts of a rate are drawn."""


@contextmanager
def theme(settings: Settings) -> Generator[Theme]:
    """Open the theme."""
    with _seats(settings) as fresh:
        yield Theme(
            name="killed",
            subjects=[lambda: _figures(*fresh())],
            measures=[
                *(
                    Measure(
                        name=f"{told}: leased at the same instant, at the most, over the limit",
                        unit="jobs",
                        ours=f"over {told}",
                        better="less",
                        floor=Floor(bound=0, of="figure", at_least=False),
                    )
                    for told in _SCOPES
                ),
                Measure(
                    name="spans of time with more starts than burst + rate allow",
                    unit="",
                    ours="beyond",
                    better="less",
                    floor=Floor(bound=0, of="figure", at_least=False),
                ),
                Measure(name="processes killed, and as many stopped for a while", unit="", ours="killed"),
            ],
            plots=[
                Plot(
                    name=f"{settings.driver}-limits-running",
                    title="Jobs leased at once, while workers are killed and stopped",
                    x="judged changes, in order",
                    y="jobs",
                    at=[float(point) for point in range(_POINTS)],
                    lines=[(told, [f"{told} {point}" for point in range(_POINTS)]) for told in _SCOPES],
                ),
                Plot(
                    name=f"{settings.driver}-limits-rate",
                    title=f"Jobs begun under a rate of {limited.RATE.limit}/s, burst {limited.RATE.burst}",
                    x="seconds",
                    y="jobs",
                    at=[_SPAN_SECONDS * point / _POINTS for point in range(_POINTS)],
                    lines=[
                        ("burst + t * rate", [f"bound {point}" for point in range(_POINTS)]),
                        ("begun", [f"begun {point}" for point in range(_POINTS)]),
                    ],
                ),
            ],
            warm_up=False,
            rounds=1,
        )


@contextmanager
def _seats(
    settings: Settings,
) -> Generator[Callable[[], tuple[str, Callable[[], None], Callable[[], list[Judged]]]]]:
    """Give what opens a store with a seat for the judge: its URL, how he sits down, and his verdict."""
    if settings.driver == "postgres":
        from benchmarks.postgres.server import bench_server, schema_of

        with bench_server(settings) as bench, bench.schema() as url:
            schema = schema_of(url)
            conninfo = url.partition("?")[0]
            yield lambda: (
                url,
                lambda: limited.seat_postgres(conninfo, schema),
                lambda: limited.verdict_postgres(conninfo, schema),
            )
    else:
        with fresh_folder(settings) as folder:
            path = str(folder / "bench.db")
            yield lambda: (
                f"sqlite:///{path}",
                lambda: limited.seat_sqlite(path),
                lambda: limited.verdict_sqlite(path),
            )


def _figures(url: str, seat: Callable[[], None], verdict: Callable[[], list[Judged]]) -> Figures:
    some, _ = asyncio.run(rehearse(url, _JOBS, seat))
    judged = verdict()
    most = limited.most_running(judged)
    figures = {
        f"over {told}": float(max(most[scope] - (limited.bound(scope) or 0), 0))
        for told, scope in _SCOPES.items()
    }
    figures["beyond"] = float(len(limited.beyond_the_rate(judged)))
    figures["killed"] = float(some.killed)
    return {**figures, **_running(judged), **_begun(judged)}


def _running(judged: Sequence[Judged]) -> dict[str, float]:
    """Return how many were leased at the most within each of so many parts of the trail."""
    running, figures = Counter[Scope](), Counter[str]()
    for number, one in enumerate(judged):
        for scope in limited.gates(one):
            running[scope] += one.change
        point = number * _POINTS // len(judged)
        for told, scope in _SCOPES.items():
            figures[f"{told} {point}"] = max(figures[f"{told} {point}"], running[scope])
    return {name: float(count) for name, count in figures.items()}


def _begun(judged: Sequence[Judged]) -> dict[str, float]:
    """Return how many jobs of one key had begun at each point of the first span, and how many might have."""
    moments = sorted(
        one.at
        for one in judged
        if one.task == limited.RATED and one.part == "x" and one.change > 0 and one.at
    )
    figures: dict[str, float] = {}
    for point in range(_POINTS):
        seconds = _SPAN_SECONDS * point / _POINTS
        figures[f"bound {point}"] = limited.RATE.burst + seconds * limited.RATE.limit
        figures[f"begun {point}"] = float(sum(at <= moments[0] + seconds * 1e6 for at in moments))
    return figures
