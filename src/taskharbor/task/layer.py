"""What a middleware is: code around enqueues and around attempts, and what it sees of both.

Each of its methods is a generator with one `yield`, which stands for everything further in, as that of a
`contextlib.contextmanager` stands for a block: what is written before it comes before, what is written after it comes
after, and what went wrong inside is raised at it. So a layer is written once, for sync and async alike.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from contextvars import Context as ContextVars
from contextvars import ContextVar, copy_context
from types import MappingProxyType

import msgspec
from msgspec import UNSET

from taskharbor.errors import MiddlewareError, OptionError
from taskharbor.task.context import Context


class Outgoing:
    """A job, or a flow, on its way to the store."""

    __slots__ = ("_arguments", "_created", "_flow", "_job_id", "_queue", "_shown", "_task", "meta")

    meta: dict[str, str]
    """What travels with it: to be added to, before the `yield`. A copy of what the caller gave. Of a flow it is the
    flow's own, and what is added goes to every step as well, where a step's own comes first."""

    def __init__(
        self, *, task: str, queue: str, job_id: str, meta: dict[str, str], arguments: msgspec.Struct | None
    ) -> None:
        """Made by the harbor. `arguments` is None for a flow."""
        self._task = task
        self._queue = queue
        self._job_id = job_id
        self._flow = arguments is None
        self.meta = meta
        self._created: bool | None = None
        self._arguments = arguments
        self._shown: Mapping[str, object] | None = None

    def __repr__(self) -> str:
        return f"<Outgoing {'flow' if self.flow else 'job'} {self.job_id} ({self.task})>"

    # Read-only, all of them: a batch is what its caller asked for, and an id of somebody else's loses jobs.

    @property
    def task(self) -> str:
        """Return the task's name; of a flow that of the task its result comes from, as messages tell it."""
        return self._task

    @property
    def queue(self) -> str:
        """Return where it will wait; "" for a flow, whose steps have queues of their own."""
        return self._queue

    @property
    def job_id(self) -> str:
        """Return its id, if it is created; a flow's id is its last step's.

        After the `yield` that of the job which is there: another one if its idempotency key matched.
        """
        return self._job_id

    @property
    def flow(self) -> bool:
        """Return whether it is a flow."""
        return self._flow

    @property
    def created(self) -> bool | None:
        """Return, after the `yield`, False if its idempotency key matched a job that is there.

        None before, and for what is stored with another job's success (`ctx.enqueue_on_success`). Inside
        `harbor.using(...)` it tells what is written in the caller's transaction, which may still be rolled back.
        """
        return self._created

    @property
    def arguments(self) -> Mapping[str, object]:
        """Return the arguments by parameter name, not to be changed; empty for a flow, which has many calls."""
        if self._shown is None:
            self._shown = _shown(self._arguments)
        return self._shown

    def answered(self, job_id: str, *, created: bool | None) -> None:
        """Note what the store said. Called by the harbor."""
        self._job_id = job_id
        self._created = created


