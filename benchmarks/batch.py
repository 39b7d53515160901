"""Batch handlers beside single ones: the same no-op jobs, drained one to a call and a hundred to a call.

Each run fills two empty stores of one kind alike, and drains both. What a batch saves is a slot, a task on the loop or
a turn in a thread, and a call for each job; what the store does for a job is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import NamedTuple

from benchmarks.fixtures import IN_FLIGHT, fresh_url, per_second, registry
from benchmarks.measure import Clock, Figures, Measure, Settings, Theme
from benchmarks.postgres.server import Bench, bench_server, schema_of
from taskharbor import Batch, Harbor, Signature, task
from taskharbor.middleware import Middleware
from taskharbor.task.layer import Attempt

_JOBS = 20_000
_HUNDRED = Batch(size=100)


class _Nothing(Middleware):
    """A layer that does nothing."""

    def run(self, attempt: Attempt) -> Generator[None]:
        yield


_LAYER = _Nothing()


@task(registry=registry)
async def single(number: int) -> int:
    """Do nothing, on the loop."""
    return number


@task(registry=registry, batch=_HUNDRED)
async def batched(numbers: list[int]) -> list[int | Exception]:
    """Do nothing with a hundred, on the loop."""
    return list(numbers)


@task(registry=registry)
def single_in_thread(number: int) -> int:
    """Do nothing, in a thread."""
    return number


@task(registry=registry, batch=_HUNDRED)
def batched_in_thread(numbers: list[int]) -> list[int | Exception]:
    """Do nothing with a hundred, in a thread."""
    return list(numbers)


@task(registry=registry, middleware=[_LAYER])
async def layered(number: int) -> int:
    """Do nothing, within a layer."""
    return number


@task(registry=registry, middleware=[_LAYER], batch=_HUNDRED)
async def layered_batch(numbers: list[int]) -> list[int | Exception]:
    """Do nothing with a hundred, each within a layer."""
    return list(numbers)


class _Pair(NamedTuple):
    name: str
    single: Callable[[int], Signature[int]]
    batched: Callable[[int], Signature[int]]


_PAIRS = (
    _Pair("async def", single.s, batched.s),
    _Pair("def", single_in_thread.s, batched_in_thread.s),
    _Pair("async def, one layer", layered.s, layered_batch.s),
)


@contextmanager
def theme(settings: Settings) -> Generator[Theme]:
    """Open the theme."""
    jobs = min(settings.jobs, _JOBS)
    with ExitStack() as stack:
        bench = stack.enter_context(bench_server(settings)) if settings.driver == "postgres" else None
        stores = _Stores(settings, bench)
        yield Theme(
            name="batch",
            subjects=[_subject(stores, pair, jobs) for pair in _PAIRS],
            measures=[
                Measure(
                    name=f"{pair.name}: batches of 100 : single jobs",
                    unit="jobs/s",
                    ours=f"{pair.name} batched",
                    ceiling=f"{pair.name} single",
                )
                for pair in _PAIRS
            ],
        )


class _Stores:
    """Where empty stores come from."""

    def __init__(self, settings: Settings, bench: Bench | None) -> None:
        self._settings = settings
        self._bench = bench
        self.clock: Clock = settings.clock

    def fresh(self) -> AbstractContextManager[str]:
        return fresh_url(self._settings) if self._bench is None else self._bench.schema()

    def steady(self, url: str) -> None:
        """Bring one that was filled to where a server at work has it."""
        if self._bench is not None:
            self._bench.steady(f"{schema_of(url)}.job")


def _subject(stores: _Stores, pair: _Pair, jobs: int) -> Callable[[], Figures]:
    def run() -> Figures:
        return {
            f"{pair.name} single": _drained(stores, [pair.single(number) for number in range(jobs)]),
            f"{pair.name} batched": _drained(stores, [pair.batched(number) for number in range(jobs)]),
        }

    return run


def _drained(stores: _Stores, calls: Sequence[Signature[int]]) -> float:
    with stores.fresh() as url, Harbor(url, registry=registry) as harbor:
        harbor.enqueue_many(calls)
        stores.steady(url)

        def drain() -> None:
            counts = harbor.run_until_idle(concurrency=IN_FLIGHT)
            assert counts.settled == {"succeeded": len(calls)}, counts

        return per_second(len(calls), drain, stores.clock)
