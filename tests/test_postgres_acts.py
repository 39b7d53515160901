"""Acts by hand in PostgreSQL: one transaction with their entries in the trail; limits and the leases there are; what is
shown of jobs that are kept back; rules of retention, part by part."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from datetime import timedelta

import psycopg
import pytest

from taskharbor.audit import Act, AuditEntry
from taskharbor.clock import EPOCH
from taskharbor.driver import (
    AUDIT_RETAIN,
    AuditFind,
    AuditWrite,
    CancelStatus,
    DeleteStatus,
    HistoryPrune,
    HoldLift,
    HoldPlace,
    JobCancel,
    JobCount,
    LimitClear,
    LimitDeclare,
    LimitList,
    LimitSet,
    Pruned,
    QueueList,
    QueuePause,
    RetentionRule,
    RetentionSet,
)
from taskharbor.drivers.postgres import PostgresDriver
from taskharbor.drivers.postgres.audit import with_entry
from taskharbor.drivers.postgres.carry import carry
from taskharbor.drivers.postgres.queue import queue_pause
from taskharbor.drivers.postgres.routine import Wakes
from taskharbor.drivers.postgres.rows import OptionsBook
from taskharbor.drivers.postgres.slots import Slots
from taskharbor.drivers.postgres.step import Step
from taskharbor.errors import StoreError
from taskharbor.job import JobState, new_job_id
from taskharbor.limit import LimitTerms, RateTerms, Scope, ScopeKind
from taskharbor_conformance.bench import DAY, HOUR, SECOND, TASK, Bench, burial, new_job, success
from taskharbor_conformance.graphs import chord, ids_of
from tests.support.postgres_place import SharedSchema, shared_schema
from tests.support.work import eventually

WHOLE = Scope(ScopeKind.TASK, TASK)
KEYS = Scope(ScopeKind.KEYS, TASK)


def key(name: str) -> Scope:
    return Scope(ScopeKind.KEY, TASK, name)


@pytest.fixture
def ground() -> Generator[SharedSchema]:
    schema = shared_schema()
    schema.empty()
    yield schema
    schema.empty()


def try_on(ground: SharedSchema, work: Callable[[Bench], Awaitable[None]]) -> None:
    """Work at a bench."""
    driver = PostgresDriver(ground.place)

    async def main() -> None:
        async with Bench(driver, lambda: PostgresDriver(ground.place)) as bench:
            await work(bench)

    try:
        asyncio.run(main())
    finally:
        driver.close()


def act(action: str = "jobs.cancel") -> Act:
    return Act(id=new_job_id(), action=action, by="ann")


def in_lines(ground: SharedSchema, parts: dict[str, str]) -> None:
    """Have jobs stand in lines of these partitions."""
    for job_id, part in parts.items():
        ground.ask("UPDATE job SET part = %s, lane = 6 WHERE id = %s", (part, job_id))


async def trail(bench: Bench) -> list[AuditEntry]:
    return list(await bench.store.audit_find(AuditFind()))


# --- the trail


def test_an_act_that_cannot_be_written_down_is_not_carried_out(ground: SharedSchema) -> None:
    ground.ask("ALTER TABLE audit ADD CONSTRAINT never CHECK (action <> 'never')")

    async def work(bench: Bench) -> None:
        job_id = await bench.enqueue()
        with pytest.raises(StoreError):
            await bench.store.job_cancel(JobCancel(ids=[job_id], act=act("never")))
        with pytest.raises(StoreError):
            await bench.store.queue_pause(QueuePause(queues=["mail"], act=act("never")))
        assert [JobState.READY] == await bench.states(job_id)
        assert [] == [queue for queue in await bench.store.queue_list(QueueList()) if queue.paused]

    try:
        try_on(ground, work)
    finally:
        ground.ask("ALTER TABLE audit DROP CONSTRAINT never")


def test_an_act_from_a_blocking_caller_is_written_down_too(ground: SharedSchema) -> None:
    driver = PostgresDriver(ground.place)
    with driver.connect_blocking() as store:
        assert [CancelStatus.MISSING] == store.job_cancel(JobCancel(ids=[new_job_id()], act=act()))
    driver.close()

    assert [("jobs.cancel", "ann", 1, 0)] == ground.ask("SELECT action, by_whom, named, changed FROM audit")


def test_what_was_written_already_when_the_answer_was_lost_is_counted_once(ground: SharedSchema) -> None:
    one = QueuePause(queues=["mail", "news"], act=act("queues.pause"))
    with ground.connect() as connection:
        for repeated in (False, True):
            step = Step(None, OptionsBook(), Slots(), Wakes(), repeated)
            carry(
                psycopg.RawCursor(connection), with_entry(queue_pause)(step, one), ground.name, prepare=False
            )

    assert [(2, 2)] == ground.ask("SELECT named, changed FROM audit")


def test_entries_outlive_a_year_and_no_more(ground: SharedSchema) -> None:
    async def work(bench: Bench) -> None:
        await bench.store.audit_write(AuditWrite(act=act(), now=bench.now))
        bench.advance(AUDIT_RETAIN - SECOND)
        await bench.store.history_prune(HistoryPrune(now=bench.now))
        assert 1 == len(await trail(bench))
        bench.advance(SECOND)
        await bench.store.history_prune(HistoryPrune(now=bench.now))
        assert [] == await trail(bench)

    try_on(ground, work)


# --- limits


def test_declaring_what_is_declared_waits_for_nobody_and_writes_nothing(ground: SharedSchema) -> None:
    known = {WHOLE: LimitTerms(max_running=3), KEYS: LimitTerms()}

    async def work(bench: Bench) -> None:
        await bench.store.limit_declare(LimitDeclare(limits=known))
        with ground.connect() as other:
            other.execute("BEGIN")
            before = other.execute("SELECT * FROM rules FOR UPDATE").fetchall()
            await bench.store.limit_declare(LimitDeclare(limits=known))
            assert before == ground.ask("SELECT * FROM rules")
        await bench.store.limit_declare(LimitDeclare(limits={WHOLE: LimitTerms()}))
        assert [] == await bench.store.limit_list(LimitList())

    try_on(ground, work)


def test_leases_taken_before_the_first_limit_count_even_those_not_yet_committed(ground: SharedSchema) -> None:
    """Whoever takes one afterwards has to wait, and then sees that the rules are others."""

    async def work(bench: Bench) -> None:
        await bench.enqueue()
        await bench.take_one()
        (before,) = ground.ask("SELECT revision FROM rules")
        with ground.connect() as other:
            other.execute("BEGIN")
            other.execute(
                "INSERT INTO lease (token, worker, expires_at, duration, jobs, remaining) "
                "VALUES (7, 'other', now(), 1, '{}', 0)"
            )
            setting = asyncio.create_task(
                bench.store.limit_set(LimitSet(scope=WHOLE, terms=LimitTerms(max_running=1)))
            )
            await asyncio.to_thread(
                eventually,
                lambda: bool(
                    ground.ask("SELECT 1 FROM pg_locks WHERE mode = 'ExclusiveLock' AND NOT granted")
                ),
                "the lock being waited for",
            )
            assert [before] == ground.ask("SELECT revision FROM rules")
            other.commit()
            await setting
        assert [(2, True)] == ground.ask("SELECT count(*), bool_and(counted) FROM lease")
        assert [1] == [record.running for record in await bench.store.limit_list(LimitList())]

    try_on(ground, work)


def test_a_rate_begins_with_its_whole_burst_unless_only_its_numbers_change(ground: SharedSchema) -> None:
    slow, slower = RateTerms(1, HOUR, 2), RateTerms(1, DAY, 2)

    def arrivals() -> list[str]:
        return [row[0] for row in ground.ask("SELECT kind || ':' || key FROM arrival ORDER BY 1")]

    def arrive() -> None:
        ground.ask("DELETE FROM arrival")
        for scope in (WHOLE, key("a"), key("b")):
            row = (scope.kind.value, scope.name, scope.key, 1 << 60)
            ground.ask("INSERT INTO arrival VALUES (%s, %s, %s, %s)", row)

    async def work(bench: Bench) -> None:
        arrive()
        await bench.store.limit_set(LimitSet(scope=key("a"), terms=LimitTerms(rate=slow)))
        assert ["key:b", "task:"] == arrivals()
        arrive()
        await bench.store.limit_set(LimitSet(scope=KEYS, terms=LimitTerms(rate=slow)))
        assert ["key:a", "task:"] == arrivals()
        arrive()
        for scope in (KEYS, key("a"), key("b")):
            await bench.store.limit_set(LimitSet(scope=scope, terms=LimitTerms(rate=slower)))
        assert ["key:a", "key:b", "task:"] == arrivals()
        await bench.store.limit_clear(LimitClear(scopes=[KEYS]))
        await bench.store.limit_set(LimitSet(scope=WHOLE, terms=LimitTerms(rate=slow)))
        assert ["key:a", "key:b"] == arrivals()

    try_on(ground, work)


def test_what_is_in_the_past_of_arrivals_is_pruned(ground: SharedSchema) -> None:
    async def work(bench: Bench) -> None:
        now = (bench.now - EPOCH) // timedelta(microseconds=1)
        for name, at in (("a", now), ("b", now + 1)):
            ground.ask("INSERT INTO arrival VALUES ('key', 't', %s, %s)", (name, at))
        await bench.store.history_prune(HistoryPrune(now=bench.now))
        assert [("b",)] == ground.ask("SELECT key FROM arrival")

    try_on(ground, work)


# --- what is shown


def test_what_is_kept_back_is_shown_counted_and_filtered_as_parked(ground: SharedSchema) -> None:
    async def work(bench: Bench) -> None:
        jobs = {name: await bench.enqueue() for name in ("", "a", "b", "c")}
        later = await bench.enqueue(run_in=HOUR)
        in_lines(ground, {jobs[name]: name for name in "abc"} | {later: "a"})

        async def parked(kept: str) -> None:
            """Check that these keys' jobs are kept back, and no others."""
            expected = {jobs[name] for name in kept.split(",")} if kept else set[str]()
            found = await bench.find_ids(JobState.PARKED)
            assert expected == set(found)
            assert set(jobs.values()) - expected == set(await bench.find_ids(JobState.READY))
            assert set(jobs.values()) == set(await bench.find_ids(JobState.READY, JobState.PARKED))
            assert {later} == set(await bench.find_ids(JobState.SCHEDULED))
            records = [await bench.record(job_id) for job_id in jobs.values()]
            assert expected == {one.id for one in records if one.state is JobState.PARKED}
            assert expected == {one.id for one in records if one.reason}
            counts = await bench.store.job_count(JobCount(now=bench.now))
            counted = {one.state: one.count for one in counts}
            assert len(expected) == counted.get(JobState.PARKED, 0)
            assert 4 - len(expected) == counted.get(JobState.READY, 0)
            (queue,) = await bench.store.queue_list(QueueList(now=bench.now))
            assert (len(expected), 4 - len(expected), 1) == (queue.parked, queue.ready, queue.scheduled)

        await parked("")
        await bench.store.hold_place(HoldPlace(scopes=[key("a")], reason="it is ill"))
        await parked("a")
        assert "key:mail.send:a is held back: it is ill" == (await bench.record(jobs["a"])).reason
        assert [None, "a"] == [(await bench.record(jobs[name])).partition for name in ("", "a")]
        await bench.store.limit_set(LimitSet(scope=KEYS, terms=LimitTerms(max_running=0)))
        await parked(",a,b,c")
        await bench.store.limit_set(LimitSet(scope=key("b"), terms=LimitTerms(max_running=1)))
        await parked(",a,c")
        await bench.store.limit_clear(LimitClear(scopes=[KEYS]))
        ground.ask("UPDATE job SET token = 9 WHERE id = %s", (jobs["b"],))
        ground.ask(
            "INSERT INTO lease VALUES (9, 'w', now(), 1, ARRAY[%s::uuid], '{}', 1, true)", (jobs["b"],)
        )
        assert "" == (await bench.record(jobs["b"])).reason
        other = await bench.enqueue()
        in_lines(ground, {other: "b"})
        assert {other, jobs["a"]} == set(await bench.find_ids(JobState.PARKED))
        assert "key:mail.send:b has 1 running, its limit" == (await bench.record(other)).reason
        ground.ask("DELETE FROM job WHERE id = %s", (other,))
        ground.ask("UPDATE job SET token = NULL")
        ground.ask("DELETE FROM lease")
        await bench.store.hold_place(HoldPlace(scopes=[WHOLE]))
        await parked(",a,b,c")
        await bench.store.hold_lift(HoldLift(scopes=[WHOLE, key("a")]))
        await parked("")

    try_on(ground, work)


