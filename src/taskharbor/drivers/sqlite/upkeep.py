"""history_prune, the register of workers, and which strays nobody can take at present."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from taskharbor.clock import duration_micros, from_micros, micros
from taskharbor.driver import (
    AUDIT_RETAIN,
    EVENT_RETAIN,
    STATISTICS_RETAIN,
    HistoryPrune,
    Order,
    Pruned,
    WorkerAnnounce,
    WorkerForget,
    WorkerInfo,
    WorkerList,
    WorkerOrder,
)
from taskharbor.drivers.sqlite.reserve import STRAYS, Stray
from taskharbor.drivers.sqlite.retention import apply_rules
from taskharbor.drivers.sqlite.routine import Query, Routine
from taskharbor.drivers.sqlite.rows import TEXTS, Step, json_text

_abilities = msgspec.json.Decoder(list[tuple[list[str], str]])

_EVENTS_KEPT = duration_micros(EVENT_RETAIN)
_ACTS_KEPT = duration_micros(AUDIT_RETAIN)
_TALLIES_KEPT = duration_micros(STATISTICS_RETAIN)
_WORTH = """SELECT EXISTS (SELECT 1 FROM taskharbor_history WHERE expires_at <= ?1)
    OR EXISTS (SELECT 1 FROM taskharbor_key WHERE expires_at <= ?1)
    OR EXISTS (SELECT 1 FROM taskharbor_flow WHERE expires_at <= ?1)
    OR EXISTS (SELECT 1 FROM taskharbor_worker WHERE seen_at + ttl <= ?1)
    OR EXISTS (SELECT 1 FROM taskharbor_watch WHERE until <= ?1)
    OR EXISTS (SELECT 1 FROM taskharbor_event WHERE at < ?2)
    OR EXISTS (SELECT 1 FROM taskharbor_tally WHERE minute < ?3)
    OR EXISTS (SELECT 1 FROM taskharbor_audit WHERE at <= ?4)
    OR EXISTS (SELECT 1 FROM taskharbor_arrival WHERE at <= ?1)
    OR (?5 AND EXISTS (SELECT 1 FROM taskharbor_retention))"""
_ENDED_JOBS = """SELECT id FROM taskharbor_history WHERE expires_at <= ?1 ORDER BY expires_at, id LIMIT ?2"""
_DROP_REPORTS = tuple(
    f"DELETE FROM {table} WHERE job_id IN ({_ENDED_JOBS})"  # noqa: S608 - our own constants
    for table in ("taskharbor_progress", "taskharbor_log")
)
_DROP_JOBS = f"DELETE FROM taskharbor_history WHERE id IN ({_ENDED_JOBS})"  # noqa: S608 - our own constants
_DROP_KEYS = """DELETE FROM taskharbor_key WHERE (task, name) IN (
    SELECT task, name FROM taskharbor_key WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)"""
_DROP_FLOWS = """DELETE FROM taskharbor_flow WHERE id IN (
    SELECT id FROM taskharbor_flow WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)"""
_DROP_WORKERS = "DELETE FROM taskharbor_worker WHERE seen_at + ttl <= ?"
# Kinds of strays come with each deploy that parks something; those that no job is left of go.
_DROP_STRAYS = """DELETE FROM taskharbor_stray WHERE
    NOT EXISTS (SELECT 1 FROM taskharbor_job WHERE stray <> 0 AND stray = taskharbor_stray.id)
    AND NOT EXISTS (SELECT 1 FROM taskharbor_history WHERE stray <> 0 AND stray = taskharbor_stray.id)
    AND NOT EXISTS (SELECT 1 FROM taskharbor_dead WHERE stray <> 0 AND stray = taskharbor_stray.id)"""
_DROP_EVENTS = """DELETE FROM taskharbor_event WHERE number IN (
    SELECT number FROM taskharbor_event WHERE at < ? ORDER BY at LIMIT ?)"""
# Before they go: the last of them.
_REMOVED = """UPDATE taskharbor_feed SET removed = max(removed, coalesce((SELECT max(number) FROM (
    SELECT number FROM taskharbor_event WHERE at < ? ORDER BY at LIMIT ?)), 0))"""
_DROP_TALLIES = "DELETE FROM taskharbor_tally WHERE minute < ?"
_DROP_ACTS = "DELETE FROM taskharbor_audit WHERE at <= ?"
_DROP_WATCHES = "DELETE FROM taskharbor_watch WHERE until <= ?"
_WORKERS = """SELECT w.worker, w.queues, w.tasks, w.build, w.host, w.pid, w.started_at, w.seen_at,
    coalesce((SELECT sum(l.remaining) FROM taskharbor_lease l WHERE l.worker = w.worker), 0), w.ordered, w.ordered_by
    FROM taskharbor_worker w WHERE w.seen_at + w.ttl > ? ORDER BY w.worker"""
_ORDER = """UPDATE taskharbor_worker SET ordered = ?1, ordered_by = ?2
    WHERE worker = ?3 AND seen_at + ttl > ?4 AND (ordered IS NULL OR ordered NOT IN (?1, ?5))"""
_STRAYS = "SELECT json_group_array(json_array(id, task, json(refused_by))) FROM taskharbor_stray"
_ABILITIES = """SELECT json_group_array(json_array(json(tasks), build)) FROM taskharbor_worker
    WHERE seen_at + ttl > ?"""


def nothing_to_prune(step: Step, request: HistoryPrune) -> Routine[Pruned | None]:
    """Return the answer if nothing has outlived its retention, without writing; None if something has."""
    if request.act is not None:  # it is written down, whatever it comes to
        return None
    kept = (step.now - _EVENTS_KEPT, step.now - _TALLIES_KEPT, step.now - _ACTS_KEPT)
    ((worth,),) = yield Query(_WORTH, (step.now, *kept, int(request.rules)))
    return None if worth else Pruned(jobs=0, keys=0)


def history_prune(step: Step, request: HistoryPrune) -> Routine[Pruned]:
    """Remove what has outlived its retention."""
    for statement in _DROP_REPORTS:
        yield Query(statement, (step.now, request.limit))
    yield Query(_DROP_JOBS, (step.now, request.limit))
    ((jobs,),) = yield Query("SELECT changes()")
    if request.rules and jobs < request.limit:
        jobs += yield from apply_rules(step, request.limit - jobs)
    yield Query(_DROP_KEYS, (step.now, request.limit))
    ((keys,),) = yield Query("SELECT changes()")
    yield Query(_DROP_FLOWS, (step.now, request.limit))
    ((flows,),) = yield Query("SELECT changes()")
    yield Query(_DROP_WORKERS, (step.now,))
    yield Query(_DROP_STRAYS)
    events = yield from _prune_feed(step, request)
    yield Query(_DROP_TALLIES, (step.now - _TALLIES_KEPT,))
    yield Query(_DROP_ACTS, (step.now - _ACTS_KEPT,))
    # A rate that was quiet for so long stands as if it had never been used.
    yield Query("DELETE FROM taskharbor_arrival WHERE at <= ?", (step.now,))
    return Pruned(jobs=jobs, keys=keys, more=max(jobs, keys, flows, events) >= request.limit)


def _prune_feed(step: Step, request: HistoryPrune) -> Routine[int]:
    yield Query(_DROP_WATCHES, (step.now,))
    old = (step.now - _EVENTS_KEPT, request.limit)
    yield Query(_REMOVED, old)
    yield Query(_DROP_EVENTS, old)
    ((events,),) = yield Query("SELECT changes()")
    return int(events)


def worker_announce(step: Step, request: WorkerAnnounce) -> Routine[None]:
    """Put a worker on the register."""
    yield Query(
        "INSERT INTO taskharbor_worker "
        "(worker, queues, tasks, build, ttl, host, pid, started_at, seen_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (worker) DO UPDATE SET queues = excluded.queues, tasks = excluded.tasks, build = excluded.build, "
        "ttl = excluded.ttl, host = excluded.host, pid = excluded.pid, started_at = excluded.started_at, "
        "seen_at = excluded.seen_at",
        (
            request.worker,
            json_text(list(request.queues)),
            json_text(sorted(request.tasks)),
            request.build,
            duration_micros(request.ttl),
            request.host,
            request.pid,
            None if request.started_at is None else micros(request.started_at),
            step.now,
        ),
    )


def worker_forget(step: Step, request: WorkerForget) -> Routine[None]:
    """Take workers off the register."""
    yield Query(
        "DELETE FROM taskharbor_worker WHERE worker IN (SELECT value FROM json_each(?))",
        (json_text(list(request.workers)),),
    )


def worker_order(step: Step, request: WorkerOrder) -> Routine[Sequence[bool]]:
    """Give an order; return of each whether it is a live worker and the order is news, in order."""
    answers: list[bool] = []
    for worker in request.workers:
        yield Query(_ORDER, (request.order.value, request.by, worker, step.now, Order.STOP.value))
        ((changed,),) = yield Query("SELECT changes()")
        answers.append(bool(changed))
    return answers


def worker_list(step: Step, request: WorkerList) -> Routine[Sequence[WorkerInfo]]:
    """Return the live workers sorted by name."""
    rows = yield Query(_WORKERS, (step.now,))
    return [
        WorkerInfo(
            worker=worker,
            queues=tuple(TEXTS.decode(queues)),
            tasks=frozenset(TEXTS.decode(tasks)),
            build=build,
            host=host,
            pid=pid,
            started_at=None if started_at is None else from_micros(started_at),
            seen_at=from_micros(seen_at),
            running=running,
            order=None if ordered is None else Order(ordered),
            ordered_by=ordered_by,
        )
        for worker, queues, tasks, build, host, pid, started_at, seen_at, running, ordered, ordered_by in rows
    ]


def strays() -> Routine[dict[int, Stray]]:
    """Return every kind of stray by its number."""
    ((found,),) = yield Query(_STRAYS)
    return {stray.number: stray for stray in STRAYS.decode(found)}


def parked_strays(now: int) -> Routine[set[int]]:
    """Return the kinds of strays that no live worker may take."""
    kinds = yield from strays()
    if not kinds:
        return set()
    ((found,),) = yield Query(_ABILITIES, (now,))
    workers = [(frozenset(tasks), build) for tasks, build in _abilities.decode(found)]
    return {
        number
        for number, stray in kinds.items()
        if not any(stray.open_to(tasks, build) for tasks, build in workers)
    }
