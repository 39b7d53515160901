"""A lone job between processes: from the call of `enqueue` here to the first line of its handler in a worker there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg

from benchmarks.app import PIPE_VARIABLE, arrived
from benchmarks.arrivals import Receiver, lone_jobs
from benchmarks.fixtures import fresh_folder, registry
from benchmarks.measure import Figures, Floor, Measure, Settings, Theme
from benchmarks.postgres.bare import Bare
from benchmarks.postgres.lone import READY
from benchmarks.postgres.server import Bench, bench_server
from benchmarks.workers import HERE, STOP_SECONDS, workers
from taskharbor import Harbor

_JOBS = 500
_PROMISED = Floor(bound=4, of="figure", at_least=False)
_LINES = {
    "own": ("lone job to another process", "bare"),
    "own call": ("of that, its enqueue", "bare call"),
    "joined": ("the same by harbor.using()", "bare"),
    "joined call": ("of that, its transaction", "bare call"),
}


@contextmanager
def theme(settings: Settings) -> Generator[Theme]:
    """Open the theme: one worker process of each kind serves all rounds."""
    with ExitStack() as stack:
        folder = stack.enter_context(fresh_folder(settings))
        bench = stack.enter_context(bench_server(settings))
        url = stack.enter_context(bench.schema())
        harbor = stack.enter_context(Harbor(url, registry=registry))
        connection = stack.enter_context(psycopg.connect(bench.conninfo, autocommit=True))
        receivers: dict[str, Receiver] = {}
        for who in ("ours", "bare"):
            os.mkfifo(folder / who)
            receivers[who] = stack.enter_context(Receiver(folder / who))
        stack.enter_context(workers(harbor, url, variables={PIPE_VARIABLE: str(folder / "ours")}))
        bare = stack.enter_context(_bare_worker(bench, folder / "bare"))

        def joined() -> None:
            with connection.transaction(), harbor.using(connection):
                arrived.enqueue()

        def subject(name: str, enqueue: Callable[[], object], who: str) -> Callable[[], Figures]:
            return lambda: lone_jobs(name, enqueue, receivers[who], _JOBS)

        yield Theme(
            name="pickup",
            subjects=[
                subject("bare", lambda: bare.notify_one(connection), "bare"),
                subject("own", arrived.enqueue, "ours"),
                subject("joined", joined, "ours"),
            ],
            measures=[
                Measure(
                    name=f"{told}, {point} : bare worker, LISTEN",
                    unit="ms",
                    ours=f"{name} {point}",
                    ceiling=f"{ceiling} {point}",
                    better="less",
                    floor=_PROMISED if (name, point) == ("own", "p50") else None,
                )
                for name, (told, ceiling) in _LINES.items()
                for point in ("p50", "p99")
            ],
            warm_up=False,
            rounds=3,
        )


@contextmanager
def _bare_worker(bench: Bench, pipe: Path) -> Generator[Bare]:
    with bench.named_schema() as schema:
        bare = Bare(bench.conninfo, schema)
        bare.create()
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.postgres.lone", bench.conninfo, schema],
            env={**os.environ, PIPE_VARIABLE: str(pipe)},
            cwd=HERE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            if process.stdout.readline().strip() != READY:
                raise RuntimeError("the bare worker did not start")
            yield bare
        finally:
            process.terminate()
            process.wait(STOP_SECONDS)
