"""Aged reserve on PostgreSQL: with others in the way no elder is lost or taken twice, and marks move rightly after it.

What the order is, is the conformance suite's; how much is read for it, `test_postgres_plans` looks at.
"""

from __future__ import annotations

import random
from collections.abc import Generator
from datetime import timedelta

import pytest

from taskharbor.driver import AgedTake
from taskharbor.drivers.postgres.marks import Lane
from taskharbor.drivers.postgres.rows import NORMAL
from taskharbor.job import new_token
from taskharbor_conformance.bench import new_job
from tests.support.postgres_place import shared_schema
from tests.support.postgres_walk import Held, Meeting, Party, meeting
from tests.test_postgres_reserve_at_random import Story

AT_ONCE = timedelta(0)
"""Of those that were due when the scan begins all are too old."""
LAST = Lane(9, NORMAL, "default", 0)


@pytest.fixture
def there() -> Generator[Meeting]:
    with meeting(shared_schema()) as met:
        yield met


def aged(limit: int, after: timedelta = AT_ONCE) -> AgedTake:
    return AgedTake(after, limit)


def put_last(party: Party, count: int) -> list[str]:
    """Enqueue so many jobs of the last priority, in order of their turn."""
    return [job_id for _ in range(count) for job_id in party.put(new_job(priority=9))]


def test_what_elders_were_taken_of_a_lane_is_not_read_again(there: Meeting) -> None:
    producer, worker = there.party(), there.taker()
    elders = put_last(producer, 4)
    fresh = producer.put_some(20)

    assert [elders[0], *fresh[:2]] == there.take(worker, 3, aged=aged(1))
    worker.walker.marks.begin([LAST])
    assert elders[0] == worker.walker.marks.start(LAST)[1]
    assert [elders[1], *fresh[2:4]] == there.take(worker, 3, aged=aged(1))
    assert [*fresh[4:], *elders[2:]] == there.take(worker)


def test_an_elder_that_commits_late_is_found(there: Meeting) -> None:
    slow, quick, worker = there.party(), there.party(), there.taker()
    there.take(worker, aged=aged(1))
    slow.begin()
    (late,) = put_last(slow, 1)  # 1.
    later = put_last(quick, 2)  # 2.
    fresh = quick.put_some(3)
    assert [later[0], fresh[0]] == there.take(worker, 2, aged=aged(1))  # 3.
    slow.commit()  # 4.

    assert [late, fresh[1]] == there.take(worker, 2, aged=aged(1))


def test_elders_that_somebody_locks_are_passed_over_and_found_later(there: Meeting) -> None:
    producer, someone, worker = there.party(), there.party(), there.taker()
    elders = put_last(producer, 3)
    producer.put_some(3)
    someone.begin()
    someone.lock(elders[:1])
    assert elders[1:2] == there.take(worker, 1, aged=aged(1))
    someone.roll_back()

    there.finds_all(worker, aged=aged(1))


def test_no_more_is_locked_than_is_taken(there: Meeting) -> None:
    producer, one, two = there.party(), there.taker(), there.taker()
    elders = put_last(producer, 3)
    one.begin()

    assert elders[:1] == there.take(one, 1, aged=aged(1))
    assert elders[1:2] == there.take(two, 1, aged=aged(1))
    one.commit()


def test_an_elder_that_another_worker_takes_behind_the_snapshot_is_not_taken_twice(there: Meeting) -> None:
    producer, one, two = there.party(), there.taker(), there.taker()
    elders = put_last(producer, 2)
    standing = Held(one, lambda: there.note(one.reserve(1, aged=aged(1))))
    assert elders[:1] == there.take(two, 1, aged=aged(1))
    standing.go_on()

    there.finds_all(one)
    assert sorted(elders) == sorted(there.held)


def test_a_quota_is_given_to_those_who_have_been_due_for_longest(there: Meeting) -> None:
    producer, worker = there.party(), there.taker()
    younger, older = put_last(producer, 2)
    there.schema.ask("UPDATE job SET due = due - interval '1 minute' WHERE id = %s::uuid", (older,))

    assert [older] == there.take(worker, queues={"default": 1}, aged=aged(5))
    assert [younger] == there.take(worker, queues={"default": 1}, aged=aged(5))


def test_a_repeated_reserve_gives_its_elders_again(there: Meeting) -> None:
    producer, worker = there.party(), there.taker()
    elders = put_last(producer, 2)
    token = new_token()
    first = worker.reserve(1, token=token, aged=aged(1))

    again = worker.reserve(1, token=token, aged=aged(1))

    assert elders[:1] == [one.id for one in first.deliveries] == [one.id for one in again.deliveries]


# --- at random


class AgingStory(Story):
    """A chance order of steps in which workers give shares to elders, and some of what is put goes to the last lane."""

    def walk(self, chance: random.Random) -> None:
        """Let a worker reserve."""
        taker = self._idle(chance)
        if taker is not None:
            self.there.take(taker, chance.choice([1, 2, 5, 100]), aged=aged(chance.choice([1, 2, 10])))

    def _put(self, producer: Party, chance: random.Random) -> None:
        priorities = [0, 4, 9]
        producer.put(*(new_job(priority=chance.choice(priorities)) for _ in range(chance.randint(1, 3))))


@pytest.mark.parametrize(
    "seeds",
    [
        pytest.param(range(8), id="short"),
        pytest.param(range(8, 800), id="long", marks=[pytest.mark.slow, pytest.mark.timeout(3000)]),
    ],
)
def test_no_order_of_steps_takes_an_elder_twice_or_leaves_one(seeds: range) -> None:
    with meeting(shared_schema()) as there:
        parties = [there.party() for _ in range(6)]
        takers = [there.taker() for _ in range(3)]
        for seed in seeds:
            chance = random.Random(seed)
            there.start_anew()
            story = AgingStory(there, parties, takers)
            try:
                try:
                    for _ in range(chance.randint(10, 45)):
                        story.happen(chance)
                finally:
                    story.end()
                there.finds_all(chance.choice(takers), seconds=2 if story.locks else 0, aged=aged(5))
            except AssertionError as error:
                raise AssertionError(f"seed {seed}: {error}") from error
