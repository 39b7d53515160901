"""How a payload finds its codec again: a book from the stored name to the codec."""

from __future__ import annotations

import re
from collections.abc import Iterable

from taskharbor.codec.codec import Codec
from taskharbor.codec.formats import JsonCodec, MsgpackCodec
from taskharbor.codec.guard import checked_codec
from taskharbor.codec.wrapping import WrappingCodec, mark_of
from taskharbor.errors import OptionError

_NAME = re.compile(r"[a-z0-9][a-z0-9+._-]{0,39}")


class CodecBook:
    """The codecs one harbor can read.

    JSON and MessagePack are always in it, and of a layer also what it is around; and a layer is read around any of
    them. So changing a default, or adding a layer, strands no job.
    """

    def __init__(self, codecs: Iterable[Codec] = ()) -> None:
        self._codecs: dict[str, Codec] = {}
        self._given: set[str] = set()
        """Names of those that were added themselves: what is found below another does not take their place."""
        self._layers: dict[str, WrappingCodec] = {}
        self._derived: dict[str, Codec] = {}
        self._marks: dict[str, str] = {}
        own: tuple[Codec, ...] = (JsonCodec(), MsgpackCodec())
        for codec in own:
            self._codecs[codec.name] = codec
        for codec in codecs:
            self.add(codec)

    def add(self, codec: Codec) -> None:
        """Add a codec, and what it is around; one of the same name is replaced.

        Raises:
            OptionError: the name could not be stored with a payload; or two of one name have different marks, such as
                different keys.
        """
        checked_codec(codec)
        name: object = codec.name
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise OptionError(
                f"a codec is named {name!r}; names are 1 to 40 of a-z, 0-9, '+', '.', '_', '-', starting with a "
                "letter or digit, since the name is stored with each payload"
            )
        if self._codecs.get(name) is codec:
            return
        mark = mark_of(codec)
        if name in self._given and mark != self._marks[name]:
            raise OptionError(
                f"two codecs are named {name!r} and read different things, for example by different keys; put all keys "
                "into one, or give one of them another name (EncryptedCodec(suffix=...)); give two with limits the "
                "same limit"
            )
        self._codecs[name] = codec
        self._marks[name] = mark
        self._given.add(name)
        self._derived.clear()
        while isinstance(codec, WrappingCodec):
            self._layers.setdefault(codec.suffix, codec)
            codec = codec.inner
            if codec.name not in self._given:
                self._codecs[codec.name] = codec
                self._marks[codec.name] = mark_of(codec)

    def find(self, name: str) -> Codec | None:
        """Return the codec of that name, or None."""
        found = self._codecs.get(name) or self._derived.get(name)
        if found is None and self._layers and _NAME.fullmatch(name):
            stem, _, suffix = name.rpartition("+")
            layer = self._layers.get(suffix)
            inner = None if layer is None or not stem else self.find(stem)
            if layer is not None and inner is not None:
                # Kept, since coders are made once for each codec.
                found = self._derived.setdefault(name, layer.over(inner))
        return found

    def names(self) -> list[str]:
        """Return the names of all codecs, sorted; without those of layers around others than they were put around."""
        return sorted(self._codecs)

    def abilities(self) -> list[str]:
        """Return what decides what it can read: each name with its mark, sorted."""
        return [f"{name} {self._marks.get(name, '')}".rstrip() for name in self.names()]


def found_codec(name: str, own: Codec | None, book: CodecBook) -> Codec | None:
    """Return what a task's payloads are read with: its own codec if that has the name, else one of the book's.

    The task's own comes with what it is around, too, as if it were in the book. None if there is none.
    """
    if own is None:
        return book.find(name)
    return own if own.name == name else (book.find(name) or CodecBook([own]).find(name))
