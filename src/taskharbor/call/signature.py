"""A typed call not yet sent, the flows that calls are joined into, and what joins them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import timedelta
from typing import Generic, Protocol, TypeAlias, cast

from msgspec import UNSET, UnsetType
from typing_extensions import TypeVar, override

from taskharbor.call.call import Call
from taskharbor.call.dispatcher import Dispatcher, Sent, current_dispatcher, refuse_on_loop
from taskharbor.call.fitting import check_parameters, shown, title_of
from taskharbor.call.flow_handle import FlowHandle
from taskharbor.call.graph import (
    NO_FLOW_OPTIONS,
    FlowCall,
    FlowOptions,
    Node,
    Placeholder,
    Then,
    title,
)
from taskharbor.call.handle import JobHandle
from taskharbor.call.options import FlowConflictName, Options, check_meta, check_name
from taskharbor.call.reading import reader_of
from taskharbor.errors import FlowError, OptionError, PayloadError
from taskharbor.flow import FlowFailure

R_co = TypeVar("R_co", covariant=True)
S_co = TypeVar("S_co", covariant=True)
A_contra = TypeVar("A_contra", contravariant=True)
A = TypeVar("A")
B = TypeVar("B")

_NO_SENDING = (
    "a link makes a call with `.s(...)`, as in `lambda body: parse.s(body)`, and does not enqueue it"
)
_HELD = f"type {Placeholder.__qualname__} have no codec"


class Signature(Generic[R_co]):
    """A call of a task that returns `R_co`, made by `task.s(...)`: a value to be passed around and sent later."""

    __slots__ = ("_node",)

    def __init__(self, call: Call) -> None:
        """Made by `task.s(...)`."""
        self._node: Node = call

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {title(self._node)}>"

    @property
    def sendable(self) -> Call | FlowCall:
        """Return what it stands for."""
        return cast("Call", self._node)

    @property
    def node(self) -> Node:
        """Return its part of a flow's graph."""
        return self._node

    def then(self, link: Step[R_co, B], /) -> Flow[B]:
        """Return a flow of this and then `link`, which takes the result of this.

        Args:
            link: a task, or a chain of tasks, whose first parameter takes the result and whose others have defaults; or
                a function from the result to a signature. The function runs once, now, and is given a placeholder,
                which it can pass on as a whole argument.

        Raises:
            FlowError: it is nothing of the kind, or it used the placeholder as if it were the value.
        """
        place = Placeholder(title(self._node))
        return Flow(Then((self.node,), (place,), apply(link, place)))

    def enqueue(self) -> JobHandle[R_co]:
        """Send the call through the current harbor, as `task.enqueue` does."""
        refuse_on_loop("Signature.enqueue()", "signature.aenqueue()")
        call = cast("Call", self._node)
        dispatcher = current_dispatcher(call.callee.name)
        (sent,) = dispatcher.send([call])
        return JobHandle(dispatcher, call.callee, sent.job_id, created=sent.created)

    async def aenqueue(self) -> JobHandle[R_co]:
        """Send the call through the current harbor, as `task.aenqueue` does."""
        call = cast("Call", self._node)
        dispatcher = current_dispatcher(call.callee.name)
        (sent,) = await dispatcher.asend([call])
        return JobHandle(dispatcher, call.callee, sent.job_id, created=sent.created)


class Link(Protocol[A_contra, S_co]):
    """What can take a result and go on: anything with an `s` whose first parameter accepts it.

    A task whose other parameters have defaults is one, through its own `s`.
    """

    def s(self, value: A_contra, /) -> Signature[S_co]:
        """Return the call that takes `value`."""
        ...


Step: TypeAlias = Link[A, B] | Callable[[A], Signature[B]]
"""What may follow an `A`, to end in a `B`: a task, or a function that places the `A` in a call."""


