"""Batches of outcomes: bounded in bytes; and one outcome that the store refuses for ever stops no other."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import cast

import msgspec
import pytest

from taskharbor import Harbor, JobFailed, JobState, Registry, Retry, StoreUnavailable, Task, task
from taskharbor.driver import JobSettle, Store
from taskharbor.job import AttemptError, Delivery
from taskharbor.outcome import Failed, Outcome, Succeeded
from taskharbor.retry import RetryNumbers
from taskharbor.settlement import REFUSED, Settled, SettleKind, Settlement, SettleStatus
from taskharbor.telemetry import Hub, Tallies
from taskharbor.worker import patience, sifting
from taskharbor.worker.journal import Journal
from taskharbor.worker.patience import Patience
from taskharbor.worker.plan import TaskPlan
from taskharbor.worker.reporting import Reporting
from taskharbor.worker.run import Run
from taskharbor.worker.settling import BATCH_BYTES, Settling
from taskharbor.worker.sight import Sight
from taskharbor.worker.telling import Telling
from tests.support.work import (
    ENOUGH,
    LEASE,
    MS,
    TroubledDriver,
    aeventually,
    eventually,
    fails,
    running,
    states,
)

MB = 1 << 20


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an outcome's fault be clear as soon as there is evidence."""
    monkeypatch.setattr(sifting, "SHORTEST", timedelta(0))
    monkeypatch.setattr(sifting, "_LONGEST_SECONDS", 0.01)


class Refusing(TroubledDriver):
    """A store that is well, but for the outcomes of some jobs, which run into its `statement_timeout`."""

    def __init__(self, *, letters_too: bool = False) -> None:
        super().__init__()
        self.bad: set[str] = set()
        self.refused = 0

        def refuse(verb: str, request: object) -> None:
            if not isinstance(request, JobSettle):
                return
            for settlement in request.settlements:
                if settlement.job_id in self.bad and (letters_too or settlement.kind is not SettleKind.BURY):
                    self.refused += 1
                    raise StoreUnavailable("statement_timeout passed")

        self.before = refuse


def kept_flowing(harbor: Harbor, work: Task[[int], int], done: Callable[[], bool]) -> None:
    """Enqueue one job after the other, each once the one before has succeeded, until `done`."""
    end = time.monotonic() + ENOUGH.total_seconds()
    while not done():
        assert time.monotonic() < end, "it never came true"
        assert 1 == work.enqueue(1).result(ENOUGH)


# --- one that is refused for ever


@pytest.mark.usefixtures("hasty")
def test_an_outcome_that_is_refused_for_ever_stops_no_other() -> None:
    registry, driver = Registry(), Refusing()

    @task(registry=registry)
    async def work(number: int) -> int:
        return number

    with Harbor(driver, registry=registry) as harbor:
        jobs = harbor.enqueue_many([work.s(number) for number in range(100)])
        bad = jobs[41]
        driver.bad = {bad.id}
        with harbor.worker_thread(lease=LEASE) as thread:
            kept_flowing(harbor, work, lambda: bad.status().state is JobState.DEAD)
            counts = thread.worker.counts

        assert {JobState.SUCCEEDED} == {job.status().state for job in jobs if job is not bad}
        assert [] == running(harbor)
        with pytest.raises(JobFailed) as failed:
            bad.result(ENOUGH)
        assert (REFUSED, "taskharbor.OutcomeRefused") == (failed.value.reason, failed.value.error_type)
        assert "statement_timeout passed" in failed.value.error_message
        assert 1 == bad.status().attempt
        assert (1, 0) == (counts.settled["dead"], counts.stale)


@pytest.mark.usefixtures("hasty")
def test_a_job_whose_dead_letter_is_refused_too_runs_again_when_its_lease_expires() -> None:
    """As what cannot be written always did. The worker goes on meanwhile, and forgets it."""
    registry, driver = Registry(), Refusing(letters_too=True)

    @task(registry=registry, retry=Retry(base=0 * MS))
    async def work(number: int) -> int:
        return number

    with Harbor(driver, registry=registry) as harbor:
        bad = work.enqueue(5)
        driver.bad = {bad.id}
        with harbor.worker_thread(lease=LEASE) as thread:
            kept_flowing(harbor, work, lambda: thread.worker.counts.stale == 1)
            driver.bad = set()

            assert 5 == bad.result(ENOUGH)


def test_others_are_settled_at_once_while_one_is_refused() -> None:
    """However long it takes until its fault is clear."""
    registry, driver = Registry(), Refusing()

    @task(registry=registry)
    async def work(number: int) -> int:
        return number

    with Harbor(driver, registry=registry) as harbor:
        bad = work.enqueue(0)
        driver.bad = {bad.id}
        with harbor.worker_thread(lease=LEASE, halt=100 * MS):
            eventually(lambda: driver.refused > 3, "the refusals")
            for number in range(20):
                assert number == work.enqueue(number).result(ENOUGH)
            assert JobState.RUNNING is bad.status().state
            driver.bad = set()

            assert 0 == bad.result(ENOUGH)


def test_it_keeps_its_lease_while_it_is_tried() -> None:
    """So that no other worker runs it beside, and this one does not take it for lost."""
    registry, driver, runs = Registry(), Refusing(), list[int]()

    @task(registry=registry)
    async def work() -> None:
        runs.append(1)

    with Harbor(driver, registry=registry) as harbor, harbor.worker_thread(lease=LEASE) as thread:
        bad = work.options(run_in=20 * MS).enqueue()
        driver.bad = {bad.id}
        eventually(lambda: driver.refused > 3, "the refusals")
        extended = driver.count("lease_extend")
        eventually(lambda: driver.count("lease_extend") > extended + 6, "two leases' time")
        driver.bad = set()
        bad.wait(ENOUGH)

        assert ([1], 0) == (runs, thread.worker.counts.stale)
        assert (JobState.SUCCEEDED, ()) == (bad.status().state, bad.status().errors)


