"""10,000 schedules due in the same second: each fires once. How long it takes, in how many statements; and idle looks.

Prints what it saw: `pytest -m slow -s tests/test_many_schedules.py`.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace

from taskharbor.driver import (
    Driver,
    Firing,
    JobFind,
    ScheduleCreate,
    ScheduleDue,
    ScheduleFind,
    ScheduleFire,
    Store,
)
from taskharbor.drivers.memory import MemoryDriver
from taskharbor.drivers.postgres import PostgresDriver
from taskharbor.drivers.sqlite import SqliteDriver, transaction
from taskharbor.drivers.sqlite.connection import open_connection
from taskharbor.drivers.sqlite.place import Place as SqlitePlace
from taskharbor.schedule import SCHEDULE_META, Every, NewSchedule, Schedule, ScheduleRecord
from taskharbor.upkeep.leadership import Leadership
from taskharbor.upkeep.scheduler import Scheduler
from taskharbor_conformance.bench import new_job
from tests.support.postgres_place import shared_schema

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MANY, PAGE, LOOKS = 10_000, 1000, 200
DAY, SECOND = timedelta(days=1), timedelta(seconds=1)
STORES = ["memory", "sqlite", "postgresql"]


class Told:
    """Counts what a store's database is told: statements, BEGIN and COMMIT among them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.statements = 0
        execute = psycopg.AsyncRawCursor.execute

        async def counted(cursor: Any, *args: Any, **words: Any) -> Any:
            self._note()
            return await execute(cursor, *args, **words)

        monkeypatch.setattr(psycopg.AsyncRawCursor, "execute", counted)

        def open_counted(place: SqlitePlace) -> sqlite3.Connection:
            connection = open_connection(place)
            connection.set_trace_callback(lambda _: self._note())
            return connection

        monkeypatch.setattr(transaction, "open_connection", open_counted)

    def _note(self) -> None:
        self.statements += 1

    @contextmanager
    def during(self) -> Generator[Callable[[], tuple[float, int]]]:
        """Return what tells the milliseconds and the statements of the block, once it is over."""
        before, began = self.statements, time.perf_counter()
        found: list[tuple[float, int]] = []
        yield lambda: found[0]
        found.append(((time.perf_counter() - began) * 1000, self.statements - before))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    return Told(monkeypatch)


@pytest.fixture(params=STORES)
def driver(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Driver]:
    made: Driver
    if request.param == "memory":
        made = MemoryDriver()
    elif request.param == "sqlite":
        made = SqliteDriver(str(tmp_path / "many.db"))
    else:
        schema = shared_schema()
        schema.empty()
        made = PostgresDriver(schema.place)
    yield made
    made.close()


async def found(store: Store) -> list[ScheduleRecord]:
    """Return all schedules."""
    records: list[ScheduleRecord] = []
    while page := await store.schedule_find(
        ScheduleFind(after=records[-1].name if records else None, limit=PAGE)
    ):
        records += page
    return records


async def make_due(store: Store) -> None:
    """Create the schedules, each with one tick a second ago, and the next in a day."""
    tick = (await store.schedule_due(ScheduleDue(limit=0))).now - SECOND
    schedule = Schedule(trigger=Every(DAY, start=tick), grace=DAY)
    template = replace(new_job(), id="")
    for begin in range(0, MANY, PAGE):
        names = [f"tick-{number:05}" for number in range(begin, begin + PAGE)]
        new = [NewSchedule(name=name, schedule=schedule, job=template) for name in names]
        await store.schedule_create(ScheduleCreate(schedules=new))
    rewound = [
        Firing(name=record.name, revision=record.revision, after=tick - SECOND, next_at=tick)
        for record in await found(store)
    ]
    assert all(fired.moved for fired in await store.schedule_fire(ScheduleFire(firings=rewound)))


async def jobs_made(store: Store) -> Counter[str]:
    """Return how many jobs each schedule has made."""
    made: Counter[str] = Counter()
    after = ""
    while page := await store.job_find(JobFind(limit=PAGE, after=after)):
        made.update(record.meta[SCHEDULE_META] for record in page)
        after = page[-1].id
    return made


async def leading(store: Store, name: str) -> Scheduler:
    leadership = Leadership(name, ttl=timedelta(minutes=5))
    assert await leadership.ask(store)
    return Scheduler(leadership)


def test_ten_thousand_schedules_due_in_the_same_second_fire_once(driver: Driver, told: Told) -> None:
    async def main() -> None:
        async with driver.connect() as store:
            await make_due(store)
            scheduler = await leading(store, "a")

            with told.during() as firing:
                done = await scheduler.fire_due(store)
            with told.during() as idling:
                for _ in range(LOOKS):
                    assert 0 == (await scheduler.fire_due(store)).jobs

            assert MANY == done.jobs
            made = await jobs_made(store)
            assert (MANY, {1}) == (len(made), set(made.values()))
            records = await found(store)
            assert {(1, DAY)} == {
                (record.fired, (record.next_at or record.after) - (record.last_tick or record.after))
                for record in records
            }
        print(
            f"\n{driver.name}: {MANY:,} schedules in {firing()[0]:.0f} ms, {firing()[1]} statements; "
            f"an idle look among them {idling()[0] / LOOKS:.2f} ms, {idling()[1] / LOOKS:.0f} statements"
        )

    asyncio.run(main())


def test_of_four_who_all_believe_to_lead_each_schedule_is_fired_by_one(driver: Driver) -> None:
    async def main() -> None:
        async with driver.connect() as store:
            await make_due(store)
            # None of them is told that the others lead by the same name.
            schedulers = [await leading(store, "a") for _ in range(4)]

            passes = await asyncio.gather(*(scheduler.fire_due(store) for scheduler in schedulers))

            made = await jobs_made(store)
            assert (MANY, {1}) == (len(made), set(made.values()))
            assert {1} == {record.fired for record in await found(store)}
            assert MANY == sum(each.jobs for each in passes)

    asyncio.run(main())
