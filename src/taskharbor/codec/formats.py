"""The two formats that come with TaskHarbor: JSON, the default, readable in the store; and MessagePack, smaller.

Both are msgspec's (https://jcristharif.com/msgspec/), strict: no number is made of a string.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

import msgspec

from taskharbor.codec.codec import CodecError, Encode
from taskharbor.codec.hooks import dec_hook, enc_hook, hook_for

T = TypeVar("T")

_AT = re.compile(r"^(?P<reason>.*) - at `(?P<path>[^`]*)`$", re.DOTALL)


class _Format:
    """What the two formats share: hooks for custom types, and msgspec's errors told as `CodecError`."""

    def supports(self, kind: type[object]) -> bool:
        """Return whether a hook is registered for the type."""
        return hook_for(kind) is not None

    def _encode_with(self, encode: Encode) -> Encode:
        def encode_value(value: object) -> bytes:
            try:
                return encode(value)
            except Exception as error:  # a hook may raise anything
                raise CodecError(_told(error)) from error

        return encode_value

    def _decode_with(self, decode: Callable[[bytes], T]) -> Callable[[bytes], T]:
        def decode_value(data: bytes) -> T:
            try:
                return decode(data)
            except msgspec.ValidationError as error:
                found = _AT.match(str(error))
                if found is None:
                    raise CodecError(str(error)) from error
                raise CodecError(found["reason"], path=found["path"]) from error
            except Exception as error:  # not the format at all, or from a hook, which may raise anything
                raise CodecError(_told(error), foreign=isinstance(error, MemoryError)) from error

        return decode_value


def _told(error: Exception) -> str:
    if isinstance(error, (msgspec.MsgspecError, TypeError, ValueError, NotImplementedError)):
        return str(error)
    return f"{type(error).__name__}: {error}"


class JsonCodec(_Format):
    """JSON, as of RFC 8259. `bytes` become base64, times ISO 8601; NaN and infinities are refused by the check."""

    name = "json"

    def encoder(self) -> Encode:
        """Return a function from a value to JSON."""
        return self._encode_with(msgspec.json.Encoder(enc_hook=enc_hook).encode)

    def decoder(self, kind: type[T]) -> Callable[[bytes], T]:
        """Return a strict function from JSON to a value of `kind`."""
        return self._decode_with(msgspec.json.Decoder(kind, dec_hook=dec_hook).decode)


class MsgpackCodec(_Format):
    """MessagePack (https://msgpack.org): binary, about a third smaller, `bytes` as they are."""

    name = "msgpack"

    def encoder(self) -> Encode:
        """Return a function from a value to MessagePack."""
        return self._encode_with(msgspec.msgpack.Encoder(enc_hook=enc_hook).encode)

    def decoder(self, kind: type[T]) -> Callable[[bytes], T]:
        """Return a strict function from MessagePack to a value of `kind`."""
        return self._decode_with(msgspec.msgpack.Decoder(kind, dec_hook=dec_hook).decode)
