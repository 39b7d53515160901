"""Of what an application declared, the last thousand sets are remembered: on every store."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from pathlib import Path

import pytest

from taskharbor.driver import Declared, DeclareStatus, Driver
from taskharbor.driver.declaring import DECLARATIONS
from taskharbor.drivers.memory import MemoryDriver
from taskharbor.drivers.postgres import PostgresDriver
from taskharbor_conformance.bench import Bench
from taskharbor_conformance.timetables import declare
from tests.support.postgres_place import shared_schema
from tests.support.sqlite import driver_on

CURRENT, DECLARED, OUTDATED = DeclareStatus.CURRENT, DeclareStatus.DECLARED, DeclareStatus.OUTDATED


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def driver(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Driver]:
    made: Driver
    if request.param == "memory":
        made = MemoryDriver()
    elif request.param == "sqlite":
        made = driver_on(tmp_path / "jobs.db")
    else:
        schema = shared_schema()
        schema.empty()
        made = PostgresDriver(schema.place)
    yield made
    made.close()


def test_the_last_thousand_declarations_of_an_application_are_remembered(driver: Driver) -> None:
    async def declare_many() -> list[Declared]:
        async with Bench(driver, lambda: driver) as bench:
            await declare(bench, application="other", digest=b"0")
            for number in range(DECLARATIONS + 1):
                await declare(bench, digest=b"%d" % number)
            told = [await declare(bench, digest=digest) for digest in (b"1", b"0")]
            return [*told, await declare(bench, application="other", digest=b"0")]

    kept, forgotten, other = asyncio.run(declare_many())

    assert (OUTDATED, 1001) == (kept.status, kept.generation)
    assert (DECLARED, 1002) == (forgotten.status, forgotten.generation)
    assert (CURRENT, 1) == (other.status, other.generation), "those of others are not counted"
