"""Which codec a payload finds, and codecs of the user's own: for a harbor, and for a task."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import TypeVar

import pytest

from taskharbor import (
    Codec,
    CodecError,
    Harbor,
    JsonCodec,
    MsgpackCodec,
    OptionError,
    PayloadError,
    Registry,
    task,
)
from taskharbor.codec import CodecBook, Encode
from tests.fixtures.support import untyped

T = TypeVar("T")


class ZlibCodec:
    """Another codec's bytes, compressed: what a user writes by the protocol alone."""

    def __init__(self, inner: Codec, name: str | None = None) -> None:
        self._inner = inner
        self._name = name if name is not None else f"{inner.name}+zlib"

    @property
    def name(self) -> str:
        return self._name

    def supports(self, kind: type[object]) -> bool:
        return self._inner.supports(kind)

    def encoder(self) -> Encode:
        encode = self._inner.encoder()
        return lambda value: zlib.compress(encode(value))

    def decoder(self, kind: type[T]) -> Callable[[bytes], T]:
        decode = self._inner.decoder(kind)

        def expand(data: bytes) -> T:
            try:
                return decode(zlib.decompress(data))
            except zlib.error as error:
                raise CodecError(f"not compressed: {error}", foreign=True) from error

        return expand


def test_json_and_messagepack_are_in_every_book() -> None:
    assert ["json", "msgpack"] == CodecBook().names()


def test_a_codec_is_found_by_its_name() -> None:
    packed = ZlibCodec(JsonCodec())
    book = CodecBook([packed])

    assert packed is book.find("json+zlib")
    assert book.find("json+gzip") is None
    assert ["json", "json+zlib", "msgpack"] == book.names()


def test_a_codec_of_the_same_name_replaces_the_first() -> None:
    mine = ZlibCodec(JsonCodec(), "json")

    assert mine is CodecBook([mine]).find("json")


@pytest.mark.parametrize("name", ["a", "9", "json+zlib", "aes.gcm-1_x", "a" * 40])
def test_a_name_that_can_be_stored_is_accepted(name: str) -> None:
    assert name in CodecBook([ZlibCodec(JsonCodec(), name)]).names()


@pytest.mark.parametrize("name", ["", "JSON", "a" * 41, "+zlib", "a b", "a/b", "a\n", "jsön", "a\x00"])
def test_a_name_that_cannot_be_stored_is_refused(name: str) -> None:
    with pytest.raises(OptionError, match=r"a codec is named .*stored with each payload"):
        CodecBook([ZlibCodec(JsonCodec(), name)])


@pytest.mark.parametrize("wrong", ["json", 5, None, JsonCodec], ids=repr)
def test_what_is_no_codec_is_refused(wrong: object) -> None:
    with pytest.raises(OptionError):
        CodecBook([untyped(wrong)])


@pytest.mark.parametrize("wrong", ["json", 5, JsonCodec], ids=repr)
def test_a_harbor_and_a_task_refuse_what_is_no_codec(wrong: object) -> None:
    with pytest.raises(OptionError, match=r"expected a codec, for example JsonCodec\(\)"):
        Harbor("memory://", codec=untyped(wrong))
    with pytest.raises(OptionError, match=r"expected a codec, for example JsonCodec\(\)"):
        task(codec=untyped(wrong), registry=Registry())


def test_a_harbor_writes_in_its_codec_and_names_it_with_the_payload() -> None:
    registry = Registry()

    @task(registry=registry)
    def double(x: int) -> int:
        return 2 * x

    for codec, payload in (
        (JsonCodec(), b'{"x":4}'),
        (MsgpackCodec(), b"\x81\xa1x\x04"),
        (ZlibCodec(JsonCodec()), zlib.compress(b'{"x":4}')),
    ):
        with Harbor("memory://", registry=registry, codec=codec) as harbor:
            record = harbor.jobs.get(double.enqueue(4).id)

            assert (codec.name, payload) == (record.codec, record.payload)


def test_a_tasks_own_codec_comes_before_the_harbors() -> None:
    registry = Registry()

    @task(registry=registry, codec=ZlibCodec(MsgpackCodec()))
    def double(x: int) -> int:
        return 2 * x

    with Harbor("memory://", registry=registry) as harbor:
        record = harbor.jobs.get(double.enqueue(4).id)

    assert ("msgpack+zlib", b"\x81\xa1x\x04") == (record.codec, zlib.decompress(record.payload))


@pytest.mark.parametrize("on_task", [True, False], ids=["of the task", "of the harbor"])
def test_a_job_runs_and_its_result_comes_back_in_a_codec_of_the_users_own(*, on_task: bool) -> None:
    registry, packed = Registry(), ZlibCodec(JsonCodec())

    @task(registry=registry, codec=packed if on_task else None)
    def double(x: int) -> int:
        return 2 * x

    with Harbor("memory://", registry=registry, codec=None if on_task else packed) as harbor:
        handle = double.enqueue(4)
        harbor.run_until_idle()

        assert 8 == handle.result()
        assert "json+zlib" == harbor.jobs.get(handle.id).result_codec


def test_payloads_stay_readable_when_the_harbors_default_changes() -> None:
    registry = Registry()

    @task(registry=registry)
    def double(x: int) -> int:
        return 2 * x

    with Harbor("memory://", registry=registry, codec=MsgpackCodec()) as before:
        handle = double.enqueue(4)
        with Harbor(before.driver, registry=registry) as after:
            after.run_until_idle()

            assert 8 == double.handle(handle.id).result()


def test_a_result_in_a_codec_that_the_harbor_does_not_know_says_how_to_pass_it() -> None:
    registry = Registry()

    @task(registry=registry)
    def double(x: int) -> int:
        return 2 * x

    with Harbor("memory://", registry=registry, codec=ZlibCodec(JsonCodec())) as one:
        handle = double.enqueue(4)
        one.run_until_idle()
        with (
            Harbor(one.driver, registry=registry),
            pytest.raises(PayloadError, match=r"'json\+zlib', which this harbor does not know; .*codecs="),
        ):
            double.handle(handle.id).result()
        with Harbor(one.driver, registry=registry, codecs=[ZlibCodec(JsonCodec())]):
            assert 8 == double.handle(handle.id).result()


def test_a_payload_error_of_a_users_codec_keeps_its_path() -> None:
    registry = Registry()

    @task(registry=registry)
    def double(x: int) -> int:
        return 2 * x

    with (
        Harbor("memory://", registry=registry, codec=ZlibCodec(JsonCodec())),
        pytest.raises(PayloadError) as caught,
    ):
        double.enqueue(untyped("4"))

    assert "$.x" == caught.value.path


def test_a_codec_that_lacks_what_it_takes_says_so() -> None:
    with pytest.raises(CodecError) as caught:
        ZlibCodec(JsonCodec()).decoder(int)(b"4")

    assert caught.value.foreign
