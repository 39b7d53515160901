"""Enqueueing into a file: in bulk, one durable commit each, and many producers who share commits."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from benchmarks.fixtures import fresh_folder, micros_each, noop, on_own_loop, per_second, registry
from benchmarks.measure import Figures, Floor, Measure, Settings, Theme
from benchmarks.sqlite import bare
from taskharbor import Harbor
from taskharbor.drivers.sqlite import SqliteDriver

_PRODUCERS = 100
_THREADS = 8
_SYNCS = 50


@contextmanager
def theme(settings: Settings) -> Generator[Theme]:
    """Open the theme: an empty file is made once, and copied for each run."""
    singles = max(settings.jobs // 20, 1)
    together = max(settings.jobs // 4, _PRODUCERS)
    with fresh_folder(settings) as folder:
        empty = folder / "empty.db"
        SqliteDriver(empty).migrate()
        yield Theme(
            name="enqueue",
            subjects=[
                _statements(settings, empty, "statements, bulk", settings.jobs, batch=settings.jobs),
                _verbs(settings, empty, settings.jobs),
                _ours(settings, empty, "many", settings.jobs, _many),
                _statements(settings, empty, "statements, single", singles, batch=1),
                _ours(settings, empty, "one by one", singles, lambda _, jobs: _one_by_one(jobs)),
                _ours(settings, empty, "concurrent", together, _concurrent),
                _ours(settings, empty, "threads", together, _threads),
                lambda: _syncing(folder),
            ],
            measures=[
                Measure(
                    name="enqueue_many : statements in a loop",
                    unit="jobs/s",
                    ours="many",
                    ceiling="statements, bulk",
                    floor=Floor(bound=0.5, of="ratio"),
                ),
                Measure(
                    name="enqueue_many : encode, and the driver's verb",
                    unit="jobs/s",
                    ours="many",
                    ceiling="verb",
                ),
                *(
                    Measure(
                        name=f"{told} : statements and a commit each",
                        unit="jobs/s",
                        ours=ours,
                        ceiling="statements, single",
                    )
                    for ours, told in (
                        ("one by one", "enqueue, one by one"),
                        ("concurrent", f"aenqueue, {_PRODUCERS} producers"),
                        ("threads", f"enqueue, {_THREADS} threads"),
                    )
                ),
                Measure(name="the disk: write 4 kB and sync", unit="µs", ours="sync", better="less"),
            ],
        )


def _ours(
    settings: Settings, empty: Path, name: str, jobs: int, way: Callable[[Harbor, int], object]
) -> Callable[[], Figures]:
    def run() -> Figures:
        with bare.copied(empty) as copy, Harbor(f"sqlite:///{copy}", registry=registry) as harbor:
            noop.enqueue("user@example.com", 0)  # connects
            return {name: per_second(jobs, lambda: way(harbor, jobs), settings.clock)}

    return run


def _statements(settings: Settings, empty: Path, name: str, jobs: int, batch: int) -> Callable[[], Figures]:
    signatures = [noop.s("user@example.com", n) for n in range(jobs)]
    recorded = bare.record(empty, lambda loop: loop.enqueue(signatures, batch))

    def run() -> Figures:
        with bare.copied(empty) as copy, bare.connected(copy) as connection:
            return {name: per_second(jobs, lambda: bare.replay(connection, recorded), settings.clock)}

    return run


def _verbs(settings: Settings, empty: Path, jobs: int) -> Callable[[], Figures]:
    signatures = [noop.s("user@example.com", n) for n in range(jobs)]

    def run() -> Figures:
        with bare.copied(empty) as copy, bare.connected(copy) as connection:
            loop = bare.Loop(connection)
            return {"verb": per_second(jobs, lambda: loop.enqueue(signatures, jobs), settings.clock)}

    return run


def _many(harbor: Harbor, jobs: int) -> None:
    harbor.enqueue_many(noop.s("user@example.com", n) for n in range(jobs))


def _one_by_one(jobs: int) -> None:
    for n in range(jobs):
        noop.enqueue("user@example.com", n)


def _concurrent(harbor: Harbor, jobs: int) -> None:
    async def produce() -> None:
        for n in range(jobs // _PRODUCERS):
            await noop.aenqueue("user@example.com", n)

    async def main() -> None:
        await asyncio.gather(*[produce() for _ in range(_PRODUCERS)])
        await harbor.aclose()

    on_own_loop(main)


def _threads(harbor: Harbor, jobs: int) -> None:
    harbor.install()  # a thread does not see the `with` of another
    with ThreadPoolExecutor(_THREADS) as pool:
        for done in [pool.submit(_one_by_one, jobs // _THREADS) for _ in range(_THREADS)]:
            done.result()


def _syncing(folder: Path) -> Figures:
    with (folder / "sync").open("wb", buffering=0) as file:

        def write() -> None:
            file.write(bytes(4096))
            os.fsync(file.fileno())

        return {"sync": median(micros_each(1, write, "wall") for _ in range(_SYNCS))}
