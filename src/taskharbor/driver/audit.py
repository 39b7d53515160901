"""The audit trail (rule 26): what people did, written down in the same step as what they did."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

from taskharbor.audit import AuditEntry, AuditTally
from taskharbor.driver.request import Request

AUDIT_RETAIN = timedelta(days=400)
"""Entries older than this are removed by `history_prune`."""


class AuditWrite(Request, frozen=True, kw_only=True):
    """Write down an act that no other verb carries out, as a schedule triggered by hand. Its `act` is given."""

    named: int = 1
    changed: int = 1


class AuditFilter(Request, frozen=True, kw_only=True):
    """Which acts. An empty filter means any; several narrow it down together."""

    actions: frozenset[str] = frozenset()
    """Whole words, as `jobs.cancel`; or the part before the dot, as `jobs`."""
    by: frozenset[str] = frozenset()
    text: str = ""
    """Only those with this text in their target or their reason; case does not matter (of A to Z)."""
    since: datetime | None = None
    before: datetime | None = None


class AuditFind(AuditFilter, frozen=True, kw_only=True):
    """Read the trail, the newest first."""

    after: str = ""
    """Only entries with lesser ids: the last one of the page before."""
    limit: int = 100


class AuditCount(AuditFilter, frozen=True, kw_only=True):
    """Count acts by action and person."""


class Audit(Protocol):
    """The verbs of the audit trail."""

    async def audit_write(self, request: AuditWrite, /) -> None:
        """Write down an act by itself."""
        ...

    async def audit_find(self, request: AuditFind, /) -> Sequence[AuditEntry]:
        """Return entries from the greatest id down, at most `limit`."""
        ...

    async def audit_count(self, request: AuditCount, /) -> Sequence[AuditTally]:
        """Return counts sorted by action and person."""
        ...
