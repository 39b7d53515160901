"""One entry of a file of schedules: which keys it may have, and its arguments, read against its task's signature."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from math import isfinite
from typing import NamedTuple, cast

import msgspec
from msgspec import UNSET

from taskharbor.call import Call, Options, Signature
from taskharbor.codec import CodecError, JsonCodec
from taskharbor.errors import OptionError, TaskHarborError, nearest
from taskharbor.schedule import Misfire, Overlap, Schedule
from taskharbor.scheduling import cron, every
from taskharbor.settings.text import duration
from taskharbor.task import Registry, TaskDefinition
from taskharbor.task.reading import Kind

_JSON = JsonCodec()
_DEEPEST = 100
"""Levels of an entry; no task takes more, and Python itself gives up at a few hundred."""


class _Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What an entry may say, in the file's own types."""

    task: str
    name: str | None = None
    description: str = ""
    cron: str | None = None
    tz: str = "UTC"
    every: str | None = None
    start: datetime | None = None
    until: datetime | None = None
    misfire: Misfire = Misfire.ONCE
    catch_up: int | None = None
    grace: str | None = None
    overlap: Overlap = Overlap.ALLOW
    queue: str | None = None
    priority: int | None = None
    meta: dict[str, str] | None = None
    arguments: dict[str, object] = {}


_KEYS = _Entry.__struct_fields__


class Declared(NamedTuple):
    """An entry that has been read."""

    signature: Signature[object]
    schedule: Schedule
    name: str | None
    description: str


def read_entry(entry: object, registry: Registry, where: str) -> Declared:
    """Return what an entry declares.

    Args:
        entry: as the file's parser has it.
        registry: holds its task.
        where: the file and the place in it, for errors.

    Raises:
        OptionError: it cannot be; says where, what was expected and what came.
    """
    if not isinstance(entry, dict):
        raise OptionError(
            f"{where}: expected a table with `task` and `cron` or `every`, got {type(entry).__name__}"
        )
    table = cast("dict[object, object]", entry)
    for key in table:
        if key not in _KEYS:
            raise OptionError(
                f"{where}: there is no key {key!r}{nearest(str(key), _KEYS)}; there are {', '.join(_KEYS)}"
            )
    _check_plain(table, where)
    _check_words(table, where)
    try:
        read = msgspec.convert(table, _Entry)
    except msgspec.ValidationError as error:
        raise OptionError(f"{where}: {_placed(str(error))}") from error
    told = f"{where}, task {read.task!r}"
    try:
        definition = registry.get(read.task)
        call = Call(definition, _arguments(definition, read.arguments), _options(read))
        return Declared(Signature(call), _schedule(read), read.name, read.description)
    except (TaskHarborError, ValueError) as error:
        raise OptionError(f"{told}: {error}") from error


def _check_words(table: Mapping[object, object], where: str) -> None:
    """Refuse, in words of the file, what its parser has taken for something else."""
    for key in ("every", "grace"):
        if key in table and not isinstance(table[key], str):
            raise OptionError(f"{where}: {key}: expected a duration such as '5m', got {table[key]!r:.80}")
    for key, choices in (("misfire", Misfire), ("overlap", Overlap)):
        if key in table and table[key] not in list(choices):
            raise OptionError(f"{where}: {key}: expected one of {', '.join(choices)}, got {table[key]!r:.80}")
    for key in ("start", "until"):
        given = table.get(key)
        if isinstance(given, datetime) and given.tzinfo is None:
            raise OptionError(
                f"{where}: {key}: {given.isoformat()} has no offset from UTC; expected a time such as "
                f"{given.isoformat()}Z"
            )


def _check_plain(value: object, where: str, depth: int = 0) -> None:
    """Refuse what JSON would silently have as null, and what stands within itself, as YAML can say."""
    if isinstance(value, float) and not isfinite(value):
        raise OptionError(f"{where}: {value}: expected a finite number, which JSON can tell")
    if not isinstance(value, dict | list):
        return
    if depth > _DEEPEST:
        raise OptionError(f"{where}: it is nested more than {_DEEPEST} levels deep, or stands within itself")
    inside = cast("dict[object, object] | list[object]", value)
    for inner in inside.values() if isinstance(inside, dict) else inside:
        _check_plain(inner, where, depth + 1)


def _schedule(read: _Entry) -> Schedule:
    if (read.cron is None) == (read.every is None):
        raise OptionError("say when, by either `cron` or `every`")
    grace = None if read.grace is None else _duration(read.grace, "grace")
    if read.every is not None:
        if read.tz != "UTC":
            raise OptionError("tz: goes with `cron`; `every` counts real time, whatever clocks on walls do")
        return every(
            _duration(read.every, "every"),
            start=read.start,
            misfire=read.misfire,
            catch_up=read.catch_up,
            grace=grace,
            overlap=read.overlap,
            until=read.until,
        )
    if read.start is not None:
        raise OptionError("start: goes with `every`")
    return cron(
        read.cron or "",
        tz=read.tz,
        misfire=read.misfire,
        catch_up=read.catch_up,
        grace=grace,
        overlap=read.overlap,
        until=read.until,
    )


def _options(read: _Entry) -> Options:
    return Options(
        queue=UNSET if read.queue is None else read.queue,
        priority=UNSET if read.priority is None else read.priority,
        meta=UNSET if read.meta is None else read.meta,
    )


def _duration(text: str, key: str) -> timedelta:
    try:
        return duration(text)
    except ValueError as error:
        raise OptionError(f"{key}: {error}") from error


def _arguments(task: TaskDefinition, given: Mapping[str, object]) -> msgspec.Struct:
    """Return the arguments, decoded as strictly as what a producer sends."""
    parameters = task.reading.parameters
    rest = next((p.name for p in parameters if p.kind is Kind.VAR_KEYWORD), None)
    own = [p.name for p in parameters if p.name != rest]
    fields: dict[str, object] = {}
    more: dict[str, object] = {}
    for name, value in given.items():
        if name not in own and rest is None:
            raise OptionError(
                f"arguments: the task has no parameter {name!r}{nearest(name, own)}; its signature is "
                f"{task.name}{task.reading.public}"
            )
        (fields if name in own else more)[name] = value
    if rest is not None and more:
        fields[rest] = more
    try:
        return task.coder(_JSON).decode_arguments(msgspec.json.encode(fields))
    except CodecError as error:
        raise OptionError(f"arguments{error.path.removeprefix('$')}: {error}") from error
    except (TypeError, OverflowError) as error:  # a value of the file's format that no payload has
        raise OptionError(f"arguments: {error}") from error


def _placed(told: str) -> str:
    """Return msgspec's words with the key first: `priority: expected ...`."""
    said, found, path = told.partition(" - at `$")
    said = said[:1].lower() + said[1:].replace("Object", "the entry")
    return f"{path.strip('`').removeprefix('.')}: {said}" if found else said
