"""A lone job between processes: from the call of `enqueue` here to the first line of its handler in a worker there."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager

from benchmarks.app import PIPE_VARIABLE, arrived
from benchmarks.arrivals import Receiver, lone_jobs
from benchmarks.fixtures import fresh_folder, registry
from benchmarks.measure import Figures, Floor, Measure, Settings, Theme
from benchmarks.workers import workers
from taskharbor import Harbor

_JOBS = {"own": 500, "joined": 250}
_LINES = {
    "own": "lone job to another process",
    "own call": "of that, its enqueue",
    "joined": "the same by harbor.using()",
    "joined call": "of that, its transaction",
}
_PROMISED = {"p50": 5.0, "p99": 30.0}


@contextmanager
def theme(settings: Settings) -> Generator[Theme]:
    """Open the theme: one worker process serves all rounds."""
    with fresh_folder(settings) as folder:
        url, pipe = f"sqlite:///{folder / 'bench.db'}", folder / "arrived"
        os.mkfifo(pipe)
        with (
            Harbor(url, registry=registry) as harbor,
            workers(harbor, url, variables={PIPE_VARIABLE: str(pipe)}),
            Receiver(pipe) as receiver,
            closing(sqlite3.connect(folder / "bench.db", isolation_level=None)) as connection,
        ):

            def joined() -> None:
                connection.execute("BEGIN IMMEDIATE")
                with harbor.using(connection):
                    arrived.enqueue()
                connection.execute("COMMIT")

            yield Theme(
                name="pickup",
                subjects=[_subject("own", arrived.enqueue, receiver), _subject("joined", joined, receiver)],
                measures=[
                    Measure(
                        name=f"{told}, {point}",
                        unit="ms",
                        ours=f"{name} {point}",
                        better="less",
                        floor=Floor(bound=bound, of="figure", at_least=False) if name == "own" else None,
                    )
                    for name, told in _LINES.items()
                    for point, bound in _PROMISED.items()
                ],
                warm_up=False,
                rounds=2,
            )


def _subject(name: str, enqueue: Callable[[], object], receiver: Receiver) -> Callable[[], Figures]:
    def run() -> Figures:
        return lone_jobs(name, enqueue, receiver, _JOBS[name])

    return run
