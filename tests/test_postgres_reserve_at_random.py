"""Reserve under concurrency, at random: whoever holds what open, no job is reserved twice, and none is left.

First single steps of several workers and producers in chance orders, all from one thread, so that a seed tells the
whole story; then ten workers that really run at once.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest

from taskharbor.driver import JobReserve, JobSettle, QueueTake
from taskharbor.drivers.postgres import PostgresDriver
from taskharbor.job import DEFAULT_QUEUE, Delivery, new_token
from taskharbor_conformance.bench import BUILD, TASK, failure, new_job, release, success
from tests.support.postgres_place import SharedSchema, shared_schema
from tests.support.postgres_walk import Held, Meeting, Party, Taker, meeting

AT_ONCE = timedelta(0)
SHORT, LONG = 20, 1500
STEPS = 45


class Story:
    """A chance order of steps."""

    def __init__(self, there: Meeting, parties: list[Party], takers: list[Taker]) -> None:
        self.there = there
        self.producers, self.others, self.takers = parties[:3], parties[3:], takers
        self.locks = False
        """Whether anybody has held rows that others came across: these may be found a little later."""
        self._open: dict[Party, Callable[[], None]] = {}
        """Whoever is in a transaction, with what its commit comes to."""
        self._given_back: dict[Party, list[Delivery]] = {}
        self._scan: tuple[Taker, Held] | None = None

    def happen(self, chance: random.Random) -> None:
        """Let one step happen."""
        step = chance.choice(
            [self.produce] * 6
            + [self.walk] * 6
            + [
                self.reserve_and_hold,
                self.give_back,
                self.give_back,
                self.lock,
                self.wait_for,
                self.hold_a_scan,
            ]
            + [self.end_one] * 2
            + [self.turn_clock]
        )
        step(chance)

    def produce(self, chance: random.Random) -> None:
        """Let a producer begin, read the clock, or commit."""
        producer = chance.choice(self.producers)
        if producer not in self._open:
            if chance.random() < 0.4:
                self._put(producer, chance)
                return
            producer.begin()
            self._open[producer] = lambda: None
        step = chance.choice(["number", "put", "put", "commit", "commit", "roll back"])
        if step == "number":
            producer.number()
        elif step == "put":
            self._put(producer, chance)
        else:
            self._end(producer, commit=step == "commit")

    def _put(self, producer: Party, chance: random.Random) -> None:
        producer.put(*(new_job(priority=chance.choice([4, 5])) for _ in range(chance.randint(1, 3))))

    def walk(self, chance: random.Random) -> None:
        """Let a worker reserve."""
        taker = self._idle(chance)
        if taker is not None:
            self.there.take(taker, chance.choice([1, 2, 5, 100]))

    def reserve_and_hold(self, chance: random.Random) -> None:
        """Let a worker's reserve stand open; if it is rolled back, its connection was lost."""
        taker = self._idle(chance)
        if taker is not None:
            taker.tokens.clear()  # what it reserved before is committed
            taker.begin()
            self.there.take(taker, chance.randint(1, 4))  # one scan or more, with one number
            self.locks = True
            self._open[taker] = lambda: None

    def give_back(self, chance: random.Random) -> None:
        """Let somebody settle what a lease holds, so that it waits again; at once or with a late commit."""
        free = [other for other in self.others if other not in self._open]
        taken = {id(delivery) for deliveries in self._given_back.values() for delivery in deliveries}
        held = [delivery for delivery in self.there.held.values() if id(delivery) not in taken]
        if not free or not held:
            return
        if any(isinstance(party, Taker) for party in self._open):
            return  # its rows and leases are locked
        token = chance.choice(held).token
        deliveries = [delivery for delivery in held if delivery.token == token]
        other = chance.choice(free)
        other.begin()
        end = chance.choice([release, lambda delivery: failure(delivery, after=AT_ONCE)])
        other.settle(*map(end, deliveries))
        self._given_back[other] = deliveries
        self._open[other] = lambda: self._let_go(other)
        if chance.random() < 0.5:
            self._end(other, commit=True)

    def _let_go(self, other: Party) -> None:
        self.there.let_go([delivery.id for delivery in self._given_back[other]])

    def lock(self, chance: random.Random) -> None:
        """Let somebody lock some rows."""
        self._on_some_rows(chance, "SELECT id FROM few")

    def wait_for(self, chance: random.Random) -> None:
        """Let somebody mark jobs as awaited, so that their rows are written anew."""
        self._on_some_rows(chance, "UPDATE job SET awaited = true WHERE id IN (SELECT id FROM few)")

    def _on_some_rows(self, chance: random.Random, statement: str) -> None:
        free = [other for other in self.others if other not in self._open]
        if free:
            other = chance.choice(free)
            other.begin()
            other.do(
                "WITH few AS MATERIALIZED (SELECT id FROM job WHERE token IS NULL ORDER BY id "
                f"OFFSET {chance.randint(0, 3)} LIMIT {chance.randint(1, 4)} FOR UPDATE SKIP LOCKED) {statement}"
            )
            self.locks = True
            self._open[other] = lambda: None

    def hold_a_scan(self, chance: random.Random) -> None:
        """Let a reserve stand between its snapshot and the rest, or go on."""
        if self._scan is not None:
            _, held = self._scan
            self._scan = None
            held.go_on()
            return
        taker = self._idle(chance)
        if taker is not None:
            limit = chance.randint(1, 5)
            self.locks = True
            self._scan = taker, Held(taker, lambda: self.there.note(taker.reserve(limit)))

    def end_one(self, chance: random.Random) -> None:
        """Let somebody's transaction end."""
        if self._open:
            self._end(chance.choice(list(self._open)), commit=chance.random() < 0.7)

    def turn_clock(self, chance: random.Random) -> None:
        """Let a little time pass for a worker."""
        taker = self._idle(chance)  # a scan that took long is not soon done again
        if taker is not None:
            taker.seconds += chance.choice([0.1, 0.3, 1.0, 11.0])

    def end(self) -> None:
        """Let everything come to its end."""
        if self._scan is not None:
            self._scan[1].go_on()
        for party in list(self._open):
            self._end(party, commit=True)

    def _idle(self, chance: random.Random) -> Taker | None:
        standing = None if self._scan is None else self._scan[0]
        idle = [taker for taker in self.takers if taker not in self._open and taker is not standing]
        return chance.choice(idle) if idle else None

    def _end(self, party: Party, *, commit: bool) -> None:
        committed = self._open.pop(party)
        if commit:
            party.commit()
            committed()
        else:
            party.roll_back()
            if isinstance(party, Taker):
                mine = [
                    job_id for job_id, delivery in self.there.held.items() if delivery.token in party.tokens
                ]
                self.there.let_go(mine)
                party.walker.marks.restart()
        self._given_back.pop(party, None)
        if isinstance(party, Taker):
            party.tokens.clear()


