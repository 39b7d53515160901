"""One pass through a layer: into its generator as far as the `yield`, and out of it again.

Whoever surrounds something with layers does so by these steps, so that a layer which breaks the rules (no `yield`, two
of them) is told of in the same words everywhere, and never leaves a generator open.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import AsyncGenerator, Generator
from types import GeneratorType
from typing import cast

from taskharbor.errors import MiddlewareError


def generator_of(made: object, layer: object, method: str) -> GeneratorType[None, None, None]:
    """Return what a layer's method made, if it is a generator.

    Raises:
        MiddlewareError: it is not: the method has no `yield`.
    """
    if not inspect.isgenerator(made):
        if inspect.iscoroutine(made):
            made.close()
        raise MiddlewareError(
            f"{told(layer, method)} returned a {type(made).__qualname__}; it has to be a generator, with one `yield` "
            "where what it surrounds is to happen"
        )
    return cast("GeneratorType[None, None, None]", made)


def async_generator_of(made: object, layer: object) -> AsyncGenerator[None]:
    """Return what a layer's `arun` made, if it is an async generator.

    Raises:
        MiddlewareError: it is not.
    """
    if not inspect.isasyncgen(made):
        if inspect.iscoroutine(made):
            made.close()
        raise MiddlewareError(
            f"{told(layer, 'arun')} returned a {type(made).__qualname__}; it has to be an async generator, with one "
            "`yield` where what it surrounds is to happen"
        )
    return cast("AsyncGenerator[None]", made)


def goes_in(steps: Generator[None]) -> bool:
    """Go as far as the `yield`; return False if there was none."""
    for _ in steps:
        return True
    return False


def comes_out(steps: Generator[None]) -> bool:
    """Go from the `yield` to the end; return False if there was another `yield`."""
    return not goes_in(steps)


def thrown(steps: Generator[None], error: BaseException) -> bool | None:
    """Raise an error at the `yield`.

    Returns:
        True if it went through, False if it was caught, None if there was another `yield`.

    Raises:
        BaseException: what the layer raised in its place.
    """
    before = error.__traceback__
    try:
        steps.throw(error)
    except StopIteration:
        return False
    except BaseException as raised:
        if went_through(raised, error):
            # Without the layer's own frames: whoever reads it looks for the handler's.
            error.__traceback__ = before
            return True
        raise
    return None


async def athrown(steps: AsyncGenerator[None], error: BaseException) -> bool | None:
    """Raise an error at the `yield` of an async generator; see `thrown`."""
    before = error.__traceback__
    try:
        await steps.athrow(error)
    except StopAsyncIteration:
        return False
    except BaseException as raised:
        if went_through(raised, error):
            error.__traceback__ = before
            return True
        raise
    return None


def went_through(raised: BaseException, error: BaseException) -> bool:
    """Return whether what came out of a generator is what was raised at its `yield`."""
    if raised is error:
        return True
    # A generator cannot let these through (PEP 479).
    return (
        isinstance(error, (StopIteration, StopAsyncIteration))
        and isinstance(raised, RuntimeError)
        and raised.__cause__ is error
    )


def close(steps: Generator[None]) -> None:
    """Close a generator that did not come to its end."""
    with contextlib.suppress(Exception):  # it may yield even now
        steps.close()


async def aclose(steps: AsyncGenerator[None]) -> None:
    """Close an async generator that did not come to its end."""
    with contextlib.suppress(Exception):
        await steps.aclose()


def yielded_twice(layer: object, method: str) -> MiddlewareError:
    """Return what it means that a layer yielded a second time."""
    return MiddlewareError(
        f"{told(layer, method)} yielded twice; its one `yield` stands for what it surrounds, which happens once"
    )


def never_yielded(layer: object, method: str, instead: str = "") -> MiddlewareError:
    """Return what it means that a layer returned before its `yield`."""
    return MiddlewareError(
        f"{told(layer, method)} returned without its `yield`, so that what it surrounds would not happen{instead}"
    )


def told(layer: object, method: str) -> str:
    """Return what to call a layer's method in messages."""
    return f"`{type(layer).__qualname__}.{method}` of the middleware"
