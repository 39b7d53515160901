"""Workers killed with SIGKILL, by us and by their own jobs: nothing is lost, and nobody else pays for it."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from taskharbor import JobState
from tests.support.chaos import Chaos, chaos_in
from tests.support.chaos_app import append, append_in_thread, neighbour, poison
from tests.support.chaos_stores import POSTGRES, SQLITE, STORES
from tests.support.work import eventually

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")

MAX_ATTEMPTS = 5
LONG = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def chaos(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Chaos]:
    with chaos_in(tmp_path, request.param) as made:
        yield made


def _at_work(chaos: Chaos, pids: set[int]) -> set[int]:
    return pids & chaos.trail.pids()


@pytest.mark.parametrize(
    ("chaos", "jobs", "kills"),
    [
        pytest.param(SQLITE, 400, 10, id="sqlite-five seconds"),
        pytest.param(SQLITE, 2000, 40, id="sqlite-twenty seconds", marks=LONG),
        pytest.param(POSTGRES, 200, 4, id="postgresql-two seconds"),
        pytest.param(POSTGRES, 2000, 40, id="postgresql-twenty seconds", marks=LONG),
    ],
    indirect=["chaos"],
)
def test_every_job_succeeds_though_a_worker_is_killed_each_half_second(
    chaos: Chaos, jobs: int, kills: int
) -> None:
    """Only what a killed worker held runs again, and only after it was killed."""
    chance = random.Random(1)
    busy = [chance.randrange(40, 160) for _ in range(jobs)]
    handles = chaos.harbor.enqueue_many(
        [(append_in_thread if number % 4 == 0 else append).s(ms) for number, ms in enumerate(busy)]
    )
    fleet = [chaos.start_worker("--concurrency", "4") for _ in range(3)]

    killed_at = time.monotonic()
    for _ in range(kills):
        # One that has worked since it was started: to kill the others proves nothing.
        eventually(lambda: bool(_at_work(chaos, {worker.pid for worker in fleet})), "a worker at work")
        time.sleep(max(killed_at + 0.5 - time.monotonic(), 0.0))
        killed_at = time.monotonic()
        victim = chance.choice(sorted(_at_work(chaos, {worker.pid for worker in fleet})))
        place = next(place for place, worker in enumerate(fleet) if worker.pid == victim)
        chaos.kill(fleet[place])
        fleet[place] = chaos.start_worker("--concurrency", "4")
    left_at_last_kill = chaos.count("job")
    chaos.await_all_ended()
    chaos.await_serving(*fleet)  # one that is told to end before it has begun just ends
    chaos.stop(*fleet)

    chaos.check_store()
    chaos.check_nothing_lost(handle.id for handle in handles)
    starts = chaos.trail.lines()
    assert left_at_last_kill > 0
    assert len(starts) > jobs, "no kill has cut a job short"
    assert 0 == chaos.count("lease")


@pytest.mark.parametrize(
    ("chaos", "neighbours"), [(SQLITE, 200), (POSTGRES, 50)], ids=STORES, indirect=["chaos"]
)
def test_a_job_that_kills_its_worker_ends_dead_and_its_neighbours_do_not(
    chaos: Chaos, neighbours: int
) -> None:
    """With `max_attempts + 1` starts at most: the first of them may go unknown."""
    signatures = [neighbour.s(300) for _ in range(neighbours)]
    signatures.insert(20, poison.s())
    handles = chaos.harbor.enqueue_many(signatures)

    supervisor = chaos.start_worker("--processes", "2")
    chaos.await_all_ended()
    chaos.stop(supervisor)

    chaos.check_store()
    records = chaos.records()
    killer = records[handles[20].id]
    assert (JobState.DEAD, MAX_ATTEMPTS) == (killer.state, killer.attempt)
    assert {"taskharbor.WorkerLost"} == {error.type for error in killer.errors}
    starts = chaos.trail.lines()
    assert sum(line.job_id == killer.id for line in starts) <= MAX_ATTEMPTS + 1
    others = [records[handle.id] for handle in handles if handle.id != killer.id]
    assert {JobState.SUCCEEDED} == {job.state for job in others}
    assert 0 == chaos.count("lease")
