"""One connection and many who ask: shared transactions, interrupts, cancelled callers, and stores that close."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Awaitable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from unittest import mock

import pytest

from taskharbor.driver import Enqueued, EnqueueStatus, JobEnqueue, JobGet, ProducerStore
from taskharbor.drivers.sqlite.store import SqliteStore
from taskharbor.errors import StoreUnavailable, UnusableStoreError
from taskharbor.job import NewJob
from taskharbor_conformance.bench import Bench, new_job
from tests.fixtures.support import untyped
from tests.support.sqlite import (
    ask_file,
    connections_noted,
    driver_on,
    lock_held,
    producing,
    put,
    put_some,
    stored,
    with_bench,
)
from tests.support.work import ENOUGH, await_event, eventually, threads_named, within


class Statements:
    """The statements that a connection carries out."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.seen: list[str] = []
        connection.set_trace_callback(self.seen.append)

    @property
    def writes(self) -> int:
        """Return how many transactions that may write were begun."""
        return self.seen.count("BEGIN IMMEDIATE")

    @property
    def commits(self) -> int:
        """Return how many transactions were committed."""
        return self.seen.count("COMMIT")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "jobs.db"
    driver_on(file).migrate()
    return file


@pytest.fixture(autouse=True)
def nothing_left() -> Generator[None]:
    yield
    eventually(lambda: not threads_named("taskharbor-sqlite"), "the stores' threads end")


# --- a transaction for all who ask meanwhile


def test_threads_that_ask_while_one_is_writing_share_the_next_transaction(path: Path) -> None:
    with connections_noted() as connections, producing(path) as store, ThreadPoolExecutor(20) as threads:
        statements = Statements(connections[0])
        with lock_held(path) as other:
            first = threads.submit(put, store)
            eventually(lambda: statements.writes > 0, "the first one waits for the lock")
            rest = [threads.submit(put, store) for _ in range(19)]
            eventually(lambda: waiting(store) == 19, "the rest stand in line")
            other.tell()
            for asked in (first, *rest):
                asked.result()

    assert 2 == statements.commits
    assert 20 == len(stored(path))


def waiting(store: ProducerStore) -> int:
    """Return how many stand in line before a blocking store."""
    return len(untyped(store)._line)


def test_tasks_that_ask_at_once_share_a_transaction(path: Path) -> None:
    async def work(bench: Bench, connections: list[sqlite3.Connection]) -> Statements:
        await bench.find_ids()
        statements = Statements(connections[-1])
        with lock_held(path) as other:
            first = asyncio.ensure_future(bench.enqueue())
            await asyncio.to_thread(eventually, lambda: statements.writes > 0)
            rest = [asyncio.ensure_future(bench.enqueue()) for _ in range(99)]
            await asyncio.sleep(0)  # each begins
            other.tell()
            await asyncio.gather(first, *rest)
        return statements

    with connections_noted() as connections:
        statements = with_bench(path, lambda bench: work(bench, connections))

    assert 2 == statements.commits
    assert 100 == len(stored(path))


