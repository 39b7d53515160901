"""queue_pause, queue_resume, queue_list."""

from __future__ import annotations

from collections.abc import Sequence

from taskharbor.clock import from_micros
from taskharbor.driver import QueueInfo, QueueList, QueuePause, QueueResume
from taskharbor.drivers.sqlite.routine import Query, Routine
from taskharbor.drivers.sqlite.rows import WAITING, Step, json_text
from taskharbor.drivers.sqlite.upkeep import parked_strays

# Counted over the index alone, which is small beside the jobs.
_NOT_LEASED = f"""SELECT queue, stray, lane = {WAITING}, due > ?, count(*)
    FROM taskharbor_job INDEXED BY taskharbor_job_ready WHERE token IS NULL GROUP BY 1, 2, 3, 4"""  # noqa: S608 - our own constants
_RUNNING = """SELECT j.queue, count(*) FROM taskharbor_lease l, json_each(l.jobs) e
    CROSS JOIN taskharbor_job j ON j.id = e.value AND j.token = l.token GROUP BY 1"""


def queue_pause(step: Step, request: QueuePause) -> Routine[None]:
    """Pause queues."""
    for queue in request.queues:
        yield Query(
            "INSERT OR IGNORE INTO taskharbor_pause (queue, paused_at, paused_by, reason) VALUES (?, ?, ?, ?)",
            (queue, step.now, request.by, request.reason),
        )


def queue_resume(step: Step, request: QueueResume) -> Routine[None]:
    """Resume queues."""
    yield Query(
        "DELETE FROM taskharbor_pause WHERE queue IN (SELECT value FROM json_each(?))",
        (json_text(list(request.queues)),),
    )
    step.wakes.queues.update(request.queues)


def queue_list(step: Step, request: QueueList) -> Routine[Sequence[QueueInfo]]:
    """Return the queues that hold live jobs or are paused, sorted by name."""
    pauses = yield Query("SELECT queue, paused_at, paused_by, reason FROM taskharbor_pause")
    parked = yield from parked_strays(step.now)
    others = yield Query(_NOT_LEASED, (step.now,))
    running = yield Query(_RUNNING)
    paused = {queue: (at, by, reason) for queue, at, by, reason in pauses}
    counts: dict[str, dict[str, int]] = {queue: {} for queue in paused}
    for queue, stray, waits, later, count in others:
        state = "waiting" if waits else "parked" if stray in parked else "scheduled" if later else "ready"
        there = counts.setdefault(queue, {})
        there[state] = there.get(state, 0) + count
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
