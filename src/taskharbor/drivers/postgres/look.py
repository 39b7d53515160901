"""job_get, job_find, job_count: records of jobs, from the live ones and the history."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from taskharbor.clock import from_micros
from taskharbor.driver import Counted, JobCount, JobFind, JobGet
from taskharbor.driver.limiting import Gates
from taskharbor.drivers.postgres.delivering import came_in
from taskharbor.drivers.postgres.filtering import Filter
from taskharbor.drivers.postgres.report import OF_JOB, TOLD, TOLD_COLUMNS, read_told
from taskharbor.drivers.postgres.routine import Cell, Query, Routine, plain_array
from taskharbor.drivers.postgres.rows import DEAD, WAITING, Options, micros_of, read_meta, real_ids
from taskharbor.drivers.postgres.shut import read_gates_of, read_shut, reason
from taskharbor.drivers.postgres.step import Step
from taskharbor.drivers.postgres.stray import Stray, parked_strays, strays
from taskharbor.job import AttemptError, JobRecord, JobState, Operation
from taskharbor.step import Edge

_errors = msgspec.json.Decoder(tuple[AttemptError, ...])
_edges = msgspec.json.Decoder(tuple[Edge, ...])
_operations = msgspec.json.Decoder(tuple[Operation, ...])

_NOW = "coalesce($1::text::timestamptz, clock_timestamp())"
_SHARED = f"""j.id, j.task, j.queue, j.options, j.priority, {micros_of("j.run_at")} AS run_at,
    {micros_of("j.enqueued_at")} AS enqueued_at, j.attempt, j.deliveries, j.crashes, j.guarded, j.stray, j.key,
    j.meta::text AS meta, j.payload, j.errors::text AS errors, j.operations::text AS operations, j.flow,
    coalesce(j.waits, 0) AS waits, j.edges::text AS edges, j.holes::text AS holes, j.part"""
STATE = f"""CASE WHEN j.token IS NOT NULL THEN 'running' WHEN j.lane = {WAITING} THEN 'waiting'
    WHEN j.stray = ANY ($2::text::integer[]) THEN 'parked'
    WHEN j.due <= {_NOW} THEN 'ready' WHEN j.attempt > 0 THEN 'retrying' ELSE 'scheduled' END"""
"""`$1`: the present; `$2`: the kinds of strays that no live worker may take."""


def shown_state(kept_back: str) -> str:
    """Return SQL for the state in which a job is shown, given such for whether it is kept back; empty: it is not."""
    return (
        f"CASE WHEN ({STATE}) = 'ready' AND {kept_back} THEN 'parked' ELSE {STATE} END"
        if kept_back
        else STATE
    )


_LIVE = f"""SELECT {_SHARED}, {STATE} AS state, j.stray_reason AS reason,
    CASE WHEN j.token IS NULL AND j.lane <> {WAITING} THEN {micros_of("j.due")} END AS due, NULL::bigint AS finished_at,
    l.worker, {micros_of("l.expires_at")} AS expires_at, coalesce(j.id = ANY (l.started), false) AS started,
    j.cancel IS NOT NULL AS cancelled, NULL::bytea AS result, NULL::text AS result_codec
    FROM taskharbor.job j LEFT JOIN taskharbor.lease l ON l.token = j.token"""
_HISTORY = f"""SELECT {_SHARED}, j.state, j.reason, NULL::bigint, {micros_of("j.finished_at")}, NULL,
    NULL::bigint, false, false, j.result, j.result_codec
    FROM taskharbor.history j"""
_BY_ID = f"""SELECT j.*, {TOLD} FROM ({_LIVE} WHERE j.id = ANY ($3::text::uuid[])
    UNION ALL {_HISTORY} WHERE j.id = ANY ($3::text::uuid[])) j {OF_JOB}"""
_COUNT_LIVE = """SELECT j.queue, j.task, {state} AS state, count(*) FROM taskharbor.job j
    WHERE {which} GROUP BY 1, 2, 3"""
_COUNT_HISTORY = """SELECT j.queue, j.task, j.state, count(*) FROM taskharbor.history j
    WHERE {which} GROUP BY 1, 2, 3"""
_REASONS = {"live": "j.stray_reason", "history": "j.reason"}
_LEASED = "j.id IN (SELECT pg_catalog.unnest(jobs) FROM taskharbor.lease) AND j.token IS NOT NULL"


class _Job(msgspec.Struct, array_like=True):
    """The columns of a job in the order of `_LIVE` and `_HISTORY`."""

    id: str
    task: str
    queue: str
    options: str
    priority: int
    run_at: int
    enqueued_at: int
    attempt: int
    deliveries: int
    crashes: int
    guarded: bool
    stray: int
    key: str | None
    meta: str | None
    payload: bytes
    errors: str | None
    operations: str | None
    flow: object | None
    waits: int
    edges: str | None
    holes: str | None
    part: str | None
    state: str
    reason: str | None
    due: int | None
    finished_at: int | None
    worker: str | None
    lease_expires_at: int | None
    started: bool
    cancelled: bool
    result: bytes | None
    result_codec: str | None


def job_get(step: Step, request: JobGet) -> Routine[Sequence[JobRecord | None]]:
    """Return one record an id, in order."""
    rows = yield Query(_BY_ID, (step.now, "{}", plain_array(real_ids(request.ids))))
    jobs = [_Job(*row[:-TOLD_COLUMNS]) for row in rows]
    gates = yield from _gates_of(step, jobs)
    records = {record.id: record for record in (yield from _records(step, jobs, gates))}
    for job, row in zip(jobs, rows, strict=True):
        progress, log = read_told(*row[-TOLD_COLUMNS:])
        if progress or log:
            job_id = str(job.id)
            records[job_id] = msgspec.structs.replace(records[job_id], progress=progress, log=log)
    hollow = {str(job.id): (records[str(job.id)].flow, job.holes) for job in jobs if job.holes}
    for job_id, told in (yield from came_in(hollow)).items():
        records[job_id] = msgspec.structs.replace(records[job_id], step=told)
    return [records.get(job_id) for job_id in request.ids]


def job_find(step: Step, request: JobFind) -> Routine[Sequence[JobRecord]]:
    """Return the matching jobs in order of id."""
    parked = yield from parked_strays(step)
    cells: list[Cell] = [step.now, plain_array(sorted(parked))]

    def parameter(cell: str) -> str:
        cells.append(cell)
        return f"${len(cells)}::text"

    which = Filter(request, parameter, _REASONS)
    if request.after:
        # Any text may be asked for; the server compares what are ids, as text as well.
        after = parameter(request.after)
        whole = f"{after}::uuid" if real_ids([request.after]) else None
        sign = "<" if request.newest_first else ">"
        which.add(f"j.id {sign} {whole}" if whole else f"j.id::text {sign} {after}")
    if request.flow:
        if not real_ids([request.flow]):
            return []
        which.add(f"j.flow = {parameter(request.flow)}::uuid AND j.flow IS NOT NULL")
    if request.key is not None:
        which.add(f"j.key = {parameter(request.key)}")
    shut = (yield from read_shut(step)) if _tells_apart(request.states) and not which.only_ended else None
    kept_back = "" if shut is None else shut.condition(parameter)
    tables = _tables(request.states, which, kept_back)
    if not request.payloads:
        tables = [
            table.replace("j.payload", "''::bytea AS payload").replace("j.result,", "NULL::bytea,")
            for table in tables
        ]
    if not tables:
        return []
    order = "DESC" if request.newest_first else "ASC"
    limit = parameter(str(request.limit))
    parts = [f"({table} ORDER BY j.id {order} LIMIT {limit}::bigint)" for table in tables]
    rows = yield Query(
        f"SELECT * FROM ({' UNION ALL '.join(parts)}) j WHERE {_NOW} IS NOT NULL AND $2::text IS NOT NULL "
        f"ORDER BY id {order} LIMIT {limit}::bigint",
        cells,
    )
    jobs = [_Job(*row) for row in rows]
    gates = shut.gates if shut is not None else (yield from _gates_of(step, jobs))
    return (yield from _records(step, jobs, gates))


def _gates_of(step: Step, jobs: Sequence[_Job]) -> Routine[Gates | None]:
    """Return the gates behind which those of the jobs stand that are ready but for them."""
    return read_gates_of(step, [(job.task, job.part) for job in jobs if job.state == JobState.READY])


def _tells_apart(wanted: frozenset[JobState]) -> bool:
    """Return whether it matters if a job is ready or parked."""
    return (JobState.READY in wanted) is not (JobState.PARKED in wanted)


def _tables(wanted: frozenset[JobState], which: Filter, kept_back: str) -> list[str]:
    """Return statements for those of the tables that can hold jobs in these states.

    Args:
        wanted: the states; none for all.
        which: which jobs.
        kept_back: whether a job `j` that is ready is kept back, in SQL; empty if that does not matter.
    """
    tables: list[str] = []
    live = sorted(wanted & _LIVE_STATES)
    ended = sorted(wanted & {JobState.SUCCEEDED, JobState.CANCELLED})
    if (live or not wanted) and not which.only_ended:
        states = [f"{shown_state(kept_back)} IN ({_words(live)})"] if wanted else []
        if live == [JobState.RUNNING]:  # leased jobs have no index of their own: their leases name them
            states = [_LEASED]
        tables.append(_where(_LIVE, *states, *which.live))
    if not wanted:
        tables.append(_where(_HISTORY, *which.history))
    if ended:
        states = [f"j.slot <> {DEAD}", f"j.state IN ({_words(ended)})"]
        tables.append(_where(_HISTORY, *states, *which.history))
    if JobState.DEAD in wanted:
        tables.append(_where(_HISTORY, f"j.slot = {DEAD}", *which.history))
    return tables


def _where(table: str, *conditions: str) -> str:
    return f"{table} WHERE {' AND '.join(conditions) or 'true'}"


_LIVE_STATES = frozenset(
    {
        JobState.WAITING,
        JobState.RUNNING,
        JobState.PARKED,
        JobState.READY,
        JobState.RETRYING,
        JobState.SCHEDULED,
    }
)


def _words(states: Sequence[str]) -> str:
    return ", ".join(f"'{state}'" for state in states)


def job_count(step: Step, request: JobCount) -> Routine[Sequence[Counted]]:
    """Return counts sorted by queue, task and state."""
    parked = yield from parked_strays(step)
    cells: list[Cell] = [step.now, plain_array(sorted(parked))]

    def parameter(cell: str) -> str:
        cells.append(cell)
        return f"${len(cells)}::text"

    which = Filter(request, parameter, _REASONS)
    shut = yield from read_shut(step)
    parts = [_COUNT_HISTORY.replace("{which}", " AND ".join(which.history) or "true")]
    if not which.only_ended:
        count = _COUNT_LIVE.replace("{which}", " AND ".join(which.live) or "true")
        state = shown_state("" if shut is None else shut.condition(parameter))
        parts.append(count.replace("{state}", state))
    rows = yield Query(
        f"SELECT * FROM ({' UNION ALL '.join(parts)}) c WHERE {_NOW} IS NOT NULL AND $2::text IS NOT NULL",
        cells,
    )
    return [Counted(queue, task, JobState(state), count) for queue, task, state, count in sorted(rows)]


def _records(step: Step, jobs: Sequence[_Job], gates: Gates | None) -> Routine[list[JobRecord]]:
    astray = any(job.stray for job in jobs)
    kinds = (yield from strays()) if astray else {}
    parked = (yield from parked_strays(step)) if astray else set[int]()
    return [_record(job, step.book.read(job.options), kinds, parked, gates) for job in jobs]


def _record(
    job: _Job, options: Options, kinds: dict[int, Stray], parked: set[int], gates: Gates | None
) -> JobRecord:
    state, why = JobState(job.state), job.reason
    if job.stray in parked and state in _LIVE_STATES and state is not JobState.RUNNING:
        state = JobState.PARKED
    elif state is JobState.READY and (kept_back := reason(gates, job.task, job.part)):
        state, why = JobState.PARKED, kept_back
    return JobRecord(
        id=str(job.id),
        task=job.task,
        queue=job.queue,
        state=state,
        priority=job.priority,
        run_at=from_micros(job.run_at),
        enqueued_at=from_micros(job.enqueued_at),
        due_at=None if job.due is None else from_micros(job.due),
        finished_at=None if job.finished_at is None else from_micros(job.finished_at),
        attempt=job.attempt,
        max_attempts=options.retry.max_attempts,
        deliveries=job.deliveries,
        guarded=job.guarded,
        crashes=job.crashes,
        worker=job.worker or "",
        lease_expires_at=None if job.lease_expires_at is None else from_micros(job.lease_expires_at),
        started=job.started,
        cancel_requested=job.cancelled,
        reason=why or "",
        refused_by=tuple(sorted(kinds[job.stray].refused_by)) if job.stray in kinds else (),
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
        flow=None if job.flow is None else str(job.flow),
        waits=job.waits,
        partition=job.part,
        edges=() if job.edges is None else _edges.decode(job.edges),
    )
