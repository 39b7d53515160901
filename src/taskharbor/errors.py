"""Every error TaskHarbor raises, in one tree that branches by what the caller can do about it.

    TaskHarborError
    |-- UsageError                the call is wrong: fix the code that made it
    |   |-- TaskDefinitionError   a function that cannot be a task, or two tasks of one name
    |   |-- OptionError           an option or a setting with a value that cannot be
    |   |-- FlowError             steps that cannot be joined so
    |   |-- PayloadError          arguments or a result that do not fit the declared type
    |   |   `-- PayloadTooLarge   they fit it, and are larger than a job carries
    |   |-- NoHarborError         a task was used while no harbor was current
    |   |-- MiddlewareError       a middleware that is none, or that yields twice, or never
    |   |-- BlockingCallError     a blocking form on a running event loop; the message names the `a` form
    |   |-- DeadlockError         waiting for a job's result inside a handler
    |   `-- ResultNotKept         asking for the result of a task that keeps none
    |-- DeploymentError           what runs is not what was meant: fix the deployment
    |   |-- DriverURLError        a URL no driver understands
    |   |-- MissingExtraError     an optional dependency is not installed
    |   |-- UnsupportedError      this driver does not offer that ability
    |   |-- SchemaError           the store's tables are of another version than this release works with
    |   |-- UnusableStoreError    the store is there, and cannot be used as it is: no permission, no database, bad disk
    |   |-- UnknownTaskError      a job names a task that nobody here declares
    |   `-- LifespanError         the dependencies could not be built or closed, or are not what a task expects
    |-- JobError                  about one job: look at it
    |   |-- JobFailed             it is a dead letter; carries the remote error
    |   |   `-- FlowFailed        a step of the flow is; requeueing that resumes the flow
    |   |-- JobCancelled          it was cancelled
    |   |-- JobNotFound           it never was, was deleted, or its retention ended
    |   |-- JobTimeout            its attempt ran longer than the task's timeout (seen by `Retry.on`)
    |   |-- ResultTimeout         it had not finished when the caller's patience ended
    |   |-- DuplicateJob          its idempotency key is taken and the caller asked to be told
    |   `-- KeyConflict           its idempotency key is taken by other arguments
    |-- ScheduleError             about one schedule: look at it
    |   `-- ScheduleNotFound      it never was, was deleted, or is declared no more
    `-- StoreError                the store: try again
        |-- StoreUnavailable      it cannot be reached now; nothing is known of the last request
        `-- LeaseLost             the lease was reclaimed; another worker may run the job

`JobInterrupt` stands outside: like `asyncio.CancelledError` it is thrown into a running handler and is no `Exception`.

Errors carry their facts as attributes and survive pickling: they cross processes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def _rebuild(cls: type[TaskHarborError], message: str, facts: dict[str, object]) -> TaskHarborError:
    error = cls.__new__(cls, message)
    error.args = (message,)
    error.__dict__.update(facts)
    return error


class TaskHarborError(Exception):
    """Root of every error TaskHarbor raises on purpose."""

    def __init__(self, message: str) -> None:
        super().__init__(message)

    def __reduce__(self) -> tuple[Callable[..., TaskHarborError], tuple[object, ...]]:
        # The default would call the subclass with the message alone and lose its facts.
        return _rebuild, (type(self), str(self), self.__dict__)


class UsageError(TaskHarborError):
    """The call is wrong; the code that made it has to change."""


class TaskDefinitionError(UsageError, TypeError):
    """A function cannot become a task, or a registry refuses it."""


class OptionError(UsageError, ValueError):
    """An option or setting has a value that cannot be."""


class FlowError(UsageError, ValueError):
    """Steps that cannot be joined so; or a placeholder that was used as if it were the value it stands for."""


class PayloadError(UsageError, ValueError):
    """Arguments or a result do not fit the declared type.

    Attributes:
        task: the task's name.
        path: where in the data, as a JSONPath such as `$.to` (`$` is the whole).
        reason: what was expected there and what came.
    """

    def __init__(self, message: str, *, task: str, path: str = "$", reason: str = "") -> None:
        super().__init__(message)
        self.task = task
        self.path = path
        self.reason = reason or message


class PayloadTooLarge(PayloadError):
    """Arguments or a result are larger, once encoded, than a job carries. The limit is the same on every driver.

    Attributes:
        size: how large, in bytes.
        limit: how large they may be, in bytes.
    """

    def __init__(self, message: str, *, task: str, size: int, limit: int) -> None:
        super().__init__(message, task=task)
        self.size = size
        self.limit = limit


class NoHarborError(UsageError):
    """A task was enqueued while no harbor was current."""


class MiddlewareError(UsageError):
    """A middleware breaks the rules: its methods are generators, with one `yield` for all that they surround."""


class BlockingCallError(UsageError):
    """A blocking form was called on a running event loop."""


class DeadlockError(UsageError):
    """A handler waited for another job's result, holding the slot that job may need."""


class ResultNotKept(UsageError):
    """The task is declared with `keep_result=False`."""


class DeploymentError(TaskHarborError):
    """What runs is not what was meant: a missing package, a wrong URL, an old worker."""


class DriverURLError(DeploymentError, ValueError):
    """No driver understands the URL."""


