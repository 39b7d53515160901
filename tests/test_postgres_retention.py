"""Retention in PostgreSQL: which partition a job goes to, and when it is emptied; what an enqueue looks through."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Generator
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import msgspec
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskharbor.clock import EPOCH, ManualClock
from taskharbor.driver import EnqueueStatus, HistoryPrune, JobEnqueue, JobSettle, Pruned
from taskharbor.drivers.postgres import PostgresDriver, upkeep
from taskharbor.drivers.postgres.routine import Row, Wakes
from taskharbor.drivers.postgres.rows import DEAD, LONG, OptionsBook
from taskharbor.drivers.postgres.schema import LONGEST_SLOTTED, SLOTS, renamed
from taskharbor.drivers.postgres.slots import Slots
from taskharbor.drivers.postgres.step import Step
from taskharbor.drivers.postgres.stray import STRAY_LOCK
from taskharbor_conformance.bench import (
    BUILD,
    DAY,
    HOUR,
    NOW,
    SECOND,
    Bench,
    burial,
    failure,
    new_job,
    stray,
    success,
)
from tests.fixtures.support import steady
from tests.support.postgres_ground import a_reserve
from tests.support.postgres_place import Connection, SharedSchema, shared_schema
from tests.support.work import ENOUGH, eventually

_numbers = itertools.count()

MICRO = timedelta(microseconds=1)
LATE = 2 * DAY
"""How much longer than promised a job may be kept."""
NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
"""Of the day for which the shared schema's ring was made."""
MIDNIGHT = NOON.replace(hour=0) + DAY


@pytest.fixture
def ground() -> Generator[SharedSchema]:
    """A schema with nothing in it, the ring as it is when it was just made."""
    schema = shared_schema()
    schema.empty()
    schema.ask("DELETE FROM slot")
    days = [NOON.date() + n * DAY for n in range(SLOTS)]
    schema.ask("INSERT INTO slot SELECT n, d FROM unnest(%s::date[]) WITH ORDINALITY u(d, n)", (days,))
    yield schema
    schema.empty()


def driver_on(ground: SharedSchema, **session: str) -> PostgresDriver:
    """Return a driver; its sessions have settings of their own."""
    words = " ".join(f"-c%20{name}%3D{value}" for name, value in session.items()).replace(" ", "%20")
    conninfo = f"{ground.conninfo}{'&' if '?' in ground.conninfo else '?'}options={words}"
    return PostgresDriver(
        msgspec.structs.replace(ground.place, conninfo=conninfo if words else ground.conninfo)
    )


def try_on(
    ground: SharedSchema, work: Callable[[Bench], Awaitable[None]], at: datetime = NOON, **session: str
) -> None:
    """Work at a bench whose clock begins at an instant."""
    driver = driver_on(ground, **session)

    async def main() -> None:
        async with Bench(driver, lambda: driver_on(ground), ManualClock(at)) as bench:
            await work(bench)

    try:
        asyncio.run(main())
    finally:
        driver.close()


async def prune(bench: Bench, limit: int = 10_000) -> Pruned:
    return await bench.store.history_prune(HistoryPrune(limit=limit, now=bench.now))


async def prune_all(bench: Bench) -> list[Pruned]:
    """Prune as upkeep does, and return what each step came to."""
    steps = [await prune(bench)]
    while steps[-1].more:
        assert len(steps) < 100
        steps.append(await prune(bench))
    return steps


async def end(bench: Bench, *retains: timedelta) -> list[str]:
    """Let jobs with these retentions succeed now, and return their ids."""
    jobs = [new_job(retain=retain) for retain in retains]
    await bench.enqueue_all(*jobs)
    await bench.settle(*map(success, await bench.take()))
    return [job.id for job in jobs]


def partitions(ground: SharedSchema) -> dict[str, str]:
    """Return in which partition each job of the history is."""
    rows = ground.ask("SELECT id::text, replace(tableoid::regclass::text, 'history_', '') FROM history")
    return {str(job_id): str(name) for job_id, name in rows}


