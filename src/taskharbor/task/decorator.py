"""`@task`: from a typed function to a registered task."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from datetime import timedelta
from typing import Any, Concatenate, ParamSpec, Protocol, overload

from typing_extensions import TypeVar

from taskharbor.call.options import check_name
from taskharbor.codec import Codec, checked_codec
from taskharbor.errors import OptionError, TaskDefinitionError
from taskharbor.job import DEFAULT_KEY_TTL, DEFAULT_PRIORITY, DEFAULT_QUEUE, DEFAULT_RETAIN
from taskharbor.retry import Retry
from taskharbor.schedule import Schedule
from taskharbor.task.batch import Batch
from taskharbor.task.batch_reading import read_batch
from taskharbor.task.batch_typed import AsyncBatchTask, BatchDecorator, SyncBatchTask
from taskharbor.task.checks import check_kinds, check_options, check_process
from taskharbor.task.context import Context
from taskharbor.task.definition import TaskDefinition
from taskharbor.task.layer import Middleware, checked_layers, refuse_async_only
from taskharbor.task.limits import MaxRunning, Rate, checked_limits
from taskharbor.task.naming import default_name
from taskharbor.task.options import RunIn, TaskOptions
from taskharbor.task.reading import Handler, caller_names, read
from taskharbor.task.recurring import checked_schedules, refuse_required
from taskharbor.task.registry import Registry, default_registry
from taskharbor.task.typed import AsyncTask, SyncTask, Task
from taskharbor.task.unique import Debounce, Key, Throttle, Unique, check_declared
from taskharbor.task.upgrading import Upgrade, checked_upgrade

P = ParamSpec("P")
R = TypeVar("R")
D = TypeVar("D")

_DEFAULT_RETRY = Retry()


class Decorator(Protocol):
    """What `@task(...)` returns: the same four forms as `@task`."""

    # A context is told from other first parameters by order: checkers take the first overload that fits, and what
    # they report as overlapping is decided by it. (They are right for first parameters typed `object`, which `read`
    # therefore refuses.)
    @overload
    def __call__(  # type: ignore[overload-overlap]  # pyright: ignore[reportOverlappingOverload]
        self, fn: Callable[Concatenate[Context[D], P], Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[Context[D], P], R], /) -> SyncTask[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, fn: Callable[P, R], /) -> SyncTask[P, R]: ...


@overload
def task(  # type: ignore[overload-overlap]  # pyright: ignore[reportOverlappingOverload]
    fn: Callable[Concatenate[Context[D], P], Coroutine[Any, Any, R]], /
) -> AsyncTask[P, R]: ...
@overload
def task(fn: Callable[Concatenate[Context[D], P], R], /) -> SyncTask[P, R]: ...
@overload
def task(fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...  # type: ignore[overload-overlap]
@overload
def task(fn: Callable[P, R], /) -> SyncTask[P, R]: ...
@overload
def task(
    *,
    batch: Batch,
    name: str | None = None,
    aliases: Iterable[str] = (),
    queue: str = DEFAULT_QUEUE,
    priority: int = DEFAULT_PRIORITY,
    retry: Retry = ...,
    timeout: timedelta | None = None,
    codec: Codec | None = None,
    middleware: Iterable[Middleware] = (),
    upgrade: Upgrade | None = None,
    keep_result: bool = True,
    retain: timedelta = DEFAULT_RETAIN,
    key_ttl: timedelta = DEFAULT_KEY_TTL,
    unique: Unique | Debounce | Throttle | None = None,
    rate: Rate | Iterable[Rate] | None = None,
    max_running: int | MaxRunning | Iterable[MaxRunning] | None = None,
    fair: Key | None = None,
    registry: Registry | None = None,
) -> BatchDecorator: ...
@overload
def task(
    *,
    name: str | None = None,
    aliases: Iterable[str] = (),
    queue: str = DEFAULT_QUEUE,
    priority: int = DEFAULT_PRIORITY,
    retry: Retry = ...,
    timeout: timedelta | None = None,
    run: RunIn | None = None,
    codec: Codec | None = None,
    middleware: Iterable[Middleware] = (),
    upgrade: Upgrade | None = None,
    keep_result: bool = True,
    retain: timedelta = DEFAULT_RETAIN,
    key_ttl: timedelta = DEFAULT_KEY_TTL,
    unique: Unique | Debounce | Throttle | None = None,
    rate: Rate | Iterable[Rate] | None = None,
    max_running: int | MaxRunning | Iterable[MaxRunning] | None = None,
    fair: Key | None = None,
    schedule: Schedule | Iterable[Schedule] | None = None,
    registry: Registry | None = None,
) -> Decorator: ...
def task(
    fn: Handler | None = None,
    /,
    *,
    name: str | None = None,
    aliases: Iterable[str] = (),
    queue: str = DEFAULT_QUEUE,
    priority: int = DEFAULT_PRIORITY,
    retry: Retry = _DEFAULT_RETRY,
    timeout: timedelta | None = None,
    run: RunIn | None = None,
    codec: Codec | None = None,
    middleware: Iterable[Middleware] = (),
    upgrade: Upgrade | None = None,
    keep_result: bool = True,
    retain: timedelta = DEFAULT_RETAIN,
    key_ttl: timedelta = DEFAULT_KEY_TTL,
    unique: Unique | Debounce | Throttle | None = None,
    rate: Rate | Iterable[Rate] | None = None,
    max_running: int | MaxRunning | Iterable[MaxRunning] | None = None,
    fair: Key | None = None,
    schedule: Schedule | Iterable[Schedule] | None = None,
    batch: Batch | None = None,
    registry: Registry | None = None,
) -> Any:
    """Declare a function as a task. Its signature becomes static types, wire format, run-time check and JSON Schema.

    Works on `def` and `async def`, with or without a leading `Context`, with or without arguments.

    Args:
        fn: the function, where `@task` is written without parentheses.
        name: the name its jobs are stored under; by default `module.qualname`. Set it where modules may move.
        aliases: former names, so that jobs stored under them still run.
        queue: where its jobs wait.
        priority: 0 (first) to 9 (last).
        retry: when a failed attempt is tried again; by default 5 attempts in all, from about a second up to an hour.
        timeout: how long one attempt may run.
        run: `"process"` runs a sync handler in a process of its own, for work that holds the interpreter's lock.
        codec: its own wire format, instead of the harbor's.
        middleware: layers around it alone, within the harbor's; the first is the outermost.
        upgrade: makes today's arguments of those stored under another signature that do not fit today's; both are plain
            data, by name.
        keep_result: False stores no result, and `JobHandle.result` refuses.
        retain: how long a job can be looked up after it succeeded or was cancelled.
        key_ttl: how long an idempotency key stays taken after its job has finished.
        unique: calls that count as the same while one of them waits or runs: `Unique(...)`, `Debounce(...)` or
            `Throttle(...)`.
        rate: how many of its jobs start in a time, on all workers together: `Rate(...)`, for the whole task or for
            each key; or a list of both.
        max_running: how many of its jobs run at once, on all workers together: a number, or `MaxRunning(...)` for each
            key; or a list of both.
        fair: what tells the lines apart that take turns, job by job: a parameter's name, several, or a function of the
            arguments. It is the key of the limits, if they have one.
        schedule: when workers of an application call it by themselves, without arguments: `cron(...)` or `every(...)`
            of `taskharbor.scheduling`, or a list of them.
        batch: the handler takes the payloads of several jobs at a time, as one list: `def index(documents:
            list[Document]) -> list[int | Exception]`, enqueued as `index.enqueue(document)`. See `Batch`.
        registry: where it is registered, by default `default_registry`.

    Raises:
        TaskDefinitionError: the signature cannot be a task's, or another task has the name.
        OptionError: an option with a value that cannot be.
        MiddlewareError: a middleware that cannot be put around it.
    """
    check_options(
        queue=queue, priority=priority, retry=retry, timeout=timeout, run=run, retain=retain, key_ttl=key_ttl
    )
    check_kinds(keep_result=keep_result, registry=registry, batch=batch)
    options = TaskOptions(
        queue=queue,
        priority=priority,
        retry=retry,
        timeout=timeout,
        key_ttl=key_ttl,
        run=run,
        keep_result=keep_result,
        retain=retain,
        batch=batch,
    )
    if isinstance(aliases, str):
        raise OptionError(f"aliases={aliases!r}: expected a list of names, [{aliases!r}]")
    if codec is not None:
        checked_codec(codec)
    layers = checked_layers(middleware, "@task")
    schedules = checked_schedules(schedule)
    check_declared(unique)
    limits = checked_limits(rate, max_running, fair)
    if upgrade is not None:
        checked_upgrade(upgrade)
    if isinstance(fn, str):
        raise TaskDefinitionError(f"@task({fn!r}): the name goes by keyword, @task(name={fn!r})")
    others = tuple(aliases)
    for given in (name, *others):
        if given is not None:
            check_name(given, "name")

    def decorate(fn: Handler, depth: int = 1) -> Task[..., object]:
        told = name if name is not None else default_name(fn)
        check_name(told, "name")
        names = caller_names(depth)
        reading = read(fn, told, names) if batch is None else read_batch(fn, told, names)
        if run == "process" and batch is not None:
            raise TaskDefinitionError(
                f"task {told!r}: run='process' hands one job to a process, and batch= several to one call; take one "
                "of the two (a batch handler may start processes itself)"
            )
        if run == "process":
            check_process(fn, told, is_async=reading.is_async, deps_type=reading.deps_type)
        if not reading.is_async:
            refuse_async_only(told, layers)
        if schedules:
            refuse_required(told, reading.parameters)
        definition = TaskDefinition(
            fn,
            reading,
            name=told,
            aliases=others,
            options=options,
            codec=codec,
            middleware=layers,
            upgrade=upgrade,
            schedules=schedules,
            unique=unique,
            limits=limits,
        )
        (registry if registry is not None else default_registry).add(definition)
        if batch is not None:
            batched: AsyncBatchTask[object, object] | SyncBatchTask[object, object] = (
                AsyncBatchTask(definition) if reading.is_async else SyncBatchTask(definition)
            )
            return batched
        return AsyncTask(definition) if reading.is_async else SyncTask(definition)

    return decorate if fn is None else decorate(fn, depth=2)
