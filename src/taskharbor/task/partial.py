"""A task's arguments without some of them: those that come from earlier steps of a flow, when the job is delivered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import msgspec

from taskharbor.codec import Codec
from taskharbor.task.arguments import arguments_type
from taskharbor.task.binding import arguments_decoder
from taskharbor.task.reading import Parameter


class Partial:
    """The type of what is left, and how it is read."""

    def __init__(self, name: str, parameters: Sequence[Parameter], holes: frozenset[str]) -> None:
        self._parameters, self._holes = parameters, holes
        self._names = [parameter.name for parameter in parameters if parameter.name not in holes]
        self._type = arguments_type(
            name, [parameter for parameter in parameters if parameter.name not in holes]
        )
        self._decoders: dict[str, tuple[Codec, Callable[[bytes], msgspec.Struct]]] = {}

    def of(self, arguments: msgspec.Struct) -> msgspec.Struct:
        """Return what is left of the arguments of a call."""
        return self._type(**{name: cast("object", getattr(arguments, name)) for name in self._names})

    def decoder(self, codec: Codec) -> Callable[[bytes], msgspec.Struct]:
        """Return a strict function from bytes to what is left; it raises `CodecError`."""
        known = self._decoders.get(codec.name)
        if known is None or known[0] is not codec:
            decode = arguments_decoder(self._parameters, self._type, codec, self._holes)
            known = self._decoders[codec.name] = codec, decode
        return known[1]
