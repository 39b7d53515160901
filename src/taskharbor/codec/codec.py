"""What a wire format is: a name, and for each type an encoder and a decoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias, TypeVar

T = TypeVar("T")

Encode: TypeAlias = Callable[[object], bytes]
"""Turn a value into bytes. Raises `CodecError` for what the format cannot hold."""


class CodecError(ValueError):
    """A value could not be encoded, or bytes could not be decoded as the type.

    Codecs raise it; the call that used them turns it into a `PayloadError` that says which task.

    Attributes:
        path: where in the data, as a JSONPath; `$` is the whole.
        foreign: this codec lacks what it would take, such as a key; another worker's may have it. The job is then left
            to other builds instead of ending as a dead letter.
    """

    def __init__(self, message: str, *, path: str = "$", foreign: bool = False) -> None:
        super().__init__(message)
        self.path = path
        self.foreign = foreign


class LackError(CodecError):
    """The codec lacks what it would take; foreign. Its text quotes nothing of a value, so that it may be logged."""

    def __init__(self, message: str) -> None:
        super().__init__(message, foreign=True)


class Codec(Protocol):
    """A wire format. Implement it to plug in one of your own; instances are shared between threads.

    The name is stored with each payload and finds the codec again, so it must never come to mean another format.
    """

    @property
    def name(self) -> str:
        """Return the format's name, such as `json`: lower case, at most 40 characters."""
        ...

    def supports(self, kind: type[object]) -> bool:
        """Return whether this codec knows a type that msgspec does not handle by itself."""
        ...

    def encoder(self) -> Encode:
        """Return a function from a value to bytes; it raises `CodecError`."""
        ...

    def decoder(self, kind: type[T]) -> Callable[[bytes], T]:
        """Return a strict function from bytes to a value of `kind`; it raises `CodecError`.

        Raises:
            TypeError: no decoder can be made for such a type.
        """
        ...
