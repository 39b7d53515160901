"""The typed face of a task: `Bound`, `Task`, `SyncTask`, `AsyncTask`.

`P` are the parameters a caller sees (never the context), `R` is what the handler returns (never a coroutine).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any, Generic, ParamSpec, cast

from msgspec import UNSET, UnsetType
from typing_extensions import TypeVar

from taskharbor.call import (
    Call,
    JobHandle,
    OnConflictName,
    Options,
    Signature,
    current_dispatcher,
    refuse_on_loop,
    running_job,
)
from taskharbor.errors import PayloadError, UsageError
from taskharbor.retry import Retry
from taskharbor.task.context import Context
from taskharbor.task.definition import TaskDefinition
from taskharbor.task.options import NO_OPTIONS
from taskharbor.task.unique import KeyValue

P = ParamSpec("P")
R = TypeVar("R")


class Bound(Generic[P, R]):
    """A task with options: what can be enqueued."""

    __slots__ = ("_definition", "_options")

    def __init__(self, definition: TaskDefinition, options: Options) -> None:
        """Made by `task.options(...)`."""
        self._definition = definition
        self._options = options

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    @property
    def name(self) -> str:
        """Return the task's name."""
        return self._definition.name

    def enqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]:
        """Store a job through the current harbor, and return its handle once it is durable.

        Raises:
            PayloadError: the arguments do not fit the signature; carries the path to the misfit.
            PayloadTooLarge: they are larger than a job carries (16 MiB, encoded).
            NoHarborError: no harbor is current.
            BlockingCallError: on a running event loop; use `aenqueue`.
            DuplicateJob: the key is taken and `on_conflict="raise"` was asked.
            KeyConflict: the key is taken by a job with other arguments.
            StoreUnavailable: the store cannot be reached; with a key, asking again is safe.
        """
        refuse_on_loop(f"{self.name}.enqueue()", f"{self.name}.aenqueue(...)")
        return self._call(*args, **kwargs).enqueue()

    async def aenqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]:
        """Store a job through the current harbor; the async form of `enqueue`."""
        return await self._call(*args, **kwargs).aenqueue()

    def s(self, /, *args: P.args, **kwargs: P.kwargs) -> Signature[R]:
        """Return the call as a value, to be sent later.

        Raises:
            PayloadError: the function could not be called so. Types are checked when it is sent.
        """
        try:
            return self._call(*args, **kwargs)
        except PayloadError as error:
            if args or kwargs:
                raise
            raise PayloadError(
                f"{error}; as a link of a flow, name the task itself, without .s()",
                task=error.task,
                path=error.path,
                reason=error.reason,
            ) from error

    def _call(self, /, *args: P.args, **kwargs: P.kwargs) -> Signature[R]:
        return Signature(Call(self._definition, self._definition.bind(args, kwargs), self._options))

    def options(
        self,
        *,
        queue: str | UnsetType = UNSET,
        priority: int | UnsetType = UNSET,
        run_at: datetime | UnsetType = UNSET,
        run_in: timedelta | UnsetType = UNSET,
        key: str | UnsetType = UNSET,
        key_ttl: timedelta | UnsetType = UNSET,
        on_conflict: OnConflictName | UnsetType = UNSET,
        retry: Retry | UnsetType = UNSET,
        timeout: timedelta | UnsetType | None = UNSET,
        meta: dict[str, str] | UnsetType = UNSET,
    ) -> Bound[P, R]:
        """Return the same task with other options for the calls made through it; what is left out stays.

        Args:
            queue: where the job waits.
            priority: 0 (first) to 9 (last).
            run_at: earliest start, an aware datetime.
            run_in: earliest start from now, by the store's clock.
            key: idempotency key in the scope of the task: one job while that is live, and for `key_ttl` after.
            key_ttl: how long the key stays taken after the job has finished.
            on_conflict: `existing` (return the job that has the key), `raise` (`DuplicateJob`), or `replace` (take its
                place, with these arguments, as long as no worker has it; else store a new job).
            retry: another policy, without `on`.
            timeout: for one attempt; None for no limit.
            meta: text to travel with the job, added to what is there.

        Raises:
            OptionError: a value that cannot be.
        """
        options = Options(
            queue=queue,
            priority=priority,
            run_at=run_at,
            run_in=run_in,
            key=key,
            key_ttl=key_ttl,
            on_conflict=on_conflict,
            retry=retry,
            timeout=timeout,
            meta=meta,
        )
        return Bound(self._definition, options.over(self._options))


