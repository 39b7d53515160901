"""What messages may tell of values that a codec hides: their place and their types, and nothing that they hold.

Messages end up in the store and in logs, in the clear. msgspec quotes what is no member of an enum, hooks and checks of
users quote what they like.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol, TypeVar, runtime_checkable

from taskharbor.codec.codec import CodecError

G = TypeVar("G")
M = TypeVar("M")

_HARMLESS = re.compile(
    r"Expected `[\w |<>.=-]+`(, got `[\w-]+`| (of length )?[<>=]+ -?[\d.]+)?|Object missing required field `\w+`"
)
"""Messages of msgspec that are made of types alone."""


@runtime_checkable
class Concealing(Protocol):
    """A codec whose values are not to be quoted in messages; implementing it is optional."""

    @property
    def conceals(self) -> bool:
        """Return whether what it writes is to stay unreadable to those who have no key."""
        ...


def conceals(codec: object) -> bool:
    """Return whether a codec's values are not to be quoted."""
    return isinstance(codec, Concealing) and codec.conceals


def concealed(error: CodecError) -> CodecError:
    """Return the error without what may be quoted from a value. Raise it `from None`."""
    if _HARMLESS.fullmatch(str(error)):
        return CodecError(str(error), path=error.path, foreign=error.foreign)
    return CodecError(
        "the value does not fit (why is left out: it may quote what is encrypted)",
        path=error.path,
        foreign=error.foreign,
    )


def concealing(code: Callable[[G], M]) -> Callable[[G], M]:
    """Return an encoder or a decoder whose errors quote nothing."""

    def quiet(given: G) -> M:
        try:
            return code(given)
        except CodecError as error:
            raise concealed(error) from None

    return quiet
