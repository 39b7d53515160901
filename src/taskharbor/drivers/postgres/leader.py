"""leader_take, leader_release, leader_list: leases on roles.

A role's row stays when nobody leads: its fence is never reset. Who leads writes one row now and then; who does not,
reads it.
"""

from __future__ import annotations

from collections.abc import Sequence

from taskharbor.clock import duration_micros, from_micros
from taskharbor.driver import AHEAD, LeaderList, LeaderRelease, Leadership, LeaderTake
from taskharbor.drivers.postgres.routine import Query, Routine, Row
from taskharbor.drivers.postgres.rows import interval_of, micros_of, micros_text
from taskharbor.drivers.postgres.step import Step

_NOW = "coalesce($1::text::timestamptz, clock_timestamp())"
_CLOCK = f"clock AS MATERIALIZED (SELECT {_NOW} AS now)"
_COLUMNS = f"l.role, l.worker, l.fence, {micros_of('l.since')}, {micros_of('l.expires_at')}"
# Each part is of a role in another state: led by the caller, led by nobody, never led. They wait for another's lock
# only where he is taking the same lead, or firing with the fence that is to be outdone.
_TAKE = f"""WITH {_CLOCK},
there AS MATERIALIZED (SELECT * FROM taskharbor.leader WHERE role = $2::text),
term AS MATERIALIZED (SELECT now + {interval_of("$4::text::bigint")} AS ends,
    now + {interval_of(f"($4::text::bigint + {duration_micros(AHEAD)})")} AS latest FROM clock),
kept AS (UPDATE taskharbor.leader l SET expires_at = (SELECT ends FROM term)
    WHERE l.role = $2::text AND l.worker = $3::text AND l.expires_at > (SELECT now FROM clock) RETURNING {_COLUMNS}),
taken AS (UPDATE taskharbor.leader l SET worker = $3::text, fence = l.fence + 1, since = (SELECT now FROM clock),
        expires_at = (SELECT ends FROM term)
    WHERE l.role = $2::text AND (l.expires_at <= (SELECT now FROM clock)
        OR l.worker <> $3::text AND l.expires_at > (SELECT latest FROM term)) RETURNING {_COLUMNS}),
begun AS (INSERT INTO taskharbor.leader AS l (role, worker, fence, since, expires_at)
    SELECT $2::text, $3::text, 1, c.now, t.ends FROM clock c, term t WHERE NOT EXISTS (SELECT FROM there)
    ON CONFLICT DO NOTHING RETURNING {_COLUMNS})
SELECT * FROM kept UNION ALL SELECT * FROM taken UNION ALL SELECT * FROM begun
UNION ALL SELECT {_COLUMNS} FROM there l
    WHERE l.worker <> $3::text AND l.expires_at > (SELECT now FROM clock)
    AND l.expires_at <= (SELECT latest FROM term)"""
_RELEASE = f"""UPDATE taskharbor.leader SET expires_at = {_NOW}
    WHERE role = $2::text AND worker = $3::text AND expires_at > {_NOW} RETURNING role"""
_LIST = f"SELECT {_COLUMNS} FROM taskharbor.leader l WHERE l.expires_at > {_NOW} ORDER BY l.role"


def leader_take(step: Step, request: LeaderTake) -> Routine[Leadership]:
    """Lead if nobody else does, and return who leads."""
    while True:
        rows = yield Query(_TAKE, (step.now, request.role, request.worker, micros_text(request.ttl)))
        if rows:
            return _leadership(rows[0])
        # Another has taken it since this statement began to look: the next one sees him.


def leader_release(step: Step, request: LeaderRelease) -> Routine[bool]:
    """Lead no more, and return whether the caller did."""
    rows = yield Query(_RELEASE, (step.now, request.role, request.worker))
    return bool(rows)


def leader_list(step: Step, request: LeaderList) -> Routine[Sequence[Leadership]]:
    """Return the roles that are led, sorted by role."""
    del request
    return [_leadership(row) for row in (yield Query(_LIST, (step.now,)))]


def _leadership(row: Row) -> Leadership:
    role, worker, fence, since, expires_at = row
    return Leadership(
        role=role, worker=worker, fence=fence, since=from_micros(since), expires_at=from_micros(expires_at)
    )
