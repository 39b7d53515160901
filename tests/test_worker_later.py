"""Outcomes that somebody's open transaction holds: asked again until they are written, and never dead letters."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest

from taskharbor import StoreUnavailable
from taskharbor.driver import JobSettle, Store
from taskharbor.job import JobState
from taskharbor.settlement import Settled, Settlement, SettleStatus
from taskharbor.worker import later
from taskharbor.worker.later import Later
from tests.support.work import within
from tests.test_worker_sifting import success

HELD, STALE = Settled(SettleStatus.HELD), Settled(SettleStatus.STALE)
WRITTEN = Settled(SettleStatus.SETTLED, JobState.SUCCEEDED)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(later, "_LONGEST_SECONDS", 0.001)


class World:
    """A store in which some transactions have not ended."""

    def __init__(self) -> None:
        self.held: dict[str, int] = {}
        """Jobs, and how often they are still to be asked for in vain."""
        self.away = False
        self.told: dict[str, Settled] = {}
        self.refused: list[str] = []
        self.later = Later(
            cast("Store", cast("object", self)),
            self.on_settled,
            self._on_refused,
            lambda told: min(2, len(told)),
        )

    async def job_settle(self, request: JobSettle) -> Sequence[Settled]:
        if self.away:
            raise StoreUnavailable("away")
        answers: list[Settled] = []
        for settlement in request.settlements:
            vain = self.held.get(settlement.job_id, 0)
            self.held[settlement.job_id] = vain - 1
            answers.append(HELD if vain > 0 else WRITTEN)
        return answers

    def on_settled(self, settlements: Sequence[Settlement], answers: Sequence[Settled]) -> None:
        pairs = list(zip(settlements, answers, strict=True))
        self.later.add([told for told, answer in pairs if answer is HELD])
        self.told.update((told.job_id, answer) for told, answer in pairs if answer is not HELD)

    def _on_refused(self, settlements: Sequence[Settlement]) -> None:
        self.refused += [settlement.job_id for settlement in settlements]

    def ask(self, *numbers: int) -> None:
        """Ask until each of these was answered or refused."""

        async def work() -> None:
            asking = asyncio.ensure_future(self.later.run())
            self.later.add([success(number) for number in numbers])
            while len(self.told) + len(self.refused) < len(numbers):
                await asyncio.sleep(0)
                assert not asking.done(), asking
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

        asyncio.run(within(work()))


def test_what_is_held_is_asked_again_until_it_is_written(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.held = {"job-1": 20, "job-3": 3}

    world.ask(1, 2, 3)

    assert {"job-1": WRITTEN, "job-2": WRITTEN, "job-3": WRITTEN} == world.told
    (said,) = [record.getMessage() for record in caplog.records]
    assert "1 outcomes wait to be written" in said
    assert "job-1" in said


def test_once_given_up_what_is_held_is_left_to_its_lease() -> None:
    world = World()
    world.held = {"job-1": 1000}
    world.later.give_up()

    world.ask(1, 2)

    assert {"job-1": STALE, "job-2": WRITTEN} == world.told


def test_what_the_store_refuses_is_handed_on() -> None:
    world = World()
    world.away = True

    world.ask(1)

    assert ["job-1"] == world.refused
