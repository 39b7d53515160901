"""From the arguments of a call to the key that its task's uniqueness derives from them, and to what that means."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from datetime import timedelta
from operator import attrgetter
from types import SimpleNamespace
from typing import TypeAlias, cast

import msgspec
from msgspec import UnsetType

from taskharbor.call import OnConflictName, Options
from taskharbor.errors import PayloadError, TaskDefinitionError, nearest
from taskharbor.job import NewJob, OnConflict
from taskharbor.task import key_probe
from taskharbor.task.arguments import spread_for
from taskharbor.task.key_value import KINDS, NotAKeyError, could_be_key, write_key
from taskharbor.task.reading import Kind, Parameter, describe_type
from taskharbor.task.unique import Key, Terms, Uniqueness, terms_of

_Take: TypeAlias = Callable[[msgspec.Struct], object]
_POSITIONAL = (Kind.POSITIONAL_ONLY, Kind.POSITIONAL_OR_KEYWORD, Kind.VAR_POSITIONAL)


class Keyed:
    """How the calls of one task come to their keys."""

    def __init__(
        self, task: str, parameters: Sequence[Parameter], declared: Uniqueness, retain: timedelta
    ) -> None:
        """Check the key of the declaration against the signature.

        Raises:
            TaskDefinitionError: it names what is not there, or cannot be a key.
        """
        self._task = task
        self._parameters = tuple(parameters)
        self._declared = declared
        self._retain = retain
        self._terms: dict[OnConflictName | UnsetType, Terms] = {}
        self._take = self._taker(declared.key)

    def by(self, fn: Callable[..., object]) -> Keyed:
        """Return the same, with the key that a function over the task's own parameters returns.

        Raises:
            TaskDefinitionError: there is a key already, or the function cannot make one of these parameters.
        """
        if self._declared.key is not None:
            raise self._refusal("it has a key already, in @task(unique=...); leave one of the two out")
        spread = spread_for(self._parameters)
        positional = [p.name for p in self._parameters if p.kind in _POSITIONAL]
        keyword = [p.name for p in self._parameters if p.kind is Kind.KEYWORD_ONLY]
        self._check_function(
            fn,
            positional,
            keyword,
            f"unique_by(...) takes one over the task's own parameters, {', '.join((*positional, *keyword)) or 'none'}",
        )

        def take(arguments: msgspec.Struct) -> object:
            return spread(fn, arguments, ())

        self._check_outcome(lambda: take(cast("msgspec.Struct", self._stand_ins())))
        keyed = Keyed(self._task, self._parameters, self._declared, self._retain)
        keyed._take = take
        return keyed

    def replaces(self, asked: OnConflictName | UnsetType) -> bool:
        """Return whether a call takes the place of the job that has its key."""
        return self._terms_of(asked).on_conflict is OnConflict.REPLACE

    def apply(self, job: NewJob, arguments: msgspec.Struct, options: Options) -> NewJob:
        """Return a job with its key, and with what the declaration means for it.

        Raises:
            PayloadError: of these arguments no key can be made.
            OptionError: the call asks for something on a conflict that goes against the declaration.
        """
        terms = self._terms_of(options.on_conflict)
        return msgspec.structs.replace(
            job,
            key=self._key(arguments),
            key_rule=terms.rule,
            key_ttl=terms.key_ttl,
            on_conflict=terms.on_conflict,
            run_in=terms.run_in if job.run_at is None and job.run_in is None else job.run_in,
            # A job whose record is gone keeps nobody out.
            retain=max(job.retain, terms.key_ttl),
        )

    def _key(self, arguments: msgspec.Struct) -> str:
        try:
            return write_key(self._take(arguments))
        except Exception as error:
            # Not the text of a user's own error, which may quote the payload.
            told = (
                str(error)
                if isinstance(error, NotAKeyError)
                else f"its function raised {type(error).__qualname__}"
            )
            raise PayloadError(
                f"the arguments of task {self._task!r} make no key to be unique by: {told}",
                task=self._task,
                reason=told,
            ) from error

    def _terms_of(self, asked: OnConflictName | UnsetType) -> Terms:
        known = self._terms.get(asked)
        if known is None:
            known = self._terms[asked] = terms_of(self._declared, asked, self._retain)
        return known

    def _taker(self, key: Key | None) -> _Take:
        if key is None:
            return lambda _: ()
        types = {parameter.name: parameter.type for parameter in self._parameters}
        if callable(key):
            self._check_function(
                key,
                ["args"],
                [],
                "key= takes one of one argument, whose attributes are the parameters, lambda args: args.account; "
                "task.unique_by(...) takes one over the parameters themselves",
            )
            self._check_outcome(lambda: key(key_probe.arguments(types)))
            return key
        names = (key,) if isinstance(key, str) else key
        for name in names:
            self._check_name(name, types)
        return attrgetter(*names)

    def _stand_ins(self) -> object:
        """Return arguments for a dry run; what a call may leave out by stars is."""
        empty = {Kind.VAR_POSITIONAL: (), Kind.VAR_KEYWORD: dict[str, object]()}
        return SimpleNamespace(
            **{p.name: empty.get(p.kind, key_probe.stand_in(p.name, p.type)) for p in self._parameters}
        )

    def _check_name(self, name: str, types: dict[str, object]) -> None:
        if name not in types:
            raise self._refusal(
                f"there is no parameter {name!r}{nearest(name, list(types))}; it has {', '.join(types) or 'none'}"
            )
        if not could_be_key(types[name]):
            raise self._refusal(
                f"{name!r} is {describe_type(types[name])}, and a key is of {KINDS}; a function can take "
                f"from it what tells calls apart: key=lambda args: args.{name}..."
            )

    def _check_function(
        self, fn: Callable[..., object], positional: Sequence[str], keyword: Sequence[str], wanted: str
    ) -> None:
        if inspect.iscoroutinefunction(fn):
            raise self._refusal(
                "its key function is an `async def`; a key is made of the arguments alone: `def`"
            )
        try:
            taken = inspect.signature(fn)
        except (TypeError, ValueError):  # some of those written in C do not tell
            return
        try:
            taken.bind(*positional, **dict.fromkeys(keyword))
        except TypeError as error:
            raise self._refusal(
                f"its key function has the parameters {_shown(taken)} ({error}); {wanted}"
            ) from error

    def _check_outcome(self, call: Callable[[], object]) -> None:
        refused = key_probe.dry_run(call)
        if refused:
            raise self._refusal(f"in its key, {refused}")

    def _refusal(self, why: str) -> TaskDefinitionError:
        return TaskDefinitionError(f"task {self._task!r}, unique: {why}")


def _shown(signature: inspect.Signature) -> str:
    return str(signature.replace(return_annotation=inspect.Signature.empty))
