"""Arguments as they are written on a command line, read as the task's own signature declares them.

A value is taken as JSON where its parameter accepts that, else as plain text: `count=3` is 3 for an `int` and "3" for a
`str`. What neither reading fits is refused, with its path, as every enqueue refuses it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast, get_args, get_type_hints

import msgspec

from taskharbor.cli.values import pairs
from taskharbor.codec import CodecError, JsonCodec
from taskharbor.errors import OptionError, PayloadError, nearest
from taskharbor.task import TaskDefinition
from taskharbor.task.arguments import typed_dict_keys
from taskharbor.task.reading import Kind, Parameter

_JSON = JsonCodec()


def from_pairs(task: TaskDefinition, pairs: Mapping[str, str]) -> msgspec.Struct:
    """Return the arguments written as name=value.

    Raises:
        PayloadError: they do not fit the task's signature.
    """
    return _read(task, {name: _chosen(_type_of(task, name), text) for name, text in pairs.items()})


def from_object(task: TaskDefinition, text: str | bytes) -> msgspec.Struct:
    """Return the arguments written as one JSON object.

    Raises:
        PayloadError: it is no JSON object, or does not fit the task's signature.
    """
    try:
        given = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeError) as error:
        raise PayloadError(
            f"the arguments of task {task.name!r} are no JSON object: {error}",
            task=task.name,
            reason=str(error),
        ) from error
    return _read(task, {name: bytes(value) for name, value in given.items()})


def from_words(task: TaskDefinition, given: Sequence[str]) -> msgspec.Struct:
    """Return the arguments written as name=value each, or as one JSON object.

    Raises:
        OptionError: both.
        PayloadError: they do not fit the task's signature.
    """
    objects = [text for text in given if text.lstrip().startswith("{")]
    if objects and len(given) > 1:
        raise OptionError("give one JSON object, or key=value for each argument, and not both")
    return from_object(task, objects[0]) if objects else from_pairs(task, pairs(given))


def told_signature(task: TaskDefinition) -> str:
    """Return a task's signature as one would write it."""
    return f"{task.name}{task.reading.public}".replace("NoneType", "None")


def _chosen(kind: object, text: str) -> bytes:
    """Return the reading of a value, as JSON, that its type accepts; else the likelier one, to be refused later."""
    quoted = msgspec.json.encode(text)
    decode = _JSON.decoder(cast("type[object]", kind))
    for reading in (text.encode(), quoted):
        try:
            decode(reading)
        except CodecError:
            continue
        return reading
    return text.encode() if _is_json(text) else quoted


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError:
        return False
    return True


def _read(task: TaskDefinition, given: Mapping[str, bytes]) -> msgspec.Struct:
    fields: dict[str, object] = {}
    more: dict[str, msgspec.Raw] = {}
    for name, reading in given.items():
        _type_of(task, name)  # refuses what is no parameter
        (fields if _parameter(task, name) is not None else more)[name] = msgspec.Raw(reading)
    rest = _star_star(task)
    if rest is not None and more:
        fields[rest.name] = more
    try:
        return task.coder(_JSON).decode_arguments(msgspec.json.encode(fields))
    except CodecError as error:
        raise _refusal(task, f"{error} at {error.path}", path=error.path, reason=str(error)) from error


def _parameter(task: TaskDefinition, name: str) -> Parameter | None:
    return next(
        (p for p in task.reading.parameters if p.name == name and p.kind is not Kind.VAR_KEYWORD), None
    )


def _star_star(task: TaskDefinition) -> Parameter | None:
    return next((p for p in task.reading.parameters if p.kind is Kind.VAR_KEYWORD), None)


def _type_of(task: TaskDefinition, name: str) -> object:
    """Return the type that an argument of this name has.

    Raises:
        PayloadError: the task takes none of this name.
    """
    parameter = _parameter(task, name)
    if parameter is not None:
        return parameter.type
    rest = _star_star(task)
    keywords: Sequence[str] = ()
    if rest is not None:
        allowed = typed_dict_keys(task.reading.public.parameters[rest.name])
        if allowed is None:
            return cast("object", get_args(rest.type)[1])
        if name in allowed:
            return cast("object", get_type_hints(rest.type)[name])
        keywords = sorted(allowed)
    known = [p.name for p in task.reading.parameters if p is not rest]
    raise _refusal(task, f"it has no parameter {name!r}{nearest(name, [*known, *keywords])}")


def _refusal(task: TaskDefinition, why: str, *, path: str = "$", reason: str = "") -> PayloadError:
    return PayloadError(
        f"task {task.name!r} cannot be called so: {why}; its signature is {told_signature(task)}",
        task=task.name,
        path=path,
        reason=reason or why,
    )
