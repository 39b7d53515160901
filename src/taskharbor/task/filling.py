"""What came in for a step, as values: each input decoded as the type of the parameter that it fills."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import msgspec

from taskharbor.call.parts import PARTS, read_parts
from taskharbor.codec import (
    Codec,
    CodecBook,
    CodecError,
    JsonCodec,
    MsgpackCodec,
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
from taskharbor.codec.lists import record
from taskharbor.flow import Success
from taskharbor.step import DeliveredStep, Hole, Input
from taskharbor.task.lists import list_type, success_type

_JSON = JsonCodec()
_ANY = cast("type[object]", Any)
_TAGS: Mapping[type[object], bytes] = {
    type(codec): codec.encoder()("success") for codec in (_JSON, MsgpackCodec())
}
"""What tells a `Success` from a `Failure`, in each format that can put one together."""


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
            return [self._told(part, parts) for part in parts]
        return [(part.codec, _value(part)) for part in parts]

    def _told(self, part: Input, among: Sequence[Input]) -> tuple[str, bytes]:
        """Return a part as a `Success` or a `Failure`, and what that is written in."""
        plain = None if part.failed else self._plain(part)
        told = None if plain is None else _success(*plain)
        if plain is None or told is None:
            plain, told = (_JSON, b""), self._in_json(part, tolerant=True)
        # In the layers of what came in: what was encrypted is not written down in the clear.
        layers = rewrapped(self._first(among if part.failed else [part]), plain[0])
        return layers.name, wrapped(layers, told)

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
        joined = self._joined(parts, tolerant=tolerant)
        if joined is not None:
            return self._decode(joined[0], kind, joined[1], parts)
        # Not all in one format. Each in its own, since bytes in the one are a text in the other.
        found = list_type(kind)
        if found is None or (tolerant and success_type(found.element) is None):
            return self._decode(_JSON, kind, self.in_json(parts, tolerant=tolerant), parts)
        return found.make(
            [self._element(index, part, found.element, tolerant=tolerant) for index, part in enumerate(parts)]
        )

    def _element(self, index: int, part: Input, kind: object, *, tolerant: bool) -> object:
        try:
            if part.failed:
                return self._decode(_JSON, kind, _value(part))
            value = self._single(part, success_type(kind) if tolerant else kind)
        except _Missing:
            raise
        except CodecError as error:
            path = f"$[{index}]{error.path.removeprefix('$')}"
            raise CodecError(str(error), path=path, foreign=error.foreign) from error
        return Success(value) if tolerant else value

    def _plain(self, part: Input) -> tuple[Codec, bytes] | None:
        """Return what is under all layers, and a part as that wrote it; None for a list in several formats."""
        data = _value(part)
        if part.codec == PARTS:
            gathered = read_parts(data)
            return self._joined(gathered.inputs, tolerant=gathered.tolerant)
        codec, (plain,) = bare(self.codec(part.codec), [data])
        return codec, plain

    def _joined(self, parts: Sequence[Input], *, tolerant: bool) -> tuple[Codec, bytes] | None:
        """Return a list of results in the format of them all; None if they have several, or one without lists."""
        names = {part.codec for part in parts}
        if not tolerant and len(names) == 1 and PARTS not in names:  # the most common, and the quickest
            codec, values = bare(self.codec(*names), [_value(part) for part in parts])
            whole = join(codec, values)
            return None if whole is None else (codec, whole)
        plain = [None if part.failed else self._plain(part) for part in parts]
        codecs = {type(one[0]): one[0] for one in plain if one is not None}
        if len(codecs) > 1 or any(
            one is None and not part.failed for one, part in zip(plain, parts, strict=True)
        ):
            return None
        codec = next(iter(codecs.values()), _JSON)
        elements: list[bytes] = []
        for part, one in zip(parts, plain, strict=True):
            if one is None:
                element: bytes | None = _failure(codec, _value(part))
            else:
                element = _success(codec, one[1]) if tolerant else one[1]
            if element is None:
                return None
            elements.append(element)
        whole = join(codec, elements)
        return None if whole is None else (codec, whole)

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


def _success(codec: Codec, data: bytes) -> bytes | None:
    """Return a `Success` in a format that its value is written in; None where that cannot put it together."""
    tag = _TAGS.get(type(codec))
    return None if tag is None else record(codec, {"type": tag, "value": data})


def _failure(codec: Codec, data: bytes) -> bytes:
    """Return a `Failure`, which is told in JSON, in a format."""
    return data if type(codec) is JsonCodec else codec.encoder()(msgspec.json.decode(data))


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
