"""Handlers that take many jobs at a time: how many, and what such a handler may ask of them.

Each job carries one payload, and is enqueued, retried and looked up like any other. Only the call of the handler is
shared: it gets the payloads of several jobs as one list.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Generic

import msgspec
from typing_extensions import TypeVar

from taskharbor.errors import JobCancelled, OptionError
from taskharbor.task.context import Context

Deps = TypeVar("Deps", default=None)
D = TypeVar("D")

MOST_IN_BATCH = 1000
"""Jobs that one call takes at most."""
LONGEST_WAIT = timedelta(hours=1)
_DEFAULT_WAIT = timedelta(milliseconds=50)


class Batch(msgspec.Struct, frozen=True):
    """How many jobs one call of a handler takes, and for how long it waits for them: `@task(batch=Batch(100))`.

    The handler is called once `size` jobs are there, or once `wait` has passed since the first of them was, with those
    that are there by then; and at once by a worker that works until nothing is due. From the first job on a batch has
    one of the worker's slots, so a long wait keeps a slot from others.
    """

    size: int = 100
    """Jobs at most: 1 to 1000."""
    wait: timedelta = _DEFAULT_WAIT
    """From the first job on: 0 (those that came together) to an hour."""

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            OptionError: a size or a wait out of bounds.
        """
        if (
            isinstance(self.size, bool)
            or not isinstance(self.size, int)
            or not 1 <= self.size <= MOST_IN_BATCH
        ):
            raise OptionError(f"Batch(size={self.size!r}): expected a whole number from 1 to {MOST_IN_BATCH}")
        if not isinstance(self.wait, timedelta) or not timedelta(0) <= self.wait <= LONGEST_WAIT:
            raise OptionError(f"Batch(wait={self.wait!r}): expected a timedelta from 0 to an hour")


class BatchContext(Generic[Deps]):
    """The running jobs of one batch, as their handler sees them. Injected; never passed by a caller.

    `Deps` is the type of the harbor's dependencies; plain `BatchContext` means none are used.
    """

    __slots__ = ("deps", "jobs", "worker")

    deps: Deps
    """What the harbor's `deps` lifespan yielded; one object for all jobs of a worker."""
    worker: str
    """The name of the worker that runs them."""
    jobs: Sequence[Context[Deps]]
    """The context of each job, as many and in the order of the payloads: for its progress, its log, its metadata,
    whether it is cancelled, and what is to be enqueued with its success."""

    def __init__(self, deps: Deps, jobs: Sequence[Context[Deps]], worker: str) -> None:
        """Made by the worker; for calling `task.fn` by hand, see `BatchContext.detached`."""
        self.deps = deps
        self.jobs = jobs
        self.worker = worker

    @staticmethod
    def detached(deps: D, size: int, *, task: str = "detached", attempt: int = 1) -> BatchContext[D]:
        """Return a context of `size` jobs that do not exist, for calling `task.fn(ctx, payloads)` in a unit test."""
        make: Callable[[], Context[D]] = lambda: Context.detached(deps, task=task, attempt=attempt)  # noqa: E731
        return BatchContext(deps, tuple(make() for _ in range(size)), "detached")

    def __repr__(self) -> str:
        return f"<BatchContext of {len(self.jobs)} jobs ({self.task})>"

    @property
    def task(self) -> str:
        """Return the task name that they were enqueued under; may be an alias."""
        return self.jobs[0].task if self.jobs else ""

    @property
    def cancelled(self) -> bool:
        """Return whether the whole batch should stop: every one of its jobs should.

        One that is cancelled alone does not end its neighbours: see `jobs`.
        """
        return all(job.cancelled for job in self.jobs)

    def raise_if_cancelled(self) -> None:
        """Raise if the whole batch should stop: for sync handlers, at places where stopping is safe.

        Raises:
            JobCancelled: it should. Left uncaught it ends each job's attempt as what its stop was.
        """
        if self.jobs and self.cancelled:
            raise JobCancelled(
                f"all {len(self.jobs)} jobs of this batch of task {self.task!r} should stop",
                job_id=self.jobs[0].job_id,
            )
