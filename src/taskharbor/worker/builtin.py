"""The tasks of our own, which every worker knows: gathering results into a list, and making the steps of an `each`."""

from __future__ import annotations

import msgspec

from taskharbor.call.expansion import COLLECT, EACH, EXPANSION, expand, read_expansion
from taskharbor.call.parts import PARTS, Parts, write_parts
from taskharbor.codec import CodecError, JsonCodec, split, wrap
from taskharbor.flow import FORMAT
from taskharbor.job import Delivery
from taskharbor.outcome import Succeeded
from taskharbor.step import DeliveredStep, Hole, Input
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


class _Nothing(msgspec.Struct, frozen=True):
    """No arguments: what these tasks take is read from the delivery."""


class BuiltinPlan(TaskPlan):
    """How a task of our own is run: at once, on the loop, by `outcome`."""

    def __init__(self, definition: TaskDefinition, filling: Filling) -> None:
        super().__init__(definition, JsonCodec())
        self.builtin = True
        self._filling = filling
        self.readers = {PARTS: _no_arguments, EXPANSION: _no_arguments}

    def outcome(self, delivery: Delivery) -> Succeeded:
        """Return what a delivery comes to.

        Raises:
            CodecError: what came in cannot be read.
        """
        raise NotImplementedError

    async def call(self, run: Prepared) -> Succeeded:
        """Do the work."""
        return self.outcome(run.delivery)

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
            elements = self._elements(step, step.holes[0])
        else:
            codec = self._filling.codec(expansion.codec)
            elements = [(expansion.codec, data) for data in split(codec, expansion.items or b"")]
        return Succeeded(None, "", expand(expansion, elements, step.flow))

    def _elements(self, step: DeliveredStep, hole: Hole) -> list[tuple[str, bytes]]:
        found = self._filling.elements(step, hole)
        if found is not None:
            return [self._element(part, tolerant=hole.tolerant) for part in found]
        (part,) = (part for part in step.inputs if part.slot == hole.slot)
        return [(part.codec, data) for data in split(self._filling.codec(part.codec), part.value or b"")]

    def _element(self, part: Input, *, tolerant: bool) -> tuple[str, bytes]:
        if part.value is None:
            raise CodecError("the result of an earlier step was not kept")
        if part.failed:
            return FORMAT, part.value
        if not tolerant:
            return part.codec, part.value
        data = wrap(self._filling.codec(part.codec), {"type": "success"}, "value", part.value)
        if data is None:
            raise CodecError(
                f"the codec {part.codec!r} cannot tell Success and Failure apart for an each(...); gather them by a "
                "task first"
            )
        return part.codec, data


def builtin_plans(filling: Filling) -> dict[str, TaskPlan]:
    """Return the plans of our own tasks by name."""
    return {
        COLLECT: CollectPlan(_registry.get(COLLECT), filling),
        EACH: EachPlan(_registry.get(EACH), filling),
    }


def _step(delivery: Delivery) -> DeliveredStep:
    if delivery.step is None:
        raise CodecError("it is no step of a flow")
    return delivery.step


def _no_arguments(_data: bytes) -> msgspec.Struct:
    return _Nothing()
