"""Chords whose workers are killed all the time: every callback gets the whole list, and runs once it is there."""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import pytest

from taskharbor import FlowHandle, FlowState, JobState, chord
from tests.support.chaos import Chaos, chaos_in
from tests.support.chaos_app import callback, member
from tests.support.chaos_stores import POSTGRES, SQLITE, PostgresChaos
from tests.support.work import eventually

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")

LONG = [pytest.mark.slow, pytest.mark.timeout(900)]
WORKERS = 3


@pytest.fixture
def chaos(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Chaos]:
    with chaos_in(tmp_path, request.param) as made:
        yield made


@pytest.mark.parametrize(
    ("chaos", "chords", "members", "kills"),
    [
        pytest.param(SQLITE, 12, 20, 5, id="sqlite-two seconds"),
        pytest.param(POSTGRES, 12, 20, 5, id="postgresql-two seconds"),
        pytest.param(SQLITE, 200, 50, 40, id="sqlite-twenty seconds", marks=LONG),
        pytest.param(POSTGRES, 200, 50, 40, id="postgresql-twenty seconds", marks=LONG),
    ],
    indirect=["chaos"],
)
def test_every_callback_gets_the_whole_list_though_workers_are_killed(
    chaos: Chaos, chords: int, members: int, kills: int
) -> None:
    """One worker each half second, and on PostgreSQL a server process of theirs too; a fifth of the members retry."""
    chance = random.Random(3)
    handles = _enqueue(chaos, chance, chords, members)
    fleet = [chaos.start_worker("--concurrency", "8") for _ in range(WORKERS)]

    killed_at = time.monotonic()
    for _ in range(kills):
        time.sleep(max(killed_at + 0.5 - time.monotonic(), 0.0))
        killed_at = time.monotonic()
        place = chance.randrange(WORKERS)
        chaos.kill(fleet[place])
        _cut_one(chaos, chance)
        fleet[place] = chaos.start_worker("--concurrency", "8")
    chaos.await_all_ended()
    chaos.await_serving(*fleet)
    chaos.stop(*fleet)

    chaos.check_store()
    for number, handle in enumerate(handles):
        assert [[number, index] for index in range(members)] == handle.result()
        status = handle.status()
        assert FlowState.SUCCEEDED is status.flow
        assert {JobState.SUCCEEDED: members + 1} == status.steps
    _check_account(chaos, chords * (members + 1))


def test_a_killed_worker_leaves_a_chord_that_the_next_one_finishes(tmp_path: Path) -> None:
    """The same with a fleet that is killed whole, again and again, until nothing is left."""
    chance = random.Random(4)
    with chaos_in(tmp_path, SQLITE) as chaos:
        handles = _enqueue(chaos, chance, 3, 20)
        for _ in range(3):
            done = chaos.count("history")
            fleet = [chaos.start_worker("--concurrency", "4") for _ in range(2)]
            eventually(lambda done=done: chaos.count("history") > done, "a step is settled")  # type: ignore[misc]
            chaos.kill_all(*fleet)
        worker = chaos.start_worker("--concurrency", "8")
        chaos.await_all_ended()
        chaos.stop(worker)

        for number, handle in enumerate(handles):
            assert [[number, index] for index in range(20)] == handle.result()
        _check_account(chaos, 3 * 21)


def _enqueue(
    chaos: Chaos, chance: random.Random, chords: int, members: int
) -> list[FlowHandle[list[list[int]]]]:
    with chaos.harbor:
        flows = [
            chord([member.s(number, index, chance.randrange(5, 60)) for index in range(members)], callback)
            for number in range(chords)
        ]
        return [flow.enqueue() for flow in flows]


def _cut_one(chaos: Chaos, chance: random.Random) -> None:
    """Have the server end one of the processes that serve the workers."""
    if isinstance(chaos.store, PostgresChaos):
        backends = chaos.store.ground.backends()
        if backends:
            chaos.store.ground.do("SELECT pg_terminate_backend(%s)", chance.choice(backends))


def _check_account(chaos: Chaos, steps: int) -> None:
    """Check that there are just so many steps, each settled once, and nothing is left of what came in for them."""
    records = chaos.records()
    assert steps == len(records)
    assert {JobState.SUCCEEDED} == {record.state for record in records.values()}
    assert (0, 0, 0) == (chaos.count("job"), chaos.count("input"), chaos.count("lease"))
    starts = Counter(line.job_id for line in chaos.trail.lines())
    for record in records.values():
        # Each failure on purpose, or crash, is another start; there is none that nobody accounts for.
        assert 1 <= starts[record.id] <= record.deliveries
        assert record.attempt - 1 == len(record.errors)