class MissingExtraError(DeploymentError, ImportError):
    """An optional dependency is not installed.

    Attributes:
        extra: the extra that brings it (`pip install 'taskharbor[extra]'`), or "" for a driver of somebody else's.
    """

    def __init__(self, message: str, *, extra: str = "") -> None:
        super().__init__(message)
        self.extra = extra


class UnsupportedError(DeploymentError):
    """The driver does not offer an ability that was asked for."""


class SchemaError(DeploymentError):
    """The store's tables are of another version than this release works with."""


class UnusableStoreError(DeploymentError):
    """The store is there, and cannot be used as it is: no permission, no database, a damaged one."""


class UnknownTaskError(DeploymentError, LookupError):
    """A job or a call names a task that nobody here declares."""


class LifespanError(DeploymentError):
    """The harbor's `deps` could not be built or closed, or are not what a task's `Context[...]` declares."""


class JobError(TaskHarborError):
    """Something about one job.

    Attributes:
        job_id: which job.
    """

    def __init__(self, message: str, *, job_id: str) -> None:
        super().__init__(message)
        self.job_id = job_id


class JobFailed(JobError):
    """The job is a dead letter: it will not be tried again unless a person asks.

    Attributes:
        task: its task's name.
        error_type: qualified name of the last exception, as the worker saw it.
        error_message: its text.
        remote_traceback: its bounded traceback.
        attempts: how many attempts were charged.
        reason: why it is dead, for example `attempts used up` or `rejected`.
    """

    def __init__(
        self,
        message: str,
        *,
        job_id: str,
        task: str = "",
        error_type: str = "",
        error_message: str = "",
        remote_traceback: str = "",
        attempts: int = 0,
        reason: str = "",
    ) -> None:
        super().__init__(message, job_id=job_id)
        self.task = task
        self.error_type = error_type
        self.error_message = error_message
        self.remote_traceback = remote_traceback
        self.attempts = attempts
        self.reason = reason


class FlowFailed(JobFailed):
    """A step of the flow is a dead letter, and what waits for it stays waiting. Requeueing the step resumes the flow.

    Attributes:
        job_id: the dead step's.
        flow_id: the flow's.
        task: the dead step's; so are `error_type`, `error_message`, `remote_traceback`, `attempts` and `reason`.
    """

    flow_id: str = ""


class JobCancelled(JobError):
    """The job was cancelled before it succeeded."""


class JobNotFound(JobError, LookupError):
    """The store has no such job: it never was, was deleted, or its retention ended."""


class JobTimeout(JobError, TimeoutError):
    """An attempt ran longer than its timeout. Never raised at a caller: it is what `Retry(on=...)` sees."""


class ResultTimeout(JobError, TimeoutError):
    """The job had not finished when the caller's timeout passed; the job itself goes on."""


class DuplicateJob(JobError):
    """The idempotency key is taken and `on_conflict="raise"` was asked. `job_id` is the job that holds it."""


class KeyConflict(JobError):
    """The idempotency key is taken by a job with other arguments. `job_id` is the job that holds it.

    Attributes:
        key: the idempotency key.
        task: the task's name, which is the key's scope.
    """

    def __init__(self, message: str, *, job_id: str, task: str, key: str) -> None:
        super().__init__(message, job_id=job_id)
        self.task = task
        self.key = key


class ScheduleError(TaskHarborError):
    """What was asked of a schedule cannot be done; the message says why. `name` is the schedule's."""

    def __init__(self, message: str, *, name: str) -> None:
        super().__init__(message)
        self.name = name


class ScheduleNotFound(ScheduleError, LookupError):
    """The store has no schedule of that name."""


class StoreError(TaskHarborError):
    """The store did not do what was asked; asking again may help."""


class StoreUnavailable(StoreError, ConnectionError):
    """The store cannot be reached now. Whether the last request was carried out is not known."""


class LeaseLost(StoreError):
    """The lease was reclaimed. Unlike `JobNotFound`, the job exists, and another worker may be running it."""


class JobInterrupt(BaseException):
    """Thrown into a sync handler's thread to stop its job (cancelled, timed out, or shut down).

    Like `asyncio.CancelledError` it derives from `BaseException`, so that `except Exception` lets it through. It lands
    at the next bytecode, so a handler blocked inside a C call sees it only when that call returns.
    """


def nearest(name: str, names: Sequence[str]) -> str:
    """Return a hint such as ` (did you mean 'mail.send'?)`, or "" when nothing is close."""
    from difflib import get_close_matches

    close = get_close_matches(name, names, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def redacted(url: str) -> str:
    """Return the URL without its secrets, for messages and logs. Works on what is no proper URL, too."""
    # From the first colon of the user part to the last @: people paste passwords with @, / and blanks in them.
    url = re.sub(r"(?P<user>(?:^|//)[^:/@]*):(?!//).*@", r"\g<user>:***@", url, flags=re.DOTALL)
    url = re.sub(r"(?P<user>^\w+:/[^:/@]*):.*@", r"\g<user>:***@", url, flags=re.DOTALL)
    # The same within a setting that is a URL itself, and so is written with %2F and the like.
    url = re.sub(r"(%2F%2F[^%]*%3A).*%40", r"\1***%40", url, flags=re.DOTALL | re.IGNORECASE)
    # To the next setting, whatever stands between.
    secret = r"((?:pass|pwd|secret|token|key)[a-z]*=).*?(?=&[\w.-]+=|$)"
    return re.sub(secret, r"\1***", url, flags=re.DOTALL | re.IGNORECASE)
