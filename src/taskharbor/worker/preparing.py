"""From a delivery to a run: find the task, decode the payload, or say why not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from taskharbor.codec import Codec, CodecBook, CodecError
from taskharbor.errors import MiddlewareError, PayloadError, TaskDefinitionError
from taskharbor.job import Delivery
from taskharbor.outcome import Outcome, Rejected, Strayed, describe
from taskharbor.task import Middleware, Registry
from taskharbor.task.filling import Filling
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
            self._codecs.add(codec)
            try:
                plan = known.get(definition) or plan_for(definition, codec, self._middleware, self._worker)
            except (TaskDefinitionError, MiddlewareError):
                if not known:  # at start: say so to whoever starts the worker
                    raise
                logger.exception("a task declared while this worker runs cannot be run by it")
                continue
            for name in (definition.name, *definition.aliases):
                plans[name] = plan
        self._plans = plans
        self.tasks = frozenset(plans)
        self.build = self._registry.build(self._codecs.names())
        self._seen = self._registry.version

    @property
    def outdated(self) -> bool:
        """Return whether tasks were declared since the last `refresh`."""
        return self._registry.version != self._seen

    def prepare(self, delivery: Delivery, deps: object, worker: str) -> Run | Outcome:
        """Return the run of a delivery, or why it cannot be one.

        A payload written under this build's own fingerprint that does not decode never will: a dead letter at once. Any
        other may be read by another build, and strays to it (rule 16).
        """
        plan = self._plans.get(delivery.task)
        if plan is None:
            return Strayed(unknown_task(delivery))
        read: Callable[[bytes], msgspec.Struct] | None
        if isinstance(plan, BuiltinPlan):
            read = partial(plan.work, delivery)
        elif delivery.step is not None and delivery.step.holes:
            read = self._hole_reader(plan, delivery)
        else:
            read = plan.readers.get(delivery.codec) or self._reader(plan, delivery.codec)
        if read is None:
            known = ", ".join(self._codecs.names())
            return Strayed(
                f"its payload is written with the codec {delivery.codec!r}, which this worker does not have (it has "
                f"{known}); pass it as Harbor(codecs=[...])",
                self.build,
            )
        try:
            arguments = read(delivery.payload)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a user's codec may raise anything, and must not end the worker
            told = error if isinstance(error, CodecError) else CodecError(f"{type(error).__name__}: {error}")
            return self._unreadable(plan, delivery, told, worker)
        return Run(delivery, plan, arguments, deps)

    def _reader(self, plan: TaskPlan, codec_name: str) -> Callable[[bytes], msgspec.Struct] | None:
        codec = self._codecs.find(codec_name)
        if codec is None:
            return None
        plan.readers[codec_name] = read = plan.definition.coder(codec).decode_arguments
        return read

    def _hole_reader(self, plan: TaskPlan, delivery: Delivery) -> Callable[[bytes], msgspec.Struct] | None:
        """Return what reads a payload and fills its holes; None if the payload's codec is not known."""
        codec, definition, step = self._codecs.find(delivery.codec), plan.definition, delivery.step
        if codec is None or step is None:
            return None
        names = frozenset(hole.parameter for hole in step.holes)

        def read(data: bytes) -> msgspec.Struct:
            if delivery.fingerprint != definition.fingerprint and not names <= definition.parameter_names:
                missing = sorted(names - definition.parameter_names)
                raise CodecError(f"the task has no parameter {missing[0]!r}")
            given = msgspec.structs.asdict(definition.partial(names).decoder(codec)(data))
            values = self._filling.values(step, definition.parameter_type)
            return definition.arguments_type(**given, **values)

        return read

    def _unreadable(self, plan: TaskPlan, delivery: Delivery, error: CodecError, worker: str) -> Outcome:
        told = (
            f"the payload of job {delivery.id} (queue {delivery.queue!r}) does not fit the signature of task "
            f"{delivery.task!r} in this worker: {error} at {error.path}"
        )
        own = isinstance(plan, BuiltinPlan) or delivery.fingerprint == plan.definition.fingerprint
        if own and not error.foreign:
            problem = PayloadError(told, task=delivery.task, path=error.path, reason=str(error))
            return Rejected(
                describe(problem, attempt=delivery.attempt, worker=worker), "its payload cannot be decoded"
            )
        return Strayed(told, self.build)


def unknown_task(delivery: Delivery) -> str:
    """Return what to say of a job whose task this worker does not know."""
    return (
        f"task {delivery.task!r} is not registered in the worker that met it (job {delivery.id}, queue "
        f"{delivery.queue!r}); import the module that declares it, or keep the old name in aliases=[...]"
    )
