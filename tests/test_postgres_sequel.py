"""What a success brings with it, where a caller's transaction that goes on holds a key of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from taskharbor.flow import Sequel
from taskharbor.job import new_job_id
from taskharbor_conformance.bench import Bench, new_job, success
from tests.support.chaos_stores import POSTGRES, PostgresChaos, chaos_store

_TAKE = "INSERT INTO key (task, name, job_id, digest, ttl) VALUES ('mail.send', 'k', %s, '', 0)"


def test_a_success_does_not_wait_for_a_key_that_is_being_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is written, with all else that it brings; what has the key is left out, and that is told."""
    free, keyed = new_job(), new_job(key="k")

    async def settle(store: PostgresChaos) -> None:
        driver = store.ground.driver()
        try:
            async with Bench(driver, lambda: driver) as bench:
                asking, other = await bench.enqueue(), await bench.enqueue()
                first, second = await bench.take()
                with store.ground.holding(_TAKE, new_job_id()):
                    await bench.settle(
                        msgspec.structs.replace(success(first), sequel=Sequel(jobs=(keyed,))),
                        msgspec.structs.replace(success(second), sequel=Sequel(jobs=(free,))),
                    )
                assert {asking, other} == {first.id, second.id}
                assert [free.id] == await bench.take_ids()
                assert await bench.enqueue(key="k"), "nothing of it is left"
        finally:
            driver.close()

    with chaos_store(POSTGRES, tmp_path) as store:
        assert isinstance(store, PostgresChaos)
        asyncio.run(settle(store))

    (told,) = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert "mail.send" in told


def test_a_key_that_nobody_holds_is_taken_with_the_success(tmp_path: Path) -> None:
    keyed, again = new_job(key="k"), new_job(key="k")

    async def settle(store: PostgresChaos) -> None:
        driver = store.ground.driver()
        try:
            async with Bench(driver, lambda: driver) as bench:
                for job in (keyed, again):
                    await bench.enqueue()
                    (delivery,) = await bench.take(queues=["default"], limit=1)
                    brings = Sequel(jobs=(msgspec.structs.replace(job, queue="after"),))
                    await bench.settle(msgspec.structs.replace(success(delivery), sequel=brings))

                assert [keyed.id] == await bench.take_ids(queues=["after"])
        finally:
            driver.close()

    with chaos_store(POSTGRES, tmp_path) as store:
        assert isinstance(store, PostgresChaos)
        asyncio.run(settle(store))
