"""Whether a new version of a task accepts what an old one stored: `schema check`, without the command line."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, TypedDict, Unpack
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from msgspec import Meta, Struct

from taskharbor import OptionError, Registry, register_type, task
from taskharbor.codec.hooks import dec_hook, enc_hook
from taskharbor.evolution.compatibility import Level, compared
from taskharbor.evolution.dump import Dump, dump_of, read_dump
from taskharbor.evolution.subschema import gaps
from taskharbor.task.wire_schema import JsonSchema, wire_schema
from tests.fixtures.support import steady, untyped


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class MoreColours(enum.Enum):
    RED = "red"
    BLUE = "blue"
    GREEN = "green"


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class MoreRights(enum.Flag):
    READ = 1
    WRITE = 2
    OWN = 4


class Point(Struct):
    x: int
    y: int = 0


class WidePoint(Struct):
    x: float
    y: float = 0
    z: int = 0


class StrictPoint(Struct, forbid_unknown_fields=True):
    x: int


class NeedyPoint(Struct):
    x: int
    y: int


class Tree(Struct):
    value: int
    below: list[Tree] = []


class TextTree(Struct):
    value: str
    below: list[TextTree] = []


class WideTree(Struct):
    value: int | str
    below: list[WideTree] | None = None


class Link(Struct):
    value: int
    next: Link | None = None


class RenamedLink(Struct):
    value: int
    next: RenamedLink | None = None


class WideLink(Struct):
    value: int | None
    next: WideLink | None = None


class TextLink(Struct):
    value: str
    next: TextLink | None = None


class Circle(Struct, tag="circle"):
    r: int


class Square(Struct, tag="square"):
    a: int


class Triangle(Struct, tag="triangle"):
    a: int


class Row(Struct, array_like=True):
    a: int
    b: str = ""


class LongRow(Struct, array_like=True):
    a: int
    b: str = ""
    c: int = 0


class LateRow(Struct, array_like=True, kw_only=True):
    a: int = 0
    b: str


class Pair(NamedTuple):
    a: int
    b: str


class Doc(TypedDict):
    a: int
    b: NotRequired[str]


class OptionalDoc(TypedDict, total=False):
    a: int


class MoreDoc(Doc):
    c: NotRequired[int]


class StrictDoc(TypedDict):
    a: int
    b: str


@dataclass
class Data:
    a: int
    b: list[str] = field(default_factory=list[str])


class Step(enum.IntEnum):
    ONE = 1


class Coin:
    """Known by a hook only."""

    def __init__(self, cents: int) -> None:
        self.cents = cents


class Note(Coin):
    """Another."""


register_type(Coin, wire=int, encode=lambda coin: coin.cents, decode=Coin)
register_type(Note, wire=int, encode=lambda note: note.cents, decode=Note)

Short = Annotated[str, Meta(max_length=3)]
Shorter = Annotated[str, Meta(max_length=2)]
Natural = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(gt=0)]
One = Annotated[int, Meta(ge=1)]
Percent = Annotated[int, Meta(ge=0, le=100)]
Even = Annotated[int, Meta(multiple_of=2)]
Fourth = Annotated[int, Meta(multiple_of=4)]
Word = Annotated[str, Meta(pattern="^[a-z]+$")]
Aware = Annotated[datetime, Meta(tz=True)]
Naive = Annotated[datetime, Meta(tz=False)]
Blob = Annotated[bytes, Meta(max_length=2)]
LongBlob = Annotated[bytes, Meta(max_length=3)]
Few = Annotated[list[int], Meta(max_length=2)]
Two = Annotated[list[int], Meta(min_length=2)]
TwoDifferent = Annotated[set[int], Meta(min_length=2)]

WIDER: list[tuple[object, object]] = [
    (int, int), (int, float), (int, int | None), (int, Any),
    (str, str | int), (bool, bool | int), (None, int | None),
    (Literal[True], bool), (Literal["a"], Literal["a", "b"]), (Literal["a"], str),
    (Literal[1], float), (Literal["ab"], Short), (Literal["ab"], Word), (Colour, MoreColours), (Colour, str),
    (Literal["red"], Colour), (Right, MoreRights), (Shorter, Short), (Short, str), (Positive, Natural), (Positive, One),
    (One, Positive), (Percent, Natural), (Natural, int), (Fourth, Even), (Even, int), (Word, str), (Word, Word),
    (Aware, datetime), (datetime, str), (date, str), (UUID, str), (Decimal, str), (bytes, str), (Blob, LongBlob),
    (list[int], list[float]), (tuple[int, str], list[int | str]), (tuple[int, int], tuple[int, ...]), (Few, list[int]),
    (set[int], list[int]), (list[int], set[int]), (tuple[()], list[str]), (Pair, tuple[int, str]),
    (dict[str, int], dict[str, float]), (dict[Colour, int], dict[str, int]), (dict[UUID, int], dict[str, int]),
    (Point, WidePoint), (Point, dict[str, int]), (Point, Point | None),
    (Tree, Tree), (Tree, WideTree),
    (NeedyPoint, Point), (StrictPoint, Point), (Circle, Circle | Square), (Circle | Square, Square | Circle | Triangle),
    (Row, LongRow), (Doc, dict[str, Any]), (StrictDoc, Doc), (Doc, Doc), (Data, Data), (Coin, int), (Coin, Coin),
    (Link, Link), (Link, WideLink), (TwoDifferent, Two), (int | float, float), (Step, float),
    (float | Literal[1], float | Literal[1, 2]), (float | Literal[1], float),
]  # fmt: skip
NARROWER: list[tuple[object, object]] = [
    (int, str), (float, int), (int | None, int), (Any, int), (str | int, str), (bool, Literal[True]), (int, bool),
    (Literal["a", "b"], Literal["a"]), (Literal[1], Literal[True]), (str, Literal["a"]), (Literal["abcd"], Short),
    (Literal["AB"], Word), (MoreColours, Colour), (str, Colour), (MoreRights, Right), (Short, Shorter), (str, Short),
    (Natural, Positive), (int, Natural), (Natural, Percent), (Even, Fourth), (int, Even), (str, datetime), (str, date),
    (datetime, date), (str, UUID), (str, bytes), (str, Decimal), (datetime, Aware), (Aware, Naive), (LongBlob, Blob),
    (list[int], list[str]), (list[int], Few), (list[int | str], tuple[int, str]), (tuple[int, ...], tuple[int, int]),
    (tuple[int, int], tuple[int]), (tuple[int, int], tuple[int, str]), (tuple[int], tuple[int, int]),
    (dict[str, int], dict[str, str]), (dict[str, int], dict[UUID, int]), (dict[str, int], dict[Colour, int]),
    (dict[str, int], Point), (dict[str, int], StrictPoint), (Point, StrictPoint), (Point, NeedyPoint),
    (Point, dict[str, str]),
    (StrictPoint, NeedyPoint), (Tree, TextTree), (WideTree, Tree), (Circle | Square, Circle), (Circle, Triangle),
    (Doc, StrictDoc), (list[Point], list[NeedyPoint]), (time, timedelta), (Pair, tuple[int, int]),
    (Link, TextLink), (WideLink, Link), (Two, TwoDifferent), (Row, LateRow), (dict[int, int], OptionalDoc),
    (int, float | Literal[1]), (float, float | Step), (Literal[1, 2], float | Literal[1]),
]  # fmt: skip
UNSURE: list[tuple[object, object]] = [(str, Word), (int, Coin), (Coin, Note), (list[int], list[Coin])]


def _name(kind: object) -> str:
    return getattr(kind, "__name__", str(kind)).replace("typing.", "")


def _told(pair: tuple[object, object]) -> str:
    return f"{_name(pair[0])} to {_name(pair[1])}"


def found(old: object, new: object) -> list[tuple[str, bool]]:
    return [(gap.path, gap.sure) for gap in gaps(wire_schema(old), wire_schema(new))]


@pytest.mark.parametrize("pair", WIDER, ids=_told)
def test_a_type_that_accepts_all_of_the_old_one_leaves_no_gap(pair: tuple[object, object]) -> None:
    assert [] == found(*pair)


@pytest.mark.parametrize("pair", NARROWER, ids=_told)
def test_a_narrower_type_is_found_out(pair: tuple[object, object]) -> None:
    assert any(sure for _, sure in found(*pair))


@pytest.mark.parametrize("pair", UNSURE, ids=_told)
def test_what_cannot_be_told_is_said_to_be_so(pair: tuple[object, object]) -> None:
    told = found(*pair)

    assert told
    assert not any(sure for _, sure in told)


@pytest.mark.parametrize(
    "pair", [(datetime, str), (bytes, str | None), (dict[bytes, int], dict[str, int])], ids=_told
)
def test_what_json_alone_writes_as_text_is_no_text_of_other_formats(pair: tuple[object, object]) -> None:
    old, new = wire_schema(pair[0]), wire_schema(pair[1])

    assert [] == gaps(old, new, codec="json+aes")
    assert [True] == [gap.sure for gap in gaps(old, new, codec="msgpack+zstd")]
    assert [False] == [gap.sure for gap in gaps(old, new, codec="mine")]


def test_types_that_all_contain_each_other_are_compared_in_time() -> None:
    names = [f"T{number}" for number in range(15)]
    fields: JsonSchema = {name: {"type": "array", "items": {"$ref": f"#/$defs/{name}"}} for name in names}
    record: JsonSchema = {"type": "object", "properties": fields, "required": names}
    strict: JsonSchema = {**record, "additionalProperties": False}
    old: JsonSchema = {**record, "$defs": dict.fromkeys(names, record)}

    assert [] == gaps(old, {**old, "$defs": dict.fromkeys(names, strict)})
    assert gaps(old, {**old, "$defs": {**dict.fromkeys(names, strict), "T9": {"type": "string"}}})


def test_what_fits_only_if_something_else_did_does_not_fit() -> None:
    def record(**fields: JsonSchema) -> JsonSchema:
        return {"type": "object", "properties": fields, "required": list(fields)}

    a: JsonSchema = {"$ref": "#/$defs/A"}
    b: JsonSchema = {"$ref": "#/$defs/B"}
    back = record(a=a)
    old: JsonSchema = {
        **record(one=a, two=b),
        "$defs": {"A": record(b=b, x={"type": "integer"}), "B": back},
    }
    new: JsonSchema = {
        **record(one={"anyOf": [a, {"type": "object"}]}, two=b),
        "$defs": {"A": record(b=b, x={"type": "string"}), "B": back},
    }

    assert ["$.two.a.x"] == [gap.path for gap in gaps(old, new)]


def test_a_keyword_of_a_later_version_cannot_be_told() -> None:
    text: JsonSchema = {"type": "string"}

    (gap,) = gaps(text, {**text, "x-later": 1})

    assert not gap.sure
    assert [] == gaps({**text, "x-later": 1}, {**text, "x-later": 1})


def test_a_gap_tells_where_it_is() -> None:
    assert [("$.below[...]", True)] == found(struct_of(below=list[int]), struct_of(below=list[str]))


def struct_of(**fields: object) -> type[Struct]:
    return msgspec.defstruct("Made", list(fields.items()), forbid_unknown_fields=True)


# --- what it accepts decodes


# All are made once: with types that come and go, msgspec 0.22 takes the process down after a while.
BASES: list[Any] = list({repr(kind): kind for pair in (*WIDER, *NARROWER) for kind in pair}.values())
TYPES: list[Any] = [
    *BASES,
    *(untyped(list)[kind] for kind in BASES[::3]),
    *(untyped(dict)[str, kind] for kind in BASES[1::3]),
]
SCHEMAS = [wire_schema(kind) for kind in TYPES]
ACCEPTED = [
    (old, new)
    for old, before in zip(TYPES, SCHEMAS, strict=True)
    for new, after in zip(TYPES, SCHEMAS, strict=True)
    if not gaps(before, after)
]
"""All pairs of them between which no gap is found."""


def _values(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a type, as its encoder may have written them."""
    info = msgspec.inspect.type_info(kind)
    return _of(info, 3)