def tell(there: Meeting, parties: list[Party], takers: list[Taker], seed: int) -> None:
    """Tell the story of a seed."""
    chance = random.Random(seed)
    there.start_anew()
    story = Story(there, parties, takers)
    try:
        for _ in range(chance.randint(10, STEPS)):
            story.happen(chance)
    finally:
        story.end()
    there.finds_all(chance.choice(takers), seconds=2 if story.locks else 0)


@pytest.mark.parametrize(
    "seeds",
    [
        pytest.param(range(SHORT), id="short"),
        pytest.param(range(SHORT, LONG), id="long", marks=[pytest.mark.slow, pytest.mark.timeout(3000)]),
    ],
)
def test_no_order_of_steps_reserves_a_job_twice_or_leaves_one(seeds: range) -> None:
    with meeting(shared_schema()) as there:
        parties = [there.party() for _ in range(6)]
        takers = [there.taker() for _ in range(3)]
        for seed in seeds:
            try:
                tell(there, parties, takers, seed)
            except AssertionError as error:
                raise AssertionError(f"seed {seed}: {error}") from error


# --- ten workers

WORKERS, PRODUCERS = 10, 4
POLL = 1.0
LONGEST = 5.0
"""Seconds a job may be ready while a worker idles: two, and what a machine with other things to do adds. What no mark
leads to would be found after ten."""


