"""Which job it is, as structured fields for log records. Never its arguments, nor what it returned."""

from __future__ import annotations

from taskharbor.task import Context

NAMES = ("job_id", "task", "queue", "attempt", "max_attempts", "flow_id")
"""The fields of a job, for formatters: `%(job_id)s`."""


def job_fields(context: Context[object]) -> dict[str, object]:
    """Return the fields of a running job by name, for `extra=`; `flow_id` is None for one that is in no flow."""
    return {
        "job_id": context.job_id,
        "task": context.task,
        "queue": context.queue,
        "attempt": context.attempt,
        "max_attempts": context.max_attempts,
        "flow_id": context.flow_id,
    }