def _of(info: msgspec.inspect.Type, depth: int) -> st.SearchStrategy[Any]:
    match info:
        case msgspec.inspect.Metadata():
            return _of(info.type, depth)
        case msgspec.inspect.NoneType():
            return st.none()
        case msgspec.inspect.BoolType():
            return st.booleans()
        case msgspec.inspect.IntType():
            low = info.ge if info.ge is not None else (info.gt + 1 if info.gt is not None else -50)
            step = info.multiple_of or 1
            return st.integers(low, 100 if info.le is None else info.le).map(lambda n: n - n % step)
        case msgspec.inspect.FloatType():
            return st.sampled_from([0.5, -1.0, 2.25, 3])  # for a type checker, 3 is a float, too
        case msgspec.inspect.StrType():
            return st.text("abcxyz", min_size=1, max_size=3 if info.max_length is None else info.max_length)
        case msgspec.inspect.BytesType():
            return st.binary(max_size=2)
        case msgspec.inspect.DateTimeType():
            naive = datetime(2026, 1, 2, 3, 4)  # noqa: DTZ001 - either kind is allowed
            aware = naive.replace(tzinfo=UTC)
            return st.sampled_from({None: [naive, aware], True: [aware], False: [naive]}[info.tz])
        case msgspec.inspect.DateType():
            return st.just(date(2026, 1, 2))
        case msgspec.inspect.UUIDType():
            return st.just(UUID(int=7))
        case msgspec.inspect.DecimalType():
            return st.just(Decimal("1.5"))
        case msgspec.inspect.EnumType():
            return st.sampled_from(list(info.cls))
        case msgspec.inspect.LiteralType():
            return st.sampled_from(list(info.values))
        case msgspec.inspect.UnionType():
            ends = [one for one in info.types if not isinstance(one, msgspec.inspect.StructType)]
            return st.one_of([_of(one, depth) for one in (ends if depth < 0 and ends else info.types)])
        case msgspec.inspect.ListType():
            most = 2 if info.max_length is None else info.max_length
            return st.lists(_of(info.item_type, depth - 1), max_size=most) if depth > 0 else st.just([])
        case msgspec.inspect.TupleType():
            return st.tuples(*[_of(one, depth) for one in info.item_types])
        case msgspec.inspect.DictType():
            text = isinstance(info.key_type, msgspec.inspect.StrType)
            keys = st.sampled_from(["x", "y", "k"]) if text else _of(info.key_type, depth)
            return st.dictionaries(keys, _of(info.value_type, depth - 1), max_size=2)
        case (
            msgspec.inspect.StructType() | msgspec.inspect.DataclassType() | msgspec.inspect.NamedTupleType()
        ):
            return st.builds(info.cls, **{one.name: _of(one.type, depth - 1) for one in info.fields})
        case msgspec.inspect.VarTupleType():
            return st.lists(_of(info.item_type, depth - 1), max_size=2).map(tuple)
        case msgspec.inspect.SetType():
            return st.sets(_of(info.item_type, depth - 1), max_size=2)
        case msgspec.inspect.TimeType():
            return st.just(time(3, 4))
        case msgspec.inspect.TimeDeltaType():
            return st.just(timedelta(minutes=5))
        case msgspec.inspect.CustomType():
            return st.builds(info.cls, st.integers(0, 9))
        case msgspec.inspect.TypedDictType():
            return st.fixed_dictionaries(
                {one.name: _of(one.type, depth) for one in info.fields if one.required},
                optional={one.name: _of(one.type, depth) for one in info.fields if not one.required},
            )
        case _:
            return st.sampled_from([1, "x", None, [1], {"x": 1}])


