"""What tells calls of one idempotency key apart: a digest of what was asked for, however it was written down.

Neither the codec, nor a layer such as encryption, nor the order of a set is in it. Nor is a parameter at its default:
a version that has one more sends the same call as before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import cast

import msgspec
from msgspec import UNSET

from taskharbor.codec import Codec, bare
from taskharbor.codec.hooks import enc_hook
from taskharbor.task.reading import Kind, Parameter

_encode = msgspec.json.Encoder(enc_hook=enc_hook, order="deterministic").encode
_UNKNOWN = (TypeError, ValueError, NotImplementedError)
"""Raised for a type that only a task's own codec knows."""


class Digests:
    """Of the calls of one task."""

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        """Note the defaults."""
        self._defaults: dict[str, bytes] = {}
        for parameter in parameters:
            if parameter.required:
                continue
            empty = {Kind.VAR_POSITIONAL: b"[]", Kind.VAR_KEYWORD: b"{}"}.get(parameter.kind)
            try:
                self._defaults[parameter.name] = empty or _encode(parameter.default)
            except _UNKNOWN:
                continue

    def of(self, arguments: msgspec.Struct, payload: bytes, codec: Codec) -> bytes:
        """Return 16 bytes for the arguments, of which `payload` is what the codec made.

        Raises:
            CodecError: a layer cannot read what it has written.
        """
        try:
            told = self._plain(arguments)
        except _UNKNOWN:
            told = bare(codec, [payload])[1][0]
        return hashlib.sha256(told).digest()[:16]

    def _plain(self, arguments: msgspec.Struct) -> bytes:
        if not self._defaults:
            return _encode(arguments)
        told: list[bytes] = []
        for name in arguments.__struct_fields__:
            value = cast("object", getattr(arguments, name))
            written = b"" if value is UNSET else _encode(value)
            if written and written != self._defaults.get(name):
                told.append(b'"%s":%s' % (name.encode(), written))
        return b"{%s}" % b",".join(told)


def plain(value: object, written: bytes, codec: Codec) -> bytes:
    """Return a value, of which `written` is what the codec made, as bytes that are the same whatever the codec.

    Raises:
        CodecError: a layer cannot read what it has written.
    """
    try:
        return _encode(value)
    except _UNKNOWN:
        return bare(codec, [written])[1][0]
