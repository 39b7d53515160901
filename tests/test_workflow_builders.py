"""What the builders make of calls: trees, before anything is sent. And what they refuse, and how they say so."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any, cast

import pytest

from taskharbor import (
    Bound,
    Flow,
    FlowError,
    FlowFailure,
    Harbor,
    NoHarborError,
    OptionError,
    PayloadError,
    Pipeline,
    Registry,
    Signature,
    chain,
    chord,
    each,
    gather,
    group,
    task,
)
from taskharbor.call import Call, Each, FlowOptions, Group, Node, Placeholder, Then
from taskharbor.call.graph import result_of
from tests.fixtures.support import untyped

registry = Registry()


@task(name="fetch", registry=registry)
def fetch(url: str) -> bytes:
    return url.encode()


@task(name="parse", registry=registry)
def parse(body: bytes, strict: bool = False) -> int:
    return len(body) if strict else 0


@task(name="add", registry=registry)
def add(x: int, y: int = 1) -> int:
    return x + y


@task(name="pair", registry=registry)
def pair(x: int, y: int, /) -> int:
    return x + y


@task(name="total", registry=registry)
def total(numbers: list[int]) -> int:
    return sum(numbers)


@task(name="upto", registry=registry)
def upto(n: int) -> list[int]:
    return list(range(n))


@task(name="later", registry=registry)
async def later(x: int) -> int:
    return x


@task(name="alarm", registry=registry)
def alarm(failure: FlowFailure, channel: str = "") -> None:
    print(failure, channel)


# --- looking into trees


def node(signature: Signature[object]) -> Node:
    return signature.node


def call(of: Node) -> Call:
    assert isinstance(of, Call)
    return of


def then(of: Node) -> Then:
    assert isinstance(of, Then)
    return of


def members(of: Node) -> Iterable[Node]:
    assert isinstance(of, Group)
    return of.members


def argument(of: Node, name: str) -> object:
    return cast("object", getattr(call(of).arguments, name))


def calls(of: Node) -> Iterator[Call]:
    """Yield the calls of a tree in the order in which they run."""
    if isinstance(of, Call):
        yield of
    elif isinstance(of, Group):
        for member in of.members:
            yield from calls(member)
    elif isinstance(of, Each):
        yield from calls(of.body)
    else:
        for before in of.before:
            yield from calls(before)
        yield from calls(of.node)


def tasks(of: Signature[object]) -> list[str]:
    return [one.callee.name for one in calls(of.node)]


# --- chain and then


def test_a_link_takes_the_placeholder_of_what_comes_before() -> None:
    made = then(node(chain(fetch.s("u"), parse)))

    (before,), (place,) = made.before, made.places
    assert argument(before, "url") == "u"
    assert argument(made.node, "body") is place
    assert "fetch" == result_of(place)


def test_a_function_places_the_result_where_it_likes() -> None:
    made = then(node(chain(add.s(1), lambda n: add.s(5, y=n))))

    assert 5 == argument(made.node, "x")
    assert argument(made.node, "y") is made.places[0]


def test_a_chain_is_what_then_makes() -> None:
    by_chain = chain(fetch.s("u"), parse, add, upto)
    by_then = fetch.s("u").then(parse).then(add).then(upto)

    assert ["fetch", "parse", "add", "upto"] == tasks(by_chain) == tasks(by_then)
    assert tasks(chain(chain(fetch.s("u"), parse), add)) == tasks(chain(fetch.s("u"), chain(parse, add)))


def test_a_chain_may_be_very_long() -> None:
    flow = add.s(1).then(add)
    for _ in range(5_000):
        flow = flow.then(add)

    assert "<Flow of add>" == repr(flow)
    made = node(chain(fetch, parse, lambda _: flow).options(queue="low").s("u"))
    queues: list[object] = []
    inner = then(made).node
    while isinstance(inner, Then):
        queues.append(call(inner.node).options.queue)
        inner = inner.before[0]
    assert {"low"} == set(queues)


def test_a_function_runs_once_when_the_chain_is_built() -> None:
    seen: list[object] = []

    def strictly(body: bytes) -> Signature[int]:
        seen.append(body)
        return parse.s(body, strict=True)

    pipeline = chain(fetch, strictly, add)
    for site in "uvw":
        pipeline.s(site)
        pipeline.options(queue="low").configure(name=site).s(site)

    assert 1 == len(seen)


def test_a_bound_method_is_a_function_too() -> None:
    assert ["fetch", "parse"] == tasks(chain(fetch.s("u"), parse.s))


def test_a_link_with_the_s_of_a_call_is_told_to_leave_it_out() -> None:
    for call_of in (parse.s, parse.options(queue="low").s, chain(parse, add).s):
        with pytest.raises(
            PayloadError, match=re.escape("as a link of a flow, name the task itself")
        ) as caught:
            untyped(call_of)()
        assert ("parse", "missing a required argument: 'body'") == (caught.value.task, caught.value.reason)
    with pytest.raises(PayloadError, match=r"-> int$"):
        untyped(parse).s(strict=True)
    with pytest.raises(PayloadError, match=r"-> int$"):
        untyped(parse).enqueue()


# --- placeholders

USES: dict[str, Callable[[Any], object]] = {
    "formatting": lambda value: f"{value}",
    "str": str,
    "percent": lambda value: "%s" % (value,),  # noqa: UP031 - some people write it so
    "bytes": lambda value: parse.s(bytes(value)),
    "iteration": lambda value: group(*[add.s(n) for n in value]),
    "a star": lambda value: pair.s(*value),
    "two stars": lambda value: add.s(**value),
    "length": lambda value: add.s(len(value)),
    "truth": lambda value: add.s(1) if value else add.s(2),
    "not": lambda value: not value,
    "an attribute": lambda value: value.title,
    "a method": lambda value: value.decode("utf-8"),
    "an item": lambda value: value["title"],
    "setting an item": lambda value: value.__setitem__(0, 1),
    "in": lambda value: 1 in value,
    "a call": lambda value: value(),
    "plus": lambda value: value + 1,
    "plus from the right": lambda value: 1 + value,
    "divmod": lambda value: divmod(value, 2),
    "minus sign": lambda value: -value,
    "equality": lambda value: add.s(1) if value == 1 else add.s(2),
    "inequality": lambda value: value != 1,
    "order": lambda value: value < 1,
    "int": lambda value: add.s(int(value)),
    "index": lambda value: fetch.s("ab"[value]),
    "range": lambda value: group(*[add.s(n) for n in range(value)]),
    "with": lambda value: value.__enter__(),
    "join": lambda value: fetch.s(", ".join(value)),
    "sum": lambda value: add.s(sum(value)),
    "sorted": lambda value: total.s(sorted(value)),
    "then": lambda value: value.then(add),
    "as a link": lambda value: add.s(1).then(value),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_placeholder_can_only_be_passed_on(use: Callable[[Any], object]) -> None:
    with pytest.raises(FlowError, match=re.escape("the result of fetch is not there yet")) as caught:
        untyped(chain)(fetch.s("u"), use)

    assert "whole argument" in str(caught.value)
    assert "belongs in a task" in str(caught.value)


def test_a_placeholder_tells_what_it_stands_for() -> None:
    place = Placeholder("fetch")

    assert "<the result of fetch, which is not there yet>" == repr(place)
    assert {place: 1}[place] == 1
    assert not hasattr(place, "__json__")  # what Python's machinery asks is answered


def test_a_match_on_a_placeholder_is_refused() -> None:
    def choose(n: int) -> Signature[int]:
        match n:
            case 1:
                return add.s(1)
            case _:
                return add.s(2)

    with pytest.raises(FlowError, match="not there yet"):
        chain(add.s(1), choose)


# --- links that are none


def of_nothing() -> Signature[int]:
    return parse.s(b"")


def of_two(body: bytes, more: bool) -> Signature[int]:
    return parse.s(body, strict=more)


def of_a_keyword(*, body: bytes) -> Signature[int]:
    return parse.s(body)


def strictly(body: bytes) -> Signature[int]:
    return parse.s(body, strict=True)


LINKS: dict[str, tuple[Callable[[Any], object] | object, str]] = {
    "a signature": (parse.s(b""), "drop the `.s()`"),
    "a flow": (chain(fetch.s("u"), parse), "drop the `.s()`"),
    "a result": (3, "name the task without calling it"),
    "none": (None, "expected a task"),
    "text": ("parse", "expected a task"),
    "a function that returns nothing": (print, "not there yet"),
    "a function without a return": (lambda _: None, "made None of the result of fetch"),
    "a function that returns what it got": (lambda body: body, "expected a signature"),
    "a function that returns a task": (lambda _: parse, "made <SyncTask parse> of the result"),
    "a function that calls the task": (lambda body: parse(body, strict=True), "not there yet"),
    "a function of nothing": (of_nothing, "called with 1 result, by position: too many"),
    "a function of two": (of_two, "missing a required argument: 'more'"),
    "a function of keywords": (of_a_keyword, "called with 1 result, by position"),
    "a task of two": (pair, "<SyncTask pair> cannot follow fetch: task 'pair' cannot be called so: missing"),
    "a gather": (gather(add.s(1), add.s(2)), "no flow yet; finish it with .then(...)"),
    "several": ([parse, add], "several at once: put a star before it"),
    "the enqueue of event loops": (parse.aenqueue, "a link makes a call with `.s(...)`"),
    "data": (
        list(range(1000)),
        "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21... cannot",
    ),
}


@pytest.mark.parametrize(("link", "told"), LINKS.values(), ids=LINKS)
def test_what_is_no_link_is_refused(link: object, told: str) -> None:
    with pytest.raises(FlowError, match=re.escape(told)):
        untyped(fetch.s("u")).then(link)
    with pytest.raises(FlowError, match=re.escape(told)):
        untyped(chain)(fetch, link)


def test_a_task_that_was_called_is_refused() -> None:
    with pytest.raises(FlowError, match=re.escape("name the task without calling it")):
        untyped(chain)(add.s(1), add(1))
    with pytest.raises(FlowError, match=re.escape("name the task without calling it")):
        untyped(chain)(add.s(1), later(1))  # and nobody is warned of a coroutine that was never awaited
    with pytest.raises(FlowError, match=re.escape("was a task called here, instead of `.s(...)`?")):
        untyped(chain)(later(1), add)


def test_a_function_that_enqueues_is_told_that_links_do_not() -> None:
    def of_it(body: bytes) -> object:
        return parse.enqueue(body)

    def of_something(_: bytes) -> object:
        return parse.enqueue(b"")

    with Harbor("memory://", registry=registry):
        for link in (of_it, of_something):
            with pytest.raises(
                FlowError, match=r"a link makes a call with `.s\(...\)`.* does not enqueue it$"
            ):
                untyped(chain)(fetch.s("u"), link)


def test_an_async_function_is_no_link() -> None:
    async def strictly(body: bytes) -> Signature[int]:
        await asyncio.sleep(0)
        return parse.s(body, strict=True)

    with pytest.raises(FlowError, match="expected a signature"):
        untyped(chain)(fetch, strictly)


def test_what_a_function_raises_itself_is_its_own() -> None:
    def fails(_: bytes) -> Signature[int]:
        raise TypeError("mine")

    with pytest.raises(TypeError, match=r"^mine$"):
        chain(fetch, fails)


def test_a_chain_of_one_is_refused() -> None:
    with pytest.raises(FlowError, match=re.escape("chain(<SyncTask fetch>) joins nothing")):
        untyped(chain)(fetch)
    with pytest.raises(FlowError, match="joins nothing"):
        untyped(chain)(fetch.s("u"))
    with pytest.raises(FlowError, match=r"joins nothing.*; put a star before the list"):
        untyped(chain)([fetch.s("u"), parse])
    with pytest.raises(TypeError):
        untyped(chain)()


# --- group and chord


def test_a_group_is_its_members_in_order() -> None:
    flow = group(add.s(1), add.s(2), chain(add.s(3), add))

    assert isinstance(node(flow), Group)
    assert [1, 2, 3] == [argument(one, "x") for one in list(calls(node(flow)))[:3]]
    assert ["add"] * 4 == tasks(flow)


def test_a_group_allows_failures_if_asked() -> None:
    strict, tolerant = node(group(add.s(1))), node(group(add.s(1), allow_failures=True))

    assert isinstance(strict, Group)
    assert isinstance(tolerant, Group)
    assert (False, True) == (strict.tolerant, tolerant.tolerant)


def test_a_group_of_nothing_is_a_group() -> None:
    nothing: Flow[list[int]] = group()

    assert () == members(node(nothing))
    assert () == members(then(node(chord(list[Signature[int]](), total))).before[0])


SLIPS: dict[str, tuple[object, str]] = {
    "a task": (add, "the task itself; give it its arguments, as add.s(...)"),
    "a task with options": (add.options(queue="low"), "as add.s(...)"),
    "a pipeline": (chain(fetch, parse), "as chain(fetch, parse).s(...)"),
    "a result": (add(1), "was a task called here, instead of `.s(...)`?"),
    "a result that is a list": (upto(3), "was a task called here, instead of `.s(...)`?"),
    "a function": (strictly, "a function; make it a task, with @task"),
    "a gather": (gather(add.s(1), add.s(2)), "no flow yet; finish it with .then(...)"),
    "a dictionary": ({"a": add.s(1)}, "a dictionary; pass its values()"),
    "a list": ([add.s(1)], "put a star before it, or use chord()"),
    "a generator": ((add.s(n) for n in range(3)), "put a star before it, or use chord()"),
    "a placeholder": (Placeholder("fetch"), "pass it to a task, as task.s(...)"),
    "a link": (each(add), "a link, which follows something; or give it what it takes, as each(add).s(...)"),
    "the s of a task": (add.s, "a method of a task, without its arguments; call it"),
    "nothing": (None, "got None"),
}


@pytest.mark.parametrize(("slip", "told"), SLIPS.values(), ids=SLIPS)
def test_what_is_no_member_is_refused_by_the_name_of_the_slip(slip: object, told: str) -> None:
    with pytest.raises(FlowError, match=rf"^group\(...\) takes signatures.*{re.escape(told)}"):
        untyped(group)(add.s(1), slip)
    with pytest.raises(FlowError, match=rf"^chord\(...\) takes signatures.*{re.escape(told)}"):
        untyped(chord)([add.s(1), slip], total)
    with pytest.raises(FlowError, match=rf"^gather\(...\) takes signatures.*{re.escape(told)}"):
        untyped(gather)(add.s(1), slip)


def test_a_coroutine_among_the_members_is_named_and_closed() -> None:
    with pytest.raises(FlowError, match=r"was a task called here, instead of"):
        untyped(group)(later(1))


@pytest.mark.parametrize("given", [3, None, add, Placeholder("fetch"), {"a": add.s(1)}, "ab"], ids=repr)
def test_a_chord_over_what_cannot_be_iterated_is_refused(given: object) -> None:
    with pytest.raises(FlowError, match=re.escape("chord(...) takes signatures, in a list or a generator")):
        untyped(chord)(given, total)


def test_a_chord_hands_the_list_to_its_callback() -> None:
    made = then(node(chord([add.s(1), add.s(2)], total)))

    assert argument(made.node, "numbers") is made.places[0]
    assert "a group" == result_of(made.places[0])
    assert tasks(chord(group(add.s(1), add.s(2)), total)) == ["add", "add", "total"]


def test_a_chord_goes_on_from_any_signature_of_a_list() -> None:
    assert ["upto", "total"] == tasks(chord(upto.s(3), total))
    assert ["upto", "add", "total"] == tasks(chord(upto.s(3).then(each(add)), total))


def test_members_in_a_collection_are_read_at_once() -> None:
    numbers = [add.s(1), add.s(2)]

    flow = chord(numbers, total)
    numbers.clear()

    assert [["add", "add", "total"]] * 2 == [tasks(flow), tasks(flow)]
    assert ["add", "total"] == tasks(chord({add.s(1)}, total))
    assert ["add", "total"] == tasks(chord({1: add.s(1)}.values(), total))


def test_a_generator_is_read_when_the_flow_is_and_only_once() -> None:
    read: list[int] = []

    def some() -> Iterator[Signature[int]]:
        for n in range(3):
            read.append(n)
            yield add.s(n)

    flow = chord(some(), total).configure(name="sum")
    assert [] == read

    several = iter(members(then(flow.sendable.node).before[0]))
    assert "add" == call(next(several)).callee.name
    assert [0] == read
    assert 2 == len(list(several))
    with pytest.raises(FlowError, match=r"only once.*when the flow was sent before; pass a list"):
        iter(members(then(flow.sendable.node).before[0]))


def test_a_generator_of_something_else_is_refused_where_it_stands() -> None:
    flow: Flow[int] = untyped(chord)((add.s(n) if n < 2 else add for n in range(3)), total)

    with pytest.raises(FlowError, match=re.escape("chord(...) takes signatures, as task.s(...) makes them")):
        tasks(flow)


def test_what_can_be_iterated_again_can_be_sent_again() -> None:
    class Sites:
        def __iter__(self) -> Iterator[Signature[int]]:
            return (add.s(n) for n in range(2))

    flow = chord(Sites(), total)

    assert tasks(flow) == tasks(flow) == ["add", "add", "total"]


# --- gather


def test_a_gather_gives_each_result_its_place() -> None:
    made = then(node(gather(add.s(1), fetch.s("u").then(parse)).then(pair)))

    one, other = made.places
    assert ["add", "parse"] == [result_of(one), result_of(other)]
    assert argument(made.node, "x") is one
    assert argument(made.node, "y") is other
    assert 2 == len(made.before)


def last_two(*numbers: int) -> Signature[int]:
    return add.s(*numbers[-2:])


def test_a_gather_takes_two_to_five() -> None:
    calls = [add.s(n) for n in range(6)]

    for count in range(2, 6):
        joined = untyped(gather)(*calls[:count])
        assert f"<Gather{count} of {', '.join(['add'] * count)}>" == repr(joined)
        made = then(node(joined.then(last_two)))
        assert count == len(made.before) == len(made.places)
    for count in (0, 1, 6):
        with pytest.raises(FlowError, match=f"two to five signatures, and got {count}; group"):
            untyped(gather)(*calls[:count])


def test_a_gather_alone_is_no_flow() -> None:
    both = untyped(gather(add.s(1), parse.s(b"")))

    for name in ("enqueue", "aenqueue", "s"):
        with pytest.raises(FlowError, match=r"^<Gather2 of add, parse> is no flow yet; finish it with .then"):
            getattr(both, name)
    with pytest.raises(AttributeError, match="'Gather2' object has no attribute 'result'"):
        both.result  # noqa: B018 - asked for, and not there
    with pytest.raises(FlowError, match=r"^chain\(...\) takes signatures.*finish it with .then"):
        untyped(chain)(both, add)


def test_a_chain_starts_with_a_call_or_a_task() -> None:
    with pytest.raises(FlowError, match=r"^chain\(...\) takes signatures.* a function; make it a task"):
        untyped(chain)(strictly, add)
    with pytest.raises(FlowError, match="was a task called here, instead of") as caught:
        untyped(chain)(upto(1000), total)
    assert 250 > len(str(caught.value))
    with pytest.raises(FlowError, match="several at once; put a star before it"):
        untyped(chain)([add.s(1), add.s(2)], total)


def test_a_gather_refuses_what_does_not_take_that_many() -> None:
    both = untyped(gather(add.s(1), parse.s(b"")))

    def of_one(n: int) -> Signature[int]:
        return add.s(n)

    def reckoning(one: int, other: int) -> Signature[int]:
        return add.s(one, other + 1)

    with pytest.raises(
        FlowError, match="cannot follow add and parse: it is called with 2 results, by position"
    ):
        both.then(of_one)
    with pytest.raises(FlowError, match=re.escape("<SyncTask total> cannot follow add and parse")):
        both.then(total)
    with pytest.raises(FlowError, match=re.escape("each(add) cannot follow add and parse")):
        both.then(each(add))
    with pytest.raises(FlowError, match="the result of parse is not there yet"):
        both.then(reckoning)


# --- each


def test_each_goes_over_what_stands_for_a_list() -> None:
    made = then(node(chain(upto.s(3), each(add))))

    inner = made.node
    assert isinstance(inner, Each)
    assert inner.items is made.places[0]
    assert argument(inner.body, "x") is inner.element


def test_each_goes_over_a_real_list() -> None:
    numbers = [1, 2]
    flow = each(add).s(numbers)
    numbers.append(3)

    made = node(flow)
    assert isinstance(flow, Flow)
    assert isinstance(made, Each)
    assert [1, 2] == made.items
    assert ["add", "total"] == tasks(flow.then(total))


@pytest.mark.parametrize("given", [3, "ab", (1, 2), None, {1}], ids=repr)
def test_each_takes_lists_alone(given: object) -> None:
    with pytest.raises(FlowError, match=re.escape("each(add) takes a list, and got")):
        untyped(each(add)).s(given)


def test_each_takes_no_list_of_results_to_come() -> None:
    with pytest.raises(FlowError, match=re.escape("join those with group()")):
        chain(add.s(1), lambda n: each(add).s([n]))


def test_each_of_each_has_elements_of_its_own() -> None:
    made = then(node(chain(group(upto.s(1), upto.s(2)), each(each(add))))).node

    assert isinstance(made, Each)
    inner = made.body
    assert isinstance(inner, Each)
    assert inner.items is made.element
    assert argument(inner.body, "x") is inner.element


def test_each_refuses_what_is_no_link_at_once() -> None:
    with pytest.raises(FlowError, match="cannot follow an element of a list"):
        untyped(each)(add.s(1))
    with pytest.raises(FlowError, match=re.escape("<SyncTask pair> cannot follow an element of a list")):
        untyped(each)(pair)


# --- pipelines


def test_a_pipeline_takes_the_arguments_of_its_head() -> None:
    pipeline = chain(fetch, parse, add)

    one, other = node(pipeline.s("u")), node(pipeline.s(url="v"))

    assert ["u", "v"] == [argument(next(calls(made)), "url") for made in (one, other)]
    assert ["fetch", "parse", "add"] == tasks(pipeline.s("u"))
    with pytest.raises(PayloadError, match=r"missing a required argument: 'url'.*name the task itself"):
        untyped(pipeline).s()
    with pytest.raises(PayloadError, match=r"-> bytes$"):
        untyped(pipeline).enqueue()


def test_a_pipeline_is_a_bound_task_and_a_link() -> None:
    page = chain(fetch, parse)

    assert isinstance(page, Pipeline)
    assert isinstance(page, Bound)
    assert ["fetch", "parse", "add", "fetch", "parse"] == tasks(
        chain(chain(page, add), lambda _: page.s("u")).s("u")
    )
    assert ["fetch", "parse", "total"] == tasks(each(page).s(["u"]).then(total))
    assert isinstance(page.options(queue="low"), Pipeline)
    assert isinstance(page.configure(name="page"), Pipeline)


def test_a_pipeline_without_a_harbor_says_so() -> None:
    with pytest.raises(NoHarborError):
        chain(fetch, parse).enqueue("u")
    with pytest.raises(NoHarborError):
        asyncio.run(chain(fetch, parse).aenqueue("u"))
    with pytest.raises(NoHarborError):
        chain(fetch, parse).handle("0192")


# --- options


def queues(flow: Signature[object]) -> list[object]:
    return [one.options.queue for one in calls(flow.node)]


def test_options_of_a_step_are_its_own() -> None:
    flow = chain(
        fetch.options(queue="a").s("u"), parse.options(queue="b"), lambda n: add.options(queue="c").s(n)
    )

    assert ["a", "b", "c"] == queues(flow)


def test_options_of_a_pipeline_are_for_every_step_that_does_not_say_otherwise() -> None:
    whole = chain(
        fetch,
        parse.options(queue="own"),
        lambda n: group(add.s(n), add.options(queue="own").s(n)),
        each(add),
        lambda ns: chord((add.s(n) for n in range(2)), lambda _: total.s(ns)),
    )

    flow = whole.options(queue="low", meta={"a": "b"}).s("u")
    assert ["low", "own", "low", "own", "low", "low", "low", "low"] == queues(flow)
    flow = whole.options(queue="low").options(queue="later").options(priority=0).s("u")
    made = list(calls(then(then(then(flow.node).before[0]).before[0]).node))
    assert [("later", 0), ("own", 0)] == [(one.options.queue, one.options.priority) for one in made]


def test_options_of_a_part_come_before_those_of_the_whole() -> None:
    part = chain(parse, add).options(queue="part", timeout=timedelta(seconds=1))

    flow = (
        chain(fetch, part, add).options(queue="whole", timeout=timedelta(seconds=2), meta={"a": "b"}).s("u")
    )

    assert ["whole", "part", "part", "whole"] == queues(flow)
    assert [2, 1, 1, 2] == [
        cast("timedelta", one.options.timeout).total_seconds() for one in calls(flow.node)
    ]


def test_when_a_pipeline_may_start_is_said_of_its_first_step() -> None:
    minute, hour = timedelta(minutes=1), timedelta(hours=1)

    waiting = chain(chain(fetch, parse), add).options(run_in=minute).s("u")
    own = chain(fetch.options(run_in=hour), parse).options(run_in=minute).s("u")

    assert [minute] == [one.options.run_in for one in calls(waiting.node) if one.options.run_in]
    assert [hour] == [one.options.run_in for one in calls(own.node) if one.options.run_in]


def test_a_key_of_a_pipeline_is_that_of_the_whole() -> None:
    flow = chain(fetch, parse).options(key="k", key_ttl=timedelta(hours=1), on_conflict="raise").s("u")

    options = flow.sendable.options
    assert ("k", timedelta(hours=1), "raise") == (options.key, options.key_ttl, options.on_conflict)
    assert not any(one.options.key for one in calls(flow.sendable.node))
    assert "other" == chain(fetch, parse).options(key="k").configure(key="other").s("u").sendable.options.key


@pytest.mark.parametrize(
    "options",
    [
        {"queue": ""},
        {"priority": 10},
        {"run_in": 5},
        {"key": ""},
        {"on_conflict": "ignore"},
        {"meta": {"a": 1}},
    ],
    ids=str,
)
def test_options_that_cannot_be_are_refused_when_they_are_said(options: dict[str, object]) -> None:
    with pytest.raises(OptionError):
        untyped(chain(fetch, parse)).options(**options)


# --- what is said of the whole


def said(flow: Flow[object]) -> FlowOptions:
    return flow.sendable.options


def test_a_flow_is_configured_as_a_whole() -> None:
    meta = {"a": "b"}
    told = said(chain(fetch.s("u"), parse).configure(name="import", meta=meta, key="k", on_failure=alarm))
    meta.clear()

    assert ("import", {"a": "b"}, "k") == (told.name, told.meta, told.key)
    assert told.on_failure is not None
    told_of, place = told.on_failure
    assert argument(told_of, "failure") is place
    assert said(chain(fetch, parse).configure(name="import").s("u")).name == "import"
    assert said(chain(fetch, parse).configure(name="import").options(queue="low").s("u")).name == "import"


def test_on_failure_may_place_the_failure_and_have_options() -> None:
    told = said(
        group(add.s(1)).configure(
            on_failure=lambda failure: alarm.options(queue="ops").s(failure, channel="ops")
        )
    )

    assert told.on_failure is not None
    assert ("alarm", "ops") == (told.on_failure[0].callee.name, told.on_failure[0].options.queue)
    assert "ops" == argument(told.on_failure[0], "channel")


def test_on_failure_is_one_call() -> None:
    flow = untyped(chain(fetch.s("u"), parse))

    def many(failure: FlowFailure) -> Signature[object]:
        return group(alarm.s(failure))

    def reading(failure: FlowFailure) -> Signature[object]:
        return alarm.s(failure, channel=failure.task)

    for several in (chain(alarm, lambda _: add.s(1)), many):
        with pytest.raises(FlowError, match=r"on_failure: expected a task.* and got several steps"):
            flow.configure(on_failure=several)
    with pytest.raises(FlowError, match="cannot follow a flow that failed"):
        flow.configure(on_failure=add.s(1))
    with pytest.raises(FlowError, match="the result of a flow that failed is not there yet"):
        flow.configure(on_failure=reading)


@pytest.mark.parametrize(
    "wrong",
    [{"name": " "}, {"name": "a\nb"}, {"meta": {"a": 1}}, {"key": ""}, {"on_conflict": "ignore"}],
    ids=str,
)
def test_what_cannot_be_said_of_a_flow_is_refused(wrong: dict[str, object]) -> None:
    for whole in (chain(fetch.s("u"), parse), chain(fetch, parse), group(add.s(1))):
        with pytest.raises(OptionError):
            untyped(whole).configure(**wrong)


FLOW = chain(fetch.s("u"), parse).configure(name="page")
PIPELINE = chain(fetch, parse).configure(name="page")
KEYED = chain(fetch, parse).options(key="k")
PARTS: dict[str, Callable[[], object]] = {
    "then": lambda: FLOW.then(add),
    "the start of a chain": lambda: chain(FLOW, add),
    "what a function returns": lambda: chain(add.s(1), lambda _: FLOW),
    "a member": lambda: group(add.s(1), FLOW),
    "a member of a chord": lambda: chord([FLOW], total),
    "in a gather": lambda: gather(FLOW, add.s(1)),
    "the head of a pipeline": lambda: chain(PIPELINE, add),
    "a link": lambda: chain(fetch, parse, lambda _: PIPELINE.s("u")),
    "the body of an each": lambda: each(PIPELINE),
    "with a key": lambda: chain(KEYED, add),
    "with a key, as a member": lambda: group(KEYED.s("u")),
}


@pytest.mark.parametrize("build", PARTS.values(), ids=PARTS)
def test_configure_comes_last(build: Callable[[], object]) -> None:
    with pytest.raises(FlowError, match=re.escape("configure() comes last")):
        build()


# --- names


@pytest.mark.parametrize(
    ("thing", "shown"),
    [
        (fetch.s("u"), "<Signature of fetch>"),
        (chain(fetch.s("u"), parse), "<Flow of parse>"),
        (group(add.s(1)), "<Flow of a group>"),
        (chord([add.s(1)], total), "<Flow of total>"),
        (each(add), "each(add)"),
        (each(chain(fetch, parse)), "each(parse)"),
        (each(each(add)), "each(each(add))"),
        (each(add).s([1]), "<Flow of each(add)>"),
        (gather(add.s(1), fetch.s("u")), "<Gather2 of add, fetch>"),
        (chain(fetch, parse, upto, each(add)), "<Pipeline chain(fetch, parse, upto, each(add))>"),
        (chain(fetch, parse).options(queue="low"), "<Pipeline chain(fetch, parse)>"),
    ],
    ids=str,
)
def test_what_was_built_says_what_it_is(thing: object, shown: str) -> None:
    assert shown == repr(thing)
