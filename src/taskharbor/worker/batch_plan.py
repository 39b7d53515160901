"""What a worker does for one batch task: the call of its handler, and what each job comes to by what it returns."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from operator import attrgetter
from typing import NamedTuple, TypeAlias, cast

import msgspec

from taskharbor.codec import Codec
from taskharbor.errors import PayloadError
from taskharbor.task import BatchContext, TaskDefinition
from taskharbor.task.layer import Middleware
from taskharbor.worker.plan import TaskPlan, UnfitResult
from taskharbor.worker.surrounding import ASurrounded, asurrounded, stepwise


class Raised(NamedTuple):
    """What one job of a batch failed with."""

    error: BaseException


Share: TypeAlias = "Raised | object"
"""One job's share of what a batch came to: its result, or its error."""


class BatchPlan(TaskPlan):
    """How payloads of a batch task are read, its handler called and its results written."""

    def __init__(
        self, definition: TaskDefinition, codec: Codec, layers: Sequence[Middleware], worker: str
    ) -> None:
        super().__init__(definition, codec)
        self.worker = worker
        self.takes_context = definition.reading.takes_context
        self._payload = attrgetter(definition.reading.parameters[0].name)
        around = [layer for layer in layers if layer.surrounds_run or layer.surrounds_arun]
        self.layers_await = self.is_async and any(layer.surrounds_arun for layer in around)
        """Some of its layers may await."""
        self.surrounded: ASurrounded | None = None
        """Its layers around one job; None if there are none."""
        if around:
            self.surrounded = asurrounded(around) if self.layers_await else stepwise(around)

    def call_many(self, arguments: Sequence[msgspec.Struct], context: BatchContext[object] | None) -> object:
        """Call the handler; for an async one this makes the coroutine."""
        payloads = [cast("object", self._payload(one)) for one in arguments]
        fn = self.definition.fn
        return fn(payloads) if context is None else fn(context, payloads)

    def shares(self, returned: object, jobs: int) -> Sequence[Share]:
        """Return each job's share of what the handler returned for so many jobs, in order.

        Raises:
            UnfitResult: it returned neither None nor a list.
            PayloadError: it returned a list of another length. Each job is tried again alone, if at all.
        """
        task = self.definition.name
        if returned is None:
            return [None] * jobs
        if inspect.iscoroutine(returned):
            returned.close()
            raise UnfitResult(
                f"task {task!r} is a `def` that returned a coroutine, which nobody would await; declare it as "
                "`async def`",
                task=task,
            )
        if not isinstance(returned, (list, tuple)):
            raise UnfitResult(
                f"the batch handler of task {task!r} returned a {type(returned).__qualname__}; expected None, or a "
                "list with one element a job, each a result or an exception",
                task=task,
            )
        elements = list(cast("Sequence[object]", returned))  # what it holds, whatever length it tells
        if len(elements) != jobs:
            raise PayloadError(
                f"the batch handler of task {task!r} returned {len(elements)} elements for {jobs} jobs, so nobody can "
                "say which is whose; expected one for each, in order: a result, or an exception",
                task=task,
            )
        return [self._share(one) if isinstance(one, (BaseException, type)) else one for one in elements]

    def _share(self, element: object) -> Share:
        if isinstance(element, BaseException):
            return Raised(element)
        kind = cast("type[object] | None", element if isinstance(element, type) else None)
        if kind is not None and issubclass(kind, BaseException):
            name = kind.__qualname__
            return Raised(
                UnfitResult(
                    f"the batch handler of task {self.definition.name!r} returned {name} for this job, which is an "
                    f"exception class; return an instance, as {name}(...)",
                    task=self.definition.name,
                )
            )
        return element