def test_a_worker_with_a_refused_outcome_stops_in_its_time(caplog: pytest.LogCaptureFixture) -> None:
    registry, driver = Registry(), Refusing()

    @task(registry=registry)
    async def work(number: int) -> int:
        return number

    with Harbor(driver, registry=registry) as harbor:
        bad = work.enqueue(0)
        driver.bad = {bad.id}
        with harbor.worker_thread(lease=LEASE, halt=100 * MS):
            eventually(lambda: driver.refused > 3, "the refusals")
            assert 1 == work.enqueue(1).result(ENOUGH)
            began = time.monotonic()
        assert time.monotonic() - began < 10
        assert {"running": 1, "succeeded": 1} == states(harbor)
    assert f"they run again when their leases expire: {bad.id}" in caplog.text


def test_while_the_store_is_away_nothing_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for, and the batch asked whole."""
    monkeypatch.setattr(patience, "_LONGEST_SECONDS", 0.01)
    registry, driver, away = Registry(), TroubledDriver(), threading.Event()

    @task(registry=registry)
    async def work() -> None:
        """Succeed."""

    def outage(verb: str, request: object) -> None:
        if isinstance(request, JobSettle):
            away.set()
        if away.is_set():
            raise StoreUnavailable("away")

    def settles() -> list[int]:
        return [len(request.settlements) for _, request in driver.asked if isinstance(request, JobSettle)]

    with Harbor(driver, registry=registry) as harbor:
        jobs = harbor.enqueue_many([work.s() for _ in range(30)])
        driver.before = outage
        with harbor.worker_thread(lease=LEASE):
            eventually(lambda: len(settles()) > 5, "several refusals")
            first, *others = settles()
            assert {first} == set(others)
            driver.before = fails(0)
            for job in jobs:
                job.wait(ENOUGH)

        assert {"succeeded": 30} == states(harbor)


# --- bytes


def batches_of(outcomes: Sequence[Outcome]) -> list[list[Settlement]]:
    """Return the batches in which the outcomes are written that gathered while a batch was on its way."""
    batches = list[list[Settlement]]()

    class Taking:
        async def job_settle(self, request: JobSettle) -> Sequence[Settled]:
            batches.append(list(request.settlements))
            return [Settled(SettleStatus.SETTLED)] * len(request.settlements)

    def on_settled(batch: Sequence[Settlement], answers: Sequence[Settled]) -> None:
        assert len(batch) == len(answers)

    async def main() -> None:
        sight = Sight(ENOUGH)
        store = cast("Store", cast("object", Taking()))
        telling = Telling(Hub(), Journal(store, worker="me"), Tallies(), worker="me")
        reporting = Reporting(store, telling.progressed, worker="me")
        settling = Settling(store, Patience(sight), sight, "me", on_settled, telling, reporting)
        settling.finish_runs([_ended(f"job-{number}", outcome) for number, outcome in enumerate(outcomes)])
        writing = asyncio.ensure_future(settling.run())
        await aeventually(lambda: settling.pending == 0)
        writing.cancel()

    asyncio.run(main())
    return batches


def _ended(job_id: str, outcome: Outcome) -> Run:
    now = datetime.now(UTC)
    delivery = Delivery(
        job_id, 7, "work", "default", b"{}", "json", 1, 1, 1, RetryNumbers(), None, 5, now, now, None, {}, True,
        False, False, False,
    )  # fmt: skip
    run = Run(delivery, cast("TaskPlan", object()), msgspec.defstruct("Arguments", [])(), None)
    run.outcome = outcome
    return run


@pytest.mark.parametrize(
    ("sizes", "batches"),
    [
        ([5 * MB, 5 * MB, 5 * MB, 0, 11 * MB, 11 * MB, 0, 0, 3 * MB], [4, 1, 4]),
        ([BATCH_BYTES], [1]),
        ([BATCH_BYTES, 1, BATCH_BYTES, BATCH_BYTES], [1, 1, 1, 1]),
        ([1, BATCH_BYTES + 1, 1], [1, 1, 1]),
        ([0] * 10 + [BATCH_BYTES] + [0] * 10, [21]),
        ([1] * 10 + [BATCH_BYTES] + [1] * 2500, [10, 1, 1000, 1000, 500]),
        ([1] * 2500, [1000, 1000, 500]),
    ],
)
def test_a_batch_is_bounded_in_bytes_or_one_outcome_alone(sizes: list[int], batches: list[int]) -> None:
    written = batches_of([Succeeded(bytes(size), "json") for size in sizes])

    assert batches == [len(batch) for batch in written]
    assert sizes == [len(told.result or b"") for batch in written for told in batch]


def test_long_errors_count_as_well() -> None:
    error = AttemptError(attempt=1, type="ValueError", message="m" * 4000, traceback="t" * 16_000)

    written = batches_of([Failed(error)] * 2000)

    most = BATCH_BYTES // 20_000
    assert [most, most, 2000 - 2 * most] == [len(batch) for batch in written]


def test_results_that_are_not_kept_weigh_nothing() -> None:
    assert [1000, 1] == [len(batch) for batch in batches_of([Succeeded(None)] * 1001)]
