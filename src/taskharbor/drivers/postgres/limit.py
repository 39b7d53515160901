"""limit_declare, limit_set, limit_clear, limit_list.

Whoever changes what is in force raises the revision of the rules first, and so has their lock until he has committed:
reserves from lines wait for it, and plain ones see that the rules they know are not those in force any more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from taskharbor.clock import from_micros
from taskharbor.driver import LimitClear, LimitDeclare, LimitList, LimitSet, LimitSetAnswer
from taskharbor.driver.limiting import Rules
from taskharbor.drivers.postgres.gates import LEASED
from taskharbor.drivers.postgres.routine import Cell, Query, Routine, text_array
from taskharbor.drivers.postgres.rows import json_text, micros_of
from taskharbor.drivers.postgres.rules import BUMP, read_rules, read_terms, scope_cells
from taskharbor.drivers.postgres.step import Step
from taskharbor.limit import LimitRecord, LimitTerms, Scope, ScopeKind

_NOW = "coalesce($1::text::timestamptz, clock_timestamp())"
_NAMED = "unnest($1::text::text[], $2::text::text[], $3::text::text[])"
_DECLARED = f"""SELECT l.kind, l.name, l.key, l.declared FROM {_NAMED} w(kind, name, key)
    JOIN taskharbor.limit l ON l.kind = w.kind AND l.name = w.name AND l.key = w.key WHERE l.declared IS NOT NULL"""
_DECLARE = """INSERT INTO taskharbor.limit AS l (kind, name, key, declared)
    SELECT * FROM unnest($1::text::text[], $2::text::text[], $3::text::text[], $4::text::text[])
    ON CONFLICT (kind, name, key) DO UPDATE SET declared = excluded.declared"""
_SET = f"""INSERT INTO taskharbor.limit AS l (kind, name, key, override, set_at, set_by, reason)
    VALUES ($2::text, $3::text, $4::text, $5::text, {_NOW}, $6::text, $7::text)
    ON CONFLICT (kind, name, key) DO UPDATE SET override = excluded.override, set_at = excluded.set_at,
        set_by = excluded.set_by, reason = excluded.reason"""
_CLEAR = f"""UPDATE taskharbor.limit l SET override = NULL, set_at = NULL, set_by = '', reason = ''
    FROM {_NAMED} w(kind, name, key) WHERE l.kind = w.kind AND l.name = w.name AND l.key = w.key
    AND l.override IS NOT NULL RETURNING l.kind, l.name, l.key"""
_DROP = "DELETE FROM taskharbor.limit WHERE declared IS NULL AND override IS NULL"
_LIST = f"""SELECT kind, name, key, declared, override, {micros_of("set_at")}, set_by, reason FROM taskharbor.limit"""
_RESTART = f"""DELETE FROM taskharbor.arrival a USING {_NAMED} w(kind, name, key)
    WHERE a.kind = w.kind AND a.name = w.name AND a.key = w.key"""
_RESTART_KEYS = """DELETE FROM taskharbor.arrival a WHERE a.kind = 'key' AND a.name = ANY ($1::text::text[])
    AND NOT (a.name, a.key) IN (SELECT * FROM unnest($2::text::text[], $3::text::text[]))"""
# All that others are writing there is waited for, and seen: what is written afterwards is written by who has seen the
# revision that counts. (A lock that lets others lock rows would meet who has locked a lease, and means to delete it.)
# It is not waited for long, as whoever comes next waits behind it.
_PATIENCE = "SELECT set_config('lock_timeout', '2s', true)"
_LOCK_LEASES = "LOCK TABLE taskharbor.lease IN EXCLUSIVE MODE"
_COUNT_LEASES = "UPDATE taskharbor.lease SET counted = true WHERE NOT counted"
# The first queue, then the first one after each: not every job is looked at.
_QUEUES = """WITH RECURSIVE one(queue) AS (
    (SELECT queue FROM taskharbor.job ORDER BY queue LIMIT 1)
    UNION ALL SELECT (SELECT j.queue FROM taskharbor.job j WHERE j.queue > one.queue ORDER BY j.queue LIMIT 1)
    FROM one WHERE one.queue IS NOT NULL)
