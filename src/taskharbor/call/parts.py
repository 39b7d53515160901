"""Results of many steps as one value: the format of a list that is gathered from steps of any codecs.

It is internal: what a step that only gathers returns, and what `FlowHandle.result` and later steps take apart again.
"""

from __future__ import annotations

import msgspec

from taskharbor.step import Input

PARTS = "taskharbor.parts"
"""The name of the format, where others have their codec's."""


class Parts(msgspec.Struct, frozen=True, array_like=True):
    """Results in order, each in its own codec."""

    inputs: tuple[Input, ...]
    tolerant: bool = False
    """They are told as `Success` or `Failure`."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Parts).decode


def write_parts(parts: Parts) -> bytes:
    """Return parts as bytes."""
    return _encode(parts)


def read_parts(data: bytes) -> Parts:
    """Return what `write_parts` wrote."""
    return _decode(data)
