"""Retention: removing what nobody needs any more (rule 17)."""

from __future__ import annotations

from typing import Protocol

import msgspec

from taskharbor.driver.request import Request


class HistoryPrune(Request, frozen=True, kw_only=True):
    """Remove succeeded and cancelled jobs whose retention has ended, keys whose time is over, workers long gone;
    events and statistics older than `EVENT_RETAIN` and `STATISTICS_RETAIN`, and reports of jobs that are no more.

    A driver may remove whole days at once, and so keep a job up to two days longer; never shorter.
    """

    limit: int = 10_000
    """At most so many jobs, and so many keys, in one step, beside whole days; call again while `more`."""


class Pruned(msgspec.Struct, frozen=True, kw_only=True):
    """What a prune removed."""

    jobs: int
    keys: int
    more: bool = False
    """The limit was reached; there may be more."""


class Retention(Protocol):
    """The verb of retention."""

    async def history_prune(self, request: HistoryPrune, /) -> Pruned:
        """Remove what has outlived its retention. Dead letters are never removed."""
        ...
