"""Outcomes that a store refuses for ever: found among their neighbours, judged with care, and made dead letters."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from taskharbor.driver import JobGet, JobSettle, Store
from taskharbor.errors import StoreError, StoreUnavailable
from taskharbor.job import AttemptError, JobRecord, JobState
from taskharbor.settlement import REFUSED, Settled, SettleKind, Settlement, SettleStatus
from taskharbor.worker.sifting import ALONE, SHORTEST, Sifting
from tests.support.work import within

Refusal = Callable[[Settlement], Exception | None]
HOUR_SECONDS = 3600.0


def success(number: int, result: bytes = b"1") -> Settlement:
    return Settlement(f"job-{number}", 7, SettleKind.SUCCEED, result=result, codec="json", charge=True)


def retry(number: int) -> Settlement:
    error = AttemptError(attempt=2, type="ValueError", message="bad", traceback="long")
    return Settlement(f"job-{number}", 7, SettleKind.RETRY, after=timedelta(0), error=error, charge=True)


def timed_out(settlement: Settlement) -> StoreUnavailable:
    return StoreUnavailable(f"the statement for {settlement.kind.value} took too long")


def but(*numbers: int) -> Refusal:
    """Refuse the outcomes of these jobs, and take their dead letters."""
    bad = {f"job-{number}" for number in numbers}
    return lambda told: timed_out(told) if told.job_id in bad and told.kind is not SettleKind.BURY else None


class World:
    """A store that refuses what it is told to, and time that only passes while the sifting waits."""

    def __init__(self) -> None:
        self.refusal: Refusal = lambda _: None
        self.away = False
        """It answers nothing at all."""
        self.gone: set[str] = set()
        self.now = 0.0
        self.observed = timedelta(0)
        self.asked: list[list[str]] = []
        self.written: dict[str, Settlement] = {}
        self.left: set[str] = set()
        self.during_pause: Callable[[], None] = lambda: None
        self.sifting = Sifting(
            cast("Store", cast("object", self)),
            self._on_settled,
            worker="me",
            observed=lambda: self.observed,
            monotonic=lambda: self.now,
            pause=self._pause,
        )

    async def job_settle(self, request: JobSettle) -> Sequence[Settled]:
        self.asked.append([settlement.job_id for settlement in request.settlements])
        for settlement in request.settlements:
            error = StoreUnavailable("away") if self.away else self.refusal(settlement)
            if error is not None:
                raise error
        return [Settled(SettleStatus.SETTLED, JobState.SUCCEEDED)] * len(request.settlements)

    async def job_get(self, request: JobGet) -> Sequence[JobRecord | None]:
        if self.away:
            raise StoreUnavailable("away")
        return [None if job_id in self.gone else _record(job_id) for job_id in request.ids]

    def _on_settled(self, settlements: Sequence[Settlement], answers: Sequence[Settled]) -> None:
        for settlement, answer in zip(settlements, answers, strict=True):
            if answer.status is SettleStatus.STALE:
                self.left.add(settlement.job_id)
            else:
                self.written[settlement.job_id] = settlement

    async def _pause(self, seconds: float) -> None:
        self.now += seconds
        self.during_pause()
        await asyncio.sleep(0)

    def others_flow(self) -> None:
        """Have a success of another job written during each pause, as the worker's batches are."""
        self.during_pause = lambda: self.sifting.note_written([success(9999)])

    def sift(self, *batches: list[Settlement], until: Callable[[], bool] | None = None) -> None:
        """Sift until nothing is refused any more, or `until` says so."""

        def ended() -> bool:
            return self.sifting.idle if until is None else until()

        async def work() -> None:
            for batch in batches:
                self.sifting.add(batch)
            sifting = asyncio.ensure_future(self.sifting.run())
            while not ended():
                await asyncio.sleep(0)
                assert not sifting.done(), sifting
            sifting.cancel()
            await asyncio.gather(sifting, return_exceptions=True)

        asyncio.run(within(work()))

    def dead(self) -> set[str]:
        return {job_id for job_id, written in self.written.items() if written.kind is SettleKind.BURY}


def _record(job_id: str) -> JobRecord:
    return JobRecord(
        id=job_id,
        task="mail.send",
        queue="default",
        state=JobState.RUNNING,
        priority=5,
        run_at=datetime.now(UTC),
        enqueued_at=datetime.now(UTC),
        attempt=1,
        max_attempts=5,
        payload=b"{}",
        codec="json",
        fingerprint=1,
    )


# --- finding it


def test_one_among_a_thousand_becomes_a_dead_letter_and_the_others_are_written() -> None:
    world = World()
    world.refusal = but(417)
    world.others_flow()

    world.sift([success(number) for number in range(1000)])

    assert {"job-417"} == world.dead()
    assert 1000 == len(world.written)
    assert set() == world.left


