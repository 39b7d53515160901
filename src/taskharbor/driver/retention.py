"""Retention: removing what nobody needs any more, by what jobs say, and by rules set by hand (rule 17)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

import msgspec

from taskharbor.driver.request import Request
from taskharbor.job import JobState


class RetentionRule(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """What is kept of the ended jobs of one task, or of all others, in one state. It shortens, and never lengthens."""

    task: str = ""
    """Empty: every task that has no rule of its own for the state."""
    state: JobState
    """SUCCEEDED, CANCELLED or DEAD. Without a rule, dead letters are kept until a person deletes them."""
    keep_for: timedelta | None = None
    """No longer than this after they ended."""
    keep_last: int | None = None
    """Of each task no more than these, the ones that ended last."""


class RetentionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A rule, and who set it."""

    rule: RetentionRule
    set_at: datetime
    by: str = ""
    reason: str = ""


class RetentionSet(Request, frozen=True, kw_only=True):
    """Set rules, each in the place of the one for its task and state; one that keeps everything removes it."""

    rules: Sequence[RetentionRule]
    by: str = ""
    reason: str = ""


class RetentionList(Request, frozen=True, kw_only=True):
    """List the rules."""


class HistoryPrune(Request, frozen=True, kw_only=True):
    """Remove succeeded and cancelled jobs whose retention has ended, keys whose time is over, workers long gone;
    events, statistics and acts older than `EVENT_RETAIN`, `STATISTICS_RETAIN` and `AUDIT_RETAIN`, and reports of jobs
    that are no more.

    A driver may remove whole days at once, and so keep a job up to two days longer; never shorter.
    """

    limit: int = 10_000
    """At most so many jobs, and so many keys, in one step, beside whole days; call again while `more`."""
    rules: bool = False
    """Apply the rules of `retention_set` as well: reads the whole history, so it is done every ten minutes or so. The
    dead letters that a rule removes count among the jobs."""


class Pruned(msgspec.Struct, frozen=True, kw_only=True):
    """What a prune removed."""

    jobs: int
    keys: int
    more: bool = False
    """The limit was reached; there may be more."""


class Retention(Protocol):
    """The verbs of retention."""

    async def history_prune(self, request: HistoryPrune, /) -> Pruned:
        """Remove what has outlived its retention. Dead letters are removed by rules only. A step of a flow that has not
        ended is never removed by a rule.
        """
        ...

    async def retention_set(self, request: RetentionSet, /) -> Sequence[bool]:
        """Set rules; return of each whether it changed anything, in order."""
        ...

    async def retention_list(self, request: RetentionList, /) -> Sequence[RetentionRecord]:
        """Return the rules, sorted by task and state."""
        ...
