"""Whether a new version of an application can take over from an old one: its tasks, compared with those it had.

What is compared are two dumps, so the old version need not be there. What was stored by the old version, and what its
producers still send while the new one is rolled out, is the same question: does the new signature accept it?
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import TypeAlias

import msgspec

from taskharbor.errors import OptionError
from taskharbor.task.definition import TaskDefinition
from taskharbor.task.registry import Registry
from taskharbor.task.subschema import Gap, gaps
from taskharbor.task.wire_schema import JsonSchema, wire_schema

FORMAT = 1
"""Of a dump. A later version reads it, too."""

CanRead: TypeAlias = Callable[[str, str], bool]
"""Whether the new application can read what was written for a task (by its new name) in a codec (by its name)."""


class TaskSchema(msgspec.Struct, frozen=True, kw_only=True):
    """What others may rely on in one task."""

    name: str
    aliases: list[str]
    queue: str
    codec: str
    """Of its own, or the harbor's."""
    fingerprint: str
    """16 hexadecimal digits; see `TaskDefinition.fingerprint`."""
    upgrade: bool
    """It has an `upgrade=`."""
    arguments: JsonSchema
    """See `wire_schema`."""
    result: JsonSchema | None
    """None if it is not kept."""


class Dump(msgspec.Struct, frozen=True, kw_only=True):
    """All tasks of an application, sorted by name: `taskharbor schema dump`."""

    format: int = FORMAT
    tasks: list[TaskSchema]


class Level(StrEnum):
    """How bad a finding is."""

    BREAKS = "breaks"
    """Stored jobs, or those of old producers, would not run."""
    UNSURE = "unsure"
    """They might not; it cannot be told from the types."""
    WARNING = "warning"
    """No job is lost, but something else that relied on the old version may fail."""
    NOTE = "note"
    """Good to know."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One difference between the versions."""

    level: Level
    task: str
    """By its old name; by the new one if it had none."""
    path: str
    """Within the arguments, as a JSONPath such as `$.to`, or within the result (`result`, `result.id`); else ""."""
    message: str


def dump_of(registry: Registry, codec: str) -> Dump:
    """Return the dump of a registry; `codec` is the name of the harbor's."""
    return Dump(tasks=[_schema_of(definition, codec) for definition in registry])


def read_dump(data: bytes) -> Dump:
    """Return a dump from a file.

    Raises:
        OptionError: it is none, or one of a later format.
    """
    try:
        dump = msgspec.json.decode(data, type=Dump)
    except msgspec.MsgspecError as error:
        raise OptionError(f"it is no dump of tasks: {error}; `taskharbor schema dump` writes one") from error
    if dump.format != FORMAT:
        raise OptionError(f"it is a dump of format {dump.format}, and this version reads format {FORMAT}")
    return dump


def compared(old: Dump, new: Dump, can_read: CanRead) -> list[Finding]:
    """Return what differs, task by task in the order of their old names, then what is new."""
    named = {name: task for task in new.tasks for name in (task.name, *task.aliases)}
    found: list[Finding] = []
    for before in old.tasks:
        after = named.get(before.name)
        if after is None:
            found.append(_gone(before))
        else:
            found.extend(_compared(before, after, can_read))
            found.extend(_lost_aliases(before, named))
    kept = {named[task.name].name for task in old.tasks if task.name in named}
    for task in new.tasks:
        if task.name not in kept:
            message = "is new; workers of the old version leave its jobs to the new one"
            found.append(Finding(level=Level.NOTE, task=task.name, path="", message=message))
    return found


def _schema_of(definition: TaskDefinition, codec: str) -> TaskSchema:
    return TaskSchema(
        name=definition.name,
        aliases=sorted(definition.aliases),
        queue=definition.options.queue,
        codec=codec if definition.codec is None else definition.codec.name,
        fingerprint=f"{definition.fingerprint:016x}",
        upgrade=definition.upgrade is not None,
        arguments=wire_schema(definition.arguments_type),
        result=wire_schema(definition.reading.returns) if definition.keep_result else None,
    )


def _gone(task: TaskSchema) -> Finding:
    return Finding(
        level=Level.BREAKS,
        task=task.name,
        path="",
        message="is not declared any more, and no task has it in aliases=[...]; its stored jobs would be parked",
    )


def _lost_aliases(before: TaskSchema, named: dict[str, TaskSchema]) -> Iterator[Finding]:
    for alias in before.aliases:
        if alias not in named:
            message = f"no longer answers to {alias!r}; make sure that no stored job bears that name"
            yield Finding(level=Level.WARNING, task=before.name, path="", message=message)


def _compared(before: TaskSchema, after: TaskSchema, can_read: CanRead) -> Iterator[Finding]:
    def finding(level: Level, message: str, path: str = "") -> Finding:
        return Finding(level=level, task=before.name, path=path, message=message)

    if after.name != before.name:
        yield finding(Level.NOTE, f"is named {after.name!r} now, and keeps the old name as an alias")
    if not can_read(after.name, before.codec):
        yield finding(
            Level.BREAKS,
            f"was written with the codec {before.codec!r}, which is not here; pass it as Harbor(codecs=[...]) until no "
            "stored job needs it",
        )
    elif after.codec != before.codec:
        yield finding(
            Level.NOTE,
            f"is written with {after.codec} now, no longer with {before.codec}; workers of the old version that do not "
            "know it leave such jobs to the new one",
        )
    if before.upgrade and not after.upgrade:
        yield finding(
            Level.WARNING,
            "has no upgrade= any more; make sure that no job is stored that needs it, dead letters too",
        )
    yield from _arguments(before, after, finding)
    if before.result is not None and after.result is not None:
        for gap in gaps(before.result, after.result, "result"):
            yield finding(Level.WARNING, f"{gap.why}; results that are stored may not be read back", gap.path)


def _arguments(
    before: TaskSchema, after: TaskSchema, finding: Callable[[Level, str, str], Finding]
) -> Iterator[Finding]:
    refused = gaps(before.arguments, after.arguments)
    upgraded = after.upgrade and after.fingerprint != before.fingerprint
    for gap in refused:
        if upgraded:
            yield finding(Level.NOTE, f"{gap.why}; its upgrade= is given old arguments", gap.path)
        else:
            level = Level.BREAKS if gap.sure else Level.UNSURE
            yield finding(level, gap.why + _hint(gap, refused), gap.path)
    if before.fingerprint != after.fingerprint:
        if not refused:
            yield finding(Level.NOTE, "its signature has changed, and accepts what the old one did", "")
        if gaps(after.arguments, before.arguments):
            yield finding(
                Level.NOTE,
                "workers of the old version cannot read all that the new one sends, and leave it to the new one",
                "",
            )


def _hint(gap: Gap, refused: list[Gap]) -> str:
    """Return what to do; parameters stand at the top of the arguments."""
    if gap.path.count(".") != 1 or "[" in gap.path:
        return ""
    new = [other.path for other in refused if "is new, and is required" in other.why]
    gone = [other.path for other in refused if "not known any more" in other.why]
    if len(new) == len(gone) == 1 and gap.path in (new[0], gone[0]):
        return f" (was {gone[0][2:]!r} renamed to {new[0][2:]!r}? say so in upgrade=)"
    if gap.path in new:
        return "; give the parameter a default, or bring old arguments along with upgrade="
    if gap.path in gone:
        return "; keep the parameter, or drop it from old arguments with upgrade="
    return ""