def ring(ground: SharedSchema) -> dict[date, int]:
    """Return which partition stands for which day."""
    return dict(ground.ask("SELECT day, slot FROM slot"))


def days_ahead(ground: SharedSchema, today: datetime) -> list[int]:
    """Return how far ahead the days are that the partitions stand for, sorted."""
    return sorted((day - today.date()).days for day in ring(ground))


# --- which partition


@pytest.mark.parametrize(
    "at", [NOON, MIDNIGHT - MICRO, MIDNIGHT], ids=["noon", "before midnight", "at midnight"]
)
def test_a_job_that_ended_goes_to_the_partition_of_the_day_on_which_it_expires(
    ground: SharedSchema, at: datetime
) -> None:
    retains = [NOW, HOUR, 7 * DAY, 32 * DAY, 32 * DAY + MICRO, 40 * DAY, 365 * DAY]

    async def work(bench: Bench) -> None:
        ids = await end(bench, *retains)
        days = ring(ground)
        wanted = [f"{days[(at + retain).date()]:02}" if retain <= 32 * DAY else "long" for retain in retains]
        found = partitions(ground)
        assert wanted == [found[job_id] for job_id in ids]

    try_on(ground, work, at)


def test_every_way_to_an_end_leads_there(ground: SharedSchema) -> None:
    async def work(bench: Bench) -> None:
        for _ in range(6):
            await bench.enqueue(retain=HOUR)
        ended, cancelled, buried, reclaimed, lost, idle = await bench.take()
        await bench.cancel(cancelled.id, reclaimed.id)
        await bench.start(lost)
        await bench.settle(success(ended), failure(cancelled), burial(buried))
        bench.advance(MIDNIGHT - NOON)  # from here on a retention of an hour leads to the next day
        await bench.reclaim()
        await bench.cancel(idle.id)
        days = ring(ground)
        found = partitions(ground)
        today, tomorrow = f"{days[NOON.date()]:02}", f"{days[MIDNIGHT.date()]:02}"
        assert {
            ended.id: today,
            cancelled.id: today,
            buried.id: "dead",
            reclaimed.id: tomorrow,
            idle.id: tomorrow,
        } == found

    try_on(ground, work)


def test_a_day_that_no_partition_stands_for_goes_to_the_long_one(ground: SharedSchema) -> None:
    async def work(bench: Bench) -> None:
        bench.advance(100 * DAY)  # nobody has turned the ring
        ids = await end(bench, NOW, HOUR, 7 * DAY)
        assert dict.fromkeys(ids, "long") == partitions(ground)
        bench.advance(HOUR)
        steps = await prune_all(bench)
        assert (2, ids[2:]) == (sum(step.jobs for step in steps), list(partitions(ground)))

    try_on(ground, work)


# --- when


EAST = {"timezone": "Pacific/Kiritimati", "datestyle": "SQL,DMY"}
WEST = {"timezone": "America/St_Johns", "intervalstyle": "sql_standard"}


@pytest.mark.parametrize(
    ("at", "session"),
    [(NOON, {}), (MIDNIGHT - MICRO, EAST), (MIDNIGHT, WEST)],
    ids=["noon", "before midnight, far east", "at midnight, west"],
)
def test_a_job_is_never_removed_early_and_two_days_late_at_most(
    ground: SharedSchema, at: datetime, session: dict[str, str]
) -> None:
    retains = [NOW, HOUR, DAY, 7 * DAY, 32 * DAY, 40 * DAY]

    async def work(bench: Bench) -> None:
        left = dict(zip(await end(bench, *retains), retains, strict=True))
        edges = sorted({retain + more for retain in retains for more in (-MICRO, LATE)})
        for edge in edges:
            bench.advance(max(at + edge - bench.now, NOW))
            await prune_all(bench)
            there = partitions(ground).keys()
            early = [left[job_id] for job_id in left.keys() - there if left[job_id] > edge]
            late = [left[job_id] for job_id in there if left[job_id] + LATE <= edge]
            assert ([], []) == (early, late), f"{edge} after the end"

    try_on(ground, work, at, **session)


