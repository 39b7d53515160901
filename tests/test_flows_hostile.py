"""What a hostile reader of the flows tried: orders that nobody takes a value of, keys, digests, formats, threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from datetime import timedelta
from typing import TypeVar
from uuid import UUID

import msgspec
import pytest

from taskharbor import (
    Context,
    DuplicateJob,
    Failure,
    Flow,
    FlowError,
    FlowFailed,
    FlowFailure,
    FlowState,
    Harbor,
    JobState,
    KeyConflict,
    MsgpackCodec,
    OptionError,
    PayloadError,
    Registry,
    Retry,
    Signature,
    Success,
    chain,
    chord,
    each,
    gather,
    group,
    task,
)
from taskharbor.codec import Encode, JsonCodec
from taskharbor.drivers.memory import MemoryDriver
from tests.fixtures.support import untyped
from tests.support.work import ENOUGH, HOUR

T = TypeVar("T")
registry = Registry()
ran: list[str] = []
ONCE = Retry(max_attempts=1)


@pytest.fixture
def harbor() -> Generator[Harbor]:
    ran.clear()
    with Harbor(MemoryDriver(), registry=registry) as made:
        yield made


@task(registry=registry)
async def step(name: str) -> str:
    """Note that it ran."""
    ran.append(name)
    return name


@task(registry=registry, retry=ONCE)
async def bad(name: str) -> str:
    """Fail for good."""
    raise ValueError(name)


@task(registry=registry)
async def both(one: str, other: str) -> str:
    """Note both."""
    ran.append(f"{one}+{other}")
    return one + other


@task(registry=registry)
async def all_of(names: list[str]) -> str:
    """Note all."""
    ran.append("all")
    return ",".join(names)


@task(registry=registry)
async def tell(results: list[Success[str] | Failure]) -> int:
    """Return how many succeeded."""
    return sum(isinstance(result, Success) for result in results)


# --- order where no value is taken


_NOBODY: list[Signature[str]] = []


def _nothing(_: str) -> Flow[list[str]]:
    return group()


FOLLOW: list[Callable[[str], Signature[object]]] = [
    lambda _: step.s("after"),
    _nothing,
    lambda _: chord(_NOBODY, all_of),
    lambda _: group(step.s("after"), step.s("after too")),
    lambda _: chord([step.s("after")], all_of),
    lambda _: each(step).s(["after"]),
    lambda first: chain(step.s("after"), lambda _: step.s(first)),
    lambda first: group(step.s(first), step.s("after")),
    lambda first: gather(step.s("after"), step.s(first)).then(both),
]
BEFORE: list[Callable[[], Signature[str]]] = [
    lambda: step.options(run_in=HOUR).s("first"),
    lambda: group(step.options(run_in=HOUR).s("first"), step.s("beside")).then(all_of),
]


@pytest.mark.parametrize("follow", FOLLOW)
@pytest.mark.parametrize("before", BEFORE)
def test_whatever_follows_waits_for_what_comes_before(
    harbor: Harbor, before: Callable[[], Signature[str]], follow: Callable[[str], Signature[object]]
) -> None:
    handle = before().then(follow).enqueue()
    harbor.run_until_idle()

    assert not [name for name in ran if name != "beside"]
    assert FlowState.RUNNING is handle.status().flow


def test_a_gathered_result_that_nobody_takes_is_waited_for(harbor: Harbor) -> None:
    good = gather(step.s("a"), step.options(run_in=HOUR).s("b")).then(lambda a, _: step.s(a)).enqueue()
    failing = gather(step.s("a"), bad.s("b")).then(lambda a, _: step.s(a)).enqueue()
    harbor.run_until_idle()

    assert FlowState.RUNNING is good.status().flow
    with pytest.raises(FlowFailed):
        failing.result(ENOUGH)


def test_a_list_that_nobody_takes_and_that_fails_in_part_is_waited_for_once(harbor: Harbor) -> None:
    mixed = group(step.s("x"), bad.s("y"), allow_failures=True)
    handle = gather(step.s("a"), mixed).then(lambda _, __: step.s("end")).enqueue()
    harbor.run_until_idle()

    assert "end" == handle.result(ENOUGH)


def test_many_placeholders_that_nobody_takes_are_told_apart(harbor: Harbor) -> None:
    flow = chord([chain(step.s(f"{n}"), lambda _: step.s("then")) for n in range(300)], all_of)

    assert 301 - 1 == len(_result(harbor, flow).split(","))


def _result(harbor: Harbor, flow: Flow[T]) -> T:
    handle = flow.enqueue()
    harbor.run_until_idle(within=timedelta(seconds=1))
    return handle.result(ENOUGH)


# --- keys


def test_a_key_twice_in_one_flow_is_refused(harbor: Harbor) -> None:
    keyed = step.options(key="x")

    with pytest.raises(FlowError, match="have the key 'x'"):
        group(keyed.s("1"), keyed.s("2")).enqueue()
    assert not harbor.jobs.find()


def test_a_key_of_the_last_step_is_its_own_and_not_the_flows(harbor: Harbor) -> None:
    last = step.options(key="K")
    chain(step.s("1"), last).enqueue()

    with pytest.raises(DuplicateJob):
        chain(step.s("2"), last).enqueue()


def test_a_flow_does_not_get_a_plain_job_for_its_key(harbor: Harbor) -> None:
    step.options(key="P").enqueue("plain")

    with pytest.raises(KeyConflict):
        chain(step.s("1"), step).configure(key="P").enqueue()


def test_names_and_keys_are_not_run_together(harbor: Harbor) -> None:
    first = group(step.s("1")).configure(name="x:y", key="z").enqueue()
    second = group(step.s("1")).configure(name="x", key="y:z").enqueue()

    assert (True, True) == (first.created, second.created)


def _strict(name: str) -> Signature[str]:
    return both.s("strict", name)


def _lax(name: str) -> Signature[str]:
    return both.s("lax", name)


DIFFERENT: list[tuple[Callable[[], Flow[str]], Callable[[], Flow[str]]]] = [
    (lambda: _listed(["1", "2"]), lambda: _listed(["3"])),
    (lambda: _listed(["1"], _strict), lambda: _listed(["1"], _lax)),
    (
        lambda: step.s("r").then(lambda r: all_of.s([r, "5"])),
        lambda: step.s("r").then(lambda r: all_of.s([r, "6"])),
    ),
    (
        lambda: step.s("r").then(lambda r: all_of.s([r, "5"])),
        lambda: step.s("r").then(lambda r: all_of.s(["5", r])),
    ),
    (
        lambda: gather(step.s("a"), step.s("b")).then(both),
        lambda: gather(step.s("a"), step.s("b")).then(lambda a, b: both.s(b, a)),
    ),
    (lambda: chain(step.s("a"), step), lambda: chain(step.s("a"), step, step)),
]


def _listed(names: list[str], body: Callable[[str], Signature[str]] = _strict) -> Flow[str]:
    return chord(each(body).s(names), all_of)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_another_flow_under_the_same_key_is_a_conflict(
    harbor: Harbor, one: Callable[[], Flow[str]], other: Callable[[], Flow[str]]
) -> None:
    first = one().configure(key="k").enqueue()

    assert first.id == one().configure(key="k").enqueue().id
    with pytest.raises(KeyConflict):
        other().configure(key="k").enqueue()


def test_configure_adds_to_what_was_said(harbor: Harbor) -> None:
    flow = chain(step.s("1"), step).configure(name="n", meta={"a": "1"}, key="k").configure(meta={"b": "2"})
    handle = flow.enqueue()

    status = handle.status()

    assert ("n", {"a": "1", "b": "2"}) == (status.name, status.meta)
    assert not flow.enqueue().created


# --- formats


class Mine(JsonCodec):
    """A format of a user's own."""

    name = "mine"

    def encoder(self) -> Encode:
        encode = super().encoder()
        return lambda value: b"!" + encode(value)

    def decoder(self, kind: type[T]) -> Callable[[bytes], T]:
        decode = super().decoder(kind)
        return lambda data: decode(data[1:])


