"""job_find and job_count: which jobs there are, by what they are, why they ended, and when."""

from __future__ import annotations

from collections.abc import Sequence

from taskharbor.driver import Counted, JobCount, JobFind
from taskharbor.drivers.sqlite import look
from taskharbor.drivers.sqlite.filters import (
    DEAD,
    HISTORY,
    LIVE,
    Source,
    conditions,
    index_for,
    may_match,
    values,
)
from taskharbor.drivers.sqlite.routine import Cell, Routine
from taskharbor.drivers.sqlite.rows import Step, json_text
from taskharbor.drivers.sqlite.shut import shut_now
from taskharbor.drivers.sqlite.states import LIST, LIVE_STATE, live_in, positional
from taskharbor.job import JobRecord, JobState

_STATES = {LIVE.table: LIVE_STATE, HISTORY.table: "state", DEAD.table: "'dead'"}

_WHOLE = ((LIVE, look.LIVE), (HISTORY, look.HISTORY), (DEAD, look.DEAD))
_BARE = ((LIVE, look.BARE_LIVE), (HISTORY, look.BARE_HISTORY), (DEAD, look.BARE_DEAD))


def job_find(step: Step, request: JobFind) -> Routine[Sequence[JobRecord]]:
    """Return the matching jobs in order of id."""
    shut = yield from shut_now(step)
    order = "id DESC" if request.newest_first else "id"
    selects: list[str] = []
    for source, columns in _WHOLE if request.payloads else _BARE:
        state = _in_state(source, request.states)
        if state is None or not may_match(source, request):
            continue
        where = ["id < :after" if request.newest_first and request.after else "id > :after"]
        where += [*state, *conditions(source, request)]
        if request.key is not None:
            where.append("key = :key")
        if request.flow:
            where.append("flow = :flow")
        indexed = "" if request.flow else index_for(source, request)  # a flow has an index of its own
        if source is DEAD and request.key is None and not request.flow:
            # Found within the index, and only what is returned is read.
            ids = f"SELECT id FROM {DEAD.table}{indexed} WHERE {' AND '.join(where)} ORDER BY {order} LIMIT :limit"  # noqa: S608 - our own constants
            selects.append(f"{columns} WHERE id IN ({ids})")
        else:
            selects.append(f"{columns}{indexed} WHERE {' AND '.join(where)}")
    if not selects:
        return []
    named: dict[str, Cell] = {
        **values(request),
        "after": request.after,
        "states": json_text(sorted(request.states)),
        "key": request.key,
        "flow": request.flow,
        "limit": request.limit,
        "now": step.now,
        **shut.values(),
    }
    rows = yield positional(f"{' UNION ALL '.join(selects)} ORDER BY {order} LIMIT :limit", named)
    return (yield from look.records([look.JobRow(*row) for row in rows], step, shut))


def _in_state(source: Source, wanted: frozenset[JobState]) -> list[str] | None:
    """Return the conditions for a table's jobs to be in one of these states; None if none of them is."""
    if not wanted:
        return []
    if source is LIVE:
        live = live_in(wanted)
        return None if live is None else [live]
    if source is HISTORY:
        ended = wanted & {JobState.SUCCEEDED, JobState.CANCELLED}
        return [f"state IN {LIST.format('states')}"] if ended else None
    return [] if JobState.DEAD in wanted else None


def job_count(step: Step, request: JobCount) -> Routine[Sequence[Counted]]:
    """Return counts sorted by queue, task and state."""
    shut = yield from shut_now(step)
    selects: list[str] = []
    for source in (LIVE, HISTORY, DEAD):
        if may_match(source, request):
            where = " AND ".join(["1", *conditions(source, request)])
            selects.append(
                f"SELECT queue, task, {_STATES[source.table]} AS state, count(*) "  # noqa: S608 - our own constants
                f"FROM {source.table}{index_for(source, request)} WHERE {where} GROUP BY 1, 2, 3"
            )
    named: dict[str, Cell] = {**values(request), "now": step.now, **shut.values()}
    rows = yield positional(" UNION ALL ".join(selects), named)
    return [Counted(queue, task, JobState(state), count) for queue, task, state, count in sorted(rows)]
