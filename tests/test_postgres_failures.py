"""What can go wrong with a server: those who ask are told soon and clearly, and once it is over all goes on at once."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import NoReturn, TypeVar
from unittest import mock

import pytest

pytest.importorskip("psycopg", reason="needs the extra `postgres`")

import psycopg
from psycopg.rows import TupleRow

from taskharbor.driver import (
    EnqueueStatus,
    JobCancel,
    JobCount,
    JobEnqueue,
    JobSettle,
    LeaseExtend,
    ProducerStore,
    Store,
)
from taskharbor.drivers.postgres import open_driver
from taskharbor.drivers.postgres.embedded import Server
from taskharbor.drivers.postgres.lending import Lending, Seat
from taskharbor.drivers.postgres.pool import Connection
from taskharbor.drivers.postgres.routine import Query, Routine
from taskharbor.drivers.postgres.step import Step
from taskharbor.errors import StoreUnavailable
from taskharbor.job import JobState
from taskharbor.settlement import SettleKind, Settlement, SettleStatus
from taskharbor_conformance.bench import WORKER, failure, new_job, success
from tests.fixtures.support import untyped
from tests.support.disks import filled, small_disk
from tests.support.postgres import make_server
from tests.support.postgres_ground import OTHERS, Ground, a_reserve, put, timed
from tests.support.work import aeventually, eventually, within

T = TypeVar("T")

SOON = 10.0
"""Seconds until who asks is told that the server does not answer, at most."""
HOLD_THE_TABLE = "LOCK TABLE job IN ACCESS EXCLUSIVE MODE"
HOLD_THE_WORKERS = "LOCK TABLE worker IN ACCESS EXCLUSIVE MODE"


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    with make_server(
        max_connections="30", superuser_reserved_connections="0", deadlock_timeout="50ms"
    ) as made:
        yield made


@pytest.fixture(scope="module")
def shared_ground(server: Server) -> Ground:
    return Ground(server.conninfo)


@pytest.fixture
def ground(shared_ground: Ground) -> Ground:
    shared_ground.empty()
    return shared_ground


@pytest.fixture(autouse=True)
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Return what is logged by anybody: psycopg has something to say, too."""
    caplog.set_level(logging.INFO)
    return caplog