UNIQUE = UUID("00000000-0000-7000-8000-000000000001")


@task(registry=registry, codec=MsgpackCodec())
async def when() -> UUID:
    """Return what JSON has no type for."""
    return UNIQUE


@task(registry=registry)
async def save(pair: tuple[str, UUID]) -> str:
    """Return what came in, and of which types."""
    return f"{type(pair[0]).__name__} {type(pair[1]).__name__} {pair[1] == UNIQUE}"


@task(registry=registry)
async def nested(lists: list[list[str]] | None) -> str:
    """Return them as text."""
    return repr(lists)


@task(registry=registry, codec=Mine())
async def mine(count: int) -> list[str]:
    """Return a list, in a format of its own."""
    return [str(n) for n in range(count)]


@task(registry=registry)
async def told(result: Success[str] | Failure) -> str:
    """Return whether it succeeded."""
    return type(result).__name__


def _in_part(name: str) -> Signature[list[Success[str] | Failure]]:
    return group(step.s(name), bad.s(name), allow_failures=True)


FORMATS: dict[str, tuple[Callable[[], Signature[object]], object]] = {
    "a tuple of several formats": (
        lambda: gather(step.s("t"), when.s()).then(lambda t, w: save.s((t, w))),
        "str UUID True",
    ),
    "lists in a union": (
        lambda: group(group(step.s("a")), group(step.s("b"))).then(nested),
        "[['a'], ['b']]",
    ),
    "each in a user's format": (lambda: mine.s(2).then(each(step)), ["0", "1"]),
    "each over successes and failures": (
        lambda: group(step.s("a"), bad.s("b"), allow_failures=True).then(each(told)),
        ["Success", "Failure"],
    ),
    "each over lists of those": (
        lambda: each(_in_part).s(["a"]).then(each(each(told))),
        [["Success", "Failure"]],
    ),
    "a callback over lists of those": (lambda: each(_in_part).s(["a"]).then(each(tell)), [1]),
}


