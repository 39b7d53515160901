"""What came in for a step, as values: each input decoded as the type of the parameter that it fills."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import msgspec

from taskharbor.call.parts import PARTS, read_parts
from taskharbor.codec import (
    Codec,
    CodecBook,
    CodecError,
    JsonCodec,
    WrappingCodec,
    bare,
    concealed,
    conceals,
    decoder_of,
    join,
    rewrapped,
    split,
    wrapped,
)
from taskharbor.step import DeliveredStep, Hole, Input

_JSON = JsonCodec()
_ANY = cast("type[object]", Any)


class Filling:
    """Reads inputs by the codecs that a worker, or a harbor, has."""

    def __init__(self, codecs: CodecBook) -> None:
        self._codecs = codecs
        self._decoders: dict[tuple[str, object], tuple[Codec, Callable[[bytes], object]]] = {}

    def values(self, step: DeliveredStep, kind_of: Callable[[str], object]) -> dict[str, object]:
        """Return the values of a step's holes by parameter; `kind_of` gives each one's type.

        Raises:
            CodecError: an input does not fit: foreign, since another build may have written it. Or it is missing.
        """
        return {h.parameter: self._value(h, step, kind_of(h.parameter)) for h in step.holes}

    def elements(self, step: DeliveredStep, hole: Hole) -> list[tuple[str, bytes]]:
        """Return the elements of a list that fills a hole, each with its codec.

        Raises:
            CodecError: it is no list, or cannot be read.
        """
        parts = _of(step, hole)
        if hole.many:
            return self._elements(parts, tolerant=hole.tolerant)
        (part,) = _one(parts)
        data = _value(part)
        if part.codec == PARTS:
            gathered = read_parts(data)
            return self._elements(gathered.inputs, tolerant=gathered.tolerant)
        return [(part.codec, element) for element in split(self.codec(part.codec), data)]

    def _elements(self, parts: Sequence[Input], *, tolerant: bool) -> list[tuple[str, bytes]]:
        if tolerant:
            # In the layers of what came in: what was encrypted is not written down in the clear.
            layers = rewrapped(self._first(parts), _JSON)
            return [(layers.name, wrapped(layers, self._in_json(part, tolerant=True))) for part in parts]
        return [(part.codec, _value(part)) for part in parts]

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
            return self._single(_one(parts)[0], kind)
        except CodecError as error:
            path = f"$.{hole.parameter}{error.path.removeprefix('$')}"
            # What is missing is missing everywhere; what is there may fit the build that wrote it.
            foreign = error.foreign or not isinstance(error, _Missing)
            raise CodecError(str(error), path=path, foreign=foreign) from error

    def _single(self, part: Input, kind: object) -> object:
        data = _value(part)
        if part.codec == PARTS:
            gathered = read_parts(data)
            return self._many(gathered.inputs, kind, tolerant=gathered.tolerant)
        return self._decode(self.codec(part.codec), kind, data)

    def _many(self, parts: Sequence[Input], kind: object, *, tolerant: bool) -> object:
        names = {part.codec for part in parts if not part.failed}
        if not tolerant and len(names) == 1 and PARTS not in names:
            (name,) = names
            codec, elements = bare(self.codec(name), [_value(part) for part in parts])
            whole = join(codec, elements)
            if whole is not None:
                return self._decode(codec, kind, whole, parts)
        whole = self.in_json(parts, tolerant=tolerant)
        return self._decode(_JSON, kind, whole, parts)

    def in_json(self, parts: Sequence[Input], *, tolerant: bool) -> bytes:
        """Return a list of results as JSON, whatever each was written in.

        Raises:
            CodecError: one of them cannot be read.
        """
        return msgspec.json.encode([msgspec.Raw(self._in_json(part, tolerant=tolerant)) for part in parts])

    def _in_json(self, part: Input, *, tolerant: bool) -> bytes:
        data = _value(part)
        if part.failed:
            return data
        if part.codec == PARTS:
            gathered = read_parts(data)
            data = self.in_json(gathered.inputs, tolerant=gathered.tolerant)
        elif part.codec != _JSON.name:
            # As it is in its own format: what that writes of a type, JSON writes of the same.
            codec, (data,) = bare(self.codec(part.codec), [data])
            if type(codec) is not JsonCodec:
                data = _JSON.encoder()(decoder_of(codec, _ANY)(data))
        return msgspec.json.encode({"type": "success", "value": msgspec.Raw(data)}) if tolerant else data

    def _first(self, parts: Sequence[Input]) -> Codec:
        """Return the first layered codec that parts are written in, those within them too; JSON if there is none."""
        for part in parts:
            if part.failed:
                continue
            found = (
                self._first(read_parts(_value(part)).inputs)
                if part.codec == PARTS
                else self.codec(part.codec)
            )
            if isinstance(found, WrappingCodec):
                return found
        return _JSON

    def _conceals(self, parts: Sequence[Input]) -> bool:
        """Return whether one of them is encrypted; of what cannot be found nothing could be quoted."""
        names = {part.codec for part in parts if part.codec != PARTS}
        return any(conceals(self._codecs.find(name)) for name in names) or any(
            self._conceals(read_parts(part.value).inputs)
            for part in parts
            if part.codec == PARTS and part.value
        )

    def _decode(self, codec: Codec, kind: object, data: bytes, parts: Sequence[Input] = ()) -> object:
        try:
            return self._decoder(codec, kind)(data)
        except CodecError as error:
            if not self._conceals(parts):
                raise
            raise concealed(error) from None

    def _decoder(self, codec: Codec, kind: object) -> Callable[[bytes], object]:
        key = (codec.name, kind)
        try:
            known = self._decoders.get(key)
        except TypeError:  # a type that cannot be hashed
            return decoder_of(codec, cast("type[object]", kind))
        if known is None or known[0] is not codec:
            known = self._decoders[key] = codec, decoder_of(codec, cast("type[object]", kind))
        return known[1]


def _of(step: DeliveredStep, hole: Hole) -> list[Input]:
    return [part for part in step.inputs if part.slot == hole.slot]


def _one(parts: list[Input]) -> list[Input]:
    if len(parts) != 1:
        raise _Missing(f"it takes one result, and {len(parts)} came in")
    return parts


def _value(part: Input) -> bytes:
    if part.value is None:
        raise _Missing("the result of an earlier step was not kept")
    return part.value


class _Missing(CodecError):
    """A result is not there, whoever looks for it."""
