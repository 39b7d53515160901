"""From the arguments of a call to its partition: the line of its task in which the job stands (rule 25)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import cast

import msgspec

from taskharbor.errors import FlowError, PayloadError, TaskDefinitionError
from taskharbor.limit import KEYLESS
from taskharbor.task import key_probe
from taskharbor.task.key_reading import KeyReader, Take
from taskharbor.task.key_value import NotAKeyError, write_partition
from taskharbor.task.limits import Later, Limits
from taskharbor.task.reading import Parameter


class Partitioned:
    """How the calls of one task come to their partitions, and its limits."""

    def __init__(self, task: str, parameters: Sequence[Parameter], declared: Limits) -> None:
        """Check the key of the declaration against the signature.

        Raises:
            TaskDefinitionError: it names what is not there, or cannot be a key.
        """
        self._task = task
        self._parameters = tuple(parameters)
        self._declared = declared
        self._reader = KeyReader(task, parameters, "limits", "limit_by")
        key = declared.key
        self._take: Take | None = None if key is None or isinstance(key, Later) else self._reader.of(key)

    def by(self, fn: Callable[..., object]) -> Partitioned:
        """Return the same, with the partition that a function over the task's own parameters returns.

        Raises:
            TaskDefinitionError: there is a key already, or the function cannot make one of these parameters.
        """
        if self._take is not None:
            raise self._reader.refusal(
                "it has a key already, in @task(rate=..., max_running=..., fair=...) or by limit_by(...); leave one of "
                "the two out, and write Rate.each(...) or MaxRunning.each(...) for limits of each key"
            )
        partitioned = Partitioned(self._task, self._parameters, self._declared)
        partitioned._take = self._reader.by(fn)
        return partitioned

    @property
    def declared(self) -> Limits:
        """Return what is declared."""
        return self._declared

    def of(self, arguments: msgspec.Struct, holes: frozenset[str] = frozenset()) -> str:
        """Return the partition of a call.

        Args:
            arguments: of the call, without those that earlier steps give.
            holes: the names of these.

        Raises:
            PayloadError: of these arguments no partition can be made.
            FlowError: it depends on what an earlier step gives.
            TaskDefinitionError: limits of each key were declared, and no key.
        """
        take = self._take
        if take is None:
            if self._declared.key is not None:
                raise TaskDefinitionError(
                    f"task {self._task!r} declares limits of each key, and no key: call its limit_by(...) right "
                    "below it, or give the limit a key=..."
                )
            return KEYLESS
        try:
            if holes:
                whole = cast("msgspec.Struct", self._filled(arguments, holes))
                return write_partition(key_probe.known(lambda: take(whole)))
            return write_partition(take(arguments))
        except key_probe.UnknownError:
            raise FlowError(
                f"the partition of task {self._task!r} is made of {' or '.join(map(repr, sorted(holes)))}, which comes "
                "from an earlier step, and a job stands in its line from the beginning; pass the key as an argument "
                "known beforehand, or enqueue the task from the earlier step's handler"
            ) from None
        except Exception as error:
            # Not the text of a user's own error, which may quote the payload.
            told = (
                str(error)
                if isinstance(error, NotAKeyError)
                else f"its function raised {type(error).__qualname__}"
            )
            raise PayloadError(
                f"the arguments of task {self._task!r} make no key for its limits and turns: {told}",
                task=self._task,
                reason=told,
            ) from error

    def _filled(self, arguments: msgspec.Struct, holes: frozenset[str]) -> object:
        types = {parameter.name: parameter.type for parameter in self._parameters}
        stand_ins = {name: key_probe.stand_in(name, types[name]) for name in holes}
        return SimpleNamespace(**msgspec.structs.asdict(arguments), **stand_ins)