class Attempt:
    """One attempt at a job: its context, its arguments and, once there is one, its result."""

    __slots__ = ("_arguments", "_result", "_shown", "context", "worker")

    context: Context[object]
    """The job, as its handler sees it."""
    worker: str
    """The name of the worker that runs it."""

    def __init__(self, context: Context[object], arguments: msgspec.Struct, worker: str) -> None:
        """Made by the worker."""
        self.context = context
        self.worker = worker
        self._arguments = arguments
        self._shown: Mapping[str, object] | None = None
        self._result: object = UNSET

    def __repr__(self) -> str:
        return f"<Attempt {self.context.attempt} at job {self.context.job_id} ({self.context.task})>"

    @property
    def arguments(self) -> Mapping[str, object]:
        """Return the arguments by parameter name, not to be changed."""
        if self._shown is None:
            self._shown = _shown(self._arguments)
        return self._shown

    @property
    def has_result(self) -> bool:
        """Return whether there is a result: what is further in has returned one, or a layer has given one."""
        return self._result is not UNSET

    @property
    def result(self) -> object:
        """Return the result as it stands.

        Raises:
            MiddlewareError: there is none: what is further in has not run yet, or it raised.
        """
        if self._result is UNSET:
            raise MiddlewareError(
                f"job {self.context.job_id} (task {self.context.task!r}) has no result yet; it has one after the "
                "`yield`, if nothing was raised there: see attempt.has_result"
            )
        return self._result

    def replace_result(self, value: object) -> None:
        """Give a result, instead of the one that is there, or where there is none.

        Given after the `yield` it takes the place of what was returned, or of what was raised and caught. Given by a
        layer that returns without its `yield`, it is the result of the attempt as far as those further out can see,
        and the handler is not run. (Given before a `yield` that is reached it is forgotten there.) It has to be of the
        type that the task declares.
        """
        self._result = value

    def forget_result(self) -> None:
        """Have no result, as at the beginning. Called by the worker on the way in, and where something was raised."""
        self._result = UNSET


class Middleware:
    """Base of all middleware: override `run`, `enqueue`, or both. What is not overridden costs nothing.

        class Timing(Middleware):
            def run(self, attempt: Attempt) -> Iterator[None]:
                begin = time.monotonic()
                yield                                    # the handler, and the layers further in
                print(attempt.context.task, time.monotonic() - begin)

    `Harbor(middleware=[...])` puts layers around all tasks, `@task(middleware=[...])` around one. The first of a list
    is the outermost, and the harbor's are outside of the task's. One object serves all jobs, at the same time, in all
    threads: what belongs to one job is kept in the generator's own variables.
    """

    def enqueue(self, jobs: Sequence[Outgoing]) -> Iterator[None]:
        """Surround one batch on its way to the store. Yield once.

        Before the `yield`: `meta` may be added to; an exception refuses the whole batch, and nothing is stored.
        At the `yield`: what kept the batch from being stored is raised. It goes on to the caller whether or not it is
        caught here; another exception takes its place. An interrupt of the caller (`asyncio.CancelledError`,
        `KeyboardInterrupt`, a handler's timeout) and a `StoreUnavailable` leave open whether the jobs are stored.
        After the `yield`: the jobs are stored, and `created` tells of each. An exception is logged and not raised.
        (Inside `harbor.using(...)`: written in the caller's transaction, which may still be rolled back.)

        Runs where the enqueue does: in the caller's thread, or on its event loop, which it must not block.
        """
        yield

    def run(self, attempt: Attempt) -> Iterator[None]:
        """Surround one attempt. Yield once.

        Before the `yield`: return, having given a result (`attempt.replace_result`), and the handler is not run.
        At the `yield`: whatever the handler raised is raised, `Snooze`, `Reject` and `RetryLater` among it, and a
        cancel, timeout or shutdown as `asyncio.CancelledError` (or `JobInterrupt` in a thread). Caught, and with a
        result given in its place, it is a success; caught without one it goes on all the same.
        Anywhere: an exception is the outcome of the attempt, as if the handler had raised it.

        Runs where the handler does (its thread, or its task on the event loop, which it must not block), within the
        job's timeout, and with its context variables. Around a task with `run="process"` it runs in the worker's
        process, in the thread that waits for the child.
        """
        yield

    async def arun(self, attempt: Attempt) -> AsyncIterator[None]:
        """Surround one attempt at an `async def` task: the form of `run` that may `await`, and takes its place there.

        A middleware that has `arun` and no `run` cannot be put around a `def` task.
        """
        yield

    @property
    def not_inherited(self) -> Collection[ContextVar[object]]:
        """Return context variables that handlers do not take over from whoever starts the worker, which asks at start.

        There are none, unless overridden.
        """
        return ()

    @property
    def surrounds_enqueue(self) -> bool:
        """Return whether `enqueue` is overridden."""
        return type(self).enqueue is not Middleware.enqueue

    @property
    def surrounds_run(self) -> bool:
        """Return whether `run` is overridden."""
        return type(self).run is not Middleware.run

    @property
    def surrounds_arun(self) -> bool:
        """Return whether `arun` is overridden."""
        return type(self).arun is not Middleware.arun


