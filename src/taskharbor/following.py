"""What handles ask about a job that was sent: how it stands, to cancel it, and to wait for its end."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from taskharbor.awaiting import aawait_standing, await_standing
from taskharbor.call import sheltered
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
        return await_standing(self._driver, job_id, timeout, lambda: self.look(job_id), _is_over)

    async def aawait_end(self, job_id: str, timeout: timedelta | None) -> JobRecord:
        """Wait until the job is terminal; raises `ResultTimeout`, `JobNotFound`."""
        return await aawait_standing(self._driver, job_id, timeout, lambda: self.alook(job_id), _is_over)


def _is_over(record: JobRecord) -> bool:
    return record.state in TERMINAL


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
