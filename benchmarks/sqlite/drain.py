"""Draining a file by one worker process, beside its own statements in a loop."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.fixtures import IN_FLIGHT, fresh_folder, noop, noop_in_thread, per_second, registry
from benchmarks.measure import Figures, Floor, Measure, Settings, Theme
from benchmarks.sqlite import bare
from taskharbor import Harbor, Signature

_BATCHES = (1000, 200)
_HALF = Floor(bound=0.5, of="ratio")
_PROMISED = Floor(bound=7000, of="figure", where_ceiling=14_000)


@contextmanager
def theme(settings: Settings) -> Generator[Theme]:
    """Open the theme: a file of async jobs and one of sync jobs are filled once, and copied for each run."""
    with fresh_folder(settings) as folder:
        jobs = range(settings.jobs)
        filled = {
            "async": _filled(folder / "async.db", [noop.s("user@example.com", n) for n in jobs]),
            "sync": _filled(folder / "sync.db", [noop_in_thread.s("user@example.com", n) for n in jobs]),
        }
        ceilings = [(f"statements, {batch} a batch", f"statements {batch}") for batch in _BATCHES]
        yield Theme(
            name="drain",
            subjects=[
                *(_statements(settings, filled["async"], batch) for batch in _BATCHES),
                _verbs(settings, filled["async"], _BATCHES[0]),
                *(_worker(settings, path, name) for name, path in filled.items()),
            ],
            measures=[
                *(
                    Measure(
                        name=f"drain, {name} no-op : {ceiling}",
                        unit="jobs/s",
                        ours=name,
                        ceiling=figure,
                        floor=_HALF,
                    )
                    for name in filled
                    for ceiling, figure in ceilings
                ),
                *(
                    Measure(
                        name=f"drain, {name} no-op, where the loop reaches 14,000",
                        unit="jobs/s",
                        ours=name,
                        ceiling=f"statements {_BATCHES[0]}",
                        floor=_PROMISED,
                    )
                    for name in filled
                ),
                *(
                    Measure(
                        name=f"drain, {name} no-op : the driver's verbs, {_BATCHES[0]} a batch",
                        unit="jobs/s",
                        ours=name,
                        ceiling="verbs",
                    )
                    for name in filled
                ),
            ],
        )


def _filled(path: Path, signatures: list[Signature[int]]) -> Path:
    with Harbor(f"sqlite:///{path}", registry=registry) as harbor:
        harbor.enqueue_many(signatures)
    return path


def _worker(settings: Settings, path: Path, name: str) -> Callable[[], Figures]:
    def run() -> Figures:
        with bare.copied(path) as copy, Harbor(f"sqlite:///{copy}", registry=registry) as harbor:
            speed = per_second(
                settings.jobs, lambda: harbor.run_until_idle(concurrency=IN_FLIGHT), settings.clock
            )
        return {name: speed}

    return run


def _statements(settings: Settings, path: Path, batch: int) -> Callable[[], Figures]:
    recorded = bare.record(path, lambda loop: loop.drain(batch))

    def run() -> Figures:
        with bare.copied(path) as copy, bare.connected(copy) as connection:
            speed = per_second(settings.jobs, lambda: bare.replay(connection, recorded), settings.clock)
        return {f"statements {batch}": speed}

    return run


def _verbs(settings: Settings, path: Path, batch: int) -> Callable[[], Figures]:
    def run() -> Figures:
        with bare.copied(path) as copy, bare.connected(copy) as connection:
            loop = bare.Loop(connection)
            return {"verbs": per_second(settings.jobs, lambda: loop.drain(batch), settings.clock)}

    return run
