"""A chain over bare tasks: enqueued like a task, with the parameters of its head."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import ParamSpec, cast

import msgspec
from msgspec import UNSET, UnsetType
from typing_extensions import TypeVar, override

from taskharbor.call import (
    Flow,
    FlowConflictName,
    FlowHandle,
    FlowOptions,
    Node,
    OnConflictName,
    Options,
    Placeholder,
    Step,
    Then,
    current_dispatcher,
    flow_options,
    reader_of,
    refuse_on_loop,
    refuse_replacing,
)
from taskharbor.call.graph import NO_FLOW_OPTIONS
from taskharbor.errors import FlowError
from taskharbor.flow import FlowFailure
from taskharbor.retry import Retry
from taskharbor.task import Bound
from taskharbor.workflow.defaults import for_all, for_first

P = ParamSpec("P")
R = TypeVar("R")

NO_OPTIONS = Options()


class Pipeline(Bound[P, R]):
    """Several steps to be enqueued like one task, any number of times. Made by `chain` over bare tasks.

    Its parameters are those of its first task, its result is that of its last one. It is a link itself.
    """

    __slots__ = ("_head", "_name", "_said", "_tail")

    def __init__(
        self,
        name: str,
        head: Bound[P, object],
        tail: Sequence[tuple[Placeholder, Node]],
        options: Options = NO_OPTIONS,
        said: FlowOptions = NO_FLOW_OPTIONS,
    ) -> None:
        """Made by `chain`."""
        self._name = name
        self._head = head
        self._tail = tail
        self._options = options
        self._said = said

    @property
    @override
    def name(self) -> str:
        """Return what it is called in messages: its tasks, by their names."""
        return self._name

    @override
    def enqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> FlowHandle[R]:
        """Store all steps in one transaction and return the handle of the whole; raises what `Flow.enqueue` does."""
        refuse_on_loop(f"{self.name}.enqueue()", f"{self.name}.aenqueue(...)")
        return self._call(*args, **kwargs).enqueue()

    @override
    async def aenqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> FlowHandle[R]:
        """Store all steps in one transaction; the async form of `enqueue`."""
        return await self._call(*args, **kwargs).aenqueue()

    @override
    def s(self, /, *args: P.args, **kwargs: P.kwargs) -> Flow[R]:
        """Return the flow with these arguments for its head, to be sent later, or made a part of another.

        Raises:
            PayloadError: the head could not be called so. Types are checked when it is sent.
        """
        return cast("Flow[R]", super().s(*args, **kwargs))

    @override
    def _call(self, /, *args: P.args, **kwargs: P.kwargs) -> Flow[R]:
        node = self._head._call(*args, **kwargs).node
        for place, after in self._tail:
            node = Then((node,), (place,), after)
        return Flow(_with(node, self._options), _whole(self._said, self._options))

    @override
    def options(
        self,
        *,
        queue: str | UnsetType = UNSET,
        priority: int | UnsetType = UNSET,
        run_at: datetime | UnsetType = UNSET,
        run_in: timedelta | UnsetType = UNSET,
        key: str | UnsetType = UNSET,
        key_ttl: timedelta | UnsetType = UNSET,
        on_conflict: OnConflictName | UnsetType = UNSET,
        retry: Retry | UnsetType = UNSET,
        timeout: timedelta | UnsetType | None = UNSET,
        meta: dict[str, str] | UnsetType = UNSET,
    ) -> Pipeline[P, R]:
        """Return the same pipeline with other options; what is left out stays, and what a step says itself.

        Args:
            queue: where its steps wait.
            priority: of each step, 0 (first) to 9 (last).
            run_at: earliest start of its first step, an aware datetime.
            run_in: earliest start of its first step from now, by the store's clock.
            key: idempotency key of the whole, as in `configure`.
            key_ttl: how long the key stays taken after the flow has ended.
            on_conflict: `existing` (return the flow that has the key) or `raise` (`DuplicateJob`); not `replace`.
            retry: another policy for each step, without `on`.
            timeout: for one attempt of a step; None for no limit.
            meta: text to travel with each step, added to what is there.

        Raises:
            OptionError: a value that cannot be.
        """
        refuse_replacing(on_conflict)
        options = Options(
            queue=queue,
            priority=priority,
            run_at=run_at,
            run_in=run_in,
            key=key,
            key_ttl=key_ttl,
            on_conflict=on_conflict,
            retry=retry,
            timeout=timeout,
            meta=meta,
        )
        return Pipeline(self._name, self._head, self._tail, options.over(self._options), self._said)

    def configure(
        self,
        *,
        name: str = "",
        meta: dict[str, str] | None = None,
        key: str | UnsetType = UNSET,
        key_ttl: timedelta | UnsetType = UNSET,
        on_conflict: FlowConflictName | UnsetType = UNSET,
        on_failure: Step[FlowFailure, object] | None = None,
    ) -> Pipeline[P, R]:
        """Return the same pipeline with what is to be known of its flows as a whole, as `Flow.configure` does.

        It comes last: a part of another flow has no name, key, metadata or `on_failure` of its own.

        Raises:
            OptionError: a value that cannot be.
            FlowError: `on_failure` is no task, nor a function to a call of one.
        """
        said = flow_options(name, meta, key, key_ttl, on_conflict, on_failure, before=self._said)
        return Pipeline(self._name, self._head, self._tail, self._options, said)

    def handle(self, flow_id: str) -> FlowHandle[R]:
        """Return a typed handle on a flow of this pipeline, from its id. Does not look whether there is one."""
        reader = reader_of(self._tail[-1][1])
        return FlowHandle(current_dispatcher(self.name), reader, flow_id, created=False)

    def check_part(self) -> None:
        """Refuse to be a part of another flow if it was configured.

        Raises:
            FlowError: it was.
        """
        if _whole(self._said, self._options) is not NO_FLOW_OPTIONS:
            raise FlowError(
                f"{self!r} has a name, a key, metadata or an on_failure of its own, and is made a part of another "
                "flow; configure the whole instead: configure() comes last"
            )


def _with(node: Node, options: Options) -> Node:
    """Return the steps with what a pipeline's options say of each, and of the first."""
    first = Options(run_at=options.run_at, run_in=options.run_in)
    every = msgspec.structs.replace(
        options, run_at=UNSET, run_in=UNSET, key=UNSET, key_ttl=UNSET, on_conflict=UNSET
    )
    if every != NO_OPTIONS:
        node = for_all(node, every)
    return for_first(node, first) if first != NO_OPTIONS else node


def _whole(said: FlowOptions, options: Options) -> FlowOptions:
    """Return what is said of a flow as a whole: by `configure`, and else by the options that concern the whole."""
    own = {
        field: value
        for field in ("key", "key_ttl", "on_conflict")
        if (value := getattr(options, field)) is not UNSET and getattr(said, field) is UNSET
    }
    return msgspec.structs.replace(said, **own) if own else said
