"""Storing jobs that have been admitted, or that take their keys as they are stored: one statement for each 2000."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache

from taskharbor.clock import EPOCH, duration_micros
from taskharbor.drivers.postgres.advance import add_inputs
from taskharbor.drivers.postgres.batches import BATCH, WORDS, Batches, digest_text, parts, payload_cells
from taskharbor.drivers.postgres.leaving import STEP_COLUMNS
from taskharbor.drivers.postgres.routine import (
    Cell,
    Query,
    Routine,
    nullable_array,
    plain_array,
    text_array,
)
from taskharbor.drivers.postgres.rows import (
    CLOCK,
    DEAD,
    LONG,
    NORMAL,
    WAITING,
    interval_of,
    json_text,
    lane_of,
)
from taskharbor.drivers.postgres.step import Step
from taskharbor.job import NewJob

# Ids begin with the time, so that those of one request stand close together in the index, and few others between them:
# which of them are stored already is read in one go, and costs nothing where none is. Jobs that ended are looked for
# only in those partitions of the history in which they can be; their numbers are written into the statement, so that
# the others have no part in its plan. (ON CONFLICT would write each row twice to be sure. Two requests that store the
# same id at once end in an error of the one, which is then repeated.)
_SPAN = "id BETWEEN $19::text::uuid AND $20::text::uuid"
_KNOWN = f"""known AS MATERIALIZED (SELECT id FROM taskharbor.job WHERE {_SPAN}
    UNION ALL SELECT id FROM taskharbor.history WHERE slot IN ({{slots}}) AND {_SPAN})"""
# In a caller's transaction nothing is asked again. Nor must it be read there: what a SERIALIZABLE one has read may
# bring others to an end, and of a small table the server reads all, whatever is asked of it.
_NONE_KNOWN = """known AS MATERIALIZED (SELECT NULL::uuid AS id
    WHERE false AND $19::text IS NULL AND $20::text IS NULL)"""
_FROM_TO = "id BETWEEN $1::text::uuid AND $2::text::uuid"
_STORED = f"""SELECT id::text FROM taskharbor.job WHERE {_FROM_TO}
    UNION ALL SELECT id::text FROM taskharbor.history WHERE slot IN ({{slots}}) AND {_FROM_TO}"""
_WIDE = timedelta(seconds=5)
"""Ids made farther apart, as where an old request is repeated, are looked up one by one."""
# Jobs of one task, queue, priority and so on are of one *batch*, whose words are sent once.
_SAID = f"""WITH {CLOCK},
{BATCH},
said AS MATERIALIZED (SELECT s.*, {WORDS}
    FROM batch b, unnest($9::text::uuid[], $10::text::integer[], $11::text::integer[],
    $12::text::integer[], $16::text::timestamptz[], $17::text::bigint[], $13::text::text[], $14::text::text[],
    $18::text::json[], $21::text::text[]{{more}})
    s(id, batch, start, size, run_at, run_in, key, digest, meta, part{{names}})),
{_KNOWN}"""
# What steps have beside: $22 to $26. (Arrays of JSON are read as such by the server, and so are checked by it.)
_MORE = ", $22::text::uuid[], $23::text::integer[], $24::text::jsonb[], $25::text::json[], $26::text::json[]"
_MORE_NAMES = ", flow, waits, edges, absorbers, holes"
_STEP_VALUES = ", s.flow, s.waits, s.edges, s.absorbers, s.holes, CASE WHEN s.waits > 0 THEN s.run_in END"
# `run_in` of a step that waits counts from when it waits no more.
_LANE = lane_of(str(NORMAL), "s.part")
_ADD = f"""added AS (INSERT INTO taskharbor.job (id, task, queue, options, priority, retain, timeout, guarded, lane,
    key, digest, meta, part, payload, enqueued_at, run_at, due{{{{columns}}}})
SELECT s.id, s.task, s.queue, s.options, s.priority, s.retain, s.timeout, s.guarded, {{{{lane}}}}, s.key, s.digest,
    s.meta, s.part, substring($15::bytea FROM s.start FOR s.size), c.now, w.run_at,
    greatest(w.run_at, c.now){{{{values}}}}
FROM clock c, {{said}} s,
    LATERAL (SELECT coalesce(c.now + {interval_of("{{run_in}}")}, s.run_at, c.now) AS run_at) w
RETURNING id)
SELECT id::text FROM added"""
_PLAIN = f"""{_SAID},
fresh AS (SELECT * FROM said WHERE id NOT IN (SELECT id FROM known)),
{_ADD.format(said="fresh")}"""
_KEYED = f"""{_SAID},
lasts AS MATERIALIZED (SELECT {{ttl}}::text::bigint[] AS ttl),
fresh AS MATERIALIZED (SELECT * FROM said WHERE id NOT IN (SELECT id FROM known)),
taken AS (INSERT INTO taskharbor.key AS k (task, name, job_id, digest, ttl)
    SELECT s.task, s.key, s.id, s.digest, t.ttl[s.batch] FROM fresh s, lasts t
    WHERE s.key IS NOT NULL{{untaken}} ORDER BY s.task, s.key
    ON CONFLICT (task, name) DO UPDATE SET job_id = excluded.job_id, digest = excluded.digest, ttl = excluded.ttl,
        expires_at = NULL WHERE k.expires_at <= (SELECT now FROM clock)
    RETURNING k.job_id),
