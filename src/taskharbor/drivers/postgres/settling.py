"""The statements of job_settle, and their parameters."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from taskharbor.clock import duration_micros
from taskharbor.drivers.postgres.advance import ARRIVE, EDGES
from taskharbor.drivers.postgres.falling import GOING
from taskharbor.drivers.postgres.leaving import ENDED, FALLEN, FREED, KEYS, LEASES, PLAIN_ENDED
from taskharbor.drivers.postgres.routine import Cell, nullable_array, plain_array, text_array
from taskharbor.drivers.postgres.rows import (
    CLOCK,
    FRONT,
    NORMAL,
    SOLO,
    interval_of,
    json_instant,
    json_text,
    lane_of,
)
from taskharbor.drivers.postgres.step import Step
from taskharbor.job import JobState
from taskharbor.settlement import SOLO_CRASHES, SettleKind, Settlement

ENDS_AS = {
    SettleKind.SUCCEED: JobState.SUCCEEDED,
    SettleKind.BURY: JobState.DEAD,
    SettleKind.CANCEL: JobState.CANCELLED,
}
"""The terminal states that kinds lead to; with the others the job waits again."""

# The way of nearly all batches, by itself. Jobs are looked up one by one, in order of id, whatever the planner believes
# of the table: it may be of a moment when that was empty. What somebody changes meanwhile is missed, and settled again.
_GONE = """said AS MATERIALIZED (SELECT * FROM unnest($2::text::uuid[], $3::text::bigint[], $4::text::integer[],
    $5::text::integer[], $6::text::text[]) s(id, token, start, size, codec)),
found AS MATERIALIZED (SELECT s.*, f.spot FROM said s CROSS JOIN LATERAL (SELECT j.ctid AS spot FROM taskharbor.job j
    WHERE j.id = s.id AND j.token = s.token {which} LIMIT 1) f),
gone AS (DELETE FROM taskharbor.job j USING found s WHERE j.ctid = s.spot
    RETURNING j.*, 'succeeded' AS state, j.attempt + 1 AS attempts, NULL AS said_reason, NULL::json AS error,
        j.token AS settler, s.codec, substring($7::bytea FROM s.start FOR s.size) AS result)"""
SUCCESSES = f"""WITH {CLOCK},
{_GONE.replace("{which}", "AND j.waits IS NULL")},
{PLAIN_ENDED}, {KEYS}, {LEASES.format(left="gone")}
SELECT id::text, {FREED}, awaited FROM gone"""
# The same with steps among them: their results go on, what came in for them goes, and the last of a flow ends that.
_STEPS = f"""WITH {CLOCK},
{_GONE},
{ENDED}, {KEYS}, {LEASES.format(left="gone")},
{EDGES},
{ARRIVE},
used AS (DELETE FROM taskharbor.input i USING gone g WHERE i.job_id = ANY (ARRAY[g.id]) AND g.waits IS NOT NULL),
done AS (UPDATE taskharbor.flow f SET state = 'succeeded', reason = NULL, finished_at = c.now,
    expires_at = c.now + {interval_of("f.retain")}
    FROM clock c, gone g WHERE g.flow = g.id AND f.id = ANY (ARRAY[g.id]) AND f.state IN {GOING}
    RETURNING f.id, f.absorbing)
SELECT id::text, 'succeeded', awaited, flow::text, {FREED} FROM gone
UNION ALL SELECT id::text, 'risen', false, NULL, queue FROM risen WHERE waits <= 0
UNION ALL SELECT id::text, 'absorbing', false, NULL, NULL FROM done WHERE absorbing"""
# Of a flow that leaves some of its steps over the last one is settled together with these. (Of EXISTS the server would
# make a table of all such flows.)
_LEAVES_NONE = """AND (j.flow IS DISTINCT FROM j.id
        OR NOT coalesce((SELECT f.absorbing FROM taskharbor.flow f WHERE f.id = j.id), false))"""
STEPS_ALONE = _STEPS.replace("{which}", _LEAVES_NONE)
STEPS_TOGETHER = _STEPS.replace("{which}", "")
# Jobs are locked as they are looked up, since some of them end and some go back, each by a part of its own.
_OTHERS = f"""WITH {CLOCK},
said AS MATERIALIZED (SELECT s.*, CASE WHEN s.error IS NOT NULL THEN
        jsonb_set(s.error::jsonb, '{{at}}', {json_instant("c.now")})::text END AS wrong
    FROM clock c, unnest($2::text::uuid[], $3::text::bigint[], $4::text::integer[],
    $5::text::integer[], $6::text::text[], $8::text::text[], $9::text::bigint[], $10::text::smallint[],
    $11::text::integer[], $12::text::text[], $13::text::text[], $14::text::integer[], $15::text::integer[])
    s(id, token, start, size, codec, state, after, lane, charge, reason, error, stray, lost)),
