"""The audit trail: an act is written down in the transaction that carries it out. audit_write, audit_find, _count."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from taskharbor.audit import Act, AuditEntry, AuditTally
from taskharbor.clock import from_micros
from taskharbor.driver import (
    AUDIT_RETAIN,
    AUDITED,
    AuditCount,
    AuditFilter,
    AuditFind,
    AuditWrite,
    Request,
    counted,
)
from taskharbor.drivers.postgres.filtering import LOWER, lowered
from taskharbor.drivers.postgres.routine import Cell, Query, Routine, text_array
from taskharbor.drivers.postgres.rows import (
    interval_of,
    json_text,
    micros_of,
    micros_text,
    read_meta,
    real_ids,
)
from taskharbor.drivers.postgres.step import Step

Q = TypeVar("Q", bound=Request)
T = TypeVar("T")

_NOW = "coalesce($1::text::timestamptz, clock_timestamp())"
_ADD = "UPDATE SET named = a.named + excluded.named, changed = a.changed + excluded.changed"
_WRITE = f"""INSERT INTO taskharbor.audit AS a (id, at, action, target, by_whom, reason, details, named, changed)
    VALUES ($2::text::uuid, {_NOW}, $3::text, $4::text, $5::text, $6::text, $7::text::json, $8::text::bigint,
        $9::text::bigint)
    ON CONFLICT (id) DO {{more}}"""
_FIND = f"""SELECT a.id::text, {micros_of("a.at")}, a.action, a.target, a.by_whom, a.reason, a.details::text, a.named,
    a.changed FROM taskharbor.audit a WHERE {{which}} ORDER BY a.id DESC LIMIT {{limit}}::bigint"""
_COUNT = """SELECT a.action, a.by_whom, count(*), sum(a.changed)::bigint FROM taskharbor.audit a WHERE {which}
    GROUP BY 1, 2"""
_PRUNE = f"""WITH gone AS (DELETE FROM taskharbor.audit WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM taskharbor.audit WHERE at <= {_NOW} - {interval_of("$2::text::bigint")}
    ORDER BY at LIMIT $3::text::bigint FOR UPDATE SKIP LOCKED)) RETURNING 1) SELECT count(*) FROM gone"""


def is_audited(request: Request) -> bool:
    """Return whether a request is somebody's act, to be written down with what it does."""
    return request.act is not None and isinstance(request, AUDITED)


def with_entry(verb: Callable[[Step, Q], Routine[T]]) -> Callable[[Step, Q], Routine[T]]:
    """Return a verb that writes down as well whose act it was, and what came of it."""

    def both(step: Step, request: Q) -> Routine[T]:
        answer = yield from verb(step, request)
        if request.act is not None:
            named, changed = counted(request, answer)
            # Asked again since the answer was lost, it finds its own entry, and nothing left to change.
            told = step.repeated and (not changed or isinstance(request, AuditWrite))
            yield from _write(step, request.act, named, changed, more="NOTHING" if told else _ADD)
        return answer

    return both


def _write(step: Step, act: Act, named: int, changed: int, *, more: str) -> Routine[None]:
    details = json_text(act.details) if act.details else None
    cells: list[Cell] = [act.id, act.action, act.target, act.by, act.reason, details]
    yield Query(_WRITE.replace("{more}", more), (step.now, *cells, str(named), str(changed)))


def audit_write(step: Step, request: AuditWrite) -> Routine[None]:
    """Do nothing: what is asked is the entry, and that comes with the act."""
    yield from ()


def audit_find(step: Step, request: AuditFind) -> Routine[Sequence[AuditEntry]]:
    """Return entries from the greatest id down."""
    cells: list[Cell] = []
    which = _conditions(request, cells)
    if request.after:
        # Any text may be asked for; the server compares what are ids, as text as well.
        cells.append(request.after)
        whole = bool(real_ids([request.after]))
        which.append(f"a.id < ${len(cells)}::text::uuid" if whole else f"a.id::text < ${len(cells)}::text")
    cells.append(str(request.limit))
    sql = _FIND.replace("{which}", " AND ".join(which) or "true")
    return [
        AuditEntry(
            id=id_,
            at=from_micros(at),
            action=action,
            target=target,
            by=by,
            reason=reason,
            details=read_meta(details),
            named=named,
            changed=changed,
        )
        for id_, at, action, target, by, reason, details, named, changed in (
            yield Query(sql.replace("{limit}", f"${len(cells)}::text"), cells)
        )
    ]


def audit_count(step: Step, request: AuditCount) -> Routine[Sequence[AuditTally]]:
    """Return counts sorted by action and person."""
    cells: list[Cell] = []
    which = _conditions(request, cells)
    rows = yield Query(_COUNT.replace("{which}", " AND ".join(which) or "true"), cells)
    return [AuditTally(*row) for row in sorted(rows)]


def _conditions(request: AuditFilter, cells: list[Cell]) -> list[str]:
    """Return the conditions of a filter on entries as `a`, and add their parameters."""
    found: list[str] = []

    def add(condition: str, cell: str) -> None:
        cells.append(cell)
        found.append(condition.replace("{}", f"${len(cells)}::text"))

    if request.actions:
        words = "({}::text[])"
        add(
            f"(a.action = ANY {words} OR substring(a.action FROM '^[^.]*') = ANY {words})",
            text_array(sorted(request.actions)),
        )
    if request.by:
        add("a.by_whom = ANY ({}::text[])", text_array(sorted(request.by)))
    if request.text:
        target, reason = LOWER.format("a.target"), LOWER.format("a.reason")
        add(f"(strpos({target}, {{}}) > 0 OR strpos({reason}, {{}}) > 0)", lowered(request.text))
    if request.since is not None:
        add("a.at >= {}::timestamptz", request.since.isoformat())
    if request.before is not None:
        add("a.at < {}::timestamptz", request.before.isoformat())
    return found


def prune_audit(step: Step, limit: int) -> Routine[bool]:
    """Remove entries that are old enough, and return whether there may be more."""
    ((gone,),) = yield Query(_PRUNE, (step.now, micros_text(AUDIT_RETAIN), str(limit)))
    return bool(gone >= limit)