@given(pair=st.sampled_from(ACCEPTED), data=st.data())
@settings(steady, max_examples=400)
def test_what_is_accepted_decodes(pair: tuple[Any, Any], data: st.DataObject) -> None:
    """If no gap is found between two types, any value of the old one decodes as the new."""
    old, new = pair
    value = data.draw(_values(old))
    written = msgspec.json.encode(value, enc_hook=enc_hook)
    packed = msgspec.msgpack.encode(value, enc_hook=enc_hook)
    try:
        msgspec.json.decode(written, type=old, dec_hook=dec_hook)
    except msgspec.ValidationError:
        reject()  # of `float | Literal[1]`, 3 is none

    msgspec.json.decode(written, type=new, dec_hook=dec_hook)
    if not gaps(wire_schema(old), wire_schema(new), codec="msgpack"):
        msgspec.msgpack.decode(packed, type=new, dec_hook=dec_hook)


def test_every_type_accepts_itself() -> None:
    same = [old for old, new in ACCEPTED if old is new]

    assert TYPES == same


def test_different_types_are_accepted_and_refused() -> None:
    assert len(TYPES) < len(ACCEPTED) < len(TYPES) ** 2 / 4


# --- whole applications


def dumped(*declare: Callable[[Registry], object], codec: str = "json") -> Dump:
    registry = Registry()
    for one in declare:
        one(registry)
    dump = dump_of(registry, codec)
    return read_dump(msgspec.json.encode(dump))  # as it comes back from a file


