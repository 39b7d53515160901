"""job_enqueue with flows: keys first, for the whole request, until it is decided what is stored; then the rows.

The steps of flows are read and stored in parts, whichever flow they are of: a flow may be larger than memory is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import accumulate, islice
from typing import TypeAlias

import msgspec

from taskharbor.clock import duration_micros
from taskharbor.driver import Admission, Enqueued, EnqueueStatus, Holder, JobEnqueue, admit
from taskharbor.drivers.postgres.batches import ROWS, digest_text
from taskharbor.drivers.postgres.routine import (
    Query,
    Routine,
    nullable_array,
    plain_array,
    text_array,
)
from taskharbor.drivers.postgres.rows import CLOCK, json_text
from taskharbor.drivers.postgres.step import Step
from taskharbor.drivers.postgres.storing import UNTAKEN, add
from taskharbor.flow import NewFlow
from taskharbor.job import NewJob

HOLDERS = """SELECT k.task, k.name, k.job_id::text, k.digest
    FROM unnest($2::text::text[], $3::text::text[]) w(task, name) JOIN taskharbor.key k USING (task, name)
    WHERE k.expires_at IS NULL OR k.expires_at > coalesce($1::text::timestamptz, clock_timestamp())"""
STORED = """SELECT id::text FROM taskharbor.job WHERE id = ANY ($1::text::uuid[])
    UNION ALL SELECT id::text FROM taskharbor.history WHERE id = ANY ($1::text::uuid[])"""
TAKE_BACK_KEYS = """DELETE FROM taskharbor.key k USING unnest($2::text::text[], $3::text::text[]) w(task, name)
    WHERE k.task = w.task AND k.name = w.name AND k.job_id = ANY ($1::text::uuid[])"""
_STORED_FLOWS = "SELECT id::text FROM taskharbor.flow WHERE id = ANY ($1::text::uuid[])"
_TAKE = f"""WITH {CLOCK}
INSERT INTO taskharbor.key AS k (task, name, job_id, digest, ttl)
    SELECT s.task, s.key, s.id, s.digest, s.ttl FROM unnest($2::text::text[], $3::text::text[], $4::text::uuid[],
        $5::text::text[], $6::text::bigint[]) s(task, key, id, digest, ttl), clock c
    WHERE c.now IS NOT NULL{{untaken}} ORDER BY s.task, s.key
    ON CONFLICT (task, name) DO UPDATE SET job_id = excluded.job_id, digest = excluded.digest, ttl = excluded.ttl,
        expires_at = NULL WHERE k.expires_at <= (SELECT now FROM clock)
    RETURNING k.task, k.name"""
_ADD_FLOWS = f"""WITH {CLOCK}
INSERT INTO taskharbor.flow (id, name, meta, retain, absorbing, on_failure, state, enqueued_at)
    SELECT s.id, s.name, s.meta, s.retain, s.absorbing, substring($9::bytea FROM s.start FOR s.size), 'running', c.now
    FROM clock c, unnest($2::text::uuid[], $3::text::text[], $4::text::json[], $5::text::bigint[],
        $6::text::boolean[], $7::text::integer[], $8::text::integer[])
        s(id, name, meta, retain, absorbing, start, size)"""

Name: TypeAlias = tuple[str, str]
"""A task and a key."""

_CREATED = EnqueueStatus.CREATED
_encode = msgspec.msgpack.Encoder().encode


def enqueue_flows(step: Step, request: JobEnqueue) -> Routine[list[Enqueued]]:
    """Store jobs and flows and return one answer each: for the jobs in order, then for the flows."""
    found = yield from _admit(step, request)
    yield from store(step, found)
    return found.answers


def store(step: Step, found: Admission) -> Routine[None]:
    """Store what has been admitted, and has its keys."""
    if found.new:
        yield from add(step, found.new, keyed=False, held=True)
        step.wakes.queues.update({job.queue for job in found.new})
    if found.flows:
        yield from _store(step, found.flows)


def _admit(step: Step, request: JobEnqueue) -> Routine[Admission]:
    """Decide for a request, and take the keys of what is to be stored, and no others."""
    jobs, flows = request.jobs, request.flows
    asked = [*(job for job in jobs if job.key is not None), *(job for flow in flows for job in flow.keyed)]
    names = {_name(job) for job in asked}
    known = yield from known_ids(jobs, flows)
    mine: dict[Name, NewJob] = {}
    holders: Mapping[Name, Holder] = {}
    while True:
        found = admit(jobs, known=known, holders=holders, all_or_none=request.all_or_none, flows=flows)
        wanted = keys_of(found)
        lost = {name: job for name, job in mine.items() if name not in wanted or wanted[name].id != job.id}
        if lost:
            yield Query(TAKE_BACK_KEYS, (plain_array([job.id for job in lost.values()]), *name_cells(lost)))
            mine = {name: job for name, job in mine.items() if name not in lost}
        missing = {name: job for name, job in wanted.items() if name not in mine}
        if not missing:
            return found
        taken = yield from take_keys(step, missing)
        mine.update((name, missing[name]) for name in taken)
        if len(taken) < len(missing):
            holders = yield from _holders(step, names.difference(mine))


def known_ids(jobs: Sequence[NewJob], flows: Sequence[NewFlow]) -> Routine[set[str]]:
    """Return the ids among these that are stored already."""
    known: set[str] = set()
    if jobs:
        known.update([row[0] for row in (yield Query(STORED, (plain_array([job.id for job in jobs]),)))])
    if flows:
        rows = yield Query(_STORED_FLOWS, (plain_array([flow.id for flow in flows]),))
        known.update([row[0] for row in rows])
    return known


def keys_of(found: Admission) -> dict[Name, NewJob]:
    """Return the keys of what is to be stored, each with who is to have it."""
    keyed = [job for job in found.new if job.key is not None]
    return {_name(job): job for job in [*keyed, *(job for flow in found.flows for job in flow.keyed)]}


def take_keys(step: Step, missing: Mapping[Name, NewJob]) -> Routine[list[Name]]:
    """Take those keys that are free, and return them."""
    jobs = missing.values()
    cells = (
        step.now,
        *name_cells(missing),
        plain_array([job.id for job in jobs]),
        plain_array([digest_text(job) for job in jobs]),
        plain_array([duration_micros(job.key_ttl) for job in jobs]),
    )
    rows = yield Query(_TAKE.replace("{untaken}", UNTAKEN if step.joined else ""), cells)
    return [(task, name) for task, name in rows]


def _holders(step: Step, names: Iterable[Name]) -> Routine[dict[Name, Holder]]:
    """Return who holds keys."""
    found = yield Query(HOLDERS, (step.now, *name_cells(names)))
    return {(task, name): Holder(job_id, bytes.fromhex(digest)) for task, name, job_id, digest in found}


def _name(job: NewJob) -> Name:
    return job.task, job.key or ""


def name_cells(names: Iterable[Name]) -> tuple[str, str]:
    """Return tasks and keys as two parameters."""
    tasks, keys = zip(*names, strict=True)
    return text_array(tasks), text_array(keys)


def _store(step: Step, flows: Sequence[NewFlow]) -> Routine[None]:
    """Store flows that have been admitted."""
    retains = dict.fromkeys([flow.id for flow in flows], timedelta(0))
    held = any(flow.keyed for flow in flows)
    steps = _steps(flows)
    while part := list(islice(steps, ROWS)):
        created = yield from add(step, part, keyed=False, held=held)
        for job in part:
            if job.id in retains:
                retains[job.id] = job.retain
            if job.id in created and not (job.step and job.step.waits):
                step.wakes.queues.add(job.queue)
    blobs = [None if flow.on_failure is None else _encode(flow.on_failure) for flow in flows]
    sizes = [None if blob is None else len(blob) for blob in blobs]
    yield Query(
        _ADD_FLOWS,
        (
            step.now,
            plain_array(retains),
            text_array([flow.name for flow in flows]),
            text_array([json_text(flow.meta) if flow.meta else None for flow in flows]),
            plain_array([duration_micros(retain) for retain in retains.values()]),
            plain_array([flow.absorbing for flow in flows]),
            plain_array(accumulate([size or 0 for size in sizes[:-1]], initial=1)),
            nullable_array(sizes),
            b"".join([blob for blob in blobs if blob]),
        ),
    )


def _steps(flows: Sequence[NewFlow]) -> Iterator[NewJob]:
    for flow in flows:
        yield from flow.steps
