"""Strays: jobs that some worker met and could not run, each kind in lanes of its own (rule 16)."""

from __future__ import annotations

import msgspec

from taskharbor.drivers.postgres.routine import Query, Routine
from taskharbor.drivers.postgres.rows import interval_of
from taskharbor.drivers.postgres.step import Step

STRAY_LOCK = "hashtextextended('taskharbor.stray', 0)"
"""The advisory lock of who makes jobs strays, shared, and of who drops kinds that no job is of."""
_STRAYS = "SELECT id, task, refused_by FROM taskharbor.stray"
_ABILITIES = f"""SELECT tasks::text, build FROM taskharbor.worker
    WHERE seen_at + {interval_of("ttl")} > coalesce($1::text::timestamptz, clock_timestamp())"""
_refused_by = msgspec.json.Decoder(tuple[str, ...])
_tasks = msgspec.json.Decoder(frozenset[str])


class Stray(msgspec.Struct, frozen=True):
    """Which workers may take a job that some could not: those that know the task and are of none of the builds."""

    number: int
    task: str
    refused_by: tuple[str, ...]

    def open_to(self, tasks: frozenset[str], build: str) -> bool:
        """Return whether a worker of that build, knowing those tasks, may take it."""
        return self.task in tasks and build not in self.refused_by


def strays() -> Routine[dict[int, Stray]]:
    """Return every kind of stray by its number."""
    rows = yield Query(_STRAYS)
    return {number: Stray(number, task, _refused_by.decode(refused_by)) for number, task, refused_by in rows}


def parked_strays(step: Step) -> Routine[set[int]]:
    """Return the kinds of strays that no live worker may take."""
    kinds = yield from strays()
    if not kinds:
        return set()
    rows = yield Query(_ABILITIES, (step.now,))
    workers = [(_tasks.decode(tasks), build) for tasks, build in rows]
    return {
        number
        for number, stray in kinds.items()
        if not any(stray.open_to(tasks, build) for tasks, build in workers)
    }
