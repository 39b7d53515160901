"""Everything killed at once, at any moment: the store is whole, each batch is there or is not, and work goes on."""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.chaos import Chaos, Program, chaos_in
from tests.support.chaos_roles import VERBS_BATCH
from tests.support.chaos_stores import POSTGRES, SQLITE

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="needs POSIX signals, and /proc to see all processes"
)

BATCH = 50
LONG = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def chaos(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Chaos]:
    with chaos_in(tmp_path, request.param) as made:
        yield made


@pytest.mark.parametrize(
    ("chaos", "rounds"),
    [
        pytest.param(SQLITE, 2, id="sqlite-two rounds"),
        pytest.param(SQLITE, 10, id="sqlite-ten rounds", marks=LONG),
        pytest.param(POSTGRES, 10, id="postgresql-ten rounds", marks=LONG),
    ],
    indirect=["chaos"],
)
def test_all_processes_killed_in_mid_work_lose_nothing(chaos: Chaos, rounds: int) -> None:
    """Producer, workers, supervisor: batches that were confirmed are there, the last one wholly or not at all."""
    chance, told = random.Random(2), list[list[str]]()
    for _ in range(rounds):
        chaos.harbor.close()  # nobody at all keeps a file open
        producer = chaos.start_role("producer", BATCH)
        told.append(producer.hear())
        supervisor = chaos.start_worker("--processes", "2")
        chaos.trail.await_lines(len(chaos.trail.lines()) + chance.randrange(100, 500))
        chaos.kill_all(supervisor, producer)
        told += producer.hear_rest()

        chaos.check_store()
    confirmed = {words[1] for words in told if words[0] == "enqueued"}
    asked = {words[1] for words in told}
    batches = Counter(job.meta["batch"] for job in chaos.records().values())
    assert {BATCH} == set(batches.values())
    assert confirmed <= set(batches) <= asked
    assert len(confirmed) >= len(asked) - rounds

    worker = chaos.start_worker("--processes", "2")
    chaos.await_all_ended()
    chaos.stop(worker)

    chaos.check_store()
    chaos.check_nothing_lost(chaos.records())


class Account:
    """What the program of verbs has told, over all its lives."""

    def __init__(self) -> None:
        self.enqueued = set[str]()
        self.settled = set[str]()
        self._pending: tuple[str, list[str]] = ("", [])

    def take(self, words: list[str]) -> None:
        """Take in one line: a verb begins, so the one before it has ended."""
        self._end()
        self._pending = (words[0], words[1:])

    def _end(self) -> None:
        verb, ids = self._pending
        if verb == "enqueue":
            self.enqueued.update(ids)
        elif verb == "settle":
            self.settled.update(ids)

    def check(self, chaos: Chaos) -> None:
        """Check the store after a kill, and learn what became of the verb that was under way."""
        chaos.check_store()
        there, done = chaos.store.ids("job", "history"), chaos.store.ids("history")
        verb, ids = self._pending
        for name, known, found in (("enqueue", self.enqueued, there), ("settle", self.settled, done)):
            unsure = set(ids) if verb == name else set[str]()
            assert known <= found <= known | unsure
            assert found & unsure in (set(), unsure), f"{name} was done by halves"
            known.update(found)
        self._pending = ("", [])


def kill_soon(program: Program, account: Account, chance: random.Random) -> None:
    """Kill it after some verbs, somewhere in the next."""
    for _ in range(chance.randrange(2, 40)):
        account.take(program.hear())
    # Not to wait for anything: to be anywhere in the verb.
    time.sleep(chance.uniform(0, 0.004))
    program.kill()
    for words in program.hear_rest():
        account.take(words)


@pytest.mark.parametrize(
    ("chaos", "kills"),
    [
        pytest.param(SQLITE, 12, id="sqlite-12 kills"),
        pytest.param(SQLITE, 50, id="sqlite-50 kills", marks=LONG),
        pytest.param(POSTGRES, 5, id="postgresql-5 kills"),
        pytest.param(POSTGRES, 50, id="postgresql-50 kills", marks=LONG),
    ],
    indirect=["chaos"],
)
def test_a_process_killed_within_any_verb_leaves_it_done_or_undone(chaos: Chaos, kills: int) -> None:
    """Never by halves, and the store and its leases agree each time."""
    account, chance = Account(), random.Random(3)
    for _ in range(kills):
        program = chaos.start_role("verbs")
        kill_soon(program, account, chance)
        account.check(chaos)
    assert len(account.settled) >= kills * VERBS_BATCH
