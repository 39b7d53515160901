"""Rules of leases and cancels that the conformance suite does not try yet; they hold for every driver."""

from __future__ import annotations

from pathlib import Path

from taskharbor.job import JobState
from taskharbor_conformance.bench import LEASE, Bench, failure, release, success
from tests.support.sqlite import with_bench


def test_the_reclaim_of_an_old_lease_leaves_a_job_that_came_back_and_was_reserved_anew(
    tmp_path: Path,
) -> None:
    async def work(bench: Bench) -> tuple[list[str], list[str], list[JobState | None]]:
        stays, returns = [await bench.enqueue() for _ in range(2)]
        taken = {delivery.id: delivery for delivery in await bench.take()}
        bench.advance(LEASE / 2)
        await bench.settle(failure(taken[returns]))
        again = await bench.take_one()
        bench.advance(LEASE * 3 / 4)  # the first lease has expired, the second has not
        reclaimed = [each.job_id for each in await bench.reclaim()]
        return reclaimed, [stays], await bench.settle(success(again))

    reclaimed, expected, states = with_bench(tmp_path / "jobs.db", work)

    assert expected == reclaimed
    assert [JobState.SUCCEEDED] == states


def test_the_first_reason_of_a_pending_cancel_stands(tmp_path: Path) -> None:
    async def work(bench: Bench) -> tuple[list[str], str]:
        job_id = await bench.enqueue()
        delivery = await bench.take_one()
        await bench.cancel(job_id, reason="first")
        await bench.cancel(job_id, reason="second")
        told = [cancel.reason for cancel in (await bench.extend(delivery)).cancels]
        await bench.settle(release(delivery))
        return told, (await bench.record(job_id)).reason

    assert (["first"], "first") == with_bench(tmp_path / "jobs.db", work)
