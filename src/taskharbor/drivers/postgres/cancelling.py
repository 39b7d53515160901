"""Cancelling jobs that are locked: those that run are asked to stop, the others end at once."""

from __future__ import annotations

from collections.abc import Sequence

from taskharbor.drivers.postgres.leaving import ENDED, FALLEN, KEYS, STEP_OF_JOB
from taskharbor.drivers.postgres.routine import Query, Routine, plain_array
from taskharbor.drivers.postgres.rows import CLOCK, json_instant
from taskharbor.drivers.postgres.step import Step

LOCK_ORDER = "coalesce(waits, 0) > 0, id"
"""In which jobs are locked: a settle has those that it ends first, and then those that wait for them."""
# An act is told in JSON, which is written around what stands there; $2 verb, $3 by, $4 reason. Where there is no verb
# it is no act by hand, and not told.
NOTED = """CASE WHEN n.note IS NULL THEN {0}operations WHEN {0}operations IS NULL THEN ('[' || n.note || ']')::json
    ELSE (left({0}operations::text, -1) || ',' || n.note || ']')::json END"""
NOTE = f"""note AS MATERIALIZED (SELECT CASE WHEN $2::text IS NOT NULL THEN json_build_object(
    'at', {json_instant("now")}, 'verb', $2::text, 'by', $3::text, 'reason', $4::text)::text END AS note FROM clock)"""
_CANCEL = f"""WITH {CLOCK}, {NOTE},
asked AS (UPDATE taskharbor.job j SET cancel = coalesce(j.cancel, $4::text), operations = {NOTED.format("j.")}
    FROM note n WHERE j.id = ANY ($5::text::uuid[])),
gone AS (DELETE FROM taskharbor.job j USING note n WHERE j.id = ANY ($6::text::uuid[])
    RETURNING j.id, j.task, j.queue, j.options, j.priority, j.run_at, j.enqueued_at, j.timeout, j.retain, j.deliveries,
        j.crashes, j.guarded, j.stray, j.stray_reason, j.key, j.digest, j.meta, j.payload, j.part, j.errors,
        j.awaited,
        {STEP_OF_JOB}, {NOTED.format("j.")} AS operations, 'cancelled' AS state, j.attempt AS attempts,
        $4::text AS said_reason, NULL::json AS error, j.settled AS settler, NULL AS codec, NULL::bytea AS result),
{ENDED}, {KEYS}
SELECT id::text, awaited, {FALLEN} FROM gone WHERE awaited OR waits IS NOT NULL"""
DROP_INPUTS = "DELETE FROM taskharbor.input WHERE job_id = ANY ($1::text::uuid[])"


def cancel_jobs(
    step: Step, running: Sequence[str], idle: Sequence[str], *, verb: str | None, by: str, reason: str
) -> Routine[list[str]]:
    """Cancel jobs that are locked, and return what `falling.read` reads, of those that were steps and have ended.

    Args:
        step: what a verb works with.
        running: those with a lease.
        idle: those without.
        verb: what is noted on them; None to note nothing.
        by: whose act it is.
        reason: why.
    """
    rows = yield Query(_CANCEL, (step.now, verb, by, reason, plain_array(running), plain_array(idle)))
    step.wakes.jobs.extend([job_id for job_id, awaited, _ in rows if awaited])
    steps = [job_id for job_id, _, fallen in rows if fallen is not None]
    if steps:
        yield Query(DROP_INPUTS, (plain_array(steps),))
    return [fallen for _, _, fallen in rows if fallen is not None]
