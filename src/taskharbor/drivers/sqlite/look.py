"""job_get: records of jobs, from the live ones, the history and the dead letters."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from taskharbor.clock import from_micros
from taskharbor.driver import JobGet
from taskharbor.drivers.sqlite.inputs import came_in
from taskharbor.drivers.sqlite.report import told_by
from taskharbor.drivers.sqlite.routine import Query, Routine
from taskharbor.drivers.sqlite.rows import Options, Step, json_text, read_meta
from taskharbor.drivers.sqlite.shut import Shut, shut_now
from taskharbor.drivers.sqlite.upkeep import strays
from taskharbor.job import AttemptError, JobRecord, JobState, Operation
from taskharbor.step import Edge

_errors = msgspec.json.Decoder(tuple[AttemptError, ...])
_operations = msgspec.json.Decoder(tuple[Operation, ...])
_edges = msgspec.json.Decoder(tuple[Edge, ...])

_SHARED = (
    "id, task, queue, options, priority, run_at, enqueued_at, attempt, deliveries, crashes, guarded, stray, key, "
    "meta, {payload}, errors, operations, part, flow, step -> 0, step -> 2"
)
_LIVE = f"""SELECT {_SHARED}, NULL AS state, stray_reason AS reason, due, NULL AS finished_at, token, started,
    cancel IS NOT NULL AS cancel, NULL AS result, NULL AS result_codec, waits FROM taskharbor_job"""  # noqa: S608 - our own constants
_HISTORY = f"""SELECT {_SHARED}, state, reason, NULL AS due, finished_at, NULL AS token, 0 AS started, 0 AS cancel,
    {{result}}, result_codec, 0 AS waits FROM taskharbor_history"""  # noqa: S608 - our own constants
_DEAD = f"""SELECT {_SHARED}, 'dead' AS state, reason, NULL AS due, finished_at, NULL AS token, 0 AS started,
    0 AS cancel, NULL AS result, NULL AS result_codec, 0 AS waits FROM taskharbor_dead"""  # noqa: S608 - our own constants
LIVE, HISTORY, DEAD = (sql.format(payload="payload", result="result") for sql in (_LIVE, _HISTORY, _DEAD))
BARE_LIVE, BARE_HISTORY, BARE_DEAD = (
    sql.format(payload="X''", result="NULL") for sql in (_LIVE, _HISTORY, _DEAD)
)
"""The same without payloads and results."""
_BY_ID = " UNION ALL ".join(
    f"{table} WHERE id IN (SELECT value FROM json_each(?1))"  # noqa: S608 - our own constants
    for table in (LIVE, HISTORY, DEAD)
)


class JobRow(msgspec.Struct, array_like=True):
    """The columns of a job in the order of `LIVE`, `HISTORY` and `DEAD`."""

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
    part: str | None
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
    jobs = [JobRow(*row) for row in rows]
    found = {record.id: record for record in (yield from records(jobs, step, (yield from shut_now(step))))}
    for job_id, step_told in (yield from came_in((job.id, job.flow, job.holes) for job in jobs)).items():
        found[job_id] = msgspec.structs.replace(found[job_id], step=step_told)
    for job_id, (progress, log) in (yield from told_by([job.id for job in jobs if job.deliveries])).items():
        found[job_id] = msgspec.structs.replace(found[job_id], progress=progress, log=log)
    return [found.get(job_id) for job_id in request.ids]


def records(jobs: Sequence[JobRow], step: Step, shut: Shut) -> Routine[list[JobRecord]]:
    """Return the records of these rows, in order, without what jobs told of themselves and what came in for them."""
    options = yield from step.book.fetch({job.options for job in jobs})
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
    return [
        _record(
            job,
            options[job.options],
            None if job.token is None else leases[job.token],
            *_state(job, shut, step.now),
            kinds[job.stray].refused_by if job.stray else (),
        )
        for job in jobs
    ]


def _state(job: JobRow, shut: Shut, now: int) -> tuple[JobState, str]:
    """Return the state of a job, and the reason."""
    reason = job.reason or ""
    if job.state is not None:
        return JobState(job.state), reason
    if job.token is not None:
        return JobState.RUNNING, reason
    if job.waits:
        return JobState.WAITING, reason
    if job.stray in shut.strays:
        return JobState.PARKED, reason
    if job.due is not None and job.due > now:
        return JobState.RETRYING if job.attempt else JobState.SCHEDULED, reason
    kept_back = shut.reason(job.task, job.part)
    return (JobState.READY, reason) if kept_back is None else (JobState.PARKED, kept_back)


def _record(
    job: JobRow,
    options: Options,
    lease: tuple[str, int] | None,
    state: JobState,
    reason: str,
    refused_by: tuple[str, ...],
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
        reason=reason,
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
        partition=job.part,
        flow=job.flow,
        waits=job.waits,
        edges=() if job.edges is None else _edges.decode(job.edges),
    )
