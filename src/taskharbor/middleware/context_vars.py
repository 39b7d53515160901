"""Context variables that travel: from the code that enqueues a job to the handler that runs it."""

from __future__ import annotations

import contextlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from contextvars import ContextVar, Token
from functools import partial
from typing import Generic, TypeVar, cast

import msgspec

from taskharbor.call.options import check_meta
from taskharbor.errors import OptionError
from taskharbor.task import Attempt, Middleware, Outgoing

logger = logging.getLogger("taskharbor.middleware")

T = TypeVar("T")


class CarriedVariable(ABC):
    """A variable that `ContextVariables` carries: how its value becomes text, and text its value."""

    def __init__(self, name: str) -> None:
        """Carry it under a name."""
        self.name = name

    @property
    def variable(self) -> ContextVar[object] | None:
        """Return the variable, so that handlers do not take it over from who started the worker; None if it is none."""
        return None

    @abstractmethod
    def written(self) -> str | None:
        """Return the value it has here and now, as text; None if it has none."""

    @abstractmethod
    def arrive(self, text: str) -> Callable[[], None]:
        """Give it the value that was written, and return what takes that back.

        Raises:
            ValueError: the text is no such value.
        """


class TypedVariable(CarriedVariable, Generic[T]):
    """A context variable of any type that msgspec writes as JSON: `TypedVariable(user, User)`."""

    def __init__(self, variable: ContextVar[T], kind: type[T]) -> None:
        """Carry a variable by its name. Values are checked against `kind` where they arrive."""
        super().__init__(variable.name)
        self._variable = variable
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder(kind).decode

    @property
    def variable(self) -> ContextVar[object]:
        """Return the variable."""
        return cast("ContextVar[object]", self._variable)

    def written(self) -> str | None:
        """Return its value as JSON; None if it was never set."""
        try:
            value = self._variable.get()
        except LookupError:
            return None
        return self._encode(value).decode()

    def arrive(self, text: str) -> Callable[[], None]:
        """Give it the value, and return what takes that back."""
        return partial(_reset, self._variable, self._variable.set(self._decode(text)))


class _TextVariable(CarriedVariable):
    """A context variable of text, carried as it is; None is not carried."""

    def __init__(self, variable: ContextVar[str] | ContextVar[str | None]) -> None:
        super().__init__(variable.name)
        self._variable = variable

    @property
    def variable(self) -> ContextVar[object]:
        return cast("ContextVar[object]", self._variable)

    def written(self) -> str | None:
        try:
            return self._variable.get()
        except LookupError:
            return None

    def arrive(self, text: str) -> Callable[[], None]:
        # Both kinds of variable take text; a checker sees each apart.
        variable: ContextVar[str] = self._variable  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]
        return partial(_reset, variable, variable.set(text))


class ContextVariables(Middleware):
    """Has handlers see what context variables held where their jobs were enqueued.

        request_id: ContextVar[str] = ContextVar("request_id")
        user: ContextVar[User] = ContextVar("user")
        Harbor(middleware=[ContextVariables(request_id, TypedVariable(user, User))])

    The values travel as metadata, `context.request_id` and so on: with the job through all its attempts, with a flow to
    every one of its steps (those that `each` makes later, too), and from a handler to the jobs that it enqueues, with
    its success or at once. A variable that has no value where the enqueue is travels not at all, nor one whose metadata
    the call was given by hand. After the handler each is as it was before.

    A handler whose job was sent without a variable finds it without a value too, whatever whoever started the worker
    had in it (that is, in workers: `taskharbor.testing` runs handlers inline, in the context of the test).

    What cannot be written, such as text with a NUL, or cannot be read, because somebody else wrote it or its type has
    changed, is told in the log and left out: it fails no enqueue and no job. The handler of a task with `run="process"`
    sees none of them, since no context reaches its process; it has them as text in `ctx.meta`.

    Metadata is stored as it is, and shown by the command line: carry an id, never a secret.
    """

    def __init__(
        self, *variables: ContextVar[str] | ContextVar[str | None] | CarriedVariable, prefix: str = "context."
    ) -> None:
        """Carry variables, under their own names after a prefix.

        Raises:
            OptionError: two have one name, or something is no variable.
        """
        self._carried: dict[str, CarriedVariable] = {}
        for given in variables:
            if not isinstance(given, (ContextVar, CarriedVariable)):
                raise OptionError(
                    f"ContextVariables: {given!r:.80}: expected a ContextVar of text, or TypedVariable(variable, type)"
                )
            variable = _TextVariable(given) if isinstance(given, ContextVar) else given
            key = f"{prefix}{variable.name}"
            if key in self._carried:
                raise OptionError(f"ContextVariables: two variables are named {variable.name!r}; rename one")
            self._carried[key] = variable

    def enqueue(self, jobs: Sequence[Outgoing]) -> Iterator[None]:
        """Write the values into each job's metadata."""
        for key, variable in self._carried.items():
            try:
                text = variable.written()
                if text is not None:
                    check_meta({key: text})
            except Exception as error:  # noqa: BLE001 - whatever the value is, jobs go on without it
                logger.warning(
                    "the context variable %r has a value that cannot be carried (%s); jobs of task %r are sent without "
                    "it",
                    variable.name,
                    type(error).__qualname__,
                    jobs[0].task,
                )
                continue
            if text is not None:
                for job in jobs:
                    job.meta.setdefault(key, text)
        yield

    @property
    def not_inherited(self) -> Collection[ContextVar[object]]:
        """Return the variables that it carries: a job that was sent without one runs without it."""
        found = [variable.variable for variable in self._carried.values()]
        return [variable for variable in found if variable is not None]

    def run(self, attempt: Attempt) -> Iterator[None]:
        """Give the variables their values until the attempt ends."""
        meta = attempt.context.meta
        undo: list[Callable[[], None]] = []
        try:
            for key, variable in self._carried.items():
                text = meta.get(key)
                if text is None:
                    continue
                try:
                    undo.append(variable.arrive(text))
                except Exception as error:  # noqa: BLE001 - whoever wrote it, and whatever decodes it
                    logger.warning(
                        "the metadata %r of job %s (task %r) cannot be read (%s), so its context variable is not set",
                        key,
                        attempt.context.job_id,
                        attempt.context.task,
                        type(error).__qualname__,
                    )
            yield
        finally:
            for take_back in reversed(undo):
                take_back()


def _reset(variable: ContextVar[T], token: Token[T]) -> None:
    with contextlib.suppress(ValueError):  # closed in another context than it began in
        variable.reset(token)
