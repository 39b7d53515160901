"""Tasks: a typed function becomes a registered handler.

decorator.py    `@task`; `checks`, what it refuses; `naming`, the name of a task that was given none
reading.py      what the signature says
arguments.py    the arguments as one typed value
definition.py   the task at run time: names, options, encoding
task.py         the typed face: Bound, Task, SyncTask, AsyncTask
batch.py        handlers that take many jobs at a time: `batch_reading`, their signature; `batch_typed`, their face
registry.py     one name, one task
recurring.py    the schedules a task declares
unique.py       what a task declares of its calls being unique; `keying`, their keys; `key_value`, how these are
                written; `key_reading`, what takes them from the arguments; `key_probe`, a dry run of that
limits.py       what a task declares of limits and turns; `partitioning`, in which line a call stands
options.py      what a task declares for its jobs, and what a call's options set
digest.py       what tells calls of one idempotency key apart
partial.py      the arguments without those that earlier steps give
filling.py      what earlier steps gave, as values of the parameters' types
stored.py       the arguments of a stored job
layer.py        what a middleware is: code around enqueues and attempts
passing.py      one pass through a layer
context.py      what a handler may ask of its job
"""

from taskharbor.task.batch import Batch, BatchContext
from taskharbor.task.batch_typed import AsyncBatchTask, SyncBatchTask
from taskharbor.task.context import Context
from taskharbor.task.decorator import task
from taskharbor.task.definition import TaskDefinition
from taskharbor.task.layer import Attempt, Middleware, Outgoing
from taskharbor.task.limits import MaxRunning, Rate
from taskharbor.task.registry import Registry, default_registry
from taskharbor.task.typed import AsyncTask, Bound, SyncTask, Task
from taskharbor.task.unique import Debounce, Throttle, Unique

__all__ = [
    "AsyncBatchTask",
    "AsyncTask",
    "Attempt",
    "Batch",
    "BatchContext",
    "Bound",
    "Context",
    "Debounce",
    "MaxRunning",
    "Middleware",
    "Outgoing",
    "Rate",
    "Registry",
    "SyncBatchTask",
    "SyncTask",
    "Task",
    "TaskDefinition",
    "Throttle",
    "Unique",
    "default_registry",
    "task",
]
