"""job_enqueue: ids and idempotency keys first, for the whole batch, then the rows; those of flows in parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import chain, islice

import msgspec

from taskharbor.clock import duration_micros, from_micros, micros
from taskharbor.driver import Enqueued, JobEnqueue, admit, replacement_times
from taskharbor.drivers.sqlite.holders import key_holders
from taskharbor.drivers.sqlite.inputs import Place, add_inputs
from taskharbor.drivers.sqlite.routine import Cell, Query, Routine
from taskharbor.drivers.sqlite.rows import (
    LINES,
    NORMAL,
    SOLO,
    TEXTS,
    WAITING,
    Step,
    json_text,
    read_json,
)
from taskharbor.flow import FlowState, NewFlow
from taskharbor.job import DEFAULT_RETAIN, NewJob
from taskharbor.step import Input
from taskharbor.step import Step as StepWords

_SIZES = (200, 20, 1)
"""Rows of one statement. SQLite allows 32,766 parameters."""
_PART = 2000
"""Steps of a flow that are read and stored at a time."""


_KNOWN = """SELECT json_group_array(id) FROM (
    SELECT id FROM taskharbor_job WHERE id IN (SELECT value FROM json_each(?1))
    UNION ALL SELECT id FROM taskharbor_history WHERE id IN (SELECT value FROM json_each(?1))
    UNION ALL SELECT id FROM taskharbor_dead WHERE id IN (SELECT value FROM json_each(?1)))"""
_KNOWN_FLOWS = """SELECT json_group_array(id) FROM taskharbor_flow
    WHERE id IN (SELECT value FROM json_each(?))"""
_ADD_OPTIONS = """INSERT OR IGNORE INTO taskharbor_options (id, retain, text)
    SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?)"""
_KEY_CELLS, _JOB_CELLS, _STEP_CELLS, _FLOW_CELLS = 5, 16, 19, 9
"""Cells of one row of `_ADD_KEYS`, `_ADD_JOBS`, `_ADD_STEPS` and `_ADD_FLOWS`."""
_ADD_KEYS = "INSERT OR REPLACE INTO taskharbor_key (task, name, job_id, digest, ttl) VALUES "
_ADD_JOBS = """INSERT INTO taskharbor_job (
    id, task, queue, options, priority, due, guarded, run_at, timeout, payload, key, digest, meta, enqueued_at, part,
    lane)
    VALUES """
# What is given as when it was enqueued is the present. What was to be due before that keeps its place, if it has one.
_SAME_PART = "iif(excluded.part IS NULL AND part = '', '', excluded.part)"
"""A job whose task came to have limits keeps its place in their line."""
_DUE = f"""CASE WHEN excluded.due >= excluded.enqueued_at THEN excluded.due
        WHEN due <= excluded.enqueued_at AND stray = 0 AND lane IN ({SOLO}, {NORMAL}, {LINES + SOLO}, {LINES + NORMAL})
            AND (queue, priority) = (excluded.queue, excluded.priority) AND part IS {_SAME_PART} THEN due
        ELSE excluded.enqueued_at END"""
_IN_PLACE = f""" ON CONFLICT (id) DO UPDATE SET queue = excluded.queue, options = excluded.options,
    priority = excluded.priority, lane = iif(lane IN ({SOLO}, {LINES + SOLO}), {SOLO}, {NORMAL})
        + iif({_SAME_PART} IS NULL, 0, {LINES}), part = {_SAME_PART}, due = {_DUE},
    guarded = max(guarded, excluded.guarded),
    stray = 0, stray_reason = NULL, run_at = excluded.run_at, timeout = excluded.timeout, payload = excluded.payload,
    digest = excluded.digest, meta = excluded.meta"""
_ADD_STEPS = _ADD_JOBS.replace("lane)", "lane, flow, step, waits)")
_ADD_FLOWS = """INSERT INTO taskharbor_flow (
    id, name, meta, state, reason, enqueued_at, retain, absorbing, on_failure) VALUES """

_blob_of = msgspec.msgpack.Encoder().encode


def job_enqueue(step: Step, request: JobEnqueue) -> Routine[Sequence[Enqueued]]:
    """Store jobs and flows and return one answer each: for the jobs in order, then for the flows."""
    jobs, flows = request.jobs, request.flows
    wanting = jobs
    found = yield from known_ids([job.id for job in jobs])
    if flows:
        wanting = [*jobs, *(job for flow in flows for job in flow.keyed)]
        ids = [flow.id for flow in flows]
        found |= yield from known_ids(ids)
        flows_found = read_json((yield Query(_KNOWN_FLOWS, (json_text(ids),))), TEXTS)
        found.update(flows_found)
    holders = yield from key_holders(wanting, step.now)
    answers, new, new_flows, replaced, _ = admit(
        jobs,
        flows=flows,
        known=found,
        holders=holders,
        all_or_none=request.all_or_none,
        now=from_micros(step.now),
    )
    if replaced:
        since = {one.job_id: one.enqueued_at for one in holders.values() if one.enqueued_at is not None}
        yield from insert(list(replaced.values()), step, in_place_of=since)
    yield from insert(new, step)
    if new_flows:
        yield from _insert_flows(new_flows, step)
    return answers


def known_ids(ids: Sequence[str]) -> Routine[set[str]]:
    """Return which of these ids are stored already."""
    found = read_json((yield Query(_KNOWN, (json_text(ids),))), TEXTS)
    return set(found)


def _insert_flows(flows: Sequence[NewFlow], step: Step) -> Routine[None]:
    """Store flows, of whose steps one part at a time is read."""
    retains = dict.fromkeys((flow.id for flow in flows), DEFAULT_RETAIN)
    steps = chain.from_iterable(flow.steps for flow in flows)
    while part := list(islice(steps, _PART)):
        yield from insert(part, step)
        retains.update((job.id, job.retain) for job in part if job.id in retains)
    rows: list[Cell] = []
    for flow in flows:
        rows += (
            flow.id,
            flow.name,
            json_text(flow.meta),
            FlowState.RUNNING.value,
            "",
            step.now,
            duration_micros(retains[flow.id]),
            int(flow.absorbing),
            None if flow.on_failure is None else _blob_of(flow.on_failure),
        )
    yield from insert_many(_ADD_FLOWS, rows, _FLOW_CELLS)


def insert(
    jobs: Sequence[NewJob], step: Step, in_place_of: Mapping[str, datetime] | None = None
) -> Routine[None]:
    """Store jobs, steps among them, of which none is stored yet; their keys are theirs from now on, whoever had them.

    Or those that take the place of others, which have their ids and were enqueued at these times.
    """
    now, number_of = step.now, step.book.number
    options: dict[int, tuple[int, int, str]] = {}
    keys: list[Cell] = []
    rows: list[Cell] = []
    steps: list[Cell] = []
    for job in jobs:
        number, text, retain = number_of(job)
        if number not in options:
            options[number] = (number, retain, text)
        key = job.key
        if key is not None:
            keys += (job.task, key, job.id, job.digest, duration_micros(job.key_ttl))
        run_at = due = now
        if in_place_of is not None:
            times = replacement_times(job, enqueued_at=in_place_of[job.id], now=from_micros(now))
            run_at, due = micros(times[0]), micros(times[1])
        elif job.run_at is not None or job.run_in is not None:
            run_at = _run_at(job, now)
            due = max(run_at, now)
        row = (
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
            job.partition,
            NORMAL if job.partition is None else LINES + NORMAL,
        )
        if job.step is None:
            rows += row
        else:
            steps += (*row[:-1], *_step_cells(job, job.step))
    if options:
        yield Query(_ADD_OPTIONS, (json_text(list(options.values())),))
    yield from insert_many(_ADD_KEYS, keys, _KEY_CELLS)
    yield from insert_many(_ADD_JOBS, rows, _JOB_CELLS, "" if in_place_of is None else _IN_PLACE)
    if steps:
        yield from insert_many(_ADD_STEPS, steps, _STEP_CELLS)
        yield from add_inputs(_given(jobs))
    step.wakes.queues.update(job.queue for job in jobs)


def _step_cells(job: NewJob, step: StepWords) -> tuple[Cell, ...]:
    """Return a step's lane, and the cells that other jobs have not."""
    delay = duration_micros(job.run_in) if step.waits and job.run_in is not None else None
    text = json_text((step.edges, step.absorbers, step.holes, delay))
    ready = NORMAL if job.partition is None else LINES + NORMAL
    return WAITING if step.waits else ready, step.flow or None, text, step.waits


def _given(jobs: Iterable[NewJob]) -> Iterable[tuple[Place, Input]]:
    """Yield what steps are given from the start."""
    for job in jobs:
        if job.step is not None:
            for one in job.step.inputs:
                yield Place(job.id, one.slot, one.index), one


def insert_many(insert: str, cells: Sequence[Cell], width: int, conflict: str = "") -> Routine[None]:
    """Insert rows of so many cells, many by one statement, in few sizes, so that each is prepared once."""
    row = f"({', '.join('?' * width)})"
    begin = 0
    for size in _SIZES:
        sql = insert + ", ".join([row] * size) + conflict
        while len(cells) - begin >= size * width:
            end = begin + size * width
            yield Query(sql, cells[begin:end])
            begin = end


def _run_at(job: NewJob, now: int) -> int:
    if job.run_in is not None and not (job.step is not None and job.step.waits):
        return now + duration_micros(job.run_in)
    return now if job.run_at is None else micros(job.run_at)
