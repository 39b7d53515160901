"""Queues that share a worker: how near to their weights they come, what that costs, and what aging does to waiting."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import TypeAlias

from benchmarks.fixtures import IN_FLIGHT, fresh_url, per_second
from benchmarks.measure import Figures, Floor, Measure, Plot, Settings, Theme
from taskharbor import Harbor, Registry, task

_WEIGHTS = {"mail": 6, "rows": 3, "rest": 1}
_WHOLE = sum(_WEIGHTS.values())
_JOBS = 50_000
_WINDOW = 2_000
"""Jobs of which one point of the picture tells the shares."""
_SECONDS = 8
_POINTS = [number / 2 for number in range(1, 2 * _SECONDS + 1)]
_EVERY_SECONDS = 0.05
"""Between two jobs of the lowest priority."""
_AGING = timedelta(seconds=1)
_SHARE = 0.1
_SLOTS = 10
_HANDLER_SECONDS = 0.01
_BACKLOG = 2_000
"""Jobs of the highest priority that are always due."""

Fresh: TypeAlias = Callable[[], AbstractContextManager[str]]
"""Gives the URL of an empty store, removed at the end."""

registry = Registry()
_started: list[str] = []
_waited: list[float] = []
"""When each job of the lowest priority that has started was sent."""


@task(registry=registry, keep_result=False)
async def note(queue: str) -> None:
    """Note the queue of a job that starts."""
    _started.append(queue)


@task(registry=registry, keep_result=False)
async def note_and_work(queue: str) -> None:
    """Note a job that starts, and take so long that the worker is what all wait for."""
    _started.append(queue)
    await asyncio.sleep(_HANDLER_SECONDS)


@task(registry=registry, keep_result=False)
async def note_wait(sent: float) -> None:
    """Note that a job of the lowest priority has come through."""
    _waited.append(sent)


@contextmanager
def theme(settings: Settings) -> Generator[Theme]:
    """Open the theme."""
    with stores(settings) as fresh:
        yield Theme(
            name="shares",
            subjects=[
                lambda: _drained(fresh, settings, "weighted", _WEIGHTS),
                lambda: _drained(fresh, settings, "by priority", None),
                lambda: _flooded(fresh, "aging", _AGING),
                lambda: _flooded(fresh, "strict", None),
            ],
            measures=[
                *(
                    Measure(
                        name=f"share of {queue}, declared {100 * weight / _WHOLE:.0f} %, over {_JOBS:,} jobs",
                        unit="%",
                        ours=queue,
                    )
                    for queue, weight in _WEIGHTS.items()
                ),
                Measure(
                    name="farthest off its share",
                    unit="%",
                    ours="off",
                    better="less",
                    floor=Floor(bound=5, of="figure", at_least=False),
                ),
                Measure(
                    name="drain of three queues by weight : by priority",
                    unit="jobs/s",
                    ours="weighted",
                    ceiling="by priority",
                ),
                *(
                    Measure(
                        name=f"longest wait at priority 9 beside a flood of priority 0, {told}",
                        unit="s",
                        ours=f"{name} longest",
                        better="less",
                    )
                    for name, told in (("strict", "strict"), ("aging", "aging 1s, a tenth"))
                ),
            ],
            plots=[
                Plot(
                    name=f"{settings.driver}-weights",
                    title="Shares of what started, with weights 6, 3 and 1",
                    x="jobs started",
                    y="%",
                    at=[_WINDOW * number for number in range(1, _JOBS // _WINDOW + 1)],
                    lines=[
                        (queue, [f"{queue} {number}" for number in range(_JOBS // _WINDOW)])
                        for queue in _WEIGHTS
                    ],
                ),
                Plot(
                    name=f"{settings.driver}-aging",
                    title="Longest wait at priority 9, while priority 0 always has work",
                    x="seconds",
                    y="s",
                    at=_POINTS,
                    lines=[
                        ("strict", [f"strict {at}" for at in _POINTS]),
                        ("aging 1s, a tenth", [f"aging {at}" for at in _POINTS]),
                    ],
                ),
            ],
            warm_up=False,
            rounds=1,
        )


@contextmanager
def stores(settings: Settings) -> Generator[Fresh]:
    """Give what makes an empty store of the driver under test."""
    if settings.driver == "postgres":
        from benchmarks.postgres.server import bench_server

        with bench_server(settings) as bench:
            yield bench.schema
    else:
        yield lambda: fresh_url(settings)


def _drained(fresh: Fresh, settings: Settings, name: str, weights: Mapping[str, int] | None) -> Figures:
    """Return jobs a second from three queues; with weights also what started, while all of them had jobs."""
    _started.clear()
    spare = 1.1  # so that none runs out before the last job that counts
    calls = [
        note.options(queue=queue, priority=number).s(queue)
        for number, (queue, weight) in enumerate(_WEIGHTS.items())
        for _ in range(int(_JOBS * weight / _WHOLE * spare))
    ]
    with fresh() as url, Harbor(url, registry=registry) as harbor:
        harbor.enqueue_many(calls)
        speed = per_second(
            len(calls),
            lambda: harbor.run_until_idle(concurrency=IN_FLIGHT, queues=list(_WEIGHTS), weights=weights),
            settings.clock,
        )
    if weights is None:
        return {name: speed}
    return {name: speed, **_shares(_started[:_JOBS])}


def _shares(started: list[str]) -> dict[str, float]:
    whole = Counter(started)
    figures = {queue: 100 * whole[queue] / len(started) for queue in _WEIGHTS}
    figures["off"] = max(
        abs(figures[queue] / (100 * weight / _WHOLE) - 1) * 100 for queue, weight in _WEIGHTS.items()
    )
    for number in range(_JOBS // _WINDOW):
        part = Counter(started[number * _WINDOW : (number + 1) * _WINDOW])
        figures |= {f"{queue} {number}": 100 * part[queue] / _WINDOW for queue in _WEIGHTS}
    return figures


def _flooded(fresh: Fresh, name: str, aging: timedelta | None) -> Figures:
    """Return how long the one that has waited longest at priority 9 has waited, at each point in time."""
    _started.clear()
    _waited.clear()
    with fresh() as url, Harbor(url, registry=registry) as harbor:
        with harbor.worker_thread(concurrency=_SLOTS, aging=aging, aging_share=_SHARE):
            flood = _Flood(harbor)
            flood.start()
            try:
                waits = _watched(harbor)
            finally:
                flood.end()
        return {
            f"{name} longest": max(waits),
            **{f"{name} {at}": wait for at, wait in zip(_POINTS, waits, strict=True)},
        }


def _watched(harbor: Harbor) -> list[float]:
    """Send jobs of the lowest priority at a steady rate, and return the longest wait at each point."""
    began, sent, waits = time.monotonic(), list[float](), list[float]()
    pause = threading.Event()
    while len(waits) < len(_POINTS):
        now = time.monotonic()
        sent.append(now)
        note_wait.options(priority=9).enqueue(now)
        if now - began >= _POINTS[len(waits)]:
            through = set(_waited)
            waits.append(now - min((one for one in sent if one not in through), default=now))
        pause.wait(_EVERY_SECONDS)
    return waits


class _Flood(threading.Thread):
    """Keeps jobs of the highest priority due at all times."""

    def __init__(self, harbor: Harbor) -> None:
        super().__init__(name="flood")
        self._harbor = harbor
        self._ended = threading.Event()
        self._full = threading.Event()

    def run(self) -> None:
        """Send as many as have started."""
        calls = [note_and_work.options(priority=0).s("flood") for _ in range(_BACKLOG // 2)]
        sent = 0
        while not self._ended.is_set():
            if sent - len(_started) < _BACKLOG:
                self._harbor.enqueue_many(calls)
                sent += len(calls)
                self._full.set()
            else:
                self._ended.wait(0.005)

    def start(self) -> None:
        """Begin, and return once the flood has."""
        super().start()
        self._full.wait()

    def end(self) -> None:
        """Send no more."""
        self._ended.set()
        self.join()
