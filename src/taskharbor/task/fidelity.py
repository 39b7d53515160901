"""Whether what arrives is what was sent.

A wire format can carry a value and change it: JSON writes a UUID where the type says `str` and nobody objects, turns
the text "abcd" given for `bytes` into three other bytes, and NaN into null. So after a payload was decoded once to
check it, the two are compared, and a value that comes back as another kind of thing is refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import TypeAlias, TypeGuard

import msgspec


def first_change(sent: object, arrived: object, path: str = "$") -> tuple[str, str] | None:
    """Return the path and description of the first value that comes back as something else, or None.

    Containers may change their kind (a tuple given for a `Sequence` arrives as a list), their contents may not.
    """
    if type(sent) is type(arrived) and type(sent) in _PLAIN:
        return None if sent == arrived or sent != sent else (path, "it would arrive changed")  # noqa: PLR0124 - NaN
    dropped = set(_fields(sent)) - set(_fields(arrived))
    if dropped and _fields(arrived):
        return (
            path,
            f"a {_name(sent)} would arrive as a {_name(arrived)}, without {', '.join(sorted(dropped))}",
        )
    pairs = _pairs(sent, arrived, path)
    if pairs is not None:
        return next((found for one, other, at in pairs if (found := first_change(one, other, at))), None)
    if isinstance(sent, (type(arrived), Set)) or not differ(sent, arrived):
        return None
    return path, f"a {_name(sent)} would arrive as a {_name(arrived)}"


def differ(sent: object, arrived: object) -> bool:
    """Return whether two values compare as different; those that cannot say so in one word count as such."""
    try:
        return bool(sent != arrived)
    except Exception:  # noqa: BLE001 - arrays compare by element, and other types as they please
        return True


_Pairs: TypeAlias = Iterable[tuple[object, object, str]]


def _pairs(sent: object, arrived: object, path: str) -> _Pairs | None:
    """Return what is inside of both, side by side; None for what has no inside."""
    names = _fields(sent)
    if names and type(sent) is type(arrived):
        return ((getattr(sent, name), getattr(arrived, name, _MISSING), f"{path}.{name}") for name in names)
    if _is_mapping(sent) and _is_mapping(arrived):
        return ((value, arrived.get(key, _MISSING), f"{path}[...]") for key, value in sent.items())
    if _is_list(sent) and _is_list(arrived):
        both = zip(sent, arrived, strict=False)
        return ((one, other, f"{path}[{index}]") for index, (one, other) in enumerate(both))
    return None


class _Missing:
    """Of a class that no value is an instance of."""


_MISSING = _Missing()
_PLAIN = (str, bytes, int, float, bool, type(None))


def _fields(value: object) -> tuple[str, ...]:
    if isinstance(value, msgspec.Struct):
        return value.__struct_fields__
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return tuple(field.name for field in dataclasses.fields(value))
    return ()


def _is_mapping(value: object) -> TypeGuard[Mapping[object, object]]:
    return isinstance(value, Mapping)


def _is_list(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray, memoryview))


def _name(value: object) -> str:
    return "null" if value is None or value is _MISSING else type(value).__qualname__
