"""What limits and turns cost, as ratios of a plain drain, and how long the small ones wait beside a giant."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

from benchmarks.fixtures import per_second
from benchmarks.measure import Figures, Floor, Measure, Plot, Settings, Theme
from benchmarks.shares import Fresh, stores
from taskharbor import Harbor, MaxRunning, Registry, Signature, task

_IN_FLIGHT = 500
"""Jobs at once in the one worker, with limits and without: what stands in lines is never held ahead, so that this is
what a reserve takes at most."""
_RUNNING = 1000
_KEYS = 10_000
_EACH = 4
_TENANTS = 1000
_PARKED = 100_000
_SMALL, _OF_EACH, _GIANT = 99, 10, 100_000
_SLOTS = 10
_HANDLER_SECONDS = 0.002

registry = Registry()
_begun: list[tuple[int, float]] = []
"""The tenant of each job that has started, and when."""


@task(registry=registry, keep_result=False)
async def plain(tenant: int) -> None:
    """Do nothing, without any limit."""


@task(registry=registry, keep_result=False, max_running=_RUNNING)
async def limited(tenant: int) -> None:
    """Do nothing, with at most so many at once."""


@task(registry=registry, keep_result=False, max_running=MaxRunning(_EACH, key=lambda args: args.tenant))
async def limited_by_key(tenant: int) -> None:
    """Do nothing, with at most a few of each key at once."""


@task(registry=registry, keep_result=False, fair=lambda args: args.tenant)
async def fair(tenant: int) -> None:
    """Do nothing, in turn."""


@task(registry=registry, keep_result=False, fair=lambda args: args.tenant)
async def work(tenant: int) -> None:
    """Note the start, and take so long that the slots are what all wait for."""
    _begun.append((tenant, time.monotonic()))
    await asyncio.sleep(_HANDLER_SECONDS)


@contextmanager
def theme(settings: Settings) -> Generator[Theme]:
    """Open the theme."""
    jobs = range(settings.jobs)
    with stores(settings) as fresh:
        yield Theme(
            name="limits",
            subjects=[
                _drained(fresh, settings, "plain", lambda: [plain.s(n) for n in jobs]),
                _drained(fresh, settings, "running", lambda: [limited.s(n) for n in jobs]),
                _drained(fresh, settings, "keys", lambda: [limited_by_key.s(n % _KEYS) for n in jobs]),
                _drained(fresh, settings, "tenants", lambda: [fair.s(n % _TENANTS) for n in jobs]),
                _drained(fresh, settings, "beside", lambda: [plain.s(n) for n in jobs], parked=_PARKED),
                _waited(fresh, "equals", _OF_EACH),
                _waited(fresh, "giant", _GIANT),
            ],
            measures=[
                _cost(f"drain with max_running={_RUNNING:,}", "running", 0.7),
                _cost(f"drain with a limit of {_EACH} on each of {_KEYS:,} keys", "keys", 0.5),
                _cost(f"drain of {_TENANTS:,} tenants in turn", "tenants", 0.5),
                _cost(f"plain drain beside {_PARKED:,} jobs that are held back", "beside", 0.9),
                Measure(
                    name=f"until {_SMALL} tenants have had {_OF_EACH} jobs each, beside one with {_GIANT:,}",
                    unit="s",
                    ours="giant",
                    better="less",
                ),
                Measure(
                    name="the same : beside one more with as few",
                    unit="times",
                    ours="giant times",
                    better="less",
                    floor=Floor(bound=1.2, of="figure", at_least=False),
                ),
                Measure(
                    name="jobs started until then : beside one more with as few",
                    unit="times",
                    ours="giant starts",
                    better="less",
                    floor=Floor(bound=1.2, of="figure", at_least=False),
                ),
            ],
            plots=[
                Plot(
                    name=f"{settings.driver}-limits",
                    title="Jobs drained by one worker process, with limits",
                    y="jobs/s",
                    bars=[
                        ("plain", "plain"),
                        (f"max_running={_RUNNING:,}", "running"),
                        (f"{_KEYS:,} keys", "keys"),
                        (f"{_TENANTS:,} tenants", "tenants"),
                        (f"plain, {_PARKED:,} held", "beside"),
                    ],
                )
            ],
            warm_up=False,
        )


def _cost(name: str, ours: str, floor: float) -> Measure:
    return Measure(
        name=f"{name} : plain drain",
        unit="jobs/s",
        ours=ours,
        ceiling="plain",
        floor=Floor(bound=floor, of="ratio"),
    )


def _drained(
    fresh: Fresh,
    settings: Settings,
    name: str,
    calls: Callable[[], Sequence[Signature[None]]],
    parked: int = 0,
) -> Callable[[], Figures]:
    """Return the run of a worker from a full store to an empty one; `parked` jobs of another task are held back."""

    def run() -> Figures:
        with fresh() as url, Harbor(url, registry=registry) as harbor:
            if parked:
                harbor.limits.hold(fair, reason="benchmark")
                harbor.enqueue_many(fair.s(n % _TENANTS) for n in range(parked))
            harbor.enqueue_many(calls())
            return {
                name: per_second(
                    settings.jobs,
                    lambda: harbor.run_until_idle(concurrency=_IN_FLIGHT),
                    settings.clock,
                )
            }

    return run


_among_equals: dict[str, float] = {}


def _waited(fresh: Fresh, name: str, giant: int) -> Callable[[], Figures]:
    """Return the run of a worker with few slots, until all small tenants' jobs have started."""

    def run() -> Figures:
        _begun.clear()
        with fresh() as url, Harbor(url, registry=registry) as harbor:
            harbor.enqueue_many(work.s(0) for _ in range(giant))
            harbor.enqueue_many(work.s(n) for n in range(1, _SMALL + 1) for _ in range(_OF_EACH))
            with harbor.worker_thread(concurrency=_SLOTS) as _:
                while sum(tenant > 0 for tenant, _ in list(_begun)) < _SMALL * _OF_EACH:
                    time.sleep(0.005)
        last = max(number for number, (tenant, _) in enumerate(_begun) if tenant > 0)
        seconds, starts = _begun[last][1] - _begun[0][1], last + 1
        if name == "equals":
            _among_equals.update(seconds=seconds, starts=starts)
        return {
            name: seconds,
            f"{name} times": seconds / _among_equals["seconds"],
            f"{name} starts": starts / _among_equals["starts"],
        }

    return run
