"""A batch of calls on its way through the layers around enqueues."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator, Sequence
from types import GeneratorType, TracebackType
from typing import Self

from msgspec import UNSET

from taskharbor.call import Call, FlowCall, Sent, title
from taskharbor.call.options import check_meta
from taskharbor.errors import MiddlewareError, OptionError, StoreError, TaskHarborError
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
        self._within: list[tuple[Middleware, GeneratorType[None, None, None]]] = []
        """Those that were entered, and were not told yet what became of it. Each is taken off when it has ended, not
        before, so that an interrupt between two steps leaves none untold."""
        self._asked = False
        self._sent: list[Sent] | None = None
        """What became of each, once the store has answered."""

    def __enter__(self) -> Self:
        """Begin a block in which nothing can go wrong without the layers that were entered being told."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Come out of every layer, the innermost first, or raise at its `yield` what went wrong further in."""
        if error is None or self._sent is not None:
            self._come_out()
            return
        final = self._failed(error)
        if final is not error:
            raise final

    def go_in(self) -> None:
        """Go in as far as every layer's `yield`.

        Raises:
            MiddlewareError: a layer has no `yield`, or left metadata that is not text to text.
        """
        for layer, jobs in self._passes:
            steps = generator_of(layer.enqueue(jobs), layer, "enqueue")
            self._within.append((layer, steps))
            if not goes_in(steps):
                raise never_yielded(layer, "enqueue", "; to refuse a batch, raise an exception")
        self._check_meta()

    def asks(self) -> None:
        """Note that the store is asked from here on: what goes wrong leaves open whether it has the jobs."""
        self._asked = True

    def stored(self, sent: list[Sent]) -> None:
        """Note what became of each, and come out of every layer."""
        self._sent = sent
        self._come_out()

    def _check_meta(self) -> None:
        for one in self.outgoing:
            try:
                check_meta(one.meta)
            except OptionError as error:
                names = ", ".join(dict.fromkeys(type(layer).__qualname__ for layer, _ in self._within))
                raise MiddlewareError(
                    f"task {one.task!r}: what middleware ({names}) left as metadata of a job cannot be stored: {error}"
                ) from error

    def _come_out(self) -> None:
        """Come out of every layer, the innermost first: the jobs are stored, whatever else happens."""
        for one, answer in zip(self.outgoing, self._sent or (), strict=self._sent is not None):
            one.answered(answer.job_id, created=answer.created)
        ends: BaseException | None = None
        while self._within:
            layer, steps = self._within[-1]
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
            except BaseException as error:  # noqa: BLE001 - the program is to end, or this handler: once all are told
                ends = error
                if steps.gi_frame is not None:  # it came before the layer was told
                    continue
            self._within.pop()
        if ends is not None:
            raise ends

    def _failed(self, error: BaseException) -> BaseException:
        """Raise an error at each `yield`, the innermost first, and return the one that comes out in the end."""
        while self._within:
            layer, steps = self._within[-1]
            try:
                passed = thrown(steps, error)
            except BaseException as other:  # noqa: BLE001 - the layer's own, which takes its place
                error = other
                if steps.gi_frame is None:
                    self._within.pop()
                continue
            self._within.pop()
            if passed is None:
                close(steps)
                twice = yielded_twice(layer, "enqueue")
                twice.__cause__ = error
                error = twice
            elif not passed:
                why = (
                    "since nothing was stored"
                    if self._is_refusal(error)
                    else "and the jobs may be stored or not"
                )
                error.add_note(f"{told(layer, 'enqueue')} caught this; it went on, {why}")
        return error

    def _is_refusal(self, error: BaseException) -> bool:
        """Return whether nothing was stored; an interrupt, or a store that did not answer, leave that open."""
        return not self._asked or (isinstance(error, TaskHarborError) and not isinstance(error, StoreError))


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
