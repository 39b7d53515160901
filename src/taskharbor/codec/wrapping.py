"""Layers around a wire format: bytes made of another codec's bytes, such as compressed or encrypted ones.

Layers compose, the outermost last in the name: `EncryptedCodec(ZstdCodec(JsonCodec()), keys=...)` is `json+zstd+aes`.
A harbor that has a layer reads what it was put around, too, and the layer around every other format that it knows: so
adding one, or changing what is below it, strands no stored job.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol, Self, TypeVar, runtime_checkable

from taskharbor.codec.codec import Codec, CodecError, Encode
from taskharbor.codec.concealing import concealing, conceals
from taskharbor.codec.formats import JsonCodec
from taskharbor.codec.guard import checked_codec, decoder_of, encoder_of

T = TypeVar("T")


@runtime_checkable
class Marked(Protocol):
    """A codec of which two of one name may read different things; implementing it is optional.

    What a worker could not read is offered to another only if that differs in what it can read: in its tasks, the names
    of its codecs, and these marks.
    """

    @property
    def mark(self) -> str:
        """Return what, beside the name, decides what it can read, such as the ids of its keys; nothing secret."""
        ...


class WrappingCodec(ABC):
    """A codec around another one. Subclass it for a layer of your own: `suffix`, `wrap` and `unwrap` are all it takes.

    Instances are shared between threads.
    """

    def __init__(self, inner: Codec | None = None) -> None:
        """Put the layer around a codec, JSON by default.

        Raises:
            OptionError: `inner` is no codec.
        """
        self._inner: Codec = JsonCodec() if inner is None else checked_codec(inner)

    @property
    @abstractmethod
    def suffix(self) -> str:
        """Return what it adds to the name of what it is around: lower case, without `+`."""

    @abstractmethod
    def wrap(self, data: bytes) -> bytes:
        """Return what is stored for the inner codec's bytes; raises `CodecError`."""

    @abstractmethod
    def unwrap(self, data: bytes) -> bytes:
        """Return the inner codec's bytes; raises `CodecError`."""

    @property
    def inner(self) -> Codec:
        """Return what it is around."""
        return self._inner

    @property
    def name(self) -> str:
        """Return the inner codec's name and the suffix, joined by `+`."""
        return f"{self._inner.name}+{self.suffix}"

    @property
    def mark(self) -> str:
        """Return what the inner codec has for a mark; a layer of its own mark adds it."""
        return mark_of(self._inner)

    @property
    def conceals(self) -> bool:
        """Return whether messages may not quote what it writes; of a layer that encrypts it is True."""
        return conceals(self._inner)

    def over(self, inner: Codec) -> Self:
        """Return the same layer around another codec."""
        other = copy.copy(self)
        other._inner = checked_codec(inner)
        return other

    def supports(self, kind: type[object]) -> bool:
        """Return whether the inner codec knows the type."""
        return self._inner.supports(kind)

    def encoder(self) -> Encode:
        """Return a function from a value to what is stored."""
        if self.conceals:
            code = concealing(encoder_of(bare(self, ())[0]))
            return lambda value: wrapped(self, code(value))
        encode, wrap = encoder_of(self._inner), self.wrap
        return lambda value: wrap(encode(value))

    def decoder(self, kind: type[T]) -> Callable[[bytes], T]:
        """Return a strict function from what is stored to a value of `kind`."""
        if self.conceals:
            read = concealing(decoder_of(bare(self, ())[0], kind))
            return lambda data: read(bare(self, [data])[1][0])
        decode, unwrap = decoder_of(self._inner, kind), self.unwrap
        return lambda data: decode(unwrap(data))


def mark_of(codec: Codec) -> str:
    """Return a codec's mark; "" if it has none."""
    return codec.mark if isinstance(codec, Marked) else ""


def bare(codec: Codec, values: Sequence[bytes]) -> tuple[Codec, Sequence[bytes]]:
    """Return what is under all layers, and each value as that wrote it.

    Raises:
        CodecError: a value cannot be unwrapped.
    """
    while isinstance(codec, WrappingCodec):
        values = [unwrapped(codec, data) for data in values]
        codec = codec.inner
    return codec, values


def rewrapped(codec: Codec, inner: Codec) -> Codec:
    """Return the layers of a codec around another one; that itself if there are none."""
    if not isinstance(codec, WrappingCodec):
        return inner
    return codec.over(rewrapped(codec.inner, inner))


def wrapped(codec: Codec, data: bytes) -> bytes:
    """Return bytes within all layers of a codec.

    Raises:
        CodecError: a layer refuses them.
    """
    if not isinstance(codec, WrappingCodec):
        return data
    data = wrapped(codec.inner, data)
    try:
        return codec.wrap(data)
    except CodecError:
        raise
    except Exception as error:
        raise CodecError(f"the codec {codec.name!r} raised {type(error).__name__}: {error}") from error


def unwrapped(codec: WrappingCodec, data: bytes) -> bytes:
    """Return bytes without the outermost layer.

    Raises:
        CodecError: they are none of its own.
    """
    try:
        return codec.unwrap(data)
    except CodecError:
        raise
    except Exception as error:
        raise CodecError(
            f"the codec {codec.name!r} raised {type(error).__name__}: {error}",
            foreign=isinstance(error, MemoryError),
        ) from error
