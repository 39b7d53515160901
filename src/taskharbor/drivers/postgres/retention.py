"""retention_set, retention_list, and the rules of retention as `history_prune` applies them.

They have no index of their own, since one on the history would be paid for by every job that ends: the history is read
instead, and only when that is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

from taskharbor.clock import from_micros
from taskharbor.driver import RetentionList, RetentionRecord, RetentionRule, RetentionSet
from taskharbor.drivers.postgres.routine import Cell, Query, Routine, text_array
from taskharbor.drivers.postgres.rows import DEAD, as_duration, interval_of, micros_of, micros_text
from taskharbor.drivers.postgres.step import Step
from taskharbor.flow import FLOW_ENDED
from taskharbor.job import JobState

_NOW = "coalesce($1::text::timestamptz, clock_timestamp())"
_SET = f"""INSERT INTO taskharbor.retention AS r (task, state, keep_for, keep_last, set_at, set_by, reason)
    VALUES ($2::text, $3::text, $4::text::bigint, $5::text::bigint, {_NOW}, $6::text, $7::text)
    ON CONFLICT (task, state) DO UPDATE SET keep_for = excluded.keep_for, keep_last = excluded.keep_last,
        set_at = excluded.set_at, set_by = excluded.set_by, reason = excluded.reason
        WHERE (r.keep_for, r.keep_last) IS DISTINCT FROM (excluded.keep_for, excluded.keep_last)
    RETURNING task"""
_UNSET = "DELETE FROM taskharbor.retention WHERE task = $1::text AND state = $2::text RETURNING task"
_LIST = f"SELECT task, state, keep_for, keep_last, {micros_of('set_at')}, set_by, reason FROM taskharbor.retention"

# A step of a flow that has not ended is still asked for its result, or may yet be requeued.
_FREE = f"""(h.flow IS NULL OR NOT EXISTS (SELECT FROM taskharbor.flow f
    WHERE f.id = h.flow AND f.state NOT IN ({", ".join(f"'{state.value}'" for state in sorted(FLOW_ENDED))})))"""
_PLACE = """,
    row_number() OVER (PARTITION BY h.task ORDER BY h.finished_at DESC, h.id DESC) AS place"""
_DROP = f"""WITH chosen AS MATERIALIZED (SELECT h.id, h.slot FROM (SELECT h.id, h.slot, h.flow, h.finished_at{{place}}
        FROM taskharbor.history h WHERE {{which}}) h
    WHERE ({{over}}) AND {_FREE} AND {_NOW} IS NOT NULL LIMIT $3::text::bigint),
gone AS (DELETE FROM taskharbor.history h USING chosen c WHERE h.id = c.id AND h.slot = c.slot RETURNING 1)
SELECT count(*) FROM gone"""


def retention_set(step: Step, request: RetentionSet) -> Routine[Sequence[bool]]:
    """Set rules and return of each whether it changed anything, in order."""
    answers: list[bool] = []
    for rule in request.rules:
        if rule.keep_for is None and rule.keep_last is None:
            rows = yield Query(_UNSET, (rule.task, rule.state.value))
        else:
            cells = (rule.task, rule.state.value, *_numbers(rule), request.by, request.reason)
            rows = yield Query(_SET, (step.now, *cells))
        answers.append(bool(rows))
    return answers


def _numbers(rule: RetentionRule) -> tuple[str | None, str | None]:
    return (
        None if rule.keep_for is None else micros_text(rule.keep_for),
        None if rule.keep_last is None else str(rule.keep_last),
    )


def retention_list(step: Step, request: RetentionList) -> Routine[Sequence[RetentionRecord]]:
    """Return the rules, sorted by task and state."""
    records = [
        RetentionRecord(
            rule=RetentionRule(
                task=task,
                state=JobState(state),
                keep_for=None if keep_for is None else as_duration(keep_for),
                keep_last=keep_last,
            ),
            set_at=from_micros(set_at),
            by=by,
            reason=reason,
        )
        for task, state, keep_for, keep_last, set_at, by, reason in (yield Query(_LIST))
    ]
    return sorted(records, key=lambda record: (record.rule.task, record.rule.state))


def apply_rules(step: Step, limit: int) -> Routine[tuple[int, bool]]:
    """Remove what rules say is not to be kept; return of how many jobs, and whether there may be more."""
    rules = [record.rule for record in (yield from retention_list(step, RetentionList()))]
    removed = 0
    for rule in rules:
        own = [other.task for other in rules if other.task and other.state is rule.state]
        removed += yield from _apply(step, rule, own, limit - removed)
        if removed >= limit:
            return removed, True
    return removed, False


def _apply(step: Step, rule: RetentionRule, own: Sequence[str], limit: int) -> Routine[int]:
    """Apply one rule, and return how many jobs it removed."""
    slots = f"h.slot = {DEAD}" if rule.state is JobState.DEAD else f"h.slot <> {DEAD}"
    tasks = "h.task = ANY ($2::text::text[])" if rule.task else "h.task <> ALL ($2::text::text[])"
    which = f"{slots} AND h.state = '{rule.state.value}' AND {tasks}"
    cells: list[Cell] = [step.now, text_array([rule.task] if rule.task else own), str(limit)]
    over: list[str] = []
    if rule.keep_for is not None:
        cells.append(micros_text(rule.keep_for))
        over.append(f"h.finished_at <= {_NOW} - {interval_of(f'${len(cells)}::text::bigint')}")
    if rule.keep_last is not None:
        cells.append(str(rule.keep_last))
        over.append(f"h.place > ${len(cells)}::text::bigint")
    sql = _DROP.replace("{place}", "" if rule.keep_last is None else _PLACE)
    ((removed,),) = yield Query(sql.replace("{which}", which).replace("{over}", " OR ".join(over)), cells)
    return int(removed)
