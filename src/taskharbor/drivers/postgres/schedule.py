"""schedule_find, schedule_due, schedule_pause, schedule_resume, schedule_delete.

Whoever writes schedules locks them in order of name, before anything else (jobs, keys, counters).
"""

from __future__ import annotations

from collections.abc import Sequence

from taskharbor.clock import from_micros
from taskharbor.driver import (
    DueSchedule,
    DueSchedules,
    ScheduleDelete,
    ScheduleDue,
    ScheduleFind,
    SchedulePause,
    ScheduleResume,
)
from taskharbor.drivers.postgres.routine import Cell, Query, Routine, text_array
from taskharbor.drivers.postgres.rows import as_duration, micros_of
from taskharbor.drivers.postgres.schedule_rows import COLUMNS, record_of
from taskharbor.drivers.postgres.step import Step
from taskharbor.schedule import ScheduleRecord

_NOW = "coalesce($1::text::timestamptz, clock_timestamp())"
BUSY = "(SELECT j.id FROM taskharbor.job j WHERE j.id = s.last_job LIMIT 1) IS NOT NULL"
"""Whether the job that a schedule `s` last made has not ended."""
# One row more than asked tells whether the limit ends the list. Where nothing is due it is three looks at an index, and
# one row that tells the time.
_DUE = f"""WITH clock AS MATERIALIZED (SELECT {_NOW} AS now),
come AS (SELECT name, due FROM taskharbor.schedule WHERE due <= (SELECT now FROM clock)
    ORDER BY due, name LIMIT $2::text::bigint + 1),
kept AS (SELECT s.name, s.waiting_tick AS due FROM taskharbor.schedule s
    WHERE (s.waiting_tick IS NOT NULL)::integer = 1 AND s.waiting_tick IS NOT NULL AND s.paused_at IS NULL
    AND NOT {BUSY}),
listed AS MATERIALIZED (SELECT name, row_number() OVER (ORDER BY min(due), name) AS place
    FROM (SELECT * FROM come UNION ALL SELECT * FROM kept) b GROUP BY name ORDER BY 2 LIMIT $2::text::bigint + 1)
SELECT {micros_of("c.now")}, {micros_of("n.due")}, d.*
FROM clock c
LEFT JOIN LATERAL (SELECT x.due FROM taskharbor.schedule x
    WHERE x.due > c.now AND x.due < timestamptz 'infinity' ORDER BY x.due LIMIT 1) n ON true
LEFT JOIN (SELECT l.place, {COLUMNS}, {BUSY} AS busy FROM listed l CROSS JOIN LATERAL (
    SELECT * FROM taskharbor.schedule y WHERE y.name = l.name LIMIT 1) s) d ON true
ORDER BY d.place"""
_FIND = f"SELECT {COLUMNS} FROM taskharbor.schedule s WHERE {{which}} ORDER BY s.name LIMIT $1::text::bigint"
# Named by itself, so that it is found by its index even where the planner knows of no rows.
_OF_APPLICATION = """s.name = ANY (ARRAY(SELECT x.name FROM taskharbor.schedule x
    WHERE x.application = ${}::text AND x.application IS NOT NULL))"""
_LOCKED = """there AS MATERIALIZED (SELECT name FROM taskharbor.schedule WHERE name = ANY ($2::text::text[])
    ORDER BY name FOR UPDATE)"""
_PAUSE = f"""WITH {_LOCKED},
paused AS (UPDATE taskharbor.schedule s SET paused_at = {_NOW}, paused_by = $3::text, reason = $4::text,
    revision = s.revision + 1 FROM there t WHERE s.name = t.name AND s.paused_at IS NULL)
SELECT name FROM there"""
_RESUME = f"""WITH {_LOCKED},
resumed AS (UPDATE taskharbor.schedule s SET paused_at = NULL, paused_by = '', reason = '', after = {_NOW},
    next_at = NULL, waiting_tick = NULL, revision = s.revision + 1
    FROM there t WHERE s.name = t.name AND s.paused_at IS NOT NULL)
SELECT name FROM there"""
_DELETE = """WITH there AS MATERIALIZED (SELECT name FROM taskharbor.schedule WHERE name = ANY ($1::text::text[])
    ORDER BY name FOR UPDATE),
gone AS (DELETE FROM taskharbor.schedule s USING there t WHERE s.name = t.name)
SELECT name FROM there"""


def schedule_find(step: Step, request: ScheduleFind) -> Routine[Sequence[ScheduleRecord]]:
    """Return the matching schedules in order of name."""
    del step
    cells: list[Cell] = [str(max(request.limit, 0))]
    which = ["true"]
    for condition, cell in (
        ("s.name = ANY (${}::text::text[])", None if request.names is None else text_array(request.names)),
        (_OF_APPLICATION, request.application),
        ('s.name > ${}::text COLLATE "C"', request.after),
    ):
        if cell is not None:
            cells.append(cell)
            which.append(condition.format(len(cells)))
    rows = yield Query(_FIND.replace("{which}", " AND ".join(which)), cells)
    return [record_of(row) for row in rows]


def schedule_due(step: Step, request: ScheduleDue) -> Routine[DueSchedules]:
    """Return the schedules to be looked at now."""
    limit = max(request.limit, 0)
    rows = yield Query(_DUE, (step.now, str(limit)))
    now, next_due = rows[0][:2]
    listed = [row[3:] for row in rows if row[3] is not None]
    next_in = None if next_due is None else as_duration(next_due - now)
    if len(listed) > limit:
        next_in = as_duration(0)
    due = [DueSchedule(record=record_of(row), busy=row[-1]) for row in listed[:limit]]
    return DueSchedules(now=from_micros(now), due=due, next_in=next_in)


def schedule_pause(step: Step, request: SchedulePause) -> Routine[Sequence[bool]]:
    """Pause schedules and return, for each, whether it is there."""
    rows = yield Query(_PAUSE, (step.now, text_array(request.names), request.by, request.reason))
    there = {name for (name,) in rows}
    return [name in there for name in request.names]


def schedule_resume(step: Step, request: ScheduleResume) -> Routine[Sequence[bool]]:
    """Resume schedules and return, for each, whether it is there."""
    there = {name for (name,) in (yield Query(_RESUME, (step.now, text_array(request.names))))}
    return [name in there for name in request.names]


def schedule_delete(step: Step, request: ScheduleDelete) -> Routine[Sequence[bool]]:
    """Delete schedules and return, for each, whether it was there."""
    del step
    there = {name for (name,) in (yield Query(_DELETE, (text_array(request.names),)))}
    answers: list[bool] = []
    for name in request.names:
        answers.append(name in there)
        there.discard(name)  # should it be named twice
    return answers
