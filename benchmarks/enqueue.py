"""Enqueueing: one by one and in bulk, in both colours, and what the check of each payload costs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager

from benchmarks.fixtures import micros_each, noop, on_own_loop, open_harbor
from benchmarks.measure import Figures, Measure, Settings, Theme
from taskharbor import Harbor

_PRODUCERS = 100
_WAYS = {
    "enqueue": "enqueue, one by one",
    "aenqueue": "aenqueue, one by one",
    "concurrent": f"aenqueue, {_PRODUCERS} producers",
    "many": "enqueue_many",
}


@contextmanager
def theme(settings: Settings) -> Generator[Theme]:
    """Open the theme."""
    ways: dict[str, Callable[[Harbor, int], object]] = {
        "enqueue": _one_by_one,
        "aenqueue": lambda _, jobs: on_own_loop(lambda: _produce(jobs)),
        "concurrent": lambda _, jobs: on_own_loop(lambda: _together(jobs)),
        "many": _many,
    }
    yield Theme(
        name="enqueue",
        subjects=[
            _subject(settings, name, way, check) for name, way in ways.items() for check in (True, False)
        ],
        measures=[
            *(
                Measure(
                    name=f"{told} : unchecked",
                    unit="µs",
                    ours=f"{name} checked",
                    ceiling=f"{name} unchecked",
                    better="less",
                )
                for name, told in _WAYS.items()
            ),
            *(
                Measure(
                    name=f"cost of the check: {told}",
                    unit="µs",
                    ours=f"{name} checked",
                    minus=f"{name} unchecked",
                    better="less",
                )
                for name, told in _WAYS.items()
                if name in ("enqueue", "many")
            ),
        ],
    )


def _subject(
    settings: Settings, name: str, way: Callable[[Harbor, int], object], check: bool
) -> Callable[[], Figures]:
    def run() -> Figures:
        with open_harbor(settings, check=check) as harbor:
            each = micros_each(settings.jobs, lambda: way(harbor, settings.jobs), settings.clock)
        return {f"{name} {'checked' if check else 'unchecked'}": each}

    return run


def _one_by_one(_: Harbor, jobs: int) -> None:
    for n in range(jobs):
        noop.enqueue("user@example.com", n)


def _many(harbor: Harbor, jobs: int) -> None:
    harbor.enqueue_many(noop.s("user@example.com", n) for n in range(jobs))


async def _produce(jobs: int) -> None:
    for n in range(jobs):
        await noop.aenqueue("user@example.com", n)


async def _together(jobs: int) -> None:
    await asyncio.gather(*[_produce(jobs // _PRODUCERS) for _ in range(_PRODUCERS)])
