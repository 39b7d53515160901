"""How flows advance: results go to the steps that wait for them, and what nothing more is to come for may run.

`edge` stands for what came to a result, or fell: the step that waits, slot, index, codec, value, and whether it failed.
Steps that wait are locked, in order of id, before anything is written for them: each of two members of one chord that
are settled at once then counts, and what is cancelled meanwhile gets nothing. They are counted down by the id and not
by the place at which they were found, since whoever had the lock before has put them at another one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

from taskharbor.drivers.postgres.routine import Query, Routine, nullable_array, plain_array, text_array
from taskharbor.drivers.postgres.rows import BATCH_BYTES, CLOCK, NORMAL, SOLO, WAITING, interval_of, lane_of
from taskharbor.drivers.postgres.step import Step
from taskharbor.settlement import SOLO_CRASHES
from taskharbor.step import Edge, Input

_RUNS = lane_of(f"CASE WHEN d.crashes >= {SOLO_CRASHES} THEN {SOLO} ELSE {NORMAL} END", "d.part")
_RUN_AT = f"coalesce(k.now + {interval_of('d.delay')}, d.run_at)"

# (IN that is not a condition by itself is looked up in a hash; else each edge would be compared with each step.)
ARRIVE = f"""held AS MATERIALIZED (SELECT f.id FROM (SELECT DISTINCT job_id FROM edge ORDER BY job_id) e
    CROSS JOIN LATERAL (SELECT j.id FROM taskharbor.job j WHERE j.id = e.job_id AND j.waits > 0 LIMIT 1 FOR UPDATE) f),
live AS (SELECT * FROM edge WHERE (job_id IN (SELECT id FROM held)) IS TRUE),
put AS (INSERT INTO taskharbor.input (job_id, slot, idx, codec, value, failed)
    SELECT job_id, slot, idx, codec, value, failed FROM live ON CONFLICT DO NOTHING RETURNING job_id),
came AS MATERIALIZED (SELECT job_id, count(*)::integer AS n FROM put GROUP BY job_id),
risen AS (UPDATE taskharbor.job d SET waits = d.waits - c.n,
    lane = CASE WHEN d.waits > c.n THEN d.lane ELSE {_RUNS} END,
    run_at = CASE WHEN d.waits > c.n THEN d.run_at ELSE {_RUN_AT} END,
    due = CASE WHEN d.waits > c.n THEN d.due ELSE greatest({_RUN_AT}, k.now) END
    FROM came c, clock k WHERE d.id = ANY (ARRAY[c.job_id]) RETURNING d.id, d.queue, d.waits)"""
RISEN = "SELECT id::text, queue FROM risen WHERE waits <= 0"
"""Who may run now."""
EDGES = """edge AS MATERIALIZED (SELECT e.job_id, e.slot, e.idx, CASE WHEN e.slot < 0 THEN '' ELSE e.codec END AS codec,
        CASE WHEN e.slot >= 0 THEN e.result END AS value, false AS failed
    FROM (SELECT (e.value ->> 0)::uuid AS job_id, (e.value ->> 1)::smallint AS slot, (e.value ->> 2)::integer AS idx,
            coalesce(g.codec, '') AS codec, g.result
        FROM gone g CROSS JOIN LATERAL jsonb_array_elements(g.edges) e(value)) e)"""
"""The edges of steps that succeeded, of `gone`."""

_GIVE = f"""WITH {CLOCK},
edge AS MATERIALIZED (SELECT s.job_id, s.slot, s.idx, s.codec, substring($7::bytea FROM s.start FOR s.size) AS value,
        s.failed
    FROM unnest($2::text::uuid[], $3::text::smallint[], $4::text::integer[], $5::text::integer[], $6::text::integer[],
        $8::text::text[], $9::text::boolean[]) s(job_id, slot, idx, start, size, codec, failed)),
{ARRIVE}
{RISEN}"""
# Of what the same transaction has let go, too: its success is counted before what it brings with it.
_WAIT = f"""WITH {CLOCK},
said AS MATERIALIZED (SELECT * FROM unnest($2::text::uuid[], $3::text::integer[]) s(id, more)),
held AS MATERIALIZED (SELECT s.id, s.more FROM said s CROSS JOIN LATERAL (SELECT j.id FROM taskharbor.job j
    WHERE j.id = s.id AND (j.waits > 0 OR j.id = ANY ($4::text::uuid[])) LIMIT 1) f),
