"""Acts of people, on every driver: each request that can be one is written into the trail with what it came to."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, get_args

import pytest

from taskharbor import driver as contract
from taskharbor.audit import Act, AuditEntry, AuditTally
from taskharbor.driver import (
    AUDIT_RETAIN,
    AUDITED,
    AuditCount,
    AuditFilter,
    AuditFind,
    AuditWrite,
    BlockingDriver,
    CancelStatus,
    Driver,
    FlowCancel,
    HistoryPrune,
    HoldLift,
    HoldPlace,
    JobCancel,
    JobDelete,
    JobRequeue,
    LimitClear,
    LimitSet,
    Order,
    QueueList,
    QueuePause,
    QueueResume,
    Request,
    RetentionRule,
    RetentionSet,
    ScheduleCreate,
    ScheduleDeclare,
    ScheduleDelete,
    SchedulePause,
    ScheduleResume,
    WorkerAnnounce,
    WorkerOrder,
)
from taskharbor.driver.auditing import Audited
from taskharbor.drivers.memory import MemoryDriver
from taskharbor.drivers.postgres import PostgresDriver
from taskharbor.errors import StoreError
from taskharbor.job import JobState, new_job_id
from taskharbor.limit import LimitTerms, Scope, ScopeKind
from taskharbor_conformance.bench import DAY, HOUR, SECOND, Bench
from taskharbor_conformance.graphs import chain
from taskharbor_conformance.timetables import create, new_schedule
from tests.support.postgres_place import shared_schema
from tests.support.sqlite import ask_file, driver_on, with_bench

Count: TypeAlias = tuple[int, int]
"""How many things an act named, and how many it changed."""

SCOPE = Scope(ScopeKind.TASK, "limited")
MISSING = new_job_id()
NEVER: Count = (0, 0)


@dataclass(frozen=True)
class Tried:
    """An act that is taken again and again."""

    ask: Callable[[Act], Awaitable[object]]
    first: Count
    """What the first time comes to."""
    later: Count
    """What every other time does."""


Try: TypeAlias = Callable[[Bench], Awaitable[Tried]]
TRIES: dict[type[Request], Try] = {}


def tries(request: type[Request]) -> Callable[[Try], Try]:
    """Register how a request is tried as an act of a person."""

    def register(one: Try) -> Try:
        TRIES[request] = one
        return one

    return register


@tries(JobCancel)
async def cancel(bench: Bench) -> Tried:
    ids = [await bench.enqueue(), MISSING]
    return Tried(
        lambda act: bench.store.job_cancel(JobCancel(ids=ids, act=act, now=bench.now)), (2, 1), (2, 0)
    )


@tries(JobRequeue)
async def requeue(bench: Bench) -> Tried:
    ids = [await bench.enqueue(), await bench.enqueue(), MISSING]
    await bench.bury(ids[0])
    await bench.bury(ids[1])
    return Tried(
        lambda act: bench.store.job_requeue(JobRequeue(ids=ids, act=act, now=bench.now)), (3, 2), (3, 0)
    )


@tries(JobDelete)
async def delete(bench: Bench) -> Tried:
    ids = [await bench.enqueue(), MISSING]
    return Tried(
        lambda act: bench.store.job_delete(JobDelete(ids=ids, act=act, now=bench.now)), (2, 1), (2, 0)
    )


@tries(FlowCancel)
async def cancel_flow(bench: Bench) -> Tried:
    ids = [(await bench.enqueue_flow(chain())).id, MISSING]
    return Tried(
        lambda act: bench.store.flow_cancel(FlowCancel(ids=ids, act=act, now=bench.now)), (2, 1), (2, 0)
    )


@tries(QueuePause)
async def pause(bench: Bench) -> Tried:
    await bench.pause("mail")
    return Tried(
        lambda act: bench.store.queue_pause(QueuePause(queues=["mail", "news"], act=act, now=bench.now)),
        (2, 1),
        (2, 0),
    )


@tries(QueueResume)
async def resume(bench: Bench) -> Tried:
    await bench.pause("mail")
    return Tried(
        lambda act: bench.store.queue_resume(QueueResume(queues=["mail", "new"], act=act, now=bench.now)),
        (2, 1),
        (2, 0),
    )


@tries(ScheduleCreate)
async def create_schedule(bench: Bench) -> Tried:
    new = [new_schedule("acts.made")]
    return Tried(
        lambda act: bench.store.schedule_create(ScheduleCreate(schedules=new, act=act, now=bench.now)),
        (1, 1),
        (1, 0),
    )


@tries(ScheduleDelete)
async def delete_schedule(bench: Bench) -> Tried:
    await create(bench, new_schedule("acts.gone"))
    names = ["acts.gone", "acts.never"]
    return Tried(
        lambda act: bench.store.schedule_delete(ScheduleDelete(names=names, act=act, now=bench.now)),
        (2, 1),
        (2, 0),
    )


@tries(SchedulePause)
async def pause_schedule(bench: Bench) -> Tried:
    """It answers of each whether it is there."""
    await create(bench, new_schedule("acts.paused"))
    names = ["acts.paused", "acts.never"]
    return Tried(
        lambda act: bench.store.schedule_pause(SchedulePause(names=names, act=act, now=bench.now)),
        (2, 1),
        (2, 1),
    )


@tries(ScheduleResume)
async def resume_schedule(bench: Bench) -> Tried:
    """It answers of each whether it is there."""
    await create(bench, new_schedule("acts.resumed"))
    names = ["acts.resumed", "acts.never"]
    return Tried(
        lambda act: bench.store.schedule_resume(ScheduleResume(names=names, act=act, now=bench.now)),
        (2, 1),
        (2, 1),
    )


@tries(ScheduleDeclare)
async def declare_schedules(bench: Bench) -> Tried:
    schedules = [new_schedule("acts/one"), new_schedule("acts/two")]
    return Tried(
        lambda act: bench.store.schedule_declare(
            ScheduleDeclare(application="acts", schedules=schedules, digest=b"x", act=act, now=bench.now)
        ),
        (2, 2),
        NEVER,
    )


@tries(LimitSet)
async def set_limit(bench: Bench) -> Tried:
    return Tried(
        lambda act: bench.store.limit_set(
            LimitSet(scope=SCOPE, terms=LimitTerms(max_running=3), act=act, now=bench.now)
        ),
        (1, 1),
        (1, 0),
    )


@tries(LimitClear)
async def clear_limit(bench: Bench) -> Tried:
    scopes = [Scope(ScopeKind.QUEUE, "news"), Scope(ScopeKind.QUEUE, "never")]
    terms = LimitTerms(max_running=3)
    await bench.store.limit_set(LimitSet(scope=scopes[0], terms=terms, now=bench.now))
    return Tried(
        lambda act: bench.store.limit_clear(LimitClear(scopes=scopes, act=act, now=bench.now)), (2, 1), (2, 0)
    )


@tries(HoldPlace)
async def hold(bench: Bench) -> Tried:
    scopes = [Scope(ScopeKind.KEY, "acts", name) for name in "ab"]
    return Tried(
        lambda act: bench.store.hold_place(HoldPlace(scopes=scopes, act=act, now=bench.now)), (2, 2), (2, 0)
    )


@tries(HoldLift)
async def lift(bench: Bench) -> Tried:
    scopes = [Scope(ScopeKind.TASK, "other"), Scope(ScopeKind.TASK, "never")]
    await bench.store.hold_place(HoldPlace(scopes=scopes[:1], now=bench.now))
    return Tried(
        lambda act: bench.store.hold_lift(HoldLift(scopes=scopes, act=act, now=bench.now)), (2, 1), (2, 0)
    )


@tries(WorkerOrder)
async def order(bench: Bench) -> Tried:
    await bench.store.worker_announce(
        WorkerAnnounce(worker="w", queues=["mail"], tasks=frozenset(), build="", ttl=DAY, now=bench.now)
    )
    return Tried(
        lambda act: bench.store.worker_order(
            WorkerOrder(workers=["w", "nobody"], order=Order.DRAIN, act=act, now=bench.now)
        ),
        (2, 1),
        (2, 0),
    )


@tries(RetentionSet)
async def keep_less(bench: Bench) -> Tried:
    rules = [RetentionRule(state=JobState.DEAD, keep_last=9)]
    return Tried(
        lambda act: bench.store.retention_set(RetentionSet(rules=rules, act=act, now=bench.now)),
        (1, 1),
        (1, 0),
    )


@tries(HistoryPrune)
async def prune(bench: Bench) -> Tried:
    for _ in range(3):
        await bench.bury(await bench.enqueue(task="pruned"))
    rule = RetentionRule(task="pruned", state=JobState.DEAD, keep_last=1)
    await bench.store.retention_set(RetentionSet(rules=[rule], now=bench.now))
    return Tried(
        lambda act: bench.store.history_prune(HistoryPrune(rules=True, act=act, now=bench.now)), (2, 2), NEVER
    )


@tries(AuditWrite)
async def write(bench: Bench) -> Tried:
    return Tried(
        lambda act: bench.store.audit_write(AuditWrite(named=5, changed=4, act=act, now=bench.now)),
        (5, 4),
        (5, 4),
    )


def act(action: str = "acts.try", target: str = "", by: str = "ada", reason: str = "") -> Act:
    return Act(id=new_job_id(), action=action, target=target, by=by, reason=reason)


async def trail(bench: Bench) -> list[AuditEntry]:
    return list(await bench.store.audit_find(AuditFind(limit=1000, now=bench.now)))


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def driver(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Driver]:
    made: Driver
    if request.param == "memory":
        made = MemoryDriver()
    elif request.param == "sqlite":
        made = driver_on(tmp_path / "jobs.db")
    else:
        schema = shared_schema()
        schema.empty()
        made = PostgresDriver(schema.place)
    yield made
    made.close()


def at_bench(driver: Driver, work: Callable[[Bench], Awaitable[None]]) -> None:
    async def main() -> None:
        async with Bench(driver, lambda: driver) as bench:
            await work(bench)

    asyncio.run(main())


def test_every_request_that_can_be_an_act_is_tried() -> None:
    """Whoever adds one has to say here what it comes to."""
    with_a_name = {
        one
        for one in vars(contract).values()
        if isinstance(one, type)
        and issubclass(one, Request)
        and "by" in one.__struct_fields__
        and not issubclass(one, AuditFilter)
    }

    assert set(AUDITED) == set(TRIES)
    assert set(AUDITED) == set(get_args(Audited))
    assert set() == with_a_name - set(AUDITED), "these say by whom they are asked"


def test_every_act_is_in_the_trail_with_what_it_came_to(driver: Driver) -> None:
    async def work(bench: Bench) -> None:
        for request, prepare in TRIES.items():
            tried = await prepare(bench)
            begun, one, other = bench.now, act(reason="why"), act(by="bob")
            await tried.ask(one)
            bench.advance(SECOND)
            await tried.ask(other)
            await tried.ask(one)

            entries = {entry.id: entry for entry in await trail(bench)}
            again, changed = entries[one.id], entries[other.id]
            both = (tried.first[0] + tried.later[0], tried.first[1] + tried.later[1])
            assert both == (again.named, again.changed), f"{request.__name__}: one id, two requests"
            assert tried.later == (changed.named, changed.changed), f"{request.__name__}: came to this"
            assert (begun, "ada", "why", "acts.try") == (again.at, again.by, again.reason, again.action)
        assert 2 * len(TRIES) == len(await trail(bench)), "what nobody's act was is not in it"

    at_bench(driver, work)


def test_the_trail_is_read_from_its_end_and_by_who_what_and_when(driver: Driver) -> None:
    async def work(bench: Bench) -> None:
        begun = bench.now
        acts = [
            act("jobs.cancel", "one", "ada", "Too late"),
            act("jobs.delete", "TWO", "bob"),
            act("limits.set", "queue:mail", "ada", "100% full_"),
            act("jobs.cancel", "three", "ada"),
        ]
        for number, one in enumerate(acts):
            await bench.store.audit_write(AuditWrite(named=number, changed=number, act=one, now=bench.now))
            bench.advance(HOUR)
        ids = [one.id for one in acts]

        async def found(request: AuditFind) -> list[int]:
            return [ids.index(entry.id) for entry in await bench.store.audit_find(request)]

        assert [3, 2, 1, 0] == await found(AuditFind())
        assert [3, 2] == await found(AuditFind(limit=2))
        assert [1, 0] == await found(AuditFind(after=ids[2]))
        assert [3, 0] == await found(AuditFind(actions=frozenset({"jobs.cancel"})))
        assert [3, 1, 0] == await found(AuditFind(actions=frozenset({"jobs"})))
        assert [3, 2, 0] == await found(AuditFind(actions=frozenset({"limits", "jobs.cancel"})))
        assert [] == await found(AuditFind(actions=frozenset({"job"})))
        assert [1] == await found(AuditFind(by=frozenset({"bob", "eve"})))
        assert [1] == await found(AuditFind(text="two"))
        assert [0] == await found(AuditFind(text="too LATE"))
        assert [2] == await found(AuditFind(text="0% full_"))
        assert [] == await found(AuditFind(text="%f"))
        assert [2, 1] == await found(AuditFind(since=begun + HOUR, before=begun + 3 * HOUR))
        assert [
            AuditTally("jobs.cancel", "ada", 2, 3),
            AuditTally("jobs.delete", "bob", 1, 1),
            AuditTally("limits.set", "ada", 1, 2),
        ] == list(await bench.store.audit_count(AuditCount()))
        counted = await bench.store.audit_count(AuditCount(by=frozenset({"ada"}), since=begun + HOUR))
        assert [1, 1] == [tally.acts for tally in counted]

    at_bench(driver, work)


def test_what_an_act_tells_is_kept_as_it_is_and_for_its_time(driver: Driver) -> None:
    async def work(bench: Bench) -> None:
        words = {"before": "3 at once", "after": 'a "quoted"\nline'}
        one = Act(id=new_job_id(), action="a.b", target="it's", by="Zoë", reason="日本", details=words)
        await bench.store.audit_write(AuditWrite(act=one, now=bench.now))

        (entry,) = await trail(bench)
        assert (one.target, one.by, one.reason, words) == (
            entry.target,
            entry.by,
            entry.reason,
            entry.details,
        )
        bench.advance(AUDIT_RETAIN - SECOND)
        await bench.store.history_prune(HistoryPrune(now=bench.now))
        assert 1 == len(await trail(bench))
        bench.advance(2 * SECOND)
        await bench.store.history_prune(HistoryPrune(now=bench.now))
        assert [] == await trail(bench)

    at_bench(driver, work)


def test_acts_of_blocking_callers_are_in_the_trail(driver: Driver) -> None:
    assert isinstance(driver, BlockingDriver)
    one = act()

    async def work(bench: Bench) -> None:
        with driver.connect_blocking() as store:
            assert [CancelStatus.MISSING] == store.job_cancel(JobCancel(ids=[MISSING], act=one))
            assert [CancelStatus.MISSING] == store.flow_cancel(FlowCancel(ids=[MISSING], act=one))
        assert [(one.id, 2, 0)] == [(entry.id, entry.named, entry.changed) for entry in await trail(bench)]

    at_bench(driver, work)


@pytest.mark.parametrize("table", ["taskharbor_audit", "taskharbor_pause"])
def test_in_sqlite_an_act_and_its_entry_are_written_both_or_neither(tmp_path: Path, table: str) -> None:
    """Whichever of both cannot be. (PostgreSQL: `test_postgres_acts`.)"""
    path = tmp_path / "jobs.db"
    driver_on(path).migrate()
    ask_file(
        path,
        f"CREATE TRIGGER never BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'it is forbidden'); END",
    )

    async def work(bench: Bench) -> None:
        with pytest.raises((StoreError, sqlite3.Error)):
            await bench.store.queue_pause(QueuePause(queues=["mail"], act=act(), now=bench.now))
        assert [] == list(await bench.store.queue_list(QueueList(now=bench.now)))
        assert [] == await trail(bench)

    with_bench(path, work)
