"""Rules of retention: what is kept of ended jobs, by time and by count."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from taskharbor.clock import duration_micros, from_micros
from taskharbor.driver import RetentionList, RetentionRecord, RetentionRule, RetentionSet
from taskharbor.drivers.memory.rows import Row
from taskharbor.drivers.memory.tables import Tables
from taskharbor.flow import FLOW_ENDED
from taskharbor.job import JobState


def retention_set(tables: Tables, request: RetentionSet, now: int) -> Sequence[bool]:
    """Set rules; return of each whether it changed anything, in order."""
    return [_set(tables, rule, request, now) for rule in request.rules]


def _set(tables: Tables, rule: RetentionRule, request: RetentionSet, now: int) -> bool:
    name = (rule.task, rule.state)
    before = tables.retention.get(name)
    if rule.keep_for is None and rule.keep_last is None:
        return tables.retention.pop(name, None) is not None
    if before is not None and before.rule == rule:
        return False
    tables.retention[name] = RetentionRecord(
        rule=rule, set_at=from_micros(now), by=request.by, reason=request.reason
    )
    return True


def retention_list(tables: Tables, request: RetentionList, now: int) -> Sequence[RetentionRecord]:
    """Return the rules, sorted by task and state."""
    return [record for _, record in sorted(tables.retention.items())]


def beyond_rules(tables: Tables, now: int) -> Iterator[Row]:
    """Yield the ended jobs that rules do not keep."""
    if not tables.retention:
        return
    ended: dict[tuple[str, JobState], list[Row]] = {}
    for row in tables.rows.values():
        if row.final is not None:
            ended.setdefault((row.job.task, row.final), []).append(row)
    for (task, state), rows in ended.items():
        record = tables.retention.get((task, state)) or tables.retention.get(("", state))
        if record is None:
            continue
        rule = record.rule
        rows.sort(key=lambda row: (row.finished, row.job.id), reverse=True)
        kept = len(rows) if rule.keep_last is None else rule.keep_last
        oldest = None if rule.keep_for is None else now - duration_micros(rule.keep_for)
        yield from (
            row
            for number, row in enumerate(rows)
            if (number >= kept or (oldest is not None and row.finished <= oldest))
            and not _is_needed(tables, row)
        )


def _is_needed(tables: Tables, row: Row) -> bool:
    """Return whether a row is a step of a flow that has not ended."""
    step = row.job.step
    if step is None or not step.flow:
        return False
    flow = tables.flows.get(step.flow)
    return flow is not None and flow.state not in FLOW_ENDED
