"""Who leads, what that costs, and what happens when something is wrong, on time that leaps over every wait."""

from __future__ import annotations

import asyncio
import logging
import selectors
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count, pairwise
from typing import Any, TypeVar, cast

import msgspec
import pytest
from typing_extensions import override

from taskharbor import Context, Harbor, Registry, StoreUnavailable, every, task
from taskharbor.clock import ManualClock
from taskharbor.driver import (
    UPKEEP,
    Driver,
    HistoryPrune,
    JobEnqueue,
    JobFind,
    LeaderTake,
    Pruned,
    ScheduleCreate,
    ScheduleFind,
    Store,
)
from taskharbor.driver.request import Request
from taskharbor.drivers.memory import MemoryDriver
from taskharbor.job import NewJob, new_job_id
from taskharbor.schedule import Cron, NewSchedule, Schedule
from taskharbor.upkeep import Leadership, Leading, Scheduler
from tests.support.work import ENOUGH, HOUR, SECOND, eventually

T = TypeVar("T")

START = datetime(2026, 1, 1, tzinfo=UTC)


class LeapingSelector(selectors.DefaultSelector):
    """Lets time leap over what would be waited for."""

    passed = 0.0

    @override
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0 if timeout is not None else None)
        if not events and timeout is not None:
            self.passed += timeout
        return events


class LeapingLoop(asyncio.SelectorEventLoop):
    """A loop whose time is only waited through."""

    def __init__(self) -> None:
        self._leaping = LeapingSelector()
        super().__init__(self._leaping)

    @override
    def time(self) -> float:
        return self._leaping.passed


def leaping(work: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=LeapingLoop) as runner:
        return runner.run(work)


class Ground:
    """A store on the loop's time, whose verbs are counted, and refused when told to."""

    def __init__(self) -> None:
        self.driver = MemoryDriver()
        self.asked: Counter[str] = Counter()
        self.refuses: Callable[[str], bool] = lambda _: False
        self.prunes: list[tuple[float, HistoryPrune]] = []
        """And when; the first that applies rules has more."""

    def now(self) -> datetime:
        return START + timedelta(seconds=asyncio.get_running_loop().time())

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[Store]:
        async with self.driver.connect() as store:
            yield cast("Store", cast("object", Counting(store, self)))

    def leading(self, worker: str) -> Leading:
        time = asyncio.get_running_loop().time
        return Leading(
            cast("Driver", cast("object", self)),
            worker=worker,
            leadership=Leadership(worker, monotonic=time),
            monotonic=time,
        )

    @asynccontextmanager
    async def working(self, worker: str) -> AsyncGenerator[Leading]:
        """Have one take part until the end of the block."""
        leading = self.leading(worker)
        async with self.connect() as store:
            running = asyncio.create_task(leading.run(store))
            try:
                yield leading
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)

    async def create(self, schedule: Schedule, name: str = "tick") -> None:
        job = NewJob(id="", task="report", payload=b"{}", codec="json", fingerprint=1)
        new = NewSchedule(name=name, schedule=schedule, job=job)
        async with self.driver.connect() as store:
            await store.schedule_create(ScheduleCreate(schedules=[new], now=self.now()))

    async def fired(self) -> list[float]:
        """Return when jobs are due, in seconds from the start, in order."""
        async with self.driver.connect() as store:
            return sorted(
                (job.run_at - START) / SECOND for job in await store.job_find(JobFind(limit=10_000))
            )


class Counting:
    """A store that counts what it is asked."""

    def __init__(self, store: Store, ground: Ground) -> None:
        self._store = store
        self._ground = ground

    def __getattr__(self, name: str) -> Callable[[Request], Awaitable[object]]:
        verb = cast("Callable[[Request], Awaitable[object]]", getattr(self._store, name))

        async def ask(request: Request) -> object:
            self._ground.asked[name] += 1
            if self._ground.refuses(name):
                raise StoreUnavailable("it is away")
            if isinstance(request, HistoryPrune):
                more = request.rules and not any(ask.rules for _, ask in self._ground.prunes)
                self._ground.prunes.append((asyncio.get_running_loop().time(), request))
                return Pruned(jobs=0, keys=0, more=more)
            return await verb(msgspec.structs.replace(request, now=self._ground.now()))

        return ask


