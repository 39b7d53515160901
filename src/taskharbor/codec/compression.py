"""Compression as a layer: Zstandard (RFC 8878), from Python 3.14's library or `backports.zstd` before it.

    a byte     what follows
    0          the inner codec's bytes as they are: short ones, and those that would not shrink
    1          one Zstandard frame, with its checksum

What is read back is bounded, since a few kilobytes can unfold to gigabytes.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

from taskharbor.codec.codec import Codec, CodecError
from taskharbor.codec.wrapping import WrappingCodec, mark_of
from taskharbor.errors import MissingExtraError, OptionError

if TYPE_CHECKING:
    from types import ModuleType

_AS_IT_IS = b"\x00"
_FRAME = b"\x01"

DEFAULT_LIMIT = 256 * 1024 * 1024
"""How large a value may be, in bytes, before it is compressed."""


class ZstdCodec(WrappingCodec):
    """Another codec's bytes, compressed where that helps. Named after it: `json+zstd`.

    JSON of a few kilobytes shrinks to a half or a fifth. What is already compressed, or encrypted, does not: so put
    this layer inside of an encryption. (The other order works, and only costs time.)
    """

    def __init__(
        self,
        inner: Codec | None = None,
        *,
        threshold: int = 1024,
        level: int = 3,
        limit: int = DEFAULT_LIMIT,
    ) -> None:
        """Put compression around a codec, JSON by default.

        Args:
            inner: whose bytes are compressed.
            threshold: values of fewer bytes are stored as they are.
            level: 1 (fast) to 22 (small, and far slower); negative ones are faster still.
            limit: values of more bytes, uncompressed, are refused both when they are written and when they are read.

        Raises:
            MissingExtraError: before Python 3.14, `backports.zstd` is not installed.
            OptionError: a number that cannot be.
        """
        super().__init__(inner)
        zstd = _zstd()
        lowest, highest = zstd.CompressionParameter.compression_level.bounds()
        if not lowest <= level <= highest:
            raise OptionError(f"ZstdCodec(level={level}): expected a level from {lowest} to {highest}")
        if threshold < 0:
            raise OptionError(f"ZstdCodec(threshold={threshold}): expected a number of bytes, 0 or more")
        if limit < 1:
            raise OptionError(f"ZstdCodec(limit={limit}): expected a number of bytes, 1 or more")
        self._threshold = threshold
        self._limit = limit
        self._options: dict[int, int] = {
            zstd.CompressionParameter.compression_level: level,
            # Else a damaged frame may unfold to something else that reads well.
            zstd.CompressionParameter.checksum_flag: 1,
        }
        self._zstd = zstd

    def __repr__(self) -> str:
        return f"<ZstdCodec {self.name}>"

    @property
    def suffix(self) -> str:
        """Return `zstd`."""
        return "zstd"

    @property
    def mark(self) -> str:
        """Return the limit: a worker with a higher one is offered what waited for it."""
        return f"{self._limit};{mark_of(self.inner)}"

    def wrap(self, data: bytes) -> bytes:
        """Return the data compressed, or as it is where that is shorter; raises `CodecError` beyond the limit."""
        if len(data) > self._limit:
            raise CodecError(
                f"it takes {len(data):,} bytes before it is compressed, and ZstdCodec(limit={self._limit:,}) allows no "
                "more to be read back"
            )
        if len(data) >= self._threshold:
            # A compressor for each call: one that is kept cannot be shared between threads.
            packed: bytes = self._zstd.compress(data, options=self._options)
            if len(packed) < len(data):
                return _FRAME + packed
        return _AS_IT_IS + data

    def unwrap(self, data: bytes) -> bytes:
        """Return what was compressed; raises `CodecError` for what is damaged, or unfolds beyond the limit."""
        kind = data[:1]
        if kind == _AS_IT_IS:
            return data[1:]
        if kind != _FRAME:
            told = f"begins with byte {data[0]}" if data else "is empty"
            # A later version may know more kinds.
            raise CodecError(
                f"it {told}, which is no compressed value that this version reads", foreign=bool(data)
            )
        unfolding = self._zstd.ZstdDecompressor()
        try:
            unfolded: bytes = unfolding.decompress(data[1:], max_length=self._limit + 1)
        except self._zstd.ZstdError as error:
            raise CodecError(f"it cannot be decompressed: {error}") from error
        except MemoryError as error:
            raise CodecError("there is not the memory here to decompress it", foreign=True) from error
        if len(unfolded) > self._limit:
            # It was written under a higher limit.
            raise CodecError(
                f"it unfolds to more than the {self._limit:,} bytes of ZstdCodec(limit=...)", foreign=True
            )
        if not unfolding.eof:
            raise CodecError("it cannot be decompressed: it ends in the middle")
        if unfolding.unused_data:
            raise CodecError("it cannot be decompressed: something follows its end")
        return unfolded


def _zstd() -> ModuleType:
    name = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingExtraError(
            f"ZstdCodec needs {name}; install it with pip install 'taskharbor[zstd]' (from Python 3.14 it is part of "
            "Python, unless that was built without libzstd)",
            extra="zstd",
        ) from error
