"""leader_take, leader_release, leader_list."""

from __future__ import annotations

from collections.abc import Sequence

from taskharbor.clock import duration_micros, from_micros
from taskharbor.driver import AHEAD, LeaderList, LeaderRelease, Leadership, LeaderTake
from taskharbor.drivers.sqlite.routine import Query, Routine
from taskharbor.drivers.sqlite.rows import Step

_LAST = "SELECT worker, fence, since, expires_at FROM taskharbor_leader WHERE role = ?"
# The row stays when nobody leads: the next fence is greater.
_LEAD = """INSERT OR REPLACE INTO taskharbor_leader (role, worker, fence, since, expires_at)
    VALUES (?, ?, ?, ?, ?)"""
_LEAVE = """UPDATE taskharbor_leader SET expires_at = ?1 WHERE role = ?2 AND worker = ?3 AND expires_at > ?1
    RETURNING role"""
_LED = (
    "SELECT role, worker, fence, since, expires_at FROM taskharbor_leader WHERE expires_at > ? ORDER BY role"
)

_AHEAD = duration_micros(AHEAD)


def another_leads(step: Step, request: LeaderTake) -> Routine[Leadership | None]:
    """Return who leads, without writing, if that is not the caller."""
    for worker, fence, since, expires_at in (yield Query(_LAST, (request.role,))):
        if worker != request.worker and step.now < expires_at <= _end(step, request) + _AHEAD:
            return _leadership(request.role, worker, fence, since, expires_at)
    return None


def leader_take(step: Step, request: LeaderTake) -> Routine[Leadership]:
    """Lead if nobody else does, and return who leads."""
    other = yield from another_leads(step, request)
    if other is not None:
        return other
    fence, since, until = 1, step.now, _end(step, request)
    for last_worker, last_fence, last_since, last_until in (yield Query(_LAST, (request.role,))):
        goes_on = last_worker == request.worker and last_until > step.now
        fence, since = (last_fence, last_since) if goes_on else (last_fence + 1, step.now)
    yield Query(_LEAD, (request.role, request.worker, fence, since, until))
    return _leadership(request.role, request.worker, fence, since, until)


def _end(step: Step, request: LeaderTake) -> int:
    return step.now + duration_micros(request.ttl)


def leader_release(step: Step, request: LeaderRelease) -> Routine[bool]:
    """Lead no more, and return whether the caller did."""
    return bool((yield Query(_LEAVE, (step.now, request.role, request.worker))))


def leader_list(step: Step, request: LeaderList) -> Routine[Sequence[Leadership]]:
    """Return the roles that are led, sorted by role."""
    return [_leadership(*row) for row in (yield Query(_LED, (step.now,)))]


def last_fence(role: str) -> Routine[int]:
    """Return the fence of who leads a role, or led it last; 0 if nobody ever did."""
    rows = yield Query(_LAST, (role,))
    return rows[0][1] if rows else 0


def _leadership(role: str, worker: str, fence: int, since: int, expires_at: int) -> Leadership:
    return Leadership(
        role=role,
        worker=worker,
        fence=fence,
        since=from_micros(since),
        expires_at=from_micros(expires_at),
    )