def unexpected(told: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged beside the bell's troubles, which it tells once, and the tests' own server."""
    messages = [record.getMessage() for record in told.records]
    return [
        said
        for said in messages
        if not said.startswith(("wake-ups ", "jobs cannot be marked", "PostgreSQL 1"))
    ]


@asynccontextmanager
async def store_on(ground: Ground, *, pool_size: int = 10) -> AsyncGenerator[Store]:
    driver = ground.driver(pool_size=pool_size)
    async with driver.connect() as store:
        yield store
    driver.close()


def with_store(ground: Ground, work: Callable[[Store], Awaitable[T]], *, pool_size: int = 10) -> T:
    async def main() -> T:
        async with store_on(ground, pool_size=pool_size) as store:
            return await work(store)

    return asyncio.run(main())


async def aput(store: Store, count: int = 1) -> list[str]:
    answers = await store.job_enqueue(JobEnqueue(jobs=[new_job() for _ in range(count)]))
    return [answer.job_id for answer in answers]


async def extend(store: Store) -> None:
    """Ask something that goes by one statement of its own."""
    await store.lease_extend(LeaseExtend(worker=WORKER, leases=(), lease=timedelta(seconds=1)))


async def settle_all(store: Store, limit: int = 1000) -> int:
    """Take jobs and settle them; return how many."""
    taken = await store.job_reserve(a_reserve(limit))
    settlements = [
        Settlement(each.id, each.token, SettleKind.SUCCEED, b"null", "json", charge=True)
        for each in taken.deliveries
    ]
    answers = await store.job_settle(JobSettle(settlements=settlements))
    assert {answer.status for answer in answers} <= {SettleStatus.SETTLED}
    return len(answers)


async def open_connections(store: Store, count: int) -> None:
    """Have the pool open so many connections."""
    await asyncio.gather(*(store.job_count(JobCount()) for _ in range(10 * count)))


# --- the server goes, and comes back


def restart_at_once(server: Server) -> None:
    server.restart("immediate")


def kill_and_start(server: Server) -> None:
    server.kill()
    server.start()


RESTARTS = [
    pytest.param(Server.restart, id="fast"),
    pytest.param(restart_at_once, id="immediate"),
    pytest.param(kill_and_start, id="killed"),
]


@pytest.mark.parametrize("restart", RESTARTS)
def test_after_a_restart_the_first_who_asks_is_answered(
    server: Server, ground: Ground, restart: Callable[[Server], object], told: pytest.LogCaptureFixture
) -> None:
    """All connections of the pools were lost meanwhile; nobody is told an error for that, and nothing is logged."""

    async def work(store: Store) -> int:
        await open_connections(store, 5)
        with ground.producing() as producer:
            put(producer)
            await aput(store)

            await asyncio.to_thread(restart, server)

            put(producer)
            await asyncio.gather(*(aput(store) for _ in range(20)))
            return await settle_all(store)

    assert 23 == with_store(ground, work)
    assert [] == unexpected(told)


def test_while_the_server_is_down_who_asks_is_told_soon_and_afterwards_answered_at_once(
    server: Server, ground: Ground, told: pytest.LogCaptureFixture
) -> None:
    async def work(store: Store) -> int:
        with ground.producing() as producer:
            put(producer)
            await open_connections(store, 5)
            await asyncio.to_thread(server.stop)

            with timed() as took, pytest.raises(StoreUnavailable) as blocking:
                put(producer)
            asked = await within(
                asyncio.gather(*(aput(store) for _ in range(50)), return_exceptions=True), SOON
            )
            server.start()
            put(producer)
            await aput(store)

        assert took.seconds < SOON
        for error in (blocking.value, *asked):
            assert isinstance(error, StoreUnavailable)
            assert f"the database 'postgres' on {server.folder}" in str(error)
            assert "cannot be used now (PostgreSQL says: connection" in str(error)
            assert "ask again when it is back; workers do that by themselves" in str(error)
        return await settle_all(store)

    assert 3 == with_store(ground, work)
    assert [] == unexpected(told)


def test_a_server_that_takes_connections_and_says_nothing(tmp_path: Path) -> None:
    """A host that hangs, or a firewall: connecting is given up."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://me@127.0.0.1:{silent.getsockname()[1]}/jobs?connect_timeout=2&sslmode=disable"

        with timed() as took, pytest.raises(StoreUnavailable) as refused, open_driver(url).connect_blocking():
            pass

    assert took.seconds < SOON
    assert "the database 'jobs' on 127.0.0.1" in str(refused.value)
    assert "timeout expired" in str(refused.value)


# --- single connections are lost


def test_idle_connections_that_were_cut_are_not_handed_out(
    ground: Ground, told: pytest.LogCaptureFixture
) -> None:
    async def work(store: Store) -> None:
        await open_connections(store, 5)
        await asyncio.to_thread(ground.cut)
        await asyncio.gather(*(aput(store) for _ in range(20)))

    with_store(ground, work)
    with ground.producing() as producer:
        put(producer)
        ground.cut()
        put(producer)

    assert (22, []) == (ground.count("job"), unexpected(told))


def test_a_connection_cut_in_a_statement_is_replaced_and_the_statement_repeated(
    ground: Ground, told: pytest.LogCaptureFixture
) -> None:
    async def work(store: Store) -> None:
        with ground.holding(HOLD_THE_TABLE) as holder:
            asked = asyncio.create_task(aput(store))
            await asyncio.to_thread(ground.await_waiting, 1)
            await asyncio.to_thread(ground.cut)
            await asyncio.to_thread(ground.await_waiting, 1)
            holder.rollback()
            await asked

    with_store(ground, work)

    assert (1, []) == (ground.count("job"), unexpected(told))


def test_after_a_loss_the_next_reserve_looks_everywhere(ground: Ground) -> None:
    """The server behind a lost connection may be another one now, and what is known of the first is worth nothing."""

    async def work(store: Store) -> list[int]:
        marks = untyped(store)._walker.marks
        restart, restarts = marks.restart, 0

        def noting() -> None:
            nonlocal restarts
            restarts += 1
            restart()

        marks.restart = noting
        await aput(store)
        counts: list[int] = []
        for cut in (False, True, False):
            if cut:
                await asyncio.to_thread(ground.cut)
                # Noticed by other verbs, at that.
                await asyncio.gather(*(extend(store) for _ in range(5)))
            await store.job_reserve(a_reserve(1))
            counts.append(restarts)
        return counts

    assert [0, 1, 1] == with_store(ground, work)


def test_a_connection_cut_within_a_transaction_leaves_nothing_of_it(ground: Ground) -> None:
    request = JobEnqueue(jobs=[new_job(key=str(number)) for number in range(5)])

    async def work(store: Store) -> list[EnqueueStatus]:
        with ground.holding("LOCK TABLE key IN SHARE MODE") as holder:
            asked = asyncio.ensure_future(store.job_enqueue(request))
            await asyncio.to_thread(ground.await_waiting, 1)
            await asyncio.to_thread(ground.cut)
            await asyncio.to_thread(ground.await_waiting, 1)
            holder.rollback()
            return [answer.status for answer in await asked]

    assert [EnqueueStatus.CREATED] * 5 == with_store(ground, work)
    assert (5, 5, 0) == (ground.count("job"), ground.count("key"), ground.idle_in_transaction())


# --- the server does not want to


@contextmanager
def database_setting(ground: Ground, name: str, value: str) -> Generator[None]:
    """Set something for new sessions in the database."""
    ground.do(f"ALTER DATABASE postgres SET {name} = '{value}'")
    try:
        yield
    finally:
        ground.do(f"ALTER DATABASE postgres RESET {name}")


@contextmanager
def system_setting(ground: Ground, name: str, value: str) -> Generator[None]:
    """Set something for all sessions, those that are there too."""

    def reload(statement: str) -> None:
        ground.do(statement)
        ground.do("SELECT pg_reload_conf()")

    def now() -> object:
        with psycopg.connect(ground.conninfo) as connection:
            return connection.execute("SELECT current_setting(%s)", (name,)).fetchall()[0][0]

    reload(f"ALTER SYSTEM SET {name} = '{value}'")
    try:
        eventually(lambda: now() == value, "the setting")
        yield
    finally:
        reload(f"ALTER SYSTEM RESET {name}")
        eventually(lambda: now() != value, "the setting's end")


def test_sessions_begun_while_a_database_was_read_only_are_not_kept(ground: Ground) -> None:
    """They would be so for as long as they live."""

    async def work(store: Store) -> int:
        with ground.producing() as producer:
            with database_setting(ground, "default_transaction_read_only", "on"):
                with pytest.raises(StoreUnavailable) as blocking:
                    put(producer)
                with pytest.raises(StoreUnavailable) as on_loop:
                    await aput(store)
            put(producer)
            await aput(store)
        for error in (blocking.value, on_loop.value):
            assert "in a read-only transaction" in str(error)
            assert "it is a standby, or was made read-only: target_session_attrs=read-write" in str(error)
        return await settle_all(store)

    assert 2 == with_store(ground, work)


def test_a_server_made_read_only_and_back(ground: Ground) -> None:
    async def work(store: Store) -> int:
        await aput(store)
        with system_setting(ground, "default_transaction_read_only", "on"):
            for _ in range(3):
                with pytest.raises(StoreUnavailable, match="was made read-only"):
                    await aput(store)
                with pytest.raises(StoreUnavailable, match="was made read-only"):
                    await store.job_reserve(a_reserve())
            assert 1 == sum(counted.count for counted in await store.job_count(JobCount()))
        await aput(store)
        return await settle_all(store)

    assert 2 == with_store(ground, work)


def test_a_statement_that_is_given_too_little_time(ground: Ground) -> None:
    advice = "statement_timeout passed, or somebody cancelled it"
    check_waits_are_bounded(ground, database_setting(ground, "statement_timeout", "100ms"), advice)


def test_nobody_waits_for_a_lock_for_ever(ground: Ground) -> None:
    advice = "lock_timeout passed: see in pg_stat_activity who holds locks for long"
    short = mock.patch("taskharbor.drivers.postgres.connection.LOCK_TIMEOUT", "100ms")
    check_waits_are_bounded(ground, short, advice)


def check_waits_are_bounded(ground: Ground, shortened: AbstractContextManager[object], advice: str) -> None:
    """Check that who meets a lock is told what helps, in time, and that all goes on afterwards."""

    async def work(store: Store) -> int:
        with ground.producing() as producer, shortened:
            with ground.holding(HOLD_THE_TABLE):
                with pytest.raises(StoreUnavailable) as blocking:
                    put(producer)
                with pytest.raises(StoreUnavailable) as on_loop:
                    await aput(store)
            put(producer)
            await aput(store)
        for error in (blocking.value, on_loop.value):
            assert advice in str(error)
        return await settle_all(store)

    assert 2 == with_store(ground, work)


def test_who_wants_a_key_that_a_transaction_does_not_give_up_leaves_the_pool_to_the_others(
    ground: Ground,
) -> None:
    with (
        mock.patch("taskharbor.drivers.postgres.connection.LOCK_TIMEOUT", "200ms"),
        ground.producing(pool_size=2) as store,
        ground.connect() as other,
        ThreadPoolExecutor(8) as threads,
    ):
        ground.do_on(other, "BEGIN")
        taken = "INSERT INTO key (task, name, job_id, digest, ttl) VALUES (%s, %s, %s, '', 1)"
        wanted = new_job(key="one")
        ground.do_on(other, taken, wanted.task, "one", wanted.id)
        asked = [threads.submit(put, store, new_job(key="one")) for _ in range(8)]

        put(store)
        told = {str(one.exception()) for one in asked}

    assert all("a transaction that has enqueued a job with the same key" in each for each in told), told
    assert 1 == ground.count("job")


def test_a_mixed_settle_that_meets_cancels_one_after_the_other_is_written(ground: Ground) -> None:
    """Each cancel changes the rows between the settle's look and its lock."""

    def cancel(connection: psycopg.Connection[TupleRow], reason: str) -> None:
        ground.do_on(connection, "BEGIN")
        ground.do_on(connection, "SELECT FROM job ORDER BY id FOR UPDATE")
        ground.do_on(connection, "UPDATE job SET cancel = coalesce(cancel, %s)", reason)

    async def work(store: Store) -> list[tuple[SettleStatus, JobState | None]]:
        await aput(store, 2)
        one, other = (await store.job_reserve(a_reserve(2))).deliveries
        with ground.connect() as first, ground.connect() as second:
            cancel(first, "first")
            settled = asyncio.create_task(
                store.job_settle(JobSettle(settlements=[success(one), failure(other)]))
            )
            await asyncio.to_thread(ground.await_waiting, 1)
            cancelled = asyncio.create_task(asyncio.to_thread(cancel, second, "second"))
            await asyncio.to_thread(ground.await_waiting, 1, OTHERS)
            first.commit()
            await cancelled
            await aeventually(
                lambda: settled.done() or ground.waiting() == 1, "it has come upon the second, too"
            )
            second.commit()
            return [(answer.status, answer.state) for answer in await settled]

    assert [
        (SettleStatus.SETTLED, JobState.SUCCEEDED),
        (SettleStatus.SETTLED, JobState.CANCELLED),
    ] == with_store(ground, work)
    assert 0 == ground.count("lease")


def test_a_deadlock_with_others_is_tried_again(ground: Ground) -> None:
    """The server ends whoever has waited longest, which is us; what we wrote before in that transaction is undone."""

    async def work(store: Store) -> None:
        first, second = sorted(await aput(store, 2))
        lock = "SELECT FROM job WHERE id = %s::uuid FOR UPDATE"
        with ground.connect() as other:
            ground.do_on(other, "SET deadlock_timeout = '10min'; BEGIN")
            ground.do_on(other, lock, second)
            asked = asyncio.create_task(store.job_cancel(JobCancel(ids=[first, second], by="me")))
            await asyncio.to_thread(ground.await_waiting, 1)
            await asyncio.to_thread(ground.do_on, other, lock, first)
            other.rollback()
        await asked

    with_store(ground, work)

    assert (0, 2) == (ground.count("job"), ground.count("history"))
    assert [(1,), (1,)] == ground.do("SELECT json_array_length(operations) FROM history")


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_a_database_whose_transactions_are_isolated_by_default(ground: Ground, level: str) -> None:
    """Ours are READ COMMITTED all the same, once that is found to be needed."""

    async def hand_over(count: int) -> int:
        done = 0
        async with store_on(ground) as store:
            while done < count:
                done += await settle_all(store, 7)
                if not ground.count("job"):
                    break
        return done

    def produce(number: int) -> None:
        with ground.producing() as store:
            for batch in range(10):
                # The keys are wanted by all producers at once.
                put(store, new_job(key=f"key-{batch}"), new_job(key=f"other-{batch}"))
                put(store, *(new_job() for _ in range(5)))
                store.job_cancel(JobCancel(ids=put(store)))

    async def work(store: Store) -> int:
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(produce, range(4)))
        return sum(await asyncio.gather(*(hand_over(1000) for _ in range(4))))

    with database_setting(ground, "default_transaction_isolation", level):
        assert 220 == with_store(ground, work)
    assert [(220,)] == ground.do("SELECT count(DISTINCT id) FROM history WHERE state = 'succeeded'")
    assert (0, 20) == (ground.count("lease"), ground.count("key"))


