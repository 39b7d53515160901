"""Limits: how many jobs of a scope may run at once, how many may start in a time, and what is held back.

A *scope* is a queue, a task, each key of a task on its own, or one key of it. A job's *partition* is the text that its
task's key function makes of its arguments: jobs of one task and partition stand in one line, and such lines take turns.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

KEYLESS = ""
"""The partition of a job whose task has limits, or takes turns, and no key function."""
PARTITION_LIMIT = 200
"""Characters a partition may have."""


class ScopeKind(StrEnum):
    """What a limit or a hold is on."""

    QUEUE = "queue"
    """All jobs of a queue together."""
    TASK = "task"
    """All jobs of a task together, whatever their queues."""
    KEYS = "keys"
    """The jobs of each partition of a task, each partition on its own."""
    KEY = "key"
    """The jobs of one partition of a task. Its limits go before those of KEYS, each of the two numbers by itself."""


class Scope(msgspec.Struct, frozen=True, order=True):
    """What a limit or a hold is on."""

    kind: ScopeKind
    name: str
    """Of the queue, or of the task."""
    key: str = ""
    """The partition, with KEY only."""

    def __str__(self) -> str:
        """Return it as people write it: `queue:mail`, `task:send`, `keys:send`, `key:send:acme`."""
        return f"{self.kind}:{self.name}" + (f":{self.key}" if self.kind is ScopeKind.KEY else "")


class RateTerms(msgspec.Struct, frozen=True):
    """So many jobs in such a time, spread evenly, and so many at once.

    In any span of time *t* at most `burst + t * limit / per` jobs are leased.
    """

    limit: int
    """At least 1."""
    per: timedelta
    """Longer than zero; at least a microsecond for each job."""
    burst: int = 1
    """At least 1: how many may start at one instant after a quiet time."""


class LimitTerms(msgspec.Struct, frozen=True):
    """The limits of one scope. None where there is none."""

    max_running: int | None = None
    """Jobs leased at the same instant, on all workers together. Zero stops them."""
    rate: RateTerms | None = None

    def __bool__(self) -> bool:
        """Return whether it limits anything."""
        return self.max_running is not None or self.rate is not None


class LimitRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the store knows of the limits of one scope, at one instant."""

    scope: Scope
    declared: LimitTerms = LimitTerms()
    """By the application's code, as its last worker to start has told."""
    override: LimitTerms | None = None
    """Set by hand: it stands in the place of what is declared until it is cleared. Terms without any limit lift it."""
    set_at: datetime | None = None
    """When the override was set, and by whom, and why."""
    set_by: str = ""
    reason: str = ""
    running: int = 0
    """Jobs of the scope that are leased now. With KEYS, of all partitions together."""

    @property
    def terms(self) -> LimitTerms:
        """Return what is in force."""
        return self.declared if self.override is None else self.override


class HoldRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A task, or one key of it, that is held back."""

    scope: Scope
    """TASK or KEY."""
    at: datetime
    by: str = ""
    reason: str = ""
