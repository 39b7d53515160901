"""job_cancel, job_requeue, job_delete: acts by hand. Each locks its jobs in order, then looks, then acts."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import NamedTuple

from taskharbor.driver import (
    CancelStatus,
    DeleteStatus,
    JobCancel,
    JobDelete,
    JobRequeue,
    RequeueStatus,
)
from taskharbor.drivers.postgres.cancelling import LOCK_ORDER, NOTE, NOTED, cancel_jobs
from taskharbor.drivers.postgres.falling import fall, lock_steps, locked_flows, read, resume
from taskharbor.drivers.postgres.leaving import STEP_COLUMNS
from taskharbor.drivers.postgres.look import STATE
from taskharbor.drivers.postgres.report import DROP
from taskharbor.drivers.postgres.routine import Query, Routine, plain_array
from taskharbor.drivers.postgres.rows import CLOCK, DEAD, NORMAL, SOLO, lane_of, micros_text, real_ids
from taskharbor.drivers.postgres.shut import read_gates_of, reason
from taskharbor.drivers.postgres.step import Step
from taskharbor.drivers.postgres.stray import parked_strays
from taskharbor.flow import FLOW_ENDED, FlowState
from taskharbor.job import JobState
from taskharbor.settlement import SOLO_CRASHES

_LOCK = f"""SELECT id::text, token IS NOT NULL FROM taskharbor.job WHERE id = ANY ($1::text::uuid[])
    ORDER BY {LOCK_ORDER} FOR UPDATE"""
_LOCK_STATES = f"""SELECT id::text, token IS NOT NULL, {STATE}, j.task, j.part FROM taskharbor.job j
    WHERE id = ANY ($3::text::uuid[]) ORDER BY {LOCK_ORDER} FOR UPDATE"""
# The flows that end if these jobs are cancelled: what runs is only asked to stop. And if they are deleted.
_FLOWS = """SELECT DISTINCT flow::text FROM taskharbor.job
    WHERE id = ANY ($1::text::uuid[]) AND token IS NULL AND flow IS NOT NULL AND absorbers IS NULL"""
_FLOWS_OF_DEAD = f"""{_FLOWS} UNION SELECT flow::text FROM taskharbor.history
    WHERE slot = {DEAD} AND id = ANY ($1::text::uuid[]) AND flow IS NOT NULL AND absorbers IS NULL"""
# Dead letters are what most acts are about, and one partition has them all. To look for a job in all of them takes
# longer than whatever is done with it.
_ENDED = f"""SELECT id::text, slot, state, task, key, digest, options, queue, flow::text, waits IS NOT NULL
    FROM taskharbor.history WHERE slot {{which}} {DEAD} AND id = ANY ($1::text::uuid[]) ORDER BY id FOR UPDATE"""
_ENDED_DEAD, _ENDED_ELSE = _ENDED.replace("{which}", "="), _ENDED.replace("{which}", "<>")
_FEW_SLOTS = 2
_TAKE_KEY = """INSERT INTO taskharbor.key AS k (task, name, job_id, digest, ttl)
    VALUES ($2::text, $3::text, $4::text::uuid, $5::text, $6::text::bigint)
    ON CONFLICT (task, name) DO UPDATE SET job_id = excluded.job_id, digest = excluded.digest, ttl = excluded.ttl,
        expires_at = NULL WHERE k.job_id = excluded.job_id
        OR k.expires_at <= coalesce($1::text::timestamptz, clock_timestamp())
    RETURNING job_id"""
_REQUEUE = f"""WITH {CLOCK}, {NOTE},
gone AS (DELETE FROM taskharbor.history h USING note n WHERE {{where}} h.id = ANY ($5::text::uuid[])
    RETURNING h.*, {NOTED.format("h.")} AS noted)
INSERT INTO taskharbor.job (id, task, queue, options, priority, retain, guarded, stray, stray_reason, deliveries,
    crashes, run_at, enqueued_at, timeout, payload, key, digest, meta, errors, settled, {STEP_COLUMNS},
    operations, part, lane, due)
SELECT id, task, queue, options, priority, retain, guarded, stray, stray_reason, deliveries, crashes,
    run_at, enqueued_at, timeout, payload, key, digest, meta, errors, settled, {STEP_COLUMNS}, noted,
    part, {lane_of(f"CASE WHEN crashes >= {SOLO_CRASHES} THEN {SOLO} ELSE {NORMAL} END", "part")},
    greatest(run_at, now) FROM gone, clock"""
_DELETE = f"""WITH
live AS (DELETE FROM taskharbor.job j WHERE id = ANY ($1::text::uuid[])
    RETURNING id, task, key, awaited, flow, waits, absorbers, attempt, 'cancelled' AS state),
