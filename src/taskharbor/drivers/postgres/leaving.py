"""How jobs leave their leases, or their lanes, for the history: parts that several statements are made of.

`gone` stands for what was deleted from the live jobs: their columns, and beside them `state`, `attempts`,
`said_reason`, `error`, `settler`, `codec` and `result`. `clock` gives the time. Where none of them is a step
`PLAIN_ENDED` will do.
"""

from __future__ import annotations

from taskharbor.clock import duration_micros
from taskharbor.drivers.postgres.rows import DEAD, LONG, interval_of
from taskharbor.drivers.postgres.schema import LONGEST_SLOTTED

_KEPT = """id, task, queue, options, priority, run_at, enqueued_at, timeout, retain, deliveries, crashes, guarded,
    stray, stray_reason, key, digest, meta, payload, operations, part"""
STEP_COLUMNS = "flow, waits, edges, absorbers, holes, delay"
"""What plain jobs have NULL in."""
STEP_OF_JOB = ", ".join(f"j.{name}" for name in STEP_COLUMNS.split(", "))
_EXPIRY = f"(c.now + {interval_of('g.retain')})"

PLAIN_ENDED = f"""slots AS MATERIALIZED (SELECT g.retain, s.slot
    FROM (SELECT DISTINCT retain FROM gone) g CROSS JOIN clock c
    JOIN taskharbor.slot s ON s.day = ({_EXPIRY} AT TIME ZONE 'UTC')::date
        AND g.retain <= {duration_micros(LONGEST_SLOTTED)}),
kept AS (INSERT INTO taskharbor.history ({_KEPT}, slot, state, finished_at, expires_at, attempt, settled,
        reason, errors, result_codec, result)
    SELECT {_KEPT}, CASE WHEN g.state = 'dead' THEN {DEAD} ELSE coalesce(
            (SELECT s.slot FROM slots s WHERE s.retain = g.retain), {LONG}) END,
        g.state, c.now, CASE WHEN g.state = 'dead' THEN 'infinity' ELSE {_EXPIRY} END, g.attempts, g.settler,
        g.said_reason, CASE WHEN g.error IS NULL THEN g.errors WHEN g.errors IS NULL THEN ('[' || g.error || ']')::json
            ELSE (left(g.errors::text, -1) || ',' || g.error || ']')::json END,
        CASE WHEN g.state = 'succeeded' THEN g.codec END, CASE WHEN g.state = 'succeeded' THEN g.result END
    FROM gone g, clock c)"""
ENDED = PLAIN_ENDED.replace(_KEPT, f"{_KEPT}, {STEP_COLUMNS}")
# What `falling.Fallen` is read from, of a step that came to no result.
FALLEN = """CASE WHEN waits IS NOT NULL AND state <> 'succeeded' THEN json_build_array(id, state, flow, absorbers, task,
    attempts, said_reason, CASE WHEN state = 'dead' THEN coalesce(error, errors -> -1) END)::text END"""
FREED = """CASE WHEN part IS NOT NULL OR queue = ANY (ARRAY(SELECT name FROM taskharbor.limit WHERE kind = 'queue'))
    THEN queue END"""
"""A job's queue, if its end makes room for others: it stood in a line, or the queue has a limit."""
# A key may be handed over to another job at this very moment: then it is left alone.
KEYS = f"""named AS MATERIALIZED (SELECT f.spot, g.id FROM (SELECT task, key, id FROM gone WHERE key IS NOT NULL
    ORDER BY task, key) g CROSS JOIN LATERAL (SELECT k.ctid AS spot FROM taskharbor.key k
        WHERE k.task = g.task AND k.name = g.key AND k.job_id = g.id LIMIT 1) f),
keys AS (UPDATE taskharbor.key k SET expires_at = c.now + {interval_of("k.ttl")} FROM clock c, named n
    WHERE k.ctid = n.spot AND k.job_id = n.id)"""
# A lease goes with the last of its jobs.
LEASES = """leaves AS MATERIALIZED (SELECT token, count(*) AS jobs FROM {left} WHERE token IS NOT NULL GROUP BY token
    ORDER BY token),
spent AS (DELETE FROM taskharbor.lease l USING leaves v WHERE l.token = v.token AND l.remaining <= v.jobs),
shrunk AS (UPDATE taskharbor.lease l SET remaining = l.remaining - v.jobs FROM leaves v
    WHERE l.token = v.token AND l.remaining > v.jobs)"""
