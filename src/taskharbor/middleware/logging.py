"""Logging with the job's context: each attempt's start and end, and which job any other record comes from."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import cast

from taskharbor.call import running_job
from taskharbor.errors import JobCancelled, JobInterrupt
from taskharbor.middleware.fields import NAMES, job_fields
from taskharbor.outcome import Reject, RetryLater, Snooze
from taskharbor.task import Attempt, BatchContext, Context, Middleware


class JobLogging(Middleware):
    """Logs the start and the end of each attempt, with structured fields. Neither arguments, nor results, nor the texts
    of exceptions: those may quote a payload, and stand in the job's record.

    Every record has `job_id`, `task`, `queue`, `attempt`, `max_attempts`, `flow_id` (or None) and `worker`; that of the
    end has `duration_seconds` (a float), `outcome` and `error_type` (or None) as well. The outcome is what the attempt
    came to at this layer: `succeeded`, `failed`, `snoozed`, `rejected`, `retry_later`, or `stopped` (cancelled, out of
    time, or its worker shuts down). Put it first, outermost, for what the layers further in made of it.

    A record costs microseconds, the formatting of the handlers that write it many more.
    """

    def __init__(
        self, logger: logging.Logger | str = "taskharbor.jobs", *, level: int = logging.INFO
    ) -> None:
        """Log to a logger, or to that of a name.

        Args:
            logger: where to.
            level: of starts, and of ends that are no failures; a failure is a warning, where that is more.
        """
        self._logger = logging.getLogger(logger) if isinstance(logger, str) else logger
        self._level = level

    def run(self, attempt: Attempt) -> Iterator[None]:
        """Log the start and the end."""
        fields = {**job_fields(attempt.context), "worker": attempt.worker}
        self._logger.log(
            self._level, "job %s (%s) starts", fields["job_id"], fields["task"], extra=fields, stacklevel=2
        )
        begin = time.perf_counter()
        try:
            yield
        except BaseException as error:
            self._end(fields, _outcome(error), begin, type(error).__qualname__)
            raise
        self._end(fields, "succeeded", begin, None)

    def _end(self, fields: dict[str, object], outcome: str, begin: float, error_type: str | None) -> None:
        took = time.perf_counter() - begin
        level = max(self._level, logging.WARNING) if outcome in ("failed", "rejected") else self._level
        more = {"outcome": outcome, "duration_seconds": took, "error_type": error_type}
        self._logger.log(
            level,
            "job %s (%s) %s after %.3f s",
            fields["job_id"],
            fields["task"],
            outcome if error_type is None or outcome != "failed" else f"failed ({error_type})",
            took,
            extra={**fields, **more},
            stacklevel=3,
        )


class JobFields(logging.Filter):
    """Puts the running job's fields on every record logged inside its handler: in its thread, its task, the tasks that
    it starts, and what it sends to a thread with `asyncio.to_thread`.

        handler = logging.StreamHandler()
        handler.addFilter(JobFields(outside="-"))
        handler.setFormatter(logging.Formatter("%(job_id)s %(task)s %(message)s"))

    Add it to a handler: filters of a logger see only what is logged to that very logger. It needs no middleware, and
    lets every record pass. The fields are `job_id`, `task`, `queue`, `attempt`, `max_attempts` and `flow_id`; one that
    a record has already is left alone. In a batch handler only `task` is known. It knows nothing of the child processes
    of `run="process"`.
    """

    def __init__(self, *, outside: str | None = None) -> None:
        """Have the fields of records that come from no job be `outside`."""
        super().__init__()
        self._outside: dict[str, object] = dict.fromkeys(NAMES, outside)

    def filter(self, record: logging.LogRecord) -> bool:
        """Put the fields on a record, and let it pass."""
        running = running_job.get()
        context = None if running is None else running.context
        fields = self._outside
        if isinstance(context, Context):
            fields = job_fields(cast("Context[object]", context))
        elif isinstance(context, BatchContext):  # which has many jobs of one task
            fields = {**fields, "task": cast("BatchContext[object]", context).task}
        for name, value in fields.items():
            record.__dict__.setdefault(name, value)
        return True


def _outcome(error: BaseException) -> str:
    # By name alone, for asyncio may not have been imported.
    if isinstance(error, (JobInterrupt, JobCancelled)) or type(error).__name__ == "CancelledError":
        return "stopped"
    if isinstance(error, Snooze):
        return "snoozed"
    if isinstance(error, Reject):
        return "rejected"
    return "retry_later" if isinstance(error, RetryLater) else "failed"
