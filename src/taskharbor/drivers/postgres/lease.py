"""lease_extend and lease_reclaim: keeping leases, and taking them back from the dead."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from taskharbor.clock import duration_micros, from_micros
from taskharbor.driver import CancelRequest, LeaseExtend, LeaseExtended, LeaseReclaim, Order, Reclaimed
from taskharbor.drivers.postgres.falling import fall, read
from taskharbor.drivers.postgres.leaving import ENDED, FALLEN, KEYS, STEP_OF_JOB
from taskharbor.drivers.postgres.routine import (
    Query,
    Routine,
    nullable_array,
    plain_array,
    text_array,
)
from taskharbor.drivers.postgres.rows import (
    CLOCK,
    FRONT,
    NORMAL,
    SOLO,
    interval_of,
    json_instant,
    json_text,
    lane_of,
    micros_of,
)
from taskharbor.drivers.postgres.step import Step
from taskharbor.job import JobState
from taskharbor.settlement import SOLO_CRASHES, AfterCrash, SettleKind, after_crash

_NOW = "coalesce($1::text::timestamptz, clock_timestamp())"
_EXTEND = f"""WITH clock AS MATERIALIZED (SELECT {_NOW} AS now),
said AS MATERIALIZED (SELECT token, array_agg(job) FILTER (WHERE job IS NOT NULL) AS started
    FROM unnest($2::text::bigint[], $3::text::uuid[]) s(token, job) GROUP BY token),
held AS MATERIALIZED (SELECT l.token FROM (SELECT token FROM said ORDER BY token) s
    CROSS JOIN LATERAL (SELECT h.token FROM taskharbor.lease h WHERE h.token = s.token LIMIT 1 FOR UPDATE) l),
kept AS (UPDATE taskharbor.lease l SET expires_at = c.now + {interval_of("$4::text::bigint")},
    duration = $4::text::bigint, started = CASE WHEN s.started IS NULL THEN l.started ELSE array_cat(
        l.started, ARRAY(SELECT pg_catalog.unnest(s.started) EXCEPT SELECT pg_catalog.unnest(l.started))) END
    FROM clock c, said s WHERE l.token = s.token AND l.token IN (SELECT token FROM held) RETURNING l.token),
heard AS (UPDATE taskharbor.worker SET seen_at = c.now FROM clock c WHERE worker = $5::text
    RETURNING worker, ordered)
SELECT {micros_of("c.now")}, ARRAY(SELECT token FROM kept), EXISTS (SELECT FROM heard),
    (SELECT coalesce(json_agg(json_build_array(id, cancel)), '[]')::text FROM taskharbor.job
        WHERE (cancel IS NOT NULL)::integer = 1 AND cancel IS NOT NULL AND token IN (SELECT token FROM said)),
    EXISTS (SELECT FROM taskharbor.watcher w WHERE w.until > c.now), (SELECT ordered FROM heard)
    FROM clock c"""
_EXPIRED = f"""SELECT token, worker, jobs::text[], started::text[] FROM taskharbor.lease
    WHERE (expires_at <= {_NOW} AND duration <= $2::text::bigint) OR remaining <= 0 ORDER BY token"""
# Jobs are locked before leases, as by a settle. Who came back meanwhile, and extended, keeps what he has.
_STILL = f"""SELECT token FROM taskharbor.lease
    WHERE token = ANY ($3::text::bigint[])
    AND ((expires_at <= {_NOW} AND duration <= $2::text::bigint) OR remaining <= 0)
    ORDER BY token FOR UPDATE"""
_OF_LEASES = """SELECT id::text, token, task, queue, options, attempt, crashes, lost, cancel FROM taskharbor.job
    WHERE id = ANY ($1::text::uuid[]) AND token = ANY ($2::text::bigint[]) ORDER BY id FOR UPDATE"""
_DROP = "DELETE FROM taskharbor.lease WHERE token = ANY ($1::text::bigint[])"
_RECLAIM = f"""WITH {CLOCK},
said AS MATERIALIZED (SELECT s.*, f.spot, CASE WHEN s.error IS NOT NULL THEN
        jsonb_set(s.error::jsonb, '{{at}}', {json_instant("c.now")})::text END AS wrong
    FROM clock c, unnest($2::text::uuid[], $3::text::text[], $4::text::integer[], $5::text::integer[],
    $6::text::integer[], $7::text::bigint[], $8::text::smallint[], $9::text::text[], $10::text::text[])
    s(id, state, attempt, crashes, lost, after, lane, reason, error)
    CROSS JOIN LATERAL (SELECT j.ctid AS spot FROM taskharbor.job j WHERE j.id = s.id LIMIT 1) f),
