"""queue_pause, queue_resume, queue_list."""

from __future__ import annotations

from collections.abc import Sequence

from taskharbor.clock import from_micros
from taskharbor.driver import QueueInfo, QueueList, QueuePause, QueueResume
from taskharbor.drivers.sqlite.routine import Query, Routine
from taskharbor.drivers.sqlite.rows import WAITING, Step
from taskharbor.drivers.sqlite.shut import shut_now
from taskharbor.drivers.sqlite.states import LIST, SHUT, positional

# Counted over the index alone, which is small beside the jobs.
_NOT_LEASED = f"""SELECT queue, stray, lane = {WAITING}, due > ?, count(*)
    FROM taskharbor_job INDEXED BY taskharbor_job_ready WHERE token IS NULL GROUP BY 1, 2, 3, 4"""  # noqa: S608 - our own constants
# With limits or holds each job that is due is looked at.
_KEPT_BACK = f"""SELECT queue, count(*) FROM taskharbor_job
    WHERE token IS NULL AND lane <> {WAITING} AND due <= :now AND stray NOT IN {LIST.format("parked")} AND {SHUT}
    GROUP BY 1"""  # noqa: S608 - our own constants
_RUNNING = """SELECT j.queue, count(*) FROM taskharbor_lease l, json_each(l.jobs) e
    CROSS JOIN taskharbor_job j ON j.id = e.value AND j.token = l.token GROUP BY 1"""


def queue_pause(step: Step, request: QueuePause) -> Routine[Sequence[bool]]:
    """Pause queues; return of each whether it was not paused before."""
    answers: list[bool] = []
    for queue in request.queues:
        yield Query(
            "INSERT OR IGNORE INTO taskharbor_pause (queue, paused_at, paused_by, reason) VALUES (?, ?, ?, ?)",
            (queue, step.now, request.by, request.reason),
        )
        ((changed,),) = yield Query("SELECT changes()")
        answers.append(bool(changed))
    return answers


def queue_resume(step: Step, request: QueueResume) -> Routine[Sequence[bool]]:
    """Resume queues; return of each whether it was paused."""
    answers: list[bool] = []
    for queue in request.queues:
        yield Query("DELETE FROM taskharbor_pause WHERE queue = ?", (queue,))
        ((changed,),) = yield Query("SELECT changes()")
        answers.append(bool(changed))
    step.wakes.queues.update(request.queues)
    return answers


def queue_list(step: Step, request: QueueList) -> Routine[Sequence[QueueInfo]]:
    """Return the queues that hold live jobs or are paused, sorted by name."""
    pauses = yield Query("SELECT queue, paused_at, paused_by, reason FROM taskharbor_pause")
    shut = yield from shut_now(step)
    others = yield Query(_NOT_LEASED, (step.now,))
    running = yield Query(_RUNNING)
    paused = {queue: (at, by, reason) for queue, at, by, reason in pauses}
    counts: dict[str, dict[str, int]] = {queue: {} for queue in paused}
    for queue, stray, waits, later, count in others:
        state = (
            "waiting" if waits else "parked" if stray in shut.strays else "scheduled" if later else "ready"
        )
        there = counts.setdefault(queue, {})
        there[state] = there.get(state, 0) + count
    if shut.gates is not None:
        for queue, count in (yield positional(_KEPT_BACK, {"now": step.now, **shut.values()})):
            counts[queue]["ready"] -= count
            counts[queue]["parked"] = counts[queue].get("parked", 0) + count
    for queue, count in running:
        counts.setdefault(queue, {})["running"] = count
    return [_queue(queue, counts[queue], paused.get(queue)) for queue in sorted(counts)]


def _queue(name: str, counts: dict[str, int], pause: tuple[int, str, str] | None) -> QueueInfo:
    return QueueInfo(
        name=name,
        paused=pause is not None,
        paused_at=None if pause is None else from_micros(pause[0]),
        paused_by="" if pause is None else pause[1],
        reason="" if pause is None else pause[2],
        ready=counts.get("ready", 0),
        scheduled=counts.get("scheduled", 0),
        parked=counts.get("parked", 0),
        waiting=counts.get("waiting", 0),
        running=counts.get("running", 0),
    )
