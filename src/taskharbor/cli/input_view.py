"""What earlier steps gave a step, as it is shown with the job: which arguments, by which steps, and what is to come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import msgspec

from taskharbor.cli.readable import unreadable, untyped
from taskharbor.harbor import Harbor
from taskharbor.job import JobRecord, JobState
from taskharbor.step import Edge, Hole, Input

MANY = 10
"""So many elements of one list are told one by one; the others are counted."""
NEAR = 5_000
"""So many steps of a flow, on either side of a step, are looked through for those that gave it something."""
_PAGE = 500


class _Source(msgspec.Struct, frozen=True):
    """A step that gave something, or will."""

    id: str
    task: str
    state: JobState


_Place = tuple[int, int]
"""A slot, and an index in it."""


def told_inputs(harbor: Harbor, record: JobRecord) -> Iterator[str]:
    """Yield the lines that tell what earlier steps gave a job, and what they are to give."""
    if record.step is None or not record.step.holes:
        return
    sources = _sources(harbor, record)
    for hole in record.step.holes:
        parts = _of(record.step.inputs, hole)
        if hole.many:
            yield from _told_list(harbor, record, hole, parts, sources)
            continue
        name = f"{'argument':<12}{hole.parameter}"
        if parts:
            yield f"{name} = {_told(harbor, parts[0])}{_told_source(sources.get((hole.slot, 0)))}"
        else:
            yield f"{name}: {_told_missing(record, sources.get((hole.slot, 0)))}"


def inputs_for_programs(harbor: Harbor, record: JobRecord) -> dict[str, object]:
    """Return what earlier steps gave a job, for a line of JSON.

    `inputs` tells what has come in, `waiting_for` which arguments have not, or not all of what belongs to them; both
    name the steps that it comes from, where these are found.
    """
    if record.step is None or not record.step.holes:
        return {}
    sources = _sources(harbor, record)
    holes = {hole.slot: hole.parameter for hole in record.step.holes}
    came = [part for part in record.step.inputs if part.slot in holes]
    there = {(part.slot, part.index) for part in came}
    inputs = [
        {
            "parameter": holes[part.slot],
            "index": part.index,
            **_named(sources.get((part.slot, part.index))),
            "failed": part.failed,
            **_value(harbor, part),
        }
        for part in came
    ]
    if not record.waits:
        return {"inputs": inputs}
    awaited = [
        {"parameter": holes[slot], "index": index, **_named(source)}
        for (slot, index), source in sorted(sources.items(), key=lambda item: item[0])
        if slot in holes and (slot, index) not in there
    ]
    return {"inputs": inputs, "waiting_for": awaited}


def _told_list(
    harbor: Harbor, record: JobRecord, hole: Hole, parts: Sequence[Input], sources: Mapping[_Place, _Source]
) -> Iterator[str]:
    name = f"{'argument':<12}{hole.parameter}"
    if not parts:
        yield f"{name}: {_told_missing(record, None)}" if record.waits or _emptied(record) else f"{name} = []"
        return
    yield f"{name} = {len(parts):,} result{'s'[: len(parts) > 1]}{' so far' if record.waits else ''}"
    for part in islice(parts, MANY):
        source = _told_source(sources.get((part.slot, part.index)))
        yield f"{'':<12}  [{part.index}] {_told(harbor, part)}{source}"
    if len(parts) > MANY:
        yield f"{'':<12}  {len(parts) - MANY:,} more"


def _told_missing(record: JobRecord, source: _Source | None) -> str:
    if _emptied(record):
        return f"no longer kept{_told_source(source)}"
    if source is not None:
        return f"waiting for step {source.task} ({source.id}), {source.state}"
    return f"waiting for {record.waits:,} result{'s'[: record.waits > 1]}" if record.waits else "missing"


def _emptied(record: JobRecord) -> bool:
    return record.state in (JobState.SUCCEEDED, JobState.CANCELLED)


def _told(harbor: Harbor, part: Input) -> str:
    if part.value is None:
        return "(a result that was not kept)"
    read = untyped(harbor, part.value, part.codec)
    return bytes(read).decode() if read is not None else f"({unreadable(part.value, part.codec)})"


def _told_source(source: _Source | None) -> str:
    return "" if source is None else f"  from step {source.task} ({source.id})"


def _named(source: _Source | None) -> dict[str, object]:
    return {"from": None, "task": None} if source is None else {"from": source.id, "task": source.task}


def _value(harbor: Harbor, part: Input) -> dict[str, object]:
    if part.value is None:
        return {"value": None}
    read = untyped(harbor, part.value, part.codec)
    return {"payload": part.value, "codec": part.codec} if read is None else {"value": read}


def _of(inputs: Sequence[Input], hole: Hole) -> Sequence[Input]:
    return [part for part in inputs if part.slot == hole.slot]


def _sources(harbor: Harbor, record: JobRecord) -> Mapping[_Place, _Source]:
    """Return the steps that a step has its arguments from, as far as they are near, by the place they fill."""
    found: dict[_Place, _Source] = {}
    if record.flow is None or record.step is None:
        return found
    wanted = len(record.step.inputs) + record.waits or len(record.step.holes)
    # Whoever makes a flow gives the earlier steps the later ids, but for what an `each` made of it since.
    for newest_first in (False, True):
        after, left = record.id, NEAR
        while left > 0 and len(found) < wanted:
            page = harbor.jobs.find(flow=record.flow, after=after, limit=_PAGE, newest_first=newest_first)
            for step in page:
                source = _Source(step.id, step.task, step.state)
                found.update({_place(edge): source for edge in step.edges if edge.job_id == record.id})
            if len(page) < _PAGE:
                break
            after, left = page[-1].id, left - len(page)
    return found


def _place(edge: Edge) -> _Place:
    return edge.slot, edge.index
