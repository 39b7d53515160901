"""Where the time of a drain goes, by thread and room: `python -m benchmarks.rooms [--driver sqlite|postgres] [JOBS]`.

Every millisecond each thread's processor time since the last look is credited to its innermost frame that is ours. What
runs below that (msgspec, SQLite, the event loop's C) counts as that room's; SQL by its statement; what runs with no
frame of ours as the loop's. Sampling leaves the speed nearly as it is, where cProfile makes each Python call several
times dearer.

The main thread looks at itself, in a signal's handler; a thread of its own looks at the others, and would find the main
one mostly where that waits. It reads the kernel's count, and so needs Linux.

PostgreSQL works in processes of its own; of those the processor time of all and the time of each statement are told.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType

import taskharbor
from benchmarks.fixtures import IN_FLIGHT, noop, open_harbor, registry
from benchmarks.measure import Settings
from benchmarks.postgres.server import Bench, bench_server, schema_of
from taskharbor import Harbor
from taskharbor.drivers.postgres.routine import Query as PostgresQuery
from taskharbor.drivers.sqlite.routine import Query

_ROOT = str(Path(taskharbor.__file__).parent)
_LOOP = "event loop and interpreter"
_SECONDS = 0.001
_SQL_SHOWN = 60


def main() -> None:
    """Drain once and print the share of each thread and room."""
    arguments = _parser().parse_args(namespace=_Arguments())
    settings = Settings(driver=arguments.driver, jobs=arguments.jobs, rounds=1, binaries=arguments.server)
    if settings.driver == "postgres":
        _drain_postgres(settings)
        return
    with open_harbor(settings) as harbor:
        harbor.enqueue_many(noop.s("user@example.com", n) for n in range(settings.jobs))
        used = _drain(harbor)
    _print(used, settings.jobs)


def _drain(harbor: Harbor) -> Counter[tuple[str, str]]:
    sampler = _Sampler()
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SECONDS / 2)  # or a busy thread would be looked at when it suits that one
    signal.signal(signal.SIGPROF, sampler.on_tick)
    signal.setitimer(signal.ITIMER_PROF, _SECONDS, _SECONDS)
    sampler.start()
    try:
        harbor.run_until_idle(concurrency=IN_FLIGHT)
    finally:
        sampler.stop()
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.setswitchinterval(before)
    return sampler.used


def _drain_postgres(settings: Settings) -> None:
    jobs = settings.jobs
    with (
        bench_server(settings, shared_preload_libraries="pg_stat_statements") as bench,
        bench.schema() as url,
        Harbor(url, registry=registry) as harbor,
    ):
        bench.rows("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        harbor.enqueue_many(noop.s("user@example.com", n) for n in range(jobs))
        bench.steady(f"{schema_of(url)}.job")
        bench.rows("SELECT pg_stat_statements_reset()")
        before = bench.cpu_seconds()
        used = _drain(harbor)
        server = bench.cpu_seconds() - before
        _print(used, jobs)
        print(
            f"\n{server / jobs * 1e6:.1f} µs of processor time a job in the server; by statement, with its waits:"
        )
        _print_statements(bench, jobs)


def _print_statements(bench: Bench, jobs: int) -> None:
    found = bench.rows(
        """SELECT query, calls, total_exec_time, rows, shared_blks_hit, wal_bytes FROM pg_stat_statements
        ORDER BY total_exec_time DESC LIMIT 8"""
    )
    for query, calls, milliseconds, rows, pages, wal in found:
        print(
            f"{milliseconds / jobs * 1000:8.1f} µs  {calls:5} times, {milliseconds / calls:8.2f} ms and "
            f"{rows / calls:7.1f} rows each; a job {pages / jobs:5.1f} pages, {wal / jobs:5.0f} bytes of log"
            f"\n{'':13}{' '.join(str(query).split())[:_SQL_SHOWN]}"
        )


class _Arguments(argparse.Namespace):
    driver: str
    jobs: int
    server: Path | None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rooms", description="Where a drain's time goes."
    )
    parser.add_argument(
        "--driver", choices=("memory", "sqlite", "postgres"), default="memory", help="the store to drain"
    )
    parser.add_argument(
        "--server", type=Path, metavar="PATH", help="the folder with another PostgreSQL's programs"
    )
    parser.add_argument("jobs", type=int, nargs="?", default=100_000, metavar="JOBS", help="how many")
    return parser


class _Sampler(threading.Thread):
    """Counts nanoseconds of processor time by thread and room."""

    def __init__(self) -> None:
        super().__init__(name="sampler", daemon=True)
        self.used: Counter[tuple[str, str]] = Counter()
        self._seen: dict[int, int] = {}
        self._main_seen = time.thread_time_ns()
        self._stopped = threading.Event()

    def on_tick(self, _: int, frame: FrameType | None) -> None:
        """Credit the main thread."""
        now = time.thread_time_ns()
        self.used["main", _room(frame)] += now - self._main_seen
        self._main_seen = now

    def stop(self) -> None:
        self._stopped.set()
        self.join()

    def run(self) -> None:
        while not self._stopped.wait(_SECONDS):
            frames = sys._current_frames()  # pyright: ignore[reportPrivateUsage] - documented all the same
            for thread in threading.enumerate():
                if thread in (self, threading.main_thread()):
                    continue
                if thread.ident is not None and thread.native_id is not None:
                    self._credit(thread.name, thread.native_id, frames.get(thread.ident))

    def _credit(self, name: str, number: int, frame: FrameType | None) -> None:
        try:
            now = int(Path(f"/proc/self/task/{number}/schedstat").read_text(encoding="ascii").split()[0])
        except OSError:  # it has ended
            return
        before = self._seen.get(number)
        self._seen[number] = now
        if before is not None and now > before:
            self.used[name, _room(frame)] += now - before


def _print(used: Counter[tuple[str, str]], jobs: int) -> None:
    threads: Counter[str] = Counter()
    for (thread, _), nanoseconds in used.items():
        threads[thread] += nanoseconds
    print(f"{used.total() / jobs / 1000:.1f} µs of processor time a job")
    for thread, all_of_it in threads.most_common():
        print(f"\n{all_of_it / used.total():6.1%}  {all_of_it / jobs / 1000:5.1f} µs  {thread}")
        for (name, room), nanoseconds in used.most_common():
            if name == thread and nanoseconds / used.total() >= 0.001:
                print(f"{nanoseconds / used.total():8.1%}  {nanoseconds / jobs / 1000:5.1f} µs    {room}")


def _room(frame: FrameType | None) -> str:
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(_ROOT):
            query = frame.f_locals.get("query") if frame.f_code.co_name in ("carry", "acarry") else None
            if isinstance(query, (Query, PostgresQuery)):
                return " ".join(query.sql.split())[:_SQL_SHOWN]
            room = path.removeprefix(_ROOT).strip("/").removesuffix(".py")
            return _LOOP if room == "worker/own_loop" else room
        frame = frame.f_back
    return _LOOP


if __name__ == "__main__":
    main()
