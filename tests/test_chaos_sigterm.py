"""SIGTERM under load: nothing stays leased, nothing is lost, nothing runs twice."""

from __future__ import annotations

import signal
import sys
import time
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import pytest

from taskharbor import JobState
from tests.support.chaos import Chaos, chaos_in
from tests.support.chaos_app import append, append_in_thread, endless
from tests.support.chaos_stores import POSTGRES, SQLITE
from tests.support.work import ENOUGH

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")

LEASE = "1m"
"""So long that none expires: what is left leased stays so."""
GRACE_SECONDS = ENOUGH.total_seconds()
# Where, how many processes, and for how long each of how many jobs takes.
DRAINS = [
    pytest.param(SQLITE, 1, 0, 20_000, id="sqlite-single-0"),
    pytest.param(SQLITE, 1, 50, 5_000, id="sqlite-single-50"),
    pytest.param(SQLITE, 3, 0, 20_000, id="sqlite-supervised-0"),
    pytest.param(SQLITE, 3, 50, 5_000, id="sqlite-supervised-50"),
    pytest.param(POSTGRES, 1, 0, 20_000, id="postgresql-single-0"),
    pytest.param(POSTGRES, 1, 50, 5_000, id="postgresql-single-50", marks=pytest.mark.slow),
    pytest.param(POSTGRES, 3, 0, 20_000, id="postgresql-supervised-0", marks=pytest.mark.slow),
    pytest.param(POSTGRES, 3, 50, 5_000, id="postgresql-supervised-50", marks=pytest.mark.slow),
]
FLEETS = [
    pytest.param(SQLITE, 1, id="sqlite-single"),
    pytest.param(SQLITE, 3, id="sqlite-supervised"),
    pytest.param(POSTGRES, 1, id="postgresql-single", marks=pytest.mark.slow),
    pytest.param(POSTGRES, 3, id="postgresql-supervised", marks=pytest.mark.slow),
]


@pytest.fixture
def chaos(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Chaos]:
    with chaos_in(tmp_path, request.param) as made:
        yield made


@pytest.mark.parametrize(("chaos", "processes", "busy_ms", "jobs"), DRAINS, indirect=["chaos"])
def test_a_drain_under_load_ends_what_runs_and_hands_back_the_rest(
    chaos: Chaos, processes: int, busy_ms: int, jobs: int
) -> None:
    """Each job has run once, or not at all."""
    handles = chaos.harbor.enqueue_many(
        [(append_in_thread if number % 2 else append).s(busy_ms) for number in range(jobs)]
    )
    worker = chaos.start_worker("--processes", str(processes), "--grace", f"{GRACE_SECONDS:g}s", lease=LEASE)
    chaos.trail.await_lines(300)

    worker.send(signal.SIGTERM)
    told_at = time.monotonic()
    assert 0 == worker.process.wait(GRACE_SECONDS)

    assert time.monotonic() - told_at < GRACE_SECONDS
    chaos.check_store()
    assert 0 == chaos.count("lease")
    records = chaos.records()
    assert {handle.id for handle in handles} == set(records)
    started = Counter(line.job_id for line in chaos.trail.lines())
    assert {1} == set(started.values())
    for job in records.values():
        wanted = (JobState.SUCCEEDED, 1) if started[job.id] else (JobState.READY, 0)
        assert wanted == (job.state, job.attempt)
        assert (0, ()) == (job.crashes, job.errors)
    assert 0 < len(started) < jobs


@pytest.mark.parametrize(("chaos", "processes"), FLEETS, indirect=["chaos"])
def test_handlers_that_outlast_the_grace_are_handed_back_with_their_attempt(
    chaos: Chaos, processes: int
) -> None:
    """They are cancelled, and ready for another worker."""
    slots = 10
    chaos.harbor.enqueue_many([endless.s() for _ in range(100)])
    worker = chaos.start_worker(
        "--processes", str(processes), "--concurrency", str(slots), "--grace", "100ms", lease=LEASE
    )
    chaos.trail.await_lines(slots * processes)

    chaos.stop(worker)

    chaos.check_store()
    assert 0 == chaos.count("lease")
    assert {(JobState.READY, 0, 0)} == {
        (job.state, job.attempt, job.crashes) for job in chaos.records().values()
    }
