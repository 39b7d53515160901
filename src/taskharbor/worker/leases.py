"""What a worker holds: its leases, and the runs under them."""

from __future__ import annotations

from taskharbor.driver import LeaseHold
from taskharbor.worker.run import Run


class Leases:
    """What this worker holds: shared by its event loop, which changes it, and its keeper, which reads it."""

    def __init__(self) -> None:
        self.held: dict[int, int] = {}
        """Token to the number of jobs not settled yet."""
        self.running: dict[str, Run] = {}
        """Job id to its run, from its start to its outcome."""
        self.orphans: set[Run] = set()
        """Runs whose lease was lost and whose job is running here again, before they have ended."""

    def add(self, token: int, jobs: int) -> None:
        """Note a new lease."""
        self.held[token] = jobs

    def drop(self, token: int, jobs: int = 1) -> None:
        """Note that so many of its jobs were settled, or belong to another now."""
        left = self.held.get(token, 0) - jobs
        if left > 0:
            self.held[token] = left
        else:
            self.held.pop(token, None)

    def begin(self, run: Run) -> None:
        """Note that a run has a slot."""
        before = self.running.get(run.delivery.id)
        if before is not None:
            self.orphans.add(before)
        self.running[run.delivery.id] = run

    def end(self, run: Run) -> None:
        """Note that a run has left its slot."""
        if self.running.get(run.delivery.id) is run:
            del self.running[run.delivery.id]
        else:
            self.orphans.discard(run)

    def runs(self) -> list[Run]:
        """Return all that run."""
        return [*self.running.values(), *self.orphans]

    def holds(self) -> tuple[list[LeaseHold], list[Run]]:
        """Return what to extend, and the runs whose start it reports."""
        starts: dict[int, list[str]] = {token: [] for token in self.held.copy()}
        reported: list[Run] = []
        for run in list(self.running.copy().values()):
            if run.started and not run.reported and run.delivery.token in starts:
                starts[run.delivery.token].append(run.delivery.id)
                reported.append(run)
        return [LeaseHold(token, started) for token, started in starts.items()], reported
