"""`harbor.using(connection)`: which enqueues go through the caller's transaction, and where that ends."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from taskharbor import (
    BlockingCallError,
    DuplicateJob,
    Harbor,
    JobNotFound,
    JobState,
    Registry,
    UnsupportedError,
    UsageError,
    task,
)
from taskharbor.driver import Capability, Enqueued, EnqueueStatus, JobEnqueue, Joined
from taskharbor.drivers.memory import MemoryDriver
from taskharbor.errors import StoreError
from taskharbor.job import NewJob
from tests.fixtures.support import fork
from tests.support.work import ENOUGH, await_event

registry = Registry()


@task(registry=registry)
def note(number: int) -> int:
    return number


@task(registry=registry)
async def anote(number: int) -> int:
    return number


class Connection:
    """A connection in a transaction: what is sent through it is kept until the caller commits."""

    def __init__(self) -> None:
        self.held: list[NewJob] = []
        self.left = 0
        """How many blocks have ended."""
        self.gate: Callable[[], Awaitable[None]] | None = None
        """Awaited by each async enqueue before it is carried out."""
        self.hold = threading.Event()
        """Each blocking enqueue waits for it; set unless a test clears it."""
        self.hold.set()
        self.met = threading.Event()
        """Set when an enqueue has come in."""


class JoiningDriver(MemoryDriver):
    """A memory store that can join a `Connection`."""

    capabilities = MemoryDriver.capabilities | {Capability.TRANSACTIONAL}

    def join(self, connection: object) -> Joined:
        if not isinstance(connection, Connection):
            raise UsageError(f"expected a Connection; got {connection!r}")
        return _Joined(connection)


class _Joined:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def job_enqueue(self, request: JobEnqueue) -> Sequence[Enqueued]:
        self._connection.met.set()
        await_event(self._connection.hold)
        return self._keep(request)

    async def ajob_enqueue(self, request: JobEnqueue) -> Sequence[Enqueued]:
        if self._connection.gate is not None:
            await self._connection.gate()
        return self._keep(request)

    def leave(self) -> None:
        self._connection.left += 1

    def _keep(self, request: JobEnqueue) -> Sequence[Enqueued]:
        keys = {job.key: job.id for job in self._connection.held if job.key is not None}
        taken = [job for job in request.jobs if job.key in keys]
        if not taken:
            self._connection.held += request.jobs
        return [
            Enqueued(EnqueueStatus.EXISTING, keys[job.key])
            if job in taken and job.key is not None
            else Enqueued(EnqueueStatus.LEFT_OUT if taken else EnqueueStatus.CREATED, job.id)
            for job in request.jobs
        ]


@pytest.fixture
def connection() -> Connection:
    return Connection()


@pytest.fixture
def harbor() -> Iterator[Harbor]:
    with Harbor(JoiningDriver(), registry=registry) as current:
        yield current


def numbers(connection: Connection) -> list[bytes]:
    return [job.payload for job in connection.held]


def stored(harbor: Harbor) -> list[bytes]:
    return [job.payload for job in harbor.jobs.find()]


def payload(number: int) -> bytes:
    return b'{"number":%d}' % number


# --- what goes through it


def test_every_way_to_enqueue_goes_through_the_transaction(harbor: Harbor, connection: Connection) -> None:
    with harbor.using(connection):
        note.enqueue(0)
        note.s(1).enqueue()
        note.options(priority=1).enqueue(2)
        harbor.enqueue_many([note.s(3), note.s(4)])

    assert ([payload(number) for number in range(5)], []) == (numbers(connection), stored(harbor))


def test_every_async_way_to_enqueue_goes_through_the_transaction(connection: Connection) -> None:
    async def main() -> list[bytes]:
        async with Harbor(JoiningDriver(), registry=registry) as harbor:
            with harbor.using(connection):
                await anote.aenqueue(0)
                await anote.s(1).aenqueue()
                await anote.options(priority=1).aenqueue(2)
                await harbor.aenqueue_many([anote.s(3), anote.s(4)])
            return [job.payload for job in await harbor.jobs.afind()]

    left_in_store = asyncio.run(main())

    assert ([payload(number) for number in range(5)], []) == (numbers(connection), left_in_store)


def test_nothing_is_asked_of_the_transaction_for_no_calls(harbor: Harbor, connection: Connection) -> None:
    with harbor.using(connection):
        assert [] == harbor.enqueue_many([])

    assert not connection.met.is_set()


def test_before_and_after_the_block_jobs_go_the_ordinary_way(harbor: Harbor, connection: Connection) -> None:
    note.enqueue(1)
    with harbor.using(connection):
        note.enqueue(2)
    note.enqueue(3)

    assert ([payload(2)], [payload(1), payload(3)]) == (numbers(connection), stored(harbor))


def test_a_job_is_not_seen_before_the_transaction_is_committed(
    harbor: Harbor, connection: Connection
) -> None:
    """Only enqueue goes through it; all else asks the store."""
    with harbor.using(connection):
        handle = note.enqueue(1)
        with pytest.raises(JobNotFound):
            handle.status()
        with pytest.raises(JobNotFound):
            handle.cancel()


def test_a_refusal_by_the_transaction_reaches_the_caller(harbor: Harbor, connection: Connection) -> None:
    with harbor.using(connection):
        first = note.options(key="k").enqueue(1)
        again = note.options(key="k").enqueue(1)
        with pytest.raises(DuplicateJob):
            note.options(key="k", on_conflict="raise").enqueue(1)

    assert (True, False, first.id) == (first.created, again.created, again.id)
    assert [payload(1)] == numbers(connection)


def test_another_harbor_is_not_affected(harbor: Harbor, connection: Connection) -> None:
    with harbor.using(connection), Harbor("memory://", registry=registry) as other:
        note.enqueue(1)

        assert ([], [payload(1)]) == (numbers(connection), stored(other))


def test_a_block_makes_its_harbor_the_current_one(harbor: Harbor, connection: Connection) -> None:
    with Harbor(JoiningDriver(), registry=registry) as other:
        with harbor.using(connection):
            note.enqueue(1)
        note.enqueue(2)

        assert ([payload(1)], [payload(2)], []) == (numbers(connection), stored(other), stored(harbor))


def test_a_harbor_that_is_not_current_may_be_used(connection: Connection) -> None:
    harbor = Harbor(JoiningDriver(), registry=registry)

    with harbor.using(connection):
        harbor.enqueue_many([note.s(1)])

    assert [payload(1)] == numbers(connection)


def test_blocking_calls_on_a_running_loop_are_refused_as_ever(connection: Connection) -> None:
    async def main() -> None:
        async with Harbor(JoiningDriver(), registry=registry) as harbor:
            with harbor.using(connection):
                with pytest.raises(BlockingCallError, match="await"):
                    note.enqueue(1)
                with pytest.raises(BlockingCallError, match="aenqueue_many"):
                    harbor.enqueue_many([note.s(1)])

    asyncio.run(main())

    assert [] == connection.held


# --- where it ends


def test_the_inner_block_wins_and_then_the_outer_counts_again(harbor: Harbor, connection: Connection) -> None:
    inner = Connection()
    with harbor.using(connection):
        note.enqueue(1)
        with harbor.using(inner):
            note.enqueue(2)
        note.enqueue(3)

    assert ([payload(1), payload(3)], [payload(2)]) == (numbers(connection), numbers(inner))
    assert (1, 1) == (connection.left, inner.left)


def test_an_error_ends_the_block_and_is_the_callers(harbor: Harbor, connection: Connection) -> None:
    with pytest.raises(ZeroDivisionError), harbor.using(connection):
        raise ZeroDivisionError
    note.enqueue(1)

    assert (1, [], [payload(1)]) == (connection.left, numbers(connection), stored(harbor))


def test_a_child_task_sends_through_the_transaction_until_the_block_ends(connection: Connection) -> None:
    async def main() -> list[bytes]:
        ended = asyncio.Event()
        inside = asyncio.Event()

        async def child() -> None:
            await anote.aenqueue(1)
            inside.set()
            await ended.wait()
            await anote.aenqueue(2)

        async with Harbor(JoiningDriver(), registry=registry) as harbor:
            with harbor.using(connection):
                outliving = asyncio.create_task(child())
                await inside.wait()
            ended.set()
            await outliving
            return [job.payload for job in await harbor.jobs.afind()]

    in_store = asyncio.run(main())

    assert ([payload(1)], [payload(2)]) == (numbers(connection), in_store)


def test_a_child_of_an_inner_block_goes_on_in_the_outer_one(connection: Connection) -> None:
    inner = Connection()

    async def main() -> None:
        ended = asyncio.Event()

        async def child() -> None:
            await ended.wait()
            await anote.aenqueue(1)

        async with Harbor(JoiningDriver(), registry=registry) as harbor:
            with harbor.using(connection):
                with harbor.using(inner):
                    begun = asyncio.create_task(child())
                    await asyncio.sleep(0)
                ended.set()
                await begun

    asyncio.run(main())

    assert ([payload(1)], []) == (numbers(connection), numbers(inner))


def test_tasks_beside_each_other_each_use_their_own_connection() -> None:
    connections = [Connection() for _ in range(5)]

    async def main() -> None:
        all_in = asyncio.Barrier(len(connections))

        async def one(number: int, harbor: Harbor) -> None:
            with harbor.using(connections[number]):
                await all_in.wait()
                await anote.aenqueue(number)
                await all_in.wait()

        async with Harbor(JoiningDriver(), registry=registry) as harbor:
            await asyncio.gather(*(one(number, harbor) for number in range(len(connections))))

    asyncio.run(main())

    assert [[payload(number)] for number in range(5)] == [numbers(one) for one in connections]


def test_another_thread_is_outside_the_block(harbor: Harbor, connection: Connection) -> None:
    harbor.install()
    with harbor.using(connection), ThreadPoolExecutor(1) as pool:
        pool.submit(note.enqueue, 1).result(timeout=ENOUGH.total_seconds())

    assert ([], [payload(1)]) == (numbers(connection), stored(harbor))


def test_a_thread_that_was_given_the_context_is_inside(connection: Connection) -> None:
    async def main() -> None:
        async with Harbor(JoiningDriver(), registry=registry) as harbor:
            with harbor.using(connection):
                await asyncio.to_thread(note.enqueue, 1)

    asyncio.run(main())

    assert [payload(1)] == numbers(connection)


def test_handlers_of_a_worker_begun_in_the_block_are_outside_it(connection: Connection) -> None:
    """They have no part in the caller's transaction; a handler's own block is its own."""
    inner, own = Connection(), Registry()

    @task(registry=own)
    async def send() -> None:
        await anote.aenqueue(1)
        with worked.using(inner):
            await anote.aenqueue(2)

    with Harbor(JoiningDriver(), registry=own) as worked:
        job = send.enqueue()
        with worked.using(connection):
            worked.run_until_idle()
        in_store = [job.payload for job in worked.jobs.find(tasks=[anote.name])]

        assert job.status().state is JobState.SUCCEEDED
    assert ([], [payload(2)], [payload(1)]) == (numbers(connection), numbers(inner), in_store)


def test_a_block_that_ends_while_a_child_is_sending_says_so(connection: Connection) -> None:
    """Whether that job is part of the transaction would be a matter of luck."""

    async def main() -> None:
        came_in, go_on = asyncio.Event(), asyncio.Event()
        children: list[asyncio.Task[object]] = []

        async def gate() -> None:
            came_in.set()
            await go_on.wait()

        async def leave_one_behind(harbor: Harbor) -> None:
            with harbor.using(connection):
                children.append(asyncio.create_task(anote.aenqueue(1)))
                await came_in.wait()

        connection.gate = gate
        async with Harbor(JoiningDriver(), registry=registry) as harbor:
            with pytest.raises(UsageError, match=r"1 enqueue\(s\) begun inside .* await the tasks"):
                await leave_one_behind(harbor)
            go_on.set()
            await asyncio.gather(*children)

    asyncio.run(main())

    assert 1 == connection.left


def test_an_error_of_the_block_comes_before_what_its_children_left(
    harbor: Harbor, connection: Connection
) -> None:
    async def main() -> None:
        children: list[asyncio.Task[object]] = []

        async def fail() -> None:
            with harbor.using(connection):
                children.append(asyncio.create_task(asyncio.to_thread(note.enqueue, 1)))
                await asyncio.to_thread(await_event, connection.met)
                raise ZeroDivisionError

        connection.hold.clear()
        with pytest.raises(ZeroDivisionError):
            await fail()
        connection.hold.set()
        await asyncio.gather(*children)

    asyncio.run(main())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_is_refused_inside_the_block(harbor: Harbor, connection: Connection) -> None:
    with harbor.using(connection):
        child = fork()
        if child == 0:  # pragma: no cover - the other process
            try:
                note.enqueue(1)
            except UsageError as error:
                os._exit(0 if "forked inside" in str(error) and not connection.held else 2)
            os._exit(1)
        _, status = os.waitpid(child, 0)

    assert 0 == os.waitstatus_to_exitcode(status)


# --- what is refused


def test_a_driver_that_cannot_join_is_refused_with_what_it_can(connection: Connection) -> None:
    with Harbor("memory://", registry=registry) as harbor:
        with (
            pytest.raises(
                UnsupportedError, match=r"'memory' does not offer 'transactional'.*harbor\.using\(\)"
            ),
            harbor.using(connection),
        ):
            pytest.fail("the block was entered")
        note.enqueue(1)

        assert 1 == len(stored(harbor))


def test_what_is_no_connection_is_refused_before_the_block(harbor: Harbor) -> None:
    with pytest.raises(UsageError, match="expected a Connection"), harbor.using(object()):
        pytest.fail("the block was entered")

    note.enqueue(1)

    assert [payload(1)] == stored(harbor)


def test_a_driver_that_only_claims_to_join_is_found_out(connection: Connection) -> None:
    class Boasting(MemoryDriver):
        capabilities = frozenset({Capability.TRANSACTIONAL})

    harbor = Harbor(Boasting(), registry=registry)

    with pytest.raises(StoreError, match="has no `join`; this is a bug in it"), harbor.using(connection):
        pytest.fail("the block was entered")
