"""What came in for a step, as values of the parameters' types: whole or part by part, and what cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Annotated, Any, TypeVar

import msgspec
import pytest

from taskharbor import Failure, Harbor, JobState, Registry, Success, chain, task
from taskharbor.call.parts import PARTS, Parts, write_parts
from taskharbor.codec import CodecBook, CodecError, Encode, JsonCodec, MsgpackCodec
from taskharbor.step import DeliveredStep, Hole, Input
from taskharbor.task.filling import Filling

T = TypeVar("T")


class Reversed:
    """A codec that is no list's friend: JSON, backwards."""

    name = "reversed"

    def supports(self, kind: type[object]) -> bool:
        return JsonCodec().supports(kind)

    def encoder(self) -> Encode:
        encode = JsonCodec().encoder()
        return lambda value: encode(value)[::-1]

    def decoder(self, kind: type[T]) -> Callable[[bytes], T]:
        decode = JsonCodec().decoder(kind)
        return lambda data: decode(data[::-1])


CODECS = {codec.name: codec for codec in (JsonCodec(), MsgpackCodec(), Reversed())}


def part(value: object, codec: str = "json", index: int = 0) -> Input:
    return Input(0, index, codec, CODECS[codec].encoder()(value))


def failed(index: int = 0) -> Input:
    told = Failure(job_id="1", task="t", error_type="ValueError")
    return Input(0, index, "json", msgspec.json.encode(told), failed=True)


def read(kind: object, *parts: Input, many: bool = True, tolerant: bool = False) -> object:
    """Return what the parts are to a parameter of a type."""
    step = DeliveredStep("flow", (Hole("it", 0, many, tolerant),), parts)
    return Filling(CodecBook([Reversed()])).values(step, lambda _: kind)["it"]


@pytest.mark.parametrize("codecs", [["json"], ["msgpack"], ["reversed"], ["json", "msgpack", "reversed"]])
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (list[int], [0, 1, 2]),
        (Sequence[int], [0, 1, 2]),
        (tuple[int, ...], (0, 1, 2)),
        (set[int], {0, 1, 2}),
        (frozenset[int], frozenset({0, 1, 2})),
        (Annotated[list[int], msgspec.Meta(max_length=3)], [0, 1, 2]),
    ],
)
def test_a_list_is_read_whatever_its_parts_are_written_in(
    codecs: list[str], kind: object, expected: object
) -> None:
    parts = [part(index, codecs[index % len(codecs)], index) for index in range(3)]

    assert expected == read(kind, *parts)


@pytest.mark.parametrize("codec", CODECS)
def test_successes_and_failures_are_told_apart(codec: str) -> None:
    found = read(list[Success[int] | Failure], part(7, codec), failed(1), tolerant=True)

    assert [Success(7), Failure(job_id="1", task="t", error_type="ValueError")] == found


def test_failures_alone_are_read() -> None:
    (only,) = _listed(read(list[Success[int] | Failure], failed(), tolerant=True))

    assert isinstance(only, Failure)


def _listed(value: object) -> list[object]:
    assert isinstance(value, list)
    return list(value)  # pyright: ignore[reportUnknownArgumentType]


def test_nothing_is_an_empty_list() -> None:
    assert [] == read(list[int])


@pytest.mark.parametrize("codec", CODECS)
def test_a_gathered_list_is_read_within_another(codec: str) -> None:
    inner = write_parts(Parts((part(1, codec), part(2, "json", 1))))

    assert [[1, 2], [3]] == read(list[list[int]], Input(0, 0, PARTS, inner), part([3], codec, 1))
    assert [1, 2] == read(list[int], Input(0, 0, PARTS, inner), many=False)


