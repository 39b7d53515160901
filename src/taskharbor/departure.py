"""A batch of calls on its way through the layers around enqueues."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Generator, Iterator, Sequence
from types import TracebackType
from typing import Self

from msgspec import UNSET

from taskharbor.call import Call, FlowCall, Sent, title
from taskharbor.call.options import check_meta
from taskharbor.errors import MiddlewareError, OptionError
from taskharbor.job import new_job_ids
from taskharbor.task import Middleware, Outgoing, TaskDefinition
from taskharbor.task.passing import (
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


class Departure:
    """A batch within its layers: entered before its jobs are made, left when they are stored, or were refused.

    The harbor's layers see all of it; a task's own, further in, see the jobs of that task. (The steps of a flow are no
    jobs yet, and are not shown one by one: a flow may be as large as it likes.)
    """

    def __init__(self, layers: Sequence[Middleware], calls: Sequence[Call | FlowCall]) -> None:
        """Take a batch; `layers` are the harbor's that surround enqueues, the first outermost."""
        self.outgoing = [
            _outgoing(call, job_id) for call, job_id in zip(calls, new_job_ids(len(calls)), strict=True)
        ]
        self._passes = [(layer, self.outgoing) for layer in layers]
        self._passes += _passes_of_tasks(calls, self.outgoing)
        self._within: list[tuple[Middleware, Generator[None]]] = []

    def __enter__(self) -> Self:
        """Go in as far as every layer's `yield`.

        Raises:
            MiddlewareError: a layer has no `yield`, or left metadata that is not text to text.
        """
        try:
            for layer, jobs in self._passes:
                steps = generator_of(layer.enqueue(jobs), layer, "enqueue")
                if not goes_in(steps):
                    raise never_yielded(layer, "enqueue", "; to refuse a batch, raise an exception")
                self._within.append((layer, steps))
            self._check_meta()
        except BaseException as error:
            final = self._failed(error)
            if final is error:
                raise
            raise final from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Come out of every layer, the innermost first, or raise at its `yield` what went wrong further in."""
        if error is None:
            self._stored()
            return
        final = self._failed(error)
        if final is not error:
            raise final

    def told(self, sent: list[Sent]) -> list[Sent]:
        """Note what became of each, and return that."""
        for one, answer in zip(self.outgoing, sent, strict=True):
            one.answered(answer.job_id, created=answer.created)
        return sent

    def _check_meta(self) -> None:
        for one in self.outgoing:
            try:
                check_meta(one.meta)
            except OptionError as error:
                names = ", ".join(dict.fromkeys(type(layer).__qualname__ for layer, _ in self._within))
                raise MiddlewareError(
                    f"task {one.task!r}: what middleware ({names}) left as metadata of a job cannot be stored: {error}"
                ) from error

    def _stored(self) -> None:
        while self._within:
            layer, steps = self._within.pop()
            try:
                if not comes_out(steps):
                    close(steps)
                    raise yielded_twice(layer, "enqueue")
            except Exception as error:  # noqa: BLE001 - the jobs are stored, and whoever was told otherwise would ask again
                # Without its text, which may quote a payload.
                logger.error(
                    "%s raised %s when its %d jobs were stored; they are, so it goes no further\n%s",
                    told(layer, "enqueue"),
                    type(error).__qualname__,
                    len(self.outgoing),
                    "".join(traceback.format_tb(error.__traceback__)),
                )
            except BaseException as error:  # the program is to end, or this handler
                final = self._failed(error)
                if final is error:
                    raise
                raise final from error

    def _failed(self, error: BaseException) -> BaseException:
        """Raise an error at each `yield`, the innermost first, and return the one that comes out in the end."""
        while self._within:
            layer, steps = self._within.pop()
            try:
                passed = thrown(steps, error)
            except BaseException as other:  # noqa: BLE001 - the layer's own, which takes its place
                error = other
                continue
            if passed is None:
                close(steps)
                twice = yielded_twice(layer, "enqueue")
                twice.__cause__ = error
                error = twice
            elif not passed:
                error.add_note(f"{told(layer, 'enqueue')} caught this; it went on, since nothing was stored")
        return error


def _outgoing(call: Call | FlowCall, job_id: str) -> Outgoing:
    if isinstance(call, FlowCall):
        return Outgoing(
            task=title(call.node), queue="", job_id=job_id, meta=dict(call.options.meta), arguments=None
        )
    options = call.options
    return Outgoing(
        task=call.callee.name,
        queue=_definition(call).options.queue if options.queue is UNSET else options.queue,
        job_id=job_id,
        meta={} if options.meta is UNSET else dict(options.meta),
        arguments=call.arguments,
    )


def _passes_of_tasks(
    calls: Sequence[Call | FlowCall], outgoing: Sequence[Outgoing]
) -> Iterator[tuple[Middleware, list[Outgoing]]]:
    of_task: dict[TaskDefinition, list[Outgoing]] = {}
    for call, one in zip(calls, outgoing, strict=True):
        if isinstance(call, Call) and call.callee.surrounds_enqueue:
            of_task.setdefault(_definition(call), []).append(one)
    for definition, jobs in of_task.items():
        for layer in definition.middleware:
            if layer.surrounds_enqueue:
                yield layer, jobs


def _definition(call: Call) -> TaskDefinition:
    if not isinstance(call.callee, TaskDefinition):
        raise TypeError(call.callee)
    return call.callee
