"""Workers and producers whose clocks are wrong by days, both ways: the server's clock decides, and no harm is done."""

from __future__ import annotations

import sys
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path

import pytest

pytest.importorskip("psycopg", reason="needs the extra `postgres`")

from taskharbor import JobState
from tests.support.chaos import Chaos, chaos_in
from tests.support.chaos_app import append, append_in_thread
from tests.support.chaos_stores import POSTGRES
from tests.support.work import SECOND, eventually

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals"),
    pytest.mark.slow,
]

FAST, SLOW = timedelta(days=3), timedelta(days=-3)


@pytest.fixture
def chaos(tmp_path: Path) -> Generator[Chaos]:
    with chaos_in(tmp_path, POSTGRES) as made:
        yield made


def test_clocks_that_are_days_off_do_no_harm(chaos: Chaos) -> None:
    """No job is early, late, lost or run twice; and who was killed is known to be dead."""
    harbor = chaos.harbor
    told = chaos.folder / "told"
    told.touch()
    now = harbor.enqueue_many([(append, append_in_thread)[n % 2].s(1) for n in range(100)])
    later = harbor.enqueue_many([append.options(run_in=SECOND).s() for _ in range(10)])
    workers = [chaos.start_worker("--concurrency", "5", skew=skew) for skew in (FAST, SLOW)]
    producers = [chaos.start_role("steady", told, skew=skew) for skew in (FAST, SLOW)]
    eventually(lambda: told.read_bytes().count(b" stored ") >= 40, "calls of both producers")
    for producer in producers:
        producer.kill()
    chaos.await_all_ended()

    records = chaos.records()
    assert {(JobState.SUCCEEDED, 1, 1)} == {
        (job.state, job.attempt, job.deliveries) for job in records.values()
    }
    starts = [line.job_id for line in chaos.trail.lines()]
    assert sorted(starts) == sorted(records)
    assert b" failed " not in told.read_bytes()
    for handle in later:
        job = records[handle.id]
        assert job.finished_at is not None
        assert timedelta(seconds=1) <= job.finished_at - job.enqueued_at < timedelta(minutes=1)
    assert {handle.id for handle in now} <= set(records)

    (long,) = harbor.enqueue_many([append.s(2000)])
    eventually(lambda: chaos.trail.lines()[-1].job_id == long.id, "its start")
    victim = next(worker for worker in workers if worker.pid == chaos.trail.lines()[-1].pid)
    # Its start has to be known, or another worker could not tell that it was an attempt.
    eventually(lambda: bool(chaos.harbor.look(long.id).started), "the word of its start")
    chaos.kill(victim)
    chaos.await_all_ended()
    job = chaos.records()[long.id]
    assert (JobState.SUCCEEDED, 2, ["taskharbor.WorkerLost"]) == (
        job.state, job.attempt, [error.type for error in job.errors]
    )  # fmt: skip
    chaos.stop(*(worker for worker in workers if worker is not victim))
    chaos.check_store()