SUMMER_ENDS = datetime(2026, 11, 1, 6, tzinfo=UTC)


def test_a_day_is_a_day_where_the_session_has_summer_time(ground: SharedSchema) -> None:
    async def work(bench: Bench) -> None:
        job_id, _ = await bench.enqueue(retain=7 * DAY), await bench.enqueue(retain=NOW, run_in=2 * DAY)
        await bench.settle(failure(await bench.take_one(), 2 * DAY))
        record = await bench.record(job_id)
        bench.advance(2 * DAY)
        await bench.settle(*map(success, await bench.take()))
        kept = (
            "SELECT date_part('epoch', expires_at) - date_part('epoch', finished_at) FROM history ORDER BY 1"
        )
        assert [(0,), (7 * 86400,)] == ground.ask(kept)
        failed_at = record.errors[0].at
        assert failed_at is not None
        assert (SUMMER_ENDS - DAY, NOW) == (failed_at, failed_at.utcoffset())

    try_on(ground, work, SUMMER_ENDS - DAY, timezone="America/New_York")


def test_days_go_by_and_turn_the_ring_and_nothing_is_early_or_late(ground: SharedSchema) -> None:
    async def work(bench: Bench) -> None:
        expires: dict[str, datetime] = {}
        for _ in range(SLOTS + 6):
            (ended,) = await end(bench, 7 * DAY)
            expires[ended] = bench.now + 7 * DAY
            steps = await prune_all(bench)
            there = partitions(ground)
            assert [] == [job_id for job_id, at in expires.items() if at > bench.now and job_id not in there]
            assert [] == [job_id for job_id in there if expires[job_id] + LATE <= bench.now]
            assert "long" not in there.values()
            assert sum(step.jobs for step in steps) <= 1
            assert list(range(-1, SLOTS - 1)) == days_ahead(ground, bench.now) or bench.now < NOON + LATE
            bench.advance(DAY)

    try_on(ground, work)


def test_after_a_hundred_days_without_upkeep_all_that_is_over_goes_a_partition_at_a_time(
    ground: SharedSchema,
) -> None:
    async def work(bench: Bench) -> None:
        for _ in range(5):
            await end(bench, NOW, 7 * DAY, 40 * DAY)
            bench.advance(DAY)
        (kept,) = await end(bench, 200 * DAY)
        bench.advance(100 * DAY)
        steps = await prune_all(bench)
        emptied = [step.jobs for step in steps if step.jobs]
        assert (15, [kept]) == (sum(emptied), list(partitions(ground)))
        assert [6, *[1] * 9] == emptied  # the five of the long partition, with the first of the others
        assert list(range(-1, SLOTS - 1)) == days_ahead(ground, bench.now)

    try_on(ground, work)


def test_a_clock_that_ran_ahead_for_a_while_does_no_harm_for_good(ground: SharedSchema) -> None:
    async def work(bench: Bench) -> None:
        bench.advance(3650 * DAY)
        await prune_all(bench)
        (odd,) = await end(bench, 7 * DAY)
        bench.advance(-3650 * DAY)
        (before,) = await end(bench, 7 * DAY)
        await prune_all(bench)
        (after,) = await end(bench, 7 * DAY)
        found = partitions(ground)
        assert ("long", f"{ring(ground)[(NOON + 7 * DAY).date()]:02}") == (found[before], found[after])
        ahead = days_ahead(ground, bench.now)
        assert (list(range(-1, SLOTS - 1)), 1) == (
            sorted({day % SLOTS for day in ahead} - {SLOTS - 1} | {-1}),
            sum(day > SLOTS for day in ahead),
        ), "the partition with the job that ended then waits for its own day"
        assert odd in found

    try_on(ground, work)


