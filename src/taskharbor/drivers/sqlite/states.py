"""The states of jobs as SQL: conditions that live ones meet, and how many steps of flows are in each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from taskharbor.drivers.sqlite.routine import Cell, Query, Routine
from taskharbor.drivers.sqlite.rows import WAITING, Step, json_text
from taskharbor.drivers.sqlite.shut import Shut, shut_now
from taskharbor.job import JobState

LIST = "(SELECT value FROM json_each(:{}))"
_PARKED = "stray IN " + LIST.format("parked")
_ADMITTED = f"token IS NULL AND lane <> {WAITING} AND NOT {_PARKED}"
SHUT = (
    f"((task IN {LIST.format('shut_tasks')}) <> ((task, coalesce(part, '')) IN "  # noqa: S608 - our own constants
    "(SELECT value ->> 0, value ->> 1 FROM json_each(:shut_others))))"
)
"""Whether limits or holds keep a job back."""
# Leased jobs have no index of their own: their leases name them.
_LEASED = "id IN (SELECT j.value FROM taskharbor_lease l, json_each(l.jobs) j) AND token IS NOT NULL"
_STATES = {
    JobState.WAITING: f"token IS NULL AND lane = {WAITING}",
    JobState.RUNNING: _LEASED,
    JobState.PARKED: f"token IS NULL AND ({_PARKED} OR (lane <> {WAITING} AND due <= :now AND {SHUT}))",
    JobState.RETRYING: f"{_ADMITTED} AND due > :now AND attempt > 0",
    JobState.SCHEDULED: f"{_ADMITTED} AND due > :now AND attempt = 0",
    JobState.READY: f"{_ADMITTED} AND due <= :now AND NOT {SHUT}",
}
LIVE_STATE = (
    f"CASE WHEN token IS NOT NULL THEN 'running' WHEN lane = {WAITING} THEN 'waiting' WHEN {_PARKED} THEN 'parked' "
    f"WHEN due > :now THEN iif(attempt > 0, 'retrying', 'scheduled') WHEN {SHUT} THEN 'parked' ELSE 'ready' END"
)
"""The state of a live job, by the parameter `now` and those of `Shut`."""


def live_in(wanted: frozenset[JobState]) -> str | None:
    """Return the condition for live jobs in one of these states; None if none of them is a live one."""
    parts = [condition for state, condition in _STATES.items() if state in wanted]
    return "(" + " OR ".join(f"({part})" for part in parts) + ")" if parts else None


def positional(sql: str, values: Mapping[str, Cell]) -> Query:
    """Return a statement with numbered parameters for the named ones it uses."""
    used: list[Cell] = []
    for name, value in values.items():
        if f":{name}" in sql:
            used.append(value)
            sql = sql.replace(f":{name}", f"?{len(used)}")
    return Query(sql, used)


def count_steps(flows: Sequence[str], step: Step) -> Routine[dict[str, dict[JobState, int]]]:
    """Return how many steps of each of these flows are in each state."""
    shut: Shut = yield from shut_now(step)
    of_these = f" WHERE flow IN {LIST.format('flows')}"
    sql = (
        f"SELECT flow, {LIVE_STATE}, count(*) FROM taskharbor_job{of_these} GROUP BY 1, 2 "  # noqa: S608 - our own constants
        f"UNION ALL SELECT flow, state, count(*) FROM taskharbor_history{of_these} GROUP BY 1, 2 "
        f"UNION ALL SELECT flow, 'dead', count(*) FROM taskharbor_dead{of_these} GROUP BY 1"
    )
    values: dict[str, Cell] = {
        "now": step.now,
        "flows": json_text(flows),
        **shut.values(),
    }
    counts: dict[str, dict[JobState, int]] = {}
    for flow, state, count in (yield positional(sql, values)):
        counts.setdefault(flow, {})[JobState(state)] = count
    return counts
