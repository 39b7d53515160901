"""`harbor.results(task)`: the results of a task's jobs as they come in, of the type that the task declares."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, cast

import msgspec
from typing_extensions import TypeVar

from taskharbor.codec import CodecBook
from taskharbor.errors import OptionError, PayloadError, ResultNotKept
from taskharbor.task import Task, TaskDefinition
from taskharbor.telemetry.buffer import Overflow
from taskharbor.telemetry.events import SIZE, made_buffer
from taskharbor.telemetry.hub import Hub
from taskharbor.telemetry.news import News, StoredResult
from taskharbor.telemetry.subscription import Subscription

R = TypeVar("R")


class Finished(msgspec.Struct, Generic[R], frozen=True, kw_only=True):
    """A job that has succeeded, and what it returned."""

    job_id: str
    result: R


def _definition(task: object) -> TaskDefinition:
    if not isinstance(task, Task):
        raise OptionError(f"harbor.results({task!r}): expected a task, the function under its decorator")
    return cast("Task[..., object]", task).definition


class Results:
    """Calling it subscribes to results. Made by the harbor, as `harbor.results`."""

    def __init__(self, hub: Hub, codecs: CodecBook) -> None:
        """Made by the harbor; `codecs` reads what is written in other formats than the tasks' own."""
        self._hub = hub
        self._codecs = codecs

    def __call__(
        self,
        task: Task[..., R],
        *,
        queues: Iterable[str] = (),
        size: int = SIZE,
        when_full: Overflow = "drop_oldest",
    ) -> Subscription[Finished[R]]:
        """Listen to the results of a task's jobs that succeed in workers of this harbor, in this process, from now on.

        Each is decoded anew from what was stored, when it is taken: it is nobody else's object. One that does not fit
        the declared type raises `PayloadError` there, and the next can be taken after it.

        Args:
            task: the task itself; its jobs under other names (aliases) count too.
            queues: only of jobs in these; empty for all.
            size: how many are kept until they are taken.
            when_full: as in `harbor.events`.

        Raises:
            ResultNotKept: the task is declared with `keep_result=False`.
            OptionError: something else than a task, no list of names, or no such policy.
        """
        definition = _definition(task)
        if not definition.keep_result:
            raise ResultNotKept(
                f"task {definition.name!r} is declared with keep_result=False, so its jobs have no results; "
                "harbor.events(kinds=JobSucceeded) tells when one has succeeded"
            )
        names = (definition.name, *definition.aliases)
        buffer = made_buffer(frozenset({StoredResult}), names, queues, size, when_full)

        def read(news: News) -> Finished[R]:
            # The definition decodes as the declared return type, which is what R stands for.
            stored = cast("StoredResult", news)
            return Finished(job_id=stored.job_id, result=cast("R", self._decoded(stored, definition)))

        return Subscription(self._hub, buffer, read, f"results of {definition.name}")

    def _decoded(self, stored: StoredResult, definition: TaskDefinition) -> object:
        own = definition.codec
        codec = own if own is not None and own.name == stored.codec else self._codecs.find(stored.codec)
        if codec is None:
            raise PayloadError(
                f"the result of job {stored.job_id} of task {stored.task!r} was written with the codec "
                f"{stored.codec!r}, which this harbor does not know; pass it as Harbor(codecs=[...])",
                task=stored.task,
            )
        return definition.read_result(stored.data, codec)