class Task(Bound[P, R]):
    """A declared function: callable as before, and enqueueable."""

    def __init__(self, definition: TaskDefinition) -> None:
        """Made by `@task`."""
        super().__init__(definition, NO_OPTIONS)
        self.__wrapped__ = definition.fn
        # So that help(), documentation tools and tracebacks show the function's own.
        self.__doc__ = definition.fn.__doc__
        self.__name__ = str(getattr(definition.fn, "__name__", definition.name))
        self.__qualname__ = str(getattr(definition.fn, "__qualname__", definition.name))

    @property
    def definition(self) -> TaskDefinition:
        """Return what is known of the task at run time."""
        return self._definition

    @property
    def aliases(self) -> tuple[str, ...]:
        """Return the other names its stored jobs may bear."""
        return self._definition.aliases

    def handle(self, job_id: str) -> JobHandle[R]:
        """Return a typed handle on a job of this task, from its id. Does not look whether there is one."""
        return JobHandle(current_dispatcher(self.name), self._definition, job_id, created=False)

    def unique_by(self, key: Callable[P, KeyValue], /) -> None:
        """Make calls unique by the key that a function over the task's own parameters returns.

        To be called once, right below the declaration. It is the key of what `@task(unique=...)` declares, or of
        `Unique()`. Type checkers know the parameters here, so they check the function, a lambda too. It takes all of
        them, with defaults where they have some: `pay.unique_by(lambda account, cents=0: account)`.

        Args:
            key: called with the arguments of each call; returns str, int, bool, UUID, date, datetime, Enum, None, or a
                tuple of these.

        Raises:
            TaskDefinitionError: there is a key already, or the function cannot make one of these parameters.
        """
        self._definition.unique_by(key)

    def limit_by(self, key: Callable[P, KeyValue], /) -> None:
        """Have the task's limits and turns go by the key that a function over its own parameters returns.

        To be called once, right below the declaration. Limits declared as `Rate.each(...)` and `MaxRunning.each(...)`
        hold for each key, and the jobs of each key stand in a line of their own, which takes turns with the others.
        Type checkers know the parameters here, as in `unique_by`.

        Args:
            key: called with the arguments of each call; returns str, int, bool, UUID, date, datetime, Enum, None, or a
                tuple of these. It is shown to operators: no secrets.

        Raises:
            TaskDefinitionError: there is a key already, or the function cannot make one of these parameters.
        """
        self._definition.limit_by(key)

    def schema(self) -> dict[str, object]:
        """Return the JSON Schema (2020-12) of the task's arguments."""
        return self._definition.schema()

    def _invoke(self, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        if not self._definition.reading.takes_context:
            return self._definition.fn(*args, **kwargs)
        job = running_job.get()
        if job is None:
            raise UsageError(
                f"task {self.name!r} takes a Context, which only a running job has; outside of one call "
                f"{self.__name__}.fn(Context.detached(deps), ...)"
            )
        context = job.context
        if not isinstance(context, Context):  # a batch's, of many jobs
            raise UsageError(
                f"task {self.name!r} takes a Context, and this is a batch of many jobs; call "
                f"{self.__name__}.fn(ctx.jobs[0], ...) for the one that it is for"
            )
        return self._definition.fn(cast("object", context), *args, **kwargs)


class SyncTask(Task[P, R]):
    """A task over a plain function, run in a thread (or a process)."""

    @property
    def fn(self) -> Callable[..., R]:
        """Return the bare function, context and all."""
        return cast("Callable[..., R]", self._definition.fn)

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function here and now; inside a handler, the running job's context is passed on."""
        return cast("R", self._invoke(args, kwargs))


class AsyncTask(Task[P, R]):
    """A task over a coroutine function, run on the worker's event loop."""

    @property
    def fn(self) -> Callable[..., Coroutine[Any, Any, R]]:
        """Return the bare function, context and all."""
        return cast("Callable[..., Coroutine[Any, Any, R]]", self._definition.fn)

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Call the function here and now; inside a handler, the running job's context is passed on."""
        return cast("Coroutine[Any, Any, R]", self._invoke(args, kwargs))
