"""Leadership: one worker at a time does what has to be done in one place.

It is a lease on a *role*. Each new leader is given a fence, greater than those of all leaders of the role before it
(never reset, not even when nobody leads): what a leader writes carries it, so that one who was stopped and comes back
late changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

import msgspec

from taskharbor.driver.request import Request

UPKEEP = "upkeep"
"""The role of whoever fires schedules and prunes."""
AHEAD = timedelta(minutes=1)
"""By how much a lease may end later than one that is asked for now, and still be waited for."""


class LeaderTake(Request, frozen=True, kw_only=True):
    """Lead, if nobody else does, or go on leading: until so long after now. While another leads nothing is written.

    Who comes back after the end of its own lease is a new leader, with a fence of its own. So is who finds the lease of
    another to end later than `AHEAD` after its own would: that one was given while the store's clock was ahead, for
    those who ask for a role ask for about as long.
    """

    role: str
    worker: str
    ttl: timedelta


class LeaderRelease(Request, frozen=True, kw_only=True):
    """Lead no more, so that another need not wait for the end of the lease. Of a worker that does not lead: nothing."""

    role: str
    worker: str


class LeaderList(Request, frozen=True, kw_only=True):
    """List the roles that are led now."""


class Leadership(msgspec.Struct, frozen=True, kw_only=True):
    """Who leads a role, at one instant."""

    role: str
    worker: str
    fence: int
    since: datetime
    expires_at: datetime


class Leaders(Protocol):
    """The verbs of leadership."""

    async def leader_take(self, request: LeaderTake, /) -> Leadership:
        """Lead if nobody else does, and return who leads: `worker` tells whether it is the caller."""
        ...

    async def leader_release(self, request: LeaderRelease, /) -> bool:
        """Lead no more, and return whether the caller did."""
        ...

    async def leader_list(self, request: LeaderList, /) -> Sequence[Leadership]:
        """Return the roles that are led, sorted by role. Those whose lease has ended are left out."""
        ...
