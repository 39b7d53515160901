"""The rules of schedules and leadership are broken on purpose, and the conformance suite has to notice.

In the decisions that all drivers share, in the memory driver and in SQLite's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from taskharbor_conformance import Case, cases
from tests.test_mutations import (
    MEMORY,
    NOTICED,
    Mutation,
    copy_package,
    first_failing,
    in_a_process,
    misplaced,
    mutant_driver,
    mutation_name,
    one_in_six,
)
from tests.test_sqlite_mutations import SQLITE
from tests.test_sqlite_mutations import mutant_driver as mutant_sqlite

SCHEDULES, LEADERS = "4.22", "4.23"


def _decision(file: str, old: str, new: str, why: str) -> Mutation:
    return Mutation(SCHEDULES, f"driver/{file}.py", old, new, why)


def _memory(rule: str, file: str, old: str, new: str, why: str) -> Mutation:
    return Mutation(rule, f"{MEMORY}{file}.py", old, new, why)


def _sqlite(rule: str, file: str, old: str, new: str, why: str) -> Mutation:
    return Mutation(rule, f"{SQLITE}{file}.py", old, new, why)


DECISIONS = [
    _decision(
        "declaring",
        "if given < present.generation:",
        "if False:",
        "an old worker takes over by its number",
    ),
    _decision(
        "declaring",
        "if request.digest in known and not request.force:",
        "if False:",
        "an old worker restores what a new one removed",
    ),
    _decision(
        "declaring",
        "if request.digest in known and not request.force:",
        "if request.digest in known:",
        "a rollback cannot be forced",
    ),
    _decision(
        "declaring",
        "return DeclareStatus.DECLARED, present.generation + 1",
        "return DeclareStatus.DECLARED, present.generation",
        "generations do not grow",
    ),
    _decision(
        "declaring",
        "revision=new_token() >> _FREE_BITS,",
        "revision=1,",
        "a schedule made again is mistaken for the one before",
    ),
    _decision(
        "declaring",
        "        revision=record.revision + 1,\n",
        "",
        "a change is not seen by who has read the schedule before",
    ),
    _decision(
        "declaring",
        "or (moved and record.ended):",
        "or False:",
        "an end that is moved has the past made up for",
    ),
    _decision(
        "declaring",
        "replace(changed, next_at=None) if moved else changed",
        "replace(changed, next_at=None)",
        "any change loses the next tick",
    ),
    _decision(
        "declaring",
        "if before_it.trigger != after_it.trigger or",
        "if",
        "ticks go on by the trigger of old",
    ),
    _decision(
        "declaring",
        "if record.application == request.application)",
        "if True)",
        "an application removes the schedules of others",
    ),
    _decision("timetable", "if record.paused_at is not None:", "if False:", "a pause is begun anew"),
    _decision("timetable", "        after=now,\n", "", "what a pause let pass is made up for"),
    _decision(
        "timetable",
        "        waiting_tick=None,\n        revision",
        "        revision",
        "a tick waits through a pause",
    ),
    _decision(
        "timetable",
        "answer.status is EnqueueStatus.CREATED",
        "True",
        "jobs are counted that were not made",
    ),
    _decision("timetable", "in reversed(answers)", "in answers", "the first job of a batch is the last"),
    _decision("timetable", "if firing.after is None:", "if False:", "a trigger by hand moves the ticks"),
    _decision(
        "timetable",
        "record.missed + firing.missed",
        "firing.missed",
        "what was missed is not added up",
    ),
    _decision(
        "timetable", "and answer.job_id != job.id", "", "a job that is stored already counts as kept out"
    ),
    _decision(
        "timetable",
        "record.kept_out + came.kept_out",
        "came.kept_out",
        "what was kept out is not added up",
    ),
]

IN_MEMORY = [
    _memory(
        SCHEDULES,
        "schedule",
        "if record is None or record.revision != firing.revision:",
        "if record is None:",
        "a tick has a job for each who fires it",
    ),
    _memory(SCHEDULES, "schedule", "> request.fence:", "< 0:", "a leader of old fires"),
    _memory(SCHEDULES, "schedule", "> request.fence:", ">= request.fence:", "a leader cannot fire"),
    _memory(SCHEDULES, "schedule", "if record.paused_at is not None:", "if False:", "what is paused is due"),
    _memory(SCHEDULES, "schedule", "if not record.ended:", "if True:", "what has ended is due"),
    _memory(
        SCHEDULES,
        "schedule",
        "[] if record.waiting_tick is None or busy else",
        "[] if record.waiting_tick is None else",
        "a tick does not wait for the job before it",
    ),
    _memory(
        SCHEDULES,
        "schedule",
        "if not record.ended:",
        "if record.ended:\n            continue\n        if True:",
        "the last tick that waits is lost",
    ),
    _memory(
        SCHEDULES,
        "schedule",
        "row is not None and row.final is None",
        "row is not None",
        "a schedule is busy for ever",
    ),
    _memory(SCHEDULES, "schedule", "next_at <= at else", "next_at < at else", "a tick is due too late"),
    _memory(
        SCHEDULES,
        "schedule",
        "key=lambda one: (one[0], one[1].record.name)",
        "key=lambda one: one[1].record.name",
        "the longest due does not come first",
    ),
    _memory(
        SCHEDULES,
        "schedule",
        "timedelta(0) if len(taken) < len(due) else next_in",
        "next_in",
        "a limit is not told",
    ),
    _memory(
        SCHEDULES,
        "schedule",
        "if request.replace and there.application is None:",
        "if request.replace:",
        "what is declared is replaced by hand",
    ),
    _memory(
        SCHEDULES,
        "schedule",
        "    digests.pop(request.digest, None)\n",
        "",
        "a rollback is outdated at once",
    ),
    _memory(SCHEDULES, "schedule", "> DECLARATIONS:", "> 1:", "old declarations are forgotten"),
    _memory(
        SCHEDULES,
        "schedule",
        "        del tables.schedules[name]\n",
        "        pass\n",
        "what is declared no more stays",
    ),
    _memory(LEADERS, "leader", "last.fence + 1", "last.fence", "a fence is given twice"),
    _memory(
        LEADERS,
        "leader",
        "last is None or last.expires <= now or",
        "last is None or",
        "a leader that died leads for ever",
    ),
    _memory(
        LEADERS,
        "leader",
        "replace(last, expires=until)",
        "replace(last, expires=until, fence=last.fence + 1)",
        "who goes on leading is fenced off by itself",
    ),
    _memory(
        LEADERS,
        "leader",
        "    tables.leaders[request.role] = replace(last, expires=now)",
        "    del tables.leaders[request.role]",
        "fences begin anew when nobody leads",
    ),
    _memory(
        LEADERS,
        "leader",
        "last.worker != request.worker or ",
        "",
        "anybody ends a leadership",
    ),
    _memory(LEADERS, "leader", "if last.expires > now]", "]", "who led once is listed"),
]

IN_SQLITE = [
    _sqlite(
        SCHEDULES,
        "schedule",
        "if revisions.get(firing.name) == firing.revision:",
        "if firing.name in revisions:",
        "a tick has a job for each who fires it",
    ),
    _sqlite(
        SCHEDULES,
        "schedule",
        "            del revisions[firing.name]",
        "            pass",
        "a batch fires twice",
    ),
    _sqlite(
        SCHEDULES,
        "schedule",
        "last_fence(UPKEEP)) > request.fence",
        "last_fence(UPKEEP)) < 0",
        "old ones fire",
    ),
    _sqlite(
        SCHEDULES, "schedule", "s.paused_at IS NULL AND s.ended = 0", "s.ended = 0", "what is paused is due"
    ),
    _sqlite(
        SCHEDULES, "schedule", "s.paused_at IS NULL AND s.ended = 0", "s.paused_at IS NULL", "ended ones are"
    ),
    _sqlite(SCHEDULES, "schedule", " AND NOT {_BUSY}", "", "a tick does not wait for the job before it"),
    _sqlite(
        SCHEDULES,
        "schedule",
        "key=lambda row: (row[-2], row[0])",
        "key=lambda row: row[0]",
        "the longest due does not come first",
    ),
    _sqlite(SCHEDULES, "schedule", "limit + 1))\n    kept", "limit))\n    kept", "a limit is not told"),
    _sqlite(
        SCHEDULES,
        "schedule",
        "after_at = ?2, due = ?3,\n",
        "due = ?3,\n",
        "what a pause let pass is made up for",
    ),
    _sqlite(
        SCHEDULES,
        "schedule",
        "WHERE name IN (SELECT value FROM json_each(?1)) AND paused_at IS NULL",
        "WHERE name IN (SELECT value FROM json_each(?1))",
        "a pause is begun anew",
    ),
    _sqlite(
        SCHEDULES,
        "schedule",
        "due = CASE WHEN e.value ->> 6 IS NULL THEN due ELSE e.value ->> 7 END",
        "due = e.value ->> 7",
        "a trigger by hand moves the ticks",
    ),
    _sqlite(SCHEDULES, "schedule", "missed = missed + (", "missed = (", "what was missed is not added up"),
    _sqlite(
        SCHEDULES,
        "schedule_rows",
        "TO_COMPUTE = -(1 << 62)",
        "TO_COMPUTE = 1 << 62",
        "what is to be computed is not due",
    ),
    _sqlite(
        SCHEDULES,
        "declaring",
        "    yield Query(_FORGET, (request.application, request.digest))\n",
        "    if False:\n        yield Query(_FORGET, ())\n",
        "a rollback fails",
    ),
    _sqlite(
        SCHEDULES,
        "declaring",
        'ORDER BY number DESC LIMIT 1"',
        'ORDER BY number LIMIT 1"',
        "the first stands",
    ),
    _sqlite(LEADERS, "leader", "last_fence + 1, step.now", "last_fence, step.now", "a fence is given twice"),
    _sqlite(
        LEADERS, "leader", "step.now < expires_at <=", "expires_at <=", "a leader that died leads for ever"
    ),
    _sqlite(LEADERS, "leader", "AND worker = ?3 ", "AND ?3 <> '' ", "anybody ends a leadership"),
    _sqlite(
        LEADERS,
        "leader",
        "last_worker == request.worker and last_until > step.now",
        "False",
        "who goes on is a new one",
    ),
    _sqlite(LEADERS, "leader", "WHERE expires_at > ? ORDER", "WHERE ? ORDER", "who led once is listed"),
]


def _cases(rule: str) -> Sequence[Case]:
    """Return the families' cases of a rule; those with threads come last."""
    found = [case for case in cases(rule=rule) if case.family.startswith(("schedule", "leader"))]
    return sorted(found, key=lambda case: case.family == "schedule_concurrency" or "of_many" in case.name)


