"""Lists as bytes, put together from their elements' bytes and taken apart again, where a format allows it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from taskharbor.codec.codec import Codec, CodecError
from taskharbor.codec.formats import JsonCodec, MsgpackCodec

_raws_in_json = msgspec.json.Decoder(list[msgspec.Raw]).decode
_raws_in_msgpack = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode


def _encode(codec: Codec) -> Callable[[object], bytes] | None:
    """Return an encoder that takes values which are encoded already; None where the format knows no such thing."""
    kind: object = type(codec)  # exactly: a subclass may write something else
    if kind is JsonCodec:
        return msgspec.json.encode
    return msgspec.msgpack.encode if kind is MsgpackCodec else None


def join(codec: Codec, elements: Sequence[bytes]) -> bytes | None:
    """Return the list of these elements, each encoded; None where the format cannot put it together."""
    encode = _encode(codec)
    return None if encode is None else encode([msgspec.Raw(element) for element in elements])


def wrap(codec: Codec, fields: dict[str, object], name: str, value: bytes) -> bytes | None:
    """Return a map of fields, one more of them encoded already; None where the format cannot put it together."""
    encode = _encode(codec)
    return None if encode is None else encode({**fields, name: msgspec.Raw(value)})


def split(codec: Codec, data: bytes) -> list[bytes]:
    """Return the elements of a list, each encoded.

    Raises:
        CodecError: it is no list.
    """
    decode: Callable[[bytes], list[msgspec.Raw]]
    kind: object = type(codec)
    if kind is JsonCodec:
        decode = _raws_in_json
    elif kind is MsgpackCodec:
        decode = _raws_in_msgpack
    else:
        encode = codec.encoder()
        return [encode(element) for element in codec.decoder(list[object])(data)]
    try:
        return [bytes(raw) for raw in decode(data)]
    except msgspec.MsgspecError as error:
        raise CodecError(str(error)) from error
