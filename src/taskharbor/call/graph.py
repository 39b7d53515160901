"""A flow before it is sent: a tree of calls, in which placeholders stand for results that are to come.

    Call                          one step
    Then(before, places, node)    `node` takes the results of `before`, one placeholder for each
    Group(members)                many at once; a list of their results
    Each(items, element, body)    the same for a list that is known only when the flow runs

`taskharbor.workflow` makes such trees, and turns them into steps when they are sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import NoReturn, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from taskharbor.call.call import Call
from taskharbor.call.options import FlowConflictName
from taskharbor.errors import FlowError


class Placeholder:
    """Stands for a result that is not there yet. It can be passed on, as an argument or as an element of one.

    It has no public attribute: whatever name it had, the value may have one too, and would seem to be there.
    """

    __slots__ = ("_of",)

    def __init__(self, of: str) -> None:
        """Stand for the result of what `of` names, for messages."""
        self._of = of

    def __repr__(self) -> str:
        return f"<the result of {self._of}, which is not there yet>"

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise FlowError(
            f"the result of {self._of} is not there yet: this function runs once, while the flow is built, and can "
            "only pass it on as a whole argument, as in `lambda body: parse.s(body)`; what is to be done with the "
            "value belongs in a task"
        )

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # asked by Python's own machinery, which takes no for an answer
            raise AttributeError(name)
        self._refuse()

    __getitem__ = __iter__ = __len__ = __bool__ = __contains__ = __call__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _refuse
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __pow__ = __rpow__ = __matmul__ = __rmatmul__ = (
        _refuse
    )
    __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = __lshift__ = __rlshift__ = _refuse
    __rshift__ = __rrshift__ = __neg__ = __pos__ = __abs__ = __invert__ = __round__ = _refuse
    __divmod__ = __rdivmod__ = __reversed__ = __setitem__ = __delitem__ = _refuse
    # `==` too, or a comparison would quietly be False; what looks for placeholders goes by identity.
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __hash__ = object.__hash__
    __int__ = __float__ = __complex__ = __index__ = __str__ = __bytes__ = __format__ = _refuse
    __enter__ = __exit__ = __aenter__ = __aexit__ = __await__ = __aiter__ = __next__ = _refuse


def result_of(place: Placeholder) -> str:
    """Return what a placeholder stands for the result of, for messages."""
    return place._of  # pyright: ignore[reportPrivateUsage] - public, it would seem to be the value's


class Then(msgspec.Struct, frozen=True, eq=False):
    """A node that takes the results of others."""

    before: tuple[Node, ...]
    """One, or those of a `gather`."""
    places: tuple[Placeholder, ...]
    """What stands in `node` for the result of each of `before`."""
    node: Node


class Group(msgspec.Struct, frozen=True, eq=False):
    """Members that run side by side; its result is the list of theirs, in order."""

    members: Iterable[Node]
    """Read once, when the flow is sent; a tuple unless a `chord` was given an iterable."""
    tolerant: bool = False
    """Each result is told as `Success` or `Failure`, and no failure is the flow's."""


class Each(msgspec.Struct, frozen=True, eq=False):
    """A body for each element of a list that is known only when the flow runs."""

    items: object
    """The placeholder of the list; or a list."""
    element: Placeholder
    """What stands in `body` for the element."""
    body: Node


Node: TypeAlias = Call | Then | Group | Each


def title(node: Node) -> str:
    """Return what a node is called in messages: the task that its result comes from, as a rule."""
    while isinstance(node, Then):
        node = node.node
    if isinstance(node, Call):
        return node.callee.name
    if isinstance(node, Each):
        return f"each({title(node.body)})"
    return "a group"


class FlowOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of a flow as a whole."""

    name: str = ""
    meta: dict[str, str] = {}
    key: str | UnsetType = UNSET
    """Idempotency key of the whole, held by its last step."""
    key_ttl: timedelta | UnsetType = UNSET
    on_conflict: FlowConflictName | UnsetType = UNSET
    on_failure: tuple[Call, Placeholder] | None = None
    """The call to store when the flow fails, and what stands in it for the `FlowFailure`."""


NO_FLOW_OPTIONS = FlowOptions()


class FlowCall(msgspec.Struct, frozen=True, eq=False):
    """A flow to be sent."""

    node: Node
    options: FlowOptions = NO_FLOW_OPTIONS
