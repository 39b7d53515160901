"""Rules of retention: what is kept of ended jobs, by time and by count. Applied in chunks, when asked."""

from __future__ import annotations

from collections.abc import Sequence

from taskharbor.clock import duration_micros, from_micros
from taskharbor.driver import RetentionList, RetentionRecord, RetentionRule, RetentionSet
from taskharbor.drivers.sqlite.report import forget_reports
from taskharbor.drivers.sqlite.routine import Query, Routine
from taskharbor.drivers.sqlite.rows import Step, as_duration, json_text
from taskharbor.job import JobState

_RULES = """SELECT task, state, keep_for, keep_last, set_at, set_by, reason FROM taskharbor_retention
    ORDER BY task, state"""
_SET = """INSERT INTO taskharbor_retention (task, state, keep_for, keep_last, set_at, set_by, reason)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (task, state) DO UPDATE SET keep_for = ?3, keep_last = ?4,
    set_at = ?5, set_by = ?6, reason = ?7 WHERE keep_for IS NOT ?3 OR keep_last IS NOT ?4"""
_REMOVE = "DELETE FROM taskharbor_retention WHERE task = ? AND state = ?"
_TASKS = "SELECT DISTINCT task FROM {table} WHERE {state}"
# A step whose flow has not ended is kept: it may be wanted still.
_FREE = """NOT EXISTS (SELECT 1 FROM taskharbor_flow f
    WHERE f.id = ended.flow AND f.state IN ('running', 'failed'))"""
_BEYOND = f"""SELECT id FROM (
    SELECT id, flow, finished_at, row_number() OVER (ORDER BY finished_at DESC, id DESC) AS number
    FROM {{table}} WHERE {{state}} AND task = ?) ended
    WHERE (number > ? OR finished_at <= ?) AND {_FREE} LIMIT ?"""  # noqa: S608 - our own constants
_ENDLESS = 1 << 62


def retention_set(step: Step, request: RetentionSet) -> Routine[Sequence[bool]]:
    """Set rules; return of each whether it changed anything, in order."""
    answers: list[bool] = []
    for rule in request.rules:
        if rule.keep_for is None and rule.keep_last is None:
            yield Query(_REMOVE, (rule.task, rule.state.value))
        else:
            keep_for = None if rule.keep_for is None else duration_micros(rule.keep_for)
            note = (step.now, request.by, request.reason)
            yield Query(_SET, (rule.task, rule.state.value, keep_for, rule.keep_last, *note))
        ((changed,),) = yield Query("SELECT changes()")
        answers.append(bool(changed))
    return answers


def retention_list(step: Step, request: RetentionList) -> Routine[Sequence[RetentionRecord]]:
    """Return the rules, sorted by task and state."""
    rows = yield Query(_RULES)
    return [
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
        for task, state, keep_for, keep_last, set_at, by, reason in rows
    ]


def apply_rules(step: Step, limit: int) -> Routine[int]:
    """Remove what rules do not keep, at most so many jobs, and return how many."""
    records = yield from retention_list(step, RetentionList())
    rules = {(record.rule.task, record.rule.state): record.rule for record in records}
    removed = 0
    for state in sorted({state for _, state in rules}):
        table = "taskharbor_dead" if state is JobState.DEAD else "taskharbor_history"
        words = {"table": table, "state": "1" if state is JobState.DEAD else f"state = '{state.value}'"}
        tasks = yield Query(_TASKS.format(**words))
        for (task,) in tasks:
            rule = rules.get((task, state)) or rules.get(("", state))
            if rule is None or removed >= limit:
                continue
            removed += yield from _remove(step, rule, task, words, limit - removed)
    return removed


def _remove(step: Step, rule: RetentionRule, task: str, words: dict[str, str], limit: int) -> Routine[int]:
    kept = _ENDLESS if rule.keep_last is None else rule.keep_last
    oldest = -_ENDLESS if rule.keep_for is None else step.now - duration_micros(rule.keep_for)
    rows = yield Query(_BEYOND.format(**words), (task, kept, oldest, limit))
    ids = [job_id for (job_id,) in rows]
    if ids:
        yield from forget_reports(ids)
        yield Query(
            f"DELETE FROM {words['table']} WHERE id IN (SELECT value FROM json_each(?))",  # noqa: S608 - our own constants
            (json_text(ids),),
        )
    return len(ids)