ended AS (DELETE FROM taskharbor.history h WHERE {{where}} h.id = ANY ($2::text::uuid[])
    RETURNING id, task, key, flow, waits, absorbers, attempt, state),
{DROP.format(ids="array_cat($1::text::uuid[], $2::text::uuid[])")},
freed AS MATERIALIZED (SELECT id, task, key FROM live WHERE key IS NOT NULL
    UNION ALL SELECT id, task, key FROM ended WHERE key IS NOT NULL ORDER BY task, key),
keys AS (DELETE FROM taskharbor.key k USING freed g
    WHERE k.task = g.task AND k.name = g.key AND k.job_id = g.id),
steps AS (SELECT id, task, flow, absorbers, attempt, state FROM live WHERE waits IS NOT NULL
    UNION ALL SELECT id, task, flow, absorbers, attempt, state FROM ended WHERE waits IS NOT NULL)
SELECT id::text, true AS awaited, NULL AS fallen, NULL AS flow FROM live WHERE awaited
UNION ALL SELECT id::text, false, CASE WHEN state <> 'succeeded' THEN json_build_array(id, 'cancelled', flow, absorbers,
        task, attempt, 'step ' || task || ' (' || id || ') was deleted', NULL)::text END,
    CASE WHEN flow = id THEN flow::text END FROM steps"""
_DROP_FLOWS = "DELETE FROM taskharbor.flow WHERE id = ANY ($1::text::uuid[])"


class _Ended(NamedTuple):
    """A job of the history, as `_ENDED` tells it."""

    id: str
    slot: int
    state: str
    task: str
    key: str | None
    digest: str | None
    options: str
    queue: str
    flow: str | None
    is_step: bool

    def may_go_on(self, flows: Mapping[str, FlowState], states: frozenset[JobState]) -> bool:
        """Return whether it may be requeued, as far as that is for itself and its flow to say.

        In one of these states, if there are any.
        """
        if states and self.state not in states:
            return False
        if self.is_step and self.state != JobState.DEAD:
            return False
        if self.flow is not None and flows.get(self.flow, FlowState.CANCELLED) in FLOW_ENDED:
            return False
        return self.state != JobState.SUCCEEDED


def job_cancel(step: Step, request: JobCancel) -> Routine[Sequence[CancelStatus]]:
    """Cancel jobs and return one answer each, in order."""
    real = real_ids(request.ids)
    ids = plain_array(real)
    yield from _lock_flows(_FLOWS, ids)
    live: dict[str, bool] = dict((yield Query(_LOCK, (ids,))))
    ended = set((yield from _ended(real, live)))
    running = [job_id for job_id, leased in live.items() if leased]
    idle = [job_id for job_id, leased in live.items() if not leased]
    if live:
        by, reason = request.by, request.reason
        fallen = yield from cancel_jobs(step, running, idle, verb="cancel", by=by, reason=reason)
        yield from fall(step, read(fallen))
    answers: list[CancelStatus] = []
    for job_id in request.ids:
        if job_id in ended:
            answers.append(CancelStatus.FINISHED)
        elif job_id not in live:
            answers.append(CancelStatus.MISSING)
        elif live[job_id]:
            answers.append(CancelStatus.REQUESTED)
        else:
            answers.append(CancelStatus.CANCELLED)
            ended.add(job_id)  # should it be named twice
    return answers


def _lock_flows(which: str, ids: str) -> Routine[None]:
    """Lock the steps of flows that end if these jobs do, all at once: one after the other is what deadlocks are of."""
    flows = [row[0] for row in (yield Query(which, (ids,)))]
    if flows:
        yield from lock_steps(flows)


def _ended(ids: Iterable[str], live: Container[str]) -> Routine[dict[str, _Ended]]:
    """Lock those of the jobs that have ended, and return them by their ids."""
    sought: list[str] = [job_id for job_id in ids if job_id not in live]
    found: dict[str, _Ended] = {}
    for where in (_ENDED_DEAD, _ENDED_ELSE):
        if sought:
            rows = yield Query(where, (plain_array(sought),))
            found.update({row[0]: _Ended(*row) for row in rows})
            sought = [job_id for job_id in sought if job_id not in found]
    return found


def _in_slots(sql: str, ended: Mapping[str, _Ended], ids: Iterable[str]) -> str:
    """Return a statement that looks for these jobs only where they are; in all partitions, if they are in many."""
    slots = {ended[job_id].slot for job_id in ids} or {DEAD}
    where = f"h.slot IN ({', '.join(map(str, sorted(slots)))}) AND" if len(slots) <= _FEW_SLOTS else ""
    return sql.replace("{where}", where)


def job_requeue(step: Step, request: JobRequeue) -> Routine[Sequence[RequeueStatus]]:
    """Requeue jobs and return one answer each, in order."""
    real = real_ids(request.ids)
    live = {row[0] for row in (yield Query(_LOCK, (plain_array(real),)))}
    ended = yield from _ended(real, live)
    of_flows = {one.flow for one in ended.values() if one.flow is not None}
    flows = (yield from locked_flows(of_flows)) if of_flows else {}
    answers: dict[str, RequeueStatus] = {}
    chosen: list[str] = []
    for job_id in dict.fromkeys(request.ids):
        if job_id in live or (job_id in ended and not ended[job_id].may_go_on(flows, request.states)):
            answers[job_id] = RequeueStatus.NOT_DEAD
        elif job_id not in ended:
            answers[job_id] = RequeueStatus.MISSING
        elif (yield from _takes_key(step, ended[job_id])):
            answers[job_id] = RequeueStatus.REQUEUED
            chosen.append(job_id)
            step.wakes.queues.add(ended[job_id].queue)
        else:
            answers[job_id] = RequeueStatus.KEY_TAKEN
    if chosen:
        note = (step.now, "requeue", request.by, request.reason)
        yield Query(_in_slots(_REQUEUE, ended, chosen), (*note, plain_array(chosen)))
    resumed = {flow for job_id in chosen if (flow := ended[job_id].flow) is not None}
    if resumed:
        yield from resume(resumed)
    return _told_once(request.ids, answers, RequeueStatus.REQUEUED, RequeueStatus.NOT_DEAD)


def _takes_key(step: Step, job: _Ended) -> Routine[bool]:
    """Have a job that ended hold its key again, and return whether it may."""
    if job.key is None:
        return True
    ttl = step.book.read(job.options).key_ttl
    cells = (step.now, job.task, job.key, job.id, job.digest, micros_text(ttl))
    return bool((yield Query(_TAKE_KEY, cells)))


def _told_once(
    ids: Sequence[str], answers: dict[str, RequeueStatus], done: RequeueStatus, again: RequeueStatus
) -> list[RequeueStatus]:
    """Return the answers in order; who names a job twice is told the second time how it stands then."""
    told: list[RequeueStatus] = []
    seen: set[str] = set()
    for job_id in ids:
        told.append(again if job_id in seen and answers[job_id] is done else answers[job_id])
        seen.add(job_id)
    return told


def job_delete(step: Step, request: JobDelete) -> Routine[Sequence[DeleteStatus]]:
    """Delete jobs and return one answer each, in order."""
    real = real_ids(request.ids)
    ids = plain_array(real)
    yield from _lock_flows(_FLOWS_OF_DEAD, ids)
    live, others = yield from _locked_in(step, request.states, ids)
    ended = yield from _ended(real, live)
    if request.states:
        others.update(job_id for job_id, job in ended.items() if job.state not in request.states)
        ended = {job_id: job for job_id, job in ended.items() if job_id not in others}
    idle = [job_id for job_id, leased in live.items() if not leased and job_id not in others]
    delete = _in_slots(_DELETE, ended, ended)
    rows = yield Query(delete, (plain_array(idle), plain_array(sorted(ended))))
    step.wakes.jobs.extend([job_id for job_id, awaited, _, _ in rows if awaited])
    yield from fall(step, read(fallen for _, _, fallen, _ in rows))
    flows = [flow for _, _, _, flow in rows if flow is not None]
    if flows:
        yield Query(_DROP_FLOWS, (plain_array(flows),))
    deleted = {*idle, *ended}
    answers: list[DeleteStatus] = []
    for job_id in request.ids:
        if job_id in deleted:
            answers.append(DeleteStatus.DELETED)
            deleted.discard(job_id)
        elif job_id in others:
            answers.append(DeleteStatus.OTHER_STATE)
        else:
            answers.append(DeleteStatus.RUNNING if live.get(job_id) else DeleteStatus.MISSING)
    return answers


def _locked_in(
    step: Step, states: frozenset[JobState], ids: str
) -> Routine[tuple[dict[str, bool], set[str]]]:
    """Lock live jobs, and return which are leased, and which are in none of these states, if there are any."""
    if not states:
        return dict((yield Query(_LOCK, (ids,)))), set()
    parked = yield from parked_strays(step)
    rows = yield Query(_LOCK_STATES, (step.now, plain_array(sorted(parked)), ids))
    gates = yield from read_gates_of(step, [row[3:5] for row in rows if row[2] == JobState.READY])
    others: set[str] = set()
    for job_id, _, word, task, part in rows:
        state = JobState(word)
        if state is JobState.READY and reason(gates, task, part):
            state = JobState.PARKED
        if state not in states:
            others.add(job_id)
    return {row[0]: row[1] for row in rows}, others