def test_our_transactions_are_read_committed_and_end_if_they_are_left_alone(ground: Ground) -> None:
    """A process that is stopped within one, or a machine that vanishes, must not keep its locks for hours."""

    def look(step: Step, request: JobCount) -> Routine[list[object]]:
        ((isolation,),) = yield Query("SHOW transaction_isolation")
        ((patience,),) = yield Query("SHOW idle_in_transaction_session_timeout")
        return [isolation, patience]

    async def work(store: Store) -> object:
        return await untyped(store)._desk.ask(look, JobCount(), together=True)

    with database_setting(ground, "default_transaction_isolation", "serializable"):
        assert ["read committed", "30s"] == with_store(ground, work)


# --- no connections left


def test_many_ask_at_once_of_a_small_pool(ground: Ground) -> None:
    async def work(store: Store) -> None:
        await asyncio.gather(*(extend(store) for _ in range(200)))
        assert 2 == len(await asyncio.to_thread(ground.backends))

    with_store(ground, work, pool_size=2)
    with ground.producing(pool_size=2) as store, ThreadPoolExecutor(20) as threads:
        list(threads.map(put, [store] * 200))
        assert len(ground.backends()) <= 2 + 1  # and the bell's

    assert 200 == ground.count("job")


def test_who_waits_too_long_for_a_connection_is_told_what_the_others_do(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskharbor.drivers.postgres.pool._WAIT_SECONDS", 0.2)

    async def work(store: Store) -> None:
        with ground.holding(HOLD_THE_WORKERS):
            asked = [asyncio.create_task(extend(store)) for _ in range(2)]
            await asyncio.to_thread(ground.await_waiting, 2)
            with pytest.raises(
                StoreUnavailable, match=r"all 2 of the pool are in use.*\?pool_size=N in the URL"
            ):
                await aput(store)
        await asyncio.gather(*asked)
        await aput(store)

    with_store(ground, work, pool_size=2)

    assert 1 == ground.count("job")


@contextmanager
def all_taken(ground: Ground, *, left: int = 0) -> Generator[None]:
    """Take all connections that the server allows, as others may do, but some."""
    others: list[psycopg.Connection[tuple[object, ...]]] = []
    with suppress(psycopg.OperationalError):
        while True:
            others.append(ground.connect())
    try:
        for _ in range(left):
            others.pop().close()
        yield
    finally:
        for other in others:
            other.close()


def test_a_server_without_room_for_us_says_so(ground: Ground) -> None:
    async def work(store: Store) -> None:
        with ground.producing() as producer:
            with all_taken(ground):
                with pytest.raises(
                    StoreUnavailable, match=r"allows no more connections now.*raise max_connections"
                ):
                    put(producer)
                with pytest.raises(StoreUnavailable, match="allows no more connections now"):
                    await aput(store)
            put(producer)
            await aput(store)

    with_store(ground, work)

    assert 2 == ground.count("job")


def test_who_gets_no_further_connection_waits_for_those_that_he_has(ground: Ground) -> None:
    """Instead of failing, though the pool may be larger."""

    async def work(store: Store) -> None:
        await aput(store)
        with all_taken(ground):
            await asyncio.gather(*(aput(store) for _ in range(50)))

    with_store(ground, work)
    with ground.producing() as store:
        put(store)
        with all_taken(ground), ThreadPoolExecutor(10) as threads:
            list(threads.map(put, [store] * 50))

    assert 102 == ground.count("job")


def test_a_signals_handler_may_enqueue_whatever_it_came_upon(ground: Ground) -> None:
    ask = Lending[Connection].ask

    def interrupted(self: Lending[Connection], seat: Seat[Connection]) -> None:
        if once:
            once.clear()
            signal.raise_signal(signal.SIGUSR1)
        ask(self, seat)

    once = [True]
    with ground.producing() as store:
        before = signal.signal(signal.SIGUSR1, lambda _, __: bool(put(store)))
        try:
            with mock.patch.object(Lending, "ask", interrupted):
                put(store)
        finally:
            signal.signal(signal.SIGUSR1, before)

    assert 2 == ground.count("job")


# --- full


def fill(store: ProducerStore, stored: list[str]) -> NoReturn:
    """Store jobs until there is no room, and note which were."""
    while True:
        stored += put(store, *(new_job(payload=b"x" * 2000) for _ in range(50)))


def test_a_full_disk_takes_nothing_and_once_there_is_room_all_goes_on(server: Server) -> None:
    owner = (server.folder / "data").stat().st_uid
    with small_disk(server.folder / "small", owner=owner, megabytes=12) as disk:
        whole = Ground(server.conninfo)
        whole.do(f"CREATE TABLESPACE small LOCATION '{disk}'")
        with database_setting(whole, "default_tablespace", "small"):
            ground = Ground(server.conninfo)
        stored: list[str] = []
        with ground.producing() as store:
            stored += put(store)
            with filled(disk), pytest.raises(StoreUnavailable) as refused:
                fill(store, stored)
            stored += put(store, *(new_job(payload=b"x" * 2000) for _ in range(50)))

        assert "its disk is full: make room; nothing was written" in str(refused.value)
        assert sorted(stored) == ground.ids()
        assert len(stored) == with_store(ground, settle_all)
        ground.remove()
        whole.do("DROP TABLESPACE small")
        whole.remove()


# --- cancelled by the caller


async def reserve_for_nobody(store: Store) -> None:
    await store.job_reserve(a_reserve(lease=timedelta(microseconds=1)))


async def enqueue_with_keys(store: Store) -> None:
    await store.job_enqueue(JobEnqueue(jobs=[new_job(key="one"), new_job(key="two")]))


CANCELLED = [
    pytest.param(1, "job", reserve_for_nobody, id="reserve"),  # one after the other
    pytest.param(2, "key", enqueue_with_keys, id="enqueue in a transaction"),
    pytest.param(2, "worker", extend, id="extend"),
]


@pytest.mark.parametrize(("together", "table", "ask"), CANCELLED)
def test_a_verb_cancelled_while_it_waits_leaves_nothing_behind(
    ground: Ground, together: int, table: str, ask: Callable[[Store], Awaitable[object]]
) -> None:
    """No statement that goes on, no open transaction, no connection fewer."""

    async def work(store: Store) -> None:
        with ground.holding(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"):
            for _ in range(3):
                asked = [asyncio.ensure_future(ask(store)) for _ in range(2)]
                await asyncio.to_thread(ground.await_waiting, together)
                for each in asked:
                    each.cancel()
                assert [True, True] == [
                    isinstance(error, asyncio.CancelledError)
                    for error in await asyncio.gather(*asked, return_exceptions=True)
                ]
                await asyncio.to_thread(ground.await_waiting, 0)
            assert 0 == await asyncio.to_thread(ground.idle_in_transaction)
        await asyncio.gather(*(aput(store) for _ in range(10)))

    with_store(ground, work, pool_size=2)

    assert 10 == ground.count("job")


def test_verbs_cancelled_at_any_moment_leave_nothing_behind(ground: Ground) -> None:
    """However far they have come; each is done, or is not."""

    async def work(store: Store) -> None:
        for turns in range(40):
            asked = [
                asyncio.ensure_future(ask(store))
                for ask in (reserve_for_nobody, aput, enqueue_with_keys, extend)
            ]
            for _ in range(turns % 20):
                await asyncio.sleep(0)
            for each in asked:
                each.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        await aput(store)
        await aeventually(lambda: ground.idle_in_transaction() == 0)
        # And the bell's; the server takes its time to notice that a connection was given up.
        await aeventually(lambda: len(ground.backends()) <= 2 + 1)

    with_store(ground, work, pool_size=2)

    keyed = ground.do("SELECT count(*) FROM job WHERE key IS NOT NULL")
    assert [(ground.count("key"),)] == keyed
    assert keyed in ([(0,)], [(2,)])
    # What a cancelled reserve leased is told to nobody, and reclaimed as any other lease that nobody keeps.
    assert [] == ground.do(
        "SELECT id FROM job WHERE token IS NOT NULL AND token NOT IN (SELECT token FROM lease)"
    )


def test_who_is_cancelled_while_he_waits_for_a_connection_leaves_it_to_others(ground: Ground) -> None:
    async def work(store: Store) -> None:
        with ground.holding(HOLD_THE_WORKERS):
            asked = [asyncio.ensure_future(extend(store)) for _ in range(12)]
            await asyncio.to_thread(ground.await_waiting, 2)
            for each in asked[2:7]:
                each.cancel()
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert [False] * 2 + [True] * 5 + [False] * 5 == [
            isinstance(answer, asyncio.CancelledError) for answer in answers
        ]

    with_store(ground, work, pool_size=2)