def readable(_task: str, _codec: str) -> bool:
    return True


def levels(old: Dump, new: Dump) -> list[tuple[str, str, str]]:
    return [
        (str(one.level), one.task, one.path) for one in compared(old, new, lambda _, codec: codec == "json")
    ]


def mail(registry: Registry) -> object:
    @task(name="mail", registry=registry)
    def send(to: str, copies: int = 1) -> int:
        return 0

    return send


def test_the_same_application_differs_in_nothing() -> None:
    assert [] == levels(dumped(mail), dumped(mail))


def test_a_task_that_is_gone_breaks_its_stored_jobs() -> None:
    assert [("breaks", "mail", "")] == levels(dumped(mail), dumped())


def test_a_renamed_task_needs_an_alias() -> None:
    def renamed(registry: Registry) -> None:
        @task(name="post", aliases=["mail"], registry=registry)
        def send(to: str, copies: int = 1) -> int:
            return 0

    assert [("note", "mail", "")] == levels(dumped(mail), dumped(renamed))
    assert ("breaks", "post", "") in levels(dumped(renamed), dumped(mail))


def test_a_dropped_alias_is_a_warning() -> None:
    def aliased(registry: Registry) -> None:
        @task(name="mail", aliases=["post"], registry=registry)
        def send(to: str, copies: int = 1) -> int:
            return 0

    assert [("warning", "mail", "")] == levels(dumped(aliased), dumped(mail))


