"""JSON and MessagePack: whatever a signature may hold comes back as it was, and nothing is guessed."""

from __future__ import annotations

import contextlib
import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, NotRequired, TypeVar
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import TypedDict

from taskharbor import Codec, CodecError, JsonCodec, MsgpackCodec
from taskharbor.task.fidelity import first_change
from tests.fixtures.support import steady, untyped

JSON, MSGPACK = JsonCodec(), MsgpackCodec()
FORMATS: list[Codec] = [JSON, MSGPACK]
both = pytest.mark.parametrize("codec", FORMATS, ids=lambda codec: codec.name)

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Mood(enum.StrEnum):
    GOOD = "good"


class Point(NamedTuple):
    x: int
    y: float = 0.0


class Movie(TypedDict):
    title: str
    year: NotRequired[int]


@dataclass
class Address:
    street: str
    numbers: list[int] = field(default_factory=list[int])


@dataclass(frozen=True)
class Frozen:
    at: datetime


class Receipt(msgspec.Struct):
    id: UUID
    lines: list[Address] = []
    parent: Receipt | None = None


class Cat(msgspec.Struct, tag=True):
    lives: int


class Dog(msgspec.Struct, tag=True):
    name: str


class Box(msgspec.Struct, Generic[T]):
    inside: T


UserId = NewType("UserId", int)
Small = Annotated[int, msgspec.Meta(ge=0, le=9)]

INT = st.integers(-(2**63), 2**64 - 1)
FLOAT = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text()
INSTANT = st.datetimes(timezones=st.just(UTC))
DURATION = st.timedeltas(timedelta(days=-100_000), timedelta(days=100_000))
MONEY = st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**12), max_value=10**12)
ADDRESS = st.builds(Address, TEXT, st.lists(INT, max_size=3))
RECEIPT = st.recursive(
    st.builds(Receipt, st.uuids(), st.lists(ADDRESS, max_size=2)),
    lambda inner: st.builds(Receipt, st.uuids(), parent=inner),
    max_leaves=3,
)
MOVIE = st.fixed_dictionaries({"title": TEXT}, optional={"year": INT})

# A type, and the values it may have.
KINDS: list[tuple[object, st.SearchStrategy[Any]]] = [
    (None, st.none()),
    (bool, st.booleans()),
    (int, INT),
    (float, FLOAT),
    (str, TEXT),
    (bytes, st.binary()),
    (datetime, INSTANT),
    (date, st.dates()),
    (time, st.times()),
    (timedelta, DURATION),
    (UUID, st.uuids()),
    (Decimal, MONEY),
    (Colour, st.sampled_from(Colour)),
    (Level, st.sampled_from(Level)),
    (Mood, st.sampled_from(Mood)),
    (Literal["a", "b", 3], st.sampled_from(["a", "b", 3])),
    (UserId, INT),
    (Small, st.integers(0, 9)),
    (list[int], st.lists(INT)),
    (tuple[int, str], st.tuples(INT, TEXT)),
    (tuple[int, ...], st.lists(INT).map(tuple)),
    (set[str], st.sets(TEXT)),
    (frozenset[int], st.frozensets(INT)),
    (dict[str, float], st.dictionaries(TEXT, FLOAT)),
    (dict[int, str], st.dictionaries(INT, TEXT)),
    (dict[UUID, list[datetime]], st.dictionaries(st.uuids(), st.lists(INSTANT, max_size=3), max_size=3)),
    (dict[Colour, int], st.dictionaries(st.sampled_from(Colour), INT)),
    (Sequence[int], st.lists(INT)),
    (Mapping[str, int], st.dictionaries(TEXT, INT)),
    (Point, st.builds(Point, INT, FLOAT)),
    (Movie, MOVIE),
    (Address, ADDRESS),
    (Frozen, st.builds(Frozen, INSTANT)),
    (Receipt, RECEIPT),
    (Cat | Dog, st.one_of(st.builds(Cat, INT), st.builds(Dog, TEXT))),
    (Box[list[Address]], st.builds(Box, st.lists(ADDRESS, max_size=2))),
    (int | str | None, st.one_of(INT, TEXT, st.none())),
    (float | list[str], st.one_of(FLOAT, st.lists(TEXT))),
    (Literal["none"] | Receipt | None, st.one_of(st.just("none"), RECEIPT, st.none())),
    (
        dict[str, list[tuple[Movie, Point | None]]],
        st.dictionaries(
            TEXT,
            st.lists(st.tuples(MOVIE, st.one_of(st.none(), st.builds(Point, INT, FLOAT))), max_size=2),
            max_size=2,
        ),
    ),
]


def through(codec: Codec, kind: object, value: object) -> object:
    return codec.decoder(untyped(kind))(codec.encoder()(value))


@both
@pytest.mark.parametrize(("kind", "values"), [pytest.param(*row, id=str(row[0])) for row in KINDS])
@settings(steady, max_examples=25)
@given(data=st.data())
def test_what_goes_in_comes_out(
    codec: Codec, kind: object, values: st.SearchStrategy[Any], data: st.DataObject
) -> None:
    value: object = data.draw(values)

    back = through(codec, kind, value)

    assert value == back
    assert type(value) is type(back)
    # Nor does the check at enqueue, which tells a changed value from an equal one, take it for changed.
    assert first_change(value, back) is None


@both
@steady
@given(moment=st.datetimes(min_value=datetime(1970, 1, 2), timezones=st.timezones()))  # noqa: DTZ001
def test_an_aware_datetime_comes_out_as_the_same_instant(codec: Codec, moment: datetime) -> None:
    back = through(codec, datetime, moment)

    assert isinstance(back, datetime)
    assert back.tzinfo is not None
    # As instants: zones with a fold compare unequal however alike they are.
    assert moment.astimezone(UTC) == back.astimezone(UTC)


