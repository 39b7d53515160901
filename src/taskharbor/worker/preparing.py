"""From a delivery to a run: find the task, decode the payload, or say why not."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import msgspec

from taskharbor.codec import Codec, CodecBook, CodecError, LackError
from taskharbor.errors import MiddlewareError, OptionError, PayloadError, TaskDefinitionError
from taskharbor.job import Delivery
from taskharbor.outcome import LACKING, Outcome, Rejected, Strayed, describe
from taskharbor.step import DeliveredStep
from taskharbor.task import Middleware, Registry, TaskDefinition
from taskharbor.task.filling import Filling
from taskharbor.task.upgrading import needs_upgrade, plain_arguments, upgraded
from taskharbor.worker.builtin import BuiltinPlan, builtin_plans
from taskharbor.worker.layered import plan_for
from taskharbor.worker.plan import TaskPlan
from taskharbor.worker.run import Run

logger = logging.getLogger("taskharbor.worker")


class Plans:
    """The plans of all tasks a worker knows, under every name their jobs may bear."""

    def __init__(
        self,
        registry: Registry,
        codecs: CodecBook,
        codec: Codec,
        middleware: Sequence[Middleware] = (),
        worker: str = "",
    ) -> None:
        self._registry = registry
        self._middleware = middleware
        self._worker = worker
        self._codecs = codecs
        self._codec = codec
        self._plans: dict[str, TaskPlan] = {}
        self._filling = Filling(codecs)
        self._builtin = builtin_plans(self._filling)
        self.refresh()

    def refresh(self) -> None:
        """Read the registry anew: tasks may be declared while a worker runs."""
        known = {plan.definition: plan for plan in self._plans.values()}
        plans: dict[str, TaskPlan] = {**self._builtin}
        for definition in self._registry:
            codec = definition.codec or self._codec
            try:
                self._codecs.add(codec)
                plan = known.get(definition) or plan_for(definition, codec, self._middleware, self._worker)
            except (TaskDefinitionError, MiddlewareError, OptionError):
                if not known:  # at start: say so to whoever starts the worker
                    raise
                logger.exception("a task declared while this worker runs cannot be run by it")
                continue
            for name in (definition.name, *definition.aliases):
                plans[name] = plan
        self._plans = plans
        self.tasks = frozenset(plans)
        self.build = self._registry.build(self._codecs.abilities())
        self._seen = self._registry.version

    @property
    def outdated(self) -> bool:
        """Return whether tasks were declared since the last `refresh`."""
        return self._registry.version != self._seen

    def lined(self, task: str) -> bool:
        """Return whether a task's jobs stand in lines, as far as the code says: it has limits, or takes turns."""
        plan = self._plans.get(task)
        return plan is not None and plan.definition.partitioned is not None

    def prepare(self, delivery: Delivery, deps: object, worker: str) -> Run | Outcome:
        """Return the run of a delivery, or why it cannot be one.

        A payload written under this build's own fingerprint that does not decode never will: a dead letter at once. Any
        other may be read by another build, and strays to it (rule 16); so may what an earlier step of its flow gave,
        which nobody knows the build of.
        """
        plan = self._plans.get(delivery.task)
        if plan is None:
            return Strayed(unknown_task(delivery))
        try:
            arguments = self._arguments(plan, delivery)
        except LackError as error:
            return Strayed(f"{LACKING}{error}", self.build)
        except (
            TaskDefinitionError
        ) as error:  # the codec is here, and cannot carry the task's types in this build
            return self._unreadable(plan, delivery, CodecError(str(error), foreign=True), worker)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a user's codec may raise anything, and must not end the worker
            told = (
                error
                if isinstance(error, CodecError)
                else CodecError(f"{type(error).__name__}: {error}", foreign=isinstance(error, MemoryError))
            )
            return self._unreadable(plan, delivery, told, worker)
        return Run(delivery, plan, arguments, deps)

    def _arguments(self, plan: TaskPlan, delivery: Delivery) -> msgspec.Struct:
        if isinstance(plan, BuiltinPlan):
            return plan.work(delivery, delivery.payload)
        try:
            return self._as_they_are(plan, delivery)
        except CodecError:
            if not needs_upgrade(plan.definition, delivery.fingerprint):
                raise
        return self._upgraded(plan.definition, delivery)

    def _as_they_are(self, plan: TaskPlan, delivery: Delivery) -> msgspec.Struct:
        definition, step = plan.definition, delivery.step
        if step is not None and step.holes:
            return self._filled(definition, delivery, step)
        read = plan.readers.get(delivery.codec)
        if read is None:
            read = definition.coder(self._codec_of(delivery)).decode_arguments
            plan.readers[delivery.codec] = read
        return read(delivery.payload)

    def _codec_of(self, delivery: Delivery) -> Codec:
        codec = self._codecs.find(delivery.codec)
        if codec is None:
            raise LackError(
                f"it is written with the codec {delivery.codec!r}, which this worker does not have (it has "
                f"{', '.join(self._codecs.names())}); pass it as Harbor(codecs=[...])",
            )
        return codec

    def _filled(self, definition: TaskDefinition, delivery: Delivery, step: DeliveredStep) -> msgspec.Struct:
        codec = self._codec_of(delivery)
        names = frozenset(hole.parameter for hole in step.holes)
        if delivery.fingerprint != definition.fingerprint and not names <= definition.parameter_names:
            missing = sorted(names - definition.parameter_names)
            raise CodecError(f"the task has no parameter {missing[0]!r}")
        given = msgspec.structs.asdict(definition.partial(names).decoder(codec)(delivery.payload))
        values = self._filling.values(step, definition.parameter_type)
        return definition.arguments_type(**given, **values)

    def _upgraded(self, definition: TaskDefinition, delivery: Delivery) -> msgspec.Struct:
        codec = self._codec_of(delivery)
        values = plain_arguments(delivery.payload, codec)
        if delivery.step is not None:
            values |= self._filling.values(delivery.step, lambda _: Any)
        return upgraded(definition, values, codec)

    def _unreadable(self, plan: TaskPlan, delivery: Delivery, error: CodecError, worker: str) -> Outcome:
        own = isinstance(plan, BuiltinPlan) or delivery.fingerprint == plan.definition.fingerprint
        if own and not error.foreign:
            told = (
                f"the payload of job {delivery.id} (queue {delivery.queue!r}) does not fit the signature of task "
                f"{delivery.task!r} in this worker: {error} at {error.path}"
            )
            problem = PayloadError(told, task=delivery.task, path=error.path, reason=str(error))
            return Rejected(
                describe(problem, attempt=delivery.attempt, worker=worker), "its payload cannot be decoded"
            )
        return Strayed(
            f"its payload does not fit the signature of task {delivery.task!r} in this worker: {error} at {error.path}",
            self.build,
        )


def unknown_task(delivery: Delivery) -> str:
    """Return what to say of a job whose task this worker does not know."""
    return (
        f"task {delivery.task!r} is not registered in the worker that met it (job {delivery.id}, queue "
        f"{delivery.queue!r}); import the module that declares it, or keep the old name in aliases=[...]"
    )