def checked_layers(given: Iterable[Middleware], where: str) -> tuple[Middleware, ...]:
    """Return middleware as it was given, each fit to be used.

    Raises:
        OptionError: something else than middleware; `where` says where it was given.
        MiddlewareError: a method of another kind than a generator can be.
    """
    if isinstance(given, Middleware) or not isinstance(given, Iterable):
        raise OptionError(f"{where}: middleware={given!r}: expected a list of middleware, [{given!r}]")
    layers = tuple(given)
    for layer in layers:
        _check(layer, where)
    return layers


def inherited(layers: Iterable[Middleware]) -> ContextVars:
    """Return a context of its own with what holds here and now, but for what some layer keeps out."""
    kept_out = {variable for layer in layers for variable in layer.not_inherited}
    context = ContextVars() if kept_out else copy_context()
    if kept_out:  # a context cannot lose a variable, so another is filled with the rest
        for variable, value in copy_context().items():
            if variable not in kept_out:
                context.run(variable.set, value)
    return context


def refuse_async_only(task: str, layers: Iterable[Middleware]) -> None:
    """Refuse layers that cannot be put around a `def` task.

    Raises:
        MiddlewareError: one has `arun` and no `run`.
    """
    for layer in layers:
        if layer.surrounds_arun and not layer.surrounds_run:
            name = type(layer).__qualname__
            raise MiddlewareError(
                f"middleware {name} has `arun` alone, which `await`s, and task {task!r} is a `def`, which runs in a "
                f"thread; give {name} a `run` as well, put it on `async def` tasks alone (@task(middleware=[...])), "
                "or declare the task as `async def`"
            )


def _check(layer: object, where: str) -> None:
    if isinstance(layer, type) and issubclass(layer, Middleware):
        raise OptionError(f"{where}: middleware: expected an object, not the class; write {layer.__name__}()")
    if not isinstance(layer, Middleware):
        raise OptionError(
            f"{where}: middleware: {layer!r:.80}: expected an object of a class derived from "
            "taskharbor.middleware.Middleware"
        )
    name = type(layer).__qualname__
    for method in ("enqueue", "run"):
        found: object = getattr(type(layer), method)
        if inspect.iscoroutinefunction(found) or inspect.isasyncgenfunction(found):
            instead = "; what has to `await` is written as `async def arun`" if method == "run" else ""
            raise MiddlewareError(
                f"{where}: `{name}.{method}` is an `async def`; it is a plain `def` with one `yield`, which serves "
                f"sync and async alike{instead}"
            )
    if layer.surrounds_arun and not inspect.isasyncgenfunction(type(layer).arun):
        raise MiddlewareError(
            f"{where}: `{name}.arun` is no async generator: an `async def` with one `yield`"
        )
    if not (layer.surrounds_enqueue or layer.surrounds_run or layer.surrounds_arun):
        own = [name for name in vars(type(layer)) if not name.startswith("_")]
        hints = [f"; did you mean {close!r} for {found!r}?" for found in own if (close := _meant(found))]
        raise MiddlewareError(
            f"{where}: middleware {name} overrides none of `run`, `arun` and `enqueue`, and so would do nothing"
            f"{hints[0] if hints else ''}"
        )


def _meant(name: str) -> str:
    """Return the method that a name resembles, as `on_run` does `run`; "" if none."""
    return next((method for method in ("enqueue", "arun", "run") if method in name.lower()), "")


def _shown(arguments: msgspec.Struct | None) -> Mapping[str, object]:
    return MappingProxyType({} if arguments is None else msgspec.structs.asdict(arguments))
