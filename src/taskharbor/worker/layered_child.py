"""Layers of middleware around a handler in a child process: they run here, in the thread that waits for the child.

What stops such a job kills the child. It interrupts no layer: one that hangs holds its slot as long as it does.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from taskharbor.errors import JobInterrupt, TaskHarborError
from taskharbor.job import AttemptError
from taskharbor.outcome import Outcome, Reject, RetryLater, Snooze
from taskharbor.task.wire import WIRE
from taskharbor.worker.child import Answer, Raised, Returned
from taskharbor.worker.layered import LayeredPlan
from taskharbor.worker.run import Run


class ChildFailed(TaskHarborError):
    """What layers see of an exception in a child process, whose class may be known there alone.

    Attributes:
        error: its type, text and traceback.
    """

    def __init__(self, error: AttemptError) -> None:
        super().__init__(f"{error.type}: {error.message}")
        self.error = error


def ask_within_layers(
    plan: LayeredPlan,
    run: Run,
    ask: Callable[[], Answer | None],
    lost: Callable[[], Exception],
    read: Callable[[Raised], Outcome],
) -> Outcome:
    """Return the outcome of a handler in a child, within the layers of its task.

    Args:
        plan: the task's.
        run: the job.
        ask: asks the child; None if it has ended without an answer.
        lost: what to say of that.
        read: what an exception in the child means, if no layer has made something else of it.

    Raises:
        BaseException: what came out of the layers.
    """
    failed: list[tuple[Exception, Raised]] = []

    def call() -> object:
        answer = ask() if run.stop is None else None
        if answer is None:
            raise lost() if run.stop is None else JobInterrupt(run.stop_reason or "")
        if isinstance(answer, Returned):
            return plan.definition.coder(WIRE).decode_result(answer.value)
        error = _raised_again(answer)
        failed.append((error, answer))
        raise error

    try:
        value = plan.around(run, call)
    except Exception as error:
        if failed and failed[0][0] is error:
            return read(failed[0][1])
        raise
    return run.succeeded(value)


def _raised_again(answer: Raised) -> Exception:
    if answer.snooze_seconds is not None:
        return Snooze(timedelta(seconds=answer.snooze_seconds))
    if answer.reject is not None:
        return Reject(answer.reject)
    if answer.after_seconds is not None:
        return RetryLater(timedelta(seconds=answer.after_seconds))
    return ChildFailed(answer.error)
