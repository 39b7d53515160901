"""What a producer holds after an enqueue: a typed handle on the stored job."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Generic, cast

import msgspec
from typing_extensions import TypeVar

from taskharbor.call.call import Callee
from taskharbor.call.dispatcher import Dispatcher, refuse_in_handler, refuse_on_loop
from taskharbor.call.options import check_note
from taskharbor.codec import found_codec
from taskharbor.errors import JobCancelled, JobFailed, PayloadError, ResultNotKept, UsageError
from taskharbor.job import AttemptError, JobRecord, JobState
from taskharbor.report import LogLine, Progress

R_co = TypeVar("R_co", covariant=True)


class JobStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Where a job stands, at one instant."""

    state: JobState
    attempt: int
    """Attempts charged so far."""
    max_attempts: int
    run_at: datetime
    enqueued_at: datetime
    due_at: datetime | None
    """When it may be taken next; None while it is running and once it has ended."""
    finished_at: datetime | None
    reason: str
    """Why it is parked, dead or cancelled."""
    errors: tuple[AttemptError, ...]
    """Why each failed attempt failed, oldest first."""
    partition: str | None = None
    """Of a task with limits, or that takes turns: which line the job stands in."""


class JobHandle(Generic[R_co]):
    """A stored job, and the way to its result.

    Handles come from `task.enqueue(...)` and `task.handle(job_id)`. Each method has an `a` form for event loops; the
    blocking form refuses to run on one.
    """

    __slots__ = ("_callee", "_dispatcher", "created", "id")

    id: str
    """The job's id, a UUIDv7."""
    created: bool
    """False when a key matched: the job was there before, as it is or, where the call replaces, as the call is."""

    def __init__(self, dispatcher: Dispatcher, callee: Callee, job_id: str, *, created: bool) -> None:
        """Made by TaskHarbor; to get a handle back from an id, call `task.handle(job_id)`."""
        self._dispatcher = dispatcher
        self._callee = callee
        self.id = job_id
        self.created = created

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} of {self._callee.name}>"

    def status(self) -> JobStatus:
        """Return where the job stands.

        Raises:
            JobNotFound: the store has no such job (any more).
            BlockingCallError: on a running event loop.
        """
        refuse_on_loop("JobHandle.status()", "handle.astatus()")
        return status_of(self._dispatcher.look(self.id))

    async def astatus(self) -> JobStatus:
        """Return where the job stands; the async form of `status`."""
        return status_of(await self._dispatcher.alook(self.id))

    def progress(self) -> Progress | None:
        """Return how far the handler last said the job is (`ctx.progress`), in whatever attempt; None if it never did.

        Raises:
            JobNotFound: the store has no such job (any more).
            BlockingCallError: on a running event loop.
        """
        refuse_on_loop("JobHandle.progress()", "handle.aprogress()")
        return self._dispatcher.look(self.id).progress

    async def aprogress(self) -> Progress | None:
        """Return how far the handler last said the job is; the async form of `progress`."""
        return (await self._dispatcher.alook(self.id)).progress

    def log(self) -> tuple[LogLine, ...]:
        """Return the last lines that the handler wrote (`ctx.log`), in all attempts, oldest first; at most 200.

        Raises:
            JobNotFound: the store has no such job (any more).
            BlockingCallError: on a running event loop.
        """
        refuse_on_loop("JobHandle.log()", "handle.alog()")
        return self._dispatcher.look(self.id).log

    async def alog(self) -> tuple[LogLine, ...]:
        """Return the last lines that the handler wrote; the async form of `log`."""
        return (await self._dispatcher.alook(self.id)).log

    def result(self, timeout: timedelta | None = None) -> R_co:
        """Wait until the job has ended, and return what its handler returned.

        Args:
            timeout: how long to wait; None waits for ever.

        Raises:
            JobFailed: it is a dead letter; the error tells why.
            JobCancelled: it was cancelled.
            ResultTimeout: it had not ended in time; it goes on.
            ResultNotKept: its task keeps no result.
            JobNotFound: the store has no such job (any more).
            DeadlockError: called inside a handler.
            BlockingCallError: called on a running event loop.
        """
        refuse_in_handler("JobHandle.result()")
        refuse_on_loop("JobHandle.result()", "handle.aresult()")
        self._refuse_unkept()
        return self._read(self._dispatcher.await_end(self.id, timeout))

    async def aresult(self, timeout: timedelta | None = None) -> R_co:
        """Wait until the job has ended, and return what its handler returned; the async form of `result`."""
        refuse_in_handler("JobHandle.aresult()")
        self._refuse_unkept()
        return self._read(await self._dispatcher.aawait_end(self.id, timeout))

    def wait(self, timeout: timedelta | None = None) -> JobStatus:
        """Wait until the job has ended, however it ended, and return where it stands. Serves tasks without results.

        Raises:
            ResultTimeout: it had not ended in time; it goes on.
            JobNotFound: the store has no such job (any more).
            DeadlockError: called inside a handler.
            BlockingCallError: called on a running event loop.
        """
        refuse_in_handler("JobHandle.wait()")
        refuse_on_loop("JobHandle.wait()", "handle.await_()")
        return status_of(self._dispatcher.await_end(self.id, timeout))

    async def await_(self, timeout: timedelta | None = None) -> JobStatus:
        """Wait until the job has ended; the async form of `wait`."""
        refuse_in_handler("JobHandle.await_()")
        return status_of(await self._dispatcher.aawait_end(self.id, timeout))

    def cancel(self, reason: str = "") -> bool:
        """Cancel the job: at once if it is not running, else by telling its worker.

        Returns False if it had ended already. A running job that succeeds all the same stays succeeded. It is the
        application's own doing, and so not in the audit trail; what operators do with `harbor.jobs` is.

        Raises:
            JobNotFound: the store has no such job (any more).
            BlockingCallError: on a running event loop.
        """
        refuse_on_loop("JobHandle.cancel()", "handle.acancel()")
        check_note(reason, "reason")
        return self._dispatcher.cancel(self.id, reason)

    async def acancel(self, reason: str = "") -> bool:
        """Cancel the job; the async form of `cancel`."""
        check_note(reason, "reason")
        return await self._dispatcher.acancel(self.id, reason)

    def _refuse_unkept(self) -> None:
        if not self._callee.keep_result:
            raise ResultNotKept(
                f"task {self._callee.name!r} is declared with keep_result=False, so there is nothing to return; "
                "wait() tells when it has ended"
            )

    def _read(self, record: JobRecord) -> R_co:
        if not self._callee.answers_to(record.task):
            raise UsageError(
                f"job {record.id} is of task {record.task!r}, and this handle was made by task {self._callee.name!r}; "
                "its result would have the wrong type"
            )
        if record.state is JobState.CANCELLED:
            why = f": {record.reason}" if record.reason else ""
            raise JobCancelled(
                f"job {record.id} of task {record.task!r} was cancelled{why}", job_id=record.id
            )
        if record.state is JobState.DEAD:
            raise _failed(record)
        if record.result is None:
            raise ResultNotKept(
                f"job {record.id} of task {record.task!r} succeeded, and its result was not kept"
            )
        codec = found_codec(record.result_codec, self._callee.codec, self._dispatcher.codecs)
        if codec is None:
            raise PayloadError(
                f"the result of job {record.id} of task {record.task!r} was written with the codec "
                f"{record.result_codec!r}, which this harbor does not know; pass it as Harbor(codecs=[...])",
                task=record.task,
            )
        # The callee decodes as the declared return type, which is what R_co stands for.
        return cast("R_co", self._callee.read_result(record.result, codec))


def status_of(record: JobRecord) -> JobStatus:
    """Return where a job stands."""
    return JobStatus(
        state=record.state,
        attempt=record.attempt,
        max_attempts=record.max_attempts,
        run_at=record.run_at,
        enqueued_at=record.enqueued_at,
        due_at=record.due_at,
        finished_at=record.finished_at,
        reason=record.reason,
        errors=record.errors,
        partition=record.partition,
    )


def _failed(record: JobRecord) -> JobFailed:
    last = record.errors[-1] if record.errors else None
    told = f": {last.type}: {last.message}" if last is not None else ""
    return JobFailed(
        f"job {record.id} of task {record.task!r} is a dead letter after {record.attempt} attempt"
        f"{'' if record.attempt == 1 else 's'} ({record.reason}){told}",
        job_id=record.id,
        task=record.task,
        error_type="" if last is None else last.type,
        error_message="" if last is None else last.message,
        remote_traceback="" if last is None else last.traceback,
        attempts=record.attempt,
        reason=record.reason,
    )
