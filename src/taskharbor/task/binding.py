"""Stored arguments read as strictly as Python would bind them, where the type of their Struct lets something pass.

    **kwargs   a name that is a parameter by now would be given twice
    **kwargs: Unpack[SomeTypedDict]   msgspec drops keys that the TypedDict does not know
    *args      with a parameter put before it, the first of them would be the second

All of these come from another signature, so the job is left to other builds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, cast, get_origin, get_type_hints

import msgspec

from taskharbor.codec import Codec, CodecError, decoder_of
from taskharbor.task.reading import Kind, Parameter

_PLAIN = cast("type[dict[str, object]]", dict[str, Any])
_BY_POSITION = (Kind.POSITIONAL_ONLY, Kind.POSITIONAL_OR_KEYWORD)
_BY_NAME = (Kind.POSITIONAL_OR_KEYWORD, Kind.KEYWORD_ONLY)


def arguments_decoder(
    parameters: Sequence[Parameter],
    struct: type[msgspec.Struct],
    codec: Codec,
    holes: Collection[str] = (),
) -> Callable[[bytes], msgspec.Struct]:
    """Return a strict function from bytes to arguments; it raises `CodecError`.

    Args:
        parameters: all of the task's.
        struct: of those that are no holes.
        codec: what they are written in.
        holes: names of those that come from earlier steps.
    """
    decode = decoder_of(codec, struct)
    by_kind = {parameter.kind: parameter for parameter in parameters if parameter.name not in holes}
    star, star_star = by_kind.get(Kind.VAR_POSITIONAL), by_kind.get(Kind.VAR_KEYWORD)
    known = None if star_star is None else _keys(star_star)
    taken = {parameter.name for parameter in parameters if parameter.kind in _BY_NAME}
    before = [
        one.name
        for one in parameters
        if star is not None and one.kind in _BY_POSITION and not one.required and one.name not in holes
    ]
    if star_star is None and not before:
        return decode
    # As it was written: which keys there are is not to be seen once it is decoded.
    peek = decoder_of(codec, _PLAIN) if before or known is not None else None

    def decode_strictly(data: bytes) -> msgspec.Struct:
        arguments = decode(data)
        if star_star is not None:
            for name in cast("Mapping[str, object]", getattr(arguments, star_star.name)):
                if name in taken:
                    raise _other(
                        f"{name!r} is among **{star_star.name}, and is a parameter of its own", star_star.name
                    )
        plain: Mapping[str, object] = {} if peek is None else peek(data)
        if star_star is not None and known is not None:
            for name in cast("Mapping[str, object]", plain.get(star_star.name, {})):
                if name not in known:
                    raise _other(f"{name!r} is none of **{star_star.name}", star_star.name)
        if star is not None and plain.get(star.name):
            for name in before:
                if name not in plain:
                    raise _other(f"there is none for {name!r}, which stands before them", star.name)
        return arguments

    return decode_strictly


def _keys(parameter: Parameter) -> frozenset[str] | None:
    """Return the keys of `**kwargs: Unpack[SomeTypedDict]`; None where any is allowed."""
    return None if get_origin(parameter.type) is dict else frozenset(get_type_hints(parameter.type))


def _other(told: str, parameter: str) -> CodecError:
    return CodecError(f"{told}: it was stored under another signature", path=f"$.{parameter}")
