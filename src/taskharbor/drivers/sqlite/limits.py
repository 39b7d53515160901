"""Limits and holds: declared, set, cleared, held back, listed. Each change moves the rules' revision on."""

from __future__ import annotations

from collections.abc import Sequence

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
)
from taskharbor.drivers.sqlite.routine import Cell, Query, Routine
from taskharbor.drivers.sqlite.rows import Step, json_text
from taskharbor.drivers.sqlite.rules import terms_of
from taskharbor.limit import HoldRecord, LimitRecord, LimitTerms, Scope, ScopeKind

_ALL = """SELECT kind, name, key, declared, override, set_at, set_by, reason FROM taskharbor_limit
    ORDER BY kind, name, key"""
_OF = "SELECT declared, override FROM taskharbor_limit WHERE kind = ? AND name = ? AND key = ?"
_DECLARED = "SELECT kind, name, key, declared FROM taskharbor_limit WHERE declared IS NOT NULL"
_DECLARE = """INSERT INTO taskharbor_limit (kind, name, key, declared) VALUES (?, ?, ?, ?)
    ON CONFLICT (kind, name, key) DO UPDATE SET declared = excluded.declared"""
_SET = """INSERT INTO taskharbor_limit (kind, name, key, override, set_at, set_by, reason) VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (kind, name, key) DO UPDATE SET override = excluded.override, set_at = excluded.set_at,
    set_by = excluded.set_by, reason = excluded.reason"""
_CLEAR = """UPDATE taskharbor_limit SET override = NULL, set_at = NULL, set_by = '', reason = ''
    WHERE kind = ? AND name = ? AND key = ? AND override IS NOT NULL"""
_FORGET = "DELETE FROM taskharbor_limit WHERE declared IS NULL AND override IS NULL"
# A rate that comes back later begins with its whole burst.
_HAS_RATE = "AND coalesce(l.override, l.declared) ->> '$.rate' IS NOT NULL"
_RESTART = f"""DELETE FROM taskharbor_arrival AS a WHERE NOT EXISTS (SELECT 1 FROM taskharbor_limit l
        WHERE l.kind = a.kind AND l.name = a.name AND l.key = a.key {_HAS_RATE})
    AND NOT (a.kind = 'key' AND EXISTS (SELECT 1 FROM taskharbor_limit l
        WHERE l.kind = 'keys' AND l.name = a.name AND l.key = '' {_HAS_RATE}))"""  # noqa: S608 - our own constants
_HOLD = (
    "INSERT OR IGNORE INTO taskharbor_hold (kind, name, key, at, held_by, reason) VALUES (?, ?, ?, ?, ?, ?)"
)
_LIFT = "DELETE FROM taskharbor_hold WHERE kind = ? AND name = ? AND key = ?"
_HOLDS = "SELECT kind, name, key, at, held_by, reason FROM taskharbor_hold ORDER BY kind, name, key"
_RUNNING = """SELECT j.queue, j.task, coalesce(j.part, ''), count(*) FROM taskharbor_lease l, json_each(l.jobs) e
    CROSS JOIN taskharbor_job j ON j.id = e.value AND j.token = l.token GROUP BY 1, 2, 3"""
# A loose index scan over the queues that hold jobs.
_QUEUES = """WITH RECURSIVE held(queue) AS (
    SELECT min(queue) FROM taskharbor_job INDEXED BY taskharbor_job_ready WHERE token IS NULL
    UNION ALL
    SELECT (SELECT min(queue) FROM taskharbor_job INDEXED BY taskharbor_job_ready
        WHERE token IS NULL AND queue > held.queue) FROM held WHERE held.queue IS NOT NULL)
SELECT queue FROM held WHERE queue IS NOT NULL"""


def _cells(scope: Scope) -> tuple[Cell, ...]:
    return scope.kind.value, scope.name, scope.key


def declares_nothing_new(step: Step, request: LimitDeclare) -> Routine[bool | None]:
    """Return whether all is declared already, without writing; None if it is not."""
    rows = yield Query(_DECLARED)
    known = {Scope(ScopeKind(kind), name, key): terms_of(declared) for kind, name, key, declared in rows}
    new = any(known.get(scope, LimitTerms()) != terms for scope, terms in request.limits.items())
    return None if new else True