risen AS (UPDATE taskharbor.job d SET waits = greatest(d.waits + s.more, 0),
    lane = CASE WHEN d.waits + s.more > 0 THEN {WAITING} ELSE {_RUNS} END,
    run_at = CASE WHEN d.waits > 0 AND d.waits + s.more <= 0 THEN {_RUN_AT} ELSE d.run_at END,
    due = CASE WHEN d.waits > 0 AND d.waits + s.more <= 0 THEN greatest({_RUN_AT}, k.now) ELSE d.due END
    FROM held s, clock k WHERE d.id = ANY (ARRAY[s.id]) RETURNING d.id, d.queue, d.waits)
{RISEN}"""
_LOCK = """SELECT id::text FROM taskharbor.job WHERE id = ANY ($1::text::uuid[]) AND waits IS NOT NULL
    ORDER BY id FOR UPDATE"""
_ADD = """INSERT INTO taskharbor.input (job_id, slot, idx, codec, value, failed)
    SELECT s.job_id, s.slot, s.idx, s.codec, substring($6::bytea FROM s.start FOR s.size), s.failed
    FROM unnest($1::text::uuid[], $2::text::smallint[], $3::text::integer[], $4::text::integer[], $5::text::integer[],
        $7::text::text[], $8::text::boolean[]) s(job_id, slot, idx, start, size, codec, failed)
    ORDER BY 1, 2, 3 ON CONFLICT DO NOTHING"""


def give(step: Step, given: Sequence[tuple[Edge, Input]]) -> Routine[None]:
    """Give inputs to the steps that edges lead to."""
    if not given:
        return
    rows = yield Query(_GIVE, (step.now, *_cells([(edge.job_id, one) for edge, one in given])))
    step.wakes.queues.update([queue for _, queue in rows])


def add_inputs(given: Iterable[tuple[str, Input]]) -> Routine[None]:
    """Store what steps that are new have been given already."""
    part: list[tuple[str, Input]] = []
    size = 0
    for job_id, one in given:
        length = len(one.value or b"")
        if part and size + length > BATCH_BYTES:
            yield Query(_ADD, _cells(part))
            part, size = [], 0
        part.append((job_id, one))
        size += length
    if part:
        yield Query(_ADD, _cells(part))


def lock_waiting(ids: Sequence[str]) -> Routine[None]:
    """Lock steps, in order of id."""
    yield Query(_LOCK, (plain_array(sorted(ids)),))


def wait_for(step: Step, more: Mapping[str, int], risen: Sequence[str]) -> Routine[None]:
    """Have steps wait for so many inputs more, or less; `risen` are those that this transaction has let go."""
    ids = sorted(more)
    counts = plain_array([more[job_id] for job_id in ids])
    rows = yield Query(_WAIT, (step.now, plain_array(ids), counts, plain_array(risen)))
    step.wakes.queues.update([queue for _, queue in rows])


def _cells(given: Sequence[tuple[str, Input]]) -> tuple[str | bytes, ...]:
    values = [one.value for _, one in given]
    sizes = [None if value is None else len(value) for value in values]
    return (
        plain_array([job_id for job_id, _ in given]),
        plain_array([one.slot for _, one in given]),
        plain_array([one.index for _, one in given]),
        plain_array(accumulate([size or 0 for size in sizes[:-1]], initial=1)),
        nullable_array(sizes),
        b"".join([value for value in values if value]),
        text_array([one.codec for _, one in given]),
        plain_array([one.failed for _, one in given]),
    )
