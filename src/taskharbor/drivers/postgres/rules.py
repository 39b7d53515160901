"""Which limits and holds are in force: read whole, with the number of their revision."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from taskharbor.driver.limiting import Rules
from taskharbor.drivers.postgres.routine import Query, Routine, text_array
from taskharbor.limit import LimitTerms, Scope, ScopeKind

BUMP = "UPDATE taskharbor.rules SET revision = revision + 1"
"""Whoever changes limits or holds does this first: it waits for reserves from lines, and has them read the rules."""
# One statement, and so one instant; one row at least.
_RULES = """SELECT r.revision, w.kind, w.name, w.key, w.terms, w.held FROM taskharbor.rules r LEFT JOIN (
    SELECT kind, name, key, coalesce(override, declared) AS terms, NULL::text AS held FROM taskharbor.limit
    UNION ALL SELECT kind, name, key, NULL, reason FROM taskharbor.hold) w ON true"""

read_terms = msgspec.json.Decoder(LimitTerms).decode


class Known(NamedTuple):
    """The rules, and of which revision they are."""

    revision: int
    rules: Rules


def read_rules() -> Routine[Known]:
    """Return what is in force."""
    revision = 0
    terms: dict[Scope, LimitTerms] = {}
    held: dict[Scope, str] = {}
    for number, kind, name, key, words, reason in (yield Query(_RULES)):
        revision = number
        if kind is None:
            continue
        scope = Scope(ScopeKind(kind), name, key)
        if reason is not None:
            held[scope] = reason
        elif words is not None:
            terms[scope] = read_terms(words)
    return Known(revision, Rules(terms, held))


def scope_cells(scopes: Iterable[Scope]) -> tuple[str, str, str]:
    """Return scopes as three parameters: kinds, names, keys."""
    scopes = list(scopes)
    return (
        text_array([scope.kind.value for scope in scopes]),
        text_array([scope.name for scope in scopes]),
        text_array([scope.key for scope in scopes]),
    )
