"""The register of workers, and history_prune: days that are over are emptied whole, the rest goes row by row."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from taskharbor.clock import from_micros
from taskharbor.driver import (
    HistoryPrune,
    Order,
    Pruned,
    WorkerAnnounce,
    WorkerForget,
    WorkerInfo,
    WorkerList,
    WorkerOrder,
)
from taskharbor.drivers.postgres.audit import prune_audit
from taskharbor.drivers.postgres.event import prune_events
from taskharbor.drivers.postgres.gates import prune_arrivals
from taskharbor.drivers.postgres.report import prune_reports
from taskharbor.drivers.postgres.retention import apply_rules
from taskharbor.drivers.postgres.routine import Query, Routine, text_array
from taskharbor.drivers.postgres.rows import instant, interval_of, json_text, micros_of, micros_text
from taskharbor.drivers.postgres.schema import SLOTS
from taskharbor.drivers.postgres.statistics import prune_statistics
from taskharbor.drivers.postgres.step import Step
from taskharbor.drivers.postgres.stray import STRAY_LOCK
from taskharbor.errors import UnusableStoreError

_texts = msgspec.json.Decoder(list[str])

_NOW = "coalesce($1::text::timestamptz, clock_timestamp())"
_TODAY = f"({_NOW} AT TIME ZONE 'UTC')::date"
# Asked each time: a role that may not would find out days later, when a worker has long been running.
_MAY_NOT = """SELECT p.name, current_user::text FROM taskharbor.slot,
    LATERAL (SELECT 'taskharbor.history_' || to_char(slot::integer, 'FM00') AS name) p
    WHERE NOT has_table_privilege(p.name, 'TRUNCATE') ORDER BY slot LIMIT 1"""
# A slot's turn to stand for another day comes a whole day after the one it holds: nobody writes into it any more. One
# that is further ahead than the ring is long was turned while the server's clock was wrong.
_OVER = f"""SELECT slot, to_char(slot::integer, 'FM00'), day > {_TODAY} FROM taskharbor.slot
    WHERE day < {_TODAY} - 1 OR day > {_TODAY} + {SLOTS} ORDER BY day FOR UPDATE SKIP LOCKED"""
_HOLDS = "SELECT EXISTS (SELECT FROM taskharbor.history_{slot})"
# Of many an estimate, since counting them takes long.
_COUNT = f"""SELECT CASE WHEN pg_relation_size('taskharbor.history_{{slot}}') < {64 << 20}
    THEN (SELECT count(*) FROM taskharbor.history_{{slot}})
    ELSE (SELECT greatest(reltuples, 1) FROM pg_catalog.pg_class
        WHERE oid = 'taskharbor.history_{{slot}}'::regclass) END::bigint"""
# Readers of that partition are not waited for long, since whoever came after us would wait behind us: next time, then.
_PATIENCE, _NO_MORE_PATIENCE = "200ms", "10ms"
_WAIT = "SELECT set_config('lock_timeout', $1::text, true)"
_EMPTY = (
    """DO $$ BEGIN TRUNCATE taskharbor.history_{slot}; EXCEPTION WHEN lock_not_available THEN NULL; END $$"""
)
_TURN = f"""UPDATE taskharbor.slot SET day =
    day + {SLOTS} * ceil(({_TODAY} - 1 - day)::float8 / {SLOTS}::float8)::integer WHERE slot = $2::text::smallint"""
_DROP_JOBS = f"""WITH gone AS (DELETE FROM taskharbor.history_long WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM taskharbor.history_long WHERE expires_at <= {_NOW}
    ORDER BY expires_at LIMIT $2::text::bigint FOR UPDATE SKIP LOCKED)) RETURNING 1) SELECT count(*) FROM gone"""
_DROP_KEYS = f"""WITH gone AS (DELETE FROM taskharbor.key WHERE (task, name) IN (SELECT task, name FROM taskharbor.key
    WHERE expires_at <= {_NOW} ORDER BY expires_at LIMIT $2::text::bigint FOR UPDATE SKIP LOCKED)
    RETURNING 1) SELECT count(*) FROM gone"""
_DROP_FLOWS = f"""WITH gone AS (DELETE FROM taskharbor.flow WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM taskharbor.flow WHERE expires_at <= {_NOW}
    ORDER BY expires_at LIMIT $2::text::bigint FOR UPDATE SKIP LOCKED)) RETURNING 1) SELECT count(*) FROM gone"""
_DROP_WORKERS = f"DELETE FROM taskharbor.worker WHERE seen_at + {interval_of('ttl')} <= {_NOW}"
# Kinds of strays come with each deploy that parks something; those that no job is left of go. Not while a job may be
# becoming one (`settle`): this sees what was committed before the lock was given.
_ALONE = f"SELECT EXISTS (SELECT FROM taskharbor.stray) AND pg_try_advisory_xact_lock({STRAY_LOCK})"
_DROP_STRAYS = """DELETE FROM taskharbor.stray s
    WHERE NOT EXISTS (SELECT FROM taskharbor.job WHERE stray <> 0 AND stray = s.id)
    AND NOT EXISTS (SELECT FROM taskharbor.history WHERE stray <> 0 AND stray = s.id)"""
_ANNOUNCE = f"""INSERT INTO taskharbor.worker (worker, queues, tasks, build, ttl, host, pid, started_at, seen_at)
    VALUES ($2::text, $3::text::json, $4::text::json, $5::text, $6::text::bigint, $7::text, $8::text::integer,
        $9::text::timestamptz, {_NOW})
    ON CONFLICT (worker) DO UPDATE SET queues = excluded.queues, tasks = excluded.tasks, build = excluded.build,
        ttl = excluded.ttl, host = excluded.host, pid = excluded.pid, started_at = excluded.started_at,
        seen_at = excluded.seen_at"""
_FORGET = "DELETE FROM taskharbor.worker WHERE worker = ANY ($1::text::text[])"
# What a worker was told stays with it, whether or not it announces itself again.
_ORDER = f"""UPDATE taskharbor.worker SET ordered = $3::text, ordered_by = $4::text
    WHERE worker = ANY ($2::text::text[]) AND seen_at + {interval_of("ttl")} > {_NOW}
    AND (ordered IS NULL OR (ordered <> $3::text AND $3::text = '{Order.STOP.value}')) RETURNING worker"""
_WORKERS = f"""SELECT w.worker, w.queues::text, w.tasks::text, w.build, w.host, w.pid, {micros_of("w.started_at")},
    {micros_of("w.seen_at")}, coalesce(
        (SELECT sum(l.remaining) FROM taskharbor.lease l WHERE l.worker = w.worker), 0)::bigint, w.ordered,
    coalesce(w.ordered_by, '')
    FROM taskharbor.worker w WHERE w.seen_at + {interval_of("w.ttl")} > {_NOW} ORDER BY w.worker"""


def history_prune(step: Step, request: HistoryPrune) -> Routine[Pruned]:
    """Remove what has outlived its retention."""
    cells = (step.now, str(request.limit))
    ((jobs,),) = yield Query(_DROP_JOBS, cells)
    ((keys,),) = yield Query(_DROP_KEYS, cells)
    ((flows,),) = yield Query(_DROP_FLOWS, cells)
    yield Query(_DROP_WORKERS, (step.now,))
    full = request.limit <= max(jobs, keys, flows)
    if request.rules:
        ruled, more = yield from apply_rules(step, request.limit)
        jobs, full = jobs + ruled, full or more
    for prune in (prune_reports, prune_statistics, prune_events, prune_audit, prune_arrivals):
        full = (yield from prune(step, request.limit)) or full
    if (yield Query(_ALONE))[0][0]:
        yield Query(_DROP_STRAYS)
    if full:
        return Pruned(jobs=jobs, keys=keys, more=True)
    # Last of all, and one partition a time: from its TRUNCATE until the commit nobody can read it.
    emptied, more = yield from _turn_slots(step)
    return Pruned(jobs=jobs + emptied, keys=keys, more=more)


def _turn_slots(step: Step) -> Routine[tuple[int, bool]]:
    """Empty a partition whose day is over, if one can be; return of how many jobs, and whether to come again.

    Those that are empty already stand for another day at once.
    """
    for name, role in (yield Query(_MAY_NOT)):
        raise UnusableStoreError(
            f"the role {role!r} may not TRUNCATE {name}, by which workers remove what has outlived its retention; "
            "grant it the rights that docs/postgres.md lists"
        )
    over = yield Query(_OVER, (step.now,))
    patience = _PATIENCE
    for number, (slot, suffix, ahead) in enumerate(over, 1):
        ((full,),) = yield Query(_HOLDS.replace("{slot}", suffix))
        if full and ahead:  # its jobs ended while the clock was wrong, and stay as long as they were promised
            continue
        emptied = (yield from _empty(suffix, patience)) if full else 0
        if full and not emptied:
            patience = _NO_MORE_PATIENCE
            continue
        yield Query(_TURN, (step.now, str(slot)))
        if emptied:
            return emptied, number < len(over)
    return 0, False


def _empty(suffix: str, patience: str) -> Routine[int]:
    """Empty a partition and return of how many jobs; of none if somebody reads it for longer than our patience."""
    ((held,),) = yield Query(_COUNT.replace("{slot}", suffix))
    yield Query(_WAIT, (patience,))
    yield Query(_EMPTY.replace("{slot}", suffix))
    ((full,),) = yield Query(_HOLDS.replace("{slot}", suffix))
    return 0 if full else int(held)


def worker_announce(step: Step, request: WorkerAnnounce) -> Routine[None]:
    """Put a worker on the register."""
    yield Query(
        _ANNOUNCE,
        (
            step.now,
            request.worker,
            json_text(list(request.queues)),
            json_text(sorted(request.tasks)),
            request.build,
            micros_text(request.ttl),
            request.host,
            str(request.pid),
            instant(request.started_at),
        ),
    )


def worker_forget(step: Step, request: WorkerForget) -> Routine[None]:
    """Take workers off the register."""
    yield Query(_FORGET, (text_array(request.workers),))


def worker_order(step: Step, request: WorkerOrder) -> Routine[Sequence[bool]]:
    """Tell workers to end, and return of each whether it is there and the order is news."""
    cells = (step.now, text_array(request.workers), request.order.value, request.by)
    news = {worker for (worker,) in (yield Query(_ORDER, cells))}
    answers: list[bool] = []
    for worker in request.workers:
        answers.append(worker in news)
        news.discard(worker)
    return answers


def worker_list(step: Step, request: WorkerList) -> Routine[Sequence[WorkerInfo]]:
    """Return the live workers sorted by name."""
    rows = yield Query(_WORKERS, (step.now,))
    return [
        WorkerInfo(
            worker=worker,
            queues=tuple(_texts.decode(queues)),
            tasks=frozenset(_texts.decode(tasks)),
            build=build,
            host=host,
            pid=pid,
            started_at=None if started_at is None else from_micros(started_at),
            seen_at=from_micros(seen_at),
            running=running,
            order=None if order is None else Order(order),
            ordered_by=ordered_by,
        )
        for worker, queues, tasks, build, host, pid, started_at, seen_at, running, order, ordered_by in rows
    ]
