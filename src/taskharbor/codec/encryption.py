"""Encryption as a layer: AES-256 in Galois/Counter Mode (NIST SP 800-38D), with named keys that can be rotated.

    1 byte      the layout's version, 1
    1 byte      the length of the key's id
    n bytes     the key's id
    4 bytes     the key's check value: tells another key under the same id from bytes that were changed
    12 bytes    nonce, random for each value
    the rest    the inner codec's bytes, encrypted, and a tag of 16 bytes

All before the encrypted part is authenticated with it, and so is the codec's name. `cryptography` does the work.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from taskharbor.codec.codec import Codec, CodecError, LackError
from taskharbor.codec.wrapping import WrappingCodec, mark_of
from taskharbor.errors import MissingExtraError, OptionError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_SIZE = 32
"""Of a key, in bytes: AES-256."""

_VERSION = 1
_CHECK = 4
_NONCE = 12
_TAG = 16
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SUFFIX = re.compile(r"[a-z0-9][a-z0-9._-]{0,19}")
_SHOWN = 40
"""A key has more characters than that in every way of writing it."""


class EncryptedCodec(WrappingCodec):
    """Another codec's bytes, encrypted: arguments and results of jobs, unreadable in the store. Named `json+aes`.

    It hides what the inner codec wrote and nothing else. In the clear stay: names of tasks and queues, idempotency
    keys, `meta`, progress and logs, times, sizes, the messages and tracebacks of errors, and for a job with an
    idempotency key a digest of its arguments, by which a guess can be confirmed. A value is not bound to its job:
    whoever can write to the store can exchange two values of one codec, or put plain ones in their place.

    Nonces are random, so one key is good for 2**32 values; rotate it before (SP 800-38D, 8.3).
    """

    def __init__(
        self,
        inner: Codec | None = None,
        *,
        keys: Mapping[str, bytes],
        active: str | None = None,
        suffix: str = "aes",
    ) -> None:
        """Put encryption around a codec, JSON by default.

        Args:
            inner: whose bytes are encrypted; `ZstdCodec()` to compress them first.
            keys: 32 bytes each, by an id that is stored with each value. All of them are read.
            active: the id of the key to write with; may be left out if there is only one.
            suffix: what it adds to the inner name. Another one for keys that only some tasks have, since within one
                application each name has to mean one set of keys.

        Raises:
            MissingExtraError: `cryptography` is not installed.
            OptionError: a key, an id or the suffix that cannot be. Never tells a key.
        """
        super().__init__(inner)
        _check_keys(keys)
        if active is None and len(keys) > 1:
            raise OptionError(
                f"EncryptedCodec: active= has to say which of the keys {_listed(keys)} writes; all of them are read"
            )
        self._active = next(iter(keys)) if active is None else active
        if not isinstance(active, (str, type(None))) or self._active not in keys:
            raise OptionError(
                f"EncryptedCodec(active={_shown(active)}): expected the id of a key, one of {_listed(keys)}"
            )
        if not isinstance(suffix, str) or not _SUFFIX.fullmatch(suffix):
            raise OptionError(
                f"EncryptedCodec(suffix={_shown(suffix)}): expected 1 to 20 of a-z, 0-9, '.', '_', '-', for example "
                "'aes'"
            )
        self._suffix = suffix
        # Only what works with them is kept, so that nothing can print them.
        self._ciphers = {key_id: _cipher(key) for key_id, key in keys.items()}
        self._checks = {key_id: _check_value(key) for key_id, key in keys.items()}
        self._header = _header(self._active, self._checks[self._active])

    def __repr__(self) -> str:
        return f"<EncryptedCodec {self.name}, keys {_listed(self._ciphers)}, active {self._active!r}>"

    @property
    def suffix(self) -> str:
        """Return what it adds to the inner name: `aes`."""
        return self._suffix

    @property
    def mark(self) -> str:
        """Return the keys' ids and check values: a worker that gets a key is offered what waited for it."""
        keys = ",".join(f"{key_id}:{self._checks[key_id].hex()}" for key_id in sorted(self._checks))
        return f"{keys};{mark_of(self.inner)}"

    @property
    def conceals(self) -> bool:
        """Return True: what does not fit is told by place and type, without a word of what it holds."""
        return True

    def wrap(self, data: bytes) -> bytes:
        """Return the data encrypted with the active key."""
        header = self._header + os.urandom(_NONCE)
        return header + self._ciphers[self._active].encrypt(header[-_NONCE:], data, self._bound(header))

    def unwrap(self, data: bytes) -> bytes:
        """Return what was encrypted.

        Raises:
            CodecError: it was changed or cut off, or was written by another codec; foreign if it needs a key that is
                not here.
        """
        from cryptography.exceptions import InvalidTag

        if data[:1] != bytes([_VERSION]):
            told = f"of layout {data[0]}, and this version reads 1" if data else "empty"
            raise CodecError(f"it is no encrypted value that can be read: it is {told}", foreign=bool(data))
        key_end = 2 + (data[1] if len(data) > 1 else 0)
        check_end = key_end + _CHECK
        start = check_end + _NONCE
        if len(data) < start + _TAG:
            raise CodecError(f"it is cut off: {len(data)} bytes hold no encrypted value")
        cipher = self._ciphers[self._key_id(data[2:key_end], data[key_end:check_end])]
        try:
            return cipher.decrypt(data[check_end:start], data[start:], self._bound(data[:start]))
        except InvalidTag:
            raise CodecError(
                f"it was changed, cut off, or not written by {self.name}: its seal does not fit (the key is right)"
            ) from None

    def _key_id(self, stored: bytes, check: bytes) -> str:
        key_id = stored.decode("ascii", "backslashreplace")
        known = self._checks.get(key_id)
        if known is None:
            raise LackError(
                f"it is encrypted with the key {key_id!r}, which is not here (there are {_listed(self._ciphers)}); add "
                "it to EncryptedCodec(keys=...)"
            )
        if not hmac.compare_digest(known, check):
            raise LackError(
                f"it is encrypted with another key than the one that is here under the id {key_id!r}; give each key an "
                "id of its own"
            )
        return key_id

    def _bound(self, header: bytes) -> bytes:
        return header + self.name.encode()


