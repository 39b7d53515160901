"""Failures on purpose: of attempts, by a layer of middleware, and of enqueues; and what has failed by itself."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from taskharbor.errors import JobFailed, StoreUnavailable
from taskharbor.job import JobRecord
from taskharbor.outcome import RetryLater, Snooze
from taskharbor.task import Attempt, Middleware, TaskDefinition


class _Planned(msgspec.Struct):
    """Attempts at a task that are to fail."""

    task: TaskDefinition
    error: Exception
    times: int
    after: bool


class Faults(Middleware):
    """Fails attempts as it was told to. The innermost of the harbor's layers, so that the others see it."""

    def __init__(self) -> None:
        self._planned: list[_Planned] = []
        self._lock = threading.Lock()

    def plan(self, task: TaskDefinition, error: Exception, times: int, *, after: bool) -> None:
        """Fail the next attempts at a task: instead of its handler, or once that has returned."""
        with self._lock:
            self._planned.append(_Planned(task, error, times, after))

    def run(self, attempt: Attempt) -> Iterator[None]:
        """Raise what is planned for the task."""
        planned = self._next(attempt.context.task)
        if planned is not None and not planned.after:
            raise planned.error.with_traceback(None)
        yield
        if planned is not None:
            raise planned.error.with_traceback(None)

    def _next(self, task: str) -> _Planned | None:
        with self._lock:
            for planned in self._planned:
                if planned.times and planned.task.answers_to(task):
                    planned.times -= 1
                    return planned
        return None


class Failures(Middleware):
    """Notes what attempts raise. The outermost layer: what another layer mends is no failure."""

    def __init__(self) -> None:
        self._errors: list[Exception] = []

    def run(self, attempt: Attempt) -> Iterator[None]:
        """Note what comes out of the attempt."""
        try:
            yield
        except (Snooze, RetryLater):  # no failures: asked for
            raise
        except Exception as error:
            self._errors.append(error)
            raise

    def take(self) -> list[Exception]:
        """Return what was noted, and forget it."""
        taken, self._errors = self._errors, []
        return taken


class Outage:
    """A store that cannot be reached, as an enqueue sees it."""

    def __init__(self) -> None:
        self._lost: list[bool] = []

    def plan(self, times: int, *, stored: bool) -> None:
        """Fail the next enqueues: before they are stored, or after."""
        self._lost += [stored] * times

    def next(self) -> bool | None:
        """Return whether the enqueue that begins now is stored and its answer lost; None if nothing happens to it.

        Raises:
            StoreUnavailable: it is to fail before anything is stored.
        """
        if not self._lost:
            return None
        if not self._lost.pop(0):
            raise StoreUnavailable("the store cannot be reached; this test asked for it (fail_next_enqueue)")
        return True

    @staticmethod
    def lose() -> None:
        """Raise what a caller sees whose connection broke before the answer came."""
        raise StoreUnavailable(
            "the connection broke before the store answered; this test asked for it (fail_next_enqueue), and the jobs "
            "are stored"
        )


def raise_first(errors: Sequence[Exception]) -> None:
    """Raise the first of what attempts have raised, with a note of the others; nothing if there is none."""
    if not errors:
        return
    first, *others = errors
    for other in others[:9]:
        first.add_note(f"and then {type(other).__name__}: {other}")
    if len(others) > 9:
        first.add_note(f"and {len(others) - 9} more")
    raise first


def raise_dead(jobs: Iterable[JobRecord]) -> None:
    """Raise for a job that ended without a handler: its payload could not be read, or its outcome not be stored."""
    for job in jobs:
        last = job.errors[-1] if job.errors else None
        told = "" if last is None else f": {last.type}: {last.message}"
        raise JobFailed(
            f"job {job.id} of task {job.task!r} is a dead letter ({job.reason}){told}",
            job_id=job.id,
            task=job.task,
            error_type="" if last is None else last.type,
            error_message="" if last is None else last.message,
            remote_traceback="" if last is None else last.traceback,
            attempts=job.attempt,
            reason=job.reason,
        )
