"""What the hub carries: events, and the results of jobs as they were stored."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from taskharbor.event import JobEvent


class StoredResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a job that has just been stored."""

    job_id: str
    task: str
    queue: str
    data: bytes
    codec: str


News: TypeAlias = JobEvent | StoredResult
