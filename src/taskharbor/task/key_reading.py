"""From the declaration of a key to what takes it from the arguments of a call, checked against the signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from operator import attrgetter
from types import SimpleNamespace
from typing import TypeAlias, cast

import msgspec

from taskharbor.errors import TaskDefinitionError, nearest
from taskharbor.task import key_probe
from taskharbor.task.arguments import spread_for
from taskharbor.task.key_value import KINDS, could_be_key
from taskharbor.task.reading import Kind, Parameter, describe_type
from taskharbor.task.unique import Key

Take: TypeAlias = Callable[[msgspec.Struct], object]
_POSITIONAL = (Kind.POSITIONAL_ONLY, Kind.POSITIONAL_OR_KEYWORD, Kind.VAR_POSITIONAL)


class KeyReader:
    """Reads the keys that are declared for one task."""

    def __init__(self, task: str, parameters: Sequence[Parameter], option: str, method: str) -> None:
        """Read for a task.

        Args:
            task: its name.
            parameters: those of its calls.
            option: where the key is declared, for messages: `unique`.
            method: what takes a function over the task's own parameters instead.
        """
        self._task = task
        self._parameters = tuple(parameters)
        self._option = option
        self._method = method

    def of(self, key: Key) -> Take:
        """Return what a declared key takes.

        Raises:
            TaskDefinitionError: it names what is not there, or cannot be a key.
        """
        types = {parameter.name: parameter.type for parameter in self._parameters}
        if callable(key):
            self._check_function(
                key,
                ["args"],
                [],
                "key= takes one of one argument, whose attributes are the parameters, lambda args: args.account; "
                f"task.{self._method}(...) takes one over the parameters themselves",
            )
            self._check_outcome(lambda: key(key_probe.arguments(types)))
            return key
        names = (key,) if isinstance(key, str) else key
        for name in names:
            self._check_name(name, types)
        return attrgetter(*names)

    def by(self, fn: Callable[..., object]) -> Take:
        """Return what a function over the task's own parameters takes.

        Raises:
            TaskDefinitionError: the function cannot make one of these parameters.
        """
        spread = spread_for(self._parameters)
        positional = [p.name for p in self._parameters if p.kind in _POSITIONAL]
        keyword = [p.name for p in self._parameters if p.kind is Kind.KEYWORD_ONLY]
        self._check_function(
            fn,
            positional,
            keyword,
            f"{self._method}(...) takes one over the task's own parameters, "
            f"{', '.join((*positional, *keyword)) or 'none'}",
        )

        def take(arguments: msgspec.Struct) -> object:
            return spread(fn, arguments, ())

        self._check_outcome(lambda: take(cast("msgspec.Struct", self._stand_ins())))
        return take

    def refusal(self, why: str) -> TaskDefinitionError:
        """Return the error that says why a key cannot be."""
        return TaskDefinitionError(f"task {self._task!r}, {self._option}: {why}")

    def _stand_ins(self) -> object:
        """Return arguments for a dry run; what a call may leave out by stars is."""
        empty = {Kind.VAR_POSITIONAL: (), Kind.VAR_KEYWORD: dict[str, object]()}
        return SimpleNamespace(
            **{p.name: empty.get(p.kind, key_probe.stand_in(p.name, p.type)) for p in self._parameters}
        )

    def _check_name(self, name: str, types: dict[str, object]) -> None:
        if name not in types:
            raise self.refusal(
                f"there is no parameter {name!r}{nearest(name, list(types))}; it has {', '.join(types) or 'none'}"
            )
        if not could_be_key(types[name]):
            raise self.refusal(
                f"{name!r} is {describe_type(types[name])}, and a key is of {KINDS}; a function can take "
                f"from it what tells calls apart: key=lambda args: args.{name}..."
            )

    def _check_function(
        self, fn: Callable[..., object], positional: Sequence[str], keyword: Sequence[str], wanted: str
    ) -> None:
        if inspect.iscoroutinefunction(fn):
            raise self.refusal(
                "its key function is an `async def`; a key is made of the arguments alone: `def`"
            )
        try:
            taken = inspect.signature(fn)
        except (TypeError, ValueError):  # some of those written in C do not tell
            return
        try:
            taken.bind(*positional, **dict.fromkeys(keyword))
        except TypeError as error:
            raise self.refusal(
                f"its key function has the parameters {_shown(taken)} ({error}); {wanted}"
            ) from error

    def _check_outcome(self, call: Callable[[], object]) -> None:
        refused = key_probe.dry_run(call)
        if refused:
            raise self.refusal(f"in its key, {refused}")


def _shown(signature: inspect.Signature) -> str:
    return str(signature.replace(return_annotation=inspect.Signature.empty))
