"""queue_pause, queue_resume, queue_list."""

from __future__ import annotations

from collections.abc import Sequence

from taskharbor.clock import from_micros
from taskharbor.driver import QueueInfo, QueueList, QueuePause, QueueResume
from taskharbor.drivers.postgres.routine import Cell, Query, Routine, Row, plain_array, text_array
from taskharbor.drivers.postgres.rows import WAITING, micros_of
from taskharbor.drivers.postgres.shut import read_shut
from taskharbor.drivers.postgres.step import Step
from taskharbor.drivers.postgres.stray import parked_strays

_NOW = "coalesce($1::text::timestamptz, clock_timestamp())"
_PAUSE = f"""INSERT INTO taskharbor.pause (queue, paused_at, paused_by, reason)
    SELECT q, {_NOW}, $3::text, $4::text FROM pg_catalog.unnest($2::text::text[]) q ORDER BY q ON CONFLICT DO NOTHING
    RETURNING queue"""
_RESUME = "DELETE FROM taskharbor.pause WHERE queue = ANY ($1::text::text[]) RETURNING queue"
_PAUSED = f"SELECT queue, {micros_of('paused_at')}, paused_by, reason FROM taskharbor.pause"
_LIVE = f"""SELECT j.queue, CASE WHEN j.token IS NOT NULL THEN 'running' WHEN j.lane = {WAITING} THEN 'waiting'
    WHEN j.stray = ANY ($2::text::integer[]) THEN 'parked' WHEN j.due > {_NOW} THEN 'scheduled'
    WHEN {{kept_back}} THEN 'parked' ELSE 'ready' END AS state, count(*) FROM taskharbor.job j GROUP BY 1, 2"""


def queue_pause(step: Step, request: QueuePause) -> Routine[Sequence[bool]]:
    """Pause queues and return of each whether it was not paused before."""
    queues = text_array(dict.fromkeys(request.queues))
    rows = yield Query(_PAUSE, (step.now, queues, request.by, request.reason))
    return _told_once(request.queues, rows)


def queue_resume(step: Step, request: QueueResume) -> Routine[Sequence[bool]]:
    """Resume queues and return of each whether it was paused."""
    rows = yield Query(_RESUME, (text_array(request.queues),))
    step.wakes.queues.update(request.queues)
    return _told_once(request.queues, rows)


def _told_once(queues: Sequence[str], changed: Sequence[Row]) -> list[bool]:
    """Return of each whether it was changed; who names one twice changed nothing the second time."""
    left = {queue for (queue,) in changed}
    answers: list[bool] = []
    for queue in queues:
        answers.append(queue in left)
        left.discard(queue)
    return answers


def queue_list(step: Step, request: QueueList) -> Routine[Sequence[QueueInfo]]:
    """Return the queues that hold live jobs or are paused, sorted by name."""
    paused = {queue: (at, by, reason) for queue, at, by, reason in (yield Query(_PAUSED))}
    parked = yield from parked_strays(step)
    counts: dict[str, dict[str, int]] = {queue: {} for queue in paused}
    cells: list[Cell] = [step.now, plain_array(sorted(parked))]

    def parameter(cell: str) -> str:
        cells.append(cell)
        return f"${len(cells)}::text"

    shut = yield from read_shut(step)
    live = _LIVE.replace("{kept_back}", "false" if shut is None else shut.condition(parameter))
    for queue, state, count in (yield Query(live, cells)):
        counts.setdefault(queue, {})[state] = count
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