def test_an_idle_leader_asks_twice_a_second_at_most_and_who_follows_every_third() -> None:
    async def some_time() -> tuple[Counter[str], Counter[str]]:
        ground = Ground()
        await ground.create(every(timedelta(days=1)))
        async with ground.working("leader"):
            await asyncio.sleep(1200)
            alone = ground.asked.copy()
            async with ground.working("follower"):
                await asyncio.sleep(1200)
                return alone, ground.asked - alone

    alone, both = leaping(some_time())

    assert {"leader_take", "schedule_due", "schedule_fire", "history_prune"} == set(alone)
    assert 1 == alone["schedule_fire"]  # of the first look
    assert 1150 <= alone["schedule_due"] <= 1270
    assert 350 <= alone["leader_take"] <= 460
    assert 17 <= alone["history_prune"] <= 27
    assert both["schedule_due"] <= 1270
    assert both["leader_take"] <= 2 * 460


def test_rules_of_retention_are_applied_soon_and_then_every_ten_minutes() -> None:
    """To the end each time, and never with the ordinary prune, which comes every minute."""

    async def some_time() -> list[tuple[float, bool]]:
        ground = Ground()
        async with ground.working("leader"):
            await asyncio.sleep(1500)
        return [(at, ask.rules) for at, ask in ground.prunes]

    prunes = leaping(some_time())
    ruled = [at for at, rules in prunes if rules]

    assert len(prunes) - len(ruled) >= 19
    assert 55 <= ruled[0] <= 130
    assert ruled[1] - ruled[0] <= 1.5, "there was more"
    assert all(480 <= later - sooner <= 800 for sooner, later in pairwise(ruled[1:]))


def test_ticks_come_on_the_second() -> None:
    async def some_time() -> list[float]:
        ground = Ground()
        await ground.create(every(7 * SECOND, start=START))
        async with ground.working("leader"):
            await asyncio.sleep(30)
            return await ground.fired()

    assert [7, 14, 21, 28] == leaping(some_time())


def test_another_takes_over_within_seconds_of_a_crash_and_no_tick_is_lost() -> None:
    async def crash() -> tuple[float, list[float]]:
        ground = Ground()
        await ground.create(every(5 * SECOND, start=START, grace=60 * SECOND))
        loop = asyncio.get_running_loop()
        async with ground.working("first"), ground.working("second"):
            await asyncio.sleep(60)
            ground.refuses = lambda _: True  # who led cannot even say that it goes
        crashed = loop.time()
        ground.refuses = lambda _: False
        before = ground.asked["schedule_fire"]
        async with ground.working("third"):
            while ground.asked["schedule_fire"] == before:  # noqa: ASYNC110 - nobody signals it
                await asyncio.sleep(0.1)
            took = loop.time() - crashed
            await asyncio.sleep(20)
            return took, await ground.fired()

    took, fired = leaping(crash())

    assert took < 14
    assert [5.0 * number for number in range(1, len(fired) + 1)] == fired
    assert len(fired) >= 16


def test_who_stops_gives_way_at_once() -> None:
    async def hand_over() -> list[str]:
        ground = Ground()
        leaders: list[str] = []
        for worker in ("first", "second"):
            async with ground.working(worker) as leading:
                await leading.round()
            async with ground.driver.connect() as store:
                led = await store.leader_take(
                    LeaderTake(role=UPKEEP, worker="test", ttl=timedelta(0), now=ground.now())
                )
                leaders.append(led.worker)
        return leaders

    assert ["test", "test"] == leaping(hand_over())


def test_a_leader_that_hears_nothing_holds_itself_for_none_before_the_store_does() -> None:
    async def silence() -> tuple[int | None, int | None]:
        ground = Ground()
        leadership = Leadership("one", monotonic=asyncio.get_running_loop().time)
        async with ground.connect() as store:
            assert await leadership.ask(store)
        await asyncio.sleep(7.9)
        before = leadership.fence
        await asyncio.sleep(0.2)
        return before, leadership.fence

    before, after = leaping(silence())

    assert before is not None
    assert after is None


