"""What came in for steps that were reserved or are looked at: asked for only where some of them have holes to fill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from taskharbor.drivers.postgres.routine import Query, Routine, Row, plain_array
from taskharbor.drivers.postgres.rows import TAKEN
from taskharbor.step import DeliveredStep, Hole, Input

_INPUTS = """SELECT i.job_id::text, i.slot, i.idx, i.codec, i.value, i.failed FROM taskharbor.input i
    WHERE i.job_id = ANY ($1::text::uuid[]) ORDER BY i.job_id, i.slot, i.idx"""
_decode = msgspec.json.Decoder(tuple[str | None, tuple[Hole, ...] | None]).decode
_holes = msgspec.json.Decoder(tuple[Hole, ...]).decode


def delivered_steps(rows: Sequence[Row]) -> Routine[dict[str, DeliveredStep]]:
    """Return what is to be delivered with those rows of `TAKEN_COLUMNS` that are steps, by job id."""
    told = [(row[TAKEN.id], row[TAKEN.step]) for row in rows if row[TAKEN.step] is not None]
    if not told:
        return {}
    return (yield from _with_inputs({job_id: _decode(words) for job_id, words in told}))


def came_in(holes: Mapping[str, tuple[str | None, str]]) -> Routine[dict[str, DeliveredStep]]:
    """Return what has come in for jobs with holes, by job id; given with their flow, and their holes as stored."""
    if not holes:
        return {}
    return (yield from _with_inputs({job_id: (flow, _holes(text)) for job_id, (flow, text) in holes.items()}))


def _with_inputs(
    steps: Mapping[str, tuple[str | None, tuple[Hole, ...] | None]],
) -> Routine[dict[str, DeliveredStep]]:
    inputs: dict[str, list[Input]] = {}
    hollow = [job_id for job_id, (_, holes) in steps.items() if holes]
    if hollow:
        for job_id, slot, index, codec, value, failed in (yield Query(_INPUTS, (plain_array(hollow),))):
            inputs.setdefault(job_id, []).append(Input(slot, index, codec, value, failed))
    return {
        job_id: DeliveredStep(flow or "", holes or (), tuple(inputs.get(job_id, ())))
        for job_id, (flow, holes) in steps.items()
        if flow or holes
    }
