"""What an operator can do by hand: `harbor.jobs` and `harbor.queues`, in blocking and `a` forms."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol, TypeVar, cast

from taskharbor.call import refuse_on_loop
from taskharbor.call.options import check_note
from taskharbor.driver import (
    CancelStatus,
    Counted,
    DeleteStatus,
    JobCancel,
    JobCount,
    JobDelete,
    JobFind,
    JobGet,
    JobRequeue,
    QueueInfo,
    QueueList,
    QueuePause,
    QueueResume,
    RequeueStatus,
    Store,
)
from taskharbor.errors import JobNotFound, OptionError
from taskharbor.job import JobRecord, JobState

T = TypeVar("T")


class Asks(Protocol):
    """How the store is reached, in both colours."""

    def ask(self, work: Callable[[Store], Awaitable[T]], /) -> T:
        """Return what `work` returns, blocking."""
        ...

    async def aask(self, work: Callable[[Store], Awaitable[T]], /) -> T:
        """Return what `work` returns."""
        ...


def not_found(job_id: str) -> JobNotFound:
    """Return the error for an id that the store does not know."""
    return JobNotFound(
        f"no job has the id {job_id!r}: it never had one, was deleted, its task's `retain` has passed, or it was sent "
        "in a transaction that is not committed yet",
        job_id=job_id,
    )


class Jobs:
    """Looking at jobs, and acting on them by hand. Every method has an `a` form for event loops."""

    def __init__(self, asks: Asks) -> None:
        """Made by the harbor."""
        self._asks = asks

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
        queues: Iterable[str] = (),
        tasks: Iterable[str] = (),
        key: str | None = None,
        flow: str = "",
        after: str = "",
        limit: int = 100,
        newest_first: bool = False,
    ) -> Sequence[JobRecord]:
        """Return jobs in the order they were enqueued, or the other way round, at most `limit`.

        An empty filter means any. For the next page pass the last job's id as `after`.
        """
        request = _find(states, queues, tasks, key, flow, after, limit, newest_first=newest_first)
        return self._block("find", lambda store: store.job_find(request))

    async def afind(
        self,
        *,
        states: Iterable[JobState] = (),
        queues: Iterable[str] = (),
        tasks: Iterable[str] = (),
        key: str | None = None,
        flow: str = "",
        after: str = "",
        limit: int = 100,
        newest_first: bool = False,
    ) -> Sequence[JobRecord]:
        """Return jobs in the order they were enqueued; the async form of `find`."""
        request = _find(states, queues, tasks, key, flow, after, limit, newest_first=newest_first)
        return await self._asks.aask(lambda store: store.job_find(request))

    def count(self, *, queues: Iterable[str] = (), tasks: Iterable[str] = ()) -> Sequence[Counted]:
        """Return how many jobs there are, by queue, task and state."""
        request = JobCount(queues=name_set(queues, "queues"), tasks=name_set(tasks, "tasks"))
        return self._block("count", lambda store: store.job_count(request))

    async def acount(self, *, queues: Iterable[str] = (), tasks: Iterable[str] = ()) -> Sequence[Counted]:
        """Return how many jobs there are; the async form of `count`."""
        request = JobCount(queues=name_set(queues, "queues"), tasks=name_set(tasks, "tasks"))
        return await self._asks.aask(lambda store: store.job_count(request))

    def cancel(self, ids: Sequence[str], *, reason: str = "", by: str = "") -> Sequence[CancelStatus]:
        """Cancel jobs and return one answer each, in order. Recorded on the job."""
        _check_notes(reason, by)
        request = JobCancel(ids=id_list(ids), reason=reason, by=by)
        return self._block("cancel", lambda store: store.job_cancel(request))

    async def acancel(self, ids: Sequence[str], *, reason: str = "", by: str = "") -> Sequence[CancelStatus]:
        """Cancel jobs; the async form of `cancel`."""
        _check_notes(reason, by)
        request = JobCancel(ids=id_list(ids), reason=reason, by=by)
        return await self._asks.aask(lambda store: store.job_cancel(request))

    def requeue(self, ids: Sequence[str], *, reason: str = "", by: str = "") -> Sequence[RequeueStatus]:
        """Make dead or cancelled jobs ready again with all their attempts, and return one answer each, in order.

        Recorded on the job.
        """
        _check_notes(reason, by)
        request = JobRequeue(ids=id_list(ids), reason=reason, by=by)
        return self._block("requeue", lambda store: store.job_requeue(request))

    async def arequeue(
        self, ids: Sequence[str], *, reason: str = "", by: str = ""
    ) -> Sequence[RequeueStatus]:
        """Make dead or cancelled jobs ready again; the async form of `requeue`."""
        _check_notes(reason, by)
        request = JobRequeue(ids=id_list(ids), reason=reason, by=by)
        return await self._asks.aask(lambda store: store.job_requeue(request))

    def delete(self, ids: Sequence[str]) -> Sequence[DeleteStatus]:
        """Remove jobs for good, and return one answer each, in order. Running ones are left."""
        request = JobDelete(ids=id_list(ids))
        return self._block("delete", lambda store: store.job_delete(request))

    async def adelete(self, ids: Sequence[str]) -> Sequence[DeleteStatus]:
        """Remove jobs for good; the async form of `delete`."""
        request = JobDelete(ids=id_list(ids))
        return await self._asks.aask(lambda store: store.job_delete(request))

    def _block(self, name: str, work: Callable[[Store], Awaitable[T]]) -> T:
        refuse_on_loop(f"harbor.jobs.{name}()", f"harbor.jobs.a{name}(...)")
        return self._asks.ask(work)


class Queues:
    """Whole queues. Every method has an `a` form for event loops."""

    def __init__(self, asks: Asks) -> None:
        """Made by the harbor."""
        self._asks = asks

    def pause(self, *queues: str, reason: str = "", by: str = "") -> None:
        """Stop workers from taking jobs of these queues, at once; what runs goes on, and enqueue goes on."""
        _check_notes(reason, by)
        request = QueuePause(queues=_some(queues), reason=reason, by=by)
        self._block("pause", lambda store: store.queue_pause(request))

    async def apause(self, *queues: str, reason: str = "", by: str = "") -> None:
        """Stop workers from taking jobs of these queues; the async form of `pause`."""
        _check_notes(reason, by)
        request = QueuePause(queues=_some(queues), reason=reason, by=by)
        await self._asks.aask(lambda store: store.queue_pause(request))

    def resume(self, *queues: str) -> None:
        """Let workers take jobs of these queues again."""
        self._block("resume", lambda store: store.queue_resume(QueueResume(queues=_some(queues))))

    async def aresume(self, *queues: str) -> None:
        """Let workers take jobs of these queues again; the async form of `resume`."""
        await self._asks.aask(lambda store: store.queue_resume(QueueResume(queues=_some(queues))))

    def list(self) -> Sequence[QueueInfo]:
        """Return every queue that holds live jobs or is paused, sorted by name."""
        return self._block("list", lambda store: store.queue_list(QueueList()))

    async def alist(self) -> Sequence[QueueInfo]:
        """Return every queue that holds live jobs or is paused; the async form of `list`."""
        return await self._asks.aask(lambda store: store.queue_list(QueueList()))

    def _block(self, name: str, work: Callable[[Store], Awaitable[T]]) -> T:
        refuse_on_loop(f"harbor.queues.{name}()", f"harbor.queues.a{name}(...)")
        return self._asks.ask(work)


async def _get(store: Store, job_id: str) -> JobRecord:
    (record,) = await store.job_get(JobGet(ids=[job_id]))
    if record is None:
        raise not_found(job_id)
    return record


def _find(
    states: Iterable[JobState],
    queues: Iterable[str],
    tasks: Iterable[str],
    key: str | None,
    flow: str,
    after: str,
    limit: int,
    *,
    newest_first: bool,
) -> JobFind:
    if limit < 1:
        raise OptionError(f"limit={limit!r}: expected at least 1")
    names = name_set(states, "states")
    try:
        wanted = frozenset(JobState(state) for state in names)
    except ValueError as error:
        raise OptionError(f"states: {error}; expected some of {', '.join(JobState)}") from error
    return JobFind(
        states=wanted,
        queues=name_set(queues, "queues"),
        tasks=name_set(tasks, "tasks"),
        key=key,
        flow=flow,
        after=after,
        limit=limit,
        newest_first=newest_first,
    )


def _check_notes(reason: str, by: str) -> None:
    check_note(reason, "reason")
    check_note(by, "by")


def id_list(ids: Sequence[str]) -> Sequence[str]:
    """Return ids as a list; raises `OptionError` for what is none."""
    return _texts(ids, "ids", "ids, such as [handle.id]")


def name_set(names: Iterable[str], what: str) -> frozenset[str]:
    """Return names as a set; raises `OptionError` for what is none."""
    return frozenset(_texts(names, what, "names, such as [task.name]" if what == "tasks" else "names"))


def _some(queues: Sequence[str]) -> Sequence[str]:
    if not queues:
        raise OptionError("no queue was named; name one or more")
    return _texts(queues, "queues", "names, one by one")


def _texts(given: object, what: str, wanted: str) -> list[str]:
    """Return texts as a list: a text by itself would be taken for its letters, and other things match nothing."""
    found: list[str] = []
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise OptionError(f"{what}={given!r}: expected a list of {wanted}")
    for one in cast("Iterable[object]", given):
        if not isinstance(one, str):
            raise OptionError(f"{what}: expected {wanted}; got {one!r}")
        found.append(one)
    return found