def test_a_leader_of_yesterday_fires_nothing_and_hears_of_the_new_one() -> None:
    async def late() -> tuple[int, int | None, list[float]]:
        ground = Ground()
        leadership = Leadership("one", monotonic=lambda: 0.0)  # was stopped, and has not noticed
        async with ground.connect() as store:
            await leadership.ask(store)
            await ground.create(every(5 * SECOND, start=START))
            await asyncio.sleep(11)
            await store.leader_take(LeaderTake(role=UPKEEP, worker="two", ttl=10 * SECOND))
            fired = await Scheduler(leadership).fire_due(store)
        return fired.jobs, leadership.fence, await ground.fired()

    assert (0, None, []) == leaping(late())


def test_a_store_that_is_away_is_told_once_and_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    async def outage() -> list[float]:
        ground = Ground()
        await ground.create(every(5 * SECOND, start=START, grace=60 * SECOND))
        async with ground.working("leader"):
            await asyncio.sleep(11)
            ground.refuses = lambda _: True
            await asyncio.sleep(30)
            ground.refuses = lambda _: False
            await asyncio.sleep(30)
            return await ground.fired()

    with caplog.at_level(logging.WARNING, "taskharbor.upkeep"):
        fired = leaping(outage())

    assert [5.0 * number for number in range(1, 15)] == fired
    assert {"schedules", "leadership"} == {record.getMessage().partition(":")[0] for record in caplog.records}
    assert 2 == len(caplog.records)


def test_a_schedule_that_cannot_be_planned_is_told_once_and_stops_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def some_time() -> list[float]:
        ground = Ground()
        await ground.create(Schedule(trigger=Cron("* * * * *", "Mars/Olympus")), "broken")
        await ground.create(every(20 * SECOND, start=START))
        async with ground.working("leader"):
            await asyncio.sleep(65)
            return await ground.fired()

    with caplog.at_level(logging.ERROR, "taskharbor.upkeep"):
        fired = leaping(some_time())

    assert [20, 40, 60] == fired
    assert 1 == len(caplog.records)
    assert "schedule 'broken' cannot be fired" in caplog.text


def test_a_key_that_keeps_ticks_out_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    async def some_time() -> tuple[str, int]:
        ground = Ground()
        job = NewJob(id="", task="report", payload=b"{}", codec="json", fingerprint=1, key="k", digest=b"a")
        other = msgspec.structs.replace(job, id=new_job_id(), digest=b"b")
        new = NewSchedule(name="tick", schedule=every(20 * SECOND, start=START), job=job)
        async with ground.driver.connect() as store:
            await store.job_enqueue(JobEnqueue(jobs=[other], now=ground.now()))
            await store.schedule_create(ScheduleCreate(schedules=[new], now=ground.now()))
            async with ground.working("leader"):
                await asyncio.sleep(65)
            (record,) = await store.schedule_find(ScheduleFind())
            return other.id, record.kept_out

    with caplog.at_level(logging.WARNING, "taskharbor.upkeep"):
        taken, kept_out = leaping(some_time())

    assert 3 == kept_out
    assert 1 == len(caplog.records)
    assert f"schedule 'tick' made no job: its key 'k' is taken by job {taken}" in caplog.text


def test_many_schedules_that_are_due_at_once_all_fire_once() -> None:
    async def at_once() -> tuple[list[float], int]:
        ground = Ground()
        for number in range(1200):
            await ground.create(every(60 * SECOND, start=START), f"tick {number}")
        async with ground.working("leader") as leading:
            await leading.round()
            before = ground.asked["schedule_fire"]
            await asyncio.sleep(61)
            return await ground.fired(), ground.asked["schedule_fire"] - before

    fired, requests = leaping(at_once())

    assert [60.0] * 1200 == fired
    assert 3 == requests


