"""Putting jobs in the place of others, which are locked, and neither leased nor ended: one statement for each 2000.

Such a row is made ready anew, wherever it stood: its place in the order, in the index too, is another. So when it is
due is read from the clock by a transaction that has its number, as with a new job, and no mark passes it over
(`marks`). One that is ready, and whose start has been put off as often as it may be, keeps the place that it has.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from taskharbor.driver import Holder, replacement_times
from taskharbor.drivers.postgres.batches import BATCH, WORDS, Batches, digest_text, parts, payload_cells
from taskharbor.drivers.postgres.routine import Query, Routine, plain_array, text_array
from taskharbor.drivers.postgres.rows import CLOCK, NORMAL, SOLO, json_text, lane_of
from taskharbor.drivers.postgres.step import Step
from taskharbor.job import NewJob
from taskharbor.settlement import SOLO_CRASHES

# One whose task came to have limits keeps its place in their line.
_PART = "CASE WHEN s.part IS NULL AND j.part = '' THEN '' ELSE s.part END"
_LANE = lane_of(f"CASE WHEN j.crashes >= {SOLO_CRASHES} THEN {SOLO} ELSE {NORMAL} END", f"({_PART})")
# Only where it stays in its lane: in another one its place, early as it is, may be behind marks.
_STAYS = f"""s.late AND j.due <= c.now AND j.stray = 0 AND j.lane = {_LANE}
        AND (j.queue, j.priority) = (s.queue, s.priority) AND j.part IS NOT DISTINCT FROM {_PART}"""
_REPLACE = f"""WITH {CLOCK},
{BATCH},
said AS MATERIALIZED (SELECT s.*, {WORDS}
    FROM batch b, unnest($9::text::uuid[], $10::text::integer[], $11::text::integer[], $12::text::integer[],
        $14::text::text[], $15::text::json[], $16::text::timestamptz[], $17::text::timestamptz[], $18::text::boolean[],
        $19::text::text[]) s(id, batch, start, size, digest, meta, run_at, due, late, part))
UPDATE taskharbor.job j SET queue = s.queue, options = s.options, priority = s.priority, retain = s.retain,
    timeout = s.timeout, guarded = j.guarded OR s.guarded, digest = s.digest, meta = s.meta,
    payload = substring($13::bytea FROM s.start FOR s.size), stray = 0, stray_reason = NULL, part = {_PART},
    lane = {_LANE},
    run_at = s.run_at, due = CASE WHEN {_STAYS} THEN j.due ELSE greatest(s.due, c.now) END
FROM clock c, said s WHERE j.id = s.id"""


def replace(
    step: Step, replaced: Mapping[str, NewJob], holders: Mapping[str, Holder], now: datetime
) -> Routine[None]:
    """Put jobs in the place of others.

    Args:
        step: what a verb works with.
        replaced: what comes, by the ids of those in whose place it comes.
        holders: those, by their ids.
        now: the present, as it was when this was decided.
    """
    for part in parts([replaced[job_id] for job_id in sorted(replaced)]):
        batches = Batches(step.book)
        numbers = [batches.number(job) for job in part]
        starts, sizes, payloads = payload_cells(part)
        times = [
            replacement_times(job, enqueued_at=_enqueued_at(holders[job.id], now), now=now) for job in part
        ]
        yield Query(
            _REPLACE,
            (
                step.now,
                *batches.cells(),
                plain_array([job.id for job in part]),
                plain_array(numbers),
                starts,
                sizes,
                payloads,
                plain_array([digest_text(job) for job in part]),
                text_array([json_text(job.meta) if job.meta else None for job in part]),
                plain_array([f'"{run_at.isoformat()}"' for run_at, _ in times]),
                plain_array([f'"{due_at.isoformat()}"' for _, due_at in times]),
                plain_array([due_at < now for _, due_at in times]),
                text_array([job.partition for job in part]),
            ),
        )
        step.wakes.queues.update([job.queue for job in part])


def _enqueued_at(holder: Holder, now: datetime) -> datetime:
    return now if holder.enqueued_at is None else holder.enqueued_at
