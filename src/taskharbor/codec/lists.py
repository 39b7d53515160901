"""Lists as bytes, put together from their elements' bytes and taken apart again, where a format allows it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import msgspec

from taskharbor.codec.codec import Codec, CodecError
from taskharbor.codec.formats import JsonCodec, MsgpackCodec

# Exactly these: a subclass may write something else.
_ENCODE: dict[type[object], Callable[[object], bytes]] = {
    JsonCodec: msgspec.json.encode,
    MsgpackCodec: msgspec.msgpack.encode,
}
"""Encoders that take values which are encoded already."""
_RAWS: dict[type[object], Callable[[bytes], list[msgspec.Raw]]] = {
    JsonCodec: msgspec.json.Decoder(list[msgspec.Raw]).decode,
    MsgpackCodec: msgspec.msgpack.Decoder(list[msgspec.Raw]).decode,
}


def join(codec: Codec, elements: Sequence[bytes]) -> bytes | None:
    """Return the list of these elements, each encoded; None where the format cannot put it together."""
    encode = _ENCODE.get(type(codec))
    return None if encode is None else encode([msgspec.Raw(element) for element in elements])


def split(codec: Codec, data: bytes) -> list[bytes]:
    """Return the elements of a list, each encoded.

    Raises:
        CodecError: it is no list.
    """
    decode = _RAWS.get(type(codec))
    if decode is None:
        encode = codec.encoder()
        anything = cast("type[list[object]]", list[Any])
        return [encode(element) for element in codec.decoder(anything)(data)]
    try:
        return [bytes(raw) for raw in decode(data)]
    except msgspec.MsgspecError as error:
        raise CodecError(str(error)) from error
