"""What came in for steps: written as results are handed on, read when a step is delivered, removed when it has ended.

A step's own words are JSON in one column of its job: `[edges, absorbers, holes, run_in]`, that last one in microseconds
and only where it counts from the step's last input.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from taskharbor.drivers.sqlite.routine import Cell, Query, Routine
from taskharbor.drivers.sqlite.rows import BATCH_BYTES, INLINE_BYTES, Packed, json_text
from taskharbor.step import DeliveredStep, Hole, Input

_ROWS = 5000

_STEPS = """SELECT json_group_array(json_array(j.id, coalesce(j.flow, ''), j.step -> 2))
    FROM json_each(?) e CROSS JOIN taskharbor_job j ON j.id = e.value WHERE j.step IS NOT NULL"""
_THERE = """SELECT json_group_array(json_array(i.job_id, i.slot, i.idx, i.codec, length(i.value), i.failed))
    FROM json_each(?) e CROSS JOIN taskharbor_input i ON i.job_id = e.value"""
_VALUES = """SELECT CAST(group_concat(i.value, '') AS BLOB) FROM json_each(?) e CROSS JOIN taskharbor_input i
    ON i.job_id = e.value ->> 0 AND i.slot = e.value ->> 1 AND i.idx = e.value ->> 2"""
_VALUE = "SELECT value FROM taskharbor_input WHERE job_id = ? AND slot = ? AND idx = ?"
# [job, slot, index, codec, where in the blob the value begins, its size, failed]
_ADD = """INSERT INTO taskharbor_input (job_id, slot, idx, codec, value, failed)
    SELECT e.value ->> 0, e.value ->> 1, e.value ->> 2, e.value ->> 3,
        substr(?2, e.value ->> 4, e.value ->> 5), e.value ->> 6 FROM json_each(?1) e
    WHERE true ON CONFLICT DO NOTHING"""
_REMOVE = "DELETE FROM taskharbor_input WHERE job_id IN (SELECT value FROM json_each(?))"


class Place(NamedTuple):
    """Where an input belongs: its key in the table. `place` is its index."""

    job_id: str
    slot: int
    place: int


class _Told(msgspec.Struct, array_like=True, frozen=True):
    """A step as `_STEPS` gives it."""

    id: str
    flow: str
    holes: tuple[Hole, ...]


class _There(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An input as `_THERE` gives it."""

    job_id: str
    slot: int
    index: int
    codec: str
    size: int | None
    failed: int


_told = msgspec.json.Decoder(list[_Told])
_holes = msgspec.json.Decoder(tuple[Hole, ...])
_all_there = msgspec.json.Decoder(list[_There])


def delivered_steps(ids: Sequence[str]) -> Routine[dict[str, DeliveredStep]]:
    """Return what a worker needs of those of these live jobs that are steps."""
    ((found,),) = yield Query(_STEPS, (json_text(ids),))
    return (yield from _with_inputs([step for step in _told.decode(found) if step.flow or step.holes]))


def came_in(steps: Iterable[tuple[str, str | None, str | None]]) -> Routine[dict[str, DeliveredStep]]:
    """Return what has come in for those of these jobs that have holes; each with its flow, and its holes as stored."""
    told = [_Told(job_id, flow or "", _holes.decode(holes)) for job_id, flow, holes in steps if holes]
    return (yield from _with_inputs([step for step in told if step.holes]))


def _with_inputs(steps: Sequence[_Told]) -> Routine[dict[str, DeliveredStep]]:
    inputs: dict[str, list[Input]] = {}
    with_holes = [step.id for step in steps if step.holes]
    if with_holes:
        inputs = yield from _inputs(with_holes)
    return {step.id: DeliveredStep(step.flow, step.holes, tuple(inputs.get(step.id, ()))) for step in steps}


def _inputs(ids: Sequence[str]) -> Routine[dict[str, list[Input]]]:
    """Return what came in for these jobs, in order of slot and index."""
    ((found,),) = yield Query(_THERE, (json_text(ids),))
    there = _all_there.decode(found)
    values = yield from _values(there)
    inputs: dict[str, list[Input]] = {}
    for one, value in zip(there, values, strict=True):
        inputs.setdefault(one.job_id, []).append(
            Input(one.slot, one.index, one.codec, value, bool(one.failed))
        )
    for of_one in inputs.values():
        of_one.sort(key=lambda one: (one.slot, one.index))
    return inputs


def _values(there: Sequence[_There]) -> Routine[list[bytes | None]]:
    """Return the values of these inputs: small ones read many at a time, as one blob, large ones one by one."""
    values: list[bytes | None] = [None] * len(there)
    together: list[int] = []
    size = 0
    for number, one in enumerate(there):
        if one.size is None:
            continue
        if one.size > INLINE_BYTES:
            ((values[number],),) = yield Query(_VALUE, (one.job_id, one.slot, one.index))
            continue
        if size + one.size > BATCH_BYTES:
            yield from _fill(values, there, together)
            together, size = [], 0
        together.append(number)
        size += one.size
    if together:
        yield from _fill(values, there, together)
    return values


def _fill(values: list[bytes | None], there: Sequence[_There], numbers: Sequence[int]) -> Routine[None]:
    places = [(there[number].job_id, there[number].slot, there[number].index) for number in numbers]
    ((blob,),) = yield Query(_VALUES, (json_text(places),))
    data: bytes = blob or b""
    begin = 0
    for number in numbers:
        end = begin + (there[number].size or 0)
        values[number] = data[begin:end]
        begin = end


def add_inputs(inputs: Iterable[tuple[Place, Input]]) -> Routine[None]:
    """Write inputs; the first one of each place counts."""
    for rows, blob in _packed(inputs):
        yield Query(_ADD, (json_text(rows), blob))


def _packed(inputs: Iterable[tuple[Place, Input]]) -> Iterator[tuple[list[tuple[Cell, ...]], bytes]]:
    """Yield rows, each lot with the blob in which their values lie. One that goes to many lies there once."""
    rows: list[tuple[Cell, ...]] = []
    packed = Packed()
    lie: dict[int, tuple[int, int]] = {}
    for place, one in inputs:
        value = one.value
        if rows and (len(rows) >= _ROWS or packed.size + len(value or b"") > BATCH_BYTES):
            yield rows, packed.blob()
            rows, packed, lie = [], Packed(), {}
        where: tuple[int | None, int | None] = None, None
        if value is not None:
            known = lie.get(id(value))  # of values alive all the while
            where = known if known is not None else lie.setdefault(id(value), packed.add(value))
        rows.append((*place, one.codec, *where, int(one.failed)))
    if rows:
        yield rows, packed.blob()


def remove_inputs(ids: Sequence[str]) -> Routine[None]:
    """Remove what came in for these jobs."""
    yield Query(_REMOVE, (json_text(ids),))
