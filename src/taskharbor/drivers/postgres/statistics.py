"""statistics_write, statistics_read: counters by the minute."""

from __future__ import annotations

from collections.abc import Sequence

from taskharbor.clock import duration_micros, from_micros
from taskharbor.driver import STATISTICS_RETAIN, StatisticsRead, StatisticsWrite
from taskharbor.drivers.postgres.routine import Cell, Query, Routine, plain_array, text_array
from taskharbor.drivers.postgres.rows import as_duration, interval_of, micros_of
from taskharbor.drivers.postgres.step import Step
from taskharbor.event import Ending, Tally

_WRITE = """INSERT INTO taskharbor.tally (minute, queue, task, ending, worker, count, ran)
    SELECT s.minute, s.queue, s.task, s.ending, $1::text, s.count, s.ran
    FROM unnest($2::text::timestamptz[], $3::text::text[], $4::text::text[], $5::text::text[], $6::text::bigint[],
        $7::text::bigint[]) s(minute, queue, task, ending, count, ran)
    ORDER BY 1, 2, 3, 4
    ON CONFLICT (minute, queue, task, ending, worker) DO UPDATE SET count = excluded.count, ran = excluded.ran"""
_READ = f"""SELECT {micros_of("minute")}, queue, task, ending, sum(count)::bigint, sum(ran)::bigint
    FROM taskharbor.tally WHERE {{which}} GROUP BY minute, queue, task, ending HAVING sum(count)::bigint > 0"""

_PRUNE = f"""WITH gone AS (DELETE FROM taskharbor.tally WHERE ctid = ANY (ARRAY(SELECT ctid FROM taskharbor.tally
    WHERE minute < coalesce($1::text::timestamptz, clock_timestamp())
        - {interval_of(str(duration_micros(STATISTICS_RETAIN)))}
    ORDER BY minute LIMIT $2::text::bigint FOR UPDATE SKIP LOCKED)) RETURNING 1) SELECT count(*) FROM gone"""


def statistics_write(step: Step, request: StatisticsWrite) -> Routine[None]:
    """Write down what one worker has counted."""
    del step
    last = {(tally.minute, tally.queue, tally.task, tally.ending): tally for tally in request.tallies}
    if not last:
        return
    tallies = list(last.values())
    yield Query(
        _WRITE,
        (
            request.worker,
            plain_array([tally.minute.isoformat() for tally in tallies]),
            text_array([tally.queue for tally in tallies]),
            text_array([tally.task for tally in tallies]),
            plain_array([tally.ending for tally in tallies]),
            plain_array([tally.count for tally in tallies]),
            plain_array([duration_micros(tally.ran) for tally in tallies]),
        ),
    )


def statistics_read(step: Step, request: StatisticsRead) -> Routine[Sequence[Tally]]:
    """Return the sums over all workers, sorted."""
    del step
    cells: list[Cell] = []
    conditions: list[str] = []

    def add(condition: str, cell: str) -> None:
        cells.append(cell)
        conditions.append(condition.format(f"${len(cells)}::text"))

    if request.since is not None:
        add("minute >= {}::timestamptz", request.since.isoformat())
    if request.until is not None:
        add("minute < {}::timestamptz", request.until.isoformat())
    if request.queues:
        add("queue = ANY ({}::text[])", text_array(sorted(request.queues)))
    if request.tasks:
        add("task = ANY ({}::text[])", text_array(sorted(request.tasks)))
    rows = yield Query(_READ.replace("{which}", " AND ".join(conditions) or "true"), cells)
    return [
        Tally(
            minute=from_micros(minute),
            queue=queue,
            task=task,
            ending=Ending(ending),
            count=count,
            ran=as_duration(ran),
        )
        for minute, queue, task, ending, count, ran in sorted(rows)
    ]


def prune_statistics(step: Step, limit: int) -> Routine[bool]:
    """Remove at most so many counters of long ago, and return whether there may be more."""
    ((gone,),) = yield Query(_PRUNE, (step.now, str(limit)))
    return bool(gone >= limit)
