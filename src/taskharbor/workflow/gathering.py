"""Calls of different types side by side, joined by one that takes all of their results: `gather`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeAlias, overload

from typing_extensions import TypeVar

from taskharbor.call import Flow, Signature
from taskharbor.errors import FlowError
from taskharbor.workflow.members import node_of
from taskharbor.workflow.unjoined import Unjoined

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
R = TypeVar("R")
A_contra = TypeVar("A_contra", contravariant=True)
B_contra = TypeVar("B_contra", contravariant=True)
C_contra = TypeVar("C_contra", contravariant=True)
D_contra = TypeVar("D_contra", contravariant=True)
E_contra = TypeVar("E_contra", contravariant=True)
S_co = TypeVar("S_co", covariant=True)


class Link2(Protocol[A_contra, B_contra, S_co]):
    """What can take two results and go on: a task, through its own `s`."""

    def s(self, a: A_contra, b: B_contra, /) -> Signature[S_co]:
        """Return the call that takes them."""
        ...


class Link3(Protocol[A_contra, B_contra, C_contra, S_co]):
    """What can take three results and go on."""

    def s(self, a: A_contra, b: B_contra, c: C_contra, /) -> Signature[S_co]:
        """Return the call that takes them."""
        ...


class Link4(Protocol[A_contra, B_contra, C_contra, D_contra, S_co]):
    """What can take four results and go on."""

    def s(self, a: A_contra, b: B_contra, c: C_contra, d: D_contra, /) -> Signature[S_co]:
        """Return the call that takes them."""
        ...


class Link5(Protocol[A_contra, B_contra, C_contra, D_contra, E_contra, S_co]):
    """What can take five results and go on."""

    def s(self, a: A_contra, b: B_contra, c: C_contra, d: D_contra, e: E_contra, /) -> Signature[S_co]:
        """Return the call that takes them."""
        ...


Step2: TypeAlias = Link2[A, B, R] | Callable[[A, B], Signature[R]]
Step3: TypeAlias = Link3[A, B, C, R] | Callable[[A, B, C], Signature[R]]
Step4: TypeAlias = Link4[A, B, C, D, R] | Callable[[A, B, C, D], Signature[R]]
Step5: TypeAlias = Link5[A, B, C, D, E, R] | Callable[[A, B, C, D, E], Signature[R]]


class Gather2(Unjoined, Generic[A, B]):
    """Two calls side by side."""

    __slots__ = ()

    def then(self, link: Step2[A, B, R], /) -> Flow[R]:
        """Return a flow of these and then `link`, which takes their results.

        Args:
            link: a task whose first parameters take the results, in order, and whose others have defaults; or a
                function from the results to a signature. The function runs once, now, and is given placeholders,
                which it can pass on as whole arguments.

        Raises:
            FlowError: it is nothing of the kind, or it used a placeholder as if it were the value.
        """
        return Flow(self._joined(link))


class Gather3(Unjoined, Generic[A, B, C]):
    """Three calls side by side."""

    __slots__ = ()

    def then(self, link: Step3[A, B, C, R], /) -> Flow[R]:
        """Return a flow of these and then `link`, as `Gather2.then` does."""
        return Flow(self._joined(link))


class Gather4(Unjoined, Generic[A, B, C, D]):
    """Four calls side by side."""

    __slots__ = ()

    def then(self, link: Step4[A, B, C, D, R], /) -> Flow[R]:
        """Return a flow of these and then `link`, as `Gather2.then` does."""
        return Flow(self._joined(link))


class Gather5(Unjoined, Generic[A, B, C, D, E]):
    """Five calls side by side."""

    __slots__ = ()

    def then(self, link: Step5[A, B, C, D, E, R], /) -> Flow[R]:
        """Return a flow of these and then `link`, as `Gather2.then` does."""
        return Flow(self._joined(link))


_BY_COUNT: dict[int, type[Unjoined]] = {2: Gather2, 3: Gather3, 4: Gather4, 5: Gather5}


@overload
def gather(a: Signature[A], b: Signature[B], /) -> Gather2[A, B]: ...
@overload
def gather(a: Signature[A], b: Signature[B], c: Signature[C], /) -> Gather3[A, B, C]: ...
@overload
def gather(a: Signature[A], b: Signature[B], c: Signature[C], d: Signature[D], /) -> Gather4[A, B, C, D]: ...
@overload
def gather(
    a: Signature[A], b: Signature[B], c: Signature[C], d: Signature[D], e: Signature[E], /
) -> Gather5[A, B, C, D, E]: ...
def gather(*signatures: object) -> object:
    """Join two to five calls, or flows, of different types: they run side by side, and `then` takes their results.

        gather(parse.s(body), resize.s(image)).then(merge)      # merge(page: Page, thumb: Thumb)

    Raises:
        FlowError: fewer, more, or something else than a signature; or a flow that was configured, which comes last.
    """
    nodes = tuple(node_of(signature, "gather(...)") for signature in signatures)
    kind = _BY_COUNT.get(len(nodes))
    if kind is None:
        raise FlowError(
            f"gather(...) takes two to five signatures, and got {len(nodes)}; group() takes any number of one type"
        )
    return kind(nodes)
