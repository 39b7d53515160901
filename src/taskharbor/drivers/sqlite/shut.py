"""What may not be taken at one instant: kinds of strays that nobody can run, and what limits and holds keep back."""

from __future__ import annotations

from typing import NamedTuple

from taskharbor.driver import Gates
from taskharbor.drivers.sqlite.routine import Cell, Routine
from taskharbor.drivers.sqlite.rows import Step, json_text
from taskharbor.drivers.sqlite.rules import gates_now
from taskharbor.drivers.sqlite.upkeep import parked_strays
from taskharbor.limit import KEYLESS, ScopeKind

_UNNAMED = "\0"
"""A partition that no job can have."""


class Shut(NamedTuple):
    """Which jobs that are due no reserve may take now."""

    strays: set[int]
    """Kinds that no live worker may take."""
    gates: Gates | None
    """Of limits and holds; None if there are none."""
    tasks: frozenset[str] = frozenset()
    """Tasks all of whose jobs are kept back."""
    others: frozenset[tuple[str, str]] = frozenset()
    """Tasks and partitions with which it is the other way round."""

    def reason(self, task: str, part: str | None) -> str | None:
        """Return why jobs of a task and partition are kept back; None if they are not."""
        return None if self.gates is None else self.gates.shut(task, part or KEYLESS)

    def values(self) -> dict[str, Cell]:
        """Return the parameters that the conditions of `states` take."""
        return {
            "parked": json_text(sorted(self.strays)),
            "shut_tasks": json_text(sorted(self.tasks)),
            "shut_others": json_text(sorted(self.others)),
        }


def shut_now(step: Step) -> Routine[Shut]:
    """Return what may not be taken now."""
    strays = yield from parked_strays(step.now)
    gates = yield from gates_now(step)
    if gates is None:
        return Shut(strays, None)
    tasks = frozenset(task for task in gates.rules.governed if gates.shut(task, _UNNAMED) is not None)
    named = {(scope.name, scope.key) for scope in gates.scopes() if scope.kind is ScopeKind.KEY}
    others = frozenset(pair for pair in named if (gates.shut(*pair) is not None) is not (pair[0] in tasks))
    return Shut(strays, gates, tasks, others)
