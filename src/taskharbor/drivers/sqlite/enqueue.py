"""job_enqueue: ids and idempotency keys first, for the whole batch, then the rows."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from taskharbor.clock import duration_micros, micros
from taskharbor.driver import Enqueued, Holder, JobEnqueue, admit
from taskharbor.drivers.sqlite.routine import Cell, Query, Routine
from taskharbor.drivers.sqlite.rows import (
    NORMAL,
    TEXTS,
    Step,
    json_text,
    read_json,
)
from taskharbor.job import NewJob

_SIZES = (200, 20, 1)
"""Rows of one statement. SQLite allows 32,766 parameters."""


class _HolderRow(msgspec.Struct, array_like=True, frozen=True):
    """Who holds a key."""

    task: str
    name: str
    job_id: str
    digest: str


_holders = msgspec.json.Decoder(list[_HolderRow])

_KNOWN = """SELECT json_group_array(id) FROM (
    SELECT id FROM taskharbor_job WHERE id IN (SELECT value FROM json_each(?1))
    UNION ALL SELECT id FROM taskharbor_history WHERE id IN (SELECT value FROM json_each(?1))
    UNION ALL SELECT id FROM taskharbor_dead WHERE id IN (SELECT value FROM json_each(?1)))"""
_HELD = """SELECT json_group_array(json_array(k.task, k.name, k.job_id, hex(k.digest)))
    FROM json_each(?1) e CROSS JOIN taskharbor_key k ON k.task = e.value ->> 0 AND k.name = e.value ->> 1
    WHERE k.expires_at IS NULL OR k.expires_at > ?2"""
_ADD_OPTIONS = """INSERT OR IGNORE INTO taskharbor_options (id, retain, text)
    SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?)"""
_KEY_CELLS, _JOB_CELLS = 5, 15
"""Cells of one row of `_ADD_KEYS` and `_ADD_JOBS`."""
_ADD_KEYS = "INSERT OR REPLACE INTO taskharbor_key (task, name, job_id, digest, ttl) VALUES "
_ADD_JOBS = """INSERT INTO taskharbor_job (
    id, task, queue, options, priority, due, guarded, run_at, timeout, payload, key, digest, meta, enqueued_at, lane)
    VALUES """


def job_enqueue(step: Step, request: JobEnqueue) -> Routine[Sequence[Enqueued]]:
    """Store jobs and return one answer each, in order."""
    jobs = request.jobs
    found = read_json((yield Query(_KNOWN, (json_text([job.id for job in jobs]),))), TEXTS)
    holders = yield from _key_holders(jobs, step.now)
    answers, new, _ = admit(jobs, known=set(found), holders=holders, all_or_none=request.all_or_none)
    yield from _insert(new, step)
    step.wakes.queues.update(job.queue for job in new)
    return answers


def _key_holders(jobs: Sequence[NewJob], now: int) -> Routine[dict[tuple[str, str], Holder]]:
    """Return who holds the keys that these jobs want, by task and key."""
    wanted = [(job.task, job.key) for job in jobs if job.key is not None]
    if not wanted:
        return {}
    held = read_json((yield Query(_HELD, (json_text(wanted), now))), _holders)
    return {(key.task, key.name): Holder(key.job_id, bytes.fromhex(key.digest)) for key in held}


def _insert(jobs: Sequence[NewJob], step: Step) -> Routine[None]:
    now, number_of = step.now, step.book.number
    options: dict[int, tuple[int, int, str]] = {}
    keys: list[Cell] = []
    rows: list[Cell] = []
    for job in jobs:
        number, text, retain = number_of(job)
        if number not in options:
            options[number] = (number, retain, text)
        key = job.key
        if key is not None:
            keys += (job.task, key, job.id, job.digest, duration_micros(job.key_ttl))
        run_at = due = now
        if job.run_at is not None or job.run_in is not None:
            run_at = _run_at(job, now)
            due = max(run_at, now)
        rows += (
            job.id,
            job.task,
            job.queue,
            number,
            job.priority,
            due,
            # Its one attempt must not be spent unseen (rule 4).
            int(job.retry.max_attempts == 1),
            run_at,
            None if job.timeout is None else duration_micros(job.timeout),
            job.payload,
            key,
            None if key is None else job.digest,
            json_text(job.meta) if job.meta else None,
            now,
            NORMAL,
        )
    if options:
        yield Query(_ADD_OPTIONS, (json_text(list(options.values())),))
    yield from _insert_many(_ADD_KEYS, keys, _KEY_CELLS)
    yield from _insert_many(_ADD_JOBS, rows, _JOB_CELLS)


def _insert_many(insert: str, cells: Sequence[Cell], width: int) -> Routine[None]:
    """Insert rows of so many cells, many by one statement, in few sizes, so that each is prepared once."""
    row = f"({', '.join('?' * width)})"
    begin = 0
    for size in _SIZES:
        sql = insert + ", ".join([row] * size)
        while len(cells) - begin >= size * width:
            end = begin + size * width
            yield Query(sql, cells[begin:end])
            begin = end


def _run_at(job: NewJob, now: int) -> int:
    if job.run_in is not None:
        return now + duration_micros(job.run_in)
    return now if job.run_at is None else micros(job.run_at)