def test_rows_that_are_kept_long_are_deleted_in_steps(ground: SharedSchema) -> None:
    async def work(bench: Bench) -> None:
        await end(bench, *[40 * DAY] * 25)
        bench.advance(40 * DAY)
        steps = [await prune(bench, 10) for _ in range(4)]
        assert [(10, True), (10, True), (5, False), (0, False)] == [(step.jobs, step.more) for step in steps]

    try_on(ground, work)


def test_rows_that_somebody_holds_are_left_for_the_next_time(ground: SharedSchema) -> None:
    async def work(bench: Bench) -> None:
        first, second = await end(bench, 40 * DAY, 40 * DAY)
        bench.advance(40 * DAY)
        with ground.connect() as other, other.transaction():
            other.execute("SELECT FROM history WHERE id = %s FOR UPDATE", (first,))
            step = await prune(bench)
            assert (1, [first]) == (step.jobs, list(partitions(ground)))
        assert 1 == (await prune(bench)).jobs
        assert second not in partitions(ground)

    try_on(ground, work)


def test_of_many_rows_an_estimate_is_told(ground: SharedSchema, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "_COUNT", upkeep._COUNT.replace(str(64 << 20), "0"))  # pyright: ignore[reportPrivateUsage]

    async def work(bench: Bench) -> None:
        await end(bench, *[NOW] * 50)
        (name,) = set(partitions(ground).values())
        ground.ask(f"ANALYZE history_{name}")
        bench.advance(LATE)
        assert [50] == [step.jobs for step in await prune_all(bench)]
        assert {} == partitions(ground)

    try_on(ground, work)


# --- beside others


def test_who_reads_a_partition_delays_it_and_nothing_else(ground: SharedSchema) -> None:
    async def work(bench: Bench) -> None:
        first, *_ = await end(bench, NOW, 40 * DAY)
        bench.advance(DAY)
        await end(bench, NOW)
        bench.advance(50 * DAY)
        with ground.connect() as reader, reader.transaction():
            reader.execute(f"TABLE history_{partitions(ground)[first]}".encode())
            steps = await prune_all(bench)
            assert (2, [first]) == (sum(step.jobs for step in steps), list(partitions(ground)))
            assert len(steps) <= 3
        assert 1 == sum(step.jobs for step in await prune_all(bench))
        assert list(range(-1, SLOTS - 1)) == days_ahead(ground, bench.now)

    try_on(ground, work)


def test_jobs_come_and_go_while_a_prune_waits_for_a_reader(
    ground: SharedSchema, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "_PATIENCE", f"{ENOUGH.total_seconds():.0f}s")

    async def work(bench: Bench) -> None:
        (over,) = await end(bench, NOW)
        bench.advance(LATE)
        with ground.connect() as reader, reader.transaction():
            reader.execute(f"TABLE history_{partitions(ground)[over]}".encode())
            pruning = asyncio.ensure_future(prune(bench))
            waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'"
            await asyncio.to_thread(eventually, lambda: ground.ask(waits) == [(1,)], "it waits")
            job_id = await bench.enqueue(retain=NOW, id=id_made(bench.now))
            await bench.enqueue(key="k", retain=7 * DAY, id=id_made(bench.now))
            await bench.settle(*map(success, await bench.take()))
            assert not pruning.done()
        assert (1, True) == ((await pruning).jobs, job_id in partitions(ground))

    try_on(ground, work)


def test_many_who_prune_at_once_remove_each_job_once_and_none_too_early(ground: SharedSchema) -> None:
    async def work(bench: Bench) -> None:
        for _ in range(6):
            await end(bench, NOW, NOW, 40 * DAY)
            bench.advance(DAY)
        bench.advance(40 * DAY)
        kept = await end(bench, HOUR, 7 * DAY, 32 * DAY)
        benches = [bench.beside() for _ in range(4)]
        for other in benches:
            await other.__aenter__()
        steps = [step for each in await asyncio.gather(*map(prune_all, benches)) for step in each]
        steps += await prune_all(bench)
        for other in benches:
            await other.close()
        assert (18, sorted(kept)) == (sum(step.jobs for step in steps), sorted(partitions(ground)))
        assert list(range(-1, SLOTS - 1)) == days_ahead(ground, bench.now)

    try_on(ground, work)