@pytest.mark.parametrize("name", FORMATS)
def test_values_arrive_as_their_types(name: str) -> None:
    compose, expected = FORMATS[name]

    with Harbor(MemoryDriver(), registry=registry, codecs=[Mine()]) as harbor, harbor.worker_thread():
        assert expected == compose().enqueue().result(ENOUGH)


def test_a_list_given_to_each_is_checked_when_it_is_sent(harbor: Harbor) -> None:
    with pytest.raises(PayloadError, match=r"parameter 'name' of task .*Expected `str`, got `int`") as caught:
        each(step).s(untyped(["a", 2])).enqueue()

    assert "$[1]" == caught.value.path
    assert not harbor.jobs.find()


def test_each_over_what_is_no_list_is_dead_at_once(harbor: Harbor) -> None:
    handle = step.s("text").then(untyped(each(step))).enqueue()
    harbor.run_until_idle()

    with pytest.raises(FlowFailed, match=r"taskharbor\.each") as caught:
        handle.result(ENOUGH)
    assert ("taskharbor.errors.PayloadError", 1) == (caught.value.error_type, caught.value.attempts)


# --- more with a success


@task(registry=registry)
def ask_from_threads(ctx: Context, threads: int, each_asks: int) -> None:
    """Ask for more, from many threads at once."""

    def ask() -> None:
        for _ in range(each_asks):
            ctx.enqueue_on_success(step.s("asked"))

    others = [threading.Thread(target=ask) for _ in range(threads)]
    for thread in others:
        thread.start()
    for thread in others:
        thread.join()


def test_threads_that_ask_at_once_lose_nothing(harbor: Harbor) -> None:
    harbor.install()  # threads that a handler starts see no other
    ask_from_threads.enqueue(8, 100)
    harbor.run_until_idle()

    assert 800 == ran.count("asked")


@pytest.mark.parametrize("slip", [step, [step.s("x")], "text"])
def test_asking_for_what_is_no_call_is_refused_with_words(slip: object) -> None:
    with pytest.raises(OptionError, match="expected signatures"):
        Context.detached(None).enqueue_on_success(untyped(slip))


def test_on_failure_within_a_list_is_refused(harbor: Harbor) -> None:
    @task(registry=Registry())
    async def alert(*failures: FlowFailure) -> None: ...

    with pytest.raises(FlowError, match="whole argument"):
        chain(step.s("a"), step).configure(on_failure=alert).enqueue()


def test_a_flow_that_is_nested_too_deeply_says_so(harbor: Harbor) -> None:
    pipeline = chain(step, step)
    for _ in range(1500):
        pipeline = chain(step, pipeline)

    with pytest.raises(FlowError, match="nested too deeply"):
        pipeline.enqueue("x")


def test_the_reason_names_a_step_that_is_still_dead(harbor: Harbor) -> None:
    handle = group(bad.s("one"), bad.s("two")).enqueue()
    harbor.run_until_idle()
    first, second = [one for one in handle.steps() if one.state is JobState.DEAD]
    harbor.jobs.requeue([first.id if first.id in handle.status().flow_reason else second.id])

    with pytest.raises(FlowFailed) as caught:
        handle.result(ENOUGH)

    assert caught.value.job_id in handle.status().flow_reason
    assert msgspec.json.encode(caught.value.error_message) in (b'"one"', b'"two"')
