"""What a task declares for all its jobs, and what the options of a call set for one."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal, TypeAlias

import msgspec
from msgspec import UNSET

from taskharbor.call import Options
from taskharbor.job import DEFAULT_KEY_TTL, DEFAULT_PRIORITY, DEFAULT_QUEUE, DEFAULT_RETAIN, OnConflict
from taskharbor.retry import Retry
from taskharbor.task.batch import Batch

RunIn: TypeAlias = Literal["process"]
NO_OPTIONS = Options()


class TaskOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What `@task(...)` declares; each call may override the first group with `options(...)`."""

    queue: str = DEFAULT_QUEUE
    priority: int = DEFAULT_PRIORITY
    retry: Retry = Retry()
    timeout: timedelta | None = None
    key_ttl: timedelta = DEFAULT_KEY_TTL

    run: RunIn | None = None
    keep_result: bool = True
    retain: timedelta = DEFAULT_RETAIN
    batch: Batch | None = None
    """How many jobs one call of the handler takes; None for one."""


def given_fields(options: Options) -> dict[str, object]:
    """Return the fields of a job that options set, but for the digest, which depends on the arguments, too."""
    given: dict[str, object] = {
        name: value
        for name in ("queue", "priority", "run_at", "run_in", "key", "key_ttl", "timeout", "meta")
        if (value := getattr(options, name)) is not UNSET
    }
    if options.retry is not UNSET:
        given["retry"] = options.retry.numbers()
    if options.on_conflict is not UNSET:
        given["on_conflict"] = OnConflict(options.on_conflict)
    return given
