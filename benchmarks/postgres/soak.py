"""Minutes of a steady load: whether tables, indexes and dead rows stay as they are.

Jobs come and go at the same rate, so what is live is small, and the history grows, by as much for each job. Vacuum
comes when PostgreSQL's own autovacuum sends it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from benchmarks.fixtures import noop, registry
from benchmarks.measure import Figures, Floor, Measure, Plot, Settings, Theme
from benchmarks.postgres.server import Bench, bench_server, schema_of
from benchmarks.workers import processor_seconds, resident_mib, workers
from taskharbor import Harbor

_RATE = 2000
"""Jobs a second."""
_EACH_SECONDS = 0.1
_BEHIND_SECONDS = 5
"""Of the load, at most, may wait; a worker that keeps up has a few tenths of a second of it."""
_SAMPLES = 60
_SIZES = """SELECT (SELECT sum(n_dead_tup) FROM pg_stat_user_tables WHERE schemaname = %(schema)s
        AND relname IN ('job', 'lease')),
    pg_relation_size(%(job)s) / 1048576.0, pg_relation_size(%(job)s || '_pkey') / 1048576.0,
    pg_relation_size(%(job)s || '_ready') / 1048576.0,
    pg_total_relation_size(%(lease)s) / 1048576.0, (SELECT count(*) FROM {schema}.job),
    (SELECT sum(pg_total_relation_size(inhrelid)) / 1048576.0 FROM pg_inherits
        WHERE inhparent = %(history)s::regclass)"""
_WHAT = ("dead", "table", "pkey", "ready", "leases", "waiting", "history")
_TOLD = {
    "dead": "dead rows of jobs and leases",
    "table": "the table of jobs",
    "pkey": "its primary key",
    "ready": "its index of what is ready",
    "leases": "leases, with their indexes",
    "memory": "memory of the worker",
}
_UNITS = {"dead": "rows"}
_FLAT = Floor(bound=0.8, of="ratio")


@contextmanager
def theme(settings: Settings) -> Generator[Theme]:
    """Open the theme: one run is all there is."""
    at = [settings.minutes * (number + 1) / _SAMPLES for number in range(_SAMPLES)]
    with bench_server(settings) as bench:
        yield Theme(
            name="soak",
            subjects=[_subject(settings, bench)],
            measures=[
                Measure(
                    name=f"worked off, of {_RATE:,} a second",
                    unit="jobs/s",
                    ours="rate",
                    floor=Floor(bound=_RATE * 0.98, of="figure"),
                ),
                # The mean rate says nothing of a worker that stood still for a minute and then caught up.
                Measure(
                    name="most that waited at once",
                    unit="jobs",
                    ours="waiting most",
                    better="less",
                    floor=Floor(bound=_RATE * _BEHIND_SECONDS, of="figure", at_least=False),
                ),
                *(
                    Measure(
                        name=f"{told}, most in the second half : in the first",
                        unit=_UNITS.get(name, "MiB"),
                        ours=f"{name} late",
                        ceiling=f"{name} early",
                        better="less",
                        floor=_FLAT,
                    )
                    for name, told in _TOLD.items()
                ),
                *(
                    Measure(
                        name=f"{told}, most in the last fifth : in the one before the middle",
                        unit=_UNITS.get(name, "MiB"),
                        ours=f"{name} end",
                        ceiling=f"{name} middle",
                        better="less",
                    )
                    for name, told in _TOLD.items()
                ),
                Measure(name="history, a job", unit="bytes", ours="history each", better="less"),
                Measure(name="processor time a job, the worker", unit="µs", ours="worker", better="less"),
                Measure(name="processor time a job, the server", unit="µs", ours="server", better="less"),
            ],
            plots=[
                Plot(
                    name=f"postgres-soak-{name}",
                    title=f"{settings.minutes:g} minutes at {_RATE:,} jobs a second: {title}",
                    x="minutes",
                    y=unit,
                    at=at,
                    lines=[
                        (_TOLD.get(line, line), [f"{line} {number}" for number in range(_SAMPLES)])
                        for line in lines
                    ],
                )
                for name, title, unit, lines in (
                    ("dead", "dead rows", "rows", ["dead"]),
                    ("waiting", "jobs not settled yet", "jobs", ["waiting"]),
                    ("sizes", "sizes", "MiB", ["table", "pkey", "ready", "leases"]),
                )
            ],
            warm_up=False,
            rounds=1,
        )


def _subject(settings: Settings, bench: Bench) -> Callable[[], Figures]:
    def run() -> Figures:
        seconds = settings.minutes * 60
        samples: dict[str, list[float]] = {name: [] for name in (*_WHAT, "memory")}
        with (
            bench.schema() as url,
            Harbor(url, registry=registry) as harbor,
            workers(harbor, url) as (pid,),
            _producing(harbor) as produced,
        ):
            began, worker, server = time.monotonic(), processor_seconds(pid), bench.cpu_seconds()
            for number in range(_SAMPLES):
                time.sleep(max(began + seconds * (number + 1) / _SAMPLES - time.monotonic(), 0))
                for name, value in zip(_WHAT, _sizes(bench, schema_of(url)), strict=True):
                    samples[name].append(value)
                samples["memory"].append(resident_mib(pid))
            took, done = time.monotonic() - began, produced() - samples["waiting"][-1]
            spent = {"worker": processor_seconds(pid) - worker, "server": bench.cpu_seconds() - server}
        half, fifth = _SAMPLES // 2, _SAMPLES // 5
        figures = {"rate": done / took, "waiting most": max(samples["waiting"])}
        figures |= {"history each": samples["history"][-1] * 2**20 / done}
        figures |= {name: value / done * 1e6 for name, value in spent.items()}
        for name, values in samples.items():
            figures |= {f"{name} {number}": value for number, value in enumerate(values)}
            figures |= {f"{name} early": max(values[:half]), f"{name} late": max(values[half:])}
            # The most of a half says little of where it is heading.
            figures |= {
                f"{name} middle": max(values[half - fifth : half]),
                f"{name} end": max(values[-fifth:]),
            }
        return figures

    return run


def _sizes(bench: Bench, schema: str) -> list[float]:
    named = {name: f"{schema}.{name}" for name in ("job", "lease", "history")}
    (row,) = bench.rows(_SIZES.replace("{schema}", schema), {"schema": schema, **named})
    return [float(value or 0) for value in row]


@contextmanager
def _producing(harbor: Harbor) -> Generator[Callable[[], int]]:
    """Enqueue jobs at the rate from a thread, and give a function that tells how many there were."""
    stop, count = threading.Event(), 0

    def produce() -> None:
        nonlocal count
        began = time.monotonic()
        while not stop.is_set():
            owed = int((time.monotonic() - began) * _RATE) - count
            if owed > 0:
                harbor.enqueue_many([noop.s("user@example.com", n) for n in range(owed)])
                count += owed
            stop.wait(_EACH_SECONDS)

    thread = threading.Thread(target=produce, name="producer")
    thread.start()
    try:
        yield lambda: count
    finally:
        stop.set()
        thread.join()
