"""A dry run of a key function: it is given arguments that know their types, and is refused what is not there.

The stand-ins tell of attributes (of Structs, dataclasses, named tuples) and items (of typed dicts). Whatever else a
function does to one, such as calling a method of a str, needs a value; then the dry run gives up, and knows no more.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Never, Union, cast, get_args, get_origin
from uuid import UUID

import msgspec
from typing_extensions import get_type_hints, is_typeddict

from taskharbor.errors import nearest
from taskharbor.task.key_value import KINDS, NotAKeyError, bare_type, could_be_key, write_key
from taskharbor.task.reading import describe_type

_BUILT_IN = (
    str,
    int,
    float,
    bytes,
    bytearray,
    date,
    time,
    timedelta,
    UUID,
    Decimal,
    list,
    tuple,
    dict,
    set,
    frozenset,
)
"""Types whose attributes are all there on the class."""


class _GiveUp(BaseException):
    """The types do not tell what comes next. No Exception: a key function could catch it."""


class _Refused(BaseException):
    """The function asked for what is not there."""


def dry_run(call: Callable[[], object]) -> str:
    """Return in words what is wrong with a key function, "" if nothing is known to be.

    Args:
        call: calls it with stand-ins.
    """
    try:
        made = call()
    except _Refused as refusal:
        return str(refusal)
    except _GiveUp:
        return ""
    except Exception:  # noqa: BLE001 - a user's function, which may have raised it because of the stand-ins
        return ""
    return next((told for told in map(_misfit, _parts(made)) if told), "")


def _parts(made: object) -> tuple[object, ...]:
    return cast("tuple[object, ...]", made) if type(made) is tuple else (made,)


class UnknownError(Exception):
    """A key depends on what is not known yet."""


def known(call: Callable[[], object]) -> object:
    """Return what a key function returns that is called with some arguments and stand-ins for others.

    Raises:
        UnknownError: it asks for one of those.
    """
    try:
        made = call()
    except (_Refused, _GiveUp) as error:
        raise UnknownError from error
    if any(type(part) is _StandIn for part in _parts(made)):
        raise UnknownError
    return made


def stand_in(name: str, hint: object) -> object:
    """Return what stands for an argument of a type."""
    return _StandIn(hint, name)


def arguments(parameters: Mapping[str, object]) -> object:
    """Return what stands for all arguments of a call; `parameters` are types by name."""
    return _StandIn(_Arguments(parameters), "args")


class _Arguments:
    """Takes the place of a type: what a call's arguments have."""

    def __init__(self, parameters: Mapping[str, object]) -> None:
        self.parameters = parameters


class _StandIn:
    """Stands for a value.

    What is asked of it comes to functions below: it has no methods of its own, since users' fields may have any name.
    """

    def __init__(self, hint: object, path: str) -> None:
        object.__setattr__(self, "hint", bare_type(hint))
        object.__setattr__(self, "path", path)

    def __getattribute__(self, name: str) -> object:
        return _attribute(self, name)

    def __getitem__(self, name: object) -> object:
        return _item(self, name)

    def __setattr__(self, name: str, value: object) -> None:
        raise _GiveUp

    def __delattr__(self, name: str) -> None:
        raise _GiveUp


def _needs_a_value(*_: object) -> Never:
    raise _GiveUp


_ASKED_OF_VALUES = """
bool str repr format hash len iter next reversed contains call dir sizeof eq ne lt le gt ge int float complex
index bytes fspath enter exit await aiter anext add sub mul truediv floordiv mod divmod pow matmul and or xor
lshift rshift radd rsub rmul rtruediv rfloordiv rmod rdivmod rpow rmatmul rand ror rxor rlshift rrshift neg
pos abs invert round trunc floor ceil copy deepcopy reduce reduce_ex getstate setitem delitem
"""
for _name in _ASKED_OF_VALUES.split():
    setattr(_StandIn, f"__{_name}__", _needs_a_value)


def _attribute(of: _StandIn, name: str) -> object:
    hint, path = _told(of)
    if name.startswith("__"):
        raise _GiveUp
    if isinstance(hint, _Arguments):
        if name in hint.parameters:
            return _StandIn(hint.parameters[name], name)
        raise _Refused(
            f"there is no parameter {name!r}{nearest(name, list(hint.parameters))}{_of(hint.parameters)}"
        )
    known = _fields(hint)
    if known is not None and name in known:
        return _StandIn(known[name], f"{path}.{name}")
    kind = _class_of(hint)
    if kind is None or issubclass(kind, Enum) or _has(kind, name):
        raise _GiveUp
    if known is None and not issubclass(kind, _BUILT_IN):
        raise _GiveUp
    names = [one for one in (known or dir(cast("object", kind))) if not one.startswith("_")]
    raise _Refused(
        f"{path!r} is {describe_type(hint)}, which has no {name!r}{nearest(name, names)}{_of(known or ())}"
    )


def _item(of: _StandIn, name: object) -> object:
    hint, path = _told(of)
    if isinstance(hint, _Arguments):
        raise _Refused(f"the arguments are attributes: args.{name}, not args[{name!r}]")
    kind = _class_of(hint)
    if kind is None or not is_typeddict(kind):
        raise _GiveUp
    known = _hints(kind)
    if isinstance(name, str) and name in known:
        return _StandIn(known[name], f"{path}[{name!r}]")
    raise _Refused(
        f"{path!r} is {describe_type(hint)}, which has no {name!r}{nearest(str(name), list(known))}{_of(known)}"
    )


def _fields(hint: object) -> Mapping[str, object] | None:
    """Return the types of a type's fields, where it has no attributes but these and those of its class."""
    kind = _class_of(hint)
    if kind is None or _has(kind, "__getattr__"):
        return None
    if not (issubclass(kind, msgspec.Struct) or dataclasses.is_dataclass(kind) or hasattr(kind, "_fields")):
        return None
    return _hints(kind)


def _class_of(hint: object) -> type[Any] | None:
    kind = cast("object", get_origin(hint)) or hint
    return kind if isinstance(kind, type) else None


def _hints(kind: object) -> Mapping[str, object]:
    try:
        return cast("Mapping[str, object]", get_type_hints(kind, include_extras=True))
    except Exception as error:  # names that are there for type checkers only
        raise _GiveUp from error


def _has(kind: type[Any], name: str) -> bool:
    return any(name in vars(base) for base in kind.__mro__)


def _told(of: _StandIn) -> tuple[object, str]:
    """Return the type and the path of a stand-in."""
    hint = cast("object", object.__getattribute__(of, "hint"))
    if get_origin(hint) in (Union, types.UnionType):
        # Who tells the members apart has done so before; None has nothing that one could ask for.
        members = [one for one in get_args(hint) if one is not type(None)]
        if len(members) != 1:
            raise _GiveUp
        hint = bare_type(members[0])
    return hint, cast("str", object.__getattribute__(of, "path"))


def _misfit(part: object) -> str:
    """Return why a part of what the function returned is no part of a key, "" if it may be."""
    if type(part) is _StandIn:
        hint = cast("object", object.__getattribute__(part, "hint"))
        path = cast("str", object.__getattribute__(part, "path"))
        if isinstance(hint, _Arguments):
            return f"the key is all of the arguments; name those that count, since a key is of {KINDS}"
        return "" if could_be_key(hint) else f"{path!r} is {describe_type(hint)}, and a key is of {KINDS}"
    try:
        write_key(part)
    except NotAKeyError as error:
        return str(error)
    return ""


def _of(names: Mapping[str, object] | tuple[()]) -> str:
    return f"; it has {', '.join(names)}" if names else ""
