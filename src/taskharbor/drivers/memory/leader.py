"""leader_take, leader_release, leader_list."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from taskharbor.clock import duration_micros, from_micros
from taskharbor.driver import AHEAD, LeaderList, LeaderRelease, Leadership, LeaderTake
from taskharbor.drivers.memory.rows import Leader
from taskharbor.drivers.memory.tables import Tables

_AHEAD = duration_micros(AHEAD)


def leader_take(tables: Tables, request: LeaderTake, now: int) -> Leadership:
    """Lead if nobody else does, and return who leads."""
    last, until = tables.leaders.get(request.role), now + duration_micros(request.ttl)
    ahead = last is not None and last.worker != request.worker and last.expires > until + _AHEAD
    if last is None or last.expires <= now or ahead:
        fence = 1 if last is None else last.fence + 1
        tables.leaders[request.role] = Leader(request.worker, fence, now, until)
    elif last.worker == request.worker:
        tables.leaders[request.role] = replace(last, expires=until)
    return _leadership(request.role, tables.leaders[request.role])


def leader_release(tables: Tables, request: LeaderRelease, now: int) -> bool:
    """Lead no more, and return whether the caller did."""
    last = tables.leaders.get(request.role)
    if last is None or last.worker != request.worker or last.expires <= now:
        return False
    tables.leaders[request.role] = replace(last, expires=now)  # its fence is kept: the next one is greater
    return True


def leader_list(tables: Tables, request: LeaderList, now: int) -> Sequence[Leadership]:
    """Return the roles that are led, sorted by role."""
    return [_leadership(role, last) for role, last in sorted(tables.leaders.items()) if last.expires > now]


def last_fence(tables: Tables, role: str) -> int:
    """Return the fence of who leads a role, or led it last; 0 if nobody ever did."""
    last = tables.leaders.get(role)
    return 0 if last is None else last.fence


def _leadership(role: str, leader: Leader) -> Leadership:
    return Leadership(
        role=role,
        worker=leader.worker,
        fence=leader.fence,
        since=from_micros(leader.since),
        expires_at=from_micros(leader.expires),
    )