def test_an_alias_that_another_task_has_taken_breaks_the_jobs_that_bear_it() -> None:
    def aliased(registry: Registry) -> None:
        @task(name="thumb", aliases=["resize"], registry=registry)
        def thumb(image: int) -> None: ...

    def two(registry: Registry) -> None:
        @task(name="thumb", registry=registry)
        def thumb(image: int) -> None: ...

        @task(name="resize", registry=registry)
        def resize(image: int) -> None: ...

    assert [("breaks", "thumb", ""), ("note", "resize", "")] == levels(dumped(aliased), dumped(two))


def test_a_new_task_is_a_note() -> None:
    assert [("note", "mail", "")] == levels(dumped(), dumped(mail))


def test_a_new_required_parameter_breaks_and_says_what_to_do() -> None:
    def more(registry: Registry) -> None:
        @task(name="mail", registry=registry)
        def send(to: str, subject: str, copies: int = 1) -> int:
            return 0

    (found,) = [one for one in compared(dumped(mail), dumped(more), readable) if one.level is Level.BREAKS]

    assert "$.subject" == found.path
    assert "is new, and is required now; give the parameter a default" in found.message


def test_a_new_parameter_may_have_been_given_among_keywords() -> None:
    def old(registry: Registry) -> None:
        @task(name="mail", registry=registry)
        def send(**words: int) -> None: ...

    def new(registry: Registry) -> None:
        @task(name="mail", registry=registry)
        def send(x: int = 0, **words: int) -> None: ...

    assert ("unsure", "mail", "$.x") in levels(dumped(old), dumped(new))


