"""schedule_find, schedule_due, schedule_fire, and pausing, resuming and deleting schedules."""

from __future__ import annotations

from collections.abc import Sequence

from taskharbor.clock import from_micros
from taskharbor.driver import (
    UPKEEP,
    DueSchedule,
    DueSchedules,
    Enqueued,
    Fired,
    Firing,
    JobEnqueue,
    ScheduleDelete,
    ScheduleDue,
    ScheduleFind,
    ScheduleFire,
    SchedulePause,
    ScheduleResume,
)
from taskharbor.driver.timetable import made
from taskharbor.drivers.sqlite.enqueue import job_enqueue
from taskharbor.drivers.sqlite.leader import last_fence
from taskharbor.drivers.sqlite.routine import Cell, Query, Routine, Row
from taskharbor.drivers.sqlite.rows import Step, as_duration, json_text
from taskharbor.drivers.sqlite.schedule_rows import (
    COLUMNS,
    TO_COMPUTE,
    cell_of,
    due_of,
    record_of,
    remove,
    there,
)
from taskharbor.schedule import ScheduleRecord

# What has ended has left this table (`leaving`).
_BUSY = "EXISTS (SELECT 1 FROM taskharbor_job j WHERE j.id = s.last_job)"
_GOES_ON = "s.paused_at IS NULL AND s.ended = 0"
_FIND = f"SELECT {COLUMNS} FROM taskharbor_schedule s WHERE {{}} ORDER BY s.name LIMIT ?"  # noqa: S608 - our own constants
_COME = f"""SELECT {COLUMNS}, s.due, {_BUSY} FROM taskharbor_schedule s
    WHERE {_GOES_ON} AND s.due <= ? ORDER BY s.due, s.name LIMIT ?"""  # noqa: S608 - our own constants
_KEPT = f"""SELECT {COLUMNS}, s.waiting_tick, 0 FROM taskharbor_schedule s
    WHERE s.paused_at IS NULL AND s.waiting_tick IS NOT NULL AND NOT {_BUSY}
    ORDER BY s.waiting_tick, s.name LIMIT ?"""  # noqa: S608 - our own constants
_NEXT = f"SELECT s.due FROM taskharbor_schedule s WHERE {_GOES_ON} AND s.due > ? ORDER BY s.due LIMIT 1"  # noqa: S608 - our own constants
_PAUSE = """UPDATE taskharbor_schedule SET paused_at = ?2, paused_by = ?3, reason = ?4, revision = revision + 1
    WHERE name IN (SELECT value FROM json_each(?1)) AND paused_at IS NULL"""
_RESUME = """UPDATE taskharbor_schedule SET paused_at = NULL, paused_by = '', reason = '', after_at = ?2, due = ?3,
    waiting_tick = NULL, revision = revision + 1
    WHERE name IN (SELECT value FROM json_each(?1)) AND paused_at IS NOT NULL"""
_REVISIONS = "SELECT name, revision FROM taskharbor_schedule WHERE name IN (SELECT value FROM json_each(?))"
# [name, fired, missed, overlapped, last_tick, last_job, after, due, ended, waiting_tick, kept_out]; without `after`,
# what stands from `after` to `waiting_tick` stays as it is.
_MOVE = """UPDATE taskharbor_schedule SET revision = revision + 1,
    fired = fired + (e.value ->> 1), missed = missed + (e.value ->> 2), overlapped = overlapped + (e.value ->> 3),
    kept_out = kept_out + (e.value ->> 10),
    last_tick = coalesce(e.value ->> 4, last_tick), last_job = coalesce(e.value ->> 5, last_job),
    after_at = coalesce(e.value ->> 6, after_at),
    due = CASE WHEN e.value ->> 6 IS NULL THEN due ELSE e.value ->> 7 END,
    ended = CASE WHEN e.value ->> 6 IS NULL THEN ended ELSE e.value ->> 8 END,
    waiting_tick = CASE WHEN e.value ->> 6 IS NULL THEN waiting_tick ELSE e.value ->> 9 END
    FROM json_each(?) e WHERE taskharbor_schedule.name = e.value ->> 0"""


