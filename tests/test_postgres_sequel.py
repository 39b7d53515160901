"""What a success brings with it, where a caller's transaction that goes on holds a key of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from taskharbor.flow import Sequel
from taskharbor.job import new_job_id
from taskharbor.settlement import SettleStatus
from taskharbor_conformance.bench import Bench, new_job, success
from tests.support.chaos_stores import POSTGRES, PostgresChaos, chaos_store

HELD, SETTLED = SettleStatus.HELD, SettleStatus.SETTLED
_TAKE = "INSERT INTO key (task, name, job_id, digest, ttl) VALUES ('mail.send', 'k', %s, '', 0)"


def test_a_success_whose_key_is_being_taken_is_written_later_and_nothing_of_it_is_left_out(
    tmp_path: Path,
) -> None:
    """Others of its batch are written at once, also those that want other keys."""
    free, keyed, other = new_job(), new_job(key="k"), new_job(key="l")

    async def settle(store: PostgresChaos) -> None:
        driver = store.ground.driver()
        try:
            async with Bench(driver, lambda: driver) as bench:
                for _ in range(3):
                    await bench.enqueue()
                brings = [(free, keyed), (other,), ()]
                told = [
                    success(delivery, sequel=Sequel(jobs=jobs))
                    for delivery, jobs in zip(await bench.take(), brings, strict=True)
                ]
                with store.ground.holding(_TAKE, new_job_id()):
                    answers = await bench.answers(*told)
                    assert [HELD, SETTLED, SETTLED] == [answer.status for answer in answers]
                    assert [other.id] == await bench.take_ids()

                (answer,) = await bench.answers(told[0])
                assert SETTLED == answer.status
                assert {free.id, keyed.id} == set(await bench.take_ids())
        finally:
            driver.close()

    with chaos_store(POSTGRES, tmp_path) as store:
        assert isinstance(store, PostgresChaos)
        asyncio.run(settle(store))


def test_a_job_that_somebody_holds_keeps_no_other_outcome_from_being_written(tmp_path: Path) -> None:
    async def settle(store: PostgresChaos) -> None:
        driver = store.ground.driver()
        try:
            async with Bench(driver, lambda: driver) as bench:
                held = await bench.enqueue()
                for _ in range(4):
                    await bench.enqueue()
                told = [success(delivery) for delivery in await bench.take()]
                told[-1] = msgspec.structs.replace(told[-1], sequel=Sequel(jobs=(new_job(key="k"),)))
                with store.ground.holding("SELECT FROM job WHERE id = %s FOR UPDATE", held):
                    answers = await bench.answers(*told)

                assert [held] == [
                    written.job_id
                    for written, answer in zip(told, answers, strict=True)
                    if answer.status is HELD
                ]
                assert 4 == sum(answer.status is SETTLED for answer in answers)
        finally:
            driver.close()

    with chaos_store(POSTGRES, tmp_path) as store:
        assert isinstance(store, PostgresChaos)
        asyncio.run(settle(store))


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