found AS MATERIALIZED (SELECT s.*, f.spot FROM said s CROSS JOIN LATERAL (SELECT j.ctid AS spot FROM taskharbor.job j
    WHERE j.id = s.id AND j.token = s.token AND (j.waits IS NULL OR {{steps}}) LIMIT 1 FOR UPDATE) f),
gone AS (DELETE FROM taskharbor.job j USING found s WHERE j.ctid = s.spot
    AND (s.state IS NOT NULL OR j.cancel IS NOT NULL)
    RETURNING j.*, CASE WHEN s.state = 'succeeded' OR j.cancel IS NULL THEN s.state ELSE 'cancelled' END AS state,
        j.attempt + s.charge AS attempts,
        CASE WHEN j.cancel IS NULL OR s.state = 'succeeded' THEN s.reason ELSE j.cancel END AS said_reason,
        s.wrong::json AS error, j.token AS settler, s.codec, substring($7::bytea FROM s.start FOR s.size) AS result),
{ENDED}, {KEYS},
back AS (UPDATE taskharbor.job j SET token = NULL, settled = j.token, attempt = j.attempt + s.charge,
    due = c.now + {interval_of("coalesce(s.after, 0)")}, lost = coalesce(s.lost, j.lost),
    lane = {lane_of(f"CASE WHEN j.crashes >= {SOLO_CRASHES} THEN {SOLO} ELSE s.lane END", "j.part")},
    stray = coalesce(s.stray, j.stray), stray_reason = CASE WHEN s.stray IS NULL THEN j.stray_reason ELSE s.reason END,
    errors = CASE WHEN s.wrong IS NULL THEN j.errors WHEN j.errors IS NULL THEN ('[' || s.wrong || ']')::json
        ELSE (left(j.errors::text, -1) || ',' || s.wrong || ']')::json END
    FROM clock c, found s WHERE j.ctid = s.spot AND s.state IS NULL AND j.cancel IS NULL
    RETURNING j.id, j.settled AS token, j.queue, j.stray, CASE WHEN j.due <= c.now THEN 'ready'
        WHEN j.attempt > 0 THEN 'retrying' ELSE 'scheduled' END AS state),
left_lease AS (SELECT id, settler AS token FROM gone UNION ALL SELECT id, token FROM back),
{LEASES.format(left="left_lease")}
SELECT id::text, state, awaited, {FREED}, stray, {FALLEN} FROM gone
    UNION ALL SELECT id::text, state, false, queue, stray, NULL FROM back"""
ANY = _OTHERS.replace("{steps}", "false")
ANY_TOGETHER = _OTHERS.replace("{steps}", "true")


def common_cells(step: Step, settlements: Sequence[Settlement]) -> list[Cell]:
    """Return the parameters `$1` to `$7`."""
    results = [settlement.result for settlement in settlements]
    sizes = [None if result is None else len(result) for result in results]
    return [
        step.now,
        "{" + ",".join([settlement.job_id for settlement in settlements]) + "}",
        plain_array([settlement.token for settlement in settlements]),
        plain_array(accumulate([size or 0 for size in sizes[:-1]], initial=1)),
        nullable_array(sizes),
        text_array([settlement.codec for settlement in settlements]),
        b"".join([result for result in results if result]),
    ]


def other_cells(settlements: Sequence[Settlement], strays: dict[str, int]) -> list[Cell]:
    """Return the parameters from `$8` on; `strays` are the lanes that jobs move to."""
    ends = [ENDS_AS.get(settlement.kind) for settlement in settlements]
    waits = {SettleKind.RETRY, SettleKind.SNOOZE}
    return [
        nullable_array(ends),
        nullable_array([None if s.after is None else duration_micros(s.after) for s in settlements]),
        plain_array([FRONT if s.kind is SettleKind.RELEASE else NORMAL for s in settlements]),
        plain_array([int(s.charge) for s in settlements]),
        text_array([s.reason for s in settlements]),
        text_array([None if s.error is None else json_text(s.error) for s in settlements]),
        nullable_array([strays.get(s.job_id) for s in settlements]),
        nullable_array([0 if s.kind in waits else None for s in settlements]),
    ]
