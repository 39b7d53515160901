"""Types of lists, taken apart: what their elements are, and how a list of those becomes a value of the type.

For lists whose elements are not all written in one format: each is decoded by itself then, in its own.
"""

from __future__ import annotations

import collections.abc
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, cast, get_args, get_origin

import msgspec

from taskharbor.codec import CodecError
from taskharbor.flow import Success

_Make = Callable[[list[object]], object]

_MAKE: Mapping[object, _Make] = {
    list: list,
    tuple: tuple,
    set: set,
    frozenset: frozenset,
    collections.abc.Collection: list,
    collections.abc.Sequence: list,
    collections.abc.MutableSequence: list,
    collections.abc.Set: set,
    collections.abc.MutableSet: set,
}
"""Kinds of lists as `Origin[element]`, and what msgspec makes for each."""


class ListType(msgspec.Struct, frozen=True):
    """A type that a list can become."""

    element: object
    make: _Make


def list_type(kind: object) -> ListType | None:
    """Return a type taken apart; None for one that is no plain list type, such as a union."""
    if kind is Any or kind is object:
        return ListType(Any, list)
    if get_origin(kind) is Annotated:
        return _annotated(*cast("tuple[object, ...]", get_args(kind)))
    origin, arguments = get_origin(kind) or kind, get_args(kind)
    make = _MAKE.get(origin)
    if make is None:
        return None
    if origin is tuple and arguments:
        return ListType(arguments[0], make) if len(arguments) == 2 and arguments[1] is ... else None
    return ListType(arguments[0] if arguments else Any, make)


def success_type(element: object) -> object:
    """Return what `Success` holds in `Success[int] | Failure`; None if the type is another.

    `Any` for elements of type `Any`.
    """
    if element is Any or element is object:
        return Any
    among = get_args(element) if get_origin(element) is not Success else (element,)
    found = next((one for one in (*among, element) if one is Success or get_origin(one) is Success), None)
    if found is None:
        return None
    return next(iter(get_args(found)), Any)


def _annotated(kind: object, *constraints: object) -> ListType | None:
    plain = list_type(kind)
    if plain is None:
        return None
    measure = cast("type[object]", Annotated[(list[Any], *constraints)])

    def make(values: list[object]) -> object:
        made = plain.make(values)
        try:
            msgspec.convert(list(cast("Iterable[object]", made)), measure)
        except msgspec.ValidationError as error:
            raise CodecError(str(error)) from error
        return made

    return ListType(plain.element, make)