def test_every_mutation_has_its_place() -> None:
    assert misplaced([*DECISIONS, *IN_MEMORY, *IN_SQLITE]) == []


@pytest.mark.slow
@pytest.mark.parametrize("mutation", DECISIONS, ids=mutation_name)
def test_a_decision_that_breaks_a_rule_is_noticed(mutation: Mutation, tmp_path: Path) -> None:
    copy_package(tmp_path, mutation)

    code, said = in_a_process(tmp_path, mutation.rule)

    assert code == NOTICED, f"{mutation.why}, and none of the cases fails: {said}"


@pytest.mark.parametrize("mutation", one_in_six(IN_MEMORY))
def test_a_rule_broken_in_memory_is_noticed(mutation: Mutation, tmp_path: Path) -> None:
    with mutant_driver(tmp_path, mutation) as factory:
        noticed = first_failing(_cases(mutation.rule), factory)

    assert noticed, f"{mutation.why}, and none of the cases of rule {mutation.rule} fails"


@pytest.mark.slow
@pytest.mark.parametrize("mutation", IN_SQLITE, ids=mutation_name)
def test_a_rule_broken_in_sqlite_is_noticed(mutation: Mutation, tmp_path: Path) -> None:
    with mutant_sqlite(tmp_path, mutation) as factory:
        noticed = first_failing(_cases(mutation.rule), factory)

    assert noticed, f"{mutation.why}, and none of the cases of rule {mutation.rule} fails"