def new_key() -> bytes:
    """Return a key, 32 bytes from the system's source of randomness."""
    return os.urandom(KEY_SIZE)


def key_text(key: bytes) -> str:
    """Return a key as text, base64, to be kept in an environment variable or a vault."""
    return base64.b64encode(key).decode("ascii")


def read_key(text: str) -> bytes:
    """Return the key that `key_text` wrote.

    Raises:
        OptionError: it is no key; does not tell the text.
    """
    _check_text(text)
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_SIZE:
        raise OptionError(
            f"read_key: expected the base64 of {KEY_SIZE} bytes, and got {len(text)} characters that are not; "
            "key_text(new_key()) makes one"
        ) from None
    return key


def _check_text(text: object) -> None:
    if not isinstance(text, str):
        told = "None: is the variable set?" if text is None else type(text).__name__
        raise OptionError(f"read_key: expected text, got {told}")


def _check_keys(keys: object) -> None:
    """Refuse what is no dict of ids to keys, whatever it is: it may be a key, or have one in a wrong place."""
    if not isinstance(keys, Mapping):
        raise OptionError(
            f"EncryptedCodec(keys=...): expected a dict of ids to keys, {{'2026-11': new_key()}}, and got a "
            f"{type(keys).__qualname__}"
        )
    if not keys:
        raise OptionError("EncryptedCodec(keys={}): expected at least one key, {'2026-11': new_key()}")
    for key_id, key in cast("Mapping[object, object]", keys).items():
        if not isinstance(key_id, str) or not _ID.fullmatch(key_id):
            raise OptionError(
                f"EncryptedCodec(keys=...): a key has the id {_shown(key_id)}; expected 1 to 64 letters, digits, '.', "
                "'_', '-', and the key as the value: {'2026-11': new_key()}"
            )
        if not isinstance(key, bytes) or len(key) != KEY_SIZE:
            told = f"{len(key)} bytes" if isinstance(key, bytes) else f"a {type(key).__qualname__}"
            raise OptionError(
                f"EncryptedCodec(keys=...): the key {_shown(key_id)} is {told}; expected {KEY_SIZE} bytes, from "
                "new_key() or read_key(text)"
            )


def _cipher(key: bytes) -> AESGCM:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise MissingExtraError(
            "EncryptedCodec needs cryptography; install it with pip install 'taskharbor[crypto]'",
            extra="crypto",
        ) from error
    return AESGCM(key)


def _shown(given: object) -> str:
    """Return what was given in the place of an id, for messages; not if a key could have been put there by mistake."""
    if isinstance(given, str):
        return (
            repr(given) if len(given) < _SHOWN else f"<{len(given)} characters, not shown: they may be a key>"
        )
    return f"<a {type(given).__qualname__}>"


def _check_value(key: bytes) -> bytes:
    # Not the usual block of zeros encrypted: in this mode that is what the tag is computed with.
    return hmac.digest(key, b"taskharbor key check", "sha256")[:_CHECK]


def _header(key_id: str, check: bytes) -> bytes:
    return bytes([_VERSION, len(key_id)]) + key_id.encode("ascii") + check


def _listed(keys: Mapping[str, object]) -> str:
    return ", ".join(repr(key_id) for key_id in keys)
