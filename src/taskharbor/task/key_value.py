"""What a derived key can be made of, and how it is written: `unique:["acme",3]`, the same from every process.

A partition, which people read and type, is written plainly: `acme/3`.

Keys that a caller gives may not begin so (`call.options`), so that the two kinds are never taken for one another.
"""

from __future__ import annotations

import hashlib
import types
import typing
from datetime import UTC, date, datetime
from enum import Enum
from typing import Annotated, Literal, Union, cast, get_args, get_origin
from uuid import UUID

import msgspec

from taskharbor.call.options import DERIVED_KEY, KEY_LIMIT
from taskharbor.limit import KEYLESS, PARTITION_LIMIT

KINDS = "str, int, bool, UUID, date, datetime, Enum, None, or a tuple of these"
_PLAIN = (str, int, UUID, date, type(None))
_UNKNOWN: tuple[object, ...] = (object, typing.Any)
_encode = msgspec.json.Encoder().encode


class NotAKeyError(Exception):
    """A value that no key can be made of; says so."""


def write_key(value: object) -> str:
    """Return the key that a value comes to; a tuple is as good as its parts.

    Raises:
        NotAKeyError: a key cannot be made of it.
    """
    parts = cast("tuple[object, ...]", value) if isinstance(value, tuple) else (value,)
    written = _encode([_plain(part) for part in parts])
    key = f"{DERIVED_KEY}{written[1:].decode()}"
    if len(key) <= KEY_LIMIT:
        return key
    # No JSON goes on so after its bracket.
    return f"{DERIVED_KEY}#{hashlib.sha256(written).hexdigest()}]"


def write_partition(value: object) -> str:
    """Return the partition that a value comes to, as people read it: `acme`, `acme/3`; None is `KEYLESS`.

    A long one, or one with characters that are not for reading, ends in a digest that tells it from others.

    Raises:
        NotAKeyError: a key cannot be made of it.
    """
    if isinstance(value, str) and not isinstance(value, Enum):
        text = value
    elif isinstance(value, tuple):
        parts = [_text(_plain(part)) for part in cast("tuple[object, ...]", value)]
        text = "/".join(part.replace("\\", "\\\\").replace("/", "\\/") for part in parts)
    else:
        text = _text(_plain(value))
    if len(text) <= PARTITION_LIMIT and text.isprintable():
        return text
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]
    begins = "".join(one if one.isprintable() else "?" for one in text[: PARTITION_LIMIT - len(digest) - 1])
    return f"{begins}#{digest}"


def _text(plain: object) -> str:
    if plain is None:
        return KEYLESS
    if isinstance(plain, str):
        return plain
    if isinstance(plain, list):  # a tuple within a tuple
        return write_partition(tuple(cast("list[object]", plain)))
    return _encode(plain).decode().strip('"')


def _plain(value: object) -> object:
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, tuple):
        return [_plain(part) for part in cast("tuple[object, ...]", value)]
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC)  # one instant is one key, whatever zone it was told in
    if isinstance(value, _PLAIN):
        return value
    raise NotAKeyError(f"there is a {type(value).__qualname__} in it, and a key is of {KINDS}")


def could_be_key(hint: object) -> bool:
    """Return whether values of a type make keys, as far as the type tells."""
    hint = bare_type(hint)
    if hint is None or hint in _UNKNOWN or isinstance(hint, typing.TypeVar):
        return True
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return all(could_be_key(one) for one in arguments)
    if origin is Literal:
        return True
    if hint is tuple or origin is tuple:
        return all(could_be_key(one) for one in arguments if one is not ...)
    # Of a named tuple the parts tell, when there is one.
    return isinstance(hint, type) and issubclass(hint, (*_PLAIN, Enum, tuple))


def bare_type(hint: object) -> object:
    """Return a type without `Annotated`, `NewType` and aliases around it."""
    while True:
        if get_origin(hint) is Annotated:
            hint = cast("object", get_args(hint)[0])
        elif isinstance(hint, typing.NewType):
            hint = hint.__supertype__
        elif type(hint).__name__ == "TypeAliasType":  # of typing from 3.12 on, and of typing_extensions
            hint = cast("object", getattr(hint, "__value__", None))
        else:
            return hint