class Stepwise:
    """A prune that is taken step by step."""

    def __init__(self, ground: SharedSchema, now: datetime) -> None:
        self._ground = ground
        step = Step(now.isoformat(), OptionsBook(), Slots(), Wakes())
        self._routine = upkeep.history_prune(step, HistoryPrune(now=now))
        self._next = next(self._routine)

    def until(self, connection: Connection, words: str) -> Pruned | None:
        """Go on until what comes next has these words in it; return what came of all, if none has."""
        cursor = psycopg.RawCursor(connection)
        try:
            while words not in self._next.sql:
                cursor.execute(renamed(self._next.sql, self._ground.name).encode(), self._next.params)
                self._next = self._routine.send(cursor.fetchall() if cursor.description else [])
        except StopIteration as end:
            pruned: Pruned = end.value
            return pruned
        return None


def test_a_partition_that_one_is_about_to_empty_is_left_to_him(ground: SharedSchema) -> None:
    async def work(bench: Bench) -> None:
        await end(bench, NOW)
        bench.advance(LATE)
        with ground.connect() as connection, connection.transaction():
            first = Stepwise(ground, bench.now)
            # 1. One knows that the partition is over.
            assert first.until(connection, "EXISTS (SELECT FROM taskharbor.history_") is None
            # 2. Another would empty it, and let it stand for a day ahead, whose jobs the first one would then remove.
            assert [0] == [step.jobs for step in await prune_all(bench)]
            # 3. The first one does so.
            assert Pruned(jobs=1, keys=0) == first.until(connection, "no more")
        assert {} == partitions(ground)

    try_on(ground, work)


# --- strays


def kinds(ground: SharedSchema) -> list[str]:
    return [str(row[0]) for row in ground.ask("SELECT refused_by FROM stray ORDER BY 1")]


def test_a_kind_of_strays_goes_with_the_last_job_of_it(ground: SharedSchema) -> None:
    async def work(bench: Bench) -> None:
        await bench.announce()
        job_id = await bench.enqueue(retain=NOW)
        await bench.settle(stray(await bench.take_one(), BUILD))
        await prune(bench)
        live = kinds(ground)
        await bench.cancel(job_id)
        await prune(bench)
        ended = kinds(ground)
        bench.advance(LATE)
        await prune_all(bench)
        await prune(bench)  # a partition is emptied after the kinds were looked for
        assert (1, 1, []) == (len(live), len(ended), kinds(ground))

    try_on(ground, work)


def test_a_kind_is_not_dropped_while_a_job_becomes_one_of_it(ground: SharedSchema) -> None:
    async def work(bench: Bench) -> None:
        await bench.announce()
        before, job_id = await bench.enqueue(), await bench.enqueue()
        first, second = await bench.take()
        # 1. There is a kind, and no job of it any more.
        await bench.settle(stray(first, BUILD))
        await bench.delete(before)
        async with bench.beside() as other:
            # 2. A job is being settled as one of it, and its row is waited for.
            with ground.connect() as holder:
                holder.execute("BEGIN")
                holder.execute("SELECT FROM job WHERE id = %s FOR UPDATE", (job_id,))
                settling = asyncio.ensure_future(bench.settle(stray(second, BUILD)))
                waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype IN ('tuple', 'transactionid')"
                await asyncio.to_thread(eventually, lambda: ground.ask(waits) == [(1,)], "it waits")
                # 3. A prune looks for kinds without jobs.
                await prune(other)
                assert not settling.done()
                # 4. The job becomes one of that kind.
                holder.execute("COMMIT")
            await settling
            await prune(other)
            # 5. It is taken by whoever may.
            assert [job_id] == await other.take_ids(build="build-2")

    try_on(ground, work)


