"""What limits and holds keep back at one instant: such jobs are shown as parked, with the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from taskharbor.driver.limiting import Gates
from taskharbor.drivers.postgres.gates import read_gates
from taskharbor.drivers.postgres.routine import Routine, text_array
from taskharbor.drivers.postgres.rules import read_rules
from taskharbor.drivers.postgres.step import Step
from taskharbor.limit import KEYLESS, ScopeKind

_UNNAMED = "\0"
"""A partition that no job can have."""


def reason(gates: Gates | None, task: str, part: str | None) -> str | None:
    """Return why jobs of a task and partition are kept back; None if they are not, or nothing is limited or held."""
    return None if gates is None else gates.shut(task, KEYLESS if part is None else part)


def read_gates_of(step: Step, lines: Iterable[tuple[str, str | None]]) -> Routine[Gates | None]:
    """Return the gates of some tasks and partitions; None if nothing is limited or held there."""
    named = {(task, KEYLESS if part is None else part) for task, part in lines}
    rules = (yield from read_rules()).rules if named else None
    if rules is None or not any(task in rules.governed for task, _ in named):
        return None
    return (yield from read_gates(step, rules, named)).gates(rules)


class Shut(NamedTuple):
    """Which jobs no reserve may take now since a limit or a hold keeps them back, in words for the server."""

    gates: Gates
    tasks: frozenset[str]
    """Tasks all of whose jobs are kept back."""
    others: frozenset[tuple[str, str]]
    """Tasks and partitions with which it is the other way round."""

    def condition(self, parameter: Callable[[str], str]) -> str:
        """Return SQL for whether a job `j` is kept back; `parameter` takes a cell, and returns SQL for it, as text."""
        tasks = f"j.task = ANY ({parameter(text_array(sorted(self.tasks)))}::text[])"
        if not self.others:
            return tasks
        names, parts = zip(*sorted(self.others), strict=True)
        pairs = f"{parameter(text_array(names))}::text[], {parameter(text_array(parts))}::text[]"
        return f"(({tasks}) <> ((j.task, coalesce(j.part, '')) IN (SELECT * FROM unnest({pairs}))))"


def read_shut(step: Step) -> Routine[Shut | None]:
    """Return what is kept back now; None where nothing is limited or held."""
    rules = (yield from read_rules()).rules
    if not rules.governed:
        return None
    seen = yield from read_gates(step, rules)
    gates = seen.gates(rules)
    tasks = frozenset(task for task in rules.governed if gates.shut(task, _UNNAMED) is not None)
    named = {(task, part) for _, task, part in seen.running}
    named.update(
        (scope.name, scope.key)
        for scope in (*rules.terms, *rules.held, *seen.arrivals)
        if scope.kind is ScopeKind.KEY
    )
    others = [pair for pair in named if (gates.shut(*pair) is not None) is not (pair[0] in tasks)]
    return Shut(gates, tasks, frozenset(others))
