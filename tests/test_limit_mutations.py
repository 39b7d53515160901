"""The rules of limits, turns, acts and retention are broken on purpose, and the conformance suite has to notice.

In the decision that all drivers share, in the memory driver and in SQLite's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from unittest import mock

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

FAMILIES = ("limit", "limit_shown", "rate", "turns", "hold", "audit", "order", "retention_rules")


def _decision(rule: str, old: str, new: str, why: str) -> Mutation:
    return Mutation(rule, "driver/limiting.py", old, new, why)


def _memory(rule: str, file: str, old: str, new: str, why: str) -> Mutation:
    return Mutation(rule, f"{MEMORY}{file}.py", old, new, why)


def _sqlite(rule: str, file: str, old: str, new: str, why: str) -> Mutation:
    return Mutation(rule, f"{SQLITE}{file}.py", old, new, why)


DECISION = [
    _decision(
        "4.24",
        "room = min(room, terms.max_running - self._running.get(scope, 0))",
        "room = min(room, terms.max_running + 1 - self._running.get(scope, 0))",
        "one more runs than a limit allows",
    ),
    _decision(
        "4.24",
        "max_running=each.max_running if one.max_running is None else one.max_running",
        "max_running=each.max_running",
        "one key's own number is not looked at",
    ),
    _decision(
        "4.24",
        "rate=each.rate if one.rate is None else one.rate",
        "rate=one.rate",
        "a key with a number of its own has no rate",
    ),
    _decision(
        "4.24",
        "return self.queue_gate(queue) + (() if terms is None else ((scope, terms),))",
        "return () if terms is None else ((scope, terms),)",
        "lines do not heed their queue's limit",
    ),
    _decision(
        "4.24",
        "            self._running[scope] = self._running.get(scope, 0) + count\n            if terms",
        "            if terms",
        "what one reserve takes is not counted while it takes",
    ),
    _decision(
        "4.24",
        "self._arrival(scope, terms.rate) + count * interval(terms.rate)",
        "self._arrival(scope, terms.rate) + interval(terms.rate)",
        "several jobs cost a rate as much as one",
    ),
    _decision("4.24", "return max(known, self.now)", "return known", "a quiet time gathers without end"),
    _decision("4.24", "if known > latest:", "if False:", "a rate waits for what another said"),
    _decision(
        "4.24",
        "known = self.changed[scope] = latest",
        "known = latest",
        "a rate that is ahead is put off with each look",
    ),
    _decision(
        "4.24",
        "-(-duration_micros(rate.per) // rate.limit)",
        "duration_micros(rate.per) // rate.limit",
        "a rate is rounded up",
    ),
    _decision("4.24", "if gates.room(line) <= 0:", "if False:", "lines heed no limits"),
    _decision(
        "4.24",
        "for scope in (Scope(ScopeKind.TASK, task), Scope(ScopeKind.KEY, task, partition)):",
        "for scope in (Scope(ScopeKind.TASK, task),):",
        "single keys are not held back",
    ),
    _decision(
        "4.24",
        "for scope in (Scope(ScopeKind.TASK, task), Scope(ScopeKind.KEY, task, partition)):",
        "for scope in (Scope(ScopeKind.KEY, task, partition),):",
        "whole tasks are not held back",
    ),
    _decision(
        "4.24",
        "        if self.rules.hold(line.task, line.partition) is not None:\n            return 0\n",
        "",
        "what is held back is taken",
    ),
    _decision(
        "4.24",
        'return f"{scope} is at its rate"',
        "pass",
        "what a rate keeps back is shown as ready",
    ),
    _decision("4.25", "            quota.partitioned -= 1\n", "", "more is taken than can be started"),
    _decision("4.25", "return token & 1 == 1", "return True", "lines always go before plain jobs"),
    _decision(
        "4.25", "(job.guarded and quota.guarded <= 0) or ", "", "guarded jobs of lines are taken at once"
    ),
    _decision(
        "4.25",
        "start = (token >> 1) % len(queues) if queues else 0",
        "start = 0",
        "one queue's lines always go first",
    ),
]
IN_MEMORY = [
    _memory(
        "4.24",
        "limits",
        "    tables.woken_queues.update(tables.lanes, tables.lines.rings)\n",
        "",
        "changed limits wake nobody",
    ),
    _memory("4.24", "limits", "    _count(tables)\n    for", "    for", "what runs already is not counted"),
    _memory("4.24", "reserve", "    tables.arrivals.update(gates.changed)\n", "", "rates are forgotten"),
    _memory("4.24", "limits", "if arrival <= now]", "]", "a prune forgets rates that are in use"),
    _memory(
        "4.24",
        "reserve",
        "            gates.take_plain(queue, taken[queue])\n",
        "",
        "plain jobs cost a queue's rate nothing",
    ),
    _memory(
        "4.24",
        "reserve",
        "max(quota.queues[queue] - gates.queue_room(queue), 0)",
        "0",
        "plain jobs do not heed their queue's limit",
    ),
    _memory(
        "4.25",
        "lines",
        "return turn[2] == 0 or self._strays[turn[2] - 1].open_to(tasks, build)",
        "return True",
        "strays in lines are met again and again",
    ),
    _memory(
        "4.25",
        "lines",
        "place = 0 if self.after is None else bisect_right(self.order, self.after)",
        "place = 0",
        "each reserve begins with the first line",
    ),
    _memory(
        "4.24",
        "tables",
        "            self._wake_waiting(job)\n",
        "            pass\n",
        "room that a job leaves wakes nobody",
    ),
    _memory(
        "4.24",
        "tables",
        "            self.count(job, -1)\n",
        "            pass\n",
        "what has ended counts on",
    ),
    _memory(
        "4.25",
        "reserve",
        "request.limit if request.partitioned_limit is None else request.partitioned_limit",
        "request.limit",
        "more of lines is taken than can be started",
    ),
    _memory(
        "4.26",
        "upkeep",
        "order=None if before is None else before.order",
        "order=None",
        "a worker that is announced again has no order",
    ),
    _memory(
        "4.26", "upkeep", "in (request.order, Order.STOP)", "== request.order", "a drain takes back a stop"
    ),
    _memory("4.26", "acts", "named=before.named + named,", "named=named,", "a long act tells its last part"),
    _memory(
        "4.26",
        "acts",
        "if entry.at <= oldest]",
        "if entry.at > oldest]",
        "a prune removes new entries",
    ),
]
IN_SQLITE = [
    _sqlite(
        "4.24", "rules", "if known == revision:", "if known == revision or rules:", "old rules stay in force"
    ),
    _sqlite(
        "4.24",
        "serving",
        "        yield from keep_arrivals(list(self._gates.changed.items()))\n",
        "",
        "rates are forgotten",
    ),
    _sqlite("4.24", "rules", "AND j.token = l.token GROUP BY", "GROUP BY", "what went back counts as leased"),
    _sqlite(
        "4.24",
        "control",
        "+ iif(part IS NULL, 0, ?7)",
        "+ iif(part IS NULL, 0, ?7 - ?7)",
        "what is requeued leaves its line",
    ),
    _sqlite(
        "4.25",
        "serving",
        "request.limit if request.partitioned_limit is None else request.partitioned_limit",
        "request.limit",
        "more of lines is taken than can be started",
    ),
    _sqlite("4.25", "serving", "        yield from self._lines.keep_turns()\n", "", "turns are forgotten"),
    _sqlite(
        "4.25", "lines", "if line.stray in self._strays]", "]", "strays in lines are met again and again"
    ),
    _sqlite(
        "4.26", "acts", "SET named = named + excluded.named", "SET named = excluded.named", "parts are lost"
    ),
]

RINGS_IN_SQLITE = [
    _sqlite(
        "4.24",
        "leaving",
        "self._wakes.queues.update(queue for queue, _ in left if queue in queues)",
        "pass",
        "room that a job leaves in its queue wakes nobody",
    ),
    _sqlite(
        "4.24",
        "leaving",
        "self._wakes.queues.update([queue for (queue,) in (yield Query(QUEUES_WAITING))])",
        "pass",
        "room that a job leaves in its task wakes nobody",
    ),
    _sqlite(
        "4.24",
        "limits",
        "    step.wakes.queues.update(queue for (queue,) in (yield Query(_QUEUES)))\n",
        "    yield Query(_QUEUES)\n",
        "changed limits wake nobody",
    ),
]
"""Commits that ring no bell, noticed a moment later where one looks for them; see `test_sqlite_mutations`."""


def _cases(rule: str) -> Sequence[Case]:
    return [case for case in cases(rule=rule) if case.family in FAMILIES]


def test_every_mutation_has_its_place() -> None:
    assert misplaced([*DECISION, *IN_MEMORY, *IN_SQLITE, *RINGS_IN_SQLITE]) == []


@pytest.mark.slow
@pytest.mark.parametrize("mutation", DECISION, ids=mutation_name)
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
@pytest.mark.parametrize("mutation", IN_SQLITE, ids=mutation_name)
def test_a_rule_broken_in_sqlite_is_noticed(
    mutation: Mutation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskharbor_conformance.bench.WAKE_SECONDS", 0.5)

    with mutant_sqlite(tmp_path, mutation) as factory:
        noticed = first_failing(_cases(mutation.rule), factory)

    assert noticed, f"{mutation.why}, and none of the cases of rule {mutation.rule} fails"


@pytest.mark.slow
@pytest.mark.parametrize(
    "mutation", [*RINGS_IN_SQLITE, None], ids=lambda one: mutation_name(one) if one else "unmutated"
)
def test_a_ring_left_out_is_noticed_where_nobody_looks_for_commits(
    mutation: Mutation | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskharbor_conformance.bench.WAKE_SECONDS", 0.5 if mutation else 5)

    with (
        mutant_sqlite(tmp_path, mutation) as factory,
        mock.patch("mutant_sqlite.bell._DataVersion.changed", return_value=False),
    ):
        noticed = first_failing([case for case in _cases("4.10") if "wake" in case.id], factory)

    assert bool(noticed) == bool(mutation), noticed
