"""Payloads that were tampered with, and codecs that raise: nothing is lost, no worker ends, the error is clear."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskharbor import (
    Codec,
    CodecError,
    Harbor,
    JobFailed,
    JobState,
    JsonCodec,
    MsgpackCodec,
    PayloadError,
    Registry,
    TaskDefinitionError,
    task,
)
from taskharbor.codec import Encode, WrappingCodec
from taskharbor.codec.compression import ZstdCodec
from taskharbor.codec.encryption import EncryptedCodec
from tests.fixtures.support import steady, untyped

T = TypeVar("T")

KEYS = {"1": bytes(range(32))}
VALUE = ["some", "values", "x" * 300]
SEALED: dict[str, Codec] = {
    "json+aes": EncryptedCodec(keys=KEYS),
    "msgpack+zstd+aes": EncryptedCodec(ZstdCodec(MsgpackCodec(), threshold=0), keys=KEYS),
    "json+aes+zstd": ZstdCodec(EncryptedCodec(keys=KEYS), threshold=0),
}
PATIENCE = timedelta(seconds=30)


@pytest.mark.parametrize("codec", SEALED.values(), ids=SEALED)
@given(data=st.data())
@settings(steady, max_examples=150)
def test_no_changed_byte_passes(codec: Codec, data: st.DataObject) -> None:
    sealed = bytearray(codec.encoder()(VALUE))
    at = data.draw(st.integers(0, len(sealed) - 1))
    sealed[at] ^= data.draw(st.integers(1, 255))

    with pytest.raises(CodecError):
        codec.decoder(list[str])(bytes(sealed))


@pytest.mark.parametrize("codec", [*SEALED.values(), ZstdCodec(threshold=0)], ids=[*SEALED, "json+zstd"])
@given(data=st.data())
@settings(steady, max_examples=80)
def test_nothing_cut_off_passes(codec: Codec, data: st.DataObject) -> None:
    sealed = codec.encoder()(VALUE)
    rest = sealed[: data.draw(st.integers(0, len(sealed) - 1))]

    with pytest.raises(CodecError):
        codec.decoder(list[str])(rest)


@pytest.mark.parametrize("codec", [*SEALED.values(), ZstdCodec(threshold=0)], ids=[*SEALED, "json+zstd"])
@given(junk=st.binary(max_size=200))
@settings(steady, max_examples=150)
def test_junk_is_refused_and_raises_nothing_else(codec: Codec, junk: bytes) -> None:
    with pytest.raises(CodecError):
        codec.decoder(list[str])(junk)


def test_values_that_were_exchanged_are_read_as_each_others_types_only() -> None:
    """A value is not bound to its job; that it has to fit the signature is all that stands in the way."""
    codec = SEALED["json+aes"]
    other = codec.encoder()({"to": "somebody else"})

    with pytest.raises(CodecError, match="Expected `array`"):
        codec.decoder(list[str])(other)
    assert {"to": "somebody else"} == codec.decoder(dict[str, str])(other)


# --- codecs that raise


class Odd(Exception):
    """Nothing that anybody expects."""


class Faulty:
    """JSON, but for one thing that goes wrong."""

    name = "faulty"

    def __init__(self, fault: str = "") -> None:
        self.fault = fault

    def supports(self, kind: type[object]) -> bool:
        if self.fault == "supports":
            raise Odd("asked")
        return False

    def encoder(self) -> Encode:
        if self.fault == "making the encoder":
            raise Odd("made")
        encode = JsonCodec().encoder()

        def run(value: object) -> bytes:
            if self.fault == "encoding":
                raise Odd("while encoding")
            if self.fault == "not bytes":
                return untyped("text")  # type: ignore[no-any-return]
            return encode(value)

        return run

    def decoder(self, kind: type[T]) -> Callable[[bytes], T]:
        if self.fault == "making the decoder":
            raise Odd("made")
        decode = JsonCodec().decoder(kind)

        def run(data: bytes) -> T:
            if self.fault == "decoding":
                raise Odd("while decoding")
            if self.fault == "exit":
                raise SystemExit(3)
            return decode(data)

        return run


class FaultyLayer(WrappingCodec):
    """A layer that cannot be taken off."""

    fault = True

    @property
    def suffix(self) -> str:
        return "faulty"

    def wrap(self, data: bytes) -> bytes:
        return data

    def unwrap(self, data: bytes) -> bytes:
        if self.fault:
            raise Odd("while unwrapping")
        return data


@pytest.mark.parametrize("fault", ["encoding", "not bytes", "decoding"])
def test_a_codec_that_raises_at_enqueue_is_told_to_the_caller(fault: str) -> None:
    registry = Registry()

    @task(name="mail", registry=registry)
    def mail(to: str) -> None: ...

    codec = Faulty()
    with Harbor("memory://", registry=registry, codec=codec) as harbor:
        codec.fault = fault
        with pytest.raises(PayloadError, match=r"the (en|de)coder of the codec 'faulty'"):
            mail.enqueue("me")

        assert [] == list(harbor.jobs.find())


@pytest.mark.parametrize("fault", ["making the encoder", "making the decoder", "supports"])
def test_a_codec_that_cannot_make_what_it_should_is_told_at_declaration(fault: str) -> None:
    with pytest.raises(TaskDefinitionError, match=r"task 'mail'.*"):

        @task(name="mail", registry=Registry(), codec=Faulty(fault))
        def mail(to: Odd) -> None: ...


@pytest.mark.parametrize("fault", ["decoding", "exit"])
def test_a_decoder_that_raises_ends_the_job_and_not_the_worker(fault: str) -> None:
    registry = Registry()
    codec = Faulty()

    @task(name="mail", registry=registry, codec=codec)
    def mail(to: str) -> str:
        return to

    @task(name="other", registry=registry)
    def other() -> str:
        return "ran"

    with Harbor("memory://", registry=registry) as harbor:
        job = mail.enqueue("me")
        codec.fault = fault
        neighbour = other.enqueue()
        harbor.run_until_idle()
        dead = harbor.jobs.get(job.id)
        codec.fault = ""
        harbor.jobs.requeue([job.id])
        harbor.run_until_idle()

        assert JobState.DEAD is dead.state
        assert dead.errors
        assert ("while decoding" if fault == "decoding" else "SystemExit") in dead.errors[-1].message
        assert "me" == job.result(timeout=PATIENCE)
        assert "ran" == neighbour.result(timeout=PATIENCE)


def test_an_encoder_that_raises_on_a_result_ends_the_job_and_not_the_worker() -> None:
    registry = Registry()
    codec = Faulty()

    @task(name="mail", registry=registry, codec=codec)
    def mail(to: str) -> str:
        codec.fault = "encoding"
        return to

    with Harbor("memory://", registry=registry) as harbor:
        job = mail.enqueue("me")
        harbor.run_until_idle()

        with pytest.raises(JobFailed, match="the encoder of the codec 'faulty' raised Odd: while encoding"):
            job.result(timeout=PATIENCE)


def test_a_codec_that_cannot_be_asked_in_this_worker_leaves_the_job_to_others() -> None:
    registry = Registry()

    @task(name="mail", registry=registry)
    def mail(to: str) -> str:
        return to

    with Harbor("memory://", registry=registry, codec=Faulty()) as harbor:
        job = mail.enqueue("me")
        worker = Harbor(harbor.driver, registry=registry, codecs=[Faulty("making the decoder")])
        worker.run_until_idle()
        left = harbor.jobs.get(job.id)

        assert JobState.PARKED is left.state
        assert "the decoder of the codec 'faulty' raised Odd: made" in left.reason


def test_a_layer_that_raises_is_told_in_one_word() -> None:
    registry = Registry()
    codec = FaultyLayer()
    codec.fault = False

    @task(name="mail", registry=registry)
    def mail(to: str) -> str:
        return to

    with Harbor("memory://", registry=registry, codec=codec) as harbor:
        job = mail.enqueue("me")
        codec.fault = True
        harbor.run_until_idle()

        with pytest.raises(JobFailed, match="raised Odd: while unwrapping"):
            job.result(timeout=PATIENCE)