def test_a_new_parameter_before_those_that_go_by_place_breaks() -> None:
    def old(registry: Registry) -> None:
        @task(name="mail", registry=registry)
        def send(*copies: int) -> None: ...

    def new(registry: Registry) -> None:
        @task(name="mail", registry=registry)
        def send(first: int = 0, *copies: int) -> None: ...

    def upgraded(registry: Registry) -> None:
        @task(name="mail", registry=registry, upgrade=lambda stored: stored)
        def send(first: int = 0, *copies: int) -> None: ...

    def by_name(registry: Registry) -> None:
        @task(name="mail", registry=registry)
        def send(*copies: int, first: int = 0) -> None: ...

    assert ("breaks", "mail", "$.first") in levels(dumped(old), dumped(new))
    for fine in (by_name, upgraded):
        assert {"note"} == {level for level, _, _ in levels(dumped(old), dumped(fine))}


def test_a_keyword_that_is_known_no_more_breaks() -> None:
    def old(registry: Registry) -> None:
        @task(name="mail", registry=registry)
        def send(**words: Unpack[Doc]) -> None: ...

    def new(registry: Registry) -> None:
        @task(name="mail", registry=registry)
        def send(**words: Unpack[OptionalDoc]) -> None: ...

    assert ("breaks", "mail", "$.words.b") in levels(dumped(old), dumped(new))
    assert [] == levels(dumped(old), dumped(old))


def test_what_workers_would_drop_is_a_note() -> None:
    def of(kind: Any) -> Dump:
        def declare(registry: Registry) -> None:
            def mail(point: Any) -> None: ...

            mail.__annotations__["point"] = kind
            task(name="mail", registry=registry)(mail)

        return dumped(declare)

    (new,) = [one for one in compared(of(Doc), of(MoreDoc), readable) if one.path == "$.point.c"]
    (gone,) = [one for one in compared(of(MoreDoc), of(Doc), readable) if one.path == "$.point.c"]

    assert {Level.NOTE} == {new.level, gone.level}
    assert "forbid_unknown_fields" in new.message
    assert "is gone" in gone.message


def test_a_renamed_parameter_is_guessed() -> None:
    def renamed(registry: Registry) -> None:
        @task(name="mail", registry=registry)
        def send(address: str, copies: int = 1) -> int:
            return 0

    found = [one for one in compared(dumped(mail), dumped(renamed), readable) if one.level is Level.BREAKS]

    assert ["$.address", "$.to"] == sorted(one.path for one in found)
    assert all("was 'to' renamed to 'address'?" in one.message for one in found)


def test_an_optional_parameter_may_be_added_and_old_workers_leave_its_jobs_to_new_ones() -> None:
    def more(registry: Registry) -> None:
        @task(name="mail", registry=registry)
        def send(to: str, copies: int = 1, subject: str = "") -> int:
            return 0

    found = compared(dumped(mail), dumped(more), readable)

    assert {Level.NOTE} == {one.level for one in found}
    assert any("workers of the old version" in one.message for one in found)


