"""A lone job between processes: from the call of `enqueue` here to the first line of its handler in a worker there."""

from __future__ import annotations

import os
import random
import select
import sqlite3
import time
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import quantiles

from benchmarks.fixtures import fresh_folder, registry
from benchmarks.measure import Figures, Floor, Measure, Settings, Theme
from benchmarks.sqlite.app import INSTANT, PIPE_VARIABLE, arrived
from benchmarks.sqlite.workers import workers
from taskharbor import Harbor

_JOBS = {"own": 500, "joined": 250}
_BETWEEN_SECONDS = (0.005, 0.055)
"""The worker has nothing to do again; and where it looks for commits at intervals, the next comes anywhere in one."""
_LOST_SECONDS = 30.0
_LINES = {
    "own": "lone job to another process",
    "own commit": "of that, its enqueue",
    "joined": "the same by harbor.using()",
    "joined commit": "of that, its transaction",
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
            _Receiver(pipe) as receiver,
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


def _subject(name: str, enqueue: Callable[[], object], receiver: _Receiver) -> Callable[[], Figures]:
    def run() -> Figures:
        times: list[float] = []
        commits: list[float] = []
        for _ in range(_JOBS[name]):
            time.sleep(random.uniform(*_BETWEEN_SECONDS))
            began = time.monotonic_ns()
            enqueue()
            commits.append((time.monotonic_ns() - began) / 1e6)
            times.append((receiver.next() - began) / 1e6)
        return {**_points(name, times), **_points(f"{name} commit", commits)}

    return run


def _points(name: str, times: list[float]) -> Figures:
    points = quantiles(times, n=100)
    return {f"{name} p50": points[49], f"{name} p99": points[98]}


class _Receiver:
    """Our end of the pipe."""

    def __init__(self, pipe: Path) -> None:
        self._pipe = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)

    def __enter__(self) -> _Receiver:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._pipe)

    def next(self) -> int:
        """Return when the next handler began, by the monotonic clock in nanoseconds."""
        deadline = time.monotonic() + _LOST_SECONDS
        while time.monotonic() < deadline:
            select.select([self._pipe], [], [], _LOST_SECONDS)
            try:
                data = os.read(self._pipe, INSTANT.size)
            except BlockingIOError:
                continue
            if data:
                (instant,) = INSTANT.unpack(data)
                return int(instant)
            time.sleep(0)  # nobody has opened its other end yet
        raise RuntimeError(f"no handler began within {_LOST_SECONDS:g} s")
