"""The plans of tasks that have middleware around them. Those of all others know nothing of it."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from functools import partial
from typing import cast

from taskharbor.codec import Codec
from taskharbor.task import TaskDefinition
from taskharbor.task.layer import Attempt, Middleware, refuse_async_only
from taskharbor.worker.batch_plan import BatchPlan
from taskharbor.worker.plan import Prepared, TaskPlan
from taskharbor.worker.surrounding import Call, asurrounded, surrounded


def plan_for(
    definition: TaskDefinition, codec: Codec, middleware: Sequence[Middleware], worker: str
) -> TaskPlan:
    """Return the plan of a task: `middleware` is the harbor's, outside of the task's own.

    Raises:
        TaskDefinitionError: the codec cannot carry one of its types.
        MiddlewareError: one of the layers cannot be put around it.
    """
    layers = (*middleware, *definition.middleware)
    if definition.options.batch is not None:
        if not definition.reading.is_async:
            refuse_async_only(definition.name, layers)
        return BatchPlan(definition, codec, layers, worker)
    if definition.reading.is_async:
        if any(layer.surrounds_run or layer.surrounds_arun for layer in layers):
            return AsyncLayeredPlan(definition, codec, layers, worker)
    else:
        refuse_async_only(definition.name, layers)
        if any(layer.surrounds_run for layer in layers):
            return LayeredPlan(definition, codec, layers, worker)
    return TaskPlan(definition, codec)


class LayeredPlan(TaskPlan):
    """Of a `def` task."""

    def __init__(
        self, definition: TaskDefinition, codec: Codec, layers: Sequence[Middleware], worker: str
    ) -> None:
        super().__init__(definition, codec)
        self._worker = worker
        self._surrounded = surrounded(layers)

    def call(self, run: Prepared) -> object:
        """Call the handler within its layers."""
        return self.around(run, partial(super().call, run))

    def around(self, run: Prepared, call: Call) -> object:
        """Return what comes out of the layers, with `call` in the place of the handler.

        Cut short when the last of them had ended, the run's attempt has a result.
        """
        attempt = run.attempt = Attempt(run.context, run.arguments, self._worker)
        self._surrounded(attempt, call)
        return attempt.result


class AsyncLayeredPlan(TaskPlan):
    """Of an `async def` task."""

    def __init__(
        self, definition: TaskDefinition, codec: Codec, layers: Sequence[Middleware], worker: str
    ) -> None:
        super().__init__(definition, codec)
        self._worker = worker
        self._surrounded = asurrounded(layers)

    async def call(self, run: Prepared) -> object:
        """Call the handler within its layers."""
        attempt = Attempt(run.context, run.arguments, self._worker)
        await self._surrounded(attempt, cast("partial[Awaitable[object]]", partial(super().call, run)))
        return attempt.result