@both
@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (int, "1"),
        (int, 1.5),
        (int, True),
        (int, None),
        (float, "1.5"),
        (str, 1),
        (bool, 1),
        (bool, "true"),
        (datetime, "yesterday"),
        (datetime, 0),
        (timedelta, "5 minutes"),
        (timedelta, 5),
        (UUID, "not-a-uuid"),
        (Decimal, "1,5"),
        (Colour, "green"),
        (Literal["a"], "b"),
        (Small, 10),
        (Small, -1),
        (list[int], [1, "2"]),
        (list[int], {"a": 1}),
        (tuple[int, str], [1]),
        (tuple[int, str], [1, "a", 2]),
        (dict[str, int], {"a": "b"}),
        (Point, [1, 2.0, 3]),
        (Movie, {"year": 2000}),
        (Address, {"numbers": []}),
        (Cat | Dog, {"type": "Cow"}),
        (Cat | Dog, {"lives": 9}),
        (int | None, "x"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_and_never_turned_into_what_would(
    codec: Codec, kind: object, value: object
) -> None:
    with pytest.raises(CodecError):
        through(codec, kind, value)


@both
@pytest.mark.parametrize(
    ("kind", "value", "path", "reason"),
    [
        (int, "1", "$", "Expected `int`, got `str`"),
        (list[int], [1, 2, "3"], "$[2]", "Expected `int`, got `str`"),
        (dict[str, int], {"a": "b"}, "$[...]", "Expected `int`, got `str`"),
        (Receipt, {"id": "x"}, "$.id", "Invalid UUID"),
        (Receipt, {}, "$", "Object missing required field `id`"),
        (
            Receipt,
            {"id": UUID(int=1), "lines": [{"street": 5}]},
            "$.lines[0].street",
            "Expected `str`, got `int`",
        ),
        (
            Receipt,
            {"id": UUID(int=1), "parent": {"id": UUID(int=2), "parent": 7}},
            "$.parent.parent",
            "Expected `object | null`, got `int`",
        ),
        (dict[str, Small], {"a": 10}, "$[...]", "Expected `int` <= 9"),
    ],
    ids=str,
)
def test_an_error_carries_the_path_to_the_misfit(
    codec: Codec, kind: object, value: object, path: str, reason: str
) -> None:
    with pytest.raises(CodecError) as caught:
        through(codec, kind, value)

    assert (path, reason) == (caught.value.path, str(caught.value))
    assert caught.value.foreign is False


@both
@pytest.mark.parametrize("data", [b"", b"{", b'{"a":', b"\xff\xfe", b"\xc1", b"nonsense", b"1 2"], ids=repr)
def test_bytes_that_are_not_of_the_format_are_refused(codec: Codec, data: bytes) -> None:
    with pytest.raises(CodecError) as caught:
        codec.decoder(Receipt)(data)

    assert "$" == caught.value.path
    assert str(caught.value)


@both
@steady
@given(data=st.binary(max_size=60))
def test_no_bytes_whatever_raise_anything_but_a_codec_error(codec: Codec, data: bytes) -> None:
    with contextlib.suppress(CodecError):
        assert isinstance(codec.decoder(Receipt)(data), Receipt)


@both
def test_data_nested_without_end_is_refused(codec: Codec) -> None:
    data = b"[" * 100_000 if codec is JSON else b"\x91" * 100_000

    with pytest.raises(CodecError):
        codec.decoder(untyped(list[Any]))(data)


@both
def test_a_value_nested_in_itself_is_refused(codec: Codec) -> None:
    loop: list[object] = []
    loop.append(loop)

    with pytest.raises(CodecError):
        codec.encoder()(loop)


@both
@pytest.mark.parametrize(
    "value", [object(), lambda: 0, print, {object(): 1}], ids=["object", "lambda", "print", "key"]
)
def test_a_value_without_a_codec_is_refused(codec: Codec, value: object) -> None:
    with pytest.raises(CodecError):
        codec.encoder()(value)


@both
def test_half_a_surrogate_pair_is_refused(codec: Codec) -> None:
    with pytest.raises(CodecError):
        codec.encoder()("a\ud800")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_json_does_not_carry_what_is_no_number(value: float) -> None:
    with pytest.raises(CodecError):
        through(JSON, float, value)


def test_messagepack_carries_infinities() -> None:
    assert math.inf == through(MSGPACK, float, math.inf)


def test_an_integer_beyond_64_bits_is_never_changed() -> None:
    assert 2**70 == through(JSON, int, 2**70)
    with pytest.raises(CodecError):
        MSGPACK.encoder()(2**70)


def test_json_is_readable_in_the_store() -> None:
    assert b'{"id":"00000000-0000-0000-0000-000000000001","lines":[],"parent":null}' == JSON.encoder()(
        Receipt(UUID(int=1))
    )


def test_messagepack_keeps_bytes_as_they_are_and_json_writes_base64() -> None:
    assert b"\xc4\x02\x00\xff" == MSGPACK.encoder()(b"\x00\xff")
    assert b'"AP8="' == JSON.encoder()(b"\x00\xff")


@both
def test_no_decoder_is_made_for_a_type_that_cannot_be_carried(codec: Codec) -> None:
    class One(msgspec.Struct):
        a: int

    class Other(msgspec.Struct):
        a: int

    with pytest.raises(TypeError):
        codec.decoder(untyped(One | Other))


def test_the_formats_have_the_names_that_payloads_bear() -> None:
    assert ["json", "msgpack"] == [codec.name for codec in FORMATS]


@both
def test_a_codec_supports_no_type_that_nobody_registered(codec: Codec) -> None:
    class Unknown: ...

    assert not codec.supports(Unknown)
