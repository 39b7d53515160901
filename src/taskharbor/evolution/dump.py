"""What an application's tasks accept, written down: `schema dump`, which a later version is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import msgspec
from msgspec import UNSET, UnsetType

from taskharbor.errors import OptionError
from taskharbor.task.arguments import typed_dict_keys
from taskharbor.task.definition import TaskDefinition
from taskharbor.task.reading import Kind
from taskharbor.task.registry import Registry
from taskharbor.task.wire_schema import JsonSchema, wire_schema

FORMAT = 1
"""Of a dump. A later version reads it, too."""


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
    positional: list[str] = []
    """Parameters that are filled by place."""
    keywords: list[str] = []
    """Parameters that are filled by name."""
    star: str | None = None
    """The name of its `*args`."""
    star_star: str | None = None
    """The name of its `**kwargs`."""
    arguments: JsonSchema
    """See `wire_schema`."""
    result: JsonSchema | None
    """None if it is not kept."""


class Dump(msgspec.Struct, frozen=True, kw_only=True):
    """All tasks of an application, sorted by name."""

    format: int = FORMAT
    tasks: list[TaskSchema]


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
        for task in dump.tasks:
            for schema in (task.arguments, task.result or {}):
                msgspec.convert(schema, _Shape)
    except msgspec.MsgspecError as error:
        raise OptionError(f"it is no dump of tasks: {error}; `taskharbor schema dump` writes one") from error
    if dump.format != FORMAT:
        raise OptionError(f"it is a dump of format {dump.format}, and this version reads format {FORMAT}")
    return dump


class _Shape(msgspec.Struct, rename="camel"):
    """What a schema of `wire_schema` looks like."""

    ref: str | UnsetType = msgspec.field(name="$ref", default=UNSET)
    defs: dict[str, _Shape] | UnsetType = msgspec.field(name="$defs", default=UNSET)
    type: str | UnsetType = UNSET
    enum: list[str | int | float | bool | None] | UnsetType = UNSET
    any_of: list[_Shape] | UnsetType = UNSET
    items: bool | _Shape | UnsetType = UNSET
    prefix_items: list[_Shape] | UnsetType = UNSET
    properties: dict[str, _Shape] | UnsetType = UNSET
    required: list[str] | UnsetType = UNSET
    additional_properties: bool | _Shape | UnsetType = UNSET
    property_names: _Shape | UnsetType = UNSET
    min_items: int | UnsetType = UNSET
    max_items: int | UnsetType = UNSET
    min_properties: int | UnsetType = UNSET
    max_properties: int | UnsetType = UNSET


def _schema_of(definition: TaskDefinition, codec: str) -> TaskSchema:
    parameters = definition.reading.parameters

    def named(*kinds: Kind) -> list[str]:
        return [parameter.name for parameter in parameters if parameter.kind in kinds]

    star, star_star = named(Kind.VAR_POSITIONAL), named(Kind.VAR_KEYWORD)
    return TaskSchema(
        name=definition.name,
        aliases=sorted(definition.aliases),
        queue=definition.options.queue,
        codec=codec if definition.codec is None else definition.codec.name,
        fingerprint=f"{definition.fingerprint:016x}",
        upgrade=definition.upgrade is not None,
        positional=named(Kind.POSITIONAL_ONLY, Kind.POSITIONAL_OR_KEYWORD),
        keywords=named(Kind.KEYWORD_ONLY, Kind.POSITIONAL_OR_KEYWORD),
        star=star[0] if star else None,
        star_star=star_star[0] if star_star else None,
        arguments=_arguments(definition, star_star),
        result=wire_schema(definition.reading.returns) if definition.keep_result else None,
    )


def _arguments(definition: TaskDefinition, star_star: list[str]) -> JsonSchema:
    """Return the schema of the arguments. Of `**kwargs: Unpack[SomeTypedDict]` no other keys are accepted."""
    schema = wire_schema(definition.arguments_type)
    if not star_star or typed_dict_keys(definition.reading.public.parameters[star_star[0]]) is None:
        return schema
    fields = cast("dict[str, Mapping[str, object]]", schema["properties"])
    name = str(fields[star_star[0]]["$ref"]).removeprefix("#/$defs/")
    keywords = cast("dict[str, Mapping[str, object]]", schema["$defs"])[name]
    return {
        **schema,
        "properties": {**fields, star_star[0]: {**keywords, "additionalProperties": False}},
    }
