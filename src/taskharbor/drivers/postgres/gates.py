"""The gates of lines at one instant: what runs behind them, and when they let the next one through."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from taskharbor.driver.limiting import Gates, Rules
from taskharbor.drivers.postgres.routine import Query, Routine
from taskharbor.drivers.postgres.rows import micros_of
from taskharbor.drivers.postgres.rules import scope_cells
from taskharbor.drivers.postgres.step import Step
from taskharbor.limit import Scope, ScopeKind

_LEASED = """SELECT j.queue, j.task, coalesce(j.part, '') AS part, count(*) AS running
    FROM taskharbor.lease l CROSS JOIN LATERAL pg_catalog.unnest(l.jobs) u(id)
    CROSS JOIN LATERAL (SELECT r.queue, r.task, r.part FROM taskharbor.job r
        WHERE r.id = u.id AND r.token = l.token LIMIT 1) j
    WHERE {which} GROUP BY 1, 2, 3"""
LEASED = _LEASED.format(which="true")
"""How many jobs are leased of each queue, task and partition."""
RUNNING = _LEASED.format(which="l.counted")
"""The same of leases that were taken while that mattered."""
_NOW = f"SELECT {micros_of('coalesce($1::text::timestamptz, clock_timestamp())')}"
_GATES = f"""SELECT 'now', '', '', '', ({_NOW})
    UNION ALL SELECT 'arrival', kind, name, key, at FROM taskharbor.arrival WHERE at > ({_NOW})"""
_OF_SCOPES = """ AND (kind, name, key) IN (
    SELECT * FROM unnest($2::text::text[], $3::text::text[], $4::text::text[]))"""
_COUNTED = f" UNION ALL SELECT 'running', queue, task, part, running FROM ({RUNNING}) r"
# What is over says no more than nothing does. Whoever reserves at a rate at this moment writes it anew.
_PRUNE = f"""WITH gone AS (DELETE FROM taskharbor.arrival WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM taskharbor.arrival WHERE at <= ({_NOW}) LIMIT $2::text::bigint FOR UPDATE SKIP LOCKED))
    RETURNING 1) SELECT count(*) FROM gone"""


class Seen(NamedTuple):
    """What gates are made of, as read from the store."""

    now: int
    """The store's time, in microseconds."""
    running: dict[tuple[str, str, str], int]
    arrivals: dict[Scope, int]

    def gates(self, rules: Rules) -> Gates:
        """Return the gates."""
        return Gates(rules, self.running, self.arrivals, self.now)


def read_gates(step: Step, rules: Rules, lines: Collection[tuple[str, str]] | None = None) -> Routine[Seen]:
    """Return how all gates stand.

    Arrival times that are in the past say nothing, and are left out.

    Args:
        step: what a verb works with.
        rules: what is in force.
        lines: tasks and partitions; arrival times of others are left out. None: of none.
    """
    scopes: set[Scope] = set()
    for line in lines or ():
        scopes.update(scope for scope, terms in rules.gates("", *line) if terms.rate is not None)
    sql = _GATES + (_OF_SCOPES if lines is not None else "") + (_COUNTED if rules.counts else "")
    cells = (step.now,) if lines is None else (step.now, *scope_cells(scopes))
    now = 0
    running: dict[tuple[str, str, str], int] = {}
    arrivals: dict[Scope, int] = {}
    for kind, one, two, three, number in (yield Query(sql, cells)):
        if kind == "running":
            running[one, two, three] = number
        elif kind == "arrival":
            arrivals[Scope(ScopeKind(one), two, three)] = number
        else:
            now = number
    return Seen(now, running, arrivals)


def prune_arrivals(step: Step, limit: int) -> Routine[bool]:
    """Remove arrival times that are in the past, and return whether there may be more."""
    ((gone,),) = yield Query(_PRUNE, (step.now, str(limit)))
    return bool(gone >= limit)
