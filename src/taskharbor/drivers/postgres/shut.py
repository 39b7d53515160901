"""What limits and holds keep back at one instant: such jobs are shown as parked, with the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from taskharbor.driver.limiting import Gates
from taskharbor.drivers.postgres.gates import read_gates
from taskharbor.drivers.postgres.routine import Routine, text_array
from taskharbor.drivers.postgres.rules import read_rules
from taskharbor.drivers.postgres.step import Step
from taskharbor.job import JobState
from taskharbor.limit import KEYLESS, ScopeKind

_UNNAMED = "\0"
"""A partition that no job can have."""


class Shut(NamedTuple):
    """Which jobs no reserve may take now since a limit or a hold keeps them back: they are shown as parked."""

    gates: Gates
    tasks: frozenset[str]
    """Tasks all of whose jobs are kept back."""
    others: frozenset[tuple[str, str]]
    """Tasks and partitions with which it is the other way round."""

    def reason(self, task: str, part: str | None) -> str | None:
        """Return why jobs of a task and partition are kept back; None if they are not."""
        return self.gates.shut(task, KEYLESS if part is None else part)

    def shown(self, state: JobState, task: str, part: str | None) -> JobState:
        """Return the state in which a job is shown that would be in this one without limits and holds."""
        return JobState.PARKED if state is JobState.READY and self.reason(task, part) is not None else state

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
