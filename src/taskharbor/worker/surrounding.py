"""Handlers within layers of middleware, composed once for each task.

A layer is inside the job's timeout and cancel, never around them: what has to end a layer that hangs cannot be one.
So an interrupt may come while a layer is at work, and a thread's lands between any two steps of the code below, too:
whatever is raised while a layer waits at its `yield` is raised there, so that none is left open. One that lands when
the outermost layer has ended came too late (rule 11): the attempt has a result then, which whoever called takes.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from traceback import walk_tb
from types import GeneratorType
from typing import Any, TypeAlias

from taskharbor.errors import JobInterrupt
from taskharbor.task.layer import Attempt, Middleware
from taskharbor.task.passing import (
    aclose,
    async_generator_of,
    athrown,
    close,
    comes_out,
    generator_of,
    goes_in,
    never_yielded,
    thrown,
    told,
    yielded_twice,
)

logger = logging.getLogger("taskharbor.middleware")

Call: TypeAlias = Callable[[], object]
"""Calls the handler."""
Surrounded: TypeAlias = Callable[[Attempt, Call], None]
"""Leaves the result in the attempt, or raises."""
ACall: TypeAlias = Callable[[], Awaitable[object]]
ASurrounded: TypeAlias = Callable[[Attempt, ACall], Coroutine[Any, Any, None]]


def surrounded(layers: Sequence[Middleware]) -> Surrounded:
    """Return how to call a sync handler within layers, the first outermost."""
    through: Surrounded = _innermost
    for layer in reversed(layers):
        if layer.surrounds_run:
            through = _within(layer, through)
    return through


def asurrounded(layers: Sequence[Middleware]) -> ASurrounded:
    """Return how to call an async handler within layers, the first outermost."""
    through: ASurrounded = _ainnermost
    for layer in reversed(layers):
        if layer.surrounds_arun:
            through = _awithin(layer, through)
        elif layer.surrounds_run:
            through = _within_async(layer, through)
    return through


def stepwise(layers: Sequence[Middleware]) -> ASurrounded:
    """Return how to call a handler within layers step by step, so that others can be gone into in between.

    What it makes awaits nothing but the call that it is given, since it leaves out each `arun`.
    """
    through: ASurrounded = _ainnermost
    for layer in reversed(layers):
        if layer.surrounds_run:
            through = _within_async(layer, through)
    return through


def _innermost(attempt: Attempt, call: Call) -> None:
    attempt.replace_result(call())


async def _ainnermost(attempt: Attempt, call: ACall) -> None:
    attempt.replace_result(await call())


def _within(layer: Middleware, inner: Surrounded) -> Surrounded:
    """Put `run` around a sync handler. There is a result once something further in has come to its end."""

    def through(attempt: Attempt, call: Call) -> None:
        steps = generator_of(layer.run(attempt), layer, "run")
        try:
            attempt.forget_result()
            if not goes_in(steps):
                _refuse_no_result(attempt, layer, "run")
                return
            inner(attempt, call)
            if comes_out(steps):
                return
        except BaseException as error:
            if _came_after(steps, error):
                raise  # there is a result still, which stands if no layer is further out
            # One of the layer's own passes through, too: it comes out of a generator that has ended as it went in.
            attempt.forget_result()
            passed = _thrown(steps, error, attempt)
            if passed is None:
                raise yielded_twice(layer, "run") from error
            if not passed and attempt.has_result:
                return
            if not passed:
                _note_swallowed(error, attempt, layer, "run")
            raise
        finally:
            # It yielded twice, or another exception came while one was on its way.
            if steps.gi_frame is not None:
                close(steps)
        raise yielded_twice(layer, "run")

    return through


def _within_async(layer: Middleware, inner: ASurrounded) -> ASurrounded:
    """Put `run` around an async handler."""

    async def through(attempt: Attempt, call: ACall) -> None:
        steps = generator_of(layer.run(attempt), layer, "run")
        try:
            attempt.forget_result()
            if not goes_in(steps):
                _refuse_no_result(attempt, layer, "run")
                return
            await inner(attempt, call)
            if comes_out(steps):
                return
        except BaseException as error:
            # One of the layer's own passes through, too: it comes out of a generator that has ended as it went in.
            attempt.forget_result()
            passed = thrown(steps, error)
            if passed is None:
                raise yielded_twice(layer, "run") from error
            if not passed and attempt.has_result:
                return
            if not passed:
                _note_swallowed(error, attempt, layer, "run")
            raise
        finally:
            # It yielded twice, or another exception came while one was on its way.
            if steps.gi_frame is not None:
                close(steps)
        raise yielded_twice(layer, "run")

    return through


def _awithin(layer: Middleware, inner: ASurrounded) -> ASurrounded:
    """Put `arun` around an async handler. On the loop an interrupt comes at an `await`, and nowhere else."""

    async def through(attempt: Attempt, call: ACall) -> None:
        steps = async_generator_of(layer.arun(attempt), layer)
        attempt.forget_result()
        if not await _agoes_in(steps):
            _refuse_no_result(attempt, layer, "arun")
            return
        try:
            await inner(attempt, call)
        except BaseException as error:
            attempt.forget_result()
            passed = await athrown(steps, error)
            if passed is None:
                await aclose(steps)
                raise yielded_twice(layer, "arun") from error
            if not passed and attempt.has_result:
                return
            if not passed:
                _note_swallowed(error, attempt, layer, "arun")
            raise
        if await _agoes_in(steps):
            await aclose(steps)
            raise yielded_twice(layer, "arun")

    return through


def _came_after(steps: GeneratorType[None, None, None], error: BaseException) -> bool:
    """Return whether an interrupt of the thread came when the layer had ended, and not out of it."""
    if steps.gi_frame is not None or not isinstance(error, JobInterrupt):
        return False
    frames = (frame for frame, _ in walk_tb(error.__traceback__))
    return all(frame.f_code is not steps.gi_code for frame in frames)


def _thrown(steps: GeneratorType[None, None, None], error: BaseException, attempt: Attempt) -> bool | None:
    """Raise an error at the `yield`; see `thrown`. What goes on leaves no result, whatever the layer gave before."""
    try:
        passed = thrown(steps, error)
    except BaseException as other:
        if not _came_after(steps, other):
            attempt.forget_result()
        raise
    if passed:
        attempt.forget_result()
    return passed


async def _agoes_in(steps: AsyncGenerator[None]) -> bool:
    async for _ in steps:
        return True
    return False


def _refuse_no_result(attempt: Attempt, layer: Middleware, method: str) -> None:
    """Refuse a layer that leaves the handler out and gives no result.

    Raises:
        MiddlewareError: it does.
    """
    if not attempt.has_result:
        raise never_yielded(
            layer, method, "; to skip the handler, give a result first: attempt.replace_result(...)"
        )


def _note_swallowed(error: BaseException, attempt: Attempt, layer: Middleware, method: str) -> None:
    """Tell of an exception that goes on although a layer caught it: there is no result to go on with instead."""
    what = told(layer, method)
    logger.warning(
        "%s caught %s of job %s (task %r) and gave no result in its place; it goes on. Raise it again, or call "
        "attempt.replace_result(...)",
        what,
        type(error).__qualname__,
        attempt.context.job_id,
        attempt.context.task,
    )
    error.add_note(f"{what} caught this and gave no result in its place, so it went on")