def test_jobs_that_are_kept_back_are_deleted_as_parked_ones(ground: SharedSchema) -> None:
    async def work(bench: Bench) -> None:
        held, free = await bench.enqueue(), await bench.enqueue(task="other")
        await bench.store.hold_place(HoldPlace(scopes=[WHOLE]))
        assert [DeleteStatus.OTHER_STATE] * 2 == [
            *await bench.delete(held, states=[JobState.READY]),
            *await bench.delete(free, states=[JobState.PARKED]),
        ]
        assert [DeleteStatus.DELETED] * 2 == [
            *await bench.delete(held, states=[JobState.PARKED]),
            *await bench.delete(free, states=[JobState.READY]),
        ]

    try_on(ground, work)


# --- rules of retention


async def prune(bench: Bench, limit: int) -> list[Pruned]:
    """Apply the rules as upkeep does, and return what each part came to."""
    parts: list[Pruned] = []
    while not parts or parts[-1].more:
        assert len(parts) < 20
        parts.append(await bench.store.history_prune(HistoryPrune(limit=limit, rules=True, now=bench.now)))
    return parts


def test_rules_are_applied_part_by_part_to_all_partitions(ground: SharedSchema) -> None:
    """Of each task by itself, the ones that ended last are kept; a rule of its own goes before the one for all."""

    async def work(bench: Bench) -> None:
        ended: dict[str, list[str]] = {"a": [], "b": [], "c": [], "d": []}
        for number in range(6):
            bench.advance(SECOND)
            for task, ids in ended.items():
                job = new_job(task=task, retain=HOUR if number % 2 else 100 * DAY)
                await bench.enqueue_all(job)
                (taken,) = await bench.take()
                await bench.settle(burial(taken) if task == "c" else success(taken))
                ids.append(job.id)
        rules = [
            RetentionRule(state=JobState.SUCCEEDED, keep_last=2),
            RetentionRule(task="b", state=JobState.SUCCEEDED, keep_for=3 * SECOND),
            RetentionRule(state=JobState.DEAD, keep_for=DAY, keep_last=5),
        ]
        assert [True] * 3 == await bench.store.retention_set(RetentionSet(rules=rules))
        assert [False] * 3 == await bench.store.retention_set(RetentionSet(rules=rules, by="ann"))

        parts = await prune(bench, 2)

        assert (12, True) == (sum(part.jobs for part in parts), all(part.jobs <= 2 for part in parts))
        assert {*ended["a"][4:], *ended["b"][3:], *ended["c"][1:], *ended["d"][4:]} == set(
            await bench.find_ids()
        )
        nothing = RetentionRule(state=JobState.DEAD)
        assert [True, False] == await bench.store.retention_set(RetentionSet(rules=[nothing, nothing]))

    try_on(ground, work)


def test_steps_of_a_flow_that_has_not_ended_are_kept(ground: SharedSchema) -> None:
    async def work(bench: Bench) -> None:
        flow = await bench.enqueue_flow(chord(2))
        one, other, _ = ids_of(flow)
        await bench.finish(one)
        await bench.bury(other)
        rules = [RetentionRule(state=state, keep_last=0) for state in (JobState.SUCCEEDED, JobState.DEAD)]
        await bench.store.retention_set(RetentionSet(rules=rules))

        assert 0 == (await prune(bench, 10))[0].jobs
        await bench.requeue(other)
        await bench.finish(other)
        await bench.finish(flow.id)
        assert 3 == (await prune(bench, 10))[0].jobs

    try_on(ground, work)
