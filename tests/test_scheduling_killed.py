"""Exactly one job a tick, whoever is killed: four processes lead in turn, on a clock that runs through all changes."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count, takewhile
from pathlib import Path
from typing import IO

import pytest

from taskharbor import cron
from taskharbor.driver import (
    UPKEEP,
    JobFind,
    LeaderList,
    LeaderTake,
    ScheduleCreate,
    ScheduleFind,
    Store,
)
from taskharbor.drivers import open_driver
from taskharbor.job import JobRecord, NewJob
from taskharbor.schedule import SCHEDULE_META, TICK_META, NewSchedule, Schedule, ScheduleRecord
from taskharbor.scheduling import ticks
from tests.fixtures.support import SOURCES
from tests.support.postgres import server
from tests.support.postgres_ground import Ground
from tests.support.turned import Hands, turned
from tests.support.work import ENOUGH

START, END = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 11, 6, tzinfo=UTC)
ZONES = ["Europe/Paris", "America/New_York", "Australia/Lord_Howe"]
NEAR_CHANGES = "1,3,4,5,7,8,24,25,28,29,31 3,4,10,11 *"
"""Days in local time, among them all on which clocks change in these zones in 2026, and those about them."""
CROWD = 4
LEADERS = 3
"""So many lead one after the other, at the least."""
PACE = timedelta(milliseconds=10)


def schedules() -> dict[str, Schedule]:
    """Return a running and a fixed one for each zone. Every tick has its job, late or not."""
    found: dict[str, Schedule] = {}
    for tz in ZONES:
        found[f"running {tz}"] = cron(f"*/30 0-4 {NEAR_CHANGES}", tz=tz, misfire="catch_up", catch_up=10_000)
        found[f"fixed {tz}"] = cron(
            f"15 1,2 {NEAR_CHANGES}", tz=tz, misfire="skip", grace=timedelta(days=400)
        )
    return found


class Crowd:
    """Processes that may lead, always so many, with clocks of their own that are wrong by minutes."""

    def __init__(self, process: subprocess.Popen[str], draw: random.Random) -> None:
        self._process = process
        self._draw = draw
        self._living = [self._spawn() for _ in range(CROWD)]
        self.killed = 0

    def _spawn(self) -> int:
        _pipe(self._process.stdin).write(f"{self._draw.uniform(-600, 600)}\n")
        _pipe(self._process.stdin).flush()
        return int(_pipe(self._process.stdout).readline())

    def kill_one(self) -> None:
        """Kill one, in the midst of whatever it does, and start another."""
        victim = self._draw.randrange(CROWD)
        os.kill(self._living[victim], signal.SIGKILL)
        self._living[victim] = self._spawn()
        self.killed += 1


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


@contextmanager
def crowd(url: str, clock: Path, draw: random.Random) -> Generator[Crowd]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.turned", url, str(clock)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=SOURCES.parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(SOURCES), os.environ.get("PYTHONPATH", "")])},
    )
    with process:
        try:
            yield Crowd(process, draw)
        finally:
            _pipe(process.stdin).close()
            process.wait(ENOUGH.total_seconds())


async def everything(store: Store) -> list[JobRecord]:
    """Return all jobs."""
    found: list[JobRecord] = []
    while True:
        after = found[-1].id if found else ""
        page = await store.job_find(JobFind(after=after, limit=500))
        found += page
        if len(page) < 500:
            return found


async def led(store: Store, hands: Hands, patience: float) -> None:
    """Let time pass until somebody leads."""
    while not await store.leader_list(LeaderList()):
        hands.turn(hands.now() + PACE)
        await asyncio.sleep(PACE.total_seconds())  # a turn of the clock
        assert time.monotonic() < patience, "nobody leads"


async def through_the_year(
    store: Store, hands: Hands, some: Crowd, draw: random.Random
) -> list[ScheduleRecord]:
    """Turn the clock, kill processes on the way, and return the schedules once their ticks are dealt with."""
    patience = time.monotonic() + 6 * ENOUGH.total_seconds()
    for turn in count(1):
        now = hands.now()
        # At the pace of time, so that who leads has some; and a leap now and then, which ends every lease.
        leap = timedelta(hours=draw.uniform(0, 150)) if turn % 5 == 0 and now < END else timedelta(0)
        hands.turn(max(now + PACE, min(now + leap, END)))
        if turn % 25 == 0 and now < END:
            some.kill_one()
            if (
                some.killed <= LEADERS
            ):  # else a slow machine might see one alone lead, and the leaps end its leases
                await led(store, hands, patience)
        await asyncio.sleep(PACE.total_seconds())  # a turn of the clock
        if now >= END:
            found = list(await store.schedule_find(ScheduleFind()))
            if all(one.next_at is not None and one.next_at > END for one in found):
                return found
            assert time.monotonic() < patience, "the ticks were never dealt with"
    raise AssertionError


async def rehearse(url: str, folder: Path) -> None:
    draw = random.Random(7)
    declared = schedules()
    expected = sorted(
        (name, tick.isoformat())
        for name, schedule in declared.items()
        for tick in takewhile(lambda tick: tick <= END, ticks(schedule, START))
    )
    hands = Hands(folder / "clock", START)
    template = NewJob(id="", task="report", payload=b"{}", codec="json", fingerprint=1)
    made = [NewSchedule(name=name, schedule=schedule, job=template) for name, schedule in declared.items()]
    driver = open_driver(url)

    async with turned(driver, hands)() as store:
        await store.schedule_create(ScheduleCreate(schedules=made))
        with crowd(url, folder / "clock", draw) as some:
            records = await through_the_year(store, hands, some, draw)
        jobs = await everything(store)
        hands.turn(hands.now() + timedelta(days=1))
        last = await store.leader_take(LeaderTake(role=UPKEEP, worker="the test", ttl=timedelta(seconds=1)))
    driver.close()
    hands.close()

    assert len(expected) >= 1000
    assert expected == sorted((job.meta[SCHEDULE_META], job.meta[TICK_META]) for job in jobs)
    assert len(expected) == sum(record.fired for record in records)
    assert all(job.run_at.isoformat() == job.meta[TICK_META] for job in jobs)
    assert 0 == sum(record.missed + record.overlapped for record in records)
    assert some.killed >= 10
    assert last.fence > LEADERS, "one alone has led"


@pytest.mark.timeout(180)
def test_a_thousand_ticks_have_a_job_each_on_sqlite_whoever_is_killed(tmp_path: Path) -> None:
    asyncio.run(rehearse(f"sqlite:///{tmp_path}/jobs.db", tmp_path))


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_thousand_ticks_have_a_job_each_on_postgres_whoever_is_killed(tmp_path: Path) -> None:
    ground = Ground(server().conninfo)

    asyncio.run(rehearse(ground.url, tmp_path))
