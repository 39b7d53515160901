"""The feed and searches of the memory driver: cursors of another store, and the order that is kept between pages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from taskharbor.driver import EventAppend, EventPage, EventRead, EventWatch, JobFind
from taskharbor.drivers.memory import MemoryDriver
from taskharbor.event import JobRequeued
from taskharbor.job import new_job_id
from taskharbor_conformance.bench import DAY, Bench, new_job

T = TypeVar("T")


class OpenDriver(MemoryDriver):
    """One that lets its order of ids be seen."""

    def order(self) -> int:
        """Return how many ids it holds."""
        return len(self._tables.order or ())


def with_bench(driver: MemoryDriver, work: Callable[[Bench], Awaitable[T]]) -> T:
    """Return what `work` returns, run with a bench on a driver."""

    async def main() -> T:
        async with Bench(driver, lambda: driver) as bench:
            return await work(bench)

    return asyncio.run(main())


async def tell(bench: Bench) -> str:
    """Append two events, and return the cursor after them."""
    cursor = (await bench.store.event_watch(EventWatch(reader="reader", ttl=DAY))).cursor
    events = [
        JobRequeued(id=new_job_id(), at=bench.now, job_id=new_job_id(), task="task", queue="default")
        for _ in range(2)
    ]
    await bench.store.event_append(EventAppend(events=events))
    return (await bench.store.event_read(EventRead(after=cursor))).cursor


def test_whoever_has_a_cursor_of_a_store_that_is_gone_is_told_that_he_missed_something() -> None:
    driver = MemoryDriver()
    cursor = with_bench(MemoryDriver(), tell)
    with_bench(driver, tell)

    async def read(bench: Bench) -> list[EventPage]:
        page = await bench.store.event_read(EventRead(after=cursor))
        return [page, await bench.store.event_read(EventRead(after=page.cursor))]

    pages = with_bench(driver, read)

    assert [(2, True), (0, False)] == [(len(page.events), page.missed) for page in pages]


def test_the_order_of_ids_is_not_made_anew_for_each_page_and_holds_no_more_than_it_must() -> None:
    driver = OpenDriver()

    async def purge(bench: Bench) -> list[int]:
        jobs = [new_job() for _ in range(5000)]
        await bench.enqueue_all(*jobs)
        orders: list[int] = []
        while found := await bench.store.job_find(JobFind(limit=500)):
            orders.append(driver.order())
            await bench.delete(*(record.id for record in found))
        orders.append(driver.order())
        return orders

    orders = with_bench(driver, purge)

    assert 11 == len(orders)
    assert 5000 == orders[0] == orders[1], "kept from page to page"
    assert orders[-1] <= 1000, "and not with all that is gone"