def test_a_job_becomes_a_stray_after_a_prune_that_drops_its_kind(ground: SharedSchema) -> None:
    async def work(bench: Bench) -> None:
        await bench.announce()
        first = await bench.enqueue()
        await bench.settle(stray(await bench.take_one(), BUILD))
        second = await bench.enqueue()
        delivery = await bench.take_one()
        await bench.delete(first)
        # 1. A prune is about to drop the kind.
        with ground.connect() as pruner:
            pruner.execute("BEGIN")
            lock = STRAY_LOCK.replace("taskharbor.", f'"{ground.name}".')
            assert pruner.execute(f"SELECT pg_try_advisory_xact_lock({lock})".encode()).fetchone() == (True,)
            # 2. A job is to become one of that kind, and waits.
            settling = asyncio.ensure_future(bench.settle(stray(delivery, BUILD)))
            waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"
            await asyncio.to_thread(eventually, lambda: ground.ask(waits) == [(1,)], "it waits")
            # 3. It is dropped, and then made anew.
            pruner.execute("DELETE FROM stray")
            pruner.execute("COMMIT")
        await settling
        assert [second] == await bench.take_ids(build="build-2")

    try_on(ground, work)


# --- what an enqueue looks through


@pytest.mark.parametrize("at", [NOON, MIDNIGHT - SECOND], ids=["noon", "around midnight"])
def test_a_job_that_has_ended_is_not_stored_again(ground: SharedSchema, at: datetime) -> None:
    async def work(bench: Bench) -> None:
        retains = (NOW, HOUR, 7 * DAY, 32 * DAY, 40 * DAY)
        jobs = [new_job(retain=retain, id=id_made(at)) for retain in retains for _ in range(4)]
        await bench.enqueue_all(*jobs)
        taken = await bench.take()
        await bench.settle(*map(burial, taken[::4]))
        await bench.cancel(*(delivery.id for delivery in taken[1::4]))
        await bench.settle(*map(failure, taken[1::4]))
        await bench.settle(*map(success, taken[2::4]))
        bench.advance(5 * SECOND)
        await bench.settle(*map(success, taken[3::4]))
        bench.advance(SECOND)
        answers = [await bench.enqueue_all(job) for job in jobs]
        assert [EnqueueStatus.EXISTING] * 20 == [answer.status for (answer,) in answers]

    try_on(ground, work, at)


