"""Random flows, run by a worker that fails, crashes and repeats itself at random, come to what Python makes of them."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskharbor.driver import Driver
from taskharbor.drivers import open_driver
from taskharbor.drivers.memory import MemoryDriver
from taskharbor.job import new_job_id
from taskharbor_conformance.bench import Bench
from tests.support.chaos_stores import POSTGRES, SQLITE, PostgresChaos, chaos_store
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
    """Each on a store without any other: one that was given up would be worked on, too."""
    with contextlib.ExitStack() as stack:
        ground = stack.enter_context(chaos_store(kind, tmp_path)) if kind == POSTGRES else None

        @settings(ANY, max_examples=examples)
        @given(data=st.data())
        def run(data: st.DataObject) -> None:
            if isinstance(ground, PostgresChaos):
                ground.ground.empty()
                driver = open_driver(ground.url)
            else:
                driver = open_driver(f"sqlite:///{tmp_path / new_job_id()}.db")
            try:
                play(driver, data.draw)
            finally:
                driver.close()

        run()
