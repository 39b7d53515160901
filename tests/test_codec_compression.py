"""Compression as a layer around another codec."""

from __future__ import annotations

import random
import sys
import threading
from datetime import timedelta

import pytest

from taskharbor import (
    CodecError,
    Harbor,
    MissingExtraError,
    MsgpackCodec,
    OptionError,
    PayloadError,
    Registry,
    task,
)
from taskharbor.codec import CodecBook, bare, decoder_of
from taskharbor.codec.compression import ZstdCodec
from taskharbor.codec.encryption import EncryptedCodec, new_key
from tests.fixtures.support import untyped

TEXT = "the same words again and again, " * 200


def stored(codec: ZstdCodec, value: object) -> bytes:
    return codec.encoder()(value)


def test_it_is_named_after_what_it_is_around() -> None:
    assert "json+zstd" == ZstdCodec().name
    assert "msgpack+zstd" == ZstdCodec(MsgpackCodec()).name
    assert "json+zstd+aes" == EncryptedCodec(ZstdCodec(), keys={"1": new_key()}).name


def test_long_values_are_compressed_and_come_back() -> None:
    data = stored(ZstdCodec(), TEXT)

    assert len(data) < len(TEXT) / 10
    assert TEXT == ZstdCodec().decoder(str)(data)


@pytest.mark.parametrize("text", ["", "short", "x" * 1000])
def test_values_below_the_threshold_are_stored_as_they_are(text: str) -> None:
    data = stored(ZstdCodec(), text)

    assert text.encode() in data
    assert text == ZstdCodec().decoder(str)(data)


def test_what_would_not_shrink_is_stored_as_it_is() -> None:
    noise = random.Random(5).randbytes(4000)

    data = stored(ZstdCodec(MsgpackCodec()), noise)

    assert noise in data
    assert noise == ZstdCodec(MsgpackCodec()).decoder(bytes)(data)


def test_settings_of_a_writer_bind_no_reader() -> None:
    data = stored(ZstdCodec(threshold=0, level=19), TEXT)

    assert TEXT == ZstdCodec(threshold=10**9, level=-5).decoder(str)(data)


def test_what_unfolds_beyond_the_limit_is_refused_before_it_has() -> None:
    bomb = stored(ZstdCodec(limit=1 << 26), "0" * (1 << 25))
    assert len(bomb) < 5000

    with pytest.raises(CodecError, match="unfolds to more than the 65,536 bytes") as refused:
        ZstdCodec(limit=1 << 16).decoder(str)(bomb)

    assert refused.value.foreign  # it was written under a higher limit


def test_a_raised_limit_makes_another_build() -> None:
    """Else a worker that has it would not be offered what waited for it."""
    low, high = (CodecBook([ZstdCodec(limit=limit)]) for limit in (1 << 10, 1 << 20))

    assert low.abilities() != high.abilities()


def test_a_lack_of_memory_is_no_fault_of_the_value() -> None:
    class Exhausted(ZstdCodec):
        def unwrap(self, data: bytes) -> bytes:
            raise MemoryError

    for codec in (Exhausted(), ZstdCodec(Exhausted())):
        with pytest.raises(CodecError) as refused:
            decoder_of(codec, str)(ZstdCodec(ZstdCodec()).encoder()("x"))

        assert refused.value.foreign
        with pytest.raises(CodecError) as refused:
            bare(codec, [ZstdCodec(ZstdCodec()).encoder()("x")])

        assert refused.value.foreign


def test_what_could_not_be_read_back_is_not_written() -> None:
    with pytest.raises(CodecError, match="allows no more"):
        stored(ZstdCodec(limit=100), "x" * 200)


@pytest.mark.parametrize("damage", ["cut", "longer", "changed", "empty"])
def test_damaged_values_are_refused(damage: str) -> None:
    data = bytearray(stored(ZstdCodec(), TEXT))
    if damage == "cut":
        del data[-3:]
    elif damage == "longer":
        data += b"more"
    elif damage == "changed":
        data[len(data) // 2] ^= 1
    else:
        data.clear()

    with pytest.raises(CodecError) as refused:
        ZstdCodec().decoder(str)(bytes(data))

    assert not refused.value.foreign


def test_a_kind_of_a_later_version_is_left_to_it() -> None:
    with pytest.raises(CodecError, match="begins with byte 7") as refused:
        ZstdCodec().decoder(str)(b"\x07...")

    assert refused.value.foreign


@pytest.mark.parametrize(
    ("options", "told"),
    [({"level": 99}, "level=99"), ({"threshold": -1}, "threshold=-1"), ({"limit": 0}, "limit=0")],
)
def test_numbers_that_cannot_be_are_refused(options: dict[str, int], told: str) -> None:
    with pytest.raises(OptionError, match=told):
        untyped(ZstdCodec)(**options)


def test_a_missing_package_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = "compression" if sys.version_info >= (3, 14) else "backports"
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.setitem(sys.modules, f"{missing}.zstd", None)

    with pytest.raises(MissingExtraError, match=r"ZstdCodec needs"):
        ZstdCodec()


def test_threads_share_one_codec() -> None:
    codec = ZstdCodec(threshold=0)
    encode, decode = codec.encoder(), codec.decoder(str)
    wrong: list[str] = []

    def work(letter: str) -> None:
        for length in range(1, 400):
            text = letter * length
            if text != decode(encode(text)):
                wrong.append(text)

    threads = [threading.Thread(target=work, args=(letter,)) for letter in "abcdef"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert [] == wrong


def test_the_limit_of_a_payload_is_that_of_what_is_stored() -> None:
    registry = Registry()

    @task(name="long", registry=registry)
    def length(text: str) -> int:
        return len(text)

    text = "0" * (20 * 1024 * 1024)
    with (
        Harbor("memory://", registry=registry) as plain,
        pytest.raises(PayloadError, match="a job carries at most"),
    ):
        plain.enqueue_many([length.s(text)])
    with Harbor("memory://", registry=registry, codec=ZstdCodec()) as harbor:
        job = length.enqueue(text)
        harbor.run_until_idle()

        assert len(text) == job.result(timeout=timedelta(seconds=30))