gone AS (DELETE FROM taskharbor.job j USING said s WHERE j.ctid = s.spot AND s.state IS NOT NULL
    RETURNING j.id, j.task, j.queue, j.options, j.priority, j.run_at, j.enqueued_at, j.timeout, j.retain, j.deliveries,
        s.crashes, true AS guarded, j.stray, j.stray_reason, j.key, j.digest, j.meta, j.payload, j.part, j.operations,
        j.errors, j.awaited, {STEP_OF_JOB}, s.state, s.attempt AS attempts, s.reason AS said_reason,
        s.wrong::json AS error, NULL::bigint AS settler, NULL AS codec, NULL::bytea AS result),
{ENDED}, {KEYS},
back AS (UPDATE taskharbor.job j SET token = NULL, settled = NULL, guarded = true, attempt = s.attempt,
    crashes = s.crashes, lost = s.lost, due = c.now + {interval_of("coalesce(s.after, 0)")},
    lane = {lane_of(f"CASE WHEN s.crashes >= {SOLO_CRASHES} THEN {SOLO} ELSE s.lane END", "j.part")},
    errors = CASE WHEN s.wrong IS NULL THEN j.errors WHEN j.errors IS NULL THEN ('[' || s.wrong || ']')::json
        ELSE (left(j.errors::text, -1) || ',' || s.wrong || ']')::json END
    FROM clock c, said s WHERE j.ctid = s.spot AND s.state IS NULL RETURNING j.id)
SELECT id::text, awaited, {FALLEN} FROM gone WHERE awaited OR waits IS NOT NULL"""

_cancels = msgspec.json.Decoder(list[tuple[str, str]])


def lease_extend(step: Step, request: LeaseExtend) -> Routine[LeaseExtended]:
    """Keep a worker's leases, write its starts, tell it of cancels."""
    pairs = [(hold.token, job_id) for hold in request.leases for job_id in (hold.started or (None,))]
    ((now, kept, known, cancels, watched, order),) = yield Query(
        _EXTEND,
        (
            step.now,
            plain_array([token for token, _ in pairs]),
            nullable_array([job_id for _, job_id in pairs]),
            str(duration_micros(request.lease)),
            request.worker,
        ),
    )
    there = set(kept)
    return LeaseExtended(
        expires_at=from_micros(now + duration_micros(request.lease)),
        lost=[hold.token for hold in request.leases if hold.token not in there],
        cancels=[CancelRequest(job_id, reason) for job_id, reason in _cancels.decode(cancels)],
        known_worker=known,
        watched=watched,
        order=None if order is None else Order(order),
    )


def lease_reclaim(step: Step, request: LeaseReclaim) -> Routine[Sequence[Reclaimed]]:
    """Take back the jobs of workers that are gone."""
    expired = yield Query(_EXPIRED, (step.now, str(duration_micros(request.observed))))
    tokens: dict[int, str] = {}
    ids: list[str] = []
    started: set[str] = set()
    for token, worker, jobs, begun in expired:
        if len(ids) >= request.limit:
            break
        tokens[token] = worker
        ids += jobs
        started.update(begun)
    if not tokens:
        return []
    found = yield Query(_OF_LEASES, (plain_array(ids), plain_array(tokens)))
    observed = str(duration_micros(request.observed))
    still = {token for (token,) in (yield Query(_STILL, (step.now, observed, plain_array(tokens))))}
    held = [row for row in found if row[1] in still]
    fates: list[AfterCrash] = []
    states: list[JobState | None] = []
    attempts: list[int] = []
    reclaimed: list[Reclaimed] = []
    for job_id, token, task, queue, options, attempt, crashes, lost, cancel in held:
        begun = job_id in started
        fate = after_crash(
            started=begun,
            attempt=attempt,
            crashes=crashes,
            lost=lost,
            numbers=step.book.read(options).retry,
            worker=tokens[token],
        )
        kind, state = fate.kind, None
        if cancel is not None:
            kind, state = SettleKind.CANCEL, JobState.CANCELLED
            fate = msgspec.structs.replace(fate, reason=cancel)
        elif kind is SettleKind.BURY:
            state = JobState.DEAD
        # It makes room for others, or may run itself.
        step.wakes.queues.add(queue)
        fates.append(fate)
        states.append(state)
        attempts.append(attempt + begun)
        reclaimed.append(Reclaimed(job_id=job_id, task=task, queue=queue, worker=tokens[token], fate=kind))
    if held:
        ended = yield Query(
            _RECLAIM,
            (
                step.now,
                plain_array([row[0] for row in held]),
                nullable_array(states),
                plain_array(attempts),
                plain_array([fate.crashes for fate in fates]),
                plain_array([fate.lost for fate in fates]),
                nullable_array(
                    [None if fate.after is None else duration_micros(fate.after) for fate in fates]
                ),
                plain_array([NORMAL if fate.after is not None else FRONT for fate in fates]),
                text_array([fate.reason for fate in fates]),
                text_array([None if fate.error is None else json_text(fate.error) for fate in fates]),
            ),
        )
        step.wakes.jobs.extend([job_id for job_id, awaited, _ in ended if awaited])
        yield from fall(step, read(fallen for _, _, fallen in ended))
    yield Query(_DROP, (plain_array(still),))
    return reclaimed
