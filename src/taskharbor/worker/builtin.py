"""The tasks of our own, which every worker knows: gathering results into a list, and making the steps of an `each`."""

from __future__ import annotations

from abc import ABC, abstractmethod

import msgspec

from taskharbor.call.expansion import COLLECT, EACH, expand, read_expansion
from taskharbor.call.parts import PARTS, Parts, write_parts
from taskharbor.codec import CodecError, JsonCodec, split
from taskharbor.job import Delivery
from taskharbor.outcome import Succeeded
from taskharbor.step import DeliveredStep
from taskharbor.task import Registry, TaskDefinition, task
from taskharbor.task.filling import Filling
from taskharbor.worker.plan import Prepared, TaskPlan

_registry = Registry()


@task(name=COLLECT, registry=_registry)
async def _collect() -> None:
    raise AssertionError("run by its plan")


@task(name=EACH, registry=_registry)
async def _each() -> None:
    raise AssertionError("run by its plan")


class _Done(msgspec.Struct, frozen=True):
    """What stands for the arguments of our own tasks: what the work has come to, which is done on the way in."""

    outcome: Succeeded


class BuiltinPlan(TaskPlan, ABC):
    """How a task of our own is run: `outcome` does the work, before there is a run."""

    def __init__(self, definition: TaskDefinition, filling: Filling) -> None:
        super().__init__(definition, JsonCodec())
        self._filling = filling

    @abstractmethod
    def outcome(self, delivery: Delivery) -> Succeeded:
        """Return what a delivery comes to.

        Raises:
            CodecError: what came in cannot be read.
        """

    def work(self, delivery: Delivery, _payload: bytes) -> msgspec.Struct:
        """Do the work, and return what stands for the arguments.

        Raises:
            CodecError: what came in cannot be read.
        """
        return _Done(self.outcome(delivery))

    async def call(self, run: Prepared) -> Succeeded:
        """Return what the work has come to."""
        if not isinstance(run.arguments, _Done):
            raise TypeError(run.arguments)
        return run.arguments.outcome

    def succeeded(self, value: object, *, keep: bool) -> Succeeded:
        """Return the outcome, which is what `call` returned."""
        if not isinstance(value, Succeeded):
            raise TypeError(value)
        if value.result is not None:
            self.refuse_large(value.result)
        return value


class CollectPlan(BuiltinPlan):
    """Gathers."""

    def outcome(self, delivery: Delivery) -> Succeeded:
        """Return the list."""
        step = _step(delivery)
        (hole,) = step.holes
        parts = Parts(tuple(part for part in step.inputs if part.slot == hole.slot), hole.tolerant)
        return Succeeded(write_parts(parts), PARTS)


class EachPlan(BuiltinPlan):
    """Makes steps."""

    def outcome(self, delivery: Delivery) -> Succeeded:
        """Return the steps, as what the success brings with it."""
        expansion = read_expansion(delivery.payload)
        step = _step(delivery)
        if step.holes:
            elements = self._filling.elements(step, step.holes[0])
        else:
            codec = self._filling.codec(expansion.codec)
            elements = [(expansion.codec, data) for data in split(codec, expansion.items or b"")]
        return Succeeded(None, "", expand(expansion, elements, step.flow))


def builtin_plans(filling: Filling) -> dict[str, BuiltinPlan]:
    """Return the plans of our own tasks by name."""
    return {
        COLLECT: CollectPlan(_registry.get(COLLECT), filling),
        EACH: EachPlan(_registry.get(EACH), filling),
    }


def _step(delivery: Delivery) -> DeliveredStep:
    if delivery.step is None:
        raise CodecError("it is no step of a flow")
    return delivery.step
