"""The audit trail: who did what to the store by hand, when, why, and how many things it changed."""

from __future__ import annotations

from datetime import datetime

import msgspec


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """An act of a person, told with the request that carries it out, and written down with what the request changes.

    A long act comes in several requests under one id: their counts are added up in one entry.
    """

    id: str
    """A UUIDv7, made anew for each act."""
    action: str
    """What is done, as `jobs.cancel` or `limits.set`: the word that `action` filters and counters go by."""
    target: str = ""
    """What it is done to, in words that a person reads: ids, filters, a scope. Never a payload."""
    by: str = ""
    reason: str = ""
    details: dict[str, str] = {}
    """What else is worth keeping, as the terms of a limit before and after."""


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One act in the trail."""

    id: str
    at: datetime
    """By the store's clock, of the first of its requests."""
    action: str
    target: str
    by: str
    reason: str
    details: dict[str, str] = {}
    named: int
    """How many things it named: ids, queues, scopes."""
    changed: int
    """How many of them it changed. An act that changed nothing is in the trail as well."""


class AuditTally(msgspec.Struct, frozen=True):
    """How often one action was taken by one person."""

    action: str
    by: str
    acts: int
    changed: int
