"""Arguments written as text, read as the task's signature declares them."""

from __future__ import annotations

import enum
import re
from datetime import datetime
from typing import TypedDict, Unpack

import msgspec
import pytest

from taskharbor import MsgpackCodec, PayloadError, Registry, task
from taskharbor.cli.arguments import from_object, from_pairs
from tests.fixtures.support import ROOT

TYPES: dict[str, object] = {
    "int": int,
    "str": str,
    "str | None": str | None,
    "list[int]": list[int],
    "datetime": datetime,
}


class Size(enum.Enum):
    S = "small"


class Point(msgspec.Struct):
    x: int
    y: int = 0


class Extra(TypedDict, total=False):
    shade: str
    depth: int


registry = Registry()


@task(registry=registry)
def plain(to: str, count: int = 1) -> None: ...


@task(registry=registry, codec=MsgpackCodec())
def many(ids: list[int], *rest: int, ratio: float = 0.5, big: bool = False, size: Size = Size.S) -> None: ...


@task(registry=registry)
def nested(point: Point, /, at: datetime | None = None) -> None: ...


@task(registry=registry)
def anything(a: int, **more: int | str) -> None: ...


@task(registry=registry)
def shaded(a: int, **extra: Unpack[Extra]) -> None: ...


def read(declared: object, **texts: str) -> dict[str, object]:
    definition = getattr(declared, "definition")  # noqa: B009 - of any task, whatever its types
    return msgspec.structs.asdict(from_pairs(definition, texts))


def test_the_table_on_the_page_is_true() -> None:
    page = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8").replace("\\|", "¦")
    (header,) = re.findall(r"^\| given \| (.*) \|$", page, re.MULTILINE)
    kinds = [re.sub("for |`", "", cell).strip().replace("¦", "|") for cell in header.split(" | ")]
    rows = re.findall(r"^\| `x=(.*?)` \| (.*) \|$", page, re.MULTILINE)
    assert (list(TYPES), 6) == (kinds, len(rows))

    for given, cells in rows:
        text = given.strip("'")
        for kind, cell in zip(kinds, cells.split(" | "), strict=True):
            wanted = cell.strip("`")
            if wanted == "refused":
                with pytest.raises(PayloadError):
                    taken(kind, text)
            elif wanted == "as it is":
                assert text == taken(kind, text)
            elif wanted == "the instant":
                assert datetime.fromisoformat(text) == taken(kind, text)
            else:
                assert wanted.replace('"', "'") == repr(taken(kind, text)), (kind, text)


def taken(kind: str, text: str) -> object:
    def handler(x: object) -> None: ...

    handler.__annotations__["x"] = TYPES[kind]
    return read(task(name=f"x.{kind}", registry=Registry())(handler), x=text)["x"]


def test_values_take_the_reading_that_their_type_accepts() -> None:
    assert {"to": "3", "count": 3} == read(plain, to="3", count="3")
    assert {"to": "", "count": 1} == read(plain, to="")


def test_every_kind_of_type_can_be_written() -> None:
    assert {"ids": [1], "rest": (2, 3), "ratio": 3.0, "big": True, "size": Size.S} == read(
        many, ids="[1]", rest="[2,3]", ratio="3", big="true", size="small"
    )
    assert {"point": Point(1), "at": None} == read(nested, point='{"x": 1}', at="null")


def test_further_keywords_go_where_the_task_takes_any() -> None:
    assert {"a": 1, "more": {"b": 2, "c": "x"}} == read(anything, a="1", b="2", c="x")
    assert {"a": 1, "extra": {"shade": "7", "depth": 7}} == read(shaded, a="1", shade="7", depth="7")


def test_a_keyword_that_a_typed_dict_does_not_have_is_refused() -> None:
    with pytest.raises(PayloadError, match=r"no parameter 'shads' \(did you mean 'shade'"):
        read(shaded, a="1", shads="x")


@pytest.mark.parametrize(
    ("texts", "path", "why"),
    [
        ({"to": "a", "count": "x"}, "$.count", "Expected `int`, got `str`"),
        ({"to": "a", "count": "1.5"}, "$.count", "Expected `int`, got `float`"),
        ({"count": "1"}, "$", "missing required field `to`"),
        ({"to": "a", "cuont": "1"}, "$", "no parameter 'cuont' (did you mean 'count'?)"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_path_and_the_signature(
    texts: dict[str, str], path: str, why: str
) -> None:
    with pytest.raises(PayloadError) as refused:
        read(plain, **texts)

    assert path == refused.value.path
    assert why in refused.value.reason
    assert "its signature is tests.test_cli_arguments.plain(to: str, count: int = 1)" in str(refused.value)


def test_an_object_is_read_strictly() -> None:
    definition = plain.definition

    assert {"to": "a", "count": 2} == msgspec.structs.asdict(
        from_object(definition, '{"to": "a", "count": 2}')
    )
    for text in ('{"to": 3}', '{"to": "a", "x": 1}', "[1]", "{", b"\xff"):
        with pytest.raises(PayloadError):
            from_object(definition, text)


def test_the_further_keywords_of_an_object_are_checked_too() -> None:
    with pytest.raises(PayloadError, match="no parameter 'other'"):
        from_object(shaded.definition, '{"a": 1, "other": 1}')
