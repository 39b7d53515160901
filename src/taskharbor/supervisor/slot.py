"""One place among N: the process that stands in it now, or when the next one will."""

from __future__ import annotations

from taskharbor.supervisor.child import Child
from taskharbor.supervisor.restart import Backoff


class Slot:
    """A place for one process at a time."""

    def __init__(self, number: int) -> None:
        """Start empty and due."""
        self.number = number
        """Counted from 1; each process that stands here is told it."""
        self.child: Child | None = None
        self.due: float | None = 0.0
        """When to start a process, on the monotonic clock; None while one is there, or none is wanted."""
        self.backoff = Backoff()
        self.finished = False
        """Its work is done: no process is started any more."""

    def finish(self) -> None:
        """Want no more processes here."""
        self.finished = True
        self.due = None


class Roll:
    """A rolling restart: one process after the other is drained and replaced, and works before the next one's turn."""

    def __init__(self) -> None:
        """Start with nothing to replace."""
        self.waiting: list[Slot] = []
        self.current: Slot | None = None

    def begin(self, slots: list[Slot]) -> None:
        """Replace all of these. The one whose turn it is gets another: its new process may be old by now."""
        self.waiting = list(slots)

    def next(self) -> Slot | None:
        """Return the slot whose turn begins now; None while another's lasts, or when all are done."""
        self.waiting = [slot for slot in self.waiting if not slot.finished]
        if self.current is not None or not self.waiting:
            return None
        self.current = self.waiting.pop(0)
        return self.current

    def over(self, slot: Slot) -> None:
        """End the turn of a slot whose new process works, or which needs none. Nothing if it was not its turn."""
        if slot is self.current:
            self.current = None

    def give_up(self) -> None:
        """Leave the others as they are."""
        self.waiting = []
        self.current = None
