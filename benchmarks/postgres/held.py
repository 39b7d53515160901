"""Draining while somebody else's transaction stays open, so that nothing that was settled can be cleared away."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from statistics import harmonic_mean

import psycopg
from psycopg import IsolationLevel

from benchmarks.fixtures import on_own_loop, registry
from benchmarks.measure import Figures, Floor, Measure, Plot, Settings, Theme
from benchmarks.postgres.bare import Bare
from benchmarks.postgres.counting import counted, drain_in_stages
from benchmarks.postgres.filling import fill
from benchmarks.postgres.server import Bench, bench_server, clock_of, schema_of
from taskharbor import Harbor

_JOBS, _LARGE = 300_000, 3_000_000
_STAGES = 20
_BATCH = 500
_SHARES = {"reader": 0.8, "writer": 0.6, "reader large": 0.6}


@contextmanager
def theme(settings: Settings) -> Generator[Theme]:
    """Open the theme: each run fills a schema of its own."""
    holders = {"free": None, "reader": _reading, "writer": _writing}
    with bench_server(settings) as bench:
        subjects = [_subject(settings, bench, name, _JOBS, hold) for name, hold in holders.items()]
        subjects += [
            _bare(settings, bench, name, hold) for name, hold in (("bare", None), ("bare reader", _reading))
        ]
        told = {"reader": "a reading transaction held", "writer": "a writing transaction held"}
        compared = [(f"drain of {_JOBS:,}, {held} : free", name) for name, held in told.items()]
        if settings.large:
            subjects.append(_subject(settings, bench, "reader large", _LARGE, _reading))
            compared.append(
                (f"its last {_LARGE // _STAGES:,} of {_LARGE:,}, a reading one held : free", "reader large")
            )
        yield Theme(
            name="held",
            subjects=subjects,
            measures=[
                Measure(
                    name=f"drain of {_JOBS:,} : bare worker, {_BATCH} a batch",
                    unit="jobs/s",
                    ours="free",
                    ceiling="bare",
                ),
                *(
                    Measure(
                        name=told,
                        unit="jobs/s",
                        ours=f"{name} {_STAGES - 1}" if name == "reader large" else name,
                        ceiling="free",
                        floor=Floor(bound=_SHARES[name], of="ratio"),
                    )
                    for told, name in compared
                ),
                Measure(
                    name="the bare worker, a reading transaction held : free",
                    unit="jobs/s",
                    ours="bare reader",
                    ceiling="bare",
                ),
                *(
                    Measure(
                        name=f"the {nth} fifth of it, {held} : the first",
                        unit="jobs/s",
                        ours=f"{name} fifth {number}",
                        ceiling=f"{name} fifth 0",
                    )
                    for name, held in {"free": "nothing held", **told}.items()
                    for number, nth in ((2, "third"), (4, "last"))
                ),
            ],
            plots=[
                Plot(
                    name=f"postgres-held{suffix}",
                    title=f"Draining {jobs:,} jobs beside an open transaction",
                    x="jobs settled, in thousands",
                    y="jobs/s",
                    at=[jobs / _STAGES * (stage + 1) / 1000 for stage in range(_STAGES)],
                    lines=[(held, [f"{name} {stage}" for stage in range(_STAGES)]) for name, held in shown],
                )
                for suffix, jobs, shown in (
                    ("", _JOBS, [("free", "nothing held"), *told.items()]),
                    *([("-large", _LARGE, [("reader large", told["reader"])])] if settings.large else []),
                )
            ],
            warm_up=False,
            rounds=3,
        )


def _subject(
    settings: Settings,
    bench: Bench,
    name: str,
    jobs: int,
    hold: Callable[[Bench, str], psycopg.Connection] | None,
) -> Callable[[], Figures]:
    def run() -> Figures:
        with bench.schema() as url, Harbor(url, registry=registry) as harbor:
            schema = schema_of(url)
            counted.enqueue("user@example.com", 0)
            fill(bench, schema, jobs - 1)
            bench.steady(f"{schema}.job")
            with _held(bench, hold, schema):
                speeds = drain_in_stages(harbor, jobs, _STAGES, clock_of(settings, bench))
        return _figures(name, speeds)

    return run


def _bare(
    settings: Settings, bench: Bench, name: str, hold: Callable[[Bench, str], psycopg.Connection] | None
) -> Callable[[], Figures]:
    def run() -> Figures:
        with bench.named_schema() as schema:
            bare = Bare(bench.conninfo, schema)
            bare.create()
            bare.insert(_JOBS)
            bench.steady(bare.table)
            with _held(bench, hold, schema):
                return {
                    name: _JOBS / on_own_loop(lambda: bare.drain(_JOBS, _BATCH, clock_of(settings, bench)))
                }

    return run


def _figures(name: str, speeds: list[float]) -> Figures:
    fifths = [harmonic_mean(speeds[n : n + _STAGES // 5]) for n in range(0, _STAGES, _STAGES // 5)]
    return {
        name: harmonic_mean(speeds),
        **{f"{name} {stage}": speed for stage, speed in enumerate(speeds)},
        **{f"{name} fifth {number}": speed for number, speed in enumerate(fifths)},
    }


@contextmanager
def _held(
    bench: Bench, hold: Callable[[Bench, str], psycopg.Connection] | None, schema: str
) -> Generator[None]:
    if hold is None:
        yield
        return
    connection = hold(bench, schema)
    try:
        yield
    finally:
        connection.close()


def _reading(bench: Bench, schema: str) -> psycopg.Connection:
    """Open a transaction that has seen the tables: an analyst's, or a dump's."""
    connection = psycopg.connect(bench.conninfo)
    connection.isolation_level = IsolationLevel.REPEATABLE_READ
    connection.execute("SELECT 1")
    return connection


def _writing(bench: Bench, schema: str) -> psycopg.Connection:
    """Open a transaction that has a number: every snapshot has to know that it is under way."""
    connection = psycopg.connect(bench.conninfo)
    connection.execute("SELECT pg_current_xact_id()")
    return connection
