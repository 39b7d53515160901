"""Stored values as JSON, as far as they can be read without their types."""

from __future__ import annotations

from typing import Any, cast

import msgspec

from taskharbor.call.expansion import EXPANSION
from taskharbor.call.parts import PARTS, read_parts
from taskharbor.cli.output import json_text
from taskharbor.flow import Success
from taskharbor.harbor import Harbor

_ANY = cast("type[object]", Any)


def compact(data: bytes) -> msgspec.Raw | None:
    """Return JSON on one line, whoever wrote it; None if it is none."""
    try:
        return msgspec.Raw(msgspec.json.format(data, indent=-1))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def untyped(harbor: Harbor, data: bytes, codec: str) -> msgspec.Raw | None:
    """Return a value of which the type is not known; None if it cannot be read."""
    if codec == "json":
        return compact(data)
    if codec == PARTS:
        return together(data)
    own = (task.codec for task in harbor.registry if task.codec is not None and task.codec.name == codec)
    found = harbor.codecs.find(codec) or next(own, None)
    if found is None:
        return None
    try:
        return msgspec.Raw(json_text(found.decoder(_ANY)(data)))
    except Exception:  # noqa: BLE001 - a user's codec may raise anything; and not all types are there in JSON
        return None


def together(data: bytes) -> msgspec.Raw | None:
    """Return the results of many steps as one list; None if one of them only the application can read."""
    parts = read_parts(data)
    read = [compact(part.value or b"null") if part.codec == "json" else None for part in parts.inputs]
    values = [
        Success(value) if parts.tolerant and not part.failed else value
        for part, value in zip(parts.inputs, read, strict=True)
        if value is not None
    ]
    return msgspec.Raw(json_text(values)) if len(values) == len(read) else None


def unreadable(data: bytes, codec: str) -> str:
    """Return what to say of a value that cannot be read."""
    if codec in (EXPANSION, PARTS):
        return f"{len(data)} bytes of {codec}, which is TaskHarbor's own"
    return f"{len(data)} bytes of {codec}, which only the application can read (--app)"
