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
_UNENCODABLE = (TypeError, ValueError, NotImplementedError, OverflowError, RecursionError)


class _Format:
    """What the two formats share: hooks for custom types, and msgspec's errors told as `CodecError`."""

    def supports(self, kind: type[object]) -> bool:
        """Return whether a hook is registered for the type."""
        return hook_for(kind) is not None

    def _encode_with(self, encode: Encode) -> Encode:
        def encode_value(value: object) -> bytes:
            try:
                return encode(value)
            except _UNENCODABLE as error:
                raise CodecError(str(error)) from error

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
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise CodecError(str(error)) from error
            except (TypeError, ValueError, NotImplementedError) as error:  # from a hook
                raise CodecError(str(error)) from error

        return decode_value


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
