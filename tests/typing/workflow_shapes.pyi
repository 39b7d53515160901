"""The workflow types of DESIGN section 2, declared and not yet built.

They stand on the real `Bound`, `Signature`, `Flow`, `FlowHandle` and `Link`, so a change there that would spoil
workflows shows here. When the builders exist, this file goes and the cases import them from `taskharbor`.
"""

from collections.abc import Callable, Iterable
from typing import Generic, ParamSpec, Protocol, TypeAlias, overload

from typing_extensions import TypeVar, override

from taskharbor import (
    Bound,
    FlowHandle,
    Link,
    Signature,
    call,
)

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S_co = TypeVar("S_co", covariant=True)
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
A_contra = TypeVar("A_contra", contravariant=True)
B_contra = TypeVar("B_contra", contravariant=True)
C_contra = TypeVar("C_contra", contravariant=True)
D_contra = TypeVar("D_contra", contravariant=True)
E_contra = TypeVar("E_contra", contravariant=True)

_Step: TypeAlias = Link[A, B] | Callable[[A], Signature[B]]
"""What may follow an `A`, to end in a `B`: a task, or a function that places the `A` in a call."""

# --- then: a method that `Signature` will have, and `Flow` with it ---------------------------------------

class Start(Signature[R_co]):
    """A signature with `then`: what `task.s(...)` will return."""

    def __init__(self, signature: Signature[R_co]) -> None: ...
    def then(self, link: _Step[R_co, B], /) -> Flow[B]: ...

class Flow(Start[R_co], call.Flow[R_co]):
    """A flow with `then`."""

    @override
    def enqueue(self) -> FlowHandle[R_co]: ...
    @override
    async def aenqueue(self) -> FlowHandle[R_co]: ...

class Pipeline(Bound[P, R]):
    """A chain over bare tasks: enqueued like a task, with the parameters of its head."""

    @override
    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> FlowHandle[R]: ...
    @override
    async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> FlowHandle[R]: ...
    @override
    def s(self, *args: P.args, **kwargs: P.kwargs) -> Flow[R]: ...

# --- chain: by length, and by what it starts with --------------------------------------------------------

@overload
def chain(a: Bound[P, A], b: _Step[A, B], /) -> Pipeline[P, B]: ...
@overload
def chain(a: Signature[A], b: _Step[A, B], /) -> Flow[B]: ...
@overload
def chain(a: Bound[P, A], b: _Step[A, B], c: _Step[B, C], /) -> Pipeline[P, C]: ...
@overload
def chain(a: Signature[A], b: _Step[A, B], c: _Step[B, C], /) -> Flow[C]: ...
@overload
def chain(a: Bound[P, A], b: _Step[A, B], c: _Step[B, C], d: _Step[C, D], /) -> Pipeline[P, D]: ...
@overload
def chain(a: Signature[A], b: _Step[A, B], c: _Step[B, C], d: _Step[C, D], /) -> Flow[D]: ...
@overload
def chain(
    a: Bound[P, A], b: _Step[A, B], c: _Step[B, C], d: _Step[C, D], e: _Step[D, E], /
) -> Pipeline[P, E]: ...
@overload
def chain(a: Signature[A], b: _Step[A, B], c: _Step[B, C], d: _Step[C, D], e: _Step[D, E], /) -> Flow[E]: ...

# --- group, chord, each ----------------------------------------------------------------------------------

def group(*signatures: Signature[R]) -> Flow[list[R]]: ...
def chord(
    members: Iterable[Signature[A]] | Signature[list[A]], callback: _Step[list[A], B], /
) -> Flow[B]: ...
def each(link: _Step[A, B], /) -> Link[list[A], list[B]]: ...

# --- gather: results of different types, joined by one call ----------------------------------------------

class _Link2(Protocol[A_contra, B_contra, S_co]):
    def s(self, a: A_contra, b: B_contra, /) -> Signature[S_co]: ...

class Gather2(Generic[A, B]):
    def then(self, link: _Link2[A, B, R] | Callable[[A, B], Signature[R]], /) -> Flow[R]: ...

class _Link3(Protocol[A_contra, B_contra, C_contra, S_co]):
    def s(self, a: A_contra, b: B_contra, c: C_contra, /) -> Signature[S_co]: ...

class Gather3(Generic[A, B, C]):
    def then(self, link: _Link3[A, B, C, R] | Callable[[A, B, C], Signature[R]], /) -> Flow[R]: ...

class _Link4(Protocol[A_contra, B_contra, C_contra, D_contra, S_co]):
    def s(self, a: A_contra, b: B_contra, c: C_contra, d: D_contra, /) -> Signature[S_co]: ...

class Gather4(Generic[A, B, C, D]):
    def then(self, link: _Link4[A, B, C, D, R] | Callable[[A, B, C, D], Signature[R]], /) -> Flow[R]: ...

class _Link5(Protocol[A_contra, B_contra, C_contra, D_contra, E_contra, S_co]):
    def s(self, a: A_contra, b: B_contra, c: C_contra, d: D_contra, e: E_contra, /) -> Signature[S_co]: ...

class Gather5(Generic[A, B, C, D, E]):
    def then(
        self, link: _Link5[A, B, C, D, E, R] | Callable[[A, B, C, D, E], Signature[R]], /
    ) -> Flow[R]: ...

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
