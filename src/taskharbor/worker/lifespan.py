"""The dependencies of a worker's handlers: built once before the first job, closed after the last."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
)
from typing import TypeAlias, get_origin

from taskharbor.errors import LifespanError
from taskharbor.task import Registry, TaskDefinition

logger = logging.getLogger("taskharbor.worker")

Lifespan: TypeAlias = (
    Callable[[], AbstractAsyncContextManager[object]] | Callable[[], AbstractContextManager[object]]
)
"""A function to a context manager, sync or async, that yields the dependencies: one made by `@asynccontextmanager`."""


@asynccontextmanager
async def opened(lifespan: Lifespan | None, registry: Registry) -> AsyncGenerator[object]:
    """Build the dependencies, check that they are what the tasks declare, and close them afterwards.

    Raises:
        LifespanError: they could not be built, a task declares `Context[Deps]` and there are none, or of another type;
            or, at the end, they could not be closed. What the application raised is its cause.
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
    closing = AsyncExitStack()
    closing.push_async_callback(_close, manager)
    try:
        _check(deps, registry)
    except LifespanError:
        await closed_unstarted(closing)
        raise
    try:
        yield deps
    finally:
        await closing.aclose()


async def closed_in_time(opened: AsyncExitStack, worker: str, seconds: float) -> None:
    """Close what a worker has opened, its dependencies among them, and leave it if that takes too long.

    Raises:
        LifespanError: the dependencies could not be closed.
    """
    try:
        async with asyncio.timeout(seconds):
            await opened.aclose()
    except TimeoutError:
        logger.error("the dependencies of worker %s were not closed within %g s", worker, seconds)


async def closed_unstarted(opened: AsyncExitStack) -> None:
    """Close what a worker has opened that could not start; why it could not is what its caller has to hear."""
    try:
        await opened.aclose()
    except LifespanError as error:
        logger.error("%s", error, exc_info=error.__cause__)


async def _close(
    manager: AbstractAsyncContextManager[object] | AbstractContextManager[object],
) -> None:
    try:
        if isinstance(manager, AbstractAsyncContextManager):
            await manager.__aexit__(None, None, None)
        else:
            manager.__exit__(None, None, None)
    except Exception as error:
        raise LifespanError(
            f"the harbor's deps could not be closed: {type(error).__name__}: {error}; mend what "
            "Harbor(deps=...) does at its end"
        ) from error


def _check(deps: object, registry: Registry) -> None:
    for definition in registry:
        wanted = definition.reading.deps_type
        if wanted is type(None):
            continue
        kind: object = get_origin(wanted) or wanted
        if deps is None:
            raise LifespanError(
                f"{_told(definition)}, and this harbor has no dependencies; pass Harbor(deps=...), in a test "
                "InlineHarbor(deps=...) or InlineHarbor.like(app.harbor, deps=...)"
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
