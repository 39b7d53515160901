"""flow_get, flow_find, flow_cancel."""

from __future__ import annotations

from collections.abc import Sequence

from taskharbor.clock import from_micros
from taskharbor.driver import CancelStatus, FlowCancel, FlowFind, FlowGet
from taskharbor.drivers.sqlite.control import operation
from taskharbor.drivers.sqlite.ending import cancel_flow
from taskharbor.drivers.sqlite.routine import Cell, Query, Routine, Row
from taskharbor.drivers.sqlite.rows import Step, json_text, read_meta
from taskharbor.drivers.sqlite.states import count_steps
from taskharbor.flow import FlowRecord, FlowState
from taskharbor.job import JobState

_FLOW = "SELECT id, name, meta, state, enqueued_at, finished_at, reason FROM taskharbor_flow"
_LIST = "(SELECT value FROM json_each(?))"


def flow_get(step: Step, request: FlowGet) -> Routine[Sequence[FlowRecord | None]]:
    """Return one record an id, in order, with its steps counted."""
    rows = yield Query(f"{_FLOW} WHERE id IN {_LIST}", (json_text(list(request.ids)),))
    counts = (yield from count_steps([row[0] for row in rows], step)) if rows else {}
    records = {row[0]: _record(row, counts.get(row[0], {})) for row in rows}
    return [records.get(flow) for flow in request.ids]


def flow_find(step: Step, request: FlowFind) -> Routine[Sequence[FlowRecord]]:
    """Return the matching flows in order of id."""
    where: list[str] = []
    params: list[Cell] = []
    if request.after:
        where.append("id < ?" if request.newest_first else "id > ?")
        params.append(request.after)
    for column, wanted in (("state", request.states), ("name", request.names)):
        if wanted:
            where.append(f"{column} IN {_LIST}")
            params.append(json_text(sorted(wanted)))
    condition = f" WHERE {' AND '.join(where)}" if where else ""
    order = "id DESC" if request.newest_first else "id"
    rows = yield Query(f"{_FLOW}{condition} ORDER BY {order} LIMIT ?", (*params, request.limit))
    return [_record(row, {}) for row in rows]


def flow_cancel(step: Step, request: FlowCancel) -> Routine[Sequence[CancelStatus]]:
    """End flows and return one answer each, in order."""
    note = operation("cancel", request.by, request.reason, step.now)
    answers: list[CancelStatus] = []
    for flow in request.ids:
        running = yield from cancel_flow(flow, request.reason, step, note)
        if running is not None:
            answers.append(CancelStatus.REQUESTED if running else CancelStatus.CANCELLED)
            continue
        there = yield Query("SELECT 1 FROM taskharbor_flow WHERE id = ?", (flow,))
        answers.append(CancelStatus.FINISHED if there else CancelStatus.MISSING)
    return answers


def _record(row: Row, steps: dict[JobState, int]) -> FlowRecord:
    flow, name, meta, state, enqueued_at, finished_at, reason = row
    return FlowRecord(
        id=flow,
        name=name,
        meta=read_meta(meta),
        state=FlowState(state),
        enqueued_at=from_micros(enqueued_at),
        finished_at=None if finished_at is None else from_micros(finished_at),
        reason=reason,
        steps=steps,
    )
