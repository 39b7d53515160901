"""Reports, feed, counters and filters are broken on purpose, and their own cases have to notice.

As in `test_mutations`, but tried by the cases of a family, since these verbs have no rule of their own: a mutation's
`rule` is that family.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from taskharbor_conformance import cases
from tests.test_mutations import (
    MEMORY,
    Mutation,
    first_failing,
    misplaced,
    mutant_driver,
    one_in_six,
)
from tests.test_sqlite_mutations import broken
from tests.test_sqlite_mutations import mutant_driver as mutant_sqlite


def memory(family: str, file: str, old: str, new: str, why: str) -> Mutation:
    """Return a mutation of one of the memory driver's files."""
    return Mutation(family, f"{MEMORY}{file}.py", old, new, why)


IN_MEMORY = [
    memory("report", "report", "row.token != report.token", "row.token is None", "a report is not fenced"),
    memory("report", "report", "row.token != report.token", "False", "a job that is not held takes reports"),
    memory(
        "report",
        "report",
        "if report.progress is not None:",
        "if True:",
        "a report without progress takes away the last one",
    ),
    memory(
        "report",
        "report",
        "(*report.lines[::-1], *told.lines)",
        "report.lines",
        "each report begins the log anew",
    ),
    memory(
        "report",
        "report",
        "(*report.lines[::-1], *told.lines)",
        "(*told.lines, *report.lines)",
        "a line told again takes the place of the first",
    ),
    memory(
        "report",
        "report",
        "sorted(lines)[-LOG_LIMIT:]",
        "sorted(lines)[:LOG_LIMIT]",
        "the first lines are kept",
    ),
    memory(
        "report", "report", "sorted(lines)[-LOG_LIMIT:]", "list(lines)[-LOG_LIMIT:]", "lines are in no order"
    ),
    memory(
        "report",
        "control",
        "    tables.reports.pop(row.job.id, None)\n",
        "",
        "what was told outlives its job",
    ),
    memory(
        "event", "event", "if not is_watched(tables, now):", "if False:", "events are kept while nobody looks"
    ),
    memory("event", "event", "until > now for until", "True for until", "a watch never ends"),
    memory(
        "event",
        "event",
        "until if before is None else max(until, before)",
        "until",
        "a watch asked again is shortened",
    ),
    memory("event", "event", "if event.id not in feed.ids:", "if True:", "an event is kept twice"),
    memory("event", "event", "cursor.number < feed.removed", "False", "nobody is told what he missed"),
    memory(
        "event",
        "event",
        "cursor.number < feed.removed",
        "cursor.number <= feed.removed",
        "too many are told so",
    ),
    memory(
        "event",
        "event",
        "feed.events[0].at < kept_since",
        "feed.events[0].event.at.timestamp() * 1e6 < kept_since",
        "events are removed by the time that they tell",
    ),
    memory("event", "event", "        if until <= now:\n", "        if True:\n", "a prune ends all watches"),
    memory(
        "event", "lease", "watched=is_watched(tables, now)", "watched=False", "no worker hears of readers"
    ),
    memory(
        "statistics",
        "statistics",
        "tally.ending, request.worker] = tally",
        'tally.ending, ""] = tally',
        "workers overwrite each other",
    ),
    memory(
        "statistics",
        "statistics",
        "count=before.count + tally.count",
        "count=tally.count",
        "nothing is added up",
    ),
    memory(
        "statistics",
        "statistics",
        "tally.minute < request.until",
        "tally.minute <= request.until",
        "a span has its end",
    ),
    memory("statistics", "statistics", " if sums[place].count]", "]", "counts of none are told"),
    memory("statistics", "statistics", "counter[0] < kept_since", "False", "minutes are kept for ever"),
    memory("filters", "find", 'last.rpartition(".")[2]', "last", "the last part of a name finds nothing"),
    memory("filters", "find", "row.errors[-1].type", "row.errors[0].type", "the first error counts"),
    memory("filters", "find", "row.errors[-1].message", "row.errors[0].message", "the first message counts"),
    memory("filters", "find", "sought in reason.translate(_LOWER) or ", "", "reasons are not looked through"),
    memory(
        "filters",
        "find",
        ".translate(_LOWER)\n    return",
        ".lower()\n    return",
        "case does not matter beyond Z",
    ),
    memory(
        "filters",
        "find",
        "if row.final is None:\n        return False",
        "if False:\n        return False",
        "what runs has ended",
    ),
    memory("filters", "find", "finished < before", "finished <= before", "a span has its end"),
]

