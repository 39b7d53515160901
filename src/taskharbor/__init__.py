"""TaskHarbor: background jobs and simple durable workflows, driven by types.

One typed function is the whole definition of a task: its signature gives the static types of every call, the wire
format, the run-time check and the JSON Schema. Behind it stands one contract for all stores, proven by one suite.
"""

from typing import TYPE_CHECKING

from taskharbor.call import (
    Flow,
    FlowGraph,
    FlowHandle,
    FlowPart,
    FlowStatus,
    FlowStep,
    JobHandle,
    JobStatus,
    Link,
    Signature,
)
from taskharbor.codec import Codec, CodecError, JsonCodec, MsgpackCodec, register_type
from taskharbor.control import Jobs, Queues
from taskharbor.driver import CancelStatus, Counted, DeleteStatus, QueueInfo, RequeueStatus
from taskharbor.errors import (
    BlockingCallError,
    DeadlockError,
    DeploymentError,
    DriverURLError,
    DuplicateJob,
    FlowError,
    FlowFailed,
    JobCancelled,
    JobError,
    JobFailed,
    JobInterrupt,
    JobNotFound,
    JobTimeout,
    KeyConflict,
    LeaseLost,
    LifespanError,
    MiddlewareError,
    MissingExtraError,
    NoHarborError,
    OptionError,
    PayloadError,
    PayloadTooLarge,
    ResultNotKept,
    ResultTimeout,
    ScheduleError,
    ScheduleNotFound,
    SchemaError,
    StoreError,
    StoreUnavailable,
    TaskDefinitionError,
    TaskHarborError,
    UnknownTaskError,
    UnsupportedError,
    UnusableStoreError,
    UsageError,
)
from taskharbor.flow import Failure, FlowFailure, FlowRecord, FlowState, Success
from taskharbor.flows import Flows
from taskharbor.harbor import Harbor
from taskharbor.job import AttemptError, JobRecord, JobState, Operation
from taskharbor.outcome import Reject, RetryLater, Snooze
from taskharbor.retry import Retry
from taskharbor.task import (
    AsyncTask,
    Batch,
    BatchContext,
    Bound,
    Context,
    Debounce,
    MaxRunning,
    Rate,
    Registry,
    SyncTask,
    Task,
    Throttle,
    Unique,
    default_registry,
    task,
)
from taskharbor.working import WorkerOptions

if TYPE_CHECKING:
    from taskharbor.scheduling import cron, every
    from taskharbor.worker import Worker, WorkerCounts, WorkerSettings, WorkerThread
    from taskharbor.workflow import Pipeline, chain, chord, each, gather, group

__all__ = [
    "AsyncTask",
    "AttemptError",
    "Batch",
    "BatchContext",
    "BlockingCallError",
    "Bound",
    "CancelStatus",
    "Codec",
    "CodecError",
    "Context",
    "Counted",
    "DeadlockError",
    "Debounce",
    "DeleteStatus",
    "DeploymentError",
    "DriverURLError",
    "DuplicateJob",
    "Failure",
    "Flow",
    "FlowError",
    "FlowFailed",
    "FlowFailure",
    "FlowGraph",
    "FlowHandle",
    "FlowPart",
    "FlowRecord",
    "FlowState",
    "FlowStatus",
    "FlowStep",
    "Flows",
    "Harbor",
    "JobCancelled",
    "JobError",
    "JobFailed",
    "JobHandle",
    "JobInterrupt",
    "JobNotFound",
    "JobRecord",
    "JobState",
    "JobStatus",
    "JobTimeout",
    "Jobs",
    "JsonCodec",
    "KeyConflict",
    "LeaseLost",
    "LifespanError",
    "Link",
    "MaxRunning",
    "MiddlewareError",
    "MissingExtraError",
    "MsgpackCodec",
    "NoHarborError",
    "Operation",
    "OptionError",
    "PayloadError",
    "PayloadTooLarge",
    "Pipeline",
    "QueueInfo",
    "Queues",
    "Rate",
    "Registry",
    "Reject",
    "RequeueStatus",
    "ResultNotKept",
    "ResultTimeout",
    "Retry",
    "RetryLater",
    "ScheduleError",
    "ScheduleNotFound",
    "SchemaError",
    "Signature",
    "Snooze",
    "StoreError",
    "StoreUnavailable",
    "Success",
    "SyncTask",
    "Task",
    "TaskDefinitionError",
    "TaskHarborError",
    "Throttle",
    "Unique",
    "UnknownTaskError",
    "UnsupportedError",
    "UnusableStoreError",
    "UsageError",
    "Worker",
    "WorkerCounts",
    "WorkerOptions",
    "WorkerSettings",
    "WorkerThread",
    "chain",
    "chord",
    "cron",
    "default_registry",
    "each",
    "every",
    "gather",
    "group",
    "register_type",
    "task",
]

_OF_THE_WORKER = frozenset({"Worker", "WorkerCounts", "WorkerSettings", "WorkerThread"})
_OF_THE_WORKFLOW = frozenset({"Pipeline", "chain", "chord", "each", "gather", "group"})

_OF_THE_SCHEDULES = frozenset({"cron", "every"})


def __getattr__(name: str) -> object:
    # With the worker comes asyncio, half of what an import would cost; most programs only enqueue.
    if name in _OF_THE_WORKER:
        from taskharbor import worker

        return getattr(worker, name)
    if name in _OF_THE_WORKFLOW:
        from taskharbor import workflow

        return getattr(workflow, name)
    if name in _OF_THE_SCHEDULES:
        from taskharbor import scheduling

        return getattr(scheduling, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
