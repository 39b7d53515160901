"""flow_get, flow_find, flow_cancel."""

from __future__ import annotations

from collections.abc import Sequence

from taskharbor.clock import from_micros
from taskharbor.driver import CancelStatus, FlowCancel, FlowFind, FlowGet
from taskharbor.drivers.postgres.falling import cancel_flow, lock_steps
from taskharbor.drivers.postgres.look import STATE, shown_state
from taskharbor.drivers.postgres.routine import Cell, Query, Routine, Row, plain_array, text_array
from taskharbor.drivers.postgres.rows import micros_of, read_meta, real_ids
from taskharbor.drivers.postgres.shut import read_shut
from taskharbor.drivers.postgres.step import Step
from taskharbor.drivers.postgres.stray import parked_strays
from taskharbor.flow import FLOW_ENDED, FlowRecord, FlowState
from taskharbor.job import JobState

_COLUMNS = f"""f.id::text, f.name, f.meta::text, f.state, f.reason, {micros_of("f.enqueued_at")},
    {micros_of("f.finished_at")}"""
_GET = f"SELECT {_COLUMNS} FROM taskharbor.flow f WHERE f.id = ANY ($1::text::uuid[])"
_COUNT = """SELECT f.id::text, s.state, s.steps FROM pg_catalog.unnest($3::text::uuid[]) f(id) CROSS JOIN LATERAL (
    SELECT {state} AS state, count(*) AS steps FROM taskharbor.job j
        WHERE j.flow = f.id AND j.flow IS NOT NULL GROUP BY 1
    UNION ALL SELECT h.state, count(*) FROM taskharbor.history h
        WHERE h.flow = f.id AND h.flow IS NOT NULL GROUP BY 1) s"""


def flow_get(step: Step, request: FlowGet) -> Routine[Sequence[FlowRecord | None]]:
    """Return one record an id, in order, with its steps counted."""
    ids = plain_array(real_ids(request.ids))
    rows = yield Query(_GET, (ids,))
    if not rows:
        return [None for _ in request.ids]
    parked = yield from parked_strays(step)
    there = plain_array([row[0] for row in rows])
    cells: list[Cell] = [step.now, plain_array(sorted(parked)), there]
    steps = yield Query(_COUNT.replace("{state}", STATE), cells)
    if any(state == JobState.READY for _, state, _ in steps) and (shut := (yield from read_shut(step))):

        def parameter(cell: str) -> str:
            cells.append(cell)
            return f"${len(cells)}::text"

        steps = yield Query(_COUNT.replace("{state}", shown_state(shut.condition(parameter))), cells)
    counts: dict[str, dict[JobState, int]] = {}
    for flow, state, count in steps:
        counts.setdefault(flow, {})[JobState(state)] = count
    records = {row[0]: _record(row, counts.get(row[0], {})) for row in rows}
    return [records.get(flow) for flow in request.ids]


def flow_find(_: Step, request: FlowFind) -> Routine[Sequence[FlowRecord]]:
    """Return the matching flows in order of id."""
    cells: list[Cell] = []

    def parameter(cell: str) -> str:
        cells.append(cell)
        return f"${len(cells)}::text"

    conditions = ["true"]
    if request.after:
        after = parameter(request.after)
        whole = f"{after}::uuid" if real_ids([request.after]) else None
        sign = "<" if request.newest_first else ">"
        conditions.append(f"f.id {sign} {whole}" if whole else f"f.id::text {sign} {after}")
    if request.states:
        conditions.append(f"f.state = ANY ({parameter(text_array(sorted(request.states)))}::text[])")
    if request.names:
        conditions.append(f"f.name = ANY ({parameter(text_array(sorted(request.names)))}::text[])")
    order = "DESC" if request.newest_first else "ASC"
    rows = yield Query(
        f"SELECT {_COLUMNS} FROM taskharbor.flow f WHERE {' AND '.join(conditions)} "
        f"ORDER BY f.id {order} LIMIT {parameter(str(request.limit))}::bigint",
        cells,
    )
    return [_record(row, {}) for row in rows]


def flow_cancel(step: Step, request: FlowCancel) -> Routine[Sequence[CancelStatus]]:
    """End flows and return one answer each, in order."""
    ids = real_ids(request.ids)
    answers: dict[str, CancelStatus] = {}
    states = {row[0]: FlowState(row[3]) for row in (yield Query(_GET, (plain_array(ids),)))}
    yield from lock_steps(ids)
    for flow in ids:
        if flow not in states:
            answers[flow] = CancelStatus.MISSING
        elif states[flow] in FLOW_ENDED:
            answers[flow] = CancelStatus.FINISHED
        else:
            runs = yield from cancel_flow(step, flow, reason=request.reason, verb="cancel", by=request.by)
            # It may have ended meanwhile.
            answers[flow] = CancelStatus.FINISHED if runs is None else _CANCELLED[runs]
    told: list[CancelStatus] = []
    for flow in request.ids:
        told.append(answers.get(flow, CancelStatus.MISSING))
        if told[-1] in _CANCELLED.values():
            answers[flow] = CancelStatus.FINISHED  # should it be named twice
    return told


_CANCELLED = {True: CancelStatus.REQUESTED, False: CancelStatus.CANCELLED}


def _record(row: Row, steps: dict[JobState, int]) -> FlowRecord:
    flow, name, meta, state, reason, enqueued_at, finished_at = row
    return FlowRecord(
        id=flow,
        name=name,
        meta=read_meta(meta),
        state=FlowState(state),
        enqueued_at=from_micros(enqueued_at),
        finished_at=None if finished_at is None else from_micros(finished_at),
        reason=reason or "",
        steps=steps,
    )
