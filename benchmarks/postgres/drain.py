"""Draining a queue by one worker process, everything kept and durable, beside a bare worker at the same batch sizes."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from benchmarks.fixtures import IN_FLIGHT, noop, noop_in_thread, on_own_loop, registry
from benchmarks.measure import Figures, Floor, Measure, Plot, Settings, Theme
from benchmarks.postgres.bare import Bare
from benchmarks.postgres.server import Bench, bench_server, schema_of
from taskharbor import Harbor, Task

_BATCHES = (200, 500, 1000)
_GONE = 20_000
"""Jobs that have come and gone before statistics are taken of what they left."""
_SHARE = Floor(bound=0.7, of="ratio")
_PROMISED = Floor(bound=15_000, of="figure", where_ceiling=22_000)
_IN_THREADS = Floor(bound=0.4, of="ratio")


@contextmanager
def theme(settings: Settings) -> Generator[Theme]:
    """Open the theme: each run fills a schema of its own."""
    with bench_server(settings) as bench:
        yield Theme(
            name="drain",
            subjects=[
                *(
                    subject
                    for batch in _BATCHES
                    for subject in (
                        _bare(settings, bench, batch),
                        _ours(settings, bench, f"async {batch}", noop, prefetch_for(batch)),
                    )
                ),
                _ours(settings, bench, "async", noop),
                _ours(settings, bench, "threads", noop_in_thread),
                _ours(settings, bench, "stale", noop, stale=True),
            ],
            measures=[
                *(
                    Measure(
                        name=f"drain, about {batch} a batch : bare worker, {batch} a batch",
                        unit="jobs/s",
                        ours=f"async {batch}",
                        ceiling=f"bare {batch}",
                        floor=_SHARE,
                    )
                    for batch in _BATCHES
                ),
                *(
                    Measure(
                        name=f"drain, about {batch} a batch, where the bare worker reaches 22,000",
                        unit="jobs/s",
                        ours=f"async {batch}",
                        ceiling=f"bare {batch}",
                        floor=_PROMISED,
                    )
                    for batch in _BATCHES
                ),
                *(
                    Measure(
                        name=f"its mean batch, asked for {batch}", unit="jobs", ours=f"async {batch} batch"
                    )
                    for batch in _BATCHES
                ),
                *(
                    Measure(
                        name=f"processor time a job, {told}, {batch} a batch : bare",
                        unit="µs",
                        ours=f"async {batch} {who}",
                        ceiling=f"bare {batch} {who}",
                        better="less",
                    )
                    for batch in _BATCHES
                    for who, told in (("worker", "the worker"), ("server", "the server"), ("both", "both"))
                ),
                Measure(
                    name="drain, a worker's own settings : bare worker, 1000 a batch",
                    unit="jobs/s",
                    ours="async",
                    ceiling="bare 1000",
                ),
                Measure(name="its mean batch", unit="jobs", ours="async batch"),
                Measure(
                    name="drain, sync no-op in threads : async",
                    unit="jobs/s",
                    ours="threads",
                    ceiling="async",
                    floor=_IN_THREADS,
                ),
                # A worker that keeps up leaves its table nearly empty, and that is when autovacuum comes.
                Measure(
                    name="drain, statistics from when the table was nearly empty : async",
                    unit="jobs/s",
                    ours="stale",
                    ceiling="async",
                ),
            ],
            plots=[
                Plot(
                    name="postgres-drain",
                    title="Jobs drained by one worker process",
                    y="jobs/s",
                    bars=[
                        *(
                            bar
                            for batch in _BATCHES
                            for bar in (
                                (f"bare, {batch} a batch", f"bare {batch}"),
                                (f"ours, {batch} a batch", f"async {batch}"),
                            )
                        ),
                        ("ours, as it comes", "async"),
                        ("sync handlers", "threads"),
                    ],
                )
            ],
        )


def prefetch_for(batch: int) -> int:
    """Return the `prefetch` with which a busy worker reserves about so many: half of it, and half of the slots."""
    return 2 * batch - IN_FLIGHT


def _ours(
    settings: Settings,
    bench: Bench,
    name: str,
    task: Task[[str, int], int],
    prefetch: int | None = None,
    *,
    stale: bool = False,
) -> Callable[[], Figures]:
    """Return the run of a worker. With `stale`, PostgreSQL last looked at the table when two jobs were in it."""

    def run() -> Figures:
        with bench.schema() as url:
            schema = schema_of(url)
            with Harbor(url, registry=registry) as harbor:
                if stale:
                    _leave_empty(harbor, bench, f"{schema}.job", task)
                harbor.enqueue_many(task.s("user@example.com", n) for n in range(settings.jobs))
                bench.steady(*([] if stale else [f"{schema}.job"]))
                with _Watch(settings, bench) as watch:
                    harbor.run_until_idle(concurrency=IN_FLIGHT, prefetch=prefetch)
            # Connections tell what they did at the latest when they close.
            return {**watch.figures(name), f"{name} batch": settings.jobs / reserves(bench, schema)}

    return run


def _leave_empty(harbor: Harbor, bench: Bench, table: str, task: Task[[str, int], int]) -> None:
    """Leave pages that jobs were in and two jobs, and have PostgreSQL take that down."""
    harbor.enqueue_many(task.s("user@example.com", n) for n in range(_GONE))
    harbor.run_until_idle(concurrency=IN_FLIGHT)
    harbor.enqueue_many(task.s("user@example.com", n) for n in range(2))
    # Should autovacuum look again while the jobs are there, the figure would be of something else.
    bench.rows(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
    bench.rows(f"VACUUM ANALYZE {table}")


def _bare(settings: Settings, bench: Bench, batch: int) -> Callable[[], Figures]:
    name = f"bare {batch}"

    def run() -> Figures:
        with bench.named_schema() as schema:
            bare = Bare(bench.conninfo, schema)
            bare.create()
            bare.insert(settings.jobs)
            bench.steady(bare.table)
            with _Watch(settings, bench) as watch:
                on_own_loop(lambda: bare.drain(settings.jobs, batch))
            return watch.figures(name)

    return run


def reserves(bench: Bench, schema: str) -> int:
    """Return how many reserves took something: each has written a lease."""
    ((leases,),) = bench.rows(
        "SELECT n_tup_ins FROM pg_stat_user_tables WHERE schemaname = %s AND relname = 'lease'", [schema]
    )
    return int(leases)


class _Watch:
    """Times a block by the wall, and by the processor time of this process and of the server's."""

    def __init__(self, settings: Settings, bench: Bench) -> None:
        self._clock = settings.clock
        self._bench = bench
        self._jobs = settings.jobs
        self._spent: list[float] = []

    def __enter__(self) -> _Watch:
        self._began = self._now()
        return self

    def __exit__(self, *_: object) -> None:
        self._spent = [now - began for now, began in zip(self._now(), self._began, strict=True)]

    def _now(self) -> list[float]:
        return [time.perf_counter(), time.process_time(), self._bench.cpu_seconds()]

    def figures(self, name: str) -> Figures:
        """Return jobs a second, and microseconds of processor time a job."""
        wall, worker, server = self._spent
        return {
            name: self._jobs / (wall if self._clock == "wall" else worker + server),
            f"{name} worker": worker / self._jobs * 1e6,
            f"{name} server": server / self._jobs * 1e6,
            f"{name} both": (worker + server) / self._jobs * 1e6,
        }