def test_an_upgrade_takes_care_of_arguments() -> None:
    def changed(registry: Registry) -> None:
        @task(name="mail", registry=registry, upgrade=lambda old: {"to": [old["to"]]})
        def send(to: list[str]) -> int:
            return 0

    assert {"note"} == {level for level, _, _ in levels(dumped(mail), dumped(changed))}


def test_an_upgrade_that_is_taken_out_is_a_warning() -> None:
    def upgraded(registry: Registry) -> None:
        @task(name="mail", registry=registry, upgrade=lambda old: old)
        def _(to: str, copies: int = 1) -> str:
            raise AssertionError("compared, and not run")

    def plain(registry: Registry) -> None:
        @task(name="mail", registry=registry)
        def _(to: str, copies: int = 1) -> str:
            raise AssertionError("compared, and not run")

    assert [("warning", "mail", "")] == levels(dumped(upgraded), dumped(plain))
    assert [] == levels(dumped(plain), dumped(upgraded))


def test_a_narrowed_result_is_a_warning() -> None:
    def changed(registry: Registry) -> None:
        @task(name="mail", registry=registry)
        def send(to: str, copies: int = 1) -> str:
            return ""

    assert [("warning", "mail", "result")] == levels(dumped(mail), dumped(changed))


def test_a_widened_result_is_a_warning_for_old_programs_that_read_it() -> None:
    def changed(registry: Registry) -> None:
        @task(name="mail", registry=registry)
        def send(to: str, copies: int = 1) -> int | str:
            return ""

    (found,) = compared(dumped(mail), dumped(changed), readable)

    assert (Level.WARNING, "result") == (found.level, found.path)
    assert "programs of the old version" in found.message


def test_a_codec_that_is_gone_breaks_and_another_one_is_a_note() -> None:
    assert [("breaks", "mail", "")] == levels(dumped(mail, codec="json+aes"), dumped(mail))
    assert [("note", "mail", "")] == levels(dumped(mail), dumped(mail, codec="msgpack"))


@pytest.mark.parametrize("data", [b"", b"[]", b'{"tasks": 1}', b'{"format": 99, "tasks": []}'])
def test_what_is_no_dump_is_refused(data: bytes) -> None:
    with pytest.raises(OptionError, match="dump"):
        read_dump(data)


@pytest.mark.parametrize(
    "damage",
    [
        (b'"properties":{', b'"properties":[],"was":{'),
        (b'"type":"string"', b'"type":["string"]'),
        (b'{"type":"string"}', b'"string"'),
        (b'"required":["to"]', b'"required":1'),
        (b'{"type":"string"}', b'{"$ref":"#/$defs/Gone"}'),
    ],
)
def test_a_damaged_dump_is_refused(damage: tuple[bytes, bytes]) -> None:
    whole = msgspec.json.encode(dumped(mail))
    damaged = whole.replace(*damage)

    assert whole != damaged
    with pytest.raises(OptionError, match="dump"):
        compared(read_dump(damaged), dumped(mail), readable)


def test_the_name_of_a_class_within_the_arguments_is_not_in_the_fingerprint() -> None:
    def of(kind: Any) -> int:
        def fn(value: Any) -> None: ...

        fn.__annotations__["value"] = kind
        return task(name="one", registry=Registry())(fn).definition.fingerprint

    first, second = struct_of(inner=list[Link]), struct_of(inner=list[RenamedLink])

    assert of(Link) == of(RenamedLink)
    assert of(first) == of(second)
    assert of(Link) != of(WideLink)


def test_types_that_msgspec_writes_alike_have_different_fingerprints() -> None:
    def of(kind: Any) -> int:
        def fn(value: Any) -> None: ...

        fn.__annotations__["value"] = kind
        return task(name="one", registry=Registry())(fn).definition.fingerprint

    alike = [str, datetime, Aware, Naive, dict[str, int], dict[int, int], dict[UUID, int]]

    assert len(alike) == len({of(kind) for kind in alike})
