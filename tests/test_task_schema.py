"""JSON Schema and fingerprint of a signature: what payloads may hold, and when two builds agree on it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

import msgspec
import pytest
from typing_extensions import TypedDict, Unpack

from taskharbor import Registry, Task, task
from tests.fixtures import future_tasks
from tests.fixtures.support import run_python, untyped


class Person(msgspec.Struct):
    name: str
    boss: Person | None = None


class Titled(msgspec.Struct):
    title: str
    description: str = ""
    default: int = 0
    examples: list[int] = []


class Size(TypedDict, total=False):
    width: int


def schema_of(fn: Callable[..., object]) -> dict[str, Any]:
    declared: Task[..., object] = untyped(task(registry=Registry(), name="t"))(fn)
    return declared.schema()


def fingerprint_of(fn: Callable[..., object]) -> int:
    declared: Task[..., object] = untyped(task(registry=Registry(), name="t"))(fn)
    return declared.definition.fingerprint


def base(a: int, b: str = "x", *, c: Person | None = None) -> None: ...


# --- the schema


def test_a_schema_is_plain_json() -> None:
    def wide(
        a: int,
        b: list[int] = [1],  # noqa: B006
        *rest: float,
        at: datetime | None = None,
        wait: timedelta = timedelta(seconds=5),
        mode: Literal["x", "y"] = "x",
        data: bytes = b"z",
        person: Person = Person("ann"),  # noqa: B008
        **size: Unpack[Size],
    ) -> None: ...

    schema = schema_of(wide)

    assert json.loads(json.dumps(schema)).keys() == schema.keys()


def test_a_schema_tells_types_required_parameters_and_defaults() -> None:
    schema = schema_of(base)
    body = schema["$defs"]["t"]

    assert {"$ref": "#/$defs/t"} == {"$ref": schema["$ref"]}
    assert "object" == body["type"]
    assert ["a"] == body["required"]
    assert {"type": "integer"} == body["properties"]["a"]
    assert {"type": "string", "default": "x"} == body["properties"]["b"]
    assert body["additionalProperties"] is False


def test_a_schema_holds_constraints() -> None:
    def rate(level: Annotated[int, msgspec.Meta(ge=0, le=9, description="how much")]) -> None: ...

    assert {"type": "integer", "minimum": 0, "maximum": 9, "description": "how much"} == schema_of(rate)[
        "$defs"
    ]["t"]["properties"]["level"]


def test_every_reference_of_a_schema_leads_somewhere() -> None:
    schema = schema_of(base)

    assert {"#/$defs/t", "#/$defs/Person"} == set(re.findall(r'"\$ref": "([^"]*)"', json.dumps(schema)))
    assert {"t", "Person"} == set(schema["$defs"])


def test_a_schema_of_no_parameters_allows_nothing() -> None:
    def nothing() -> None: ...

    body = schema_of(nothing)["$defs"]["t"]

    assert ({}, [], False) == (body["properties"], body["required"], body["additionalProperties"])


def test_a_schema_leaves_the_context_out() -> None:
    assert "ctx" not in json.dumps(future_tasks.send.schema())
    assert {"parcel", "within", "level"} == set(
        untyped(future_tasks.send.schema())["$defs"][future_tasks.send.name]["properties"]
    )


# --- the fingerprint


def test_a_fingerprint_has_63_bits() -> None:
    assert 0 <= fingerprint_of(base) < 2**63


def test_a_fingerprint_is_the_same_in_every_process_and_under_every_hash_seed() -> None:
    program = (
        "from tests.fixtures.future_tasks import send, late\n"
        "print(send.definition.fingerprint, late.definition.fingerprint)"
    )
    from tests.fixtures.support import ROOT

    told = {
        run_python("-c", program, env={"PYTHONHASHSEED": seed}, paths=[ROOT]).strip()
        for seed in ("0", "1", "77")
    }

    mine = f"{future_tasks.send.definition.fingerprint} {future_tasks.late.definition.fingerprint}"
    assert {mine} == told


def test_a_fingerprint_does_not_change_with_docs_titles_and_defaults() -> None:
    def documented(a: int, b: str = "y", *, c: Person | None = None) -> None:
        """Say much."""

    def told(
        a: Annotated[int, msgspec.Meta(title="A", description="first", examples=[1])],
        b: Annotated[str, msgspec.Meta(extra_json_schema={"default": "q"})] = "other",
        *,
        c: Person | None = Person("ann"),  # noqa: B008
    ) -> None: ...

    assert fingerprint_of(base) == fingerprint_of(documented) == fingerprint_of(told)


def test_a_fingerprint_does_not_change_with_the_name_of_the_task_or_the_result() -> None:
    def other(a: int, b: str = "x", *, c: Person | None = None) -> int:
        return 1

    renamed = task(registry=Registry(), name="another.name")(base)

    assert fingerprint_of(base) == renamed.definition.fingerprint
    assert fingerprint_of(base) == fingerprint_of(other)


def more(a: int, b: str = "x", *, c: Person | None = None, d: int = 0) -> None: ...
def less(a: int, b: str = "x") -> None: ...
def renamed(a: int, bb: str = "x", *, c: Person | None = None) -> None: ...
def retyped(a: str, b: str = "x", *, c: Person | None = None) -> None: ...
def wider(a: int | None, b: str = "x", *, c: Person | None = None) -> None: ...
def bounded(a: Annotated[int, msgspec.Meta(ge=0)], b: str = "x", *, c: Person | None = None) -> None: ...
def demanding(a: int, b: str, *, c: Person | None = None) -> None: ...
def listed(a: list[int], b: str = "x", *, c: Person | None = None) -> None: ...
def many(a: int, b: str = "x", *e: int, c: Person | None = None) -> None: ...


@pytest.mark.parametrize(
    "other",
    [more, less, renamed, retyped, wider, bounded, demanding, listed, many],
    ids=lambda fn: fn.__name__,
)
def test_a_fingerprint_changes_with_what_payloads_may_hold(other: Callable[..., object]) -> None:
    assert fingerprint_of(base) != fingerprint_of(other)


@pytest.mark.parametrize(
    "field", ["title", "description", "default", "examples", "$ref", "properties", "$defs"]
)
def test_a_new_field_changes_it_whatever_its_name(field: str) -> None:
    """Also where the name is a word of JSON Schema itself."""
    plain = msgspec.defstruct("Thing", [("a", int)])
    grown = msgspec.defstruct("Thing", [("a", int), ("b", int)], rename={"b": field})

    def with_type(kind: object) -> Callable[..., object]:
        def take(thing: Any) -> None: ...

        take.__annotations__["thing"] = kind
        return take

    assert fingerprint_of(with_type(plain)) != fingerprint_of(with_type(grown))


@pytest.mark.parametrize("name", ["title", "description", "default", "examples", "properties"])
def test_a_parameters_type_counts_whatever_its_name(name: str) -> None:
    def with_parameter(kind: type) -> Callable[..., object]:
        space: dict[str, Any] = {"kind": kind}
        exec(f"def take({name}: kind) -> None: ...", space)  # noqa: S102 - the names are our own
        take: Callable[..., object] = space["take"]
        return take

    assert fingerprint_of(with_parameter(int)) != fingerprint_of(with_parameter(str))


def test_a_fields_own_default_does_not_change_it() -> None:
    one = msgspec.defstruct("Thing", [("title", str, "a"), ("properties", dict[str, int], {})])
    other = msgspec.defstruct("Thing", [("title", str, "b"), ("properties", dict[str, int], {})])

    def with_type(kind: object) -> Callable[..., object]:
        def take(thing: Any) -> None: ...

        take.__annotations__["thing"] = kind
        return take

    assert fingerprint_of(with_type(one)) == fingerprint_of(with_type(other))


def test_a_field_called_title_within_a_struct_counts() -> None:
    class Untitled(msgspec.Struct):
        description: str = ""
        default: int = 0
        examples: list[int] = []

    Untitled.__name__ = "Titled"

    def one(x: Titled) -> None: ...
    def other(x: Any) -> None: ...

    other.__annotations__["x"] = Untitled

    assert fingerprint_of(one) != fingerprint_of(other)


def test_the_fingerprint_goes_with_the_payload() -> None:
    from taskharbor import Harbor

    with Harbor("memory://", registry=future_tasks.registry) as harbor:
        handle = future_tasks.late.enqueue(future_tasks.Later("x"))

        assert future_tasks.late.definition.fingerprint == harbor.jobs.get(handle.id).fingerprint
