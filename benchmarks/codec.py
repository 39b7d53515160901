"""The wire formats: encode and decode a small and a large payload, ours against bare msgspec, and one another."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

import msgspec

from benchmarks.fixtures import Mail, micros_each
from benchmarks.measure import Figures, Measure, Settings, Theme
from taskharbor import Codec, JsonCodec, MsgpackCodec


class Order(msgspec.Struct):
    """A payload of about 10 kB in JSON."""

    id: int
    lines: list[Mail]
    tags: dict[str, float]


_SMALL = Mail("user@example.com", 42)
_LARGE = Order(
    7,
    [Mail(f"customer-{n}@example.com", n * 1009) for n in range(180)],
    {f"dimension-{n}": n / 7 for n in range(45)},
)


@contextmanager
def theme(settings: Settings) -> Generator[Theme]:
    """Open the theme."""
    small, large = settings.jobs, max(settings.jobs // 50, 1)
    codecs: tuple[Codec, ...] = (JsonCodec(), MsgpackCodec())
    bare = {
        "json": (msgspec.json.Encoder().encode, msgspec.json.Decoder),
        "msgpack": (msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder),
    }
    subjects: list[Callable[[], Figures]] = []
    for codec in codecs:
        encode, decoder = bare[codec.name]
        subjects += [
            _subject(settings, f"{codec.name} small", small, codec.encoder(), codec.decoder(Mail), _SMALL),
            _subject(settings, f"{codec.name} large", large, codec.encoder(), codec.decoder(Order), _LARGE),
            _subject(settings, f"bare {codec.name} small", small, encode, decoder(Mail).decode, _SMALL),
            _subject(settings, f"bare {codec.name} large", large, encode, decoder(Order).decode, _LARGE),
        ]
    sizes = {
        "small": f"{len(msgspec.json.encode(_SMALL))} B",
        "large": f"{len(msgspec.json.encode(_LARGE)) / 1000:.0f} kB",
    }
    yield Theme(
        name="codec",
        subjects=subjects,
        measures=[
            Measure(
                name=f"codec {ours}, {size} : {told}",
                unit="µs",
                ours=f"{ours} {kind}",
                ceiling=f"{ceiling} {kind}",
                better="less",
            )
            for kind, size in sizes.items()
            for ours, ceiling, told in (
                ("json", "bare json", "bare msgspec"),
                ("msgpack", "bare msgpack", "bare msgspec"),
                ("msgpack", "json", "our json"),
            )
        ],
    )


def _subject(
    settings: Settings,
    name: str,
    times: int,
    encode: Callable[[object], bytes],
    decode: Callable[[bytes], object],
    value: object,
) -> Callable[[], Figures]:
    def work() -> None:
        for _ in range(times):
            decode(encode(value))

    def run() -> Figures:
        return {name: micros_each(times, work, settings.clock)}

    return run
