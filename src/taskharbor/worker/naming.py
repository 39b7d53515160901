"""How the log names jobs: by id and task, never by what they carry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from taskharbor.worker.run import Run

MOST_NAMED: Final = 10
"""No line names more jobs than that; it counts the others."""


def named(runs: Sequence[Run]) -> str:
    """Return the jobs of some runs in words, such as `job 0197... (task 'mail.send'), and 3 more`; no run, ""."""
    told = [f"job {run.delivery.id} (task {run.delivery.task!r})" for run in runs[:MOST_NAMED]]
    if len(runs) > MOST_NAMED:
        told.append(f"and {len(runs) - MOST_NAMED} more")
    return ", ".join(told)
