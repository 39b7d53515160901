"""One step after the other, each with the result of the one before: `chain`."""

from __future__ import annotations

from typing import ParamSpec, cast, overload

from typing_extensions import TypeVar

from taskharbor.call import Flow, Node, Placeholder, Signature, Step, Then, apply, several, shown, title
from taskharbor.errors import FlowError
from taskharbor.task import Bound
from taskharbor.workflow.members import node_of
from taskharbor.workflow.pipeline import Pipeline

P = ParamSpec("P")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
F = TypeVar("F")
G = TypeVar("G")
H = TypeVar("H")


# By length, and by what it starts with. `then` is the same without limit of length.
@overload
def chain(a: Bound[P, A], b: Step[A, B], /) -> Pipeline[P, B]: ...
@overload
def chain(a: Signature[A], b: Step[A, B], /) -> Flow[B]: ...
@overload
def chain(a: Bound[P, A], b: Step[A, B], c: Step[B, C], /) -> Pipeline[P, C]: ...
@overload
def chain(a: Signature[A], b: Step[A, B], c: Step[B, C], /) -> Flow[C]: ...
@overload
def chain(a: Bound[P, A], b: Step[A, B], c: Step[B, C], d: Step[C, D], /) -> Pipeline[P, D]: ...
@overload
def chain(a: Signature[A], b: Step[A, B], c: Step[B, C], d: Step[C, D], /) -> Flow[D]: ...
@overload
def chain(
    a: Bound[P, A], b: Step[A, B], c: Step[B, C], d: Step[C, D], e: Step[D, E], /
) -> Pipeline[P, E]: ...
@overload
def chain(a: Signature[A], b: Step[A, B], c: Step[B, C], d: Step[C, D], e: Step[D, E], /) -> Flow[E]: ...
@overload
def chain(
    a: Bound[P, A], b: Step[A, B], c: Step[B, C], d: Step[C, D], e: Step[D, E], f: Step[E, F], /
) -> Pipeline[P, F]: ...
@overload
def chain(
    a: Signature[A], b: Step[A, B], c: Step[B, C], d: Step[C, D], e: Step[D, E], f: Step[E, F], /
) -> Flow[F]: ...
@overload
def chain(
    a: Bound[P, A],
    b: Step[A, B],
    c: Step[B, C],
    d: Step[C, D],
    e: Step[D, E],
    f: Step[E, F],
    g: Step[F, G],
    /,
) -> Pipeline[P, G]: ...
@overload
def chain(
    a: Signature[A],
    b: Step[A, B],
    c: Step[B, C],
    d: Step[C, D],
    e: Step[D, E],
    f: Step[E, F],
    g: Step[F, G],
    /,
) -> Flow[G]: ...
@overload
def chain(
    a: Bound[P, A],
    b: Step[A, B],
    c: Step[B, C],
    d: Step[C, D],
    e: Step[D, E],
    f: Step[E, F],
    g: Step[F, G],
    h: Step[G, H],
    /,
) -> Pipeline[P, H]: ...
@overload
def chain(
    a: Signature[A],
    b: Step[A, B],
    c: Step[B, C],
    d: Step[C, D],
    e: Step[D, E],
    f: Step[E, F],
    g: Step[F, G],
    h: Step[G, H],
    /,
) -> Flow[H]: ...
def chain(start: object, /, *links: object) -> object:
    """Return steps that run one after the other, each with the result of the one before.

        chain(fetch.s(url), parse, total)                                     # Flow[int]
        chain(fetch.s(url), lambda body: parse.s(body, strict=True), total)   # Flow[int]
        chain(fetch, parse, total)                                            # Pipeline[[str], int]

    Args:
        start: a signature, which makes a `Flow`; or a task without its arguments, which makes a `Pipeline`.
        links: what follows, up to seven, each a task whose first parameter takes the result before it and whose
            others have defaults; a `Pipeline`; `each(...)`; or a function from the result to a signature. Functions
            run once, now, and are given a placeholder, which they can pass on as a whole argument.

    Raises:
        FlowError: a link is nothing of the kind, or it used the placeholder as if it were the value; or a part was
            configured, which comes last.
    """
    if not links:
        star = "; put a star before the list" if several(start) else ""
        raise FlowError(
            f"chain({shown(start)}) joins nothing: it takes what follows, as in chain(fetch, parse){star}"
        )
    if isinstance(start, Bound):
        return _pipeline(cast("Bound[..., object]", start), links)
    node = node_of(start, "chain(...)")
    for place, after in _tail(title(node), links):
        node = Then((node,), (place,), after)
    return Flow[object](node)


def _pipeline(head: Bound[..., object], links: tuple[object, ...]) -> Pipeline[..., object]:
    if isinstance(head, Pipeline):
        head.check_part()
    tail = _tail(head.name, links)
    names = ", ".join([head.name, *(title(node) for _, node in tail)])
    return Pipeline(f"chain({names})", head, tail)


def _tail(before: str, links: tuple[object, ...]) -> list[tuple[Placeholder, Node]]:
    """Return what each link makes of the result before it, and what stands there for that result."""
    tail: list[tuple[Placeholder, Node]] = []
    for link in links:
        place = Placeholder(before)
        node = apply(link, place)
        tail.append((place, node))
        before = title(node)
    return tail
