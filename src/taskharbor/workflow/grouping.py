"""Many calls of one type side by side: `group`, and `chord`, which goes on from all of their results."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, overload

from typing_extensions import TypeVar

from taskharbor.call import Flow, Group, Signature, Step
from taskharbor.flow import Failure, Success
from taskharbor.workflow.members import members as members_of

R = TypeVar("R")
A = TypeVar("A")
B = TypeVar("B")


@overload
def group(*signatures: Signature[R], allow_failures: Literal[False] = False) -> Flow[list[R]]: ...
@overload
def group(*signatures: Signature[R], allow_failures: Literal[True]) -> Flow[list[Success[R] | Failure]]: ...
def group(*signatures: object, allow_failures: bool = False) -> object:
    """Return a flow of calls that run side by side, and end in the list of their results, in order.

    Of no signatures, it ends in an empty list.

    Args:
        signatures: the members: calls, or flows.
        allow_failures: each result is told as `Success` or `Failure`, and a member that fails (or is cancelled) does
            not make the flow fail.

    Raises:
        FlowError: something else than a signature; or a flow that was configured, which comes last.
    """
    return Flow[object](Group(tuple(members_of(signatures, "group(...)")), tolerant=allow_failures))


def chord(members: Iterable[Signature[A]] | Signature[list[A]], callback: Step[list[A], B], /) -> Flow[B]:
    """Return a flow of calls that run side by side and then, once all have succeeded, `callback` with their results.

    Args:
        members: signatures, in an iterable; or one flow that ends in a list, such as a `group`. A generator is read
            while the flow is sent, so it may be long; and so that flow can be sent only once.
        callback: a task that takes the list of results, in order; or a function from it to a signature.

    Raises:
        FlowError: something else than a signature; a flow that was configured, which comes last; or no callback.
    """
    if isinstance(members, Signature):
        return members.then(callback)
    together: Flow[list[A]] = Flow(Group(members_of(members, "chord(...)")))
    return together.then(callback)
