"""From the arguments of a call to the key that its task's uniqueness derives from them, and to what that means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

import msgspec
from msgspec import UnsetType

from taskharbor.call import OnConflictName, Options
from taskharbor.errors import PayloadError
from taskharbor.job import NewJob, OnConflict
from taskharbor.task.key_reading import KeyReader, Take
from taskharbor.task.key_value import NotAKeyError, write_key
from taskharbor.task.reading import Parameter
from taskharbor.task.unique import Terms, Uniqueness, terms_of


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
        self._reader = KeyReader(task, parameters, "unique", "unique_by")
        key = declared.key
        self._take: Take = (lambda _: ()) if key is None else self._reader.of(key)

    def by(self, fn: Callable[..., object]) -> Keyed:
        """Return the same, with the key that a function over the task's own parameters returns.

        Raises:
            TaskDefinitionError: there is a key already, or the function cannot make one of these parameters.
        """
        if self._declared.key is not None:
            raise self._reader.refusal("it has a key already, in @task(unique=...); leave one of the two out")
        keyed = Keyed(self._task, self._parameters, self._declared, self._retain)
        keyed._take = self._reader.by(fn)
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
