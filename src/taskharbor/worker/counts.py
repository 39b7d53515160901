"""What a worker has done, counted by what became of each delivery."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from taskharbor.job import JobState
from taskharbor.settlement import STATE_AFTER, Settled, Settlement, SettleStatus


class WorkerCounts(msgspec.Struct):
    """What a worker has done since it started."""

    settled: dict[str, int] = {}
    """Deliveries written down, by the state the job went to."""
    stale: int = 0
    """Deliveries whose lease was lost before they were written down."""

    def add(self, state: str, jobs: int) -> None:
        """Count jobs that went to a state."""
        self.settled[state] = self.settled.get(state, 0) + jobs

    def note(self, settlements: Sequence[Settlement], answers: Sequence[Settled]) -> None:
        """Count what the store answered to settlements, one answer each, in order."""
        succeeded = 0
        for written, answer in zip(settlements, answers, strict=True):
            if answer.state is JobState.SUCCEEDED:
                succeeded += 1
            elif answer.status is SettleStatus.STALE:
                self.stale += 1
            else:  # ALREADY tells no state: the answer to the first asking was lost
                self.add((answer.state or STATE_AFTER[written.kind]).value, 1)
        if succeeded:
            self.add(JobState.SUCCEEDED.value, succeeded)
