"""Stored flows: look at them and their steps, wait for their end, cancel and resume them. `harbor.flows`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from typing import TypeVar

from taskharbor.audit import Act
from taskharbor.awaiting import aawait_standing, await_standing
from taskharbor.call import FlowGraph, draw, refuse_on_loop
from taskharbor.call.options import check_limit, check_sought
from taskharbor.connections import Connections
from taskharbor.control import check_notes, id_list, make_act, name_set, not_found, told_names
from taskharbor.driver import (
    AuditWrite,
    CancelStatus,
    Driver,
    FlowCancel,
    FlowFind,
    FlowGet,
    JobFind,
    JobRequeue,
    RequeueStatus,
    Store,
)
from taskharbor.errors import JobNotFound, OptionError
from taskharbor.flow import FLOW_ENDED, FlowRecord, FlowState
from taskharbor.job import JobRecord, JobState

T = TypeVar("T")
_PAGE = 1000


class Flows:
    """Looking at flows, and acting on them by hand. Every method has an `a` form for event loops."""

    def __init__(self, driver: Driver, connections: Connections) -> None:
        """Made by the harbor."""
        self._driver = driver
        self._connections = connections

    def get(self, flow_id: str) -> FlowRecord:
        """Return where a flow stands, with its steps counted.

        Raises:
            JobNotFound: the store does not know it (any more).
        """
        refuse_on_loop("harbor.flows.get()", "harbor.flows.aget(...)")
        id_list([flow_id])
        return _found(self._connections.producer().flow_get(FlowGet(ids=[flow_id])), flow_id)

    async def aget(self, flow_id: str) -> FlowRecord:
        """Return where a flow stands; the async form of `get`."""
        id_list([flow_id])
        store = await self._connections.store()
        return _found(await store.flow_get(FlowGet(ids=[flow_id])), flow_id)

    def find(
        self,
        *,
        states: Iterable[FlowState] = (),
        names: Iterable[str] = (),
        after: str = "",
        limit: int = 100,
        newest_first: bool = False,
    ) -> Sequence[FlowRecord]:
        """Return flows in the order they were enqueued, or the other way round, at most `limit`; steps not counted.

        An empty filter means any. For the next page pass the last flow's id as `after`.
        """
        request = _find(states, names, after, limit, newest_first=newest_first)
        return self._block("find", lambda store: store.flow_find(request))

    async def afind(
        self,
        *,
        states: Iterable[FlowState] = (),
        names: Iterable[str] = (),
        after: str = "",
        limit: int = 100,
        newest_first: bool = False,
    ) -> Sequence[FlowRecord]:
        """Return flows in the order they were enqueued; the async form of `find`."""
        request = _find(states, names, after, limit, newest_first=newest_first)
        return await self._connections.aask(lambda store: store.flow_find(request))

    def steps(self, flow_id: str, states: Iterable[JobState] = ()) -> Sequence[JobRecord]:
        """Return the records of a flow's steps in some states, or in any, in order of id."""
        id_list([flow_id])
        wanted = frozenset(states)
        return self._block("steps", lambda store: _steps(store, flow_id, wanted))

    async def asteps(self, flow_id: str, states: Iterable[JobState] = ()) -> Sequence[JobRecord]:
        """Return the records of a flow's steps; the async form of `steps`."""
        id_list([flow_id])
        wanted = frozenset(states)
        return await self._connections.aask(lambda store: _steps(store, flow_id, wanted))

    def graph(self, flow_id: str) -> FlowGraph:
        """Return a flow's steps and what they wait for, as they stand.

        Raises:
            JobNotFound: the store does not know the flow (any more).
        """
        self.get(flow_id)
        return draw(flow_id, self.steps(flow_id))

    async def agraph(self, flow_id: str) -> FlowGraph:
        """Return a flow's steps and what they wait for; the async form of `graph`."""
        await self.aget(flow_id)
        return draw(flow_id, await self.asteps(flow_id))

    def cancel(
        self, ids: Sequence[str], *, reason: str = "", by: str = "", act: Act | None = None
    ) -> Sequence[CancelStatus]:
        """End flows and return one answer each, in order: `requested` where steps still run and were asked to stop.

        Recorded on the steps, and in the audit trail: with `act`, made by `harbor.audit.act(...)`, several calls are
        one entry of it.
        """
        request = _cancel(ids, reason, by, act or _act("flows.cancel", ids, reason, by))
        return self._block("cancel", lambda store: store.flow_cancel(request))

    async def acancel(
        self, ids: Sequence[str], *, reason: str = "", by: str = "", act: Act | None = None
    ) -> Sequence[CancelStatus]:
        """End flows; the async form of `cancel`."""
        request = _cancel(ids, reason, by, act or _act("flows.cancel", ids, reason, by))
        return await self._connections.aask(lambda store: store.flow_cancel(request))

    def retry(self, flow_id: str, *, reason: str = "", by: str = "", act: Act | None = None) -> int:
        """Requeue the dead steps of a failed flow, which resumes it, and return how many there were.

        Raises:
            JobNotFound: the store does not know the flow (any more).
        """
        act = act or _act("flows.retry", [flow_id], reason, by)
        return self._block("retry", lambda store: _retry(store, flow_id, reason, by, act))

    async def aretry(self, flow_id: str, *, reason: str = "", by: str = "", act: Act | None = None) -> int:
        """Requeue the dead steps of a flow; the async form of `retry`."""
        act = act or _act("flows.retry", [flow_id], reason, by)
        return await self._connections.aask(lambda store: _retry(store, flow_id, reason, by, act))

    # --- what handles ask

    def end(self, flow_id: str, reason: str) -> bool:
        """Cancel a flow; return False if it had ended already. Raises `JobNotFound`."""
        request = _cancel([flow_id], reason, "", None)
        return _ended(self._connections.producer().flow_cancel(request), flow_id)

    async def aend(self, flow_id: str, reason: str) -> bool:
        """Cancel a flow; return False if it had ended already. Raises `JobNotFound`."""
        store = await self._connections.store()
        return _ended(await store.flow_cancel(_cancel([flow_id], reason, "", None)), flow_id)

    def await_end(self, flow_id: str, timeout: timedelta | None) -> FlowRecord:
        """Block until the flow has ended, or failed; raises `ResultTimeout`, `JobNotFound`."""
        return await_standing(self._driver, flow_id, timeout, lambda: self.get(flow_id), _settled)

    async def aawait_end(self, flow_id: str, timeout: timedelta | None) -> FlowRecord:
        """Wait until the flow has ended, or failed; raises `ResultTimeout`, `JobNotFound`."""
        return await aawait_standing(self._driver, flow_id, timeout, lambda: self.aget(flow_id), _settled)

    def _block(self, name: str, work: Callable[[Store], Awaitable[T]]) -> T:
        refuse_on_loop(f"harbor.flows.{name}()", f"harbor.flows.a{name}(...)")
        return self._connections.ask(work)


