"""`harbor.jobs`: looking at jobs, and acting on them by hand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from typing_extensions import Unpack

from taskharbor.audit import Act
from taskharbor.call import refuse_on_loop
from taskharbor.control.acts import make_act, told_names
from taskharbor.control.asking import Asks, check_notes, id_list, not_found
from taskharbor.control.choosing import JobFilters, count_request, find_request, state_set
from taskharbor.driver import (
    CancelStatus,
    Counted,
    DeleteStatus,
    JobCancel,
    JobDelete,
    JobGet,
    JobRequeue,
    RequeueStatus,
    Store,
)
from taskharbor.job import JobRecord, JobState
from taskharbor.telemetry import Hub
from taskharbor.telemetry.announcing import tell_requeued

T = TypeVar("T")


class Jobs:
    """Looking at jobs, and acting on them by hand. Every method has an `a` form for event loops."""

    def __init__(self, asks: Asks, hub: Hub) -> None:
        """Made by the harbor; `hub` is told of what is requeued."""
        self._asks = asks
        self._hub = hub

    def get(self, job_id: str) -> JobRecord:
        """Return all that the store knows of a job.

        Raises:
            JobNotFound: it does not know it (any more).
        """
        id_list([job_id])
        return self._block("get", lambda store: _get(store, job_id))

    async def aget(self, job_id: str) -> JobRecord:
        """Return all that the store knows of a job; the async form of `get`."""
        id_list([job_id])
        return await self._asks.aask(lambda store: _get(store, job_id))

    def find(
        self,
        *,
        states: Iterable[JobState] = (),
        key: str | None = None,
        flow: str = "",
        after: str = "",
        limit: int = 100,
        newest_first: bool = False,
        payloads: bool = True,
        **filters: Unpack[JobFilters],
    ) -> Sequence[JobRecord]:
        """Return jobs in the order they were enqueued, or the other way round, at most `limit`.

        For the next page pass the last job's id as `after`.

        Args:
            states: only jobs in these; empty for any.
            key: only the job with this idempotency key.
            flow: only steps of this flow, by its id.
            after: only ids beyond this one.
            limit: how many at most.
            newest_first: those enqueued last first; `after` then asks for earlier ones.
            payloads: False leaves what may be large where it is: the records' `payload` is empty then, and their
                `result` None.
            **filters: further ones, by queue, task, error, text and time: see `JobFilters`.

        Raises:
            OptionError: a filter that does not exist, or a value that cannot be.
        """
        request = find_request(
            states, key, flow, after, limit, newest_first=newest_first, payloads=payloads, **filters
        )
        return self._block("find", lambda store: store.job_find(request))

    async def afind(
        self,
        *,
        states: Iterable[JobState] = (),
        key: str | None = None,
        flow: str = "",
        after: str = "",
        limit: int = 100,
        newest_first: bool = False,
        payloads: bool = True,
        **filters: Unpack[JobFilters],
    ) -> Sequence[JobRecord]:
        """Return jobs in the order they were enqueued; the async form of `find`."""
        request = find_request(
            states, key, flow, after, limit, newest_first=newest_first, payloads=payloads, **filters
        )
        return await self._asks.aask(lambda store: store.job_find(request))

    def count(self, **filters: Unpack[JobFilters]) -> Sequence[Counted]:
        """Return how many jobs there are, by queue, task and state; of those that the filters let through.

        Raises:
            OptionError: a filter that does not exist, or a value that cannot be.
        """
        request = count_request(**filters)
        return self._block("count", lambda store: store.job_count(request))

    async def acount(self, **filters: Unpack[JobFilters]) -> Sequence[Counted]:
        """Return how many jobs there are; the async form of `count`."""
        request = count_request(**filters)
        return await self._asks.aask(lambda store: store.job_count(request))

    def cancel(
        self, ids: Sequence[str], *, reason: str = "", by: str = "", act: Act | None = None
    ) -> Sequence[CancelStatus]:
        """Cancel jobs and return one answer each, in order. Recorded on the job, and in the audit trail.

        With `act`, made by `harbor.audit.act(...)`, several calls are one entry of the trail; so with those below.
        """
        request = _cancel(ids, reason, by, act)
        return self._block("cancel", lambda store: store.job_cancel(request))

    async def acancel(
        self, ids: Sequence[str], *, reason: str = "", by: str = "", act: Act | None = None
    ) -> Sequence[CancelStatus]:
        """Cancel jobs; the async form of `cancel`."""
        request = _cancel(ids, reason, by, act)
        return await self._asks.aask(lambda store: store.job_cancel(request))

    def requeue(
        self,
        ids: Sequence[str],
        *,
        states: Iterable[JobState] = (),
        reason: str = "",
        by: str = "",
        act: Act | None = None,
    ) -> Sequence[RequeueStatus]:
        """Make dead or cancelled jobs ready again with all their attempts, and return one answer each, in order.

        Recorded on the job, and in the audit trail. With `states` only those that are in one of these at that instant:
        the others answer `NOT_DEAD`.
        """
        request = _requeue(ids, states, reason, by, act)
        return self._block("requeue", lambda store: self._requeue(store, request))

    async def arequeue(
        self,
        ids: Sequence[str],
        *,
        states: Iterable[JobState] = (),
        reason: str = "",
        by: str = "",
        act: Act | None = None,
    ) -> Sequence[RequeueStatus]:
        """Make dead or cancelled jobs ready again; the async form of `requeue`."""
        request = _requeue(ids, states, reason, by, act)
        return await self._asks.aask(lambda store: self._requeue(store, request))

    async def _requeue(self, store: Store, request: JobRequeue) -> Sequence[RequeueStatus]:
        answers = await store.job_requeue(request)
        await tell_requeued(self._hub, store, request.ids, answers)
        return answers

    def delete(
        self,
        ids: Sequence[str],
        *,
        states: Iterable[JobState] = (),
        reason: str = "",
        by: str = "",
        act: Act | None = None,
    ) -> Sequence[DeleteStatus]:
        """Remove jobs for good, and return one answer each, in order. Running ones are left.

        With `states` only those that are in one of these at that instant: the others answer `OTHER_STATE`, as a dead
        letter that somebody has requeued since it was listed. `reason` and `by` are kept in the audit trail.
        """
        request = _delete(ids, states, reason, by, act)
        return self._block("delete", lambda store: store.job_delete(request))

    async def adelete(
        self,
        ids: Sequence[str],
        *,
        states: Iterable[JobState] = (),
        reason: str = "",
        by: str = "",
        act: Act | None = None,
    ) -> Sequence[DeleteStatus]:
        """Remove jobs for good; the async form of `delete`."""
        request = _delete(ids, states, reason, by, act)
        return await self._asks.aask(lambda store: store.job_delete(request))

    def _block(self, name: str, work: Callable[[Store], Awaitable[T]]) -> T:
        refuse_on_loop(f"harbor.jobs.{name}()", f"harbor.jobs.a{name}(...)")
        return self._asks.ask(work)


def _cancel(ids: Sequence[str], reason: str, by: str, act: Act | None) -> JobCancel:
    check_notes(reason, by)
    wanted = id_list(ids)
    return JobCancel(ids=wanted, reason=reason, by=by, act=act or _act("jobs.cancel", wanted, reason, by))


def _requeue(
    ids: Sequence[str], states: Iterable[JobState], reason: str, by: str, act: Act | None
) -> JobRequeue:
    check_notes(reason, by)
    wanted = id_list(ids)
    act = act or _act("jobs.requeue", wanted, reason, by)
    return JobRequeue(ids=wanted, states=state_set(states), reason=reason, by=by, act=act)


def _delete(
    ids: Sequence[str], states: Iterable[JobState], reason: str, by: str, act: Act | None
) -> JobDelete:
    wanted = id_list(ids)
    act = act or _act("jobs.delete", wanted, reason, by)
    return JobDelete(ids=wanted, states=state_set(states), act=act)


def _act(action: str, ids: Sequence[str], reason: str, by: str) -> Act:
    return make_act(action, told_names(ids), by=by, reason=reason)


async def _get(store: Store, job_id: str) -> JobRecord:
    (record,) = await store.job_get(JobGet(ids=[job_id]))
    if record is None:
        raise not_found(job_id)
    return record
