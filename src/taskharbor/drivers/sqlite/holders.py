"""Who holds keys, and as far as a rule looks at it, in which state they are."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from taskharbor.clock import from_micros
from taskharbor.driver import Holder, looks_at_holder
from taskharbor.drivers.sqlite.routine import Cell, Query, Routine
from taskharbor.drivers.sqlite.rows import json_text, read_json
from taskharbor.drivers.sqlite.shut import Shut
from taskharbor.drivers.sqlite.states import LIST, LIVE_STATE, positional
from taskharbor.drivers.sqlite.upkeep import parked_strays
from taskharbor.job import JobState, NewJob


class _Held(msgspec.Struct, array_like=True, frozen=True):
    """A key, and who has it."""

    task: str
    name: str
    job_id: str
    digest: str


class _Seen(msgspec.Struct, array_like=True, frozen=True):
    """A job, as a rule looks at it."""

    id: str
    state: JobState
    enqueued_at: int
    step: bool
    tried: bool


_held = msgspec.json.Decoder(list[_Held])
_seen = msgspec.json.Decoder(list[_Seen], strict=False)

_HELD = """SELECT json_group_array(json_array(k.task, k.name, k.job_id, hex(k.digest)))
    FROM json_each(?1) e CROSS JOIN taskharbor_key k ON k.task = e.value ->> 0 AND k.name = e.value ->> 1
    WHERE k.expires_at IS NULL OR k.expires_at > ?2"""
_COLUMNS = "enqueued_at, step IS NOT NULL AS stepped, attempt > 0 AS tried"
_THESE = "WHERE id IN " + LIST.format("ids")
_SEEN = f"""SELECT json_group_array(json_array(id, state, enqueued_at, stepped, tried)) FROM (
    SELECT id, {LIVE_STATE} AS state, {_COLUMNS} FROM taskharbor_job {_THESE}
    UNION ALL SELECT id, state, {_COLUMNS} FROM taskharbor_history {_THESE}
    UNION ALL SELECT id, 'dead', {_COLUMNS} FROM taskharbor_dead {_THESE})"""  # noqa: S608 - our own constants


def key_holders(jobs: Sequence[NewJob], now: int) -> Routine[dict[tuple[str, str], Holder]]:
    """Return who holds the keys that these jobs want, by task and key."""
    wanted = [(job.task, job.key) for job in jobs if job.key is not None]
    if not wanted:
        return {}
    held = read_json((yield Query(_HELD, (json_text(wanted), now))), _held)
    if not held:
        return {}
    looked_at = {(job.task, job.key) for job in jobs if looks_at_holder(job)}
    seen = yield from _look([key.job_id for key in held if (key.task, key.name) in looked_at], now)
    return {(key.task, key.name): _holder(key, seen.get(key.job_id)) for key in held}


def _look(ids: Sequence[str], now: int) -> Routine[dict[str, _Seen]]:
    if not ids:
        return {}
    shut = Shut((yield from parked_strays(now)), None)  # limits and holds have no part in this
    values: dict[str, Cell] = {"now": now, "ids": json_text(ids), **shut.values()}
    found = read_json((yield positional(_SEEN, values)), _seen)
    return {one.id: one for one in found}


def _holder(key: _Held, seen: _Seen | None) -> Holder:
    digest = bytes.fromhex(key.digest)
    if seen is None:
        return Holder(key.job_id, digest)
    return Holder(key.job_id, digest, seen.state, from_micros(seen.enqueued_at), seen.step, seen.tried)
