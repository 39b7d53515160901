"""Random flows, run by a worker that fails, crashes and repeats itself at random, come to what Python makes of them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskharbor.driver import Driver
from taskharbor.drivers.memory import MemoryDriver
from taskharbor_conformance.bench import Bench
from tests.support.chaos_stores import POSTGRES, SQLITE, chaos_store
from tests.support.flow_random import Draw, Player, flows

ANY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def play(driver: Driver, draw: Draw) -> None:
    """Run one drawn flow on a store."""

    async def main() -> None:
        async with Bench(driver, lambda: driver) as bench:
            await Player(bench, draw).play(flows(draw))

    asyncio.run(main())


@settings(ANY, max_examples=300)
@given(data=st.data())
def test_a_flow_comes_to_what_python_makes_of_it_on_memory(data: st.DataObject) -> None:
    play(MemoryDriver(), data.draw)


@pytest.mark.parametrize(
    ("kind", "examples"),
    [
        (SQLITE, 40),
        (POSTGRES, 25),
        pytest.param(SQLITE, 500, marks=pytest.mark.slow),
        pytest.param(POSTGRES, 500, marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
    ],
)
def test_a_flow_comes_to_what_python_makes_of_it(kind: str, examples: int, tmp_path: Path) -> None:
    """Every flow on one store: those that ended before are in nobody's way."""
    from taskharbor.drivers import open_driver

    with chaos_store(kind, tmp_path) as store:

        @settings(ANY, max_examples=examples)
        @given(data=st.data())
        def run(data: st.DataObject) -> None:
            driver = open_driver(store.url)
            try:
                play(driver, data.draw)
            finally:
                driver.close()

        run()
