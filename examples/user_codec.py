"""A wire format of your own, and a layer of your own around it: property lists, zipped."""

import gzip
import plistlib
import zlib
from collections.abc import Callable
from datetime import date, timedelta
from typing import TypeVar
from xml.parsers.expat import ExpatError

import msgspec

from taskharbor import CodecError, Harbor, PayloadError, task
from taskharbor.codec import Encode, WrappingCodec
from taskharbor.codec.hooks import dec_hook, enc_hook, hook_for

T = TypeVar("T")


class PlistCodec:
    """Property lists (XML), which other programs on a Mac read. They hold no null."""

    name = "plist"

    def supports(self, kind: type[object]) -> bool:
        """Return whether a type that msgspec does not know was registered."""
        return hook_for(kind) is not None

    def encoder(self) -> Encode:
        """Return a function from a value to a property list."""

        def encode(value: object) -> bytes:
            plain = msgspec.to_builtins(value, builtin_types=(bytes,), enc_hook=enc_hook)
            try:
                return plistlib.dumps(plain, fmt=plistlib.FMT_XML)
            except (TypeError, OverflowError) as error:
                raise CodecError(f"a property list cannot hold it: {error}") from error

        return encode

    def decoder(self, kind: type[T]) -> Callable[[bytes], T]:
        """Return a strict function from a property list to a value of `kind`."""

        def decode(data: bytes) -> T:
            try:
                plain = plistlib.loads(data, fmt=plistlib.FMT_XML)
                return msgspec.convert(plain, kind, builtin_types=(bytes,), dec_hook=dec_hook)
            except (plistlib.InvalidFileException, ExpatError, ValueError) as error:
                raise CodecError(str(error)) from error

        return decode


class GzipCodec(WrappingCodec):
    """Another codec's bytes, zipped."""

    @property
    def suffix(self) -> str:
        """Return what it adds to the other's name."""
        return "gzip"

    def wrap(self, data: bytes) -> bytes:
        """Return what is stored."""
        return gzip.compress(data, mtime=0)

    def unwrap(self, data: bytes) -> bytes:
        """Return the other codec's bytes."""
        try:
            return gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise CodecError(f"it cannot be unzipped: {error}") from error


@task
def remind(who: list[str], day: date, note: str | None = "") -> str:
    """Return a reminder."""
    return f"{', '.join(who)}: {day:%d %B}"


def main() -> None:
    """Send one job in the new format, one that it cannot hold, and read one of before."""
    with Harbor("memory://") as before:
        old = remind.enqueue(["Ada"], date(2026, 12, 10))

        with Harbor(before.driver, codec=GzipCodec(PlistCodec())) as harbor, harbor.worker_thread():
            job = remind.enqueue(["Grace", "Ada"], date(2026, 12, 9))
            print(harbor.jobs.get(old.id).codec, "->", remind.handle(old.id).result(timedelta(seconds=5)))
            print(harbor.jobs.get(job.id).codec, "->", job.result(timedelta(seconds=5)))
            try:
                remind.enqueue(["Ada"], date(2026, 12, 10), note=None)
            except PayloadError as error:
                print(f"refused: {error.reason}")


if __name__ == "__main__":
    main()
