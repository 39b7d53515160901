"""Custom types: how a class that msgspec does not know is turned into one it does, and back.

A hook belongs to the type, not to a wire format, so it serves every codec. It is registered once for the process,
before the tasks that use it are declared, since a task whose types have no codec is refused at declaration.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import msgspec

from taskharbor.errors import OptionError

T = TypeVar("T")
W = TypeVar("W")


class TypeHook(msgspec.Struct, frozen=True):
    """How one custom type crosses the wire."""

    kind: type[object]
    wire: type[object]
    """What it becomes: a type msgspec knows, such as `str` or a Struct."""
    encode: Callable[[object], object]
    decode: Callable[[object], object]


_hooks: dict[type[object], TypeHook] = {}


def register_type(
    kind: type[T], *, wire: type[W], encode: Callable[[T], W], decode: Callable[[W], T]
) -> None:
    """Teach every codec a custom type: `encode` turns it into `wire`, `decode` turns that back.

    Example: `register_type(Money, wire=str, encode=str, decode=Money.parse)`. A `decode` that raises `ValueError` or
    `TypeError` makes the payload bad, with its message. Registering a type again replaces its hook.

    Raises:
        OptionError: every codec carries the type already, so the hook would never be called.
    """
    if not isinstance(msgspec.inspect.type_info(kind), msgspec.inspect.CustomType):
        raise OptionError(
            f"register_type({kind.__qualname__}): codecs carry it without a hook, which would never be called; wrap it "
            "in a class of its own, or use a msgspec.Struct"
        )
    # The table is keyed by the type, so each function only ever meets the type it was written for.
    _hooks[kind] = TypeHook(
        kind=kind,
        wire=wire,
        encode=cast("Callable[[object], object]", encode),
        decode=cast("Callable[[object], object]", decode),
    )


def hook_for(kind: object) -> TypeHook | None:
    """Return the hook of a type, or None."""
    return _hooks.get(kind) if isinstance(kind, type) else None


def enc_hook(value: object) -> object:
    """Encode a value of a custom type; the `enc_hook` handed to msgspec. Looks along the MRO, so subclasses work."""
    for kind in type(value).__mro__:
        hook = _hooks.get(kind)
        if hook is not None:
            return hook.encode(value)
    raise NotImplementedError(f"objects of type {type(value).__qualname__} have no codec")


def dec_hook(kind: type[object], value: object) -> object:
    """Decode a custom type; the `dec_hook` handed to msgspec."""
    hook = _hooks.get(kind)
    if hook is None:
        raise NotImplementedError(f"type {kind.__qualname__} has no codec")
    try:
        wire = msgspec.convert(value, hook.wire, dec_hook=dec_hook, builtin_types=())
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error  # msgspec adds the path to a ValueError only
    return hook.decode(wire)
