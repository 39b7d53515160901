"""Firing what is due: the leader's share of schedules. What becomes of each is decided in `taskharbor.scheduling`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Final, NamedTuple, TypeAlias

from taskharbor.driver import (
    DueSchedules,
    Enqueued,
    EnqueueStatus,
    Fired,
    Firing,
    ScheduleDue,
    ScheduleFire,
    Store,
)
from taskharbor.job import NewJob
from taskharbor.scheduling import plan
from taskharbor.upkeep.leadership import Leadership

logger = logging.getLogger("taskharbor.upkeep")

Told: TypeAlias = Callable[[Sequence[NewJob], Sequence[Enqueued]], None]

_CONFLICT: Final = EnqueueStatus.CONFLICT
_LOOK: Final = 500
"""Schedules of one look."""
_JOBS: Final = 1000
"""Jobs of one request, but for a single schedule's that has more."""
_PLANNING_SECONDS: Final = 0.05
"""So long others that share the loop wait for plans: leases are kept on it, and the lead. What is planned by then is
fired, and they have their turn."""
_FRUITLESS: Final = 3
"""So many looks that have changed nothing are enough, until the next time."""


class Pass(NamedTuple):
    """What came of going through all that is due."""

    jobs: int
    """Stored, or there already under their ids and keys."""
    next_in: timedelta | None
    """Until something is due again; None if nothing is foreseen."""


class Scheduler:
    """Fires schedules while its worker leads."""

    def __init__(
        self,
        leadership: Leadership,
        told: Told = lambda _jobs, _answers: None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare it; `told` hears of the jobs of each firing, with the store's answers."""
        self._leadership = leadership
        self._monotonic = monotonic
        self._told = told
        self.jobs = 0
        """Made in all, however far a pass came: stored, or there already under their ids and keys."""
        self._broken: dict[str, int] = {}
        """Schedules that could not be planned, with the revision for which that was logged."""
        self._conflicts: dict[str, str] = {}
        """Schedules whose key a job with other arguments has, by the job for which that was logged."""

    async def fire_due(self, store: Store) -> Pass:
        """Go through what is due until nothing is, or until this worker does not lead any more.

        A schedule that was written meanwhile is looked at again; one that cannot be planned is passed over.

        Raises:
            StoreUnavailable: the store cannot be reached. What was fired stays fired, and no tick twice.
        """
        jobs = fruitless = 0
        while self._leadership.leads():
            # Those passed over stand first, and would leave no room for others.
            found = await store.schedule_due(ScheduleDue(limit=_LOOK + len(self._broken)))
            firings: list[Firing] = []
            moved = 0
            for planned in self._planned(found):
                firings += planned
                for some in _requests(planned):
                    fence = self._leadership.fence
                    if fence is None:
                        return Pass(jobs, None)
                    answers = await store.schedule_fire(ScheduleFire(firings=some, fence=fence))
                    moved += sum(answer.moved for answer in answers)
                    made = sum(len(answer.jobs) for answer in answers)
                    jobs += made
                    self.jobs += made
                    self._tell(some, answers)
                await asyncio.sleep(0)
            if not firings:
                return Pass(jobs, found.next_in)
            if not moved:
                # Others wrote each of them meanwhile; or another leads, as after a jump of the store's clock.
                fruitless += 1
                if fruitless == _FRUITLESS:
                    break
                await self._leadership.ask(store)
            elif moved == len(firings):
                next_in = _next_in(found, firings)
                if next_in is None or next_in > timedelta(0):
                    return Pass(jobs, next_in)
        return Pass(jobs, None)

    def _tell(self, firings: Sequence[Firing], answers: Sequence[Fired]) -> None:
        for firing, answer in zip(firings, answers, strict=True):
            if answer.jobs:
                self._told(firing.jobs, answer.jobs)
                self._warn_of_conflict(firing, answer.jobs)

    def _warn_of_conflict(self, firing: Firing, answers: Sequence[Enqueued]) -> None:
        """Say that a key keeps ticks out which mean another request: nobody is there to be told by an error."""
        last = next(
            ((job, one) for job, one in zip(firing.jobs, answers, strict=True) if one.status is _CONFLICT),
            None,
        )
        if last is None:
            self._conflicts.pop(firing.name, None)
            return
        job, answer = last
        if self._conflicts.get(firing.name) != answer.job_id:
            logger.warning(
                "schedule %r made no job: its key %r is taken by job %s, with other arguments or not to be replaced; "
                "its ticks are counted as kept out while that job has the key",
                firing.name,
                job.key,
                answer.job_id,
            )
        self._conflicts[firing.name] = answer.job_id

    def _planned(self, found: DueSchedules) -> Iterator[list[Firing]]:
        """Yield what is planned, in parts that take no longer than `_PLANNING_SECONDS` and one plan."""
        planned: list[Firing] = []
        begun = self._monotonic()
        for due in found.due:
            if planned and self._monotonic() - begun >= _PLANNING_SECONDS:
                yield planned
                planned, begun = [], self._monotonic()
            record = due.record
            try:
                planned.append(plan(due, found.now))
                self._broken.pop(record.name, None)
            except Exception:  # whatever it is: the others have to be fired
                if self._broken.get(record.name) != record.revision:
                    logger.exception(
                        "schedule %r cannot be fired: its ticks cannot be told here; correct it, or pause it with "
                        "`taskharbor schedules pause`",
                        record.name,
                    )
                self._broken[record.name] = record.revision
        if planned:
            yield planned


def _requests(firings: Sequence[Firing]) -> Iterator[Sequence[Firing]]:
    """Yield them in requests of a bearable size."""
    some: list[Firing] = []
    jobs = 0
    for firing in firings:
        if some and jobs + len(firing.jobs) > _JOBS:
            yield some
            some, jobs = [], 0
        some.append(firing)
        jobs += len(firing.jobs)
    if some:
        yield some


def _next_in(found: DueSchedules, firings: Sequence[Firing]) -> timedelta | None:
    waits = [firing.next_at - found.now for firing in firings if firing.next_at is not None]
    if found.next_in is not None:
        waits.append(found.next_in)
    return min(waits, default=None)
