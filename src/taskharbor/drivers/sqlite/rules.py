"""What limits and holds are in force, how many jobs are leased behind each gate, when rates let the next through."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from taskharbor.driver import Gates, Rules
from taskharbor.drivers.sqlite.routine import Query, Routine
from taskharbor.drivers.sqlite.rows import Step, json_text
from taskharbor.limit import LimitTerms, Scope, ScopeKind

terms_of = msgspec.json.Decoder(LimitTerms).decode
"""Reads terms as they are stored."""

_REVISION = "SELECT revision FROM taskharbor_rules"
_LIMITS = "SELECT kind, name, key, coalesce(override, declared) FROM taskharbor_limit"
_HOLDS = "SELECT kind, name, key, reason FROM taskharbor_hold"
_RUNNING = """SELECT j.queue, j.task, coalesce(j.part, ''), count(*) FROM taskharbor_lease l, json_each(l.jobs) e
    CROSS JOIN taskharbor_job j ON j.id = e.value AND j.token = l.token GROUP BY 1, 2, 3"""
_ARRIVALS = """SELECT a.kind, a.name, a.key, a.at FROM json_each(?) e CROSS JOIN taskharbor_arrival a
    ON a.kind = e.value ->> 0 AND a.name = e.value ->> 1 AND a.key = e.value ->> 2"""
_ALL_ARRIVALS = "SELECT kind, name, key, at FROM taskharbor_arrival WHERE at > ?"
_KEEP_ARRIVALS = """INSERT OR REPLACE INTO taskharbor_arrival (kind, name, key, at)
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?)"""


def rules_now(step: Step) -> Routine[Rules]:
    """Return what is in force; read anew only where it has changed."""
    ((revision,),) = yield Query(_REVISION)
    known, rules = step.book.rules
    if known == revision:
        return rules
    limits = yield Query(_LIMITS)
    holds = yield Query(_HOLDS)
    rules = Rules(
        {Scope(ScopeKind(kind), name, key): terms_of(terms) for kind, name, key, terms in limits if terms},
        {Scope(ScopeKind(kind), name, key): reason for kind, name, key, reason in holds},
    )
    step.book.rules = revision, rules
    return rules


def running_now(rules: Rules) -> Routine[dict[tuple[str, str, str], int]]:
    """Return how many jobs are leased of each queue, task and partition: counted where they are leased."""
    if not rules.counts:
        return {}
    rows = yield Query(_RUNNING)
    return {(queue, task, part): count for queue, task, part, count in rows}


def arrivals_of(scopes: Iterable[Scope]) -> Routine[dict[Scope, int]]:
    """Return when the rates of these gates let the next job through."""
    names = [(scope.kind, scope.name, scope.key) for scope in scopes]
    if not names:
        return {}
    rows = yield Query(_ARRIVALS, (json_text(names),))
    return {Scope(ScopeKind(kind), name, key): at for kind, name, key, at in rows}


def keep_arrivals(changed: Sequence[tuple[Scope, int]]) -> Routine[None]:
    """Write down what was taken of rates."""
    if changed:
        rows = [(scope.kind, scope.name, scope.key, at) for scope, at in changed]
        yield Query(_KEEP_ARRIVALS, (json_text(rows),))


def gates_now(step: Step) -> Routine[Gates | None]:
    """Return all gates at this instant, for who looks at jobs; None if there are no limits and no holds."""
    rules = yield from rules_now(step)
    if not rules:
        return None
    running = yield from running_now(rules)
    rows = yield Query(_ALL_ARRIVALS, (step.now,))
    arrivals = {Scope(ScopeKind(kind), name, key): at for kind, name, key, at in rows}
    return Gates(rules, running, arrivals, step.now)
