"""The dependencies of a worker's handlers: built once before the first job, closed after the last."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from typing import TypeAlias, get_origin

from taskharbor.errors import LifespanError
from taskharbor.task import Registry, TaskDefinition

Lifespan: TypeAlias = (
    Callable[[], AbstractAsyncContextManager[object]] | Callable[[], AbstractContextManager[object]]
)
"""A function to a context manager, sync or async, that yields the dependencies: one made by `@asynccontextmanager`."""


@asynccontextmanager
async def opened(lifespan: Lifespan | None, registry: Registry) -> AsyncGenerator[object]:
    """Build the dependencies, check that they are what the tasks declare, and close them afterwards.

    Raises:
        LifespanError: they could not be built, a task declares `Context[Deps]` and there are none, or of another type.
    """
    if lifespan is None:
        _check(None, registry)
        yield None
        return
    try:
        manager = lifespan()
        if not isinstance(manager, (AbstractAsyncContextManager, AbstractContextManager)):
            raise LifespanError(
                f"Harbor(deps=...) returned a {type(manager).__qualname__}, which is no context manager; decorate the "
                "function with @contextlib.asynccontextmanager, or @contextlib.contextmanager"
            )
        deps = (
            await manager.__aenter__()
            if isinstance(manager, AbstractAsyncContextManager)
            else manager.__enter__()
        )
    except LifespanError:
        raise
    except Exception as error:
        raise LifespanError(
            f"the harbor's deps could not be built: {type(error).__name__}: {error}"
        ) from error
    try:
        _check(deps, registry)
        yield deps
    finally:
        if isinstance(manager, AbstractAsyncContextManager):
            await manager.__aexit__(None, None, None)
        else:
            manager.__exit__(None, None, None)


def _check(deps: object, registry: Registry) -> None:
    for definition in registry:
        wanted = definition.reading.deps_type
        if wanted is type(None):
            continue
        kind: object = get_origin(wanted) or wanted
        if deps is None:
            raise LifespanError(
                f"{_told(definition)}, and this harbor has no dependencies; pass Harbor(deps=...)"
            )
        # Protocols and the like cannot be asked; what is a plain class can.
        if isinstance(kind, type) and not getattr(kind, "_is_protocol", False) and not isinstance(deps, kind):
            raise LifespanError(
                f"{_told(definition)}, and this harbor's deps yield a {type(deps).__qualname__}"
            )


def _told(definition: TaskDefinition) -> str:
    wanted = definition.reading.deps_type
    name = wanted.__qualname__ if isinstance(wanted, type) else str(wanted)
    return f"task {definition.name!r} takes a Context[{name}]"
