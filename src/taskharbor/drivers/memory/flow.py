"""flow_get, flow_find, flow_cancel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from taskharbor.clock import from_micros
from taskharbor.driver import CancelStatus, FlowCancel, FlowFind, FlowGet
from taskharbor.drivers.memory.advance import cancel_flow, rows_of
from taskharbor.drivers.memory.rows import Flow
from taskharbor.drivers.memory.tables import Tables
from taskharbor.flow import FLOW_ENDED, FlowRecord
from taskharbor.job import JobState, Operation


def flow_get(tables: Tables, request: FlowGet, now: int) -> Sequence[FlowRecord | None]:
    """Return one record an id, in order, with its steps counted."""
    gates = tables.gates_at(now)
    flows = (tables.flows.get(flow_id) for flow_id in request.ids)
    return [
        None
        if flow is None
        else _record(
            flow, Counter(tables.shown_state(row, now, gates)[0] for row in rows_of(tables, flow.id))
        )
        for flow in flows
    ]


def flow_find(tables: Tables, request: FlowFind, now: int) -> Sequence[FlowRecord]:
    """Return the matching flows in order of id."""
    found = (
        flow
        for flow in sorted(tables.flows.values(), key=lambda flow: flow.id, reverse=request.newest_first)
        if (not request.after or _is_beyond(flow.id, request))
        and (not request.states or flow.state in request.states)
        and (not request.names or flow.name in request.names)
    )
    return [_record(flow, {}) for flow, _ in zip(found, range(request.limit), strict=False)]


def _is_beyond(flow_id: str, request: FlowFind) -> bool:
    return flow_id < request.after if request.newest_first else flow_id > request.after


def flow_cancel(tables: Tables, request: FlowCancel, now: int) -> Sequence[CancelStatus]:
    """End flows and return one answer each, in order."""
    return [_cancel(tables, tables.flows.get(flow_id), request, now) for flow_id in request.ids]


def _cancel(tables: Tables, flow: Flow | None, request: FlowCancel, now: int) -> CancelStatus:
    if flow is None:
        return CancelStatus.MISSING
    if flow.state in FLOW_ENDED:
        return CancelStatus.FINISHED
    operation = Operation(at=from_micros(now), verb="cancel", by=request.by, reason=request.reason)
    running = cancel_flow(tables, flow, now, request.reason, operation)
    return CancelStatus.REQUESTED if running else CancelStatus.CANCELLED


def _record(flow: Flow, steps: Mapping[JobState, int]) -> FlowRecord:
    return FlowRecord(
        id=flow.id,
        name=flow.name,
        meta=flow.meta,
        state=flow.state,
        enqueued_at=from_micros(flow.enqueued),
        finished_at=None if flow.finished is None else from_micros(flow.finished),
        reason=flow.reason,
        steps=steps,
    )
