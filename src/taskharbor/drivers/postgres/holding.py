"""Who holds idempotency keys, with all that a job that wants one may look at (rule 20)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from taskharbor.clock import from_micros
from taskharbor.driver import Holder
from taskharbor.drivers.postgres.routine import Query, Routine, Row, plain_array, text_array
from taskharbor.drivers.postgres.rows import WAITING, micros_of
from taskharbor.drivers.postgres.step import Step
from taskharbor.drivers.postgres.stray import parked_strays
from taskharbor.job import JobState

Name = tuple[str, str]
"""A task and a key."""

# Looked up one by one, whatever the planner believes of the tables. A key and the job that has it are seen at one
# instant; a job that is not there has ended.
_HELD = f"""WITH clock AS MATERIALIZED (SELECT coalesce($1::text::timestamptz, clock_timestamp()) AS now)
SELECT {micros_of("c.now")}, h.* FROM clock c LEFT JOIN LATERAL (
    SELECT k.task, k.name, k.job_id::text, k.digest, {micros_of("k.expires_at")} AS until, j.id IS NOT NULL AS lives,
        CASE WHEN j.token IS NOT NULL THEN 'running' WHEN j.lane = {WAITING} THEN 'waiting' WHEN j.due <= c.now
            THEN 'ready' WHEN j.attempt > 0 THEN 'retrying' ELSE 'scheduled' END AS state,
        j.stray, {micros_of("j.enqueued_at")} AS enqueued_at, j.waits IS NOT NULL AS step, j.attempt > 0 AS tried
    FROM unnest($2::text::text[], $3::text::text[]) w(task, name)
    CROSS JOIN LATERAL (SELECT * FROM taskharbor.key a WHERE a.task = w.task AND a.name = w.name
        AND (a.expires_at IS NULL OR a.expires_at > c.now) LIMIT 1) k
    LEFT JOIN LATERAL (SELECT * FROM taskharbor.job b WHERE b.id = k.job_id LIMIT 1) j ON true) h ON true"""
_ENDED = f"""SELECT h.id::text, h.state, {micros_of("h.enqueued_at")}, h.waits IS NOT NULL
    FROM taskharbor.history h WHERE h.id = ANY ($1::text::uuid[])"""
_MOVING = frozenset({JobState.SCHEDULED, JobState.READY, JobState.RETRYING})
"""States that a stray is not in where nobody could take it: it is parked."""


class Held(NamedTuple):
    """Who holds some keys at one instant."""

    now: datetime
    holders: dict[Name, Holder]
    until: dict[Name, int | None]
    """Until when a key is held by a job that has ended, in microseconds since 1970; None where it lives."""


def held(step: Step, names: Iterable[Name]) -> Routine[Held]:
    """Return who holds these keys."""
    tasks, keys = zip(*names, strict=True)
    rows = yield Query(_HELD, (step.now, text_array(tasks), text_array(keys)))
    now = from_micros(rows[0][0])
    found = [row[1:] for row in rows if row[1] is not None]
    ended: dict[str, Row] = {}
    gone = [row[2] for row in found if not row[5]]
    if gone:
        ended = {row[0]: row for row in (yield Query(_ENDED, (plain_array(gone),)))}
    strayed = any(row[5] and row[7] for row in found)
    parked = (yield from parked_strays(step)) if strayed else set[int]()
    holders = {
        (row[0], row[1]): _living(row, parked) if row[5] else _ended(row, ended.get(row[2])) for row in found
    }
    return Held(now, holders, {(row[0], row[1]): row[4] for row in found})


def _living(row: Sequence[object], parked: set[int]) -> Holder:
    _, _, job_id, digest, _, _, words, stray, enqueued_at, is_step, tried = row
    state = JobState(str(words))
    if stray in parked and state in _MOVING:
        state = JobState.PARKED
    at = from_micros(int(str(enqueued_at)))
    return Holder(str(job_id), bytes.fromhex(str(digest)), state, at, step=bool(is_step), tried=bool(tried))


def _ended(row: Sequence[object], record: Row | None) -> Holder:
    job_id, digest = str(row[2]), bytes.fromhex(str(row[3]))
    if record is None:
        return Holder(job_id, digest)
    _, state, enqueued_at, is_step = record
    return Holder(job_id, digest, JobState(state), from_micros(enqueued_at), step=is_step)