def test_each_caller_of_a_shared_transaction_is_given_its_own_answer(path: Path) -> None:
    async def work(bench: Bench) -> list[list[Enqueued]]:
        def ask(number: int) -> Awaitable[list[Enqueued]]:
            return bench.enqueue_all(new_job(key=str(number % 5), digest=bytes([number // 50])))

        return await asyncio.gather(*(ask(number) for number in range(100)))

    answers = with_bench(path, work)

    assert [EnqueueStatus.CREATED] * 5 == [answer[0].status for answer in answers[:5]]
    assert {EnqueueStatus.EXISTING} == {answer[0].status for answer in answers[5:50]}
    assert {EnqueueStatus.CONFLICT} == {answer[0].status for answer in answers[50:]}
    assert 5 == len(stored(path))


def test_one_that_fails_does_not_take_down_those_it_shares_a_transaction_with(path: Path) -> None:
    bad = new_job(payload=b"bad")
    ask_file(
        path,
        "CREATE TRIGGER bad BEFORE INSERT ON taskharbor_job WHEN NEW.payload = CAST('bad' AS BLOB) "
        "BEGIN SELECT raise(ABORT, 'a bad one'); END",
    )

    async def work(bench: Bench) -> list[object]:
        asked: Sequence[NewJob] = [new_job(), bad, new_job()]
        return list(await asyncio.gather(*map(bench.enqueue_all, asked), return_exceptions=True))

    first, second, third = with_bench(path, work)

    assert "a bad one" in str(second)
    assert isinstance(first, list)
    assert isinstance(third, list)
    assert 2 == len(stored(path))


def test_one_that_is_refused_by_python_does_not_take_the_others_down(path: Path) -> None:
    with producing(path) as store, ThreadPoolExecutor(3) as threads:
        with lock_held(path) as other:
            first = threads.submit(put, store)
            eventually(lambda: not waiting(store), "the first one is being written")
            bad = threads.submit(put, store, new_job(meta={"half": "\ud800"}))
            good = threads.submit(put, store)
            eventually(lambda: waiting(store) == 2, "two stand in line")
            other.tell()
            first.result()
            good.result()
        with pytest.raises(UnicodeEncodeError):
            bad.result()

    assert 2 == len(stored(path))


def test_all_who_share_a_transaction_are_told_when_the_lock_does_not_come(path: Path) -> None:
    async def work(bench: Bench) -> list[object]:
        with lock_held(path):
            return list(await asyncio.gather(*(bench.enqueue() for _ in range(10)), return_exceptions=True))

    answers = with_bench(path, work, busy_timeout=0.05)

    assert [StoreUnavailable] * 10 == [type(answer) for answer in answers]
    assert [] == stored(path)


def test_an_answer_comes_after_the_commit(path: Path) -> None:
    with producing(path) as store:
        for number in range(20):
            put(store)
            assert number + 1 == len(stored(path))


def test_an_empty_batch_asks_for_no_lock(path: Path) -> None:
    with producing(path, busy_timeout=0) as store, lock_held(path):
        assert [] == list(store.job_enqueue(JobEnqueue(jobs=[])))


# --- interrupts


@pytest.mark.parametrize(
    "point",
    [
        "taskharbor.drivers.sqlite.enqueue.json_text",
        "taskharbor.drivers.sqlite.enqueue.duration_micros",
        "taskharbor.drivers.sqlite.transaction.Transactions._check_file",
        "taskharbor.drivers.sqlite.bell.Bell.ring",
    ],
)
def test_ctrl_c_in_the_middle_of_an_enqueue_leaves_no_transaction_open(point: str, path: Path) -> None:
    with connections_noted() as connections, producing(path, busy_timeout=0) as store:
        with mock.patch(point, side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
            put(store, new_job(key="one"))
        still_open = connections[0].in_transaction
        put_some(path)  # another one can write
        put(store)  # and so can this one

    assert not still_open
    assert len(stored(path)) == (3 if point.endswith("ring") else 2)


class InterruptedLock:
    """A lock after whose release Ctrl-C is noticed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> bool:
        return self._lock.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.__exit__(kind, error, trace)
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt


def test_ctrl_c_between_taking_the_line_and_writing_it_tells_those_who_stood_in_it(path: Path) -> None:
    with producing(path) as store, ThreadPoolExecutor(1) as threads:
        turn = untyped(store)._turn
        with turn:
            other = threads.submit(put, store)
            eventually(lambda: waiting(store) == 1, "another one stands in line")
        other.result()
        # Now the same, with this thread in between.
        with mock.patch.object(store, "_line_lock", InterruptedLock()), pytest.raises(KeyboardInterrupt):
            put(store)
        answers = put(store)

    assert [EnqueueStatus.CREATED] == [answer.status for answer in answers]


def test_who_shared_an_interrupted_write_is_told_to_ask_again(path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def interrupted(*_: object) -> None:
        begun.set()
        await_event(go_on)
        raise KeyboardInterrupt

    with producing(path) as store, ThreadPoolExecutor(3) as threads:
        with untyped(store)._turn:
            asked = [threads.submit(put, store) for _ in range(3)]
            eventually(lambda: waiting(store) == 3, "three stand in line")
        for each in asked:
            each.result()
        with mock.patch("taskharbor.drivers.sqlite.transaction.Transactions._check_file", interrupted):
            with untyped(store)._turn:
                asked = [threads.submit(put, store) for _ in range(3)]
                eventually(lambda: waiting(store) == 3, "three stand in line")
            await_event(begun)
            go_on.set()
            errors = [each.exception() for each in asked]

    assert ["KeyboardInterrupt", "StoreUnavailable", "StoreUnavailable"] == sorted(
        type(error).__name__ for error in errors
    )
    assert 3 == len(stored(path))


# --- callers that go away, stores that close


def test_a_caller_that_is_cancelled_leaves_the_store_as_good_as_before(path: Path) -> None:
    async def work(bench: Bench) -> str:
        with lock_held(path) as other:
            asked = asyncio.ensure_future(bench.enqueue())
            await asyncio.sleep(0)
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
            other.tell()
        return await bench.enqueue()

    assert with_bench(path, work) in stored(path)


def test_a_store_that_is_closed_carries_out_what_was_asked_before(path: Path) -> None:
    driver = driver_on(path)

    async def main() -> None:
        async with driver.connect() as store:
            asked = [
                asyncio.ensure_future(store.job_enqueue(JobEnqueue(jobs=[new_job()]))) for _ in range(50)
            ]
            await asyncio.sleep(0)
        await within(asyncio.gather(*asked))

    asyncio.run(main())

    assert 50 == len(stored(path))


def test_a_closed_store_takes_nothing_more(path: Path) -> None:
    driver = driver_on(path)

    async def main() -> None:
        async with driver.connect() as store:
            assert isinstance(store, SqliteStore)
        await store.close()  # again does no harm
        with pytest.raises(StoreUnavailable, match="this store is closed"):
            await store.job_get(JobGet(ids=["x"]))

    asyncio.run(main())


def test_a_blocking_store_that_was_closed_takes_nothing_more(path: Path) -> None:
    driver = driver_on(path)

    with driver.connect_blocking() as store:
        put(store)

    with pytest.raises((StoreUnavailable, sqlite3.ProgrammingError, Exception), match="closed"):
        put(store)
    assert 1 == len(stored(path))


def test_an_opening_that_is_cancelled_leaves_no_thread_and_no_connection(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    ask_file(path, "CREATE TABLE mine (x)")  # no WAL yet, so that opening has to wait for the lock

    async def main(connections: list[sqlite3.Connection]) -> None:
        async with driver_on(path).connect():
            pass

    async def cancel(connections: list[sqlite3.Connection]) -> None:
        opening = asyncio.ensure_future(main(connections))
        await asyncio.to_thread(eventually, lambda: bool(connections))
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening

    with connections_noted() as connections:
        with lock_held(path) as other:
            asyncio.run(within(cancel(connections)))
            other.tell()
            other.end()
        eventually(lambda: not threads_named("taskharbor-sqlite"), "the thread ends")

    for connection in connections:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.execute("SELECT 1")


def test_a_store_that_cannot_be_opened_leaves_no_thread(tmp_path: Path) -> None:
    async def main() -> None:
        async with driver_on(tmp_path / "missing" / "jobs.db").connect():
            pass

    with pytest.raises(UnusableStoreError, match="does not exist"):
        asyncio.run(main())


def test_an_event_loop_that_ended_without_closing_its_store_harms_no_other(path: Path) -> None:
    driver = driver_on(path)
    loop = asyncio.new_event_loop()
    connection = driver.connect()
    store = loop.run_until_complete(connection.__aenter__())
    with lock_held(path) as other:
        asked = loop.create_task(_enqueue_quietly(store.job_enqueue(JobEnqueue(jobs=[new_job()]))))
        loop.run_until_complete(asyncio.sleep(0))
        asked.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        other.tell()
        other.end()

    with producing(path) as another:
        put(another)
    eventually(lambda: len(stored(path)) == 2, "what was asked before is written")
    # It has no way to be told: its thread waits for ever, as a daemon. End it, or it would be this test's leftover.
    untyped(store)._desk._line.put(None)


async def _enqueue_quietly(asked: Awaitable[object]) -> None:
    try:
        await asked
    except asyncio.CancelledError:
        pass


def test_many_stores_open_and_close_at_once(path: Path) -> None:
    driver = driver_on(path)

    async def open_and_close() -> None:
        async with driver.connect() as store:
            await store.job_enqueue(JobEnqueue(jobs=[new_job()]))

    async def main() -> None:
        await asyncio.gather(*(open_and_close() for _ in range(10)))

    with ThreadPoolExecutor(3) as threads:
        for ended in [threads.submit(asyncio.run, main()) for _ in range(3)]:
            ended.result(ENOUGH.total_seconds())

    assert 30 == len(stored(path))