SELECT queue FROM one WHERE queue IS NOT NULL"""


def told_once(scopes: Sequence[Scope], changed: set[Scope]) -> list[bool]:
    """Return of each whether it was changed; who names one twice changed nothing the second time."""
    answers: list[bool] = []
    for scope in scopes:
        answers.append(scope in changed)
        changed.discard(scope)
    return answers


def wake_all(step: Step) -> Routine[None]:
    """Wake whoever waits for jobs of any queue."""
    step.wakes.queues.update([queue for (queue,) in (yield Query(_QUEUES))])


def limit_declare(step: Step, request: LimitDeclare) -> Routine[None]:
    """Write down what code declares; where that is what it declared before, lock and write nothing."""
    if not (yield from _news(request.limits)):
        return
    before = yield from _begin()
    news = yield from _news(request.limits)  # others may have written the same meanwhile
    words = text_array([json_text(terms) if terms else None for terms in news.values()])
    yield Query(_DECLARE, (*scope_cells(news), words))
    yield Query(_DROP)
    yield from _end(step, before)


def _news(limits: Mapping[Scope, LimitTerms]) -> Routine[dict[Scope, LimitTerms]]:
    """Return what differs from what was declared before."""
    if not limits:
        return {}
    rows = yield Query(_DECLARED, scope_cells(limits))
    known = {Scope(ScopeKind(kind), name, key): read_terms(words) for kind, name, key, words in rows}
    return {scope: terms for scope, terms in limits.items() if known.get(scope, LimitTerms()) != terms}


def limit_set(step: Step, request: LimitSet) -> Routine[LimitSetAnswer]:
    """Set limits by hand."""
    before = yield from _begin()
    scope = request.scope
    cells: list[Cell] = [scope.kind.value, scope.name, scope.key, json_text(request.terms)]
    yield Query(_SET, (step.now, *cells, request.by, request.reason))
    yield from _end(step, before)
    was = before.terms.get(scope, LimitTerms())
    return LimitSetAnswer(before=was, changed=was != request.terms)


def limit_clear(step: Step, request: LimitClear) -> Routine[Sequence[bool]]:
    """Take back what was set by hand."""
    before = yield from _begin()
    rows = yield Query(_CLEAR, scope_cells(dict.fromkeys(request.scopes)))
    if rows:
        yield Query(_DROP)
        yield from _end(step, before)
    return told_once(request.scopes, {Scope(ScopeKind(kind), name, key) for kind, name, key in rows})


def _begin() -> Routine[Rules]:
    """Take the rules' lock, and return what is in force before they change."""
    yield Query(BUMP)
    return (yield from read_rules()).rules


def _end(step: Step, before: Rules) -> Routine[None]:
    """See to what follows from a change of the rules."""
    after = (yield from read_rules()).rules
    yield from _restart(before, after)
    # Only leases that hold jobs which some limit on running concerned were counted before.
    if _counting(after) - _counting(before):
        yield Query(_PATIENCE)
        yield Query(_LOCK_LEASES)
        yield Query(_COUNT_LEASES)
    yield from wake_all(step)


def _counting(rules: Rules) -> set[Scope]:
    return {scope for scope, terms in rules.terms.items() if terms.max_running is not None}


def _restart(before: Rules, after: Rules) -> Routine[None]:
    """Have rates that were not there before begin with their whole burst."""
    rated = {scope for scope, terms in before.terms.items() if terms.rate is not None}
    now = {scope for scope, terms in after.terms.items() if terms.rate is not None}
    new = now - rated
    # A key that had the rate of all of them goes on with another.
    alone = {
        scope
        for scope in new
        if scope.kind is not ScopeKind.KEYS and Scope(ScopeKind.KEYS, scope.name) not in rated
    }
    if alone:
        yield Query(_RESTART, scope_cells(alone))
    if each := [scope.name for scope in new if scope.kind is ScopeKind.KEYS]:
        own = [scope for scope in rated if scope.kind is ScopeKind.KEY]
        yield Query(_RESTART_KEYS, (text_array(each), *scope_cells(own)[1:]))


def limit_list(step: Step, request: LimitList) -> Routine[Sequence[LimitRecord]]:
    """Return the limits, sorted by scope."""
    rows = yield Query(_LIST)
    leased: list[tuple[str, str, str, int]] = (yield Query(LEASED)) if rows else []
    records = [
        LimitRecord(
            scope=(scope := Scope(ScopeKind(kind), name, key)),
            declared=LimitTerms() if declared is None else read_terms(declared),
            override=None if override is None else read_terms(override),
            set_at=None if set_at is None else from_micros(set_at),
            set_by=set_by,
            reason=reason,
            running=sum(count for *line, count in leased if _concerns(scope, *line)),
        )
        for kind, name, key, declared, override, set_at, set_by, reason in rows
    ]
    return sorted(records, key=lambda record: record.scope)


def _concerns(scope: Scope, queue: str, task: str, part: str) -> bool:
    if scope.kind is ScopeKind.QUEUE:
        return scope.name == queue
    return scope.name == task and (scope.kind is not ScopeKind.KEY or scope.key == part)
