"""Limits and holds: declared by code, set by hand, listed (rules 24 and 25)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from taskharbor.driver.request import Request
from taskharbor.limit import HoldRecord, LimitRecord, LimitTerms, Scope


class LimitDeclare(Request, frozen=True, kw_only=True):
    """Tell what an application's code says of its tasks. What is set by hand is left as it is."""

    limits: Mapping[Scope, LimitTerms]
    """For each task that a worker knows its scopes TASK and KEYS; terms without any limit take back what was declared
    before."""


class LimitSet(Request, frozen=True, kw_only=True):
    """Set the limits of a scope by hand, in the place of those declared, from now on and for all workers.

    Jobs that are leased stay so: under a `max_running` that is less than what runs, none is taken until enough have
    ended. A rate starts with its whole burst, unless only its numbers change.
    """

    scope: Scope
    terms: LimitTerms
    """Terms without any limit lift what is declared."""
    by: str = ""
    reason: str = ""


class LimitClear(Request, frozen=True, kw_only=True):
    """Take back what was set by hand: what is declared is in force again."""

    scopes: Sequence[Scope]


class LimitList(Request, frozen=True, kw_only=True):
    """List every scope that has limits, declared or set."""


class HoldPlace(Request, frozen=True, kw_only=True):
    """Hold back tasks, or single keys of tasks: reserve takes none of their jobs from now on, on any worker."""

    scopes: Sequence[Scope]
    """TASK or KEY."""
    by: str = ""
    reason: str = ""


class HoldLift(Request, frozen=True, kw_only=True):
    """Let go of what is held back."""

    scopes: Sequence[Scope]


class HoldList(Request, frozen=True, kw_only=True):
    """List what is held back."""


class LimitSetAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What setting a limit replaced."""

    before: LimitTerms
    """What was in force."""
    changed: bool
    """Whether anything else is in force now."""


class Limits(Protocol):
    """The verbs of limits and holds."""

    async def limit_declare(self, request: LimitDeclare, /) -> None:
        """Write down what code declares. Asked again with the same, it writes nothing."""
        ...

    async def limit_set(self, request: LimitSet, /) -> LimitSetAnswer:
        """Set limits by hand."""
        ...

    async def limit_clear(self, request: LimitClear, /) -> Sequence[bool]:
        """Take back what was set by hand; return of each whether there was something, in order."""
        ...

    async def limit_list(self, request: LimitList, /) -> Sequence[LimitRecord]:
        """Return the limits, sorted by scope."""
        ...

    async def hold_place(self, request: HoldPlace, /) -> Sequence[bool]:
        """Hold back; return of each whether it was not held before, in order. Asked again, the first one stands."""
        ...

    async def hold_lift(self, request: HoldLift, /) -> Sequence[bool]:
        """Let go; return of each whether it was held, in order. Workers of its queues are woken."""
        ...

    async def hold_list(self, request: HoldList, /) -> Sequence[HoldRecord]:
        """Return what is held back, sorted by scope."""
        ...
