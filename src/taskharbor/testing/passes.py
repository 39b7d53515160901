"""Working until nothing is due: one pass of a worker after the other, and the clock turned in between."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from datetime import datetime, timedelta
from typing import TypeVar, cast

from taskharbor.driver import JobFind, JobGet, QueueList, ScheduleFind, Store
from taskharbor.drivers.memory import MemoryDriver
from taskharbor.job import JobRecord, JobState

T = TypeVar("T")

_PAGE = 1000
_MOST_SCHEDULES = 100_000
_DUE_LATER = (JobState.SCHEDULED, JobState.RETRYING)


def at_once(work: Coroutine[object, object, T]) -> T:
    """Return what a coroutine over a memory store returns. No event loop is needed, and none is in the way.

    Such a coroutine waits for nothing: it gives its loop a turn, and needs none.
    """
    while True:
        try:
            waits_for = work.send(None)
        except StopIteration as ended:
            return cast("T", ended.value)
        assert waits_for is None  # noqa: S101 - a bare turn


def jobs_in(driver: MemoryDriver, *states: JobState) -> Iterator[JobRecord]:
    """Yield the jobs in some states, or all, in the order in which they were enqueued."""
    after = ""
    while True:
        page = at_once(_page(driver, states, after))
        yield from page
        if len(page) < _PAGE:
            return
        after = page[-1].id


async def _page(driver: MemoryDriver, states: tuple[JobState, ...], after: str) -> list[JobRecord]:
    async with driver.connect() as store:
        found = await store.job_find(JobFind(states=frozenset(states), after=after, limit=_PAGE))
        return [await _whole(store, record) for record in found]


async def _whole(store: Store, record: JobRecord) -> JobRecord:
    """Return a step of a flow with what earlier ones gave it, which a look-up by id tells alone."""
    if record.flow is None:
        return record
    (whole,) = await store.job_get(JobGet(ids=[record.id]))
    return whole or record


def queues_of(driver: MemoryDriver) -> dict[str, int]:
    """Return the queues that hold jobs, each with how many could run now."""

    async def ask() -> dict[str, int]:
        async with driver.connect() as store:
            return {
                info.name: 0 if info.paused else info.ready for info in await store.queue_list(QueueList())
            }

    return at_once(ask())


def next_due(driver: MemoryDriver) -> datetime | None:
    """Return when the next scheduled or retrying job is due, or the next schedule is to fire; None if there is none."""
    jobs = [job.due_at or job.run_at for job in jobs_in(driver, *_DUE_LATER)]
    return min([*jobs, *at_once(_next_ticks(driver))], default=None)


async def _next_ticks(driver: MemoryDriver) -> list[datetime]:
    async with driver.connect() as store:
        found = await store.schedule_find(ScheduleFind(limit=_MOST_SCHEDULES))
    return [record.next_at for record in found if record.next_at is not None and record.paused_at is None]


def turned(driver: MemoryDriver, now: datetime, until: datetime) -> timedelta | None:
    """Return by how much to turn the clock for the next job to be due; None if none is due until then."""
    due = next_due(driver)
    return None if due is None or due > until else max(due - now, timedelta(0))
