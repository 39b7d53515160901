"""How a payload finds its codec again: a book from the stored name to the codec."""

from __future__ import annotations

import re
from collections.abc import Iterable

from taskharbor.codec.codec import Codec
from taskharbor.codec.formats import JsonCodec, MsgpackCodec
from taskharbor.errors import OptionError

_NAME = re.compile(r"[a-z0-9][a-z0-9+._-]{0,39}")


class CodecBook:
    """The codecs one harbor can read. JSON and MessagePack are always in it, so changing a default strands no job."""

    def __init__(self, codecs: Iterable[Codec] = ()) -> None:
        self._codecs: dict[str, Codec] = {}
        own: tuple[Codec, ...] = (JsonCodec(), MsgpackCodec())
        for codec in (*own, *codecs):
            self.add(codec)

    def add(self, codec: Codec) -> None:
        """Add a codec; one of the same name is replaced.

        Raises:
            OptionError: the name could not be stored with a payload.
        """
        checked_codec(codec)
        if not _NAME.fullmatch(codec.name):
            raise OptionError(
                f"a codec is named {codec.name!r}; names are 1 to 40 of a-z, 0-9, '+', '.', '_', '-', starting with a "
                "letter or digit, since the name is stored with each payload"
            )
        self._codecs[codec.name] = codec

    def find(self, name: str) -> Codec | None:
        """Return the codec of that name, or None."""
        return self._codecs.get(name)

    def names(self) -> list[str]:
        """Return the names of all codecs, sorted."""
        return sorted(self._codecs)


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
