"""Middleware: layers of code around enqueues and around attempts.

`Harbor(middleware=[...])` puts layers around all tasks, `@task(middleware=[...])` around one.

logging.py        each attempt's start and end, and the job's fields on every record
context_vars.py   context variables from the code that enqueues to the handler
slow.py           a warning for what runs long, while it does
fields.py         which job it is, as structured fields
standing.py       where a running handler stands
watching.py       a thread that notices what goes on for too long

The base, and what it sees, are in `task/layer.py`; `worker/surrounding.py` and `departure.py` put layers around things.
"""

from taskharbor.middleware.context_vars import CarriedVariable, ContextVariables, TypedVariable
from taskharbor.middleware.logging import JobFields, JobLogging
from taskharbor.middleware.slow import SlowJobs
from taskharbor.task.layer import Attempt, Middleware, Outgoing

__all__ = [
    "Attempt",
    "CarriedVariable",
    "ContextVariables",
    "JobFields",
    "JobLogging",
    "Middleware",
    "Outgoing",
    "SlowJobs",
    "TypedVariable",
]
