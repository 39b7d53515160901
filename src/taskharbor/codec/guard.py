"""What may be expected of a codec that somebody else wrote: whatever it raises comes out as `CodecError`.

All that encodes or decodes asks here, so that a bug in a user's codec is told like any other payload that does not fit:
at the caller, or of the one job that it met. It ends no worker.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from taskharbor.codec.codec import Codec, CodecError, Encode
from taskharbor.codec.formats import JsonCodec, MsgpackCodec
from taskharbor.errors import OptionError

T = TypeVar("T")

# Exactly these: a subclass may raise anything.
_OURS: tuple[type[object], ...] = (JsonCodec, MsgpackCodec)
"""Raise nothing but `CodecError` by themselves, and are spared a call each time."""


def checked_codec(codec: Codec) -> Codec:
    """Return the codec.

    Raises:
        OptionError: it is none, for example only its name.
    """
    if isinstance(codec, (str, type)) or not all(
        callable(getattr(codec, verb, None)) for verb in ("encoder", "decoder")
    ):
        raise OptionError(f"codec={codec!r}: expected a codec, for example JsonCodec() or MsgpackCodec()")
    return codec


def encoder_of(codec: Codec) -> Encode:
    """Return the codec's encoder, which raises `CodecError` and nothing else.

    Raises:
        TypeError: the codec could not make it.
    """
    encode = _made(codec, "encoder", codec.encoder)
    if type(codec) in _OURS:
        return encode

    def encode_value(value: object) -> bytes:
        try:
            data = cast("object", encode(value))
        except CodecError:
            raise
        except Exception as error:
            raise CodecError(_told(codec, "encoder", error)) from error
        if not isinstance(data, bytes):
            raise CodecError(
                f"the encoder of the codec {codec.name!r} returned a {type(data).__qualname__}; it has to return bytes"
            )
        return data

    return encode_value


def decoder_of(codec: Codec, kind: type[T]) -> Callable[[bytes], T]:
    """Return the codec's decoder for a type, which raises `CodecError` and nothing else.

    Raises:
        TypeError: the codec could not make it, for example since it cannot carry the type.
    """
    decode = _made(codec, "decoder", lambda: codec.decoder(kind))
    if type(codec) in _OURS:
        return decode

    def decode_value(data: bytes) -> T:
        try:
            return decode(data)
        except CodecError:
            raise
        except Exception as error:
            # A worker that has more memory may have another answer.
            raise CodecError(
                _told(codec, "decoder", error), foreign=isinstance(error, MemoryError)
            ) from error

    return decode_value


def _made(codec: Codec, what: str, make: Callable[[], T]) -> T:
    try:
        made = make()
    except TypeError:
        raise
    except Exception as error:
        raise TypeError(f"{_told(codec, what, error)}, when it was asked to make one") from error
    if not callable(made):
        raise TypeError(f"the codec {codec.name!r} returned a {type(made).__qualname__} for its {what}")
    return made


def _told(codec: Codec, what: str, error: Exception) -> str:
    return f"the {what} of the codec {codec.name!r} raised {type(error).__name__}: {error}"