def limit_declare(step: Step, request: LimitDeclare) -> Routine[bool]:
    """Write down what code declares."""
    if (yield from declares_nothing_new(step, request)):
        return True
    for scope, terms in request.limits.items():
        yield Query(_DECLARE, (*_cells(scope), json_text(terms) if terms else None))
    yield from _changed(step)
    return True


def limit_set(step: Step, request: LimitSet) -> Routine[LimitSetAnswer]:
    """Set limits by hand."""
    rows = yield Query(_OF, _cells(request.scope))
    before = LimitTerms()
    for declared, override in rows:
        text = declared if override is None else override
        before = terms_of(text) if text else LimitTerms()
    cells = (*_cells(request.scope), json_text(request.terms), step.now, request.by, request.reason)
    yield Query(_SET, cells)
    yield from _changed(step)
    return LimitSetAnswer(before=before, changed=before != request.terms)


def limit_clear(step: Step, request: LimitClear) -> Routine[Sequence[bool]]:
    """Take back what was set by hand; return of each whether there was something, in order."""
    return (yield from _each(step, _CLEAR, [_cells(scope) for scope in request.scopes]))


def limit_list(step: Step, request: LimitList) -> Routine[Sequence[LimitRecord]]:
    """Return the limits, sorted by scope."""
    rows = yield Query(_ALL)
    running = yield Query(_RUNNING) if rows else Query("SELECT 1 WHERE 0")
    records = [
        LimitRecord(
            scope=scope,
            declared=terms_of(declared) if declared else LimitTerms(),
            override=terms_of(override) if override else None,
            set_at=None if set_at is None else from_micros(set_at),
            set_by=set_by,
            reason=reason,
            running=sum(count for *job, count in running if _concerns(scope, *job)),
        )
        for kind, name, key, declared, override, set_at, set_by, reason in rows
        for scope in (Scope(ScopeKind(kind), name, key),)
    ]
    return sorted(records, key=lambda record: record.scope)


def _concerns(scope: Scope, queue: str, task: str, part: str) -> bool:
    if scope.kind is ScopeKind.QUEUE:
        return queue == scope.name
    return task == scope.name and (scope.kind is not ScopeKind.KEY or part == scope.key)


def hold_place(step: Step, request: HoldPlace) -> Routine[Sequence[bool]]:
    """Hold back; return of each whether it was not held before, in order."""
    note = (step.now, request.by, request.reason)
    return (yield from _each(step, _HOLD, [(*_cells(scope), *note) for scope in request.scopes]))


def hold_lift(step: Step, request: HoldLift) -> Routine[Sequence[bool]]:
    """Let go; return of each whether it was held, in order."""
    return (yield from _each(step, _LIFT, [_cells(scope) for scope in request.scopes]))


def hold_list(step: Step, request: HoldList) -> Routine[Sequence[HoldRecord]]:
    """Return what is held back, sorted by scope."""
    rows = yield Query(_HOLDS)
    records = [
        HoldRecord(scope=Scope(ScopeKind(kind), name, key), at=from_micros(at), by=by, reason=reason)
        for kind, name, key, at, by, reason in rows
    ]
    return sorted(records, key=lambda record: record.scope)


def _each(step: Step, sql: str, rows: Sequence[Sequence[Cell]]) -> Routine[list[bool]]:
    """Run a statement for each scope, and return whether it changed anything."""
    answers: list[bool] = []
    for cells in rows:
        yield Query(sql, cells)
        ((changed,),) = yield Query("SELECT changes()")
        answers.append(bool(changed))
    if any(answers):
        yield from _changed(step)
    return answers


def _changed(step: Step) -> Routine[None]:
    """Have everybody read the rules anew, and look whether something may be taken now."""
    yield Query(_FORGET)
    yield Query(_RESTART)
    # Not the next number: what is rolled back may have been read already, and must not be taken for another change.
    yield Query("UPDATE taskharbor_rules SET revision = random()")
    step.wakes.queues.update(queue for (queue,) in (yield Query(_QUEUES)))
