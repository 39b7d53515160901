"""Limits and holds for cases: short words for scopes and terms, and for setting them."""

from __future__ import annotations

from datetime import timedelta

from taskharbor.driver import (
    HoldLift,
    HoldPlace,
    LimitClear,
    LimitDeclare,
    LimitList,
    LimitSet,
    LimitSetAnswer,
)
from taskharbor.job import new_token
from taskharbor.limit import LimitRecord, LimitTerms, RateTerms, Scope, ScopeKind
from taskharbor_conformance.bench import SECOND, TASK, Bench

A, B, C = "acme", "bolt", "corp"
"""Partitions, in their order."""
OTHER = "video.cut"
"""One more task."""
BOTH = frozenset({TASK, OTHER})


def of_queue(name: str = "default") -> Scope:
    """Return the scope of a queue."""
    return Scope(ScopeKind.QUEUE, name)


def of_task(name: str = TASK) -> Scope:
    """Return the scope of a task."""
    return Scope(ScopeKind.TASK, name)


def of_keys(name: str = TASK) -> Scope:
    """Return the scope of each key of a task."""
    return Scope(ScopeKind.KEYS, name)


def of_key(key: str, name: str = TASK) -> Scope:
    """Return the scope of one key of a task."""
    return Scope(ScopeKind.KEY, name, key)


def at_most(count: int) -> LimitTerms:
    """Return terms of so many at once."""
    return LimitTerms(max_running=count)


def at_rate(
    limit: int = 1, per: timedelta = SECOND, burst: int = 1, *, max_running: int | None = None
) -> LimitTerms:
    """Return terms of a rate."""
    return LimitTerms(max_running=max_running, rate=RateTerms(limit, per, burst))


async def set_limit(
    bench: Bench, scope: Scope, terms: LimitTerms, *, by: str = "", reason: str = ""
) -> LimitSetAnswer:
    """Set limits by hand."""
    return await bench.store.limit_set(
        LimitSet(scope=scope, terms=terms, by=by, reason=reason, now=bench.now)
    )


async def clear_limits(bench: Bench, *scopes: Scope) -> list[bool]:
    """Take back what was set by hand."""
    return list(await bench.store.limit_clear(LimitClear(scopes=scopes, now=bench.now)))


async def declare(bench: Bench, limits: dict[Scope, LimitTerms]) -> None:
    """Declare, as a worker does when it starts."""
    await bench.store.limit_declare(LimitDeclare(limits=limits, now=bench.now))


async def limits(bench: Bench) -> dict[Scope, LimitRecord]:
    """Return the limits listed, in order."""
    return {record.scope: record for record in await bench.store.limit_list(LimitList(now=bench.now))}


async def hold(bench: Bench, *scopes: Scope, by: str = "", reason: str = "") -> list[bool]:
    """Hold back."""
    request = HoldPlace(scopes=scopes, by=by, reason=reason, now=bench.now)
    return list(await bench.store.hold_place(request))


async def lift(bench: Bench, *scopes: Scope) -> list[bool]:
    """Let go."""
    return list(await bench.store.hold_lift(HoldLift(scopes=scopes, now=bench.now)))


async def in_line(bench: Bench, partition: str, count: int, **fields: str) -> list[str]:
    """Store so many jobs of a partition, and return their ids."""
    task, queue = fields.get("task", TASK), fields.get("queue", "default")
    return [await bench.enqueue(partition=partition, task=task, queue=queue) for _ in range(count)]


def token(*, lines_first: bool = True, queue: int = 0) -> int:
    """Return a fresh token whose reserve looks at lines first, or at plain lanes, and at this of two queues first."""
    return new_token() >> 2 << 2 | queue << 1 | lines_first
