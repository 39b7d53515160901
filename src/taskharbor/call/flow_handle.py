"""What a producer holds after a flow was enqueued: a typed handle on the whole, which knows its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Generic, cast

import msgspec
from typing_extensions import TypeVar, override

from taskharbor.call.dispatcher import Dispatcher, refuse_in_handler, refuse_on_loop
from taskharbor.call.handle import JobHandle, JobStatus, status_of
from taskharbor.call.options import check_note
from taskharbor.call.picture import FlowGraph, FlowStep, draw
from taskharbor.call.reading import Reader
from taskharbor.errors import FlowFailed, JobCancelled
from taskharbor.flow import FlowRecord, FlowState
from taskharbor.job import JobRecord, JobState

R_co = TypeVar("R_co", covariant=True)


class FlowStatus(JobStatus, frozen=True, kw_only=True):
    """Where a flow stands, at one instant. What it has of `JobStatus` is its last step's."""

    flow: FlowState
    """Where it stands as a whole."""
    name: str
    meta: Mapping[str, str]
    steps: Mapping[JobState, int]
    """How many of its steps are in each state, of those that are still kept."""
    flow_reason: str
    """Why it failed or was cancelled."""


class FlowHandle(JobHandle[R_co], Generic[R_co]):
    """A stored flow, and the way to its result. Each method has an `a` form for event loops.

    Its id is that of its last step, so that a `JobHandle` of that step's task sees the same job.
    """

    __slots__ = ("_reader",)

    def __init__(self, dispatcher: Dispatcher, reader: Reader, flow_id: str, *, created: bool) -> None:
        """Made by TaskHarbor; to get a handle back from an id, call `flow.handle(flow_id)`."""
        self._dispatcher = dispatcher
        self._reader = reader
        self.id = flow_id
        self.created = created

    @override
    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} of {self._reader.name}>"

    @override
    def status(self) -> FlowStatus:
        """Return where the flow stands.

        Raises:
            JobNotFound: the store has no such flow (any more).
            BlockingCallError: on a running event loop.
        """
        refuse_on_loop("FlowHandle.status()", "handle.astatus()")
        return _flow_status(self._dispatcher.flows.get(self.id), self._dispatcher.look(self.id))

    @override
    async def astatus(self) -> FlowStatus:
        """Return where the flow stands; the async form of `status`."""
        flow = await self._dispatcher.flows.aget(self.id)
        return _flow_status(flow, await self._dispatcher.alook(self.id))

    @override
    def result(self, timeout: timedelta | None = None) -> R_co:
        """Wait until the flow has ended, or failed, and return what its last step returned.

        Args:
            timeout: how long to wait; None waits for ever.

        Raises:
            FlowFailed: a step is a dead letter; the error tells which, and why. Requeueing it resumes the flow.
            JobCancelled: the flow was cancelled.
            ResultTimeout: it had not ended in time; it goes on.
            ResultNotKept: its last task keeps no result.
            JobNotFound: the store has no such flow (any more).
            DeadlockError: called inside a handler.
            BlockingCallError: called on a running event loop.
        """
        refuse_in_handler("FlowHandle.result()")
        refuse_on_loop("FlowHandle.result()", "handle.aresult()")
        flow = self._dispatcher.flows.await_end(self.id, timeout)
        if flow.state is FlowState.FAILED:
            raise _failed(flow, self._dispatcher.flows.steps(self.id, states=[JobState.DEAD]))
        return self._read_end(flow, self._dispatcher.look(self.id))

    @override
    async def aresult(self, timeout: timedelta | None = None) -> R_co:
        """Wait until the flow has ended, or failed; the async form of `result`."""
        refuse_in_handler("FlowHandle.aresult()")
        flow = await self._dispatcher.flows.aawait_end(self.id, timeout)
        if flow.state is FlowState.FAILED:
            raise _failed(flow, await self._dispatcher.flows.asteps(self.id, states=[JobState.DEAD]))
        return self._read_end(flow, await self._dispatcher.alook(self.id))

    @override
    def wait(self, timeout: timedelta | None = None) -> FlowStatus:
        """Wait until the flow has ended, or failed, and return where it stands.

        Raises:
            ResultTimeout: it had not ended in time; it goes on.
            JobNotFound: the store has no such flow (any more).
            DeadlockError: called inside a handler.
            BlockingCallError: called on a running event loop.
        """
        refuse_in_handler("FlowHandle.wait()")
        refuse_on_loop("FlowHandle.wait()", "handle.await_()")
        return _flow_status(
            self._dispatcher.flows.await_end(self.id, timeout), self._dispatcher.look(self.id)
        )

    @override
    async def await_(self, timeout: timedelta | None = None) -> FlowStatus:
        """Wait until the flow has ended, or failed; the async form of `wait`."""
        refuse_in_handler("FlowHandle.await_()")
        flow = await self._dispatcher.flows.aawait_end(self.id, timeout)
        return _flow_status(flow, await self._dispatcher.alook(self.id))

    @override
    def cancel(self, reason: str = "") -> bool:
        """Cancel the flow: what waits or is ready at once, what runs by telling its worker.

        Returns False if it had ended already. It is the application's own doing, and so not in the audit trail; what
        operators do with `harbor.flows` is.

        Raises:
            JobNotFound: the store has no such flow (any more).
            BlockingCallError: on a running event loop.
        """
        refuse_on_loop("FlowHandle.cancel()", "handle.acancel()")
        check_note(reason, "reason")
        return self._dispatcher.flows.end(self.id, reason)

    @override
    async def acancel(self, reason: str = "") -> bool:
        """Cancel the flow; the async form of `cancel`."""
        check_note(reason, "reason")
        return await self._dispatcher.flows.aend(self.id, reason)

    def steps(self) -> list[FlowStep]:
        """Return its steps that are still kept, in the order in which they were made, with states and times.

        Raises:
            BlockingCallError: on a running event loop.
        """
        return list(self.graph().steps)

    async def asteps(self) -> list[FlowStep]:
        """Return its steps; the async form of `steps`."""
        return list((await self.agraph()).steps)

    def graph(self) -> FlowGraph:
        """Return its steps and what they wait for, as they stand.

        Raises:
            BlockingCallError: on a running event loop.
        """
        refuse_on_loop("FlowHandle.graph()", "handle.agraph()")
        return draw(self.id, self._dispatcher.flows.steps(self.id))

    async def agraph(self) -> FlowGraph:
        """Return its steps and what they wait for; the async form of `graph`."""
        return draw(self.id, await self._dispatcher.flows.asteps(self.id))

    def _read_end(self, flow: FlowRecord, last: JobRecord) -> R_co:
        if flow.state is FlowState.CANCELLED:
            why = f": {flow.reason}" if flow.reason else ""
            raise JobCancelled(f"flow {flow.id}{_named(flow)} was cancelled{why}", job_id=flow.id)
        # The reader decodes as the declared types, which is what R_co stands for.
        return cast("R_co", self._reader.read(last.result, last.result_codec, self._dispatcher.codecs))


def _named(flow: FlowRecord) -> str:
    return f" ({flow.name})" if flow.name else ""


def _flow_status(flow: FlowRecord, last: JobRecord) -> FlowStatus:
    return FlowStatus(
        **msgspec.structs.asdict(status_of(last)),
        flow=flow.state,
        name=flow.name,
        meta=flow.meta,
        steps=flow.steps,
        flow_reason=flow.reason,
    )


def _failed(flow: FlowRecord, dead: Sequence[JobRecord]) -> FlowFailed:
    # Several may have died: told is the one that made the flow fail.
    step = next((one for one in dead if one.id in flow.reason), dead[0] if dead else None)
    last = step.errors[-1] if step is not None and step.errors else None
    told = f": {last.type}: {last.message}" if last is not None else ""
    error = FlowFailed(
        f"flow {flow.id}{_named(flow)} failed: {flow.reason}{told}; requeueing the step resumes the flow",
        job_id=flow.id if step is None else step.id,
        task="" if step is None else step.task,
        error_type="" if last is None else last.type,
        error_message="" if last is None else last.message,
        remote_traceback="" if last is None else last.traceback,
        attempts=0 if step is None else step.attempt,
        reason="" if step is None else step.reason,
    )
    error.flow_id = flow.id
    return error