def schedule_find(step: Step, request: ScheduleFind) -> Routine[Sequence[ScheduleRecord]]:
    """Return the matching schedules in order of name."""
    met, cells = ["true"], list[Cell]()
    if request.names is not None:
        met.append("s.name IN (SELECT value FROM json_each(?))")
        cells.append(json_text(list(request.names)))
    if request.application is not None:
        met.append("s.application = ?")
        cells.append(request.application)
    if request.after is not None:
        met.append("s.name > ?")
        cells.append(request.after)
    rows = yield Query(_FIND.format(" AND ".join(met)), (*cells, max(request.limit, 0)))
    return [record_of(row) for row in rows]


def schedule_due(step: Step, request: ScheduleDue) -> Routine[DueSchedules]:
    """Return the schedules to be looked at now."""
    limit = max(request.limit, 0)
    # One more than asked for tells whether the limit ends the list.
    come = yield Query(_COME, (step.now, limit + 1))
    kept = yield Query(_KEPT, (limit + 1,))
    following = yield Query(_NEXT, (step.now,))
    listed: dict[str, Row] = {}
    for row in sorted([*come, *kept], key=lambda row: (row[-2], row[0])):
        listed.setdefault(row[0], row)  # one that is in both stands where it is due first
    next_in = as_duration(following[0][0] - step.now) if following else None
    return DueSchedules(
        now=from_micros(step.now),
        due=[DueSchedule(record=record_of(row), busy=bool(row[-1])) for row in list(listed.values())[:limit]],
        next_in=as_duration(0) if len(listed) > limit else next_in,
    )


def schedule_pause(step: Step, request: SchedulePause) -> Routine[Sequence[bool]]:
    """Pause schedules and return, for each, whether it is there."""
    names = list(request.names)
    yield Query(_PAUSE, (json_text(names), step.now, request.by, request.reason))
    found = yield from there(names)
    return [name in found for name in names]


def schedule_resume(step: Step, request: ScheduleResume) -> Routine[Sequence[bool]]:
    """Resume schedules and return, for each, whether it is there."""
    names = list(request.names)
    yield Query(_RESUME, (json_text(names), step.now, TO_COMPUTE))
    found = yield from there(names)
    return [name in found for name in names]


def schedule_delete(step: Step, request: ScheduleDelete) -> Routine[Sequence[bool]]:
    """Delete schedules and return, for each, whether it was there."""
    found = yield from there(request.names)
    yield from remove(list(found))
    answers: list[bool] = []
    for name in request.names:
        answers.append(name in found)
        found.discard(name)
    return answers


def schedule_fire(step: Step, request: ScheduleFire) -> Routine[Sequence[Fired]]:
    """Store the jobs of ticks, move schedules on, and return one answer each, in order."""
    stays = Fired(moved=False)
    if request.fence is not None and (yield from last_fence(UPKEEP)) > request.fence:
        return [stays] * len(request.firings)
    names = [firing.name for firing in request.firings]
    revisions: dict[str, int] = dict((yield Query(_REVISIONS, (json_text(names),))))
    moves: dict[int, Firing] = {}
    for place, firing in enumerate(request.firings):
        if revisions.get(firing.name) == firing.revision:
            moves[place] = firing
            # Should it be named twice: it has been written since the second was read.
            del revisions[firing.name]
    jobs = [job for firing in moves.values() for job in firing.jobs]
    stored = iter((yield from job_enqueue(step, JobEnqueue(jobs=jobs))) if jobs else ())
    answers = {place: [next(stored) for _ in firing.jobs] for place, firing in moves.items()}
    if moves:
        cells = [_move(firing, answers[place]) for place, firing in moves.items()]
        yield Query(_MOVE, (json_text(cells),))
    return [
        Fired(moved=True, jobs=answers[place]) if place in answers else stays
        for place in range(len(request.firings))
    ]


def _move(firing: Firing, answers: Sequence[Enqueued]) -> tuple[Cell, ...]:
    came = made(firing, answers)
    return (
        firing.name,
        came.fired,
        firing.missed,
        firing.overlapped,
        cell_of(came.last_tick),
        came.last_job,
        cell_of(firing.after),
        due_of(firing.next_at),
        int(firing.ended),
        cell_of(firing.waiting_tick),
        came.kept_out,
    )
