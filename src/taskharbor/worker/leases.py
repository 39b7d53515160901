"""What a worker holds: its leases, and the runs under them."""

from __future__ import annotations

from collections.abc import Iterable

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
        """Note that a run has a slot, of its own or with others."""
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
        return [*self.running.copy().values(), *self.orphans.copy()]

    def unreported(self) -> list[Run]:
        """Return the runs that have begun, and whose start the store has not been told under a lease it may know."""
        return [
            run
            for run in self.running.copy().values()
            if run.started and not run.reported and run.delivery.token in self.held
        ]

    def holds(self) -> tuple[list[LeaseHold], list[Run]]:
        """Return what to extend, and the runs whose start it reports."""
        starts: dict[int, list[str]] = {token: [] for token in self.held.copy()}
        reported = [run for run in self.unreported() if run.delivery.token in starts]
        for run in reported:
            starts[run.delivery.token].append(run.delivery.id)
        return [LeaseHold(token, started) for token, started in starts.items()], reported


class Unreported:
    """Finds the handlers that have run for a while without a report of their start, and costs no job anything."""

    def __init__(self) -> None:
        self._before: frozenset[Run] = frozenset()

    def look(self, runs: Iterable[Run]) -> bool:
        """Return whether some of these were unreported at the look before too. Then the next look begins anew."""
        now = frozenset(runs)
        found = not self._before.isdisjoint(now)
        self._before = frozenset() if found else now
        return found