@pytest.mark.parametrize(
    ("plain", "nested", "tolerated", "value"),
    [
        (list[bytes | None], list[list[bytes | None]], list[Success[bytes | None] | Failure], b"abc"),
        (list[float | None], list[list[float | None]], list[Success[float | None] | Failure], float("inf")),
        (
            list[dict[str, Any] | None],
            list[list[dict[str, Any] | None]],
            list[Success[dict[str, Any] | None] | Failure],
            {"raw": b"abc"},
        ),
    ],
    ids=["bytes", "infinity", "untyped"],
)
def test_each_part_is_read_in_its_own_format(
    plain: object, nested: object, tolerated: object, value: object
) -> None:
    """Whatever it is beside: another format, a failure, another list."""
    one, other = part(value, "msgpack"), part(None, index=1)
    inner = Input(0, 0, PARTS, write_parts(Parts((one,))))

    assert [value, value] == read(plain, one, one)
    assert [value, None] == read(plain, one, other)
    assert [Success(value)] == read(tolerated, one, tolerant=True)
    assert [Success(value), Success(None)] == read(tolerated, one, other, tolerant=True)
    assert Success(value) == _listed(read(tolerated, one, failed(1), tolerant=True))[0]
    assert [[value], [None]] == read(nested, inner, part([None], index=1))


def test_elements_of_a_tolerated_list_stay_in_their_formats() -> None:
    step = DeliveredStep(
        "flow", (Hole("it", 0, many=True, tolerant=True),), (part({"raw": b"abc"}, "msgpack"),)
    )

    ((codec, data),) = Filling(CodecBook()).elements(step, step.holes[0])

    assert "msgpack" == codec
    assert {"type": "success", "value": {"raw": b"abc"}} == msgspec.msgpack.decode(data)


@pytest.mark.parametrize(
    ("kind", "parts", "many", "told"),
    [
        (int, [part("x")], False, "Expected `int`, got `str`"),
        (list[int], [part(1), part("x", index=1)], True, "Expected `int`, got `str`"),
        (int, [], False, "takes one result, and 0 came in"),
        (int, [Input(0, 0, "json", None)], False, "was not kept"),
        (list[int], [Input(0, 0, "json", None)], True, "was not kept"),
        (dict[str, int], [part(1), part(1, "msgpack", 1)], True, "Expected `object`, got `array`"),
        (list[int], [part(1), part("x", "msgpack", 1)], True, "Expected `int`, got `str`"),
        (
            Annotated[list[int], msgspec.Meta(max_length=1)],
            [part(1), part(1, "msgpack", 1)],
            True,
            "of length",
        ),
    ],
    ids=["type", "element", "nothing", "unkept", "unkept element", "no list", "one of two formats", "length"],
)
def test_what_does_not_fit_is_told_with_its_parameter(
    kind: object, parts: list[Input], many: bool, told: str
) -> None:
    with pytest.raises(CodecError, match=told) as caught:
        read(kind, *parts, many=many)

    assert caught.value.path.startswith("$.it")
    assert (
        "Expected" in str(caught.value)
    ) is caught.value.foreign  # what is there may fit the build that wrote it


def test_a_codec_that_is_not_here_is_foreign() -> None:
    """Another worker may have it."""
    with pytest.raises(CodecError, match="'unheard'") as caught:
        read(int, Input(0, 0, "unheard", b"1"), many=False)

    assert caught.value.foreign


def test_a_result_of_a_newer_build_is_left_to_that_build() -> None:
    """The step itself was stored by the old one, under the very signature that its worker has."""
    old, new = Registry(), Registry()

    @task(name="first", registry=old, queue="first")
    def old_first() -> int:
        raise AssertionError("runs in the new version")

    @task(name="second", registry=old)
    def old_second(it: int) -> str:
        return f"old {it}"

    @task(name="first", registry=new, queue="first")
    def new_first() -> int | str:
        return "one"

    @task(name="second", registry=new)
    def new_second(it: int | str) -> str:
        return f"new {it}"

    with Harbor("memory://", registry=old) as before:
        flow = chain(old_first.s(), old_second).enqueue()
        after = Harbor(before.driver, registry=new)
        after.run_until_idle(queues=["first"])
        before.run_until_idle()
        parked = before.jobs.get(flow.id)
        after.run_until_idle()

        assert JobState.PARKED is parked.state
        assert "Expected `int`, got `str` at $.it" in parked.reason
        assert "new one" == flow.result(timeout=timedelta(seconds=30))
