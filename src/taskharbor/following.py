"""What handles ask about a job that was sent: how it stands, to cancel it, and to wait for its end."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from datetime import timedelta

from taskharbor.call import WaitLimit, sheltered
from taskharbor.connections import Connections
from taskharbor.control import not_found
from taskharbor.driver import CancelStatus, Driver, JobCancel, JobGet
from taskharbor.job import TERMINAL, JobRecord


class Follower:
    """Follows the jobs of one harbor, by its own connections."""

    def __init__(self, driver: Driver, connections: Connections) -> None:
        self._driver = driver
        self._connections = connections

    def look(self, job_id: str) -> JobRecord:
        """Return what the store knows of a job; raises `JobNotFound`."""
        with sheltered():
            return _found(self._connections.producer().job_get(JobGet(ids=[job_id])), job_id)

    async def alook(self, job_id: str) -> JobRecord:
        """Return what the store knows of a job; raises `JobNotFound`."""
        store = await self._connections.store()
        return _found(await store.job_get(JobGet(ids=[job_id])), job_id)

    def cancel(self, job_id: str, reason: str) -> bool:
        """Ask for a cancel; return False if the job had ended already. Raises `JobNotFound`."""
        request = JobCancel(ids=[job_id], reason=reason)
        with sheltered():
            return _cancelled(self._connections.producer().job_cancel(request), job_id)

    async def acancel(self, job_id: str, reason: str) -> bool:
        """Ask for a cancel; return False if the job had ended already. Raises `JobNotFound`."""
        store = await self._connections.store()
        return _cancelled(await store.job_cancel(JobCancel(ids=[job_id], reason=reason)), job_id)

    def await_end(self, job_id: str, timeout: timedelta | None) -> JobRecord:
        """Block until the job is terminal; raises `ResultTimeout`, `JobNotFound`."""
        ended = threading.Event()
        limit = WaitLimit(job_id, timeout, self._driver.poll_interval)
        subscription = self._driver.watch_jobs([job_id], ended.set)
        try:
            while True:
                ended.clear()
                record = self.look(job_id)
                if record.state in TERMINAL:
                    return record
                ended.wait(limit.next_wait(record.state, record.reason))
        finally:
            subscription.close()

    async def aawait_end(self, job_id: str, timeout: timedelta | None) -> JobRecord:
        """Wait until the job is terminal; raises `ResultTimeout`, `JobNotFound`."""
        import asyncio

        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has closed
                loop.call_soon_threadsafe(ended.set)

        limit = WaitLimit(job_id, timeout, self._driver.poll_interval)
        subscription = self._driver.watch_jobs([job_id], wake)
        try:
            while True:
                ended.clear()
                record = await self.alook(job_id)
                if record.state in TERMINAL:
                    return record
                wait = limit.next_wait(record.state, record.reason)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(ended.wait(), wait)
        finally:
            subscription.close()


def _found(records: Sequence[JobRecord | None], job_id: str) -> JobRecord:
    (record,) = records
    if record is None:
        raise not_found(job_id)
    return record


def _cancelled(answers: Sequence[CancelStatus], job_id: str) -> bool:
    (status,) = answers
    if status is CancelStatus.MISSING:
        raise not_found(job_id)
    return status is not CancelStatus.FINISHED