def test_it_is_found_by_halving() -> None:
    world = World()
    world.refusal = but(417)

    world.sift([success(number) for number in range(1000)], until=lambda: len(world.written) == 999)

    # Each of ten rounds asks two halves; one alone may be asked once more before the last others are.
    assert len(world.asked) <= 2 * 11


def test_several_are_found_in_several_batches() -> None:
    world = World()
    bad = [3, 4, 150, 299]
    world.refusal = but(*bad)
    world.others_flow()

    world.sift([success(number) for number in range(100)], [success(number) for number in range(100, 300)])

    assert {f"job-{number}" for number in bad} == world.dead()
    assert 300 == len(world.written)


def test_the_dead_letter_says_what_happened_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.refusal = but(0)
    world.others_flow()

    world.sift([success(0, b"x" * 12_345)])

    letter = world.written["job-0"]
    assert (SettleKind.BURY, REFUSED, True, None) == (
        letter.kind,
        letter.reason,
        letter.charge,
        letter.result,
    )
    assert letter.error is not None
    assert (2, "taskharbor.OutcomeRefused", "me") == (
        letter.error.attempt,
        letter.error.type,
        letter.error.worker,
    )
    assert (
        "it succeeded, and the store refuses to note that with its result of 12,345 bytes: "
        "the statement for succeed took too long"
    ) == letter.error.message
    assert "job job-0 (task 'mail.send') is a dead letter: the store refused its outcome" in caplog.text


