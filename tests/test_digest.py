"""What tells calls of one idempotency key apart: what was asked for, and not how it was written down."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TypeVar

import msgspec
import pytest

from taskharbor import Flow, Harbor, KeyConflict, MsgpackCodec, Registry, chain, each, task
from taskharbor.call import Options
from taskharbor.codec import Codec, Encode
from taskharbor.codec.encryption import EncryptedCodec, new_key

T = TypeVar("T")
AES = EncryptedCodec(keys={"a": new_key()})


class Money:
    """Known to `Cents` only."""

    def __init__(self, cents: int) -> None:
        self.cents = cents

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and self.cents == other.cents

    def __hash__(self) -> int:
        return self.cents


class Cents:
    """A codec that knows money."""

    name = "cents"

    def supports(self, kind: type[object]) -> bool:
        return kind is Money

    def encoder(self) -> Encode:
        return msgspec.json.Encoder(enc_hook=lambda money: money.cents).encode

    def decoder(self, kind: type[T]) -> Callable[[bytes], T]:
        return msgspec.json.Decoder(kind, dec_hook=lambda made, cents: made(cents)).decode


registry, newer = Registry(), Registry()


@task(name="double", registry=registry)
def double(n: int) -> int:
    return 2 * n


@task(name="total", registry=registry)
def total(numbers: list[int]) -> int:
    return sum(numbers)


@task(name="mail", registry=registry)
def mail(to: str) -> None: ...


@task(name="mail", registry=newer)
def mail_with_more(to: str, *also: str, copies: int | bool = 1, **headers: str) -> None: ...


@task(name="pay", registry=registry, codec=EncryptedCodec(Cents(), keys={"a": new_key()}))
def pay(money: Money) -> None: ...


def in_a_list() -> Flow[int]:
    return chain(double.s(1), lambda two: total.s([two, 5]))


def for_each() -> Flow[int]:
    return chain(each(double).s([1, 2]), total)


@pytest.mark.parametrize("second", [None, AES, MsgpackCodec()], ids=["json", "aes", "msgpack"])
@pytest.mark.parametrize("first", [None, AES], ids=["json", "aes"])
@pytest.mark.parametrize("flow", [in_a_list, for_each])
def test_the_same_flow_in_any_codec_has_the_same_key(
    flow: Callable[[], Flow[int]], first: Codec | None, second: Codec | None
) -> None:
    with Harbor("memory://", registry=registry, codec=first) as harbor:
        assert flow().configure(key="k").enqueue().created

        with Harbor(harbor.driver, registry=registry, codec=second):
            assert not flow().configure(key="k").enqueue().created


@pytest.mark.parametrize(
    "other", [lambda: chain(each(double).s([1, 3]), total), lambda: chain(each(double).s([12]), total)]
)
def test_a_flow_over_another_list_is_another(other: Callable[[], Flow[int]]) -> None:
    with Harbor("memory://", registry=registry, codec=AES):
        for_each().configure(key="k").enqueue()

        with pytest.raises(KeyConflict):
            other().configure(key="k").enqueue()


def test_a_type_that_only_a_codec_knows_is_the_same_under_its_encryption() -> None:
    with Harbor("memory://", registry=registry):
        assert pay.options(key="k").enqueue(Money(3)).created
        assert not pay.options(key="k").enqueue(Money(3)).created

        with pytest.raises(KeyConflict):
            pay.options(key="k").enqueue(Money(4))


def test_a_version_with_more_parameters_sends_the_same_call_as_before() -> None:
    with Harbor("memory://", registry=registry) as harbor:
        mail.options(key="k").enqueue("ada")

        with Harbor(harbor.driver, registry=newer):
            assert not mail_with_more.options(key="k").enqueue("ada").created
            keyed = mail_with_more.options(key="k")
            for other in (
                keyed.s("ada", copies=2),
                keyed.s("ada", copies=True),
                keyed.s("ada", "bob"),
                keyed.s("ada", reply="bob"),
            ):
                with pytest.raises(KeyConflict):
                    other.enqueue()


def test_calls_without_defaults_have_the_digest_that_earlier_releases_stored() -> None:
    @task(name="sent", registry=Registry())
    def sent(to: str, at: set[int], copies: int = 1) -> None: ...

    definition = sent.definition
    arguments = definition.bind(("ada", {2, 1}), {"copies": 2})
    job = definition.new_job(arguments, Options(key="k"), MsgpackCodec(), check=True)

    assert hashlib.sha256(b'{"to":"ada","at":[1,2],"copies":2}').digest()[:16] == job.digest