free AS (SELECT * FROM fresh WHERE key IS NULL OR id IN (SELECT job_id FROM taken)),
{_ADD.format(said="free")}"""
# ON CONFLICT locks what it meets, changed or not, and no worker could settle the job that has the key while a caller's
# transaction lasts. So what can be seen to be taken is left alone there. Not in one that is SERIALIZABLE: whatever is
# read in it may bring another to an end.
UNTAKEN = """ AND NOT (current_setting('transaction_isolation') <> 'serializable' AND EXISTS (
        SELECT FROM taskharbor.key h WHERE h.task = s.task AND h.name = s.key
        AND (h.expires_at IS NULL OR h.expires_at > (SELECT now FROM clock))))"""


def add(step: Step, jobs: Sequence[NewJob], *, keyed: bool, held: bool = False) -> Routine[set[str]]:
    """Store what can be stored, and return its ids.

    Args:
        step: what a verb works with.
        jobs: to be stored.
        keyed: some have idempotency keys, which are to be taken; without, what has one is not stored.
        held: some have keys, which are theirs already.
    """
    created: set[str] = set()
    unique = {job.id: job for job in reversed(jobs)}
    if len(unique) < len(jobs):
        jobs = list(reversed(unique.values()))
    made_at = _made_at(min(unique)) if unique else EPOCH
    now = None if step.now is None else datetime.fromisoformat(step.now)
    slots: tuple[int, ...] = (DEAD, LONG)
    if not step.joined:
        slots = yield from step.slots.may_hold(made_at, {job.retain for job in jobs}, now)
    wide = bool(unique) and _made_at(max(unique)) - made_at > _WIDE
    for part in parts(jobs):
        steps = any([job.step is not None for job in part])  # noqa: C419 - quicker
        sql = _statement(slots, keyed=keyed, joined=step.joined, wide=wide, steps=steps)
        rows = yield Query(sql, _parameters(step, part, keyed=keyed, held=held, steps=steps))
        there = [row[0] for row in rows]
        created.update(there)
        if steps:
            new = set(there)
            yield from add_inputs(
                [(job.id, one) for job in part if job.step and job.id in new for one in job.step.inputs]
            )
    return created


def stored(step: Step, jobs: Sequence[NewJob]) -> Routine[set[str]]:
    """Return ids that are stored already: all that jobs of these have, and others made at the same time."""
    if step.joined or not jobs:  # in a caller's transaction nothing is asked again
        return set()
    ids = [job.id for job in jobs]
    made_at = _made_at(min(ids))
    now = None if step.now is None else datetime.fromisoformat(step.now)
    slots = yield from step.slots.may_hold(made_at, {job.retain for job in jobs}, now)
    sql = _STORED.replace("{slots}", ", ".join(map(str, slots)))
    if _made_at(max(ids)) - made_at <= _WIDE:
        return {row[0] for row in (yield Query(sql, (min(ids), max(ids))))}
    sql = sql.replace(_FROM_TO, f"{_FROM_TO} AND id = ANY ($3::text::uuid[])")
    return {row[0] for row in (yield Query(sql, (min(ids), max(ids), plain_array(ids))))}


def _parameters(step: Step, jobs: Sequence[NewJob], *, keyed: bool, held: bool, steps: bool) -> list[Cell]:
    batches = Batches(step.book)
    numbers = [batches.number(job) for job in jobs]
    ids = [job.id for job in jobs]
    starts, sizes, payloads = payload_cells(jobs)
    cells: list[Cell] = [
        step.now,
        *batches.cells(),
        "{" + ",".join(ids) + "}",
        plain_array(numbers),
        starts,
        sizes,
        text_array([job.key for job in jobs]) if keyed or held else None,
        nullable_array([None if job.key is None else digest_text(job) for job in jobs])
        if keyed or held
        else None,
        payloads,
        None,
        None,
        None,
        # In a caller's transaction nothing is asked again, and so the ids are new.
        None if step.joined else min(ids),
        None if step.joined else max(ids),
        None,
    ]
    if any(job.run_at is not None for job in jobs):
        cells[15] = nullable_array([None if job.run_at is None else job.run_at.isoformat() for job in jobs])
    if any(job.run_in is not None for job in jobs):
        cells[16] = nullable_array(
            [None if job.run_in is None else duration_micros(job.run_in) for job in jobs]
        )
    if any(job.meta for job in jobs):
        cells[17] = text_array([json_text(job.meta) if job.meta else None for job in jobs])
    if any([job.partition is not None for job in jobs]):  # noqa: C419 - quicker
        cells[20] = text_array([job.partition for job in jobs])
    if steps:
        cells += _step_cells(jobs)
    if keyed:
        cells.append(batches.key_ttls())
    return cells


def _step_cells(jobs: Sequence[NewJob]) -> list[Cell]:
    """Return the parameters `$22` to `$26`."""
    steps = [job.step for job in jobs]
    return [
        nullable_array([(step and step.flow) or None for step in steps]),
        nullable_array([step and step.waits for step in steps]),
        text_array([json_text(step.edges) if step and step.edges else None for step in steps]),
        text_array([json_text(step.absorbers) if step and step.absorbers else None for step in steps]),
        text_array([json_text(step.holes) if step and step.holes else None for step in steps]),
    ]


def _made_at(job_id: str) -> datetime:
    """Return the instant at which an id was made: a UUIDv7 begins with its milliseconds."""
    return EPOCH + timedelta(milliseconds=int(job_id[:8] + job_id[9:13], 16))


@lru_cache(maxsize=100)
def _statement(slots: tuple[int, ...], *, keyed: bool, joined: bool, wide: bool, steps: bool) -> str:
    words = {
        "slots": ", ".join(map(str, slots)),
        "more": _MORE if steps else "",
        "names": _MORE_NAMES if steps else "",
        "columns": f", {STEP_COLUMNS}" if steps else "",
        "values": _STEP_VALUES if steps else "",
        "lane": f"CASE WHEN s.waits > 0 THEN {WAITING} ELSE {_LANE} END" if steps else _LANE,
        "run_in": "CASE WHEN s.waits > 0 THEN NULL ELSE s.run_in END" if steps else "s.run_in",
        "ttl": "$27" if steps else "$22",
        "untaken": UNTAKEN if joined else "",
    }
    sql = _KEYED if keyed else _PLAIN
    if joined:
        sql = sql.replace(_KNOWN, _NONE_KNOWN)
    for name, value in words.items():
        sql = sql.replace(f"{{{name}}}", value)
    if wide:
        sql = sql.replace(_SPAN, f"{_SPAN} AND id = ANY (SELECT id FROM said)")
    return sql
