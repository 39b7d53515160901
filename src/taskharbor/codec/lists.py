"""Lists as bytes, put together from their elements' bytes and taken apart again, where a format allows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import msgspec

from taskharbor.codec.codec import Codec, CodecError
from taskharbor.codec.formats import JsonCodec, MsgpackCodec
from taskharbor.codec.guard import decoder_of, encoder_of
from taskharbor.codec.wrapping import bare, wrapped

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
    """Return the list of these elements, each encoded; None where the format cannot put it together.

    Layers cannot: take them off first (`bare`).
    """
    encode = _ENCODE.get(type(codec))
    return None if encode is None else encode([msgspec.Raw(element) for element in elements])


def record(codec: Codec, fields: Mapping[str, bytes]) -> bytes | None:
    """Return the object of these fields, each encoded; None where the format cannot put it together."""
    encode = _ENCODE.get(type(codec))
    return None if encode is None else encode({name: msgspec.Raw(data) for name, data in fields.items()})


def split(codec: Codec, data: bytes) -> list[bytes]:
    """Return the elements of a list, each encoded; within the layers that the list is in.

    Raises:
        CodecError: it is no list.
    """
    inner, (plain,) = bare(codec, [data])
    elements = _split(inner, plain)
    return elements if inner is codec else [wrapped(codec, element) for element in elements]


def _split(codec: Codec, data: bytes) -> list[bytes]:
    decode = _RAWS.get(type(codec))
    if decode is None:
        encode = encoder_of(codec)
        anything = cast("type[list[object]]", list[Any])
        return [encode(element) for element in decoder_of(codec, anything)(data)]
    try:
        return [bytes(raw) for raw in decode(data)]
    except msgspec.MsgspecError as error:
        raise CodecError(str(error)) from error