IN_SQLITE = [
    broken("report", "report", "AND j.token = e.value ->> 1", "", "a report is not fenced"),
    broken(
        "report",
        "report",
        "INSERT OR IGNORE INTO taskharbor_log",
        "INSERT OR REPLACE INTO taskharbor_log",
        "the last telling of a line stands",
    ),
    broken("report", "report", "LOG_LIMIT - 1", "LOG_LIMIT", "a line too many is kept"),
    broken("report", "report", "(fence, number) < (", "(fence, number) > (", "the first lines are kept"),
    broken(
        "report", "report", "WHERE job_id = ?1 AND (fence", "WHERE (fence", "lines of other jobs are removed"
    ),
    broken(
        "report",
        "control",
        "        yield from forget_reports([job_id])\n",
        "",
        "what was told outlives its job",
    ),
    broken("event", "event", "WHERE until > ?)", "WHERE 1 OR until > ?)", "a watch never ends"),
    broken(
        "event",
        "event",
        "until = max(until, excluded.until)",
        "until = excluded.until",
        "a watch asked again is shortened",
    ),
    broken("event", "event", "ON CONFLICT (id) DO NOTHING", "", "an event told twice is an error"),
    broken("event", "event", "f.last + 1 + e.key", "f.last - e.key", "events are numbered backwards"),
    broken(
        "event",
        "event",
        "missed = not known or asked < removed",
        "missed = not known",
        "nobody is told what he missed",
    ),
    broken("event", "event", "max(asked, removed)", "asked", "who missed something is told so for ever"),
    broken(
        "event",
        "event",
        "number > ? ORDER BY",
        "number >= ? ORDER BY",
        "the last event of a page comes again",
    ),
    broken("event", "upkeep", "    yield Query(_REMOVED, old)\n", "", "what was removed is not noted"),
    broken("event", "lease", "watched=bool(watched)", "watched=False", "no worker hears of readers"),
    broken(
        "statistics",
        "statistics",
        "SELECT ?2, e.value ->> 0",
        "SELECT substr(?2, 1, 0), e.value ->> 0",
        "workers overwrite each other",
    ),
    broken("statistics", "statistics", "HAVING sum(count) <> 0 ", "", "counts of none are told"),
    broken("statistics", "statistics", "minute >= :since", "minute > :since", "a span has not its beginning"),
    broken(
        "filters",
        "filters",
        "substr({column}, -length(:error) - 1) = '.' || :error",
        "{column} LIKE '%.' || :error",
        "wildcards and cases match",
    ),
    broken(
        "filters",
        "filters",
        "instr(lower({column}), lower(:text)) > 0",
        "{column} LIKE '%' || :text || '%'",
        "wildcards match in texts",
    ),
    broken(
        "filters",
        "filters",
        "instr(lower({column}), lower(:text)) > 0",
        "instr({column}, :text) > 0",
        "case matters",
    ),
    broken(
        "filters", "filters", "finished_at < :out_before", "finished_at <= :out_before", "a span has its end"
    ),
    broken(
        "filters",
        "migrations",
        "WHERE id = new.id",
        "WHERE false",
        "dead letters are not found by their error",
    ),
    broken(
        "filters",
        "find",
        'ORDER BY {order} LIMIT :limit"  # noqa: S608 - our own constants\n            selects',
        'ORDER BY id LIMIT :limit"  # noqa: S608 - our own constants\n            selects',
        "dead letters are read upwards only",
    ),
]


def test_every_mutation_has_its_place() -> None:
    assert misplaced([*IN_MEMORY, *IN_SQLITE]) == []


@pytest.mark.parametrize("mutation", one_in_six(IN_MEMORY))
def test_what_is_broken_in_memory_is_noticed(mutation: Mutation, tmp_path: Path) -> None:
    with mutant_driver(tmp_path, mutation) as factory:
        noticed = first_failing(cases(family=mutation.rule), factory)

    assert noticed, f"{mutation.rule}: {mutation.why}, and no case of that family fails"


@pytest.mark.parametrize("mutation", one_in_six(IN_SQLITE))
def test_what_is_broken_in_sqlite_is_noticed(mutation: Mutation, tmp_path: Path) -> None:
    with mutant_sqlite(tmp_path, mutation) as factory:
        noticed = first_failing(cases(family=mutation.rule), factory)

    assert noticed, f"{mutation.rule}: {mutation.why}, and no case of that family fails"