class Flow(Signature[R_co]):
    """Several steps that end in an `R_co`: wherever a signature fits, a flow does.

    Made by `chain`, `group`, `chord`, `each` and `then`. All its steps are stored in one transaction when it is sent.
    """

    __slots__ = ("_options",)

    def __init__(self, node: Node, options: FlowOptions = NO_FLOW_OPTIONS) -> None:
        """Made by the builders."""
        self._node = node
        self._options = options

    @property
    @override
    def sendable(self) -> FlowCall:
        """Return what it stands for."""
        return FlowCall(self._node, self._options)

    @property
    @override
    def node(self) -> Node:
        """Return its part of a larger flow's graph.

        Raises:
            FlowError: it has options of its own, which a part of a flow has not.
        """
        if self._options is not NO_FLOW_OPTIONS:
            raise FlowError(
                f"{self!r} has a name, a key, metadata or an on_failure of its own, and is made a part of another "
                "flow; configure the whole instead: configure() comes last"
            )
        return self._node

    def configure(
        self,
        *,
        name: str = "",
        meta: dict[str, str] | None = None,
        key: str | UnsetType = UNSET,
        key_ttl: timedelta | UnsetType = UNSET,
        on_conflict: FlowConflictName | UnsetType = UNSET,
        on_failure: Step[FlowFailure, object] | None = None,
    ) -> Flow[R_co]:
        """Return the same flow with what is to be known of it as a whole; what is left out stays as it was.

        Args:
            name: what it is listed under.
            meta: free text kept with it.
            key: idempotency key in the scope of its last task: one flow while that step is live, and for `key_ttl`
                after.
            key_ttl: how long the key stays taken after the flow has ended.
            on_conflict: `existing` (return the flow that has the key) or `raise` (`DuplicateJob`).
            on_failure: a task that takes a `FlowFailure`, enqueued each time the flow comes to be `failed`.

        Raises:
            OptionError: a value that cannot be.
            FlowError: `on_failure` is no task, nor a function to a call of one.
        """
        said = flow_options(name, meta, key, key_ttl, on_conflict, on_failure, before=self._options)
        return Flow(self._node, said)

    @override
    def enqueue(self) -> FlowHandle[R_co]:
        """Store all steps in one transaction and return the handle of the whole.

        Raises:
            PayloadError: arguments do not fit a signature.
            DuplicateJob: a key of it is taken: the flow's own, if `on_conflict="raise"` was asked, or one of a step.
            KeyConflict: the flow's key is taken by other steps or arguments.
            NoHarborError: no harbor is current.
            BlockingCallError: on a running event loop; use `aenqueue`.
            StoreUnavailable: the store cannot be reached; with a key, asking again is safe.
        """
        refuse_on_loop("Flow.enqueue()", "flow.aenqueue()")
        dispatcher = current_dispatcher(title(self._node))
        (sent,) = dispatcher.send([self.sendable])
        return FlowHandle(dispatcher, reader_of(self._node), sent.job_id, created=sent.created)

    @override
    async def aenqueue(self) -> FlowHandle[R_co]:
        """Store all steps in one transaction; the async form of `enqueue`."""
        dispatcher = current_dispatcher(title(self._node))
        (sent,) = await dispatcher.asend([self.sendable])
        return FlowHandle(dispatcher, reader_of(self._node), sent.job_id, created=sent.created)

    def handle(self, flow_id: str) -> FlowHandle[R_co]:
        """Return a typed handle on a stored flow of this shape, from its id. Does not look whether there is one."""
        dispatcher = current_dispatcher(title(self._node))
        return FlowHandle(dispatcher, reader_of(self._node), flow_id, created=False)


def flow_options(
    name: str,
    meta: dict[str, str] | None,
    key: str | UnsetType,
    key_ttl: timedelta | UnsetType,
    on_conflict: FlowConflictName | UnsetType,
    on_failure: Step[FlowFailure, object] | None,
    *,
    before: FlowOptions,
) -> FlowOptions:
    """Return what is said of a flow, checked; `before` is what was said of it already, and stays where nothing is.

    Raises:
        OptionError: a value that cannot be.
        FlowError: `on_failure` is no task, nor a function to a call of one.
    """
    if name:
        check_name(name, "name")
    if meta is not None:
        check_meta(meta)
    Options(key=key, key_ttl=key_ttl, on_conflict=on_conflict)  # checks them
    refuse_replacing(on_conflict)
    call = before.on_failure
    if on_failure is not None:
        place = Placeholder("a flow that failed")
        node = apply(on_failure, place)
        if not isinstance(node, Call):
            raise FlowError(
                "on_failure: expected a task, or a function to a call of one, and got several steps"
            )
        call = node, place
    return FlowOptions(
        name=name or before.name,
        meta={**before.meta, **(meta or {})},
        key=before.key if key is UNSET else key,
        key_ttl=before.key_ttl if key_ttl is UNSET else key_ttl,
        on_conflict=before.on_conflict if on_conflict is UNSET else on_conflict,
        on_failure=call,
    )


