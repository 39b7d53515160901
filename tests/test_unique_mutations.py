"""The rules of uniqueness and aging are broken on purpose, and the conformance suite has to notice.

In the decision that all drivers share, in the memory driver and in SQLite's.
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
    one_in_six,
)
from tests.test_sqlite_mutations import SQLITE
from tests.test_sqlite_mutations import mutant_driver as mutant_sqlite


def _decision(old: str, new: str, why: str) -> Mutation:
    return Mutation("4.20", "driver/admission.py", old, new, why)


def _memory(rule: str, file: str, old: str, new: str, why: str) -> Mutation:
    return Mutation(rule, f"{MEMORY}{file}.py", old, new, why)


def _sqlite(rule: str, file: str, old: str, new: str, why: str) -> Mutation:
    return Mutation(rule, f"{SQLITE}{file}.py", old, new, why)


DECISION = [
    _decision("if holder.state in rule.states:", "if True:", "a rule keeps out in any state"),
    _decision("return now < holder.enqueued_at + rule.window", "return True", "a window is never over"),
    _decision("return now < holder.enqueued_at + rule.window", "return False", "a window keeps nobody out"),
    _decision(
        "if rule is None or holder.step:",
        "if rule is None:",
        "a step of a flow loses its key to those with a rule",
    ),
    _decision(
        "    if holder.state is None:  # its record is gone, and with it what a rule could look at\n"
        "        return False\n",
        "    if holder.state is None:\n        return True\n",
        "one whose record is gone keeps others out",
    ),
    _decision("replaces = keeps_out and holder", "replaces = holder", "what keeps nobody out is replaced"),
    _decision("and holder.state in REPLACEABLE and", "and", "a job that runs is replaced"),
    _decision(
        "        if holder.step:\n            return EnqueueStatus.CONFLICT\n",
        "",
        "a step of a flow is followed",
    ),
    _decision(
        "return EnqueueStatus.REPLACED if replaces else _CREATED",
        "return EnqueueStatus.REPLACED if replaces else EnqueueStatus.EXISTING",
        "the latest arguments are dropped beside a job that runs",
    ),
    _decision("state=_waits(job, now, holder)", "state=holder.state", "a replaced job is seen as it was"),
    _decision(
        "replaced is not None and replaced.tried",
        "replaced is not None",
        "a replaced job is seen as retrying",
    ),
    _decision(
        "_waits(before, now), now, step", "JobState.READY, now, step", "a job of the batch is seen as ready"
    ),
    _decision(
        "taken[name] = holder._replace(digest=job.digest,",
        "taken[name] = holder._replace(",
        "an old digest counts",
    ),
    _decision(
        "    if latest is None or now is None",
        "    if True or now is None",
        "in a batch a start is put off beyond its latest",
    ),
    _decision(
        "    return min(run_at, last), min(due_at, last)",
        "    return min(run_at, last), due_at",
        "a start is put off for ever",
    ),
    _decision(
        "    return min(run_at, last), min(due_at, last)",
        "    return min(run_at, last), max(min(run_at, last), now)",
        "a job past its latest loses its place",
    ),
    _decision(
        "    due_at = max(run_at, now)\n    if job.key_rule",
        "    due_at = run_at\n    if job.key_rule",
        "a time in the past overtakes",
    ),
    _decision(
        "return Admission(told, [], [], {}, {})",
        "return Admission(told, [], [], replaced, {})",
        "all or none replaces",
    ),
    _decision(
        "or not (answer.job_id in new or answer.status is EnqueueStatus.REPLACED)",
        "or answer.job_id not in new",
        "all or none tells of what it did not replace",
    ),
]

IN_MEMORY = [
    _memory(
        "4.20",
        "enqueue",
        "look=looks_at_holder(job) or name in holders",
        "look=False",
        "nobody looks at holders",
    ),
    _memory("4.20", "enqueue", "    row.job = job\n", "", "nothing takes the place"),
    _memory("4.20", "enqueue", "row.guarded or job.retry", "job.retry", "a crash is forgotten"),
    _memory(
        "4.20",
        "enqueue",
        "row.guarded = row.guarded or job.retry.max_attempts == 1",
        "pass",
        "one attempt is spent unseen",
    ),
    _memory("4.20", "enqueue", "    row.stray = None\n", "", "what was parked stays so"),
    _memory("4.20", "enqueue", "else micros(now)", "else micros(due_at)", "a place is taken in another lane"),
    _memory("4.20", "enqueue", 'row.stray_reason = row.reason = ""', "pass", "a reason outlives its cause"),
    _memory("4.20", "enqueue", "    tables.make_due(row, due, NORMAL)\n", "", "time does not move"),
    _memory(
        "4.20",
        "enqueue",
        "        tables.keys[job.task, job.key] = Key(job.id, job.digest)\n    tables.make_due",
        "        pass\n    tables.make_due",
        "the key keeps its old digest",
    ),
    _memory("4.20", "enqueue", "tried=row.attempt > 0", "tried=False", "attempts are not seen"),
    _memory(
        "4.20", "enqueue", "step=row.job.step is not None,\n        tried", "tried", "steps are not seen"
    ),
    _memory(
        "4.20",
        "tables",
        "if key is not None and key.job_id == job.id:",
        "if key is not None:",
        "an end frees another's key",
    ),
    _memory(
        "4.21",
        "reserve",
        "if request.aged is not None:\n            walk",
        "if False:\n            walk",
        "nothing ages",
    ),
    _memory(
        "4.21",
        "walk",
        "for slot in range(LANES, PRIORITIES",
        "for slot in range(PRIORITIES",
        "the first priority ages",
    ),
    _memory(
        "4.21",
        "walk",
        "if slot % LANES != SOLO and source.heaps.heaps[slot]\n",
        "if source.heaps.heaps[slot]\n",
        "solo jobs age",
    ),
    _memory(
        "4.21",
        "walk",
        "range(min(aged.limit, self.limit))",
        "range(aged.limit)",
        "aged jobs exceed the limit",
    ),
    _memory(
        "4.21",
        "walk",
        "range(min(aged.limit, self.limit))",
        "range(self.limit)",
        "the share has no bound",
    ),
    _memory(
        "4.21",
        "walk",
        "if self._room(source) > 0 and (head",
        "if (head",
        "aged jobs exceed a quota",
    ),
    _memory("4.21", "walk", "min(heads, key=itemgetter(0))", "heads[0]", "aged jobs go in order of priority"),
    _memory("4.21", "walk", "if due >= before or (", "if due > before or (", "a job ages too soon"),
    _memory(
        "4.21",
        "walk",
        "or (row.guarded and self.guarded_left <= 0)",
        "",
        "guarded jobs age beyond their limit",
    ),
    _memory(
        "4.21",
        "walk",
        "self.guarded_left -= row.guarded\n",
        "pass\n",
        "aged guarded jobs are not counted",
    ),
]

IN_SQLITE = [
    _sqlite("4.20", "enqueue", "options = excluded.options", "options = options", "options are kept"),
    _sqlite("4.20", "enqueue", "queue = excluded.queue", "queue = queue", "the queue is kept"),
    _sqlite("4.20", "enqueue", "priority = excluded.priority", "priority = priority", "the priority is kept"),
    _sqlite(
        "4.20",
        "enqueue",
        "iif(lane IN ({SOLO}, {LINES + SOLO}), {SOLO}, {NORMAL})",
        "lane",
        "what was handed back stays in front",
    ),
    _sqlite(
        "4.20",
        "enqueue",
        "iif(lane IN ({SOLO}, {LINES + SOLO}), {SOLO}, {NORMAL})",
        "{NORMAL}",
        "a solo job leaves its lane",
    ),
    _sqlite("4.20", "enqueue", "due = {_DUE}", "due = due", "time does not move"),
    _sqlite("4.20", "enqueue", "max(guarded, excluded.guarded)", "excluded.guarded", "a crash is forgotten"),
    _sqlite("4.20", "enqueue", "max(guarded, excluded.guarded)", "guarded", "one attempt is spent unseen"),
    _sqlite(
        "4.20",
        "enqueue",
        "ELSE excluded.enqueued_at END",
        "ELSE excluded.due END",
        "a place is taken in another lane",
    ),
    _sqlite("4.20", "enqueue", "stray = 0, stray_reason", "stray_reason", "what was parked stays so"),
    _sqlite("4.20", "enqueue", "stray_reason = NULL, ", "", "a reason outlives its cause"),
    _sqlite("4.20", "enqueue", "run_at = excluded.run_at", "run_at = run_at", "the time asked for is kept"),
    _sqlite("4.20", "enqueue", "timeout = excluded.timeout", "timeout = timeout", "the timeout is kept"),
    _sqlite("4.20", "enqueue", "payload = excluded.payload", "payload = payload", "the old arguments stay"),
    _sqlite(
        "4.20",
        "enqueue",
        "digest = excluded.digest",
        "digest = digest",
        "a requeue brings the old digest back",
    ),
    _sqlite("4.20", "enqueue", "meta = excluded.meta", "meta = meta", "metadata are kept"),
    _sqlite("4.20", "holders", "if looks_at_holder(job)", "if False", "nobody looks at holders"),
    _sqlite("4.20", "holders", "attempt > 0 AS tried", "0 AS tried", "attempts are not seen"),
    _sqlite("4.20", "holders", "step IS NOT NULL AS stepped", "0 AS stepped", "steps are not seen"),
    _sqlite(
        "4.20",
        "holders",
        "FROM taskharbor_dead {_THESE})",
        "FROM taskharbor_dead WHERE 0)",
        "dead letters are not seen",
    ),
    _sqlite(
        "4.20",
        "holders",
        "Shut((yield from parked_strays(now)), None)",
        "Shut(set(), None)",
        "what is parked is seen as ready",
    ),
    _sqlite(
        "4.21",
        "reserve",
        "if request.aged is not None:\n            yield",
        "if False:\n            yield",
        "nothing ages",
    ),
    _sqlite("4.21", "walk", "and head.priority > 0 ", "", "the first priority ages"),
    _sqlite("4.21", "walk", "and head.lane != SOLO and room > 0", "and room > 0", "solo jobs age"),
    _sqlite(
        "4.21",
        "walk",
        "limit = min(aged.limit, self.limit)",
        "limit = aged.limit",
        "aged jobs exceed the limit",
    ),
    _sqlite(
        "4.21",
        "walk",
        "limit = min(aged.limit, self.limit)",
        "limit = self.limit",
        "the share has no bound",
    ),
    _sqlite(
        "4.21",
        "walk",
        "for _, job_id, guarded, queue in heapq.merge(*lines):",
        "for _, job_id, guarded, queue in [job for line in lines for job in line]:",
        "aged jobs go in order of priority",
    ),
    _sqlite(
        "4.21",
        "walk",
        "duration_micros(aged.after) - 1",
        "duration_micros(aged.after)",
        "a job ages too soon",
    ),
    _sqlite(
        "4.21",
        "walk",
        "or (guarded and self.guarded_left <= 0):\n                break",
        "or False:\n                break",
        "guarded jobs age beyond their limit",
    ),
    _sqlite(
        "4.21",
        "walk",
        "                self.guarded_left -= guarded\n                self._note_taken(queue, 1)\n"
        "                self.taken.append(job_id)\n        self",
        "                self._note_taken(queue, 1)\n                self.taken.append(job_id)\n        self",
        "aged guarded jobs are not counted",
    ),
    _sqlite(
        "4.21",
        "walk",
        "            if self._room(queue) > 0:\n",
        "            if True:\n",
        "aged jobs exceed a quota",
    ),
    _sqlite("4.21", "walk", "self._aged = frozenset(self.taken)", "pass", "an aged job is taken twice"),
    _sqlite(
        "4.21",
        "walk",
        "room + len(self._aged)",
        "room",
        "the order of priorities stops short of what is aged",
    ),
]


def _name(mutation: Mutation) -> str:
    return mutation.why.replace(" ", "_")


def _cases(rule: str) -> Sequence[Case]:
    """Return the families' cases of a rule; those with threads come last."""
    found = [case for case in cases(rule=rule) if case.family in ("unique", "replace", "aged")]
    return sorted(found, key=lambda case: "of_many" in case.name or "while_others" in case.name)