class Run:
    """What became of each job, in seconds of one clock."""

    def __init__(self) -> None:
        self.committed: dict[str, float] = {}
        self.taken: dict[str, list[float]] = {}
        self.over = asyncio.Event()

    @property
    def complete(self) -> bool:
        """Return whether every job was taken."""
        return self.over.is_set() and self.committed.keys() <= self.taken.keys()

    def waits(self) -> list[float]:
        """Return how long each job was ready, sorted."""
        return sorted(self.taken[job_id][0] - at for job_id, at in self.committed.items())


def produce_late(schema: SharedSchema, run: Run, seed: int, seconds: float) -> None:
    """Enqueue for so long, one at a time or in bursts, and commit up to half a second later."""
    chance = random.Random(seed)
    producer = Party(schema)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        producer.begin()
        ids: list[str] = []
        for _ in range(chance.choice([1, 1, 1, 3])):
            ids += producer.put_some(chance.choice([1, 1, 1, 40]))
            time.sleep(chance.choice([0, 0.001, 0.05]))
        time.sleep(chance.choice([0, 0, 0.01, 0.5]))
        producer.commit()
        at = time.monotonic()
        run.committed.update(dict.fromkeys(ids, at))
    producer.connection.close()


async def work(place: SharedSchema, run: Run, name: str, deadline: float) -> None:
    """Reserve and settle as a worker does that nobody wakes: it asks once a second, or when it was told to."""
    async with AsyncExitStack() as stack:
        driver = PostgresDriver(place.place)
        stack.callback(driver.close)
        store = await stack.enter_async_context(driver.connect())
        while not run.complete and time.monotonic() < deadline:
            answer = await store.job_reserve(
                JobReserve(
                    queues=[QueueTake(DEFAULT_QUEUE, 10)],
                    limit=10,
                    lease=timedelta(seconds=60),
                    token=new_token(),
                    worker=name,
                    tasks=frozenset({TASK}),
                    build=BUILD,
                    guarded_limit=10,
                    solo=True,
                )
            )
            now = time.monotonic()
            for delivery in answer.deliveries:
                run.taken.setdefault(delivery.id, []).append(now)
            if answer.deliveries:
                await store.job_settle(JobSettle(settlements=[success(one) for one in answer.deliveries]))
            else:
                due = POLL if answer.next_due_in is None else answer.next_due_in.total_seconds()
                await asyncio.sleep(min(due, POLL))


async def ten_workers(schema: SharedSchema, seconds: float) -> Run:
    """Let ten workers and some producers run at once, and return what became of the jobs."""
    run = Run()
    deadline = time.monotonic() + seconds + 60
    async with asyncio.TaskGroup() as group:
        for number in range(WORKERS):
            group.create_task(work(schema, run, f"worker-{number}", deadline))
        producing = [asyncio.to_thread(produce_late, schema, run, seed, seconds) for seed in range(PRODUCERS)]
        await asyncio.gather(*producing)
        run.over.set()
    return run


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("held", [False, True], ids=["free", "with a transaction held"])
def test_ten_workers_take_every_job_once_and_none_waits_for_long(held: bool) -> None:
    schema = shared_schema()
    with meeting(schema) as there:
        if held:
            holder = there.party()
            holder.begin(isolation="REPEATABLE READ")
            holder.number()
        run = asyncio.run(ten_workers(schema, 20))

    twice = [job_id for job_id, times in run.taken.items() if len(times) > 1]
    waits = run.waits()
    print(
        f"{len(waits)} jobs; ready for {waits[len(waits) // 2]:.3f} s in the median, {waits[-1]:.3f} s at most"
    )
    assert [] == twice
    assert run.taken.keys() == run.committed.keys()
    assert waits[-1] < LONGEST
