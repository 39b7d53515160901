"""A stored job's arguments, read back: those it was called with, and those that earlier steps have given it since."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from taskharbor.codec import Codec, CodecBook, CodecError
from taskharbor.errors import PayloadError
from taskharbor.job import JobRecord, JobState
from taskharbor.step import DeliveredStep, Hole
from taskharbor.task.definition import TaskDefinition
from taskharbor.task.filling import Filling
from taskharbor.task.upgrading import needs_upgrade, plain_arguments, upgraded

_EMPTIED = frozenset({JobState.SUCCEEDED, JobState.CANCELLED})
"""States in which what came in is not kept any more."""


def stored_arguments(
    definition: TaskDefinition, record: JobRecord, codec: Codec, codecs: Callable[[], CodecBook]
) -> dict[str, object]:
    """Return arguments by parameter name, without those that are not there.

    Args:
        definition: the job's task.
        record: the job, looked up by id: else it does not tell what came in.
        codec: what the payload is written with.
        codecs: returns what results of earlier steps may be written with.

    Raises:
        PayloadError: what is there does not fit the signature; or it has to be upgraded, and is not there whole.
    """
    try:
        return _as_they_are(definition, record, codec, codecs)
    except PayloadError:
        if not needs_upgrade(definition, record.fingerprint):
            raise
    return _upgraded(definition, record, codec, codecs)


def _as_they_are(
    definition: TaskDefinition, record: JobRecord, codec: Codec, codecs: Callable[[], CodecBook]
) -> dict[str, object]:
    step = record.step
    if step is None or not step.holes:
        return definition.read_arguments(record.payload, codec)
    there = DeliveredStep(step.flow, tuple(_filled(step, record)), step.inputs)
    try:
        given = definition.partial(frozenset(hole.parameter for hole in step.holes)).decoder(codec)
        return {
            **msgspec.structs.asdict(given(record.payload)),
            **Filling(codecs()).values(there, definition.parameter_type),
        }
    except CodecError as error:
        raise definition.unfit("arguments", error) from error


def _upgraded(
    definition: TaskDefinition, record: JobRecord, codec: Codec, codecs: Callable[[], CodecBook]
) -> dict[str, object]:
    try:
        values = plain_arguments(record.payload, codec)
        step = record.step
        if step is not None and step.holes:
            there = DeliveredStep(step.flow, tuple(_filled(step, record)), step.inputs)
            if len(there.holes) < len(step.holes):
                raise CodecError(
                    "it was stored under another signature, and the task's upgrade takes all arguments, some of which "
                    "come from steps of its flow and are not there"
                )
            values |= Filling(codecs()).values(there, lambda _: Any)
        return msgspec.structs.asdict(upgraded(definition, values, codec))
    except CodecError as error:
        raise definition.unfit("arguments", error) from error


def _filled(step: DeliveredStep, record: JobRecord) -> Iterator[Hole]:
    """Yield the holes whose values are there whole: while more is to come, nobody knows whether a list is."""
    if record.state in _EMPTIED:
        return
    for hole in step.holes:
        parts = [part for part in step.inputs if part.slot == hole.slot]
        whole = not record.waits if hole.many else bool(parts)
        if whole and all(part.value is not None for part in parts):
            yield hole