def test_every_mutation_has_its_place() -> None:
    assert misplaced([*DECISION, *IN_MEMORY, *IN_SQLITE]) == []


@pytest.mark.slow
@pytest.mark.parametrize("mutation", DECISION, ids=_name)
def test_a_decision_that_breaks_a_rule_is_noticed(mutation: Mutation, tmp_path: Path) -> None:
    copy_package(tmp_path, mutation)

    code, said = in_a_process(tmp_path, mutation.rule)

    assert code == NOTICED, f"{mutation.why}, and none of the cases fails: {said}"


@pytest.mark.parametrize("mutation", one_in_six(IN_MEMORY))
def test_a_rule_broken_in_memory_is_noticed(
    mutation: Mutation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskharbor_conformance.bench.WAKE_SECONDS", 0.5)

    with mutant_driver(tmp_path, mutation) as factory:
        noticed = first_failing(_cases(mutation.rule), factory)

    assert noticed, f"{mutation.why}, and none of the cases of rule {mutation.rule} fails"


@pytest.mark.slow
@pytest.mark.parametrize("mutation", IN_SQLITE, ids=_name)
def test_a_rule_broken_in_sqlite_is_noticed(
    mutation: Mutation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskharbor_conformance.bench.WAKE_SECONDS", 0.5)

    with mutant_sqlite(tmp_path, mutation) as factory:
        noticed = first_failing(_cases(mutation.rule), factory)

    assert noticed, f"{mutation.why}, and none of the cases of rule {mutation.rule} fails"
