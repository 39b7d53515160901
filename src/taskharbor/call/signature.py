"""A typed call not yet sent, and the types by which calls are joined into flows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, Protocol

from typing_extensions import TypeVar

from taskharbor.call.call import Call
from taskharbor.call.dispatcher import current_dispatcher, refuse_on_loop
from taskharbor.call.handle import JobHandle

R_co = TypeVar("R_co", covariant=True)
S_co = TypeVar("S_co", covariant=True)
A_contra = TypeVar("A_contra", contravariant=True)


class Signature(Generic[R_co]):
    """A call of a task that returns `R_co`, made by `task.s(...)`: a value to be passed around and sent later."""

    __slots__ = ("_call",)

    def __init__(self, call: Call) -> None:
        """Made by `task.s(...)`."""
        self._call = call

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._call.callee.name}>"

    @property
    def call(self) -> Call:
        """Return the call it stands for."""
        return self._call

    def enqueue(self) -> JobHandle[R_co]:
        """Send the call through the current harbor, as `task.enqueue` does."""
        refuse_on_loop("Signature.enqueue()", "signature.aenqueue()")
        dispatcher = current_dispatcher(self._call.callee.name)
        (sent,) = dispatcher.send([self._call])
        return JobHandle(dispatcher, self._call.callee, sent.job_id, created=sent.created)

    async def aenqueue(self) -> JobHandle[R_co]:
        """Send the call through the current harbor, as `task.aenqueue` does."""
        dispatcher = current_dispatcher(self._call.callee.name)
        (sent,) = await dispatcher.asend([self._call])
        return JobHandle(dispatcher, self._call.callee, sent.job_id, created=sent.created)


class Link(Protocol[A_contra, S_co]):
    """What can take a result and go on: anything with an `s` whose first parameter accepts it.

    A task whose other parameters have defaults is one, through its own `s`.
    """

    def s(self, value: A_contra, /) -> Signature[S_co]:
        """Return the call that takes `value`."""
        ...


class FlowHandle(JobHandle[R_co]):
    """A stored flow, and the way to its result: a `JobHandle` of its last step."""

    __slots__ = ()


class Flow(Signature[R_co], ABC):
    """Several steps that end in an `R_co`: wherever a signature fits, a flow does.

    The type that workflow builders return. A flow with steps of its own says how it is sent.
    """

    __slots__ = ()

    @abstractmethod
    def enqueue(self) -> FlowHandle[R_co]:
        """Store all steps in one transaction and return the handle of the whole."""
        ...

    @abstractmethod
    async def aenqueue(self) -> FlowHandle[R_co]:
        """Store all steps in one transaction and return the handle of the whole."""
        ...