def _settled(flow: FlowRecord) -> bool:
    """Return whether there is nothing to wait for."""
    return flow.state in FLOW_ENDED or flow.state is FlowState.FAILED


def _found(records: Sequence[FlowRecord | None], flow_id: str) -> FlowRecord:
    (record,) = records
    if record is None:
        raise _not_found(flow_id)
    return record


def _not_found(flow_id: str) -> JobNotFound:
    return JobNotFound(
        f"no flow has the id {flow_id!r}: it never had one, was deleted, the `retain` of its last task has passed, or "
        "it was sent in a transaction that is not committed yet",
        job_id=flow_id,
    )


def _ended(answers: Sequence[CancelStatus], flow_id: str) -> bool:
    (status,) = answers
    if status is CancelStatus.MISSING:
        raise not_found(flow_id)
    return status is not CancelStatus.FINISHED


async def _steps(store: Store, flow_id: str, states: frozenset[JobState]) -> Sequence[JobRecord]:
    found: list[JobRecord] = []
    while True:
        after = found[-1].id if found else ""
        page = await store.job_find(JobFind(flow=flow_id, states=states, after=after, limit=_PAGE))
        found += page
        if len(page) < _PAGE:
            return found


async def _retry(store: Store, flow_id: str, reason: str, by: str, act: Act) -> int:
    id_list([flow_id])
    flow = _found(await store.flow_get(FlowGet(ids=[flow_id])), flow_id)
    if flow.state is not FlowState.FAILED:  # what is dead elsewhere was taken as a value
        await store.audit_write(AuditWrite(act=act, named=0, changed=0))
        return 0
    dead = await _steps(store, flow_id, frozenset({JobState.DEAD}))
    requeued = 0
    for begin in range(0, len(dead), _PAGE):
        ids = [record.id for record in dead[begin : begin + _PAGE]]
        answers = await store.job_requeue(JobRequeue(ids=ids, reason=reason, by=by, act=act))
        requeued += sum(answer is RequeueStatus.REQUEUED for answer in answers)
    return requeued


def _find(
    states: Iterable[FlowState], names: Iterable[str], after: str, limit: int, *, newest_first: bool
) -> FlowFind:
    check_limit(limit)
    check_sought(after, "after")
    try:
        wanted = frozenset(FlowState(state) for state in name_set(states, "states"))
    except ValueError as error:
        raise OptionError(f"states: {error}; expected some of {', '.join(FlowState)}") from error
    return FlowFind(
        states=wanted, names=name_set(names, "names"), after=after, limit=limit, newest_first=newest_first
    )


def _cancel(ids: Sequence[str], reason: str, by: str, act: Act | None) -> FlowCancel:
    check_notes(reason, by)
    return FlowCancel(ids=id_list(ids), reason=reason, by=by, act=act)


def _act(action: str, ids: Sequence[str], reason: str, by: str) -> Act:
    return make_act(action, told_names(id_list(ids)), by=by, reason=reason)