def overdue(lost_after: int) -> tuple[list[int], int]:
    """Have twelve schedules fired whose plans take 30 ms each, by a leader whose time is over after so many requests;
    return how many requests there had been whenever others on the loop had their turn, and how many fired."""

    async def fire() -> tuple[list[int], int]:
        ground = Ground()
        leadership = Leadership(
            "one", monotonic=lambda: 0.0 if ground.asked["schedule_fire"] < lost_after else 9.0
        )
        for number in range(12):
            await ground.create(every(60 * SECOND, start=START), f"tick {number}")
        turns: list[int] = []

        async def others() -> None:
            while True:
                turns.append(ground.asked["schedule_fire"])
                await asyncio.sleep(0)

        async with ground.connect() as store:
            await leadership.ask(store)
            running = asyncio.create_task(others())
            await Scheduler(leadership, monotonic=count(step=0.015).__next__).fire_due(store)
            running.cancel()
            found = await store.schedule_find(ScheduleFind())
        return turns, sum(record.next_at is not None for record in found)

    return leaping(fire())


def test_who_plans_for_long_fires_in_between_and_lets_leases_be_kept() -> None:
    turns, moved = overdue(lost_after=1000)

    assert 12 == moved
    assert {1, 2, 3} < set(turns)


def test_who_leads_no_more_fires_nothing_of_what_it_has_planned() -> None:
    _, moved = overdue(lost_after=1)

    assert 0 < moved < 12


@contextmanager
def blocked_loop() -> Generator[tuple[Harbor, threading.Event]]:
    """Have a worker whose loop a handler blocks."""
    registry, blocking, go_on = Registry(), threading.Event(), threading.Event()

    @task(registry=registry)
    async def block() -> None:
        blocking.set()
        assert go_on.wait(ENOUGH.total_seconds())

    @task(registry=registry, name="tick", schedule=every(SECOND))
    def tick() -> None: ...

    with Harbor("memory://", registry=registry) as harbor, harbor.worker_thread():
        block.enqueue()
        assert blocking.wait(ENOUGH.total_seconds())
        try:
            yield harbor, go_on
        finally:
            go_on.set()


def test_a_handler_that_blocks_the_loop_stops_no_schedule() -> None:
    with blocked_loop() as (harbor, go_on):
        before = harbor.schedules.get("tick").fired

        eventually(lambda: harbor.schedules.get("tick").fired > before, "a tick")

        assert not go_on.is_set()


def test_working_until_idle_fires_what_a_jobs_end_lets_go_and_waits_for_no_tick_to_come() -> None:
    registry, clock, ran = Registry(), ManualClock(), list[datetime | None]()

    @task(registry=registry, schedule=every(HOUR, overlap="queue_one", misfire="catch_up"))
    def tick(ctx: Context) -> None:
        ran.append(ctx.tick)

    with Harbor(MemoryDriver(clock=clock), registry=registry) as harbor:
        harbor.run_until_idle()
        start = clock.now()
        clock.advance(3 * HOUR)
        harbor.run_until_idle()
        record = harbor.schedules.get(tick.name)

    assert [start + HOUR, start + 3 * HOUR] == ran
    assert (2, 1, None) == (record.fired, record.overlapped, record.waiting_tick)


def test_what_the_leaders_own_look_has_fired_is_waited_for_too(monkeypatch: pytest.MonkeyPatch) -> None:
    registry, clock, ran = Registry(), ManualClock(), list[datetime | None]()
    a_round = Leading.round

    async def after_an_own_look(leading: Leading) -> None:
        await a_round(leading)
        await a_round(leading)  # finds nothing: the look before it has fired all

    monkeypatch.setattr(Leading, "round", after_an_own_look)

    @task(registry=registry, schedule=every(HOUR))
    def tick(ctx: Context) -> None:
        ran.append(ctx.tick)

    with Harbor(MemoryDriver(clock=clock), registry=registry) as harbor:
        harbor.run_until_idle()
        start = clock.now()
        clock.advance(HOUR)
        harbor.run_until_idle()

    assert [start + HOUR] == ran
