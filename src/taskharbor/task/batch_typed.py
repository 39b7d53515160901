"""The typed face of a batch task: a job carries one `T` and comes to an `R`; the function takes many of them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, cast, overload

from typing_extensions import TypeVar, override

from taskharbor.call import running_job
from taskharbor.errors import UsageError
from taskharbor.task.batch import BatchContext
from taskharbor.task.typed import Task

T = TypeVar("T")
R = TypeVar("R")
D = TypeVar("D")


class BatchTask(Task[[T], R]):
    """A task whose handler takes many jobs at a time. Enqueued with one payload, as any task with one parameter."""

    @override
    def _invoke(self, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        if not self._definition.reading.takes_context:
            return self._definition.fn(*args, **kwargs)
        job = running_job.get()
        context = None if job is None else job.context
        if not isinstance(context, BatchContext):
            raise UsageError(
                f"task {self.name!r} takes a BatchContext, which only a running batch has; outside of one call "
                f"{self.__name__}.fn(BatchContext.detached(deps, size), ...)"
            )
        return self._definition.fn(context, *args, **kwargs)


class SyncBatchTask(BatchTask[T, R]):
    """A batch task over a plain function, run in a thread."""

    @property
    def fn(self) -> Callable[..., Sequence[R | Exception] | None]:
        """Return the bare function, context and all."""
        return cast("Callable[..., Sequence[R | Exception] | None]", self._definition.fn)

    def __call__(self, batch: list[T], /) -> Sequence[R | Exception] | None:
        """Call the function here and now; inside a batch handler, the running batch's context is passed on."""
        return cast("Sequence[R | Exception] | None", self._invoke((batch,), {}))


class AsyncBatchTask(BatchTask[T, R]):
    """A batch task over a coroutine function, run on the worker's event loop."""

    @property
    def fn(self) -> Callable[..., Coroutine[Any, Any, Sequence[R | Exception] | None]]:
        """Return the bare function, context and all."""
        return cast("Callable[..., Coroutine[Any, Any, Sequence[R | Exception] | None]]", self._definition.fn)

    def __call__(self, batch: list[T], /) -> Coroutine[Any, Any, Sequence[R | Exception] | None]:
        """Call the function here and now; inside a batch handler, the running batch's context is passed on."""
        return cast("Coroutine[Any, Any, Sequence[R | Exception] | None]", self._invoke((batch,), {}))


class BatchDecorator(Protocol):
    """What `@task(batch=...)` returns: with and without a context, `async def` and `def`, None and a list."""

    # That None is no list, and a coroutine neither, is left to the order, as in `Decorator`.
    @overload
    def __call__(
        self, fn: Callable[[BatchContext[D], list[T]], Coroutine[Any, Any, None]], /
    ) -> AsyncBatchTask[T, None]: ...
    @overload
    def __call__(
        self, fn: Callable[[BatchContext[D], list[T]], Coroutine[Any, Any, Sequence[R | Exception]]], /
    ) -> AsyncBatchTask[T, R]: ...
    @overload
    def __call__(self, fn: Callable[[BatchContext[D], list[T]], None], /) -> SyncBatchTask[T, None]: ...
    @overload
    def __call__(
        self, fn: Callable[[BatchContext[D], list[T]], Sequence[R | Exception]], /
    ) -> SyncBatchTask[T, R]: ...
    @overload
    def __call__(self, fn: Callable[[list[T]], Coroutine[Any, Any, None]], /) -> AsyncBatchTask[T, None]: ...
    @overload
    def __call__(
        self, fn: Callable[[list[T]], Coroutine[Any, Any, Sequence[R | Exception]]], /
    ) -> AsyncBatchTask[T, R]: ...
    @overload
    def __call__(self, fn: Callable[[list[T]], None], /) -> SyncBatchTask[T, None]: ...
    @overload
    def __call__(self, fn: Callable[[list[T]], Sequence[R | Exception]], /) -> SyncBatchTask[T, R]: ...
