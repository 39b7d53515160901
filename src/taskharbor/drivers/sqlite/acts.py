"""The audit trail: acts are written down in the transaction of what they do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from taskharbor.audit import AuditEntry, AuditTally
from taskharbor.clock import from_micros, micros
from taskharbor.driver import (
    AUDITED,
    AuditCount,
    AuditFilter,
    AuditFind,
    AuditWrite,
    Request,
    counted,
)
from taskharbor.drivers.sqlite.routine import Cell, Query, Routine
from taskharbor.drivers.sqlite.rows import Step, json_text
from taskharbor.drivers.sqlite.states import LIST, positional

Q = TypeVar("Q", bound=Request)
T = TypeVar("T")

_NOTE = """INSERT INTO taskharbor_audit (id, at, action, target, by_whom, reason, details, named, changed)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET named = named + excluded.named, changed = changed + excluded.changed"""
_COLUMNS = "id, at, action, target, by_whom, reason, details, named, changed"
_details = msgspec.json.Decoder(dict[str, str])


def audited(verb: Callable[[Step, Q], Routine[T]]) -> Callable[[Step, Q], Routine[T]]:
    """Return a verb that writes down whose act it is, and what it came to."""

    def noted(step: Step, request: Q) -> Routine[T]:
        answer = yield from verb(step, request)
        act = request.act
        if act is not None and isinstance(request, AUDITED):
            named, changed = counted(request, answer)
            words = (act.action, act.target, act.by, act.reason, json_text(act.details))
            yield Query(_NOTE, (act.id, step.now, *words, named, changed))
        return answer

    return noted


def audit_write(step: Step, request: AuditWrite) -> Routine[None]:
    """Write down an act by itself: `audited` does."""
    yield Query("SELECT 1")


def audit_find(step: Step, request: AuditFind) -> Routine[Sequence[AuditEntry]]:
    """Return entries from the greatest id down, at most `limit`."""
    where = _conditions(request)
    if request.after:
        where.append("id < :after")
    sql = f"SELECT {_COLUMNS} FROM taskharbor_audit WHERE {' AND '.join(['1', *where])} ORDER BY id DESC LIMIT :limit"  # noqa: S608 - our own constants
    rows = yield positional(sql, {**_values(request), "after": request.after, "limit": request.limit})
    return [
        AuditEntry(
            id=entry_id,
            at=from_micros(at),
            action=action,
            target=target,
            by=by,
            reason=reason,
            details=_details.decode(details),
            named=named,
            changed=changed,
        )
        for entry_id, at, action, target, by, reason, details, named, changed in rows
    ]


def audit_count(step: Step, request: AuditCount) -> Routine[Sequence[AuditTally]]:
    """Return counts sorted by action and person."""
    sql = (
        "SELECT action, by_whom, count(*), sum(changed) FROM taskharbor_audit "  # noqa: S608 - our own constants
        f"WHERE {' AND '.join(['1', *_conditions(request)])} GROUP BY 1, 2 ORDER BY 1, 2"
    )
    rows = yield positional(sql, _values(request))
    return [AuditTally(*row) for row in rows]


def _conditions(wanted: AuditFilter) -> list[str]:
    met: list[str] = []
    if wanted.actions:
        actions = LIST.format("actions")
        met.append(f"(action IN {actions} OR substr(action, 1, instr(action, '.') - 1) IN {actions})")
    if wanted.by:
        met.append(f"by_whom IN {LIST.format('by')}")
    if wanted.since is not None:
        met.append("at >= :since")
    if wanted.before is not None:
        met.append("at < :before")
    if wanted.text:
        met.append("(instr(lower(target), lower(:text)) > 0 OR instr(lower(reason), lower(:text)) > 0)")
    return met


def _values(wanted: AuditFilter) -> dict[str, Cell]:
    return {
        "actions": json_text(sorted(wanted.actions)),
        "by": json_text(sorted(wanted.by)),
        "since": None if wanted.since is None else micros(wanted.since),
        "before": None if wanted.before is None else micros(wanted.before),
        "text": wanted.text,
    }
