"""Limits and holds: what is declared, set, cleared, held back, and what comes into force by it."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from taskharbor.clock import from_micros
from taskharbor.driver import (
    HoldLift,
    HoldList,
    HoldPlace,
    LimitClear,
    LimitDeclare,
    LimitList,
    LimitSet,
    LimitSetAnswer,
    Rules,
)
from taskharbor.drivers.memory.tables import Tables
from taskharbor.limit import KEYLESS, HoldRecord, LimitRecord, LimitTerms, Scope, ScopeKind


def limit_declare(tables: Tables, request: LimitDeclare, now: int) -> None:
    """Write down what code declares."""
    changed = False
    for scope, terms in request.limits.items():
        before = tables.limits.get(scope)
        if (LimitTerms() if before is None else before.declared) != terms:
            changed = True
            _keep(tables, replace(before or LimitRecord(scope=scope), declared=terms))
    if changed:
        _enforce(tables)


def limit_set(tables: Tables, request: LimitSet, now: int) -> LimitSetAnswer:
    """Set limits by hand."""
    record = tables.limits.get(request.scope) or LimitRecord(scope=request.scope)
    before = record.terms
    tables.limits[request.scope] = replace(
        record, override=request.terms, set_at=from_micros(now), set_by=request.by, reason=request.reason
    )
    _enforce(tables)
    return LimitSetAnswer(before=before, changed=before != request.terms)


def limit_clear(tables: Tables, request: LimitClear, now: int) -> Sequence[bool]:
    """Take back what was set by hand; return of each whether there was something, in order."""
    cleared: list[bool] = []
    for scope in request.scopes:
        record = tables.limits.get(scope)
        cleared.append(record is not None and record.override is not None)
        if record is not None and record.override is not None:
            _keep(tables, replace(record, override=None, set_at=None, set_by="", reason=""))
    if any(cleared):
        _enforce(tables)
    return cleared


def limit_list(tables: Tables, request: LimitList, now: int) -> Sequence[LimitRecord]:
    """Return the limits, sorted by scope."""
    return [
        replace(record, running=_running(tables, scope)) for scope, record in sorted(tables.limits.items())
    ]


def hold_place(tables: Tables, request: HoldPlace, now: int) -> Sequence[bool]:
    """Hold back; return of each whether it was not held before, in order."""
    placed: list[bool] = []
    for scope in request.scopes:
        placed.append(scope not in tables.holds)
        tables.holds.setdefault(
            scope, HoldRecord(scope=scope, at=from_micros(now), by=request.by, reason=request.reason)
        )
    if any(placed):
        _enforce(tables)
    return placed


def hold_lift(tables: Tables, request: HoldLift, now: int) -> Sequence[bool]:
    """Let go; return of each whether it was held, in order."""
    lifted = [tables.holds.pop(scope, None) is not None for scope in request.scopes]
    if any(lifted):
        _enforce(tables)
    return lifted


def hold_list(tables: Tables, request: HoldList, now: int) -> Sequence[HoldRecord]:
    """Return what is held back, sorted by scope."""
    return [record for _, record in sorted(tables.holds.items())]


def _keep(tables: Tables, record: LimitRecord) -> None:
    if record.override is None and not record.declared:
        tables.limits.pop(record.scope, None)
    else:
        tables.limits[record.scope] = record


def _enforce(tables: Tables) -> None:
    """Bring what is declared, set and held back into force; rates that are new begin with their whole burst."""
    before = tables.rules
    tables.enforce(
        Rules(
            {scope: record.terms for scope, record in tables.limits.items()},
            {scope: record.reason for scope, record in tables.holds.items()},
        )
    )
    _count(tables)
    for scope in [scope for scope in tables.arrivals if not _has_rate(tables.rules, scope)]:
        del tables.arrivals[scope]
    fresh = tables.rules.governed - before.governed
    if fresh:
        for row in tables.rows.values():
            if row.entry and row.job.partition is None and row.job.task in fresh:
                tables.make_due(row, row.due, row.lane)  # into its line
    tables.woken_queues.update(tables.lanes, tables.lines.rings)


def _has_rate(rules: Rules, gate: Scope) -> bool:
    each = Scope(ScopeKind.KEYS, gate.name) if gate.kind is ScopeKind.KEY else gate
    return any(rules.terms.get(scope, LimitTerms()).rate is not None for scope in (gate, each))


def _count(tables: Tables) -> None:
    tables.running.clear()
    if tables.counts:
        for lease in tables.leases.values():
            for row in lease.rows.values():
                tables.count(row.job, 1)


def _running(tables: Tables, scope: Scope) -> int:
    jobs = (row.job for lease in tables.leases.values() for row in lease.rows.values())
    if scope.kind is ScopeKind.QUEUE:
        return sum(job.queue == scope.name for job in jobs)
    if scope.kind is ScopeKind.KEY:
        return sum(job.task == scope.name and (job.partition or KEYLESS) == scope.key for job in jobs)
    return sum(job.task == scope.name for job in jobs)


def forget_arrivals(tables: Tables, now: int) -> None:
    """Forget the rates that have been quiet for so long that they stand as if they had never been used."""
    for scope in [scope for scope, arrival in tables.arrivals.items() if arrival <= now]:
        del tables.arrivals[scope]
