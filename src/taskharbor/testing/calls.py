"""What was enqueued, read back from the store with its arguments decoded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Generic, cast

import msgspec
from typing_extensions import TypeVar

from taskharbor.call import JobHandle
from taskharbor.codec import Codec
from taskharbor.errors import PayloadError, UnknownTaskError
from taskharbor.job import JobRecord, JobState
from taskharbor.task import TaskDefinition
from taskharbor.testing.inline import InlineHarbor

R_co = TypeVar("R_co", covariant=True, default=object)

_SHOWN = 80
"""Characters of an argument that a message shows."""


class EnqueuedCall(msgspec.Struct, Generic[R_co], frozen=True, kw_only=True):
    """A call as the store has it, in whatever state its job is by now."""

    task: str
    """The task's name, as stored."""
    arguments: Mapping[str, object]
    """By parameter name, decoded as the task declares them; those of a flow's step as far as they are there."""
    queue: str
    priority: int
    run_at: datetime
    """When it may start at the earliest."""
    enqueued_at: datetime
    key: str | None
    meta: Mapping[str, str]
    state: JobState
    handle: JobHandle[R_co]

    def __str__(self) -> str:
        """Return it as one would write the call."""
        return f"{self.task}({told_arguments(self.arguments)})"


def calls_of(harbor: InlineHarbor, definition: TaskDefinition) -> Iterator[tuple[JobRecord, EnqueuedCall]]:
    """Yield the calls of a task, in the order in which they were enqueued.

    Raises:
        PayloadError: what is stored does not fit today's signature.
    """
    for record in harbor.records():
        if definition.answers_to(record.task):
            yield record, _call(harbor, record, definition, arguments_in(harbor, record, definition))


def calls_in(harbor: InlineHarbor) -> Iterator[tuple[JobRecord, EnqueuedCall]]:
    """Yield every call, in the order in which they were enqueued; of what cannot be read, without its arguments."""
    for record in harbor.records():
        try:
            definition = harbor.task(record.task)
            arguments = arguments_in(harbor, record, definition)
        except (UnknownTaskError, PayloadError):
            continue
        yield record, _call(harbor, record, definition, arguments)


def arguments_in(harbor: InlineHarbor, record: JobRecord, definition: TaskDefinition) -> Mapping[str, object]:
    """Return the arguments of a job. The task need not be in the harbor's registry."""
    try:
        harbor.registry.get(record.task)
    except UnknownTaskError:
        return definition.read_arguments(record.payload, codec_of(harbor, definition))
    return harbor.arguments_of(record)


def codec_of(harbor: InlineHarbor, definition: TaskDefinition) -> Codec:
    """Return what payloads of a task are written with."""
    return harbor.codec if definition.codec is None else definition.codec


def told_arguments(arguments: Mapping[str, object]) -> str:
    """Return arguments as one would write them, long ones cut."""
    return ", ".join(f"{name}={told_value(value)}" for name, value in arguments.items())


def told_value(value: object) -> str:
    """Return a value as one would write it, cut if long."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _call(
    harbor: InlineHarbor, record: JobRecord, definition: TaskDefinition, arguments: Mapping[str, object]
) -> EnqueuedCall:
    return EnqueuedCall(
        task=record.task,
        arguments=arguments,
        queue=record.queue,
        priority=record.priority,
        run_at=record.run_at,
        enqueued_at=record.enqueued_at,
        key=record.key,
        meta=record.meta,
        state=record.state,
        handle=cast("JobHandle[object]", JobHandle(harbor, definition, record.id, created=True)),
    )
