"""What `@task(...)` refuses of its options, whatever the function."""

from __future__ import annotations

from datetime import timedelta

from taskharbor.call.options import check_duration, check_name, check_priority, check_timeout
from taskharbor.errors import OptionError, TaskDefinitionError
from taskharbor.retry import Retry
from taskharbor.task.batch import Batch
from taskharbor.task.reading import Handler
from taskharbor.task.registry import Registry


def check_options(
    *,
    queue: str,
    priority: int,
    retry: object,
    timeout: timedelta | None,
    run: str | None,
    retain: timedelta,
    key_ttl: timedelta,
) -> None:
    """Refuse options with values that cannot be; raises `OptionError`."""
    check_name(queue, "queue")
    check_priority(priority)
    if not isinstance(retry, Retry):
        raise OptionError(f"retry={retry!r}: expected a Retry, for example Retry(max_attempts=3)")
    check_timeout(timeout)
    check_duration(retain, "retain")
    check_duration(key_ttl, "key_ttl")
    if run not in (None, "process"):
        raise OptionError(
            f"run={run!r}: expected 'process', or nothing: `async def` runs on the event loop and `def` in a thread"
        )


def check_kinds(*, keep_result: object, registry: object, batch: object) -> None:
    """Refuse options that are of another kind; raises `OptionError`."""
    if not isinstance(keep_result, bool):
        raise OptionError(f"keep_result={keep_result!r}: expected True or False")
    if registry is not None and not isinstance(registry, Registry):
        raise OptionError(f"registry={registry!r}: expected a Registry")
    if batch is not None and not isinstance(batch, Batch):
        raise OptionError(f"batch={batch!r}: expected a Batch, for example Batch(size=100)")


def check_process(fn: Handler, name: str, *, is_async: bool, deps_type: object) -> None:
    """Refuse what no other process could run; raises `TaskDefinitionError`."""
    if is_async:
        raise TaskDefinitionError(
            f"task {name!r}: run='process' is for `def`; an `async def` runs on the event loop"
        )
    if deps_type is not type(None):
        raise TaskDefinitionError(
            f"task {name!r}: run='process' cannot be given the harbor's dependencies, which live in the worker's "
            "process; take a plain Context, and build what it needs in the handler"
        )
    if "<locals>" in str(getattr(fn, "__qualname__", "")):
        raise TaskDefinitionError(
            f"task {name!r}: run='process' needs a function that another process can import; move it out of the "
            "function that defines it"
        )
