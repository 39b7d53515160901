"""Enqueues asked at once on one event loop are written together, each answered for itself."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

import pytest

from taskharbor.driver import Enqueued, EnqueueStatus, JobEnqueue
from taskharbor.drivers.postgres.gathering import Gathering
from taskharbor.errors import StoreError, StoreUnavailable
from taskharbor.job import NewJob, new_job_id


def request(count: int = 1, *, key: str | None = None, now: datetime | None = None) -> JobEnqueue:
    """Return a request for so many jobs."""
    jobs = [
        NewJob(id=new_job_id(), task="greet", payload=b"{}", codec="json", fingerprint=1, key=key)
        for _ in range(count)
    ]
    return JobEnqueue(jobs=jobs, all_or_none=True, now=now)


def ids(asked: JobEnqueue) -> list[str]:
    return [job.id for job in asked.jobs]


class Writer:
    """Stands for the store: each request waits until it is let go."""

    def __init__(self, error: Callable[[JobEnqueue], Exception | None] = lambda _: None) -> None:
        self.asked: list[JobEnqueue] = []
        self._error = error
        self._arrived = asyncio.Event()
        self._go = asyncio.Event()

    async def __call__(self, asked: JobEnqueue) -> Sequence[Enqueued]:
        self.asked.append(asked)
        self._arrived.set()
        await self._go.wait()
        error = self._error(asked)
        if error is not None:
            raise error
        return [Enqueued(EnqueueStatus.CREATED, job_id) for job_id in ids(asked)]

    async def arrived(self) -> None:
        """Wait until something is asked."""
        await self._arrived.wait()

    def let_go(self) -> None:
        """Answer everything from now on."""
        self._go.set()


def run(body: Awaitable[None]) -> None:
    async def main() -> None:
        async with asyncio.timeout(30):
            await body

    asyncio.run(main())


def test_what_is_asked_while_one_is_written_goes_together() -> None:
    async def body() -> None:
        writer = Writer()
        gathering = Gathering(writer)
        requests = [request(), request(2), request(), request(3)]
        first = asyncio.create_task(gathering.enqueue(requests[0]))
        await writer.arrived()
        others = [asyncio.create_task(gathering.enqueue(asked)) for asked in requests[1:]]
        await asyncio.sleep(0)
        writer.let_go()

        answers = [await first, *[await other for other in others]]

        assert [ids(asked) for asked in requests] == [[each.job_id for each in given] for given in answers]
        assert [1, 6] == [len(asked.jobs) for asked in writer.asked]

    run(body())


@pytest.mark.parametrize(
    "asked",
    [request(key="order-1"), request(11), request(now=datetime.now(UTC))],
    ids=["key", "large", "now"],
)
def test_some_are_never_joined(asked: JobEnqueue) -> None:
    async def body() -> None:
        writer = Writer()
        gathering = Gathering(writer)
        first = asyncio.create_task(gathering.enqueue(request()))
        await writer.arrived()
        alone = asyncio.create_task(gathering.enqueue(asked))
        await asyncio.sleep(0)

        assert [1, len(asked.jobs)] == [len(each.jobs) for each in writer.asked]

        writer.let_go()
        await asyncio.gather(first, alone)

    run(body())


def test_a_caller_who_gives_up_does_not_take_the_others_with_him() -> None:
    async def body() -> None:
        writer = Writer()
        gathering = Gathering(writer)
        first = asyncio.create_task(gathering.enqueue(request()))
        await writer.arrived()
        gone, second = (asyncio.create_task(gathering.enqueue(request())) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        gone.cancel()
        await asyncio.wait([first, gone])
        writer.let_go()

        assert [EnqueueStatus.CREATED] == [answer.status for answer in await second]
        assert [1, 1] == [len(asked.jobs) for asked in writer.asked]

    run(body())


def test_an_outage_is_told_to_all_of_them_and_not_asked_again() -> None:
    async def body() -> None:
        writer = Writer(lambda _: StoreUnavailable("the server is gone"))
        gathering = Gathering(writer)
        callers = [asyncio.create_task(gathering.enqueue(request())) for _ in range(5)]
        await writer.arrived()
        writer.let_go()

        found = await asyncio.gather(*callers, return_exceptions=True)

        assert [StoreUnavailable] * 5 == [type(error) for error in found]
        assert 1 <= len(writer.asked) <= 2

    run(body())


def test_what_one_of_them_may_have_done_wrong_is_no_fault_of_the_others() -> None:
    async def body() -> None:
        bad = request()
        writer = Writer(lambda asked: StoreError("not this") if ids(bad)[0] in ids(asked) else None)
        gathering = Gathering(writer)
        good = [asyncio.create_task(gathering.enqueue(request())) for _ in range(2)]
        refused = asyncio.create_task(gathering.enqueue(bad))
        await writer.arrived()
        writer.let_go()

        answers = await asyncio.gather(*good)
        with pytest.raises(StoreError, match="not this"):
            await refused

        assert [EnqueueStatus.CREATED] * 2 == [each.status for given in answers for each in given]

    run(body())


def test_closing_waits_for_the_answers() -> None:
    async def body() -> None:
        writer = Writer()
        gathering = Gathering(writer)
        caller = asyncio.create_task(gathering.enqueue(request()))
        await writer.arrived()
        closing = asyncio.create_task(gathering.close())
        await asyncio.sleep(0)
        before = closing.done()
        writer.let_go()
        await closing

        assert (False, 1) == (before, len(await caller))

    run(body())
