"""Who takes part in a flow: signatures, as nodes. Anything else is refused by the name of the slip it must be."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import cast

from taskharbor.call import JobHandle, Node, Placeholder, Signature, several, shown
from taskharbor.errors import FlowError
from taskharbor.task import Bound
from taskharbor.workflow.unjoined import Unjoined


def node_of(thing: object, where: str) -> Node:
    """Return what a signature is in a flow's graph.

    Args:
        thing: what was given, a signature if all is well.
        where: what it was given to, for messages.

    Raises:
        FlowError: it is no signature, or a flow that was configured.
    """
    if isinstance(thing, Signature):
        return cast("Signature[object]", thing).node
    raise FlowError(
        f"{where} takes signatures, as task.s(...) makes them, and got {shown(thing)}{_slip(thing)}"
    )


def _slip(thing: object) -> str:
    if isinstance(thing, Bound):
        return f": the task itself; give it its arguments, as {cast('Bound[..., object]', thing).name}.s(...)"
    if isinstance(thing, Placeholder):
        return ": a result that is not there yet; pass it to a task, as task.s(...)"
    if isinstance(thing, JobHandle):
        return (
            ": a job that was sent already; task.s(...) makes the call and leaves it to the flow to send it"
        )
    if isinstance(thing, Unjoined):
        return ": no flow yet; finish it with .then(...), which says what takes the results"
    if several(thing) or isinstance(thing, Iterator):
        return ": several at once; put a star before it, or use chord(), which takes them so"
    if isinstance(thing, Mapping):
        return ": a dictionary; pass its values()"
    if hasattr(type(thing), "s"):
        return f": a link, which follows something; or give it what it takes, as {thing!r}.s(...)"
    if isinstance(getattr(thing, "__self__", None), Bound):
        return ": a method of a task, without its arguments; call it"
    if inspect.isroutine(thing):
        return ": a function; make it a task, with @task"
    if inspect.iscoroutine(thing):
        thing.close()  # or Python warns, later and elsewhere, that nobody awaited it
    return ": was a task called here, instead of `.s(...)`? task.s(...) makes a call for later"


def members(given: object, where: str) -> Iterable[Node]:
    """Return the members of a group as nodes: those of a collection at once, any others when they are read.

    Raises:
        FlowError: something in a collection is no signature; or it is nothing to iterate over, a dictionary, or text.
    """
    those = _iterated(given)
    if those is None:
        raise FlowError(
            f"{where} takes signatures, in a list or a generator, or a flow that ends in a list; got {shown(given)}"
            f"{_slip(given)}"
        )
    if isinstance(given, Collection):
        return tuple(node_of(member, where) for member in those)
    return _Read(those, where)


def _iterated(given: object) -> Iterable[object] | None:
    """Return what could give members; of a dictionary that would be its keys, of text its letters."""
    if isinstance(given, (Placeholder, Mapping, str, bytes)) or not isinstance(given, Iterable):
        return None
    return cast("Iterable[object]", given)


class _Read(Iterable[Node]):
    """The members that a generator, or whatever else can be iterated, gives while the flow is sent."""

    def __init__(self, given: Iterable[object], where: str) -> None:
        self._given = given
        self._where = where
        self._used_up = False

    def __iter__(self) -> Iterator[Node]:
        if self._used_up:
            raise FlowError(
                f"{self._where} was given {self._given!r:.200}, which gives its members only once, and gave them when "
                "the flow was sent before; pass a list, and the flow can be sent again"
            )
        self._used_up = isinstance(self._given, Iterator)
        return (node_of(member, self._where) for member in self._given)
