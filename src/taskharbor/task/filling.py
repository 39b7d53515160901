"""What came in for a step, as values: each input decoded as the type of the parameter that it fills."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Annotated, cast, get_args, get_origin

import msgspec

from taskharbor.call.parts import PARTS, read_parts
from taskharbor.codec import Codec, CodecBook, CodecError, join, wrap
from taskharbor.flow import FORMAT, Failure, Success
from taskharbor.step import DeliveredStep, Hole, Input

_failure = msgspec.json.Decoder(Failure).decode
_LISTS: tuple[object, ...] = (list, tuple, set, frozenset, Sequence, Iterable, Collection)
_SUCCESS = {"type": "success"}


class Filling:
    """Reads inputs by the codecs that a worker, or a harbor, has."""

    def __init__(self, codecs: CodecBook) -> None:
        self._codecs = codecs
        self._decoders: dict[tuple[str, object], tuple[Codec, Callable[[bytes], object]]] = {}

    def values(self, step: DeliveredStep, kind_of: Callable[[str], object]) -> dict[str, object]:
        """Return the values of a step's holes by parameter; `kind_of` gives each one's type.

        Raises:
            CodecError: an input does not fit, or is missing.
        """
        return {h.parameter: self._value(h, step, kind_of(h.parameter)) for h in step.holes}

    def elements(self, step: DeliveredStep, hole: Hole) -> list[Input] | None:
        """Return the elements of a hole that takes a list, where they came in one by one; None if as a whole.

        Raises:
            CodecError: its inputs cannot be read.
        """
        parts = _of(step, hole)
        if hole.many:
            return parts
        (part,) = _one(parts, hole)
        return list(read_parts(part.value or b"").inputs) if part.codec == PARTS else None

    def codec(self, name: str) -> Codec:
        """Return a codec that inputs are written in.

        Raises:
            CodecError: this worker does not have it; it is foreign.
        """
        found = self._codecs.find(name)
        if found is None:
            raise CodecError(
                f"the result of an earlier step is written with the codec {name!r}, which this worker does not have; "
                "pass it as Harbor(codecs=[...])",
                foreign=True,
            )
        return found

    def _value(self, hole: Hole, step: DeliveredStep, kind: object) -> object:
        parts = _of(step, hole)
        try:
            if hole.many:
                return self._many(parts, kind, tolerant=hole.tolerant)
            return self._single(_one(parts, hole)[0], kind)
        except CodecError as error:
            path = f"$.{hole.parameter}{error.path.removeprefix('$')}"
            raise CodecError(str(error), path=path, foreign=error.foreign) from error

    def _single(self, part: Input, kind: object) -> object:
        if part.value is None:
            raise CodecError("the earlier step's result was not kept")
        if part.codec == PARTS:
            gathered = read_parts(part.value)
            return self._many(gathered.inputs, kind, tolerant=gathered.tolerant)
        return self._decode(part.codec, kind, part.value)

    def _many(self, parts: Sequence[Input], kind: object, *, tolerant: bool) -> object:
        names = {part.codec for part in parts if not part.failed} or {FORMAT}
        if len(names) == 1 and PARTS not in names:
            (name,) = names
            whole = self._whole(self.codec(name), parts, tolerant=tolerant)
            if whole is not None:
                return self._decode(name, kind, whole)
        inner = _element(kind)
        values = [self._one_of_many(part, inner, tolerant=tolerant) for part in parts]
        origin = get_origin(kind) or kind
        if origin in (tuple, set, frozenset):
            return cast("Callable[[list[object]], object]", origin)(values)
        return values

    def _one_of_many(self, part: Input, kind: object, *, tolerant: bool) -> object:
        if not tolerant:
            return self._single(part, kind)
        return _failure(part.value or b"") if part.failed else Success(self._single(part, _succeeded(kind)))

    def _whole(self, codec: Codec, parts: Sequence[Input], *, tolerant: bool) -> bytes | None:
        """Return a list of parts of one codec as one; None where the codec cannot put it together."""
        elements: list[bytes] = []
        for part in parts:
            data: bytes | None = part.value
            if data is None:
                raise CodecError("the result of an earlier step was not kept")
            if part.failed:
                data = data if codec.name == FORMAT else codec.encoder()(_failure(data))
            elif tolerant:
                data = wrap(codec, {**_SUCCESS}, "value", data)
            if data is None:
                return None
            elements.append(data)
        return join(codec, elements)

    def _decode(self, name: str, kind: object, data: bytes) -> object:
        codec = self.codec(name)
        key = (name, kind)
        try:
            known = self._decoders.get(key)
        except TypeError:  # a type that cannot be hashed
            return codec.decoder(cast("type[object]", kind))(data)
        if known is None or known[0] is not codec:
            known = self._decoders[key] = codec, codec.decoder(cast("type[object]", kind))
        return known[1](data)


def _of(step: DeliveredStep, hole: Hole) -> list[Input]:
    return [part for part in step.inputs if part.slot == hole.slot]


def _one(parts: list[Input], hole: Hole) -> list[Input]:
    if len(parts) != 1:
        raise CodecError(f"it takes one result, and {len(parts)} came in", path=f"$.{hole.parameter}")
    return parts


def _element(kind: object) -> object:
    """Return the type of a list's elements.

    Raises:
        CodecError: it is no type of lists.
    """
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if (get_origin(kind) or kind) not in _LISTS:
        raise CodecError(f"its type {kind} is none that a list of results in several formats can be read as")
    arguments = get_args(kind)
    return arguments[0] if arguments else object


def _succeeded(kind: object) -> object:
    """Return `X` of `Success[X] | Failure`."""
    for one in (kind, *get_args(kind)):
        if get_origin(one) is Success:
            return get_args(one)[0]
    return object
