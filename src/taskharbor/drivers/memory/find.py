"""job_find and job_count: which jobs there are, by what they are, why they ended, and when."""

from __future__ import annotations

import string
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec

from taskharbor.clock import from_micros
from taskharbor.driver import Counted, JobCount, JobFilter, JobFind
from taskharbor.drivers.memory.look import record_of
from taskharbor.drivers.memory.rows import Row
from taskharbor.drivers.memory.tables import Tables
from taskharbor.job import JobRecord

_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_LEFT_OVER = 1000
"""So many ids of jobs that are gone, beside one for each that is there, may the order hold."""


def job_find(tables: Tables, request: JobFind, now: int) -> Sequence[JobRecord]:
    """Return the matching jobs in order of id."""
    found: list[JobRecord] = []
    gates = tables.gates_at(now)
    for row in _rows(tables, request):
        if (request.key is not None and row.job.key != request.key) or not _matches(row, request):
            continue
        state, reason = tables.shown_state(row, now, gates)
        if (not request.states or state in request.states) and _says(reason, row, request.text):
            record = record_of(tables, row, now, gates)
            found.append(
                record if request.payloads else msgspec.structs.replace(record, payload=b"", result=None)
            )
            if len(found) >= request.limit:
                break
    return found


def job_count(tables: Tables, request: JobCount, now: int) -> Sequence[Counted]:
    """Return counts sorted by queue, task and state."""
    gates = tables.gates_at(now)
    rows = (row for row in tables.rows.values() if _matches(row, request))
    shown = ((row.job, *tables.shown_state(row, now, gates), row) for row in rows)
    counts = Counter(
        (job.queue, job.task, state) for job, state, reason, row in shown if _says(reason, row, request.text)
    )
    return [Counted(*name, count) for name, count in sorted(counts.items())]


def _rows(tables: Tables, request: JobFind) -> Iterator[Row]:
    """Yield the rows to look at, in order."""
    order = sorted(tables.steps.get(request.flow, ())) if request.flow else _order(tables)
    if request.newest_first:
        end = bisect_left(order, request.after) if request.after else len(order)
        places = range(end - 1, -1, -1)
    else:
        places = range(bisect_right(order, request.after), len(order))
    for place in places:
        row = tables.rows.get(order[place])
        if row is not None:
            yield row


def _order(tables: Tables) -> list[str]:
    """Return the ids in order, kept from page to page while nothing is enqueued; some may be gone."""
    order = tables.order
    if order is None or len(order) > 2 * len(tables.rows) + _LEFT_OVER:
        order = tables.order = sorted(tables.rows)
    return order


def _matches(row: Row, wanted: JobFilter) -> bool:
    job = row.job
    return (
        (not wanted.queues or job.queue in wanted.queues)
        and (not wanted.tasks or job.task in wanted.tasks)
        and (wanted.enqueued_since is None or row.enqueued_at >= wanted.enqueued_since)
        and (wanted.enqueued_before is None or row.enqueued_at < wanted.enqueued_before)
        and _finished_then(row, wanted)
        and (not wanted.error or _failed_by(row, wanted.error))
    )


def _finished_then(row: Row, wanted: JobFilter) -> bool:
    since, before = wanted.finished_since, wanted.finished_before
    if since is None and before is None:
        return True
    if row.final is None:
        return False
    finished = from_micros(row.finished)
    return (since is None or finished >= since) and (before is None or finished < before)


def _failed_by(row: Row, error: str) -> bool:
    last = row.errors[-1].type if row.errors else ""
    return error in (last, last.rpartition(".")[2])


def _says(reason: str, row: Row, text: str) -> bool:
    if not text:
        return True
    message = row.errors[-1].message if row.errors else ""
    sought = text.translate(_LOWER)
    return sought in reason.translate(_LOWER) or sought in message.translate(_LOWER)
