"""Enqueueing: in bulk, with keys, one durable commit each, many producers who share commits, callers' transactions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg

from benchmarks.fixtures import noop, on_own_loop, per_second, registry
from benchmarks.measure import Figures, Floor, Measure, Plot, Settings, Theme
from benchmarks.postgres.bare import Bare
from benchmarks.postgres.server import Bench, bench_server
from taskharbor import Harbor

_PRODUCERS = 100
_THREADS = 8
_CALLERS = 16
_ROWS = 2000
"""In one INSERT of the bare producer, as in one of the driver's."""
_BULK = Floor(bound=40_000, of="figure")
_SHARED = Floor(bound=8, of="ratio")


@contextmanager
def theme(settings: Settings) -> Generator[Theme]:
    """Open the theme: each run puts jobs into empty tables."""
    singles = max(settings.jobs // 30, 1)
    together = max(settings.jobs // 3, _PRODUCERS)
    with bench_server(settings) as bench:
        yield Theme(
            name="enqueue",
            subjects=[
                _bare("insert", bench, settings.jobs, lambda bare, jobs: bare.insert(jobs, _ROWS)),
                _bare("copy", bench, settings.jobs, Bare.copy),
                _ours("many", bench, settings.jobs, _many),
                _ours("keyed", bench, settings.jobs, _keyed),
                _bare("inserts", bench, singles, lambda bare, jobs: bare.insert(jobs, 1)),
                _ours("one by one", bench, singles, lambda _, jobs: _one_by_one(jobs)),
                _ours("one producer", bench, singles, lambda harbor, jobs: _concurrent(harbor, jobs, 1)),
                _ours(
                    "producers", bench, together, lambda harbor, jobs: _concurrent(harbor, jobs, _PRODUCERS)
                ),
                _ours("threads", bench, together, _threads),
                _bare("inserts at once", bench, together, _insert_at_once),
                _ours("using", bench, together, lambda harbor, jobs: _using(harbor, bench.conninfo, jobs)),
            ],
            measures=[
                Measure(
                    name=f"enqueue_many : bare INSERT from unnest, {_ROWS:,} rows each",
                    unit="jobs/s",
                    ours="many",
                    ceiling="insert",
                    floor=_BULK,
                ),
                Measure(name="enqueue_many : bare COPY", unit="jobs/s", ours="many", ceiling="copy"),
                Measure(
                    name="enqueue_many, a key each : without", unit="jobs/s", ours="keyed", ceiling="many"
                ),
                Measure(
                    name="enqueue, one by one : bare INSERT and commit",
                    unit="jobs/s",
                    ours="one by one",
                    ceiling="inserts",
                ),
                Measure(
                    name="aenqueue, one producer : bare INSERT and commit",
                    unit="jobs/s",
                    ours="one producer",
                    ceiling="inserts",
                ),
                Measure(
                    name=f"aenqueue, {_PRODUCERS} producers : one",
                    unit="jobs/s",
                    ours="producers",
                    ceiling="one producer",
                    floor=_SHARED,
                ),
                Measure(
                    name=f"enqueue, {_THREADS} threads : one",
                    unit="jobs/s",
                    ours="threads",
                    ceiling="one by one",
                ),
                Measure(
                    name=f"harbor.using, {_CALLERS} connections : bare INSERT and commit on as many",
                    unit="jobs/s",
                    ours="using",
                    ceiling="inserts at once",
                ),
            ],
            plots=[
                Plot(
                    name="postgres-enqueue",
                    title="Durable enqueues a second",
                    y="jobs/s",
                    bars=[
                        ("COPY, bare", "copy"),
                        ("INSERT, bare", "insert"),
                        ("enqueue_many", "many"),
                        ("with keys", "keyed"),
                        (f"{_PRODUCERS} aenqueue", "producers"),
                        (f"{_THREADS} threads", "threads"),
                        ("aenqueue", "one producer"),
                        ("enqueue", "one by one"),
                        ("a commit each, bare", "inserts"),
                    ],
                )
            ],
        )


def _ours(name: str, bench: Bench, jobs: int, way: Callable[[Harbor, int], object]) -> Callable[[], Figures]:
    def run() -> Figures:
        with bench.schema() as url, Harbor(url, registry=registry) as harbor:
            noop.enqueue("user@example.com", 0)  # connects
            bench.steady()
            return {name: per_second(jobs, lambda: way(harbor, jobs), "wall")}

    return run


def _bare(name: str, bench: Bench, jobs: int, way: Callable[[Bare, int], float]) -> Callable[[], Figures]:
    def run() -> Figures:
        with bench.named_schema() as schema:
            bare = Bare(bench.conninfo, schema)
            bare.create()
            bench.steady()
            return {name: jobs / way(bare, jobs)}

    return run


def _many(harbor: Harbor, jobs: int) -> None:
    harbor.enqueue_many(noop.s("user@example.com", n) for n in range(jobs))


def _keyed(harbor: Harbor, jobs: int) -> None:
    harbor.enqueue_many(noop.options(key=f"mail-{n}").s("user@example.com", n) for n in range(jobs))


def _one_by_one(jobs: int) -> None:
    for n in range(jobs):
        noop.enqueue("user@example.com", n)


def _concurrent(harbor: Harbor, jobs: int, producers: int) -> None:
    async def produce() -> None:
        for n in range(jobs // producers):
            await noop.aenqueue("user@example.com", n)

    async def main() -> None:
        await asyncio.gather(*[produce() for _ in range(producers)])
        await harbor.aclose()

    on_own_loop(main)


def _threads(harbor: Harbor, jobs: int) -> None:
    harbor.install()  # a thread does not see the `with` of another
    with ThreadPoolExecutor(_THREADS) as pool:
        for done in [pool.submit(_one_by_one, jobs // _THREADS) for _ in range(_THREADS)]:
            done.result()


def _insert_at_once(bare: Bare, jobs: int) -> float:
    began = time.perf_counter()
    _at_once(lambda: bare.insert(jobs // _CALLERS, 1))
    return time.perf_counter() - began


def _using(harbor: Harbor, conninfo: str, jobs: int) -> None:
    harbor.install()  # as above

    def call() -> None:
        with psycopg.connect(conninfo) as connection:
            for n in range(jobs // _CALLERS):
                with harbor.using(connection):
                    noop.enqueue("user@example.com", n)
                connection.commit()

    _at_once(call)


def _at_once(call: Callable[[], object]) -> None:
    with ThreadPoolExecutor(_CALLERS) as pool:
        for done in [pool.submit(call) for _ in range(_CALLERS)]:
            done.result()
