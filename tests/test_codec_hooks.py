"""Custom types: taught once, carried by every codec."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from taskharbor import (
    Codec,
    CodecError,
    Harbor,
    JsonCodec,
    MsgpackCodec,
    PayloadError,
    Registry,
    TaskDefinitionError,
    register_type,
    task,
)
from taskharbor.codec import hook_for
from tests.fixtures.support import untyped

both = pytest.mark.parametrize("codec", [JsonCodec(), MsgpackCodec()], ids=lambda codec: codec.name)


class Money:
    def __init__(self, cents: int) -> None:
        self.cents = cents

    @classmethod
    def parse(cls, text: str) -> Money:
        whole, _, part = text.partition(".")
        if not whole.isdigit():
            raise ValueError(f"{text!r} is no amount")
        return cls(int(whole) * 100 + int(part))

    def __str__(self) -> str:
        return f"{self.cents // 100}.{self.cents % 100:02}"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and untyped(other).cents == self.cents

    def __hash__(self) -> int:
        return hash(self.cents)


class Tip(Money): ...


class Account:
    """A custom type made of another."""

    def __init__(self, owner: str, balance: Money) -> None:
        self.owner, self.balance = owner, balance

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Account) and (other.owner, other.balance) == (self.owner, self.balance)

    __hash__ = None  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]


class AccountWire(msgspec.Struct):
    owner: str
    balance: Money


class Moody:
    """Its hooks raise what nobody foresees."""


class Invoice(msgspec.Struct):
    total: Money
    by_day: dict[str, list[Money]] = {}


def moody_encode(_: Moody) -> str:
    raise KeyError("lost")


def moody_decode(_: str) -> Moody:
    raise AttributeError("gone")


@pytest.fixture(autouse=True)
def taught() -> Iterator[None]:
    register_type(Money, wire=str, encode=str, decode=Money.parse)
    register_type(
        Account,
        wire=AccountWire,
        encode=lambda account: AccountWire(account.owner, account.balance),
        decode=lambda wire: Account(wire.owner, wire.balance),
    )
    register_type(Moody, wire=str, encode=moody_encode, decode=moody_decode)
    yield
    hooks: dict[type[object], object] = untyped(msgspec_hooks())
    for kind in (Money, Account, Moody):
        hooks.pop(kind, None)


def msgspec_hooks() -> object:
    from taskharbor.codec import hooks

    return untyped(hooks)._hooks


def through(codec: Codec, kind: object, value: object) -> object:
    return codec.decoder(untyped(kind))(codec.encoder()(value))


@both
def test_a_registered_type_comes_out_as_it_went_in(codec: Codec) -> None:
    assert Money(1250) == through(codec, Money, Money(1250))
    assert codec.supports(Money)


@both
def test_it_does_so_within_other_types(codec: Codec) -> None:
    invoice = Invoice(Money(1), {"monday": [Money(2), Money(3)]})

    assert invoice == through(codec, Invoice, invoice)


@both
def test_its_wire_type_may_hold_another_registered_type(codec: Codec) -> None:
    account = Account("ann", Money(99))

    assert account == through(codec, Account, account)


@both
def test_it_fits_into_a_union_with_none(codec: Codec) -> None:
    assert Money(5) == through(codec, Money | None, Money(5))
    assert through(codec, Money | None, None) is None


@both
def test_a_subclass_is_encoded_by_its_parents_hook(codec: Codec) -> None:
    assert Money(5) == through(codec, Money, Tip(5))


@both
def test_a_subclass_cannot_be_declared_without_a_hook_of_its_own(codec: Codec) -> None:
    assert not codec.supports(Tip)


@both
def test_a_decode_that_raises_value_error_makes_the_payload_bad_with_path_and_message(codec: Codec) -> None:
    data = codec.encoder()({"total": "1.00", "by_day": {"monday": ["2.00", "x"]}})

    with pytest.raises(CodecError, match="'x' is no amount") as caught:
        codec.decoder(Invoice)(data)

    assert "$.by_day[...][1]" == caught.value.path


@both
def test_the_wire_type_is_checked_strictly_before_decode_sees_it(codec: Codec) -> None:
    with pytest.raises(CodecError, match="Expected `str`, got `int`") as caught:
        codec.decoder(Invoice)(codec.encoder()({"total": 5}))

    assert "$.total" == caught.value.path


@both
def test_what_a_hook_raises_without_warning_is_a_codec_error_that_tells_it(codec: Codec) -> None:
    with pytest.raises(CodecError, match="KeyError: 'lost'"):
        codec.encoder()(Moody())
    with pytest.raises(CodecError, match="AttributeError: gone"):
        codec.decoder(Moody)(codec.encoder()("x"))


def test_registering_again_replaces_the_hook() -> None:
    register_type(Money, wire=int, encode=lambda money: money.cents, decode=Money)

    assert b"1250" == JsonCodec().encoder()(Money(1250))
    assert Money(1250) == through(JsonCodec(), Money, Money(1250))


def test_a_hook_belongs_to_a_class_and_nothing_else() -> None:
    found = hook_for(Money)

    assert found is not None
    assert (Money, str) == (found.kind, found.wire)
    assert hook_for(Money(1)) is None
    assert hook_for(list[Money]) is None


def test_a_task_may_take_and_return_a_registered_type() -> None:
    registry = Registry()

    @task(registry=registry)
    def pay(amount: Money, tips: list[Money] | None = None) -> Account:
        return Account("ann", amount)

    with Harbor("memory://", registry=registry) as harbor:
        handle = pay.enqueue(Money(1250), tips=[Tip(5)])

        assert b'{"amount":"12.50","tips":["0.05"]}' == harbor.jobs.get(handle.id).payload


def test_a_schema_shows_the_wire_type_and_names_the_python_type() -> None:
    @task(registry=Registry())
    def pay(amount: Money) -> None: ...

    (body,) = untyped(pay.schema())["$defs"].values()

    assert {"type": "string", "x-python-type": f"{__name__}.Money"} == body["properties"]["amount"]


def test_a_task_with_an_unknown_type_is_refused_naming_the_parameter_the_type_and_the_way_out() -> None:
    class Strange: ...

    def take(things: list[Strange]) -> None: ...

    with pytest.raises(TaskDefinitionError) as caught:
        task(registry=Registry())(untyped(take))

    told = str(caught.value)
    assert "parameter 'things'" in told
    assert "Strange is nothing that json can carry" in told
    assert "taskharbor.register_type(KIND, wire=..., encode=..., decode=...)" in told


def test_a_bad_amount_at_enqueue_names_task_and_path() -> None:
    class Odd(Money):
        def __str__(self) -> str:
            return "x"

    @task(registry=Registry())
    def pay(amount: Money) -> None: ...

    with Harbor("memory://", registry=Registry()), pytest.raises(PayloadError) as caught:
        pay.enqueue(Odd(1))

    assert ("$.amount", "'x' is no amount") == (caught.value.path, caught.value.reason)
    assert pay.name in str(caught.value)


class Native(msgspec.Struct):
    amount: int


@pytest.mark.parametrize("kind", [Native, int, str, list], ids=str)
def test_a_type_that_codecs_carry_by_themselves_cannot_be_registered(kind: type[Any]) -> None:
    """msgspec never calls a hook for such a type, so accepting it would be a promise that nobody keeps."""
    from taskharbor import OptionError

    with pytest.raises(OptionError):
        register_type(kind, wire=str, encode=str, decode=kind)
