"""The audit trail: acts are written down in the same step as what they do."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence

from msgspec.structs import replace

from taskharbor.audit import AuditEntry, AuditTally
from taskharbor.clock import duration_micros, from_micros
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
from taskharbor.drivers.memory.tables import Tables

_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def note(tables: Tables, request: Request, answer: object, now: int) -> None:
    """Write down whose act a request is, if it is anybody's, and what it came to."""
    act = request.act
    if act is None or not isinstance(request, AUDITED):
        return
    named, changed = counted(request, answer)
    before = tables.acts.get(act.id)
    if before is not None:
        tables.acts[act.id] = replace(before, named=before.named + named, changed=before.changed + changed)
        return
    tables.acts[act.id] = AuditEntry(
        id=act.id,
        at=from_micros(now),
        action=act.action,
        target=act.target,
        by=act.by,
        reason=act.reason,
        details=act.details,
        named=named,
        changed=changed,
    )


def audit_write(tables: Tables, request: AuditWrite, now: int) -> None:
    """Write down an act by itself: `note` does."""


def audit_find(tables: Tables, request: AuditFind, now: int) -> Sequence[AuditEntry]:
    """Return entries from the greatest id down, at most `limit`."""
    found = sorted(
        (
            entry
            for entry in tables.acts.values()
            if (not request.after or entry.id < request.after) and _matches(entry, request)
        ),
        key=lambda entry: entry.id,
        reverse=True,
    )
    return found[: request.limit]


def audit_count(tables: Tables, request: AuditCount, now: int) -> Sequence[AuditTally]:
    """Return counts sorted by action and person."""
    acts, changed = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for entry in tables.acts.values():
        if _matches(entry, request):
            acts[entry.action, entry.by] += 1
            changed[entry.action, entry.by] += entry.changed
    return [AuditTally(*name, count, changed[name]) for name, count in sorted(acts.items())]


def prune_acts(tables: Tables, now: int) -> None:
    """Remove entries that have been kept for long enough."""
    oldest = from_micros(now - duration_micros(AUDIT_RETAIN))
    for entry in [entry for entry in tables.acts.values() if entry.at <= oldest]:
        del tables.acts[entry.id]


def _matches(entry: AuditEntry, wanted: AuditFilter) -> bool:
    return (
        (not wanted.actions or not wanted.actions.isdisjoint({entry.action, entry.action.partition(".")[0]}))
        and (not wanted.by or entry.by in wanted.by)
        and (wanted.since is None or entry.at >= wanted.since)
        and (wanted.before is None or entry.at < wanted.before)
        and (not wanted.text or _says(entry, wanted.text))
    )


def _says(entry: AuditEntry, text: str) -> bool:
    sought = text.translate(_LOWER)
    return sought in entry.target.translate(_LOWER) or sought in entry.reason.translate(_LOWER)