def test_it_is_told_once_while_it_is_tried(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.refusal = but(0)
    world.others_flow()

    world.sift([success(0)])

    told = "the store refuses the outcome of job job-0 and takes those of others: the statement for succeed"
    assert 1 == sum(line.startswith(told) for line in caplog.messages)


def test_a_failed_attempt_that_cannot_be_noted_is_a_dead_letter_too() -> None:
    world = World()
    world.refusal = but(0)
    world.during_pause = lambda: world.sifting.note_written([retry(9999)])

    world.sift([retry(0)])

    letter = world.written["job-0"]
    assert SettleKind.BURY is letter.kind
    assert letter.error is not None
    assert "it failed with ValueError, and the store refuses to note that" in letter.error.message


# --- judging it


def test_nothing_is_concluded_while_outcomes_of_all_jobs_are_refused() -> None:
    """A table is locked, or the disk is full: other verbs are answered, and work done must not become dead letters."""
    world = World()
    world.observed = timedelta(days=1)
    world.refusal = lambda told: timed_out(told) if told.kind is SettleKind.SUCCEED else None

    world.sift([success(number) for number in range(20)], until=lambda: world.now > HOUR_SECONDS)
    assert ({}, set()) == (world.written, world.left)
    world.refusal = lambda _: None
    world.sift()

    assert ({SettleKind.SUCCEED}, 20) == (
        {written.kind for written in world.written.values()},
        len(world.written),
    )


def test_outcomes_of_another_kind_are_no_evidence() -> None:
    """What is handed back writes less than a success, and to other tables."""
    world = World()
    world.refusal = but(0)
    released = Settlement("job-9999", 7, SettleKind.RELEASE)
    world.during_pause = lambda: world.sifting.note_written([released])

    world.sift([success(0)], until=lambda: world.now > HOUR_SECONDS)

    assert ({}, set()) == (world.written, world.left)


def test_a_job_that_somebody_holds_a_lock_on_is_waited_for() -> None:
    world = World()
    released_at = SHORTEST.total_seconds() - 6
    world.refusal = lambda told: timed_out(told) if world.now < released_at else None
    world.others_flow()

    world.sift([success(0)])

    assert SettleKind.SUCCEED is world.written["job-0"].kind


def test_an_outage_is_no_verdict_even_if_others_are_written_right_after_it() -> None:
    """The outcome is asked a last time in vain just as the store comes back."""
    world = World()
    world.away = True

    def come_back() -> None:
        if world.now > HOUR_SECONDS:
            world.sifting.note_written([success(9999)])

    world.during_pause = come_back
    world.sift([success(0)], until=lambda: world.now > HOUR_SECONDS + 6)
    world.away = False
    world.sift()

    assert SettleKind.SUCCEED is world.written["job-0"].kind


def test_the_only_outcome_there_is_is_judged_by_how_long_the_store_was_seen() -> None:
    world = World()
    world.refusal = but(0)

    world.sift([success(0)], until=lambda: world.now > HOUR_SECONDS)  # not seen: it is away
    assert ({}, set()) == (world.written, world.left)
    world.observed = ALONE
    world.sift()

    assert {"job-0"} == world.dead()


def test_and_by_how_long_it_was_refused() -> None:
    world = World()
    world.observed = timedelta(days=1)
    world.refusal = but(0)

    world.sift([success(0)])

    assert {"job-0"} == world.dead()
    assert ALONE.total_seconds() <= world.now < ALONE.total_seconds() + 10


def test_others_have_to_be_written_before_several_of_its_refusals() -> None:
    """Once alone may be chance: a store that comes and goes."""
    world = World()
    world.refusal = but(0)
    world.sifting.note_written([success(9998)])
    moments = [60.0, 120.0]

    def now_and_then() -> None:
        if moments and world.now >= moments[0]:
            moments.pop(0)
            world.sifting.note_written([success(9999)])

    world.during_pause = now_and_then

    world.sift([success(0)], until=lambda: world.now > HOUR_SECONDS)

    assert ({}, set()) == (world.written, world.left)


def test_what_is_written_while_it_is_asked_is_no_evidence() -> None:
    """The store may have come back in between: the answer that did not come was of the time before."""
    world = World()

    def refuse(told: Settlement) -> Exception | None:
        if told.kind is SettleKind.SUCCEED:
            world.sifting.note_written([success(9999)])
        return but(0)(told)

    world.refusal = refuse

    world.sift([success(0)], until=lambda: world.now > HOUR_SECONDS)

    assert ({}, set()) == (world.written, world.left)


def test_the_store_may_be_away_just_when_it_is_asked_about_the_job() -> None:
    world = World()
    world.refusal = but(0)
    asked_in_vain = list[str]()

    async def job_get(request: JobGet) -> Sequence[JobRecord | None]:
        asked_in_vain.extend(request.ids)
        if len(asked_in_vain) < 4:
            raise StoreUnavailable("away")
        return [_record("job-0")]

    world.job_get = job_get  # type: ignore[method-assign]
    world.others_flow()

    world.sift([success(0)])

    assert (4, {"job-0"}) == (len(asked_in_vain), world.dead())


# --- when even that is refused


def test_a_job_whose_dead_letter_is_refused_too_is_left_to_its_lease(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    world.refusal = lambda told: timed_out(told) if told.job_id == "job-1" else None
    world.others_flow()

    world.sift([success(number) for number in range(3)])

    assert {"job-1"} == world.left
    assert {"job-0", "job-2"} == set(world.written)
    assert "the outcomes of 1 jobs cannot be written; they run again when their leases expire: job-1" in (
        caplog.text
    )


def test_a_job_that_is_handed_back_gets_no_dead_letter() -> None:
    """It did not run, and it runs again when its lease expires."""
    world = World()
    world.refusal = but(0)
    released = Settlement("job-9999", 7, SettleKind.RELEASE)
    world.during_pause = lambda: world.sifting.note_written([released])

    world.sift([Settlement("job-0", 7, SettleKind.RELEASE)])

    assert ({}, {"job-0"}) == (world.written, world.left)


def test_a_job_that_was_deleted_meanwhile_is_left() -> None:
    world = World()
    world.refusal = but(0)
    world.gone = {"job-0"}
    world.others_flow()

    world.sift([success(0)])

    assert ({}, {"job-0"}) == (world.written, world.left)


def test_what_the_store_says_it_never_takes_is_a_dead_letter_at_once() -> None:
    """A gigabyte, for example: that is no outage."""
    world = World()

    def too_large(told: Settlement) -> Exception | None:
        return StoreError("does not take this") if told.job_id == "job-1" and told.result else None

    world.refusal = too_large

    world.sift([success(number) for number in range(3)])

    assert ({"job-1"}, 3, 0.0) == (world.dead(), len(world.written), world.now)


def test_a_bug_of_the_drivers_says_nothing_about_the_job(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.refusal = lambda told: RuntimeError("a bug") if told.job_id == "job-1" and told.result else None

    world.sift([success(number) for number in range(3)])

    assert ({"job-1"}, {"job-0", "job-2"}) == (world.left, set(world.written))
    assert "RuntimeError: a bug" in caplog.text


@pytest.mark.parametrize("away", [True, False], ids=["away", "there"])
def test_once_given_up_each_is_asked_once_more(away: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world = World()
    world.refusal = but(1)
    world.away = away
    world.sifting.give_up()

    world.sift([success(0)], [success(1)], [success(2), success(3)])

    assert [["job-0"], ["job-1"], ["job-2", "job-3"]] == world.asked
    assert world.left == ({"job-0", "job-1", "job-2", "job-3"} if away else {"job-1"})
    assert 0.0 == world.now
