"""job_get, job_find, job_count: records of jobs, from the live ones, the history and the dead letters."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from taskharbor.clock import from_micros
from taskharbor.driver import (
    Counted,
    JobCount,
    JobFind,
    JobGet,
)
from taskharbor.drivers.sqlite.inputs import came_in
from taskharbor.drivers.sqlite.routine import Cell, Query, Routine
from taskharbor.drivers.sqlite.rows import WAITING, Options, OptionsBook, Step, json_text, read_meta
from taskharbor.drivers.sqlite.upkeep import parked_strays, strays
from taskharbor.job import AttemptError, JobRecord, JobState, Operation
from taskharbor.step import Edge

_errors = msgspec.json.Decoder(tuple[AttemptError, ...])
_operations = msgspec.json.Decoder(tuple[Operation, ...])
_edges = msgspec.json.Decoder(tuple[Edge, ...])

_SHARED = (
    "id, task, queue, options, priority, run_at, enqueued_at, attempt, deliveries, crashes, guarded, stray, key, "
    "meta, payload, errors, operations, flow, step -> 0, step -> 2"
)
_LIVE = f"""SELECT {_SHARED}, NULL AS state, stray_reason AS reason, due, NULL AS finished_at, token, started,
    cancel IS NOT NULL AS cancel, NULL AS result, NULL AS result_codec, waits FROM taskharbor_job"""  # noqa: S608 - our own constants
_HISTORY = f"""SELECT {_SHARED}, state, reason, NULL AS due, finished_at, NULL AS token, 0 AS started, 0 AS cancel,
    result, result_codec, 0 AS waits FROM taskharbor_history"""  # noqa: S608 - our own constants
_DEAD = f"""SELECT {_SHARED}, 'dead' AS state, reason, NULL AS due, finished_at, NULL AS token, 0 AS started,
    0 AS cancel, NULL AS result, NULL AS result_codec, 0 AS waits FROM taskharbor_dead"""  # noqa: S608 - our own constants
_BY_ID = " UNION ALL ".join(
    f"{table} WHERE id IN (SELECT value FROM json_each(?1))"  # noqa: S608 - our own constants
    for table in (_LIVE, _HISTORY, _DEAD)
)
# Leased jobs have no index of their own: their leases name them.
_LEASED = "id IN (SELECT j.value FROM taskharbor_lease l, json_each(l.jobs) j) AND token IS NOT NULL"


class _Job(msgspec.Struct, array_like=True):
    """The columns of a job in the order of `_LIVE`, `_HISTORY` and `_DEAD`."""

    id: str
    task: str
    queue: str
    options: int
    priority: int
    run_at: int
    enqueued_at: int
    attempt: int
    deliveries: int
    crashes: int
    guarded: int
    stray: int
    key: str | None
    meta: str | None
    payload: bytes
    errors: str | None
    operations: str | None
    flow: str | None
    edges: str | None
    holes: str | None
    state: str | None
    reason: str | None
    due: int | None
    finished_at: int | None
    token: int | None
    started: int
    cancel: int
    result: bytes | None
    result_codec: str | None
    waits: int


def job_get(step: Step, request: JobGet) -> Routine[Sequence[JobRecord | None]]:
    """Return one record an id, in order."""
    rows = yield Query(_BY_ID, (json_text(list(request.ids)),))
    jobs = [_Job(*row) for row in rows]
    records = {record.id: record for record in (yield from _records(jobs, step.book, step.now))}
    for job_id, told in (yield from came_in((job.id, job.flow, job.holes) for job in jobs)).items():
        records[job_id] = msgspec.structs.replace(records[job_id], step=told)
    return [records.get(job_id) for job_id in request.ids]


def job_find(step: Step, request: JobFind) -> Routine[Sequence[JobRecord]]:
    """Return the matching jobs in order of id."""
    parked = yield from parked_strays(step.now)
    tables: list[str] = []
    wanted = request.states
    live = "" if not wanted else _live_filter(wanted)
    beyond = "id < :after" if request.newest_first and request.after else "id > :after"
    order = "id DESC" if request.newest_first else "id"
    if live is not None:
        tables.append(f"{_LIVE} WHERE {beyond}{live}")
    if not wanted or wanted & {JobState.SUCCEEDED, JobState.CANCELLED}:
        tables.append(
            f"{_HISTORY} WHERE {beyond}" + (" AND state IN " + _LIST.format("states")) * bool(wanted)
        )
    if not wanted or JobState.DEAD in wanted:
        tables.append(f"{_DEAD} WHERE {beyond}")
    if not tables:
        return []
    more = ""
    if request.queues:
        more += f" AND queue IN {_LIST.format('queues')}"
    if request.tasks:
        more += f" AND task IN {_LIST.format('tasks')}"
    if request.key is not None:
        more += " AND key = :key"
    if request.flow:
        more += " AND flow = :flow"
    sql = " UNION ALL ".join(table + more for table in tables) + f" ORDER BY {order} LIMIT :limit"
    rows = yield Query(
        *_positional(
            sql,
            {
                "after": request.after,
                "states": json_text(sorted(wanted)),
                "queues": json_text(sorted(request.queues)),
                "tasks": json_text(sorted(request.tasks)),
                "key": request.key,
                "flow": request.flow,
                "limit": request.limit,
                "now": step.now,
                "parked": json_text(sorted(parked)),
            },
        )
    )
    return (yield from _records([_Job(*row) for row in rows], step.book, step.now))


_LIST = "(SELECT value FROM json_each(:{}))"
_PARKED = "stray IN " + _LIST.format("parked")
_ADMITTED = f"token IS NULL AND lane < {WAITING} AND NOT {_PARKED}"
_STATES = {
    JobState.WAITING: f"token IS NULL AND lane = {WAITING}",
    JobState.RUNNING: _LEASED,
    JobState.PARKED: f"token IS NULL AND {_PARKED}",
    JobState.RETRYING: f"{_ADMITTED} AND due > :now AND attempt > 0",
    JobState.SCHEDULED: f"{_ADMITTED} AND due > :now AND attempt = 0",
    JobState.READY: f"{_ADMITTED} AND due <= :now",
}
_STATE = (
    f"CASE WHEN token IS NOT NULL THEN 'running' WHEN lane = {WAITING} THEN 'waiting' WHEN {_PARKED} THEN 'parked' "
    "WHEN due <= :now THEN 'ready' WHEN attempt > 0 THEN 'retrying' ELSE 'scheduled' END"
)


def _live_filter(wanted: frozenset[JobState]) -> str | None:
    """Return the condition for live jobs in one of these states; None if none of them is a live one."""
    parts = [condition for state, condition in _STATES.items() if state in wanted]
    return " AND (" + " OR ".join(f"({part})" for part in parts) + ")" if parts else None


def _positional(sql: str, values: dict[str, Cell]) -> tuple[str, list[Cell]]:
    """Return a statement with numbered parameters for the named ones it uses."""
    used: list[Cell] = []
    for name, value in values.items():
        if f":{name}" in sql:
            used.append(value)
            sql = sql.replace(f":{name}", f"?{len(used)}")
    return sql, used


def job_count(step: Step, request: JobCount) -> Routine[Sequence[Counted]]:
    """Return counts sorted by queue, task and state."""
    parked = yield from parked_strays(step.now)
    where = " WHERE 1"
    if request.queues:
        where += f" AND queue IN {_LIST.format('queues')}"
    if request.tasks:
        where += f" AND task IN {_LIST.format('tasks')}"
    sql = (
        f"SELECT queue, task, {_STATE} AS state, count(*) FROM taskharbor_job{where} GROUP BY 1, 2, 3 "  # noqa: S608 - our own constants
        f"UNION ALL SELECT queue, task, state, count(*) FROM taskharbor_history{where} GROUP BY 1, 2, 3 "
        f"UNION ALL SELECT queue, task, 'dead', count(*) FROM taskharbor_dead{where} GROUP BY 1, 2"
    )
    rows = yield Query(
        *_positional(
            sql,
            {
                "now": step.now,
                "queues": json_text(sorted(request.queues)),
                "tasks": json_text(sorted(request.tasks)),
                "parked": json_text(sorted(parked)),
            },
        )
    )
    return [Counted(queue, task, JobState(state), count) for queue, task, state, count in sorted(rows)]


def count_steps(flows: Sequence[str], now: int) -> Routine[dict[str, dict[JobState, int]]]:
    """Return how many steps of each of these flows are in each state."""
    parked = yield from parked_strays(now)
    of_these = f" WHERE flow IN {_LIST.format('flows')}"
    sql = (
        f"SELECT flow, {_STATE}, count(*) FROM taskharbor_job{of_these} GROUP BY 1, 2 "  # noqa: S608 - our own constants
        f"UNION ALL SELECT flow, state, count(*) FROM taskharbor_history{of_these} GROUP BY 1, 2 "
        f"UNION ALL SELECT flow, 'dead', count(*) FROM taskharbor_dead{of_these} GROUP BY 1"
    )
    values: dict[str, Cell] = {
        "now": now,
        "flows": json_text(flows),
        "parked": json_text(sorted(parked)),
    }
    rows = yield Query(*_positional(sql, values))
    counts: dict[str, dict[JobState, int]] = {}
    for flow, state, count in rows:
        counts.setdefault(flow, {})[JobState(state)] = count
    return counts


def _records(jobs: Sequence[_Job], book: OptionsBook, now: int) -> Routine[list[JobRecord]]:
    options = yield from book.fetch({job.options for job in jobs})
    tokens = {job.token for job in jobs if job.token is not None}
    leases: dict[int, tuple[str, int]] = {}
    if tokens:
        found = yield Query(
            "SELECT token, worker, expires_at FROM taskharbor_lease WHERE token IN (SELECT value FROM json_each(?))",
            (json_text(sorted(tokens)),),
        )
        leases = {token: (worker, expires_at) for token, worker, expires_at in found}
    astray = any(job.stray for job in jobs)
    kinds = (yield from strays()) if astray else {}
    parked = (yield from parked_strays(now)) if astray else set[int]()
    return [
        _record(
            job,
            options[job.options],
            None if job.token is None else leases[job.token],
            _state(job, parked, now),
            kinds[job.stray].refused_by if job.stray else (),
        )
        for job in jobs
    ]


def _state(job: _Job, parked: set[int], now: int) -> JobState:
    if job.state is not None:
        return JobState(job.state)
    if job.token is not None:
        return JobState.RUNNING
    if job.waits:
        return JobState.WAITING
    if job.stray in parked:
        return JobState.PARKED
    if job.due is not None and job.due > now:
        return JobState.RETRYING if job.attempt else JobState.SCHEDULED
    return JobState.READY


def _record(
    job: _Job, options: Options, lease: tuple[str, int] | None, state: JobState, refused_by: tuple[str, ...]
) -> JobRecord:
    return JobRecord(
        id=job.id,
        task=job.task,
        queue=job.queue,
        state=state,
        priority=job.priority,
        run_at=from_micros(job.run_at),
        enqueued_at=from_micros(job.enqueued_at),
        due_at=None if job.due is None or job.waits or lease is not None else from_micros(job.due),
        finished_at=None if job.finished_at is None else from_micros(job.finished_at),
        attempt=job.attempt,
        max_attempts=options.retry.max_attempts,
        deliveries=job.deliveries,
        guarded=bool(job.guarded),
        crashes=job.crashes,
        worker="" if lease is None else lease[0],
        lease_expires_at=None if lease is None else from_micros(lease[1]),
        started=lease is not None and bool(job.started),
        cancel_requested=bool(job.cancel),
        reason=job.reason or "",
        refused_by=tuple(sorted(refused_by)),
        key=job.key,
        meta=read_meta(job.meta),
        payload=job.payload,
        codec=options.codec,
        fingerprint=options.fingerprint,
        result=job.result,
        result_codec=job.result_codec or "",
        keep_result=options.keep_result,
        errors=() if job.errors is None else _errors.decode(job.errors),
        operations=() if job.operations is None else _operations.decode(job.operations),
        flow=job.flow,
        waits=job.waits,
        edges=() if job.edges is None else _edges.decode(job.edges),
    )
