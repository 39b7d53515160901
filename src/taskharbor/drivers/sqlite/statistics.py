"""statistics_write and statistics_read: what workers counted, added up when it is read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from taskharbor.clock import duration_micros, from_micros, micros
from taskharbor.driver import StatisticsRead, StatisticsWrite
from taskharbor.drivers.sqlite.leaving import chunks
from taskharbor.drivers.sqlite.routine import Cell, Query, Routine
from taskharbor.drivers.sqlite.rows import Step, json_text
from taskharbor.drivers.sqlite.states import LIST, positional
from taskharbor.event import Ending, Tally

_WRITE = """INSERT OR REPLACE INTO taskharbor_tally (worker, minute, queue, task, ending, count, ran)
    SELECT ?2, e.value ->> 0, e.value ->> 1, e.value ->> 2, e.value ->> 3, e.value ->> 4, e.value ->> 5
    FROM json_each(?1) e"""


def statistics_write(step: Step, request: StatisticsWrite) -> Routine[None]:
    """Write down what one worker has counted."""
    rows = [
        (micros(one.minute), one.queue, one.task, one.ending, one.count, duration_micros(one.ran))
        for one in request.tallies
    ]
    for chunk in chunks(rows):
        yield Query(_WRITE, (json_text(chunk), request.worker))


def statistics_read(step: Step, request: StatisticsRead) -> Routine[Sequence[Tally]]:
    """Return the sums over all workers, sorted."""
    where = ["1"]
    named: dict[str, Cell] = {}
    if request.since is not None:
        where.append("minute >= :since")
        named["since"] = micros(request.since)
    if request.until is not None:
        where.append("minute < :until")
        named["until"] = micros(request.until)
    if request.queues:
        where.append(f"queue IN {LIST.format('queues')}")
        named["queues"] = json_text(sorted(request.queues))
    if request.tasks:
        where.append(f"task IN {LIST.format('tasks')}")
        named["tasks"] = json_text(sorted(request.tasks))
    rows = yield positional(
        "SELECT minute, queue, task, ending, sum(count), sum(ran) FROM taskharbor_tally "  # noqa: S608 - our own constants
        f"WHERE {' AND '.join(where)} GROUP BY 1, 2, 3, 4 HAVING sum(count) <> 0 ORDER BY 1, 2, 3, 4",
        named,
    )
    return [
        Tally(
            minute=from_micros(minute),
            queue=queue,
            task=task,
            ending=Ending(ending),
            count=count,
            ran=timedelta(microseconds=ran),
        )
        for minute, queue, task, ending, count, ran in rows
    ]
