"""hold_place, hold_lift, hold_list: tasks, and keys of tasks, that are held back by hand."""

from __future__ import annotations

from collections.abc import Sequence

from taskharbor.clock import from_micros
from taskharbor.driver import HoldLift, HoldList, HoldPlace
from taskharbor.drivers.postgres.limit import told_once, wake_all
from taskharbor.drivers.postgres.routine import Query, Routine
from taskharbor.drivers.postgres.rows import micros_of
from taskharbor.drivers.postgres.rules import BUMP, scope_cells
from taskharbor.drivers.postgres.step import Step
from taskharbor.limit import HoldRecord, Scope, ScopeKind

_PLACE = """INSERT INTO taskharbor.hold (kind, name, key, at, held_by, reason)
    SELECT w.kind, w.name, w.key, coalesce($1::text::timestamptz, clock_timestamp()), $5::text, $6::text
    FROM unnest($2::text::text[], $3::text::text[], $4::text::text[]) w(kind, name, key)
    ON CONFLICT DO NOTHING RETURNING kind, name, key"""
_LIFT = """DELETE FROM taskharbor.hold h
    USING unnest($1::text::text[], $2::text::text[], $3::text::text[]) w(kind, name, key)
    WHERE h.kind = w.kind AND h.name = w.name AND h.key = w.key RETURNING h.kind, h.name, h.key"""
_LIST = f"SELECT kind, name, key, {micros_of('at')}, held_by, reason FROM taskharbor.hold"


def hold_place(step: Step, request: HoldPlace) -> Routine[Sequence[bool]]:
    """Hold back what is named; what is held already stays as it is."""
    yield Query(BUMP)
    scopes = scope_cells(dict.fromkeys(request.scopes))
    rows = yield Query(_PLACE, (step.now, *scopes, request.by, request.reason))
    return told_once(request.scopes, {Scope(ScopeKind(kind), name, key) for kind, name, key in rows})


def hold_lift(step: Step, request: HoldLift) -> Routine[Sequence[bool]]:
    """Let go of what is named."""
    yield Query(BUMP)
    rows = yield Query(_LIFT, scope_cells(dict.fromkeys(request.scopes)))
    if rows:
        yield from wake_all(step)
    return told_once(request.scopes, {Scope(ScopeKind(kind), name, key) for kind, name, key in rows})


def hold_list(step: Step, request: HoldList) -> Routine[Sequence[HoldRecord]]:
    """Return what is held back, sorted by scope."""
    records = [
        HoldRecord(scope=Scope(ScopeKind(kind), name, key), at=from_micros(at), by=by, reason=reason)
        for kind, name, key, at, by, reason in (yield Query(_LIST))
    ]
    return sorted(records, key=lambda record: record.scope)