def refuse_replacing(on_conflict: object) -> None:
    """Refuse what cannot be done with a flow's key.

    Raises:
        OptionError: `replace`.
    """
    if on_conflict == "replace":
        raise OptionError(
            "on_conflict='replace': a flow takes no other's place, since steps of that one may have run; expected "
            "'existing' or 'raise'"
        )


def apply(link: object, *places: Placeholder) -> Node:
    """Return what a link makes of placeholders.

    Raises:
        FlowError: it is no link, takes other parameters, or made no signature of them.
    """
    take = _taker(link)
    if take is None:
        raise FlowError(
            f"{shown(link)} cannot follow {title_of(places)}: expected a task, a chain of tasks, or a function from "
            f"the result to a signature{_slip(link)}"
        )
    check_parameters(link, take, places)
    try:
        made = take(*places)
    except PayloadError as error:
        told = _NO_SENDING if _HELD in error.reason else str(error)
        raise FlowError(f"{link!r} cannot follow {title_of(places)}: {told}") from error
    if not isinstance(made, Signature):
        sent = issubclass(type(made), JobHandle) or getattr(made, "__name__", "") == "aenqueue"
        told = _NO_SENDING if sent else "expected a signature, as task.s(...) makes one"
        if inspect.iscoroutine(made):
            made.close()  # or Python warns, later and elsewhere, that nobody awaited it
        raise FlowError(f"{link!r} made {shown(made)} of the result of {title_of(places)}: {told}")
    return cast("Signature[object]", made).node


def _taker(link: object) -> Callable[..., object] | None:
    if isinstance(link, Signature):  # it has its arguments
        return None
    take = cast("object", getattr(link, "s", None)) or link
    return take if callable(take) else None


def _slip(link: object) -> str:
    if isinstance(link, Signature):
        return (
            "; drop the `.s()`: a task by itself takes the result as its first argument, `lambda value: task.s(...)` "
            "places it elsewhere"
        )
    if several(link):
        return "; several at once: put a star before it"
    if inspect.iscoroutine(link):
        link.close()  # or Python warns, later and elsewhere, that nobody awaited it
    return "; if this is what a task returned, name the task without calling it"


def several(thing: object) -> bool:
    """Return whether it is a collection of what flows are made of: signatures, or tasks and other links."""
    if not isinstance(thing, (list, tuple, set)):
        return False
    parts = cast("Collection[object]", thing)
    return bool(parts) and all(isinstance(part, Signature) or hasattr(type(part), "s") for part in parts)


def handles(
    dispatcher: Dispatcher, calls: Sequence[Call | FlowCall], answers: Sequence[Sent]
) -> list[JobHandle[A]]:
    """Return the handles of what was sent, in order; each flow's is a `FlowHandle`."""
    return [
        JobHandle(dispatcher, call.callee, sent.job_id, created=sent.created)
        if isinstance(call, Call)
        else FlowHandle(dispatcher, reader_of(call.node), sent.job_id, created=sent.created)
        for call, sent in zip(calls, answers, strict=True)
    ]


def sendables(signatures: object) -> list[Call | FlowCall]:
    """Return what signatures stand for, in order.

    Raises:
        OptionError: something else is among them.
    """
    # Checked by hand: a task called instead of `task.s(...)` is a slip that everybody makes once.
    if not isinstance(signatures, Iterable):
        raise OptionError(f"expected a list of signatures, such as [{signatures!r}]")
    found: list[Call | FlowCall] = []
    for signature in cast("Iterable[object]", signatures):
        if not isinstance(signature, Signature):
            raise OptionError(
                f"expected signatures, which task.s(...) makes without calling the task; got {signature!r}"
            )
        found.append(cast("Signature[object]", signature).sendable)
    return found