@pytest.mark.parametrize("hours", [-30, 30])
def test_it_is_found_though_this_machines_clock_is_hours_off(
    ground: SharedSchema, hours: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    off = hours * HOUR

    class Off(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]  # noqa: ARG003 - always UTC
            return datetime.now(UTC) + off

    monkeypatch.setattr("taskharbor.drivers.postgres.slots.datetime", Off)
    driver = driver_on(ground)
    job = msgspec.structs.replace(new_job(retain=HOUR), id=id_made(Off.now()))

    async def main() -> None:
        async with driver.connect() as store:
            enqueue = JobEnqueue(jobs=[job])
            first = await store.job_enqueue(enqueue)
            taken = await store.job_reserve(a_reserve())
            await store.job_settle(JobSettle(settlements=[success(each) for each in taken.deliveries]))
            second = await store.job_enqueue(enqueue)
            assert ("created", "existing") == (first[0].status, second[0].status)

    try:
        asyncio.run(main())
    finally:
        driver.close()


def id_made(at: datetime) -> str:
    """Return an id as one is made at an instant: a UUIDv7."""
    millis = (at - EPOCH) // timedelta(milliseconds=1)
    return str(UUID(int=millis << 80 | 7 << 76 | 2 << 62 | next(_numbers)))


class Server:
    """A server's ring and clock, and one who looks through it, whose own clock is off."""

    def __init__(self, *, now: datetime = NOON, off: timedelta = NOW) -> None:
        self.now = now
        self.off = off
        self.seconds = 1000.0
        self.reads = 0
        self.ring = {now.date() + n * DAY: n + 1 for n in range(SLOTS)}
        self.slots = Slots(lambda: self.now + self.off, lambda: self.seconds)

    def pass_by(self, time: timedelta) -> None:
        self.now += time
        self.seconds += time.total_seconds()

    def looked_through(
        self, made_at: datetime, *retains: timedelta, now: datetime | None = None
    ) -> tuple[int, ...]:
        """Return what is to be looked through for jobs with an id that was made at an instant of our own clock."""
        routine = self.slots.may_hold(made_at, retains, now)
        try:
            next(routine)
            while True:
                self.reads += 1
                routine.send(self._rows())
        except StopIteration as end:
            found: tuple[int, ...] = end.value
            return found

    def _rows(self) -> list[Row]:
        micros = (self.now - EPOCH) // MICRO
        return [(slot, (day - EPOCH.date()).days, micros) for day, slot in self.ring.items()]


def test_what_is_kept_long_needs_no_look_at_the_ring() -> None:
    server = Server()

    assert (DEAD, LONG) == server.looked_through(NOON, LONGEST_SLOTTED + MICRO, 40 * DAY)
    assert 0 == server.reads


def test_the_ring_is_read_once_and_anew_after_ten_minutes() -> None:
    server = Server()

    for _ in range(11):
        assert (DEAD, LONG, 8) == server.looked_through(server.now, 7 * DAY)
        server.pass_by(timedelta(minutes=1))

    assert 2 == server.reads


def test_a_day_that_is_not_there_is_looked_for_once_a_minute() -> None:
    server = Server()
    del server.ring[(NOON + 7 * DAY).date()]

    for seconds in (0, 59, 0, 1):
        server.pass_by(seconds * SECOND)
        assert (DEAD, LONG) == server.looked_through(server.now, 7 * DAY)
    server.ring[(NOON + 7 * DAY).date()] = 8
    server.pass_by(timedelta(minutes=1))

    assert ((DEAD, LONG, 8), 3) == (server.looked_through(server.now, 7 * DAY), server.reads)


def test_around_midnight_both_days_are_looked_through() -> None:
    server = Server(now=MIDNIGHT - 30 * SECOND)
    made_at = server.now

    before = server.looked_through(made_at, NOW)
    server.pass_by(HOUR)
    after = server.looked_through(made_at, NOW)

    assert ((DEAD, LONG, 1, 2), (DEAD, LONG, 1, 2)) == (before, after)


def test_for_an_id_of_long_ago_all_that_is_there_of_the_time_since_is_looked_through() -> None:
    server = Server()

    assert (DEAD, LONG, *range(1, 9)) == server.looked_through(NOON - 300 * DAY, 7 * DAY)


@steady
@given(
    off=st.timedeltas(-3 * DAY, 3 * DAY),
    age=st.timedeltas(NOW, 3 * DAY),
    ended=st.floats(0, 1),
    retain=st.timedeltas(NOW, LONGEST_SLOTTED),
    since_read=st.timedeltas(NOW, 20 * DAY),
    stepped=st.timedeltas(-3 * DAY, 3 * DAY),
    of_day=st.timedeltas(NOW, DAY),
)
def test_wherever_a_job_can_be_is_looked_through(
    off: timedelta,
    age: timedelta,
    ended: float,
    retain: timedelta,
    since_read: timedelta,
    stepped: timedelta,
    of_day: timedelta,
) -> None:
    server = Server(now=NOON.replace(hour=0) + of_day, off=off)
    server.looked_through(server.now + off, HOUR)
    server.pass_by(since_read)
    server.off += stepped  # somebody sets this machine's clock; before the id is made

    made_at = server.now + server.off
    ended_at = server.now + age * ended
    server.pass_by(age)
    found = server.looked_through(made_at, retain)

    assert server.ring.get((ended_at + retain).date(), LONG) in found
